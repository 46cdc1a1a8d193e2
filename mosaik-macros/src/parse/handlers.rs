//! Reads `#[mosaik::handlers]`: the signatures of an inherent impl and the helper attributes on them. Bodies are emptied
//! first, so that unfinished code in one method does not take the others away.

use proc_macro2::TokenStream;
use syn::{
    Attribute, Expr, ExprLit, Ident, ImplItem, ImplItemFn, ItemImpl, Lit, LitStr, ReceiverKind, Signature, Type,
};

use super::{args::Args, cfg::Way, grammar};
use crate::{
    diag::{Diag, closest, distance, listed},
    model::{self, Concurrency, EVENTS, Fires, Handler, Handlers, Of, OnError, Receiver},
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
    for attribute in &method.attrs {
        if let Some(word) = misspelt(attribute, METHOD_HELPERS) {
            diag.error(attribute.path(), format!("no such attribute, did you mean `#[{word}]`?"));
        }
    }
    let mut handlers = Vec::new();
    for Way { cfgs, helpers } in super::cfg::ways(&method.attrs, METHOD_HELPERS) {
        for attribute in helpers {
            let before = diag.count();
            let fires = fires(&attribute, diag);
            if diag.count() > before {
                continue;
            }
            for (number, Asked { fires, emit, on_error, once, concurrency }) in fires.into_iter().enumerate() {
                handlers.push(Handler {
                    method: method.sig.clone(),
                    cfgs: cfgs.clone(),
                    receiver: receiver(&method.sig),
                    fires,
                    emit,
                    on_error,
                    once,
                    concurrency,
                    attribute: attribute.clone(),
                    further: number > 0,
                });
            }
        }
    }
    handlers
}

/// What a helper attribute asks for.
struct Asked {
    fires: Fires,
    emit: Option<Ident>,
    on_error: Option<OnError>,
    once: Option<Type>,
    concurrency: Option<Concurrency>,
}

/// What a helper attribute asks for, once for each field that it names; nothing for other attributes and for malformed ones.
fn fires(attribute: &Attribute, diag: &Diag) -> Vec<Asked> {
    let Some(name) = attribute.path().get_ident().map(ToString::to_string) else { return Vec::new() };
    let read = |grammar| Args::parse(grammar, super::inside(attribute, diag), Some(attribute), diag);
    let (args, fires) = match name.as_str() {
        "on" => {
            let args = read(&grammar::ON);
            let fires = on(&args, diag);
            (args, fires)
        }
        "every" => {
            let args = read(&grammar::EVERY);
            let period = args.first_text().cloned();
            (args, period.into_iter().map(|period| Fires::Every { period }).collect())
        }
        "start" => (read(&grammar::START), vec![Fires::Start]),
        "stop" => (read(&grammar::STOP), vec![Fires::Stop]),
        "ready" => (read(&grammar::READY), vec![Fires::Ready]),
        _ => return Vec::new(),
    };
    let (emit, once, on_error) = (args.word("emit"), args.ty("once"), on_error(&args, diag));
    let concurrency = concurrency(&args, diag);
    if let (Some(_), Some(Concurrency { key, .. })) = (once, &concurrency) {
        diag.error(key, "what only the leader does is done one call at a time: leave out `once` or `concurrency`");
    }
    let asked =
        |fires| Asked { fires, emit: emit.cloned(), on_error, once: once.cloned(), concurrency: concurrency.clone() };
    fires.into_iter().map(asked).collect()
}

fn concurrency(args: &Args, diag: &Diag) -> Option<Concurrency> {
    let (key, value) = (args.key("concurrency")?, args.expr("concurrency")?);
    let calls = match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse::<usize>().ok(),
        _ => None,
    };
    match calls {
        Some(calls @ 2..=1024) => return Some(Concurrency { key: key.clone(), calls }),
        Some(0 | 1) => {
            diag.error(value, "one call at a time is what a handler has without `concurrency`: leave it out");
        }
        _ => diag.error(value, "`concurrency` is how many calls may share the role: a number from 2 to 1024"),
    }
    None
}

fn on_error(args: &Args, diag: &Diag) -> Option<OnError> {
    const WORDS: [(&str, OnError); 3] = [("log", OnError::Log), ("restart", OnError::Restart), ("stop", OnError::Stop)];
    let value = args.expr("on_error")?;
    let word = match value {
        Expr::Path(path) => path.path.get_ident().map(ToString::to_string),
        _ => None,
    };
    let known = WORDS.iter().find(|(name, _)| word.as_deref() == Some(name)).map(|(_, policy)| *policy);
    if known.is_none() {
        let guess = word.as_deref().and_then(|word| closest(word, WORDS.map(|(name, _)| name)));
        let hint = guess.map_or_else(String::new, |best| format!("did you mean `{best}`? "));
        diag.error(value, format!("{hint}`on_error` is one of `log`, `restart` and `stop`"));
    }
    known
}

/// `field`, `field.connected`, `field.disconnected`, `field.gap` or `field.late`; or several fields alike.
fn on(args: &Args, diag: &Diag) -> Vec<Fires> {
    let after = args.text("after");
    let mut fires: Vec<Fires> = Vec::new();
    for (field, member) in args.members() {
        let Some(of) = event(member, after, diag) else { continue };
        if let (Some(after), false) = (args.key("after"), matches!(of, Of::Lateness { .. }))
            && fires.is_empty()
        {
            diag.error(
                after,
                format!("`after` says when a producer is late: it belongs to `#[on({field}.late, after = ..)]`"),
            );
        }
        if let Some(Fires::On { field: first, of: other }) = fires.first()
            && other.suffix() != of.suffix()
        {
            diag.error(
                member.unwrap_or(field),
                format!("one handler is for one thing: of `{first}` this one takes {}", other.takes().0),
            );
        }
        fires.push(Fires::On { field: field.clone(), of });
    }
    fires
}

fn event(member: Option<&Ident>, after: Option<&LitStr>, diag: &Diag) -> Option<Of> {
    let Some(word) = member else { return Some(Of::Items) };
    match word.to_string().as_str() {
        "connected" => Some(Of::Connected),
        "disconnected" => Some(Of::Disconnected),
        "gap" => Some(Of::Gaps),
        "late" => Some(Of::Lateness { after: after.cloned(), word: word.clone() }),
        other => {
            let hint = closest(other, EVENTS).map_or_else(
                || format!(": its events are {}", listed(EVENTS)),
                |best| format!(", did you mean `{best}`?"),
            );
            diag.error(word, format!("a consumer has no event `{word}`{hint}"));
            None
        }
    }
}

fn receiver(method: &Signature) -> Receiver {
    match method.receiver() {
        None => Receiver::Missing,
        Some(syn::Receiver { kind: ReceiverKind::Reference(_, _, mutability), .. }) => {
            if mutability.is_some() {
                Receiver::Exclusive
            } else {
                Receiver::Shared
            }
        }
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
