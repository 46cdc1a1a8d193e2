//! Rules for `#[mosaik::handlers]`. Handlers that break one are taken out of the model, so that the compiler does not
//! report the same mistake once more.

use std::collections::BTreeMap;

use syn::{FnArg, LitStr, ReturnType, Safety, Type};

use crate::{
    diag::Diag,
    model::{self, Fires, Handler, Handlers, Of, Receiver},
};

pub(crate) fn handlers(handlers: &mut Handlers, diag: &Diag) {
    super::no_generics(
        &handlers.generics,
        "a role is one concrete type, so the impl of its handlers has no parameters",
        diag,
    );
    let (mut taken, mut broken) = (BTreeMap::new(), false);
    handlers.handlers.retain(|handler| {
        // Of an attribute that names several fields, the first one stands for all.
        if handler.further && broken {
            return false;
        }
        let before = diag.count();
        if !handler.further {
            method(handler, diag);
            match &handler.fires {
                Fires::On { of, .. } => on(handler, of, diag),
                Fires::Every { period } => every(handler, period, diag),
                Fires::Start | Fires::Stop => alone(handler, diag),
                Fires::Ready => ready(handler, diag),
            }
            emits(handler, diag);
            shares(handler, diag);
            broken = diag.count() > before;
        }
        unique(handler, &mut taken, diag);
        diag.count() == before
    });
}

fn method(handler: &Handler, diag: &Diag) {
    let method = &handler.method;
    let name = &method.ident;
    match handler.receiver {
        Receiver::Shared | Receiver::Exclusive => {}
        Receiver::Missing => diag.error(name, format!("the handler `{name}` takes `&mut self` or `&self`")),
        Receiver::Value => {
            diag.error(
                method.receiver(),
                "a handler borrows the role: `&mut self` or `&self`, the role lives on after it",
            );
        }
    }
    super::no_generics(&method.generics, "a handler has no generic parameters: nobody could choose them", diag);
    if !matches!(method.safety, Safety::Default) {
        diag.error(&method.safety, "a handler is a safe function: the runtime calls it");
    }
}

fn on(handler: &Handler, of: &Of, diag: &Diag) {
    let name = &handler.method.ident;
    let (what, first) = of.takes();
    let usage = match of.most() {
        1 => first.to_owned(),
        _ => format!("{first}` or `{first}, from: PeerId"),
    };
    let usage = match (&handler.once, of.most()) {
        (None, _) => usage,
        (Some(_), 1) => format!("{usage}` or `{first}, fence: Fence"),
        (Some(_), _) => format!("{usage}` or `{first}, from: PeerId, fence: Fence"),
    };
    if let Of::Lateness { after: Some(after), .. } = of
        && let Err(problem) = model::parse_period(&after.value())
    {
        diag.error(after, problem);
    }
    let params: Vec<&FnArg> = handler.params().collect();
    if params.is_empty() {
        diag.error(name, format!("`{name}` handles {what}, so it takes one: `{usage}`"));
    }
    for param in params.iter().skip(handler.most()) {
        diag.error(param, format!("a handler of {what} takes `{usage}` and nothing else"));
    }
    for param in params.iter().take(of.most()) {
        if let FnArg::Typed(param) = param
            && let Type::Reference(reference) = &*param.ty
        {
            let inner = &reference.elem;
            let inner = crate::tokens::canonical(quote::quote!(#inner));
            diag.error(reference, format!("a handler owns what it is given: `{inner}` instead of a reference"));
        }
    }
}

fn every(handler: &Handler, period: &LitStr, diag: &Diag) {
    alone(handler, diag);
    if let Err(problem) = model::parse_period(&period.value()) {
        diag.error(period, problem);
    }
}

/// Calls that share the role: they do not change it, and wait for something.
fn shares(handler: &Handler, diag: &Diag) {
    let (Some(concurrency), method) = (&handler.concurrency, &handler.method) else { return };
    let (key, name) = (&concurrency.key, &method.ident);
    if let Fires::On { field, of } = &handler.fires
        && !matches!(of, Of::Items)
    {
        let what = of.takes().0;
        diag.error(
            key,
            format!("{what} are handled one at a time; `concurrency` is for items: `#[on({field}, concurrency = ..)]`"),
        );
    }
    if handler.receiver == Receiver::Exclusive {
        diag.error(
            method.receiver(),
            "calls that share the role cannot change it: `&self`; what they change is behind a lock, or goes by a stream",
        );
    }
    if method.asyncness.is_none() {
        diag.error(
            key,
            format!(
                "`{name}` never waits, so one call ends before the next begins: `concurrency` is for an `async fn`"
            ),
        );
    }
}

fn emits(handler: &Handler, diag: &Diag) {
    if let (Some(emit), ReturnType::Default) = (&handler.emit, &handler.method.output) {
        let name = &handler.method.ident;
        diag.error(
            emit,
            format!("`{name}` returns nothing to emit: return an item, an `Option` or a `Vec` of it, or a `Result`"),
        );
    }
}

/// `#[ready] fn ready(&self) -> bool`.
fn ready(handler: &Handler, diag: &Diag) {
    alone(handler, diag);
    let method = &handler.method;
    if handler.receiver == Receiver::Exclusive {
        diag.error(method.receiver(), "whether the role is ready is asked often and changes nothing: `&self`");
    }
    if let Some(word) = &method.asyncness {
        diag.error(
            word,
            "whether the role is ready is asked between its handlers, which do not wait for it: a plain `fn`",
        );
    }
    if let ReturnType::Default = method.output {
        let name = &method.ident;
        diag.error(name, format!("`{name}` says whether the role is ready: `fn {name}(&self) -> bool`"));
    }
}

fn alone(handler: &Handler, diag: &Diag) {
    let attribute = handler.fires.attribute();
    let but = if handler.once.is_some() { "`self` and `fence: Fence`" } else { "`self`" };
    for param in handler.params().skip(handler.most()) {
        diag.error(param, format!("a handler with `#[{attribute}]` takes nothing but {but}"));
    }
}

/// Items of a field go to one handler; there is one start and one stop, so that their order is plain.
fn unique(handler: &Handler, taken: &mut BTreeMap<(String, String), String>, diag: &Diag) {
    let name = handler.method.ident.to_string();
    let key = match &handler.fires {
        Fires::On { field, of } => format!("on({}{})", model::plain(field), of.suffix()),
        Fires::Start => String::from("start"),
        Fires::Stop => String::from("stop"),
        Fires::Ready => String::from("ready"),
        Fires::Every { .. } => return,
    };
    // Under different conditions there may well be one at a time.
    let cfgs = &handler.cfgs;
    let cfgs = crate::tokens::canonical(quote::quote!(#(#cfgs)*));
    match taken.get(&(key.clone(), cfgs.clone())) {
        None => {
            taken.insert((key, cfgs), name);
        }
        Some(first) => match &handler.fires {
            Fires::On { field, of } => {
                let (what, _) = of.takes();
                diag.error(
                    field,
                    format!("`{first}` handles the {what} of `{field}` already: a field has one handler for them"),
                );
            }
            _ => diag.error(&handler.attribute, format!("`{first}` is the role's `#[{key}]` already: there is one")),
        },
    }
}
