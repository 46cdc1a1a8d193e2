//! Reads the options of an endpoint: the keys of `#[mosaik(..)]` on a field that are set at the endpoint's builder. Whether
//! a key fits the endpoint is decided by the compiler, which knows the field's type.

use proc_macro2::Span;
use quote::ToTokens;
use syn::{Expr, ExprLit, ExprUnary, Ident, Lit, LitStr, UnOp, spanned::Spanned};

use super::{
    args::Args,
    grammar::{self, Kind},
};
use crate::{
    diag::{Diag, closest, listed},
    model::{self, Criterion, Setting, To},
    tokens::canonical,
};

/// Words for the lag policies, roles and timings, each with what it is in the runtime.
const ON_LAG: &[(&str, &str)] =
    &[("disconnect", "Disconnect"), ("drop_oldest", "DropOldest"), ("conflate", "Conflate"), ("block", "")];
const ROLES: &[(&str, &str)] = &[("voter", "Voter"), ("reluctant", "Reluctant"), ("observer", "Observer")];
/// What producers are preferred by, and what each takes.
const PREFER: &[(&str, &str)] = &[("latency", ""), ("zone", ""), ("tag", "(\"gold\")"), ("by", "(Self::rank)")];
const TIMINGS: &[(&str, &str)] = &[("lan", "lan")];

/// Every option that is given; those that are wrong are reported and left out.
pub(super) fn settings(args: &Args, diag: &Diag) -> Vec<Setting> {
    let given = args.entries().filter(|(key, _)| !matches!(key.to_string().as_str(), "arg" | "default" | "only_if"));
    given
        .filter_map(|(key, value)| {
            if let Some((kind, value)) = (key == "filter").then(|| args.filter("filter")).flatten() {
                let shown = format!("key {kind} {}", shown(value));
                let to = To::Filter { kind: kind.clone(), value: value.clone() };
                return Some(Setting { key: key.clone(), to, shown });
            }
            let (to, shown) = match value {
                None => (To::Flag, String::new()),
                // Reports what is wrong itself.
                Some(value) if key == "retain" => (To::Retain(super::retain::retain(value, diag)?), shown(value)),
                Some(value) => match read(key, value) {
                    Ok(to) => (to, shown(value)),
                    Err((span, problem)) => {
                        diag.error_at(span, problem);
                        return None;
                    }
                },
            };
            Some(Setting { key: key.clone(), to, shown })
        })
        .collect()
}

/// What is wrong, and where.
type Wrong = (Span, String);

fn read(key: &Ident, value: &Expr) -> Result<To, Wrong> {
    match key.to_string().as_str() {
        "accept_if" | "subscribe_if" => predicate(key, value),
        "online_when" => conditions(key, value),
        "max_consumers" | "fanin" | "standby" => count(key, value),
        "prefer" => prefer(key, value),
        "egress" | "replay_pace" => text(key, value, |text, span| Ok(To::Rate(model::parse_rate(text)?, span))),
        "log_limit" => text(key, value, |text, span| Ok(To::Bytes(model::parse_size(text)?, span))),
        "lifespan" | "deadline" => text(key, value, |text, span| Ok(To::Nanos(model::parse_period(text)?, span))),
        "backoff" => text(key, value, range),
        "buffer" | "replay" => text(key, value, buffer),
        "on_lag" => on_lag(key, value),
        "key" | "state" => Ok(To::Expr(value.clone())),
        "undelivered" => match value {
            Expr::Path(path) => Ok(To::Method(path.clone())),
            _ => Err((value.span(), usage(key))),
        },
        "role" => word(key, value, ROLES),
        "declassify" => reason(key, value),
        // Any other path or expression is a `Timing`.
        _ => match value {
            Expr::Path(path) if path.path.get_ident().is_some_and(|word| !is_constant(word)) => {
                word(key, value, TIMINGS)
            }
            _ => expression(key, value),
        },
    }
}

/// As it stands in the grammar.
fn usage(key: &Ident) -> String {
    let known = grammar::FIELD.keys.iter().find(|known| key == known.name);
    let usage = known.map_or_else(String::new, |known| known.kind.usage(known.name));
    // Those that are shared between keys do not name one.
    match known.map(|known| known.kind) {
        Some(Kind::Setting(_)) if !usage.contains(&format!("{key} = ")) => format!("`{key}` takes {usage}"),
        _ => format!("expected {usage}"),
    }
}

/// A text that says why.
fn reason(key: &Ident, value: &Expr) -> Result<To, Wrong> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if text.value().trim().is_empty() => {
            Err((text.span(), String::from("say why this may be passed on, for who reads the report")))
        }
        Expr::Lit(ExprLit { lit: Lit::Str(_), .. }) => Ok(To::Reason),
        other => Err((other.span(), usage(key))),
    }
}

/// What the value looks like in the graph: a text without its quotes.
fn shown(value: &Expr) -> String {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => text.value(),
        other => canonical(other.to_token_stream()),
    }
}

/// A text that `read` understands, or an expression of the builder's own type.
fn text(key: &Ident, value: &Expr, read: impl FnOnce(&str, Span) -> Result<To, String>) -> Result<To, Wrong> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
            read(&text.value(), text.span()).map_err(|problem| (text.span(), problem))
        }
        other => expression(key, other),
    }
}

/// An expression that the compiler judges; a literal cannot be one of these types.
fn expression(key: &Ident, value: &Expr) -> Result<To, Wrong> {
    match value {
        Expr::Lit(_) | Expr::Unary(ExprUnary { op: UnOp::Neg(_), .. }) | Expr::Closure(_) | Expr::Array(_) => {
            Err((value.span(), usage(key)))
        }
        other => Ok(To::Expr(other.clone())),
    }
}

fn predicate(key: &Ident, value: &Expr) -> Result<To, Wrong> {
    match value {
        Expr::Path(_) => Ok(To::Predicate { function: value.clone(), fields: Vec::new() }),
        Expr::Closure(closure) => match closure.inputs.len() {
            1 => Ok(To::Predicate { function: value.clone(), fields: Vec::new() }),
            _ => Err((value.span(), format!("`{key}` is asked with one argument: `|peer| ..`"))),
        },
        Expr::Call(call) => {
            let fields = call.args.iter().map(|arg| field(key, arg)).collect::<Result<_, _>>()?;
            Ok(To::Predicate { function: (*call.func).clone(), fields })
        }
        other => Err((other.span(), usage(key))),
    }
}

/// The name of a field of the role.
pub(super) fn field(key: &Ident, value: &Expr) -> Result<Ident, Wrong> {
    let named = match value {
        Expr::Path(path) => path.path.get_ident().cloned(),
        _ => None,
    };
    named.ok_or_else(|| {
        let problem =
            format!("`{key}` hands over fields of the role: their names, such as `{key} = Self::may_read(zone)`");
        (value.span(), problem)
    })
}

fn count(key: &Ident, value: &Expr) -> Result<To, Wrong> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => match number.base10_parse::<u64>() {
            Ok(0) if key == "standby" => Err((number.span(), String::from("none stands by without it: leave it out"))),
            Ok(0) => Err((number.span(), String::from("zero would serve nobody: leave the field out"))),
            Ok(_) if number.suffix().is_empty() || number.suffix() == "usize" => Ok(To::Expr(value.clone())),
            _ => Err((number.span(), usage(key))),
        },
        other => expression(key, other),
    }
}

/// `2`, `2 with tag eu` or `2 with tags eu, fast`; or a function of the conditions.
fn conditions(key: &Ident, value: &Expr) -> Result<To, Wrong> {
    let literal = match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => text,
        Expr::Path(_) | Expr::Closure(_) => return Ok(To::Expr(value.clone())),
        other => return Err((other.span(), usage(key))),
    };
    read_conditions(literal).map_err(|problem| (literal.span(), problem))
}

fn read_conditions(literal: &LitStr) -> Result<To, String> {
    const USAGE: &str = "a number of consumers, such as \"2\", \"2 with tag eu\" or \"2 with tags eu, fast\"";
    let text = literal.value();
    let (number, rest) = text.split_once(char::is_whitespace).unwrap_or((&text, ""));
    let minimum: usize = number.parse().map_err(|_| format!("expected {USAGE}: it begins with the number"))?;
    let rest = rest.trim();
    let mut tags: Vec<String> = Vec::new();
    if !rest.is_empty() {
        let mut words = rest.splitn(3, char::is_whitespace);
        let (with, tag, names) = (words.next(), words.next(), words.next().unwrap_or_default());
        if with != Some("with") || !matches!(tag, Some("tag" | "tags")) {
            let unknown = if with == Some("with") { tag.unwrap_or("with") } else { with.unwrap_or_default() };
            return Err(format!("`{unknown}` is not understood here: {USAGE}"));
        }
        for name in names.split(',').map(str::trim) {
            if name.is_empty() || name.chars().any(char::is_whitespace) {
                return Err(format!("tags are separated by commas: {USAGE}"));
            }
            if tags.iter().any(|known| known == name) {
                return Err(format!("the tag `{name}` is given twice"));
            }
            tags.push(name.to_owned());
        }
        if minimum == 0 {
            return Err(String::from("with none required it is always online: leave the tags out"));
        }
    }
    Ok(To::Conditions { minimum, tags, span: literal.span() })
}

/// `4MiB`, `1024 items`, or both with a comma between them.
fn buffer(text: &str, span: Span) -> Result<To, String> {
    let (mut items, mut bytes) = (None, None);
    for part in text.split(',').map(str::trim) {
        let number = part.strip_suffix("items").or_else(|| part.strip_suffix("item")).map(str::trim);
        let twice = match number {
            Some(number) => {
                let number: usize =
                    number.parse().map_err(|_| format!("`{part}` is not a number of items, such as \"1024 items\""))?;
                if number == 0 {
                    return Err(String::from("room for no item at all: give it one at least"));
                }
                items.replace(number).is_some()
            }
            None => {
                let size = model::parse_size(part).map_err(|problem| match part.parse::<u64>() {
                    Ok(number) => format!("items or bytes? write \"{number} items\" or \"{number}B\""),
                    Err(_) => problem,
                })?;
                let size =
                    usize::try_from(size).map_err(|_| String::from("the size does not fit into this machine"))?;
                bytes.replace(size).is_some()
            }
        };
        if twice {
            return Err(format!("`{part}` says once more what was said: one number of items, one of bytes"));
        }
    }
    Ok(To::Buffer { items, bytes, span })
}

/// `50ms..2s`.
fn range(text: &str, span: Span) -> Result<To, String> {
    let Some((from, to)) = text.split_once("..") else {
        return Err(String::from("a back-off is its shortest and its longest delay, such as \"50ms..2s\""));
    };
    let (from, to) = (model::parse_period(from.trim())?, model::parse_period(to.trim())?);
    if from > to {
        return Err(String::from("the shortest delay comes first, such as \"50ms..2s\""));
    }
    Ok(To::Range(from, to, span))
}

fn on_lag(key: &Ident, value: &Expr) -> Result<To, Wrong> {
    let Expr::Call(call) = value else {
        return match word(key, value, ON_LAG)? {
            To::Known { path: "", span } => {
                Err((span, String::from("say for how long `send` waits for a slow consumer: `block(\"500ms\")`")))
            }
            other => Ok(other),
        };
    };
    let args: Vec<&Expr> = call.args.iter().collect();
    match (word(key, &call.func, ON_LAG)?, &args[..]) {
        (To::Known { path: "", .. }, [Expr::Lit(ExprLit { lit: Lit::Str(text), .. })]) => {
            let nanos = model::parse_period(&text.value()).map_err(|problem| (text.span(), problem))?;
            Ok(To::Block(nanos, text.span()))
        }
        (To::Known { path: "", .. }, _) => Err((value.span(), String::from("expected `block(\"500ms\")`"))),
        _ => {
            let word = canonical(call.func.to_token_stream());
            Err((value.span(), format!("`{word}` takes nothing: write `{key} = {word}`")))
        }
    }
}

/// One criterion or several in brackets; any other expression is of the runtime's own type.
fn prefer(key: &Ident, value: &Expr) -> Result<To, Wrong> {
    match value {
        Expr::Array(several) if several.elems.is_empty() => Err((value.span(), usage(key))),
        Expr::Array(several) => {
            several.elems.iter().map(|each| criterion(key, each)).collect::<Result<_, _>>().map(To::Prefer)
        }
        Expr::Path(path) if path.path.get_ident().is_none_or(is_constant) => Ok(To::Expr(value.clone())),
        Expr::Call(call) if !matches!(&*call.func, Expr::Path(path) if path.path.get_ident().is_some()) => {
            Ok(To::Expr(value.clone()))
        }
        Expr::MethodCall(_) => Ok(To::Expr(value.clone())),
        one => criterion(key, one).map(|one| To::Prefer(vec![one])),
    }
}

fn criterion(key: &Ident, value: &Expr) -> Result<Criterion, Wrong> {
    let (called, args): (&Expr, Vec<&Expr>) = match value {
        Expr::Call(call) => (&call.func, call.args.iter().collect()),
        other => (other, Vec::new()),
    };
    let name = match called {
        Expr::Path(path) => path.path.get_ident().ok_or_else(|| (called.span(), usage(key)))?,
        other => return Err((other.span(), usage(key))),
    };
    let To::Known { path: takes, .. } = word(key, called, PREFER)? else { return Err((called.span(), usage(key))) };
    match (takes, &args[..], value) {
        ("", [], Expr::Path(_)) => Ok(Criterion { name: name.clone(), takes: None }),
        ("", ..) => Err((value.span(), format!("`{name}` takes nothing: write `{name}`"))),
        (_, [one], _) => Ok(Criterion { name: name.clone(), takes: Some((*one).clone()) }),
        (example, ..) => Err((value.span(), format!("expected `{name}{example}`"))),
    }
}

/// One of these words, or a path of more than one segment, which is an expression of the runtime's own type.
fn word(key: &Ident, value: &Expr, words: &'static [(&'static str, &'static str)]) -> Result<To, Wrong> {
    let Expr::Path(path) = value else { return Err((value.span(), usage(key))) };
    let Some(word) = path.path.get_ident() else { return Ok(To::Expr(value.clone())) };
    if let Some((_, path)) = words.iter().find(|(name, _)| word == name) {
        return Ok(To::Known { path, span: word.span() });
    }
    if is_constant(word) {
        return Ok(To::Expr(value.clone()));
    }
    let names = words.iter().map(|(name, _)| *name);
    let snake = model::kebab(&word.to_string()).replace('-', "_");
    let known = listed(names.clone());
    let problem = match closest(&snake, names) {
        Some(best) => format!("`{key}` has no value `{word}`, did you mean `{best}`? The values are {known}"),
        None => format!("`{key}` has no value `{word}`: the values are {known}"),
    };
    Err((word.span(), problem))
}

/// `MY_TIMING`: a constant of the user's.
fn is_constant(word: &Ident) -> bool {
    let text = word.to_string();
    text.chars().any(|c| c.is_ascii_uppercase()) && !text.chars().any(|c| c.is_ascii_lowercase())
}

/// The condition of an endpoint that may be absent: a field, its opposite, or a function of some.
pub(super) fn only_if(args: &Args, diag: &Diag) -> Option<Expr> {
    let (key, value) = (args.key("only_if")?, args.expr("only_if")?);
    let judged = match value {
        Expr::Path(path) if path.path.get_ident().is_some() => Ok(()),
        Expr::Call(call) => call.args.iter().try_for_each(|arg| field(key, arg).map(|_| ())),
        Expr::Unary(ExprUnary { op: UnOp::Not(_), expr, .. }) => field(key, expr).map(|_| ()),
        other => Err((other.span(), usage(key))),
    };
    judged.map_err(|(span, problem)| diag.error_at(span, problem)).ok()?;
    Some(value.clone())
}
