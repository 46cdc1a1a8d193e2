//! Reads `#[mosaik::main]` on an `async fn main`.

use proc_macro2::{Span, TokenStream};
use syn::ItemFn;

use super::{args::Args, grammar};
use crate::{
    diag::Diag,
    model::{self, Main},
};

pub(crate) fn main(attribute: TokenStream, item: TokenStream, diag: &Diag) -> Option<Main> {
    let args = Args::parse(&grammar::MAIN, attribute, None, diag);
    let item: ItemFn = super::item(grammar::MAIN.name, "`async fn main(net: Network)`", item, diag)?;
    Some(Main {
        runtime: model::runtime_crate(args.path("crate")),
        name: args.text("name").cloned(),
        tags: args.exprs("tags").to_vec(),
        docs: model::docs(&item.attrs),
        function: item.sig,
        at: Span::call_site(),
    })
}
