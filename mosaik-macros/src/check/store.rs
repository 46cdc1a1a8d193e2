//! Rules for `#[mosaik::store]`. A `fold` that breaks one is marked: it keeps its delta, so that those who send some are not
//! reported as well, and nothing calls it.

use syn::{FnArg, ReceiverKind, ReturnType, Safety, Type, visit::Visit};

use super::{determinism, group::unordered, machine::version};
use crate::{
    diag::{Diag, closest},
    model::{Fold, Store, plain},
};

/// Functions that the attribute adds to the type.
const BUILDERS: &[&str] = &["primary", "replica"];

pub(crate) fn store(store: &mut Store, diag: &Diag) {
    super::no_generics(
        &store.generics,
        "a store is one concrete type with one name: declare a type per store, or give each instance its own id with \
         `net.stores().primary::<V>(..)`",
        diag,
    );
    if let Err(problem) = super::printable(&store.name.text) {
        diag.error_at(store.name.span, format!("the name of the store {problem}"));
    }
    super::grants(&store.primary, diag);
    super::grants(&store.replica, diag);
    super::labels(store.label.as_slice(), diag);
    version(
        &mut store.version,
        "`version` is a number from 0 to 4294967295: a primary and replicas of different versions refuse each other",
        diag,
    );
    for helper in store.helpers.iter().filter(|helper| BUILDERS.contains(&plain(&helper.ident).as_str())) {
        let name = &helper.ident;
        diag.error(name, format!("the attribute adds `{name}(&net)`, which configures one: give this another name"));
    }
    let helpers = &store.helpers;
    let Some(fold) = &mut store.fold else {
        missing(store, diag);
        return;
    };
    let before = diag.count();
    signature(fold, diag);
    let mut sendable = fold.signature.generics.params.is_empty();
    if let Some(delta) = &fold.delta {
        let known = diag.count();
        Borrows { diag }.visit_type(delta);
        sendable &= diag.count() == known;
        if !fold.excused {
            unordered(delta, "on `fold`", diag);
        }
    }
    if !fold.excused {
        determinism::fold(fold, helpers, diag);
    }
    fold.broken = diag.count() > before;
    if !sendable {
        fold.delta = None;
    }
}

fn missing(store: &Store, diag: &Diag) {
    const USAGE: &str = "a store has a method that changes its state: `fn fold(&mut self, delta: Delta)`";
    match store.helpers.iter().find(|helper| closest(&plain(&helper.ident), ["fold"]).is_some()) {
        Some(near) => diag.error(&near.ident, format!("did you mean `fold`? {USAGE}")),
        None => diag.error_at(store.at, USAGE),
    }
}

fn signature(fold: &Fold, diag: &Diag) {
    let signature = &fold.signature;
    let name = &signature.ident;
    if let Some(cfg) = fold.cfgs.first() {
        diag.error(cfg, "`fold` cannot depend on `cfg`: a primary and its replicas would not understand each other");
    }
    match signature.receiver() {
        None => diag.error(name, "`fold` changes the state, so it takes `&mut self`"),
        Some(receiver) if !matches!(receiver.kind, ReceiverKind::Reference(_, _, Some(_))) => {
            diag.error(receiver, "`fold` changes the state where it is: `&mut self`");
        }
        Some(_) => {}
    }
    if !signature.generics.params.is_empty() {
        diag.error(&signature.generics, "`fold` has no generic parameters: a delta is sent as one type");
    }
    if let Some(asyncness) = &signature.asyncness {
        diag.error(
            asyncness,
            "`fold` is not `async`: it runs between two others, on every node alike; wait for what it needs before \
             `apply`, and put the result into the delta",
        );
    }
    if !matches!(signature.safety, Safety::Default) {
        diag.error(&signature.safety, "`fold` is a safe function: the runtime calls it");
    }
    let params: Vec<&FnArg> = signature.inputs.iter().filter(|arg| matches!(arg, FnArg::Typed(_))).collect();
    match params.as_slice() {
        [] => diag.error(name, "`fold` takes what changes the state: `fn fold(&mut self, delta: Delta)`"),
        [_] => {}
        [_, rest @ ..] => {
            for param in rest {
                diag.error(param, "`fold` takes one delta and nothing else: make it a struct, an enum or a tuple");
            }
        }
    }
    if let ReturnType::Type(_, ty) = &signature.output
        && !matches!(&**ty, Type::Tuple(unit) if unit.elems.is_empty())
    {
        diag.error(ty, "`fold` returns nothing: its deltas are facts; what may be refused is looked at before `apply`");
    }
}

/// Looks for parts of a delta that cannot be kept and sent.
struct Borrows<'a> {
    diag: &'a Diag,
}

impl<'ast> Visit<'ast> for Borrows<'_> {
    fn visit_type(&mut self, ty: &'ast Type) {
        match ty {
            Type::Reference(reference) => {
                let inner = &reference.elem;
                let inner = crate::tokens::canonical(quote::quote!(#inner));
                self.diag
                    .error(reference, format!("a delta is kept and sent, so it is owned: `{inner}`, no reference"));
            }
            Type::ImplTrait(ty) => {
                self.diag.error(ty, "a delta is kept and sent, so its type is named: no `impl Trait`");
            }
            _ => syn::visit::visit_type(self, ty),
        }
    }
}
