//! Reads the states of a machine and its transitions: the keys of `#[mosaik::state_machine]` that name them, and
//! `#[transition(Placed: Open | Part -> Filled, if = Self::enough)]` on methods.

use proc_macro2::TokenStream;
use syn::{
    Attribute, Expr, Ident, Member, Token, UnOp,
    parse::{ParseStream, Parser},
};

use super::{args::Args, grammar};
use crate::{
    diag::Diag,
    model::{Guard, States, Transition},
};

const USAGE: &str =
    "`#[transition(Open -> Filled)]`, or with the command that it is of: `#[transition(Placed: Open -> Filled)]`";

/// The states that `#[mosaik::state_machine]` declares; `clean` if all of its keys could be read.
pub(super) fn states(args: &Args, clean: bool, diag: &Diag) -> Option<States> {
    let Some(given) = args.expr("states") else {
        for key in ["state", "since", "terminal"].into_iter().filter_map(|key| args.key(key)) {
            diag.error(key, format!("`{key}` belongs to states: `states = Stage {{ Open, Filled }}`"));
        }
        return None;
    };
    let Some(field) = args.word("state") else {
        if clean {
            diag.error(given, "say which field of the machine holds its state: `state = <field>`");
        }
        return None;
    };
    let Expr::Struct(list) = given else {
        diag.error(
            given,
            "states are an enum and its variants, where the machine begins first: `states = Stage { Open, Filled }`",
        );
        return None;
    };
    let mut names = Vec::new();
    for value in &list.fields {
        match &value.member {
            Member::Named(name) => {
                names.push(name.clone());
                if value.colon_token.is_some() {
                    diag.error(value, "a state is the name of a variant and nothing else");
                }
            }
            Member::Unnamed(_) => diag.error(value, "a state is the name of a variant and nothing else"),
        }
    }
    if let Some(rest) = &list.dot2_token {
        diag.error(rest, "all states are named: those that are not could not be checked");
    }
    let terminal = args.exprs("terminal").iter().filter_map(|state| match state {
        Expr::Path(path) if path.path.get_ident().is_some() => path.path.get_ident().cloned(),
        other => {
            diag.error(other, "a state is the name of a variant: `terminal = [Filled]`");
            None
        }
    });
    Some(States {
        field: field.clone(),
        since: args.word("since").cloned(),
        ty: list.path.clone(),
        names,
        terminal: terminal.collect(),
    })
}

/// One transition; nothing for a malformed one.
pub(super) fn transition(attribute: &Attribute, diag: &Diag) -> Option<Transition> {
    let (before, inside) = (diag.count(), super::inside(attribute, diag));
    if diag.count() > before {
        return None;
    }
    if inside.is_empty() {
        diag.error(attribute, format!("say from which state to which: {USAGE}"));
        return None;
    }
    let (arrow, rest) = match arrow.parse2(inside) {
        Ok(read) => read,
        Err(error) => {
            diag.syntax(error);
            return None;
        }
    };
    let args = Args::parse(&grammar::TRANSITION, rest, Some(attribute), diag);
    let guard = args.expr("if").and_then(|condition| guard(condition, diag));
    let Arrow { command, from, to } = arrow;
    let after = args.text("after").cloned();
    (diag.count() == before).then(|| Transition { command, from, to, guard, after, attribute: attribute.clone() })
}

struct Arrow {
    command: Option<Ident>,
    from: Vec<Ident>,
    to: Ident,
}

/// `Placed: Open | Part -> Filled`, and what stands behind the comma.
fn arrow(input: ParseStream<'_>) -> syn::Result<(Arrow, TokenStream)> {
    let wrong = |error: syn::Error| syn::Error::new(error.span(), format!("expected {USAGE}"));
    let mut command = None;
    if input.peek(Ident) && input.peek2(Token![:]) && !input.peek2(Token![::]) {
        command = Some(input.parse()?);
        input.parse::<Token![:]>()?;
    }
    let mut from: Vec<Ident> = vec![input.parse().map_err(wrong)?];
    while input.peek(Token![|]) {
        input.parse::<Token![|]>()?;
        from.push(input.parse().map_err(wrong)?);
    }
    if let (true, Some(last)) = (input.is_empty(), from.last()) {
        return Err(syn::Error::new_spanned(last, format!("`{last}` leads nowhere: expected {USAGE}")));
    }
    let arrow: Token![->] = input.parse().map_err(wrong)?;
    if input.is_empty() {
        return Err(syn::Error::new_spanned(arrow, format!("expected {USAGE}")));
    }
    let to = input.parse().map_err(wrong)?;
    if !input.is_empty() {
        input.parse::<Token![,]>().map_err(|error| {
            syn::Error::new(
                error.span(),
                "a transition leads to one state; `if = ..` and `after = ..` stand behind a comma",
            )
        })?;
    }
    Ok((Arrow { command, from, to }, input.parse()?))
}

fn guard(condition: &Expr, diag: &Diag) -> Option<Guard> {
    let (negated, function) = match condition {
        Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => (true, &*unary.expr),
        plain => (false, plain),
    };
    if let Expr::Path(function) = function {
        return Some(Guard { negated, function: function.clone() });
    }
    diag.error(
        condition,
        "a condition is a function of the machine and the command's arguments: `if = Self::enough` or `if = !Self::enough` \
         with `fn enough(&self, ..) -> bool`, which takes arguments by reference",
    );
    None
}
