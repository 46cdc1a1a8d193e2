//! From tokens to the model: reads attributes by the grammar and items by their syntax, and reports what cannot be
//! read. Whether what was read makes sense is the business of `check`.

mod app;
mod args;
mod cfg;
mod derived;
pub(crate) mod grammar;
mod group;
mod handlers;
mod machine;
mod main;
mod node;
mod options;
mod retain;
mod serde;
mod states;
mod store;
mod stream;
mod test;

pub(crate) use app::app;
pub(crate) use derived::derived;
pub(crate) use group::group;
pub(crate) use handlers::{handlers, misspelt_helpers};
pub(crate) use machine::machine;
pub(crate) use main::main;
pub(crate) use node::node;
pub(crate) use serde::serde_keys;
pub(crate) use store::store;
pub(crate) use stream::stream;
pub(crate) use test::test;

use proc_macro2::TokenStream;
use syn::{Attribute, Meta, parse::Parse};

use crate::diag::Diag;

/// Reads the item that an attribute stands on; `expected` completes "goes on ..".
fn item<T: Parse>(attribute: &str, expected: &str, item: TokenStream, diag: &Diag) -> Option<T> {
    match syn::parse2(item.clone()) {
        Ok(item) => Some(item),
        Err(error) => {
            // Another kind of item is the user's mistake; an item that is none at all, the compiler reports itself.
            match syn::parse2::<syn::Item>(item) {
                Ok(other) => diag.error(header(&other), format!("{attribute} goes on {expected}")),
                Err(_) => diag.syntax(error),
            }
            None
        }
    }
}

/// A function with an empty body: what it does may be unfinished.
fn test_body(item: TokenStream) -> TokenStream {
    let mut trees: Vec<proc_macro2::TokenTree> = item.into_iter().collect();
    if let Some(proc_macro2::TokenTree::Group(body)) = trees.last()
        && body.delimiter() == proc_macro2::Delimiter::Brace
    {
        trees.pop();
        trees.push(proc_macro2::Group::new(proc_macro2::Delimiter::Brace, TokenStream::new()).into());
    }
    trees.into_iter().collect()
}

/// The first tokens of an item, enough to point at it.
fn header(item: &syn::Item) -> TokenStream {
    let tokens = quote::ToTokens::to_token_stream(item);
    let (_, rest) = crate::tokens::split_attributes(tokens);
    rest.into_iter().take(3).filter(|tree| !matches!(tree, proc_macro2::TokenTree::Group(_))).collect()
}

/// The inside of a helper attribute's brackets: nothing for `#[start]`.
fn inside(attribute: &Attribute, diag: &Diag) -> TokenStream {
    match &attribute.meta {
        Meta::Path(_) => TokenStream::new(),
        Meta::List(list) => list.tokens.clone(),
        Meta::NameValue(pair) => {
            let name = pair.path.get_ident().map_or_else(String::new, ToString::to_string);
            diag.error(pair, format!("write `#[{name}(..)]`"));
            TokenStream::new()
        }
    }
}
