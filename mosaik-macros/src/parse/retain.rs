//! Reads `retain = ..`: what a producer of the declared stream keeps for late joiners.

use syn::{Expr, ExprCall, ExprLit, Lit, spanned::Spanned};

use crate::{
    diag::{Diag, closest},
    model::{self, Retain},
};

const KINDS: [&str; 4] = ["last", "last_per_key", "keyframe", "window"];

/// `None` if something is wrong with it, which is reported.
pub(super) fn retain(expr: &Expr, diag: &Diag) -> Option<Retain> {
    let Expr::Call(ExprCall { func, args, .. }) = expr else { return None };
    let name = match &**func {
        Expr::Path(path) => path.path.get_ident().map(model::plain),
        _ => None,
    };
    let args: Vec<&Expr> = args.iter().collect();
    let usage = match (name.as_deref(), &args[..]) {
        (Some("last"), [items]) => return count(items, diag).map(Retain::Last),
        (Some("last_per_key"), [items]) => return count(items, diag).map(Retain::LastPerKey),
        (Some("keyframe"), [is]) => {
            return match is {
                Expr::Path(_) | Expr::Closure(_) => Some(Retain::Keyframe((*is).clone())),
                other => wrong(other, "a function or a closure that says whether an item is a key frame", diag),
            };
        }
        (Some("window"), [bytes, age]) => return window(bytes, age, diag),
        (Some("last"), _) => "`last` takes the number of items: `last(100)`",
        (Some("last_per_key"), _) => "`last_per_key` takes the number of items of each key: `last_per_key(1)`",
        (Some("keyframe"), _) => "`keyframe` takes one function: `keyframe(Frame::is_key)`",
        (Some("window"), _) => "`window` takes a size and an age: `window(\"64MiB\", \"30s\")`",
        (name, _) => {
            let guess = name.and_then(|name| closest(name, KINDS));
            let guess = guess.map_or_else(String::new, |guess| format!("did you mean `{guess}`? "));
            diag.error(func, format!("{guess}`retain` is one of `last`, `last_per_key`, `keyframe` and `window`"));
            return None;
        }
    };
    diag.error(expr, usage);
    None
}

fn wrong(at: &Expr, expected: &str, diag: &Diag) -> Option<Retain> {
    diag.error(at, format!("expected {expected}"));
    None
}

/// A number of items: any expression, but not a literal zero or something that is no number.
fn count(expr: &Expr, diag: &Diag) -> Option<Expr> {
    match expr {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. })
            if number.base10_parse().is_ok_and(|number: u64| number == 0) =>
        {
            diag.error(number, "zero items would keep nothing: leave `retain` out");
            return None;
        }
        Expr::Lit(ExprLit { lit: Lit::Int(_), .. }) => {}
        Expr::Lit(other) => {
            diag.error(other, "expected a number of items");
            return None;
        }
        _ => {}
    }
    Some(expr.clone())
}

fn window(bytes: &Expr, age: &Expr, diag: &Diag) -> Option<Retain> {
    let bytes = match bytes {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => match model::parse_size(&text.value()) {
            Ok(bytes) => syn::parse_quote_spanned!(text.span()=> #bytes as usize),
            Err(problem) => {
                diag.error(text, problem);
                return None;
            }
        },
        other => count(other, diag)?,
    };
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = age else {
        diag.error_at(age.span(), "the age is a period as a string literal, such as \"30s\"");
        return None;
    };
    match model::parse_period(&text.value()) {
        Ok(age) => Some(Retain::Window { bytes, age }),
        Err(problem) => {
            diag.error(text, problem);
            None
        }
    }
}
