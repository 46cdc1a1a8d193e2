//! Reads `#[mosaik::node]` and the `#[mosaik(..)]` attributes on its fields.

use proc_macro2::TokenStream;
use syn::{Attribute, Expr, ExprLit, Fields, GenericArgument, ItemStruct, Lit, PathArguments, Type};

use super::{args::Args, cfg::Way, grammar, options};
use crate::{
    diag::Diag,
    model::{self, DefaultValue, Field, Name, Node, Shape, Source},
    tokens::FIELD_HELPERS,
};

pub(crate) fn node(attribute: TokenStream, item: TokenStream, diag: &Diag) -> Option<Node> {
    let args = Args::parse(&grammar::NODE, attribute, None, diag);
    let item: ItemStruct = super::item(grammar::NODE.name, "a struct with named fields", item, diag)?;
    let fields = match &item.fields {
        Fields::Named(named) => named.named.iter().flat_map(|each| field(each, diag)).collect(),
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
        clears: args.texts("clears").to_vec(),
        attest: args.text("attest").cloned(),
        ident: item.ident,
        generics: item.generics,
        fields,
    })
}

/// The field, once for each way in which its `cfg_attr`s can turn out.
fn field(field: &syn::Field, diag: &Diag) -> Vec<Field> {
    let Some(ident) = &field.ident else { return Vec::new() };
    let ways = super::cfg::ways(&field.attrs, FIELD_HELPERS);
    // Two that depend on conditions are meant to exclude each other; if they do not, the compiler misses the field.
    let several = ways.len() > 1;
    ways.into_iter()
        .filter(|way| !several || way.helpers.len() < 2)
        .map(|Way { cfgs, helpers }| Field {
            docs: model::docs(&field.attrs),
            ident: ident.clone(),
            ty: field.ty.clone(),
            source: source(&helpers, &field.ty, diag),
            cfgs,
        })
        .collect()
}

fn source(helpers: &[Attribute], ty: &Type, diag: &Diag) -> Source {
    let endpoint = || Source::Endpoint { settings: Vec::new(), only_if: None };
    let Some(helper) = helpers.first() else { return endpoint() };
    if let Some(second) = helpers.get(1) {
        diag.error(second, "put all keys into one #[mosaik(..)]");
    }
    let before = diag.count();
    let args = Args::parse(&grammar::FIELD, super::inside(helper, diag), Some(helper), diag);
    let settings = options::settings(&args, diag);
    let only_if = options::only_if(&args, diag);
    match read_source(&args, ty) {
        Some(source) => {
            let what = if args.key("arg").is_some() { "a flag" } else { "state of the role" };
            for key in settings.iter().map(|setting| &setting.key).chain(args.key("only_if")) {
                diag.error(key, format!("`{key}` is an option of an endpoint, and this field is {what}"));
            }
            source
        }
        None if settings.is_empty() && only_if.is_none() => {
            if diag.count() == before {
                diag.error(
                    helper,
                    "say where the value comes from: #[mosaik(arg)], #[mosaik(arg, default = ..)] or #[mosaik(default)]",
                );
            }
            endpoint()
        }
        None => Source::Endpoint { settings, only_if },
    }
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
