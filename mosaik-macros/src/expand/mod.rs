//! Prints a checked model as code: data and calls into `<runtime>::__private`, never logic, and never a change to what
//! the user wrote. Generated code names everything by absolute paths, so that nothing in the user's scope can change
//! its meaning.

mod app;
mod handlers;
mod main;
mod node;
mod stream;

pub(crate) use app::app;
pub(crate) use handlers::handlers;
pub(crate) use main::main;
pub(crate) use node::node;
pub(crate) use stream::{stream, with_serde};

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Expr, spanned::Spanned};

/// Tags as constants; each is checked where it was written.
fn tags(runtime: &TokenStream, tags: &[Expr]) -> TokenStream {
    let tags = tags.iter().map(|tag| quote_spanned!(tag.span()=> #runtime::__private::TagDecl::new(#tag)));
    quote!(&[#(#tags),*])
}
