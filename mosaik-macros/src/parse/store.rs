//! Reads `#[mosaik::store]`: the signature of `fold` in an inherent impl, and bodies as mere tokens, so that unfinished code
//! does not take the declaration away.

use proc_macro2::{Span, TokenStream};
use syn::{Attribute, FnArg, ImplItem, ImplItemFn, ItemImpl};

use super::{args::Args, grammar, group::excused, machine::last_word};
use crate::{
    diag::Diag,
    model::{self, Fold, Helper, Name, Store},
    tokens::{self, FIELD_HELPERS, without_bodies},
};

pub(crate) fn store(attribute: TokenStream, item: TokenStream, diag: &Diag) -> Option<Store> {
    let args = Args::parse(&grammar::STORE, attribute, None, diag);
    let bodies = tokens::bodies(item.clone());
    let name = grammar::STORE.name;
    let item: ItemImpl = super::item(name, "the inherent impl of a state", without_bodies(item), diag)?;
    if let Some((path, _)) = &item.trait_ {
        diag.error(
            path,
            format!("{name} goes on the inherent impl of a state and writes the impl of the trait itself"),
        );
        return None;
    }
    let Some(ident) = last_word(&item.self_ty) else {
        diag.error(&item.self_ty, "the state of a store is a struct or an enum of yours");
        return None;
    };
    let (mut fold, mut helpers) = (None, Vec::new());
    for member in &item.items {
        match member {
            ImplItem::Fn(method) => {
                let body = bodies.iter().find(|(name, _)| *name == method.sig.ident).map(|(_, body)| body.clone());
                let (body, excused) = (body.unwrap_or_default(), excused(&method.attrs, diag));
                if method.sig.ident == "fold" {
                    fold = Some(self::fold(method, body, excused));
                } else {
                    helpers.push(Helper { ident: method.sig.ident.clone(), body, excused });
                }
            }
            ImplItem::Const(member) => misplaced(&member.attrs, diag),
            ImplItem::Type(member) => misplaced(&member.attrs, diag),
            _ => {}
        }
    }
    Some(Store {
        runtime: model::runtime_crate(args.path("crate")),
        name: Name::new(args.text("name"), &ident, str::to_owned),
        docs: model::docs(&item.attrs),
        version: args.expr("version").cloned(),
        evolve: super::stream::evolve(&args, diag),
        primary: args.texts("primary").to_vec(),
        replica: args.texts("replica").to_vec(),
        label: args.text("label").cloned(),
        owner: args.ty("owner").cloned(),
        generics: item.generics,
        ty: *item.self_ty,
        ident,
        fold,
        helpers,
        at: Span::call_site(),
    })
}

fn fold(method: &ImplItemFn, body: TokenStream, excused: bool) -> Fold {
    let is_cfg = |attribute: &&Attribute| attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr");
    let mut params = method.sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(param) => Some(&*param.ty),
        FnArg::Receiver(_) => None,
    });
    let delta = match (params.next(), params.next()) {
        (Some(delta), None) => Some(delta.clone()),
        _ => None,
    };
    Fold {
        signature: method.sig.clone(),
        cfgs: method.attrs.iter().filter(is_cfg).cloned().collect(),
        delta,
        body,
        excused,
        broken: false,
    }
}

fn misplaced(attributes: &[Attribute], diag: &Diag) {
    for attribute in attributes {
        if FIELD_HELPERS.iter().any(|helper| attribute.path().is_ident(helper)) {
            diag.error(attribute, "this attribute excuses what a function does: it goes on a `fn`");
        }
    }
}
