//! Reads `#[mosaik::state_machine]`: the signatures of an inherent impl, the helper attributes on them, and the bodies of
//! its methods as mere tokens, so that unfinished code in one of them does not take the others away.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Attribute, FnArg, Ident, ImplItem, ImplItemFn, ItemImpl, Pat, ReturnType, Type};

use super::{args::Args, grammar, group::excused, handlers::misspelt};
use crate::{
    diag::Diag,
    model::{self, Helper, Machine, Method, MethodKind, Param, Stored},
    tokens::{self, MACHINE_HELPERS, without_bodies},
};

pub(crate) fn machine(attribute: TokenStream, item: TokenStream, diag: &Diag) -> Option<Machine> {
    let before = diag.count();
    let args = Args::parse(&grammar::STATE_MACHINE, attribute, None, diag);
    let clean = diag.count() == before;
    let bodies = tokens::bodies(item.clone());
    let name = grammar::STATE_MACHINE.name;
    let item: ItemImpl = super::item(name, "the inherent impl of a machine", without_bodies(item), diag)?;
    if let Some((path, _)) = &item.trait_ {
        diag.error(
            path,
            format!("{name} goes on the inherent impl of a machine and writes the impl of the trait itself"),
        );
        return None;
    }
    let Some(ident) = last_word(&item.self_ty) else {
        diag.error(&item.self_ty, "a machine is a struct of yours, with `#[mosaik::group]`");
        return None;
    };
    let (mut methods, mut helpers) = (Vec::new(), Vec::new());
    for member in &item.items {
        match member {
            ImplItem::Fn(method) => {
                let body = bodies.iter().find(|(name, _)| *name == method.sig.ident).map(|(_, body)| body.clone());
                match self::method(method, body.unwrap_or_default(), &item.self_ty, diag) {
                    Ok(method) => methods.push(method),
                    Err(helper) => helpers.push(helper),
                }
            }
            ImplItem::Const(member) => misplaced(&member.attrs, diag),
            ImplItem::Type(member) => misplaced(&member.attrs, diag),
            _ => {}
        }
    }
    Some(Machine {
        runtime: model::runtime_crate(args.path("crate")),
        generics: item.generics,
        ident,
        ty: *item.self_ty,
        version: args.expr("version").cloned(),
        snapshots: args.expr("snapshots").cloned(),
        migrations: args.migrations("migrate_from"),
        methods,
        helpers,
        at: Span::call_site(),
        states: super::states::states(&args, clean, diag),
        actions: Vec::new(),
    })
}

pub(super) fn last_word(ty: &Type) -> Option<Ident> {
    match ty {
        Type::Path(path) if path.qself.is_none() => path.path.segments.last().map(|last| last.ident.clone()),
        _ => None,
    }
}

fn method(method: &ImplItemFn, body: TokenStream, machine: &Type, diag: &Diag) -> Result<Method, Helper> {
    let mut found: Vec<(MethodKind, &Attribute)> = Vec::new();
    for attribute in &method.attrs {
        if let Some(word) = misspelt(attribute, &["command", "query", "transition"]) {
            diag.error(attribute.path(), format!("no such attribute, did you mean `#[{word}]`?"));
        }
        if attribute.path().is_ident("command") {
            Args::parse(&grammar::COMMAND, super::inside(attribute, diag), Some(attribute), diag);
            found.push((MethodKind::Command, attribute));
        } else if attribute.path().is_ident("query") {
            Args::parse(&grammar::QUERY, super::inside(attribute, diag), Some(attribute), diag);
            found.push((MethodKind::Query, attribute));
        }
    }
    let is_transition = |attribute: &&Attribute| attribute.path().is_ident("transition");
    let mut transitions = Vec::new();
    for (number, attribute) in method.attrs.iter().filter(is_transition).enumerate() {
        if number == 0 {
            found.push((MethodKind::Command, attribute));
        }
        transitions.extend(super::states::transition(attribute, diag));
    }
    let excused = excused(&method.attrs, diag);
    let mut found = found.into_iter();
    let Some((kind, _)) = found.next() else { return Err(Helper { ident: method.sig.ident.clone(), body, excused }) };
    if let Some((_, second)) = found.next() {
        let what = if second.path().is_ident("transition") {
            "what has transitions is a command already, and changes its state only so: keep one of the two attributes"
        } else {
            "a method is a command or a query, and once: keep one of the two attributes"
        };
        diag.error(second, what);
    }
    let output = match &method.sig.output {
        ReturnType::Default => syn::parse_quote!(()),
        ReturnType::Type(_, ty) => written_out(ty, machine),
    };
    let kept = |attribute: &&Attribute| ["doc", "deprecated"].iter().any(|name| attribute.path().is_ident(name));
    let is_cfg = |attribute: &&Attribute| attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr");
    Ok(Method {
        kind,
        variant: Ident::new(&model::camel(&model::plain(&method.sig.ident)), method.sig.ident.span()),
        docs: model::docs(&method.attrs),
        attributes: method.attrs.iter().filter(kept).cloned().collect(),
        cfgs: method.attrs.iter().filter(is_cfg).cloned().collect(),
        params: method.sig.inputs.iter().filter_map(|input| param(input, machine)).collect(),
        signature: method.sig.clone(),
        output,
        returned: None,
        body,
        excused,
        broken: false,
        transitions,
        steps: Vec::new(),
    })
}

fn param(input: &FnArg, machine: &Type) -> Option<Param> {
    let FnArg::Typed(param) = input else { return None };
    let ident = match &*param.pat {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => Some(pattern.ident.clone()),
        _ => None,
    };
    let ty = written_out(&param.ty, machine);
    let stored = match &ty {
        Type::Reference(reference) if is_context(&reference.elem) => Stored::Context,
        Type::Reference(reference) if reference.mutability.is_none() => Stored::Borrowed(reference.elem.clone()),
        _ => Stored::Owned,
    };
    Some(Param { ident, whole: param.to_token_stream(), ty, stored })
}

fn is_context(ty: &Type) -> bool {
    last_word(ty).is_some_and(|word| word == "ApplyContext")
}

/// The type with `Self` replaced by the machine's: it is used outside of the impl, where `Self` is another type.
fn written_out(ty: &Type, machine: &Type) -> Type {
    fn replace(tokens: TokenStream, machine: &Type) -> TokenStream {
        let trees = tokens.into_iter().map(|tree| match tree {
            TokenTree::Ident(word) if word == "Self" => {
                let span = word.span();
                super::super::tokens::at(quote!(#machine), span)
            }
            TokenTree::Group(group) => {
                let mut new = proc_macro2::Group::new(group.delimiter(), replace(group.stream(), machine));
                new.set_span(group.span());
                TokenTree::Group(new).into()
            }
            other => other.into(),
        });
        trees.collect()
    }
    // A type with another type in place of a word is still one; if not, the compiler reports what was written.
    syn::parse2(replace(ty.to_token_stream(), machine)).unwrap_or_else(|_| ty.clone())
}

fn misplaced(attributes: &[Attribute], diag: &Diag) {
    for attribute in attributes {
        if MACHINE_HELPERS.iter().any(|helper| attribute.path().is_ident(helper)) {
            diag.error(attribute, "a command, a query or a transition is a method: this attribute goes on a `fn`");
        }
    }
}
