//! Reads `#[mosaik::node]` and the `#[mosaik(..)]` attributes on its fields.

use proc_macro2::TokenStream;
use syn::{Expr, ExprLit, Fields, GenericArgument, ItemStruct, Lit, PathArguments, Type};

use super::{args::Args, grammar};
use crate::{
    diag::Diag,
    model::{self, DefaultValue, Field, Name, Node, Shape, Source},
};

pub(crate) fn node(attribute: TokenStream, item: TokenStream, diag: &Diag) -> Option<Node> {
    let args = Args::parse(&grammar::NODE, attribute, None, diag);
    let item: ItemStruct = super::item(grammar::NODE.name, "a struct with named fields", item, diag)?;
    let fields = match &item.fields {
        Fields::Named(named) => named.named.iter().filter_map(|each| field(each, diag)).collect(),
        Fields::Unit => Vec::new(),
        Fields::Unnamed(unnamed) => {
            diag.error(unnamed, "a role has named fields: handlers, flags and the graph refer to them by name");
            Vec::new()
        }
    };
    Some(Node {
        runtime: model::runtime_crate(args.path("crate")),
        name: Name::new(args.text("name"), &item.ident, model::kebab),
        docs: model::docs(&item.attrs),
        tags: args.exprs("tags").to_vec(),
        ident: item.ident,
        generics: item.generics,
        fields,
    })
}

fn field(field: &syn::Field, diag: &Diag) -> Option<Field> {
    let ident = field.ident.clone()?;
    if let Some(cfg) = field.attrs.iter().find(|attribute| attribute.path().is_ident("cfg")) {
        diag.error(cfg, "a field of a role cannot depend on `cfg`: put the `cfg` on the role");
    }
    let mut source = Source::Endpoint;
    let mut helpers = field.attrs.iter().filter(|attribute| attribute.path().is_ident("mosaik"));
    if let Some(helper) = helpers.next() {
        let before = diag.count();
        let args = Args::parse(&grammar::FIELD, super::inside(helper, diag), Some(helper), diag);
        match read_source(&args, &field.ty) {
            Some(read) => source = read,
            None if diag.count() == before => diag.error(
                helper,
                "say where the value comes from: #[mosaik(arg)], #[mosaik(arg, default = ..)] or #[mosaik(default)]",
            ),
            None => {}
        }
    }
    if let Some(second) = helpers.next() {
        diag.error(second, "put all keys into one #[mosaik(..)]");
    }
    Some(Field { docs: model::docs(&field.attrs), ident, ty: field.ty.clone(), source })
}

fn read_source(args: &Args, ty: &Type) -> Option<Source> {
    let default = args.key("default").is_some();
    match (args.key("arg"), default) {
        (Some(_), _) => {
            let default = args.expr("default").map(|expr| match expr {
                Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => DefaultValue::Text(text.clone()),
                other => DefaultValue::Value(other.clone()),
            });
            let default = match default {
                // `default` alone beside `arg`: the type's own default.
                None if args.key("default").is_some() => {
                    Some(DefaultValue::Value(syn::parse_quote!(::core::default::Default::default())))
                }
                other => other,
            };
            Some(Source::Arg { shape: shape(ty, default.is_some()), default })
        }
        (None, true) => Some(Source::Default(args.expr("default").cloned())),
        (None, false) => None,
    }
}

/// As clap's own derive does, by the last segment of the written type.
fn shape(ty: &Type, has_default: bool) -> Shape {
    let Type::Path(path) = ty else { return Shape::Single };
    let Some(last) = path.path.segments.last() else { return Shape::Single };
    let one_argument = matches!(&last.arguments, PathArguments::AngleBracketed(list)
        if list.args.len() == 1 && matches!(list.args.first(), Some(GenericArgument::Type(_))));
    match last.ident.to_string().as_str() {
        "bool" if !has_default => Shape::Switch,
        "Option" if one_argument => Shape::Optional,
        "Vec" if one_argument => Shape::Many,
        _ => Shape::Single,
    }
}
