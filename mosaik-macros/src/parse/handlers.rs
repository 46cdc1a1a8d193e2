//! Reads `#[mosaik::handlers]`: the signatures of an inherent impl and the helper attributes on them. Bodies are emptied
//! first, so that unfinished code in one method does not take the others away.

use proc_macro2::TokenStream;
use syn::{Attribute, ImplItem, ImplItemFn, ItemImpl, ReceiverKind, Signature};

use super::{args::Args, grammar};
use crate::{
    diag::{Diag, closest, distance},
    model::{self, Fires, Handler, Handlers, Of, Receiver},
    tokens::{METHOD_HELPERS, without_bodies},
};

pub(crate) fn handlers(attribute: TokenStream, item: TokenStream, diag: &Diag) -> Option<Handlers> {
    let args = Args::parse(&grammar::HANDLERS, attribute, None, diag);
    let item: ItemImpl =
        super::item(grammar::HANDLERS.name, "the inherent impl of a role", without_bodies(item), diag)?;
    if let Some((path, _)) = &item.trait_ {
        diag.error(
            path,
            format!("{} goes on the inherent impl of a role, not on the impl of a trait", grammar::HANDLERS.name),
        );
    }
    let mut handlers = Vec::new();
    for member in &item.items {
        match member {
            ImplItem::Fn(method) => handlers.extend(method_handlers(method, diag)),
            ImplItem::Const(member) => misplaced(&member.attrs, diag),
            ImplItem::Type(member) => misplaced(&member.attrs, diag),
            _ => {}
        }
    }
    Some(Handlers {
        runtime: model::runtime_crate(args.path("crate")),
        generics: item.generics,
        role: *item.self_ty,
        handlers,
    })
}

fn method_handlers(method: &ImplItemFn, diag: &Diag) -> Vec<Handler> {
    let cfgs: Vec<Attribute> =
        method.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).cloned().collect();
    let mut handlers = Vec::new();
    for attribute in &method.attrs {
        if let Some(word) = misspelt(attribute, METHOD_HELPERS) {
            diag.error(attribute.path(), format!("no such attribute, did you mean `#[{word}]`?"));
            continue;
        }
        let before = diag.count();
        let fires = fires(attribute, diag);
        if let (Some(fires), true) = (fires, diag.count() == before) {
            handlers.push(Handler {
                method: method.sig.clone(),
                cfgs: cfgs.clone(),
                receiver: receiver(&method.sig),
                fires,
                attribute: attribute.clone(),
            });
        }
    }
    handlers
}

/// What a helper attribute asks for; nothing for other attributes and for malformed ones.
fn fires(attribute: &Attribute, diag: &Diag) -> Option<Fires> {
    let name = attribute.path().get_ident()?.to_string();
    let read = |grammar| Args::parse(grammar, super::inside(attribute, diag), Some(attribute), diag);
    match name.as_str() {
        "on" => on(&read(&grammar::ON), diag),
        "every" => {
            let args = read(&grammar::EVERY);
            Some(Fires::Every { period: args.first_text()?.clone(), emit: args.word("emit").cloned() })
        }
        "start" => {
            read(&grammar::START);
            Some(Fires::Start)
        }
        "stop" => {
            read(&grammar::STOP);
            Some(Fires::Stop)
        }
        _ => None,
    }
}

/// `field`, `field.gap`, or `field.late` with `after`.
fn on(args: &Args, diag: &Diag) -> Option<Fires> {
    let (field, member) = args.first_member()?;
    let after = args.text("after");
    let event = match member {
        None => Of::Items,
        Some(word) if word == "gap" => Of::Gaps,
        Some(word) if word == "late" => match after {
            Some(after) => Of::Lateness { after: after.clone() },
            None => {
                diag.error(
                    word,
                    format!("say after what silence a producer is late: `#[on({field}.late, after = \"5s\")]`"),
                );
                return None;
            }
        },
        Some(word) => {
            let guess = closest(&word.to_string(), ["gap", "late"]);
            let hint = guess.map_or_else(
                || ": its events are `gap` and `late`".to_owned(),
                |best| format!(", did you mean `{best}`?"),
            );
            diag.error(word, format!("a consumer has no event `{word}`{hint}"));
            return None;
        }
    };
    if let (Some(after), Of::Items | Of::Gaps) = (args.key("after"), &event) {
        diag.error(
            after,
            format!("`after` says when a producer is late: it belongs to `#[on({field}.late, after = ..)]`"),
        );
    }
    Some(Fires::On { field: field.clone(), of: event })
}

fn receiver(method: &Signature) -> Receiver {
    match method.receiver() {
        None => Receiver::Missing,
        Some(receiver) if matches!(receiver.kind, ReceiverKind::Reference(..)) => Receiver::Reference,
        Some(_) => Receiver::Value,
    }
}

fn misplaced(attributes: &[Attribute], diag: &Diag) {
    for attribute in attributes {
        if METHOD_HELPERS.iter().any(|helper| attribute.path().is_ident(helper)) {
            diag.error(attribute, "a handler is a method: this attribute goes on a `fn`");
        }
    }
}

/// The helper attribute that this one is a single edit away from. `on` is too short to guess.
pub(super) fn misspelt(attribute: &Attribute, helpers: &[&'static str]) -> Option<&'static str> {
    let word = attribute.path().get_ident()?.to_string();
    helpers.iter().copied().find(|helper| helper.len() > 3 && distance(&word, helper) == 1)
}

/// The misspelt ones of these helper attributes in an impl: taken out on re-emission, so that one mistake is one error.
pub(crate) fn misspelt_helpers(item: TokenStream, helpers: &[&'static str]) -> Vec<String> {
    let Ok(item) = syn::parse2::<ItemImpl>(without_bodies(item)) else { return Vec::new() };
    item.items
        .iter()
        .filter_map(|member| match member {
            ImplItem::Fn(method) => Some(&method.attrs),
            _ => None,
        })
        .flatten()
        .filter(|attribute| misspelt(attribute, helpers).is_some())
        .filter_map(|attribute| attribute.path().get_ident().map(ToString::to_string))
        .collect()
}
