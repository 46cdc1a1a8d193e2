//! Reads `#[mosaik::app]` on a unit struct.

use proc_macro2::{Span, TokenStream};
use syn::{Fields, ItemStruct};

use super::{args::Args, grammar};
use crate::{
    diag::Diag,
    model::{self, App, Name},
};

pub(crate) fn app(attribute: TokenStream, item: TokenStream, diag: &Diag) -> Option<App> {
    let before = diag.count();
    let args = Args::parse(&grammar::APP, attribute, None, diag);
    let clean = diag.count() == before;
    let item: ItemStruct = super::item(grammar::APP.name, "a unit struct, such as `struct Weather;`", item, diag)?;
    if !matches!(item.fields, Fields::Unit) {
        diag.error(&item.fields, "an app is a unit struct, such as `struct Weather;`: state lives in its roles");
    }
    if !item.generics.params.is_empty() {
        diag.error(&item.generics, "an app has no generic parameters");
    }
    if args.types("roles").is_empty() && clean {
        let at = args.key("roles").map_or_else(Span::call_site, syn::Ident::span);
        diag.error_at(at, "an app has at least one role: `roles = [Sensor, Display]`");
    }
    Some(App {
        runtime: model::runtime_crate(args.path("crate")),
        name: Name::new(args.text("name"), &item.ident, model::kebab),
        docs: model::docs(&item.attrs),
        roles: args.types("roles").to_vec(),
        ident: item.ident,
    })
}
