//! What was declared, as plain data: `parse` fills it, `check` judges it, `expand` prints it. Holds no rule and emits
//! no token. A later kind of declaration is one more file here and in its neighbours.

mod app;
mod group;
mod handlers;
mod machine;
mod main;
mod node;
mod period;
mod size;
mod store;
mod stream;
mod test;

pub(crate) use app::App;
pub(crate) use group::{Group, Key, StateField};
pub(crate) use handlers::{Concurrency, EVENTS, Fires, Handler, Handlers, Of, OnError, Receiver};
pub(crate) use machine::{
    Derived, Guard, Helper, Machine, Method, MethodKind, Param, States, Step, Stored, Transition, Variant,
};
pub(crate) use main::Main;
pub(crate) use node::{Criterion, DefaultValue, Field, Node, Setting, Shape, Source, To, field_of};
pub(crate) use period::parse as parse_period;
pub(crate) use size::{parse as parse_size, rate as parse_rate};
pub(crate) use store::{Fold, Store};
pub(crate) use stream::{Retain, Stream};
pub(crate) use test::Test;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Expr, Ident, LitStr, Path};

/// A name together with where it was written: the literal, or the identifier that it was derived from.
#[derive(Clone)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Name {
    /// The literal's text, else what `derive` makes of the identifier (without `r#`).
    pub(crate) fn new(literal: Option<&LitStr>, ident: &Ident, derive: impl FnOnce(&str) -> String) -> Self {
        match literal {
            Some(literal) => Self { text: literal.value(), span: literal.span() },
            None => Self { text: derive(&plain(ident)), span: ident.span() },
        }
    }
}

/// An identifier's text without `r#`.
pub(crate) fn plain(ident: &Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map_or(text.clone(), str::to_owned)
}

/// `OrderBook2` or `order_book2` as `order-book2`.
pub(crate) fn kebab(ident: &str) -> String {
    let mut out = String::new();
    let mut previous: Option<char> = None;
    let mut letters = ident.chars().peekable();
    while let Some(letter) = letters.next() {
        let starts_word = letter.is_uppercase()
            && previous.is_some_and(|before| {
                before != '_' && (!before.is_uppercase() || letters.peek().is_some_and(|next| next.is_lowercase()))
            });
        if starts_word {
            out.push('-');
        }
        if letter == '_' {
            out.push('-');
        } else {
            out.extend(letter.to_lowercase());
        }
        previous = Some(letter);
    }
    out.trim_matches('-').to_owned()
}

/// `set_price` as `SetPrice`: the variant that stands for a method.
pub(crate) fn camel(ident: &str) -> String {
    let words = ident.split('_').filter(|word| !word.is_empty());
    words
        .flat_map(|word| {
            let mut letters = word.chars();
            letters.next().into_iter().flat_map(char::to_uppercase).chain(letters)
        })
        .collect()
}

/// `SetPrice` as `set_price`: the method that stands for a variant.
pub(crate) fn snake(ident: &str) -> String {
    kebab(ident).replace('-', "_")
}

/// The identifier of a method of this name, raw if it is a keyword; the few that cannot be raw are none.
pub(crate) fn method_ident(name: &str, span: Span) -> Option<Ident> {
    let plain = syn::parse_str::<Ident>(name).map(|_| Ident::new(name, span));
    let raw = || (!matches!(name, "self" | "super" | "crate" | "_" | "")).then(|| Ident::new_raw(name, span));
    plain.ok().or_else(raw)
}

/// The path to the runtime crate: `crate = ..` or `::mosaik`.
pub(crate) fn runtime_crate(path: Option<&Path>) -> TokenStream {
    path.map_or_else(|| quote!(::mosaik), |path| quote!(#path))
}

/// The doc comment of an item as one text, lines joined, indentation of one space removed.
pub(crate) fn docs(attributes: &[syn::Attribute]) -> String {
    let lines: Vec<String> = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
        .filter_map(|attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) => match &pair.value {
                Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        })
        .map(|line| line.strip_prefix(' ').map_or(line.clone(), str::to_owned).trim_end().to_owned())
        .collect();
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_kebab_case() {
        for (ident, want) in [
            ("Sensor", "sensor"),
            ("OrderBook2", "order-book2"),
            ("HTTPServer", "http-server"),
            ("min_celsius", "min-celsius"),
            ("_id", "id"),
        ] {
            assert_eq!(kebab(ident), want);
        }
    }

    #[test]
    fn methods_become_variants() {
        for (ident, want) in
            [("deposit", "Deposit"), ("set_price", "SetPrice"), ("_a__b2", "AB2"), ("is_HTTP", "IsHTTP")]
        {
            assert_eq!(camel(ident), want);
        }
    }
}
