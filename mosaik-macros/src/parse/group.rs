//! Reads `#[mosaik::group]`: the attribute, and the fields of the machine below it.

use proc_macro2::{Span, TokenStream};
use syn::{Attribute, Expr, ExprLit, Fields, Item, Lit};

use super::{args::Args, grammar, serde};
use crate::{
    diag::Diag,
    model::{self, Group, Key, Name, StateField},
};

pub(crate) fn group(attribute: TokenStream, item: TokenStream, diag: &Diag) -> Option<Group> {
    let before = diag.count();
    let args = Args::parse(&grammar::GROUP, attribute, None, diag);
    let clean = diag.count() == before;
    let expected = "the struct of a state machine";
    let (ident, generics, attributes, fields) = match super::item::<Item>(grammar::GROUP.name, expected, item, diag)? {
        Item::Struct(item) => {
            serde::check_fields(&item.attrs, &item.fields, diag);
            (item.ident, item.generics, item.attrs, state_fields(&item.fields, diag))
        }
        Item::Enum(item) => {
            for variant in &item.variants {
                serde::check_item(&variant.ident, &variant.attrs, true, diag);
                serde::check_fields(&variant.attrs, &variant.fields, diag);
            }
            let fields = item.variants.iter().flat_map(|variant| state_fields(&variant.fields, diag)).collect();
            (item.ident, item.generics, item.attrs, fields)
        }
        other => {
            diag.error(super::header(&other), format!("{} goes on {expected}", grammar::GROUP.name));
            return None;
        }
    };
    let key = args.expr("key").and_then(|expr| key(expr, diag));
    if args.key("key").is_none() && clean {
        diag.error_at(
            Span::call_site(),
            "a group has a key, which its members share: `key = env(\"VARIABLE\")`, `key = file(\"..\")`, \
             `key = secret(\"..\")` or an expression of type `GroupKey`",
        );
    }
    Some(Group {
        runtime: model::runtime_crate(args.path("crate")),
        name: Name::new(args.text("name"), &ident, str::to_owned),
        docs: model::docs(&attributes),
        key,
        size: args.expr("size").cloned(),
        initial: args.expr("initial").cloned(),
        member: args.texts("member").to_vec(),
        call: args.texts("call").to_vec(),
        label: args.text("label").cloned(),
        ident,
        generics,
        fields,
    })
}

fn key(expr: &Expr, diag: &Diag) -> Option<Key> {
    const USAGE: &str = "`key = env(\"VARIABLE\")` reads it from the environment, `key = file(\"..\")` from a file, `key = secret(\"..\")` makes \
         it from a text";
    if let Expr::Lit(ExprLit { lit: Lit::Str(_), .. }) = expr {
        diag.error(expr, format!("say what this text is: {USAGE}"));
        return None;
    }
    let Expr::Call(call) = expr else { return Some(Key::Value(expr.clone())) };
    let Expr::Path(function) = &*call.func else { return Some(Key::Value(expr.clone())) };
    let kind: fn(Expr) -> Key = if function.path.is_ident("env") {
        Key::Env
    } else if function.path.is_ident("file") {
        Key::File
    } else if function.path.is_ident("secret") {
        Key::Secret
    } else {
        return Some(Key::Value(expr.clone()));
    };
    if call.args.len() != 1 {
        diag.error(expr, USAGE);
        return None;
    }
    let text = call.args.first()?;
    if let Expr::Lit(ExprLit { lit, .. }) = text {
        let empty = matches!(lit, Lit::Str(text) if text.value().trim().is_empty());
        if empty || !matches!(lit, Lit::Str(_)) {
            diag.error(text, format!("this is not a text that names something: {USAGE}"));
            return None;
        }
    }
    Some(kind(text.clone()))
}

/// The types of the fields of a machine.
fn state_fields(fields: &Fields, diag: &Diag) -> Vec<StateField> {
    let read = |field: &syn::Field| StateField { ty: field.ty.clone(), excused: excused(&field.attrs, diag) };
    fields.iter().map(read).collect()
}

/// Whether `#[mosaik(nondeterministic = "..")]` is among the attributes.
pub(super) fn excused(attributes: &[Attribute], diag: &Diag) -> bool {
    let mut excused = false;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("mosaik")) {
        let before = diag.count();
        let args = Args::parse(&grammar::EXCUSE, super::inside(attribute, diag), Some(attribute), diag);
        match args.text("nondeterministic") {
            Some(reason) if reason.value().trim().is_empty() => {
                diag.error(reason, "say why it does no harm here, for the next reader");
            }
            Some(_) => {}
            None if diag.count() == before => {
                diag.error(
                    attribute,
                    "say which rule does not hold: `#[mosaik(nondeterministic = \"why it does no harm\")]`",
                );
            }
            None => {}
        }
        // Also when it was malformed: one mistake is one error.
        excused = true;
    }
    excused
}
