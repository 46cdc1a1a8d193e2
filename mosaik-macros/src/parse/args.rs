//! Reads the inside of one attribute by its entry in the grammar. Goes on after an error, at the next comma, so that
//! one call reports everything that is wrong with an attribute.

use proc_macro2::{Span, TokenStream};
use syn::{
    Expr, ExprLit, Ident, Lit, LitStr, Path, Token, Type,
    ext::IdentExt,
    parse::{ParseStream, Parser},
    punctuated::Punctuated,
};

use super::grammar::{ALL, Attribute, Key, Kind};
use crate::diag::{Diag, closest, listed};

/// The values of one attribute, each with the key that it was given for.
pub(crate) struct Args {
    entries: Vec<(Ident, Value)>,
    /// The values without a key.
    first: Vec<Value>,
}

enum Value {
    Flag,
    Text(LitStr),
    Expr(Expr),
    Texts(Vec<LitStr>),
    Exprs(Vec<Expr>),
    Type(Box<Type>),
    Types(Vec<Type>),
    Path(Path),
    Migration(Expr, Box<Expr>),
    Filter(Ident, Expr),
    Word(Ident),
    Member(Ident, Option<Ident>),
}

impl Args {
    /// Reads `tokens`, the inside of `attribute`; `at` is where to report what is missing, by default the attribute.
    pub(crate) fn parse(attribute: &Attribute, tokens: TokenStream, at: Option<&syn::Attribute>, diag: &Diag) -> Self {
        let mut args = Self { entries: Vec::new(), first: Vec::new() };
        let before = diag.count();
        let parser = |input: ParseStream<'_>| {
            args.read(attribute, input, diag);
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            diag.syntax(error);
        }
        if let (Some(key), []) = (&attribute.first, &args.first[..])
            && diag.count() == before
        {
            diag.error(at, format!("{} needs a {}: {}", attribute.name, key.name, example(attribute)));
        }
        args
    }

    fn read(&mut self, attribute: &Attribute, input: ParseStream<'_>, diag: &Diag) {
        let mut position = 0;
        while !input.is_empty() {
            let read = match &attribute.first {
                // Several fields may be named, one after the other.
                Some(key)
                    if position == self.first.len()
                        && (position == 0 || key.kind == Kind::Member)
                        && !input.peek2(Token![=]) =>
                {
                    read_value(key, input).map(|value| self.first.push(value))
                }
                _ => self.read_entry(attribute, input, diag),
            };
            if let Err(error) = read {
                diag.syntax(error);
                skip_to_comma(input);
            }
            if !input.is_empty() && input.parse::<Token![,]>().is_err() {
                diag.error_at(input.span(), format!("expected `,` between the keys of {}", attribute.name));
                skip_to_comma(input);
                let _ = input.parse::<Token![,]>();
            }
            position += 1;
        }
    }

    fn read_entry(&mut self, attribute: &Attribute, input: ParseStream<'_>, diag: &Diag) -> syn::Result<()> {
        if !input.peek(Ident::peek_any) {
            return Err(input.error(match attribute.keys {
                [] => format!("nothing belongs here: {} takes no keys", attribute.name),
                _ => format!("expected a key: {}", valid_keys(attribute)),
            }));
        }
        let name = input.call(Ident::parse_any)?;
        let Some(key) = attribute.keys.iter().find(|key| name == key.name) else {
            skip_to_comma(input);
            diag.error(&name, unknown_key(attribute, &name.to_string()));
            return Ok(());
        };
        let value = if key.kind == Kind::Migration {
            read_migration(key, &name, input)?
        } else if input.peek(Token![=]) {
            if key.kind == Kind::Flag {
                return Err(syn::Error::new_spanned(&name, format!("`{name}` takes no value")));
            }
            input.parse::<Token![=]>()?;
            read_value(key, input)?
        } else if matches!(key.kind, Kind::Flag | Kind::FlagOrExpr) {
            Value::Flag
        } else {
            return Err(syn::Error::new_spanned(
                &name,
                format!("`{name}` takes a value: {}", key.kind.usage(key.name)),
            ));
        };
        if key.kind != Kind::Migration && self.entries.iter().any(|(known, _)| *known == name) {
            diag.error(&name, format!("`{name}` is given twice"));
        } else {
            self.entries.push((name, value));
        }
        Ok(())
    }

    /// The keys as they were written, in that order, each with its expression if it has one.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Ident, Option<&Expr>)> {
        self.entries.iter().map(|(name, value)| match value {
            Value::Expr(expr) => (name, Some(expr)),
            _ => (name, None),
        })
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The key as it was written, if it was.
    pub(crate) fn key(&self, key: &str) -> Option<&Ident> {
        self.entries.iter().find(|(name, _)| name == key).map(|(name, _)| name)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&LitStr> {
        match self.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn expr(&self, key: &str) -> Option<&Expr> {
        match self.get(key) {
            Some(Value::Expr(expr)) => Some(expr),
            _ => None,
        }
    }

    /// A list of texts, or the one that stands for a list.
    pub(crate) fn texts(&self, key: &str) -> &[LitStr] {
        match self.get(key) {
            Some(Value::Texts(texts)) => texts,
            _ => &[],
        }
    }

    pub(crate) fn exprs(&self, key: &str) -> &[Expr] {
        match self.get(key) {
            Some(Value::Exprs(exprs)) => exprs,
            _ => &[],
        }
    }

    pub(crate) fn ty(&self, key: &str) -> Option<&Type> {
        match self.get(key) {
            Some(Value::Type(ty)) => Some(ty),
            _ => None,
        }
    }

    pub(crate) fn types(&self, key: &str) -> &[Type] {
        match self.get(key) {
            Some(Value::Types(types)) => types,
            _ => &[],
        }
    }

    pub(crate) fn path(&self, key: &str) -> Option<&Path> {
        match self.get(key) {
            Some(Value::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// All that is given of an earlier version and the function that takes its state over.
    pub(crate) fn migrations(&self, key: &str) -> Vec<(Expr, Expr)> {
        let given = self.entries.iter().filter(|(name, _)| name == key);
        let pair = |(_, value): &(Ident, Value)| match value {
            Value::Migration(version, up) => Some((version.clone(), (**up).clone())),
            _ => None,
        };
        given.filter_map(pair).collect()
    }

    pub(crate) fn word(&self, key: &str) -> Option<&Ident> {
        match self.get(key) {
            Some(Value::Word(word)) => Some(word),
            _ => None,
        }
    }

    pub(crate) fn first_text(&self) -> Option<&LitStr> {
        match self.first.first() {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The kind of a filter, and what it takes.
    pub(crate) fn filter(&self, key: &str) -> Option<(&Ident, &Expr)> {
        match self.get(key) {
            Some(Value::Filter(kind, value)) => Some((kind, value)),
            _ => None,
        }
    }

    /// The fields that are named, each with what of it.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&Ident, Option<&Ident>)> {
        self.first.iter().filter_map(|value| match value {
            Value::Member(word, member) => Some((word, member.as_ref())),
            _ => None,
        })
    }
}

/// `migrate_from(1, up)`: the key is read already.
fn read_migration(key: &Key, name: &Ident, input: ParseStream<'_>) -> syn::Result<Value> {
    let wrong = || syn::Error::new_spanned(name, format!("expected {}", key.kind.usage(key.name)));
    if !input.peek(syn::token::Paren) {
        return Err(wrong());
    }
    let inside;
    syn::parenthesized!(inside in input);
    let both = Punctuated::<Expr, Token![,]>::parse_terminated(&inside)?;
    let mut both = both.into_iter();
    match (both.next(), both.next(), both.next()) {
        (Some(version), Some(up), None) => Ok(Value::Migration(version, Box::new(up))),
        _ => Err(wrong()),
    }
}

fn read_value(key: &Key, input: ParseStream<'_>) -> syn::Result<Value> {
    let wrong = |span: Span| syn::Error::new(span, format!("expected {}", key.kind.usage(key.name)));
    match key.kind {
        Kind::Flag => Ok(Value::Flag),
        // Has a form of its own, which is read before.
        Kind::Migration => Err(wrong(input.span())),
        Kind::FlagOrExpr | Kind::Expr | Kind::Setting(_) => input.parse().map(Value::Expr),
        Kind::Function | Kind::Retain => match input.parse()? {
            expr @ (Expr::Closure(_) | Expr::Path(_)) if key.kind == Kind::Function => Ok(Value::Expr(expr)),
            expr @ Expr::Call(_) if key.kind == Kind::Retain => Ok(Value::Expr(expr)),
            other => Err(wrong(syn::spanned::Spanned::span(&other))),
        },
        Kind::Type => input.parse().map(|ty| Value::Type(Box::new(ty))).map_err(|error| wrong(error.span())),
        Kind::Text => {
            let expr: Expr = input.parse()?;
            match expr {
                Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(Value::Text(text)),
                other => Err(syn::Error::new_spanned(
                    other,
                    format!("the {} is a string literal, such as {}", key.name, example_of(key)),
                )),
            }
        }
        Kind::Grants | Kind::Labels => read_texts(key, input),
        Kind::Filter => read_filter(key, input),
        Kind::Exprs => match input.parse()? {
            Expr::Array(array) => Ok(Value::Exprs(array.elems.into_iter().collect())),
            other => {
                Err(syn::Error::new_spanned(other, format!("`{}` is a list: {}", key.name, key.kind.usage(key.name))))
            }
        },
        Kind::Types => {
            if !input.peek(syn::token::Bracket) {
                return Err(wrong(input.span()));
            }
            let list;
            syn::bracketed!(list in input);
            let types = Punctuated::<Type, Token![,]>::parse_terminated(&list)?;
            Ok(Value::Types(types.into_iter().collect()))
        }
        Kind::Path => input.call(Path::parse_mod_style).map(Value::Path).map_err(|error| wrong(error.span())),
        Kind::Word | Kind::Member => {
            let word = input.parse().map_err(|error: syn::Error| match key.name {
                "field" | "emit" => {
                    syn::Error::new(error.span(), "expected the name of a field of the role, without quotes")
                }
                _ => wrong(error.span()),
            })?;
            if key.kind == Kind::Word {
                return Ok(Value::Word(word));
            }
            let member = input.parse::<Option<Token![.]>>()?.map(|_| input.parse()).transpose()?;
            Ok(Value::Member(word, member))
        }
    }
}

/// `key in ..`, `key prefix ..` or `key range ..`.
fn read_filter(key: &Key, input: ParseStream<'_>) -> syn::Result<Value> {
    const KINDS: [&str; 3] = ["in", "prefix", "range"];
    let usage = || format!("expected {}", key.kind.usage(key.name));
    let of: Ident = input.call(Ident::parse_any).map_err(|error| syn::Error::new(error.span(), usage()))?;
    if of != "key" {
        return Err(syn::Error::new_spanned(&of, format!("a filter looks at the key of an item: {}", usage())));
    }
    let kind: Ident = input.call(Ident::parse_any).map_err(|error| syn::Error::new(error.span(), usage()))?;
    if !KINDS.iter().any(|known| kind == known) {
        let guess = closest(&kind.to_string(), KINDS);
        let guess = guess.map_or_else(String::new, |guess| format!("did you mean `{guess}`? "));
        return Err(syn::Error::new_spanned(&kind, format!("there is no filter `key {kind}`: {guess}{}", usage())));
    }
    if input.is_empty() || input.peek(Token![,]) {
        return Err(syn::Error::new_spanned(&kind, format!("`key {kind}` takes a value: {}", usage())));
    }
    let value: Expr = input.parse()?;
    if kind == "range" && !matches!(value, Expr::Range(_) | Expr::Path(_) | Expr::Call(_)) {
        return Err(syn::Error::new_spanned(&value, format!("a range has two ends, such as `10..20`: {}", usage())));
    }
    Ok(Value::Filter(kind, value))
}

/// A text, or a list of texts that is not empty.
fn read_texts(key: &Key, input: ParseStream<'_>) -> syn::Result<Value> {
    let of_grants = key.kind == Kind::Grants;
    let expr: Expr = input.parse()?;
    let all = match &expr {
        Expr::Array(array) => array.elems.iter().collect(),
        one => vec![one],
    };
    if all.is_empty() {
        let (name, usage) = (key.name, key.kind.usage(key.name));
        return Err(syn::Error::new_spanned(
            &expr,
            if of_grants {
                format!("`{name}` names roles or grants of which one is needed: {usage}; without it, every member may")
            } else {
                format!("`{name}` names labels that the role may receive: {usage}; leave it out for none")
            },
        ));
    }
    let text = |expr: &Expr| match expr {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.clone()),
        other => Err(syn::Error::new_spanned(
            other,
            format!(
                "{} is a string literal: {}",
                if of_grants { "a role or a grant" } else { "a label" },
                key.kind.usage(key.name)
            ),
        )),
    };
    all.into_iter().map(text).collect::<syn::Result<_>>().map(Value::Texts)
}

fn example_of(key: &Key) -> String {
    match key.name {
        "period" => String::from("\"500ms\" or \"1s\""),
        name => Kind::Text.usage(name),
    }
}

fn example(attribute: &Attribute) -> &'static str {
    match attribute.name {
        "#[on(..)]" => "`#[on(readings)]`",
        _ => "`#[every(\"1s\")]`",
    }
}

fn unknown_key(attribute: &Attribute, name: &str) -> String {
    let elsewhere: Vec<&str> = ALL
        .iter()
        .filter(|other| other.name != attribute.name && other.keys.iter().any(|key| key.name == name))
        .map(|other| other.name)
        .collect();
    let own = attribute.keys.iter().map(|key| key.name);
    if !elsewhere.is_empty() {
        return format!("`{name}` belongs to {}; {}", listed(elsewhere), valid_keys(attribute));
    }
    match closest(name, own) {
        Some(best) => format!("unknown key `{name}`, did you mean `{best}`? {}", valid_keys(attribute)),
        None => format!("unknown key `{name}`; {}", valid_keys(attribute)),
    }
}

fn valid_keys(attribute: &Attribute) -> String {
    match attribute.keys {
        [] => format!("{} takes no keys", attribute.name),
        [key] => format!("the key of {} is `{}`", attribute.name, key.name),
        keys => format!("the keys of {} are {}", attribute.name, listed(keys.iter().map(|key| key.name))),
    }
}

fn skip_to_comma(input: ParseStream<'_>) {
    while !input.is_empty() && !input.peek(Token![,]) {
        if input.parse::<proc_macro2::TokenTree>().is_err() {
            return;
        }
    }
}
