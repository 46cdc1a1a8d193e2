//! Every rule about what was declared, each reported on the tokens that break it. Looks at the model only and emits
//! nothing. Rules that need the types themselves are trait bounds and constants in the runtime crate.

mod app;
mod determinism;
mod group;
mod handlers;
mod machine;
mod main;
mod node;
mod states;
mod store;
mod stream;
mod test;

pub(crate) use app::app;
pub(crate) use group::group;
pub(crate) use handlers::handlers;
pub(crate) use machine::{derived, machine};
pub(crate) use main::main;
pub(crate) use node::node;
pub(crate) use store::store;
pub(crate) use stream::stream;
pub(crate) use test::test;

use syn::{Expr, ExprLit, Generics, Lit, LitStr};

use crate::{diag::Diag, model::Name, model::kebab};

/// The longest name in bytes: an identifier is hashed at compile time, from at most this much.
const MAX_NAME: usize = 255;

/// A name of a role or an app: it becomes a word on the command line.
fn command_name(name: &Name, what: &str, diag: &Diag) {
    let text = &name.text;
    let valid = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if valid && text.len() <= MAX_NAME {
        return;
    }
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let guess = kebab(&words.join("_"));
    let hint = if guess.starts_with(|first: char| first.is_ascii_lowercase()) && guess.len() <= MAX_NAME {
        format!(", such as \"{guess}\"")
    } else {
        String::new()
    };
    diag.error_at(
        name.span,
        format!(
            "the name of {what} is typed on the command line: lower-case letters, digits and `-`, a letter first, at most {MAX_NAME} bytes{hint}"
        ),
    );
}

/// A name that is only ever hashed and shown: anything that prints on one line.
fn printable(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err(String::from("is empty"))
    } else if text.len() > MAX_NAME {
        Err(format!("is longer than {MAX_NAME} bytes"))
    } else if text.trim() != text || text.chars().any(char::is_control) {
        Err(String::from("begins or ends with white space or contains control characters"))
    } else {
        Ok(())
    }
}

/// The tags of a role: string literals are judged here, constants by the compiler.
fn tags(tags: &[Expr], diag: &Diag) {
    let mut seen: Vec<&LitStr> = Vec::new();
    for tag in tags {
        match tag {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
                let value = text.value();
                if let Err(problem) = printable(&value) {
                    diag.error(text, format!("this tag {problem}"));
                } else if value.contains(',') {
                    diag.error(text, "a tag contains no comma: `--tag` and MOSAIK_TAG separate tags by it");
                } else if seen.iter().any(|known| known.value() == value) {
                    diag.error(text, format!("the tag \"{value}\" is given twice"));
                } else {
                    seen.push(text);
                }
            }
            Expr::Path(_) => {}
            other => diag.error(other, "a tag is a string literal or the path of a `&'static str` constant"),
        }
    }
}

/// The longest name of a role or a grant that a ticket holds, in bytes.
const MAX_GRANT_NAME: usize = 64;

/// Names of roles and grants: what a ticket can hold.
fn grants(names: &[LitStr], diag: &Diag) {
    for (at, name) in names.iter().enumerate() {
        let text = name.value();
        if let Err(problem) = printable(&text) {
            diag.error(name, format!("this role or grant {problem}"));
        } else if text.len() > MAX_GRANT_NAME {
            diag.error(
                name,
                format!("a ticket holds names of at most {MAX_GRANT_NAME} bytes, this has {}", text.len()),
            );
        } else if text.contains(',') {
            diag.error(name, "a grant contains no comma: `mosaik invite --grant` separates grants by it; write a list");
        } else if names[..at].iter().any(|known| known.value() == text) {
            diag.error(name, format!("\"{text}\" is given twice"));
        }
    }
}

/// The longest label in bytes: a ticket holds it with `clears:` before it.
const MAX_LABEL: usize = 57;

/// Labels: what stands in a grant and in a message as it is.
fn labels(labels: &[LitStr], diag: &Diag) {
    for (at, label) in labels.iter().enumerate() {
        let text = label.value();
        let valid = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if text.is_empty() || text.len() > MAX_LABEL || !valid {
            diag.error(
                label,
                format!("a label is letters, digits, `-`, `_` and `.`, 1 to {MAX_LABEL} of them: \"private\""),
            );
        } else if labels[..at].iter().any(|known| known.value() == text) {
            diag.error(label, format!("\"{text}\" is given twice"));
        }
    }
}

/// Declarations stand for one thing that has one name, so they have no parameters.
fn no_generics(generics: &Generics, why: &str, diag: &Diag) {
    if !generics.params.is_empty() {
        diag.error(generics, why);
    }
}
