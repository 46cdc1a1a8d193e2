//! Prints a checked model as code: data and calls into `<runtime>::__private`, never logic, and never a change to what
//! the user wrote. Generated code names everything by absolute paths, so that nothing in the user's scope can change
//! its meaning.

mod app;
mod bytes;
mod client;
mod derived;
mod group;
mod handlers;
mod machine;
mod main;
mod node;
mod options;
mod states;
mod store;
mod stream;
mod test;

pub(crate) use app::app;
pub(crate) use derived::derived;
pub(crate) use group::group;
pub(crate) use handlers::handlers;
pub(crate) use machine::machine;
pub(crate) use main::main;
pub(crate) use node::node;
pub(crate) use states::documentation;
pub(crate) use store::store;
pub(crate) use stream::{stream, with_serde};
pub(crate) use test::test;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Expr, LitStr, spanned::Spanned};

use crate::model::parse_period;

/// A time that is written as text; one that cannot be read has been reported.
fn duration(period: &LitStr) -> TokenStream {
    let nanos = parse_period(&period.value()).unwrap_or(1);
    quote!(::core::time::Duration::from_nanos(#nanos))
}

/// Tags as constants; each is checked where it was written.
fn tags(runtime: &TokenStream, tags: &[Expr]) -> TokenStream {
    let tags = tags.iter().map(|tag| {
        let runtime = at(runtime, tag.span());
        quote_spanned!(tag.span()=> #runtime::__private::TagDecl::new(#tag))
    });
    quote!(&[#(#tags),*])
}

/// The path moved to where an error about what follows it should be shown.
fn at(path: &TokenStream, span: Span) -> TokenStream {
    crate::tokens::at(path.clone(), span)
}

/// How a type may change from one program to the next, as a constant of a trait.
fn evolve(runtime: &TokenStream, variant: &str) -> TokenStream {
    let variant = syn::Ident::new(variant, Span::call_site());
    quote!(const EVOLVE: #runtime::primitives::Evolve = #runtime::primitives::Evolve::#variant;)
}

/// Where something was declared: the file and line of the token, not of the attribute.
fn place(runtime: &TokenStream, span: Span) -> TokenStream {
    let (file, line) = (quote_spanned!(span=> ::core::file!()), quote_spanned!(span=> ::core::line!()));
    quote!(#runtime::node::Place { file: #file, line: #line })
}

/// The call that adds the label to a declaration, if there is one.
fn labelled(label: Option<&LitStr>) -> Option<TokenStream> {
    label.map(|label| quote!(.labelled(#label)))
}

/// The call that adds the grants of the two ends to a declaration, if there are any.
fn granting(first: &[LitStr], second: &[LitStr]) -> Option<TokenStream> {
    let any = !first.is_empty() || !second.is_empty();
    any.then(|| quote!(.granting(&[#(#first),*], &[#(#second),*])))
}
