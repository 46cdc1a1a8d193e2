//! Rules for `#[mosaik::state_machine]` and `#[derive(StateMachine)]`. A method that breaks one is marked: it keeps its
//! place in the client, so that its callers are not reported as well, and nothing calls it.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Expr, ExprLit, Lit, ReceiverKind, ReturnType, Safety, Type, visit::Visit};

use super::{determinism, group::unordered, states};
use crate::{
    diag::Diag,
    model::{Derived, Machine, Method, MethodKind, Param, Stored, plain},
};

/// Methods that a replica has itself, or that every clonable value has: a method of the client with such a name could not
/// be called.
const RESERVED: &[(&str, &str)] = &[
    ("group", "`Replica` has a method of that name, which gives the group itself"),
    ("clone", "every `Replica` can be cloned"),
    ("to_owned", "everything that can be cloned has a method of that name"),
    ("into", "every type has a method of that name"),
    ("try_into", "every type has a method of that name"),
];

const VERSION: &str = "`version` is a number from 0 to 4294967295: members of different versions refuse each other";

pub(crate) fn machine(machine: &mut Machine, diag: &Diag) {
    super::no_generics(
        &machine.generics,
        "a machine is one concrete type: its commands are stored and sent, so they cannot have parameters",
        diag,
    );
    version(&mut machine.version, VERSION, diag);
    states::states(machine, diag);
    let (mut taken, mut looked_at) = (BTreeMap::new(), BTreeSet::new());
    machine.methods.retain_mut(|method| {
        let before = diag.count();
        let usable = signature(method, diag);
        if method.kind == MethodKind::Command && !method.excused {
            determinism::command(method, &machine.helpers, &mut looked_at, diag);
            let types = method.params.iter().map(|param| &param.ty).chain([&method.output]);
            types.for_each(|ty| unordered(ty, "on the command", diag));
        }
        method.broken = diag.count() > before;
        usable
    });
    states::merge(machine, diag);
    machine.methods.retain_mut(|method| {
        let before = diag.count();
        let unique = unique(method, &mut taken, diag);
        method.broken |= diag.count() > before;
        unique
    });
    let commands = taken.keys().any(|(is_command, _)| *is_command);
    if !commands && diag.count() == 0 {
        diag.error_at(
            machine.at,
            "a machine has at least one command, a method with `#[command]`; without one it never changes",
        );
    }
    if diag.count() > 0 {
        states::give_up(machine);
    }
}

pub(crate) fn derived(derived: &mut Derived, diag: &Diag) {
    super::no_generics(&derived.generics, "a machine is one concrete type", diag);
    version(&mut derived.version, VERSION, diag);
    derived.broken = diag.count() > 0;
}

/// Takes a wrong version out, so that the compiler does not report it as well.
pub(super) fn version(given: &mut Option<Expr>, usage: &str, diag: &Diag) {
    let Some(version) = given else { return };
    let valid = match version {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse::<u32>().is_ok(),
        Expr::Lit(_) | Expr::Unary(_) => false,
        _ => true,
    };
    if !valid {
        diag.error(version, usage);
        *given = None;
    }
}

/// Whether a client method can be made of it.
fn signature(method: &Method, diag: &Diag) -> bool {
    let (signature, noun) = (&method.signature, method.kind.noun());
    let name = &signature.ident;
    if let Some(cfg) = method.cfgs.first() {
        diag.error(cfg, format!("{noun} cannot depend on `cfg`: members of one group would not understand each other"));
    }
    receiver(method, diag);
    let mut usable = true;
    if !signature.generics.params.is_empty() {
        diag.error(&signature.generics, format!("{noun} has no generic parameters: it is stored and sent as one type"));
        usable = false;
    }
    if let Some(asyncness) = &signature.asyncness {
        let instead = match method.kind {
            MethodKind::Command => {
                "it is applied between two others, at every member alike; wait for what it needs before the call, and pass \
                 the result as an argument"
            }
            MethodKind::Query => "it is answered from the state between two commands",
        };
        diag.error(asyncness, format!("{noun} is not `async`: {instead}"));
    }
    if !matches!(signature.safety, Safety::Default) {
        diag.error(&signature.safety, format!("{noun} is a safe function: the runtime calls it"));
    }
    for param in &method.params {
        usable &= parameter(param, method.kind, diag);
    }
    if let ReturnType::Type(_, ty) = &signature.output {
        usable &= output(ty, method.kind, diag);
    }
    // Of a transition with a name of its own, the method is not the client's.
    if method.transitions.iter().all(|transition| transition.command.is_none()) {
        reserved(name, &plain(name), noun, diag);
    }
    usable
}

/// A method of the client cannot have every name; `text` is what it would be called.
pub(super) fn reserved(name: &syn::Ident, text: &str, noun: &str, diag: &Diag) {
    if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| *reserved == text) {
        diag.error(name, format!("{noun} cannot be called `{text}`: {why}"));
    }
}

fn receiver(method: &Method, diag: &Diag) {
    let name = &method.signature.ident;
    let wanted = match method.kind {
        MethodKind::Command => "&mut self",
        MethodKind::Query => "&self",
    };
    let Some(receiver) = method.signature.receiver() else {
        let why = match method.kind {
            MethodKind::Command => "changes the machine",
            MethodKind::Query => "looks at the machine",
        };
        diag.error(name, format!("`{name}` {why}, so it takes `{wanted}`"));
        return;
    };
    match (&receiver.kind, method.kind) {
        (ReceiverKind::Reference(_, _, Some(_)), MethodKind::Command) => {}
        (ReceiverKind::Reference(_, _, None), MethodKind::Query) => {}
        (ReceiverKind::Reference(_, _, None), MethodKind::Command) => diag.error(
            receiver,
            format!(
                "a command changes the machine: `&mut self`; if `{name}` only looks, it is a query, which costs no entry in \
                 the log: `#[query]`"
            ),
        ),
        (ReceiverKind::Reference(_, _, Some(_)), MethodKind::Query) => diag.error(
            receiver,
            format!(
                "a query runs at one member alone and must not change the machine: `&self`; if `{name}` changes it, it is a \
                 command: `#[command]`"
            ),
        ),
        (_, kind) => diag.error(receiver, format!("{} borrows the machine: `{wanted}`", kind.noun())),
    }
}

fn parameter(param: &Param, kind: MethodKind, diag: &Diag) -> bool {
    let noun = kind.noun();
    let before = diag.count();
    match (&param.stored, kind) {
        (Stored::Context, MethodKind::Command) => return true,
        (Stored::Context, MethodKind::Query) => {
            diag.error(&param.whole, "a query is not in the log, so it has no `ApplyContext`");
            return false;
        }
        _ => {}
    }
    if param.ident.is_none() {
        diag.error(
            &param.whole,
            format!("a parameter of {noun} has a name, which is the argument's: take it apart in the body"),
        );
    }
    let mut found = Unsendable { noun, place: Place::Argument, diag };
    match &param.stored {
        Stored::Borrowed(inner) => {
            if let Type::Reference(reference) = &param.ty
                && let Some(lifetime) = &reference.lifetime
            {
                diag.error(
                    lifetime,
                    "a borrowed argument is stored owned and lent for the call only: a reference without a lifetime",
                );
            }
            found.visit_type(inner);
        }
        _ => found.visit_type(&param.ty),
    }
    diag.count() == before
}

fn output(ty: &Type, kind: MethodKind, diag: &Diag) -> bool {
    let before = diag.count();
    Unsendable { noun: kind.noun(), place: Place::Output, diag }.visit_type(ty);
    diag.count() == before
}

#[derive(Clone, Copy)]
enum Place {
    Argument,
    Output,
}

/// Looks for parts of a type that cannot be stored and sent.
struct Unsendable<'a> {
    noun: &'static str,
    place: Place,
    diag: &'a Diag,
}

impl<'ast> Visit<'ast> for Unsendable<'_> {
    fn visit_type(&mut self, ty: &'ast Type) {
        let noun = self.noun;
        match (ty, self.place) {
            (Type::Reference(reference), Place::Output) => self.diag.error(
                reference,
                format!("what {noun} returns is sent to its caller, so it is owned: no reference, return a copy"),
            ),
            (Type::Reference(reference), Place::Argument) if reference.mutability.is_some() => self
                .diag
                .error(reference, format!("an argument of {noun} goes in only: return what has changed instead")),
            (Type::Reference(reference), Place::Argument) => self.diag.error(
                reference,
                format!(
                    "an argument of {noun} is stored: a whole `&str`, `&[T]` or `&T`, or owned, not a reference inside"
                ),
            ),
            (Type::ImplTrait(ty), Place::Output) => {
                let what = format!("what {noun} returns is sent to its caller");
                self.diag.error(ty, format!("{what}, so its type is named: no `impl Trait`"));
            }
            (Type::ImplTrait(ty), Place::Argument) => {
                let what = format!("an argument of {noun} is stored and sent");
                self.diag.error(ty, format!("{what}, so its type is named: no `impl Trait`"));
            }
            _ => syn::visit::visit_type(self, ty),
        }
    }

    fn visit_lifetime(&mut self, lifetime: &'ast syn::Lifetime) {
        let what = match self.place {
            Place::Argument => "an argument of",
            Place::Output => "what is returned by",
        };
        if lifetime.ident != "static" {
            self.diag.error(lifetime, format!("{what} {} is stored and sent, so it borrows nothing", self.noun));
        }
    }
}

/// Two methods of one name are an error of the language; two names that make one variant are ours.
fn unique(method: &Method, taken: &mut BTreeMap<(bool, String), String>, diag: &Diag) -> bool {
    let name = plain(&method.signature.ident);
    let key = (method.kind == MethodKind::Command, method.variant.to_string());
    match taken.get(&key) {
        None => {
            let same_name = taken.values().any(|known| *known == name);
            taken.insert(key, name);
            !same_name
        }
        Some(other) => {
            if *other != name {
                diag.error(
                    &method.signature.ident,
                    format!("`{name}` and `{other}` cannot be told apart: both become `{}`", method.variant),
                );
            }
            false
        }
    }
}
