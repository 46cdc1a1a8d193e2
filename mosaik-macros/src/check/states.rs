//! Rules for machines with states: every name is that of a state, every state can be reached and left, and of the transitions of
//! a command from one state it is plain which is taken. What holds is made into commands: one for each name, with all its
//! transitions in the order in which they are written.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use syn::{Expr, Ident, ReturnType};

use crate::{
    diag::{Diag, closest, listed},
    model::{self, Machine, Method, States, Step, Stored, Transition, plain},
    tokens::canonical,
};

/// Judges states and transitions. Called before anything is known of the methods themselves.
pub(super) fn states(machine: &Machine, diag: &Diag) {
    let clean = diag.count() == 0;
    let transitions =
        || machine.methods.iter().flat_map(|method| method.transitions.iter().map(move |each| (method, each)));
    let Some(states) = &machine.states else {
        if let (Some((_, first)), true) = (transitions().next(), clean) {
            diag.error(
                &first.attribute,
                "a transition is between states: `#[mosaik::state_machine(states = Stage { Open, Filled }, state = <field>)]` \
                 says which there are",
            );
        }
        return;
    };
    let before = diag.count();
    names(states, diag);
    for (method, transition) in transitions() {
        known(states, transition, diag);
        time_out(states, method, transition, diag);
        if let Some(command) = &transition.command {
            let name = model::snake(&plain(command));
            if model::method_ident(&name, command.span()).is_none() {
                diag.error(command, format!("a command is called by a method, and none can be called `{name}`"));
            }
        }
    }
    for method in machine.methods.iter().filter(|method| !method.transitions.is_empty()) {
        assigned(&method.body, states, diag);
    }
    if !(clean && diag.count() == before) {
        return;
    }
    let all: Vec<_> = transitions().collect();
    if all.is_empty() {
        let first = states.names.first();
        diag.error(first, "nothing leads from one state to another: methods with `#[transition(Open -> Filled)]` do");
        return;
    }
    ambiguous(&all, diag);
    reach(states, &all, diag);
}

fn names(states: &States, diag: &Diag) {
    if states.names.is_empty() {
        diag.error(&states.ty, "a machine with states has at least one: `states = Stage { Open, Filled }`");
    }
    for (list, what) in [(&states.names, "a state"), (&states.terminal, "terminal")] {
        for (number, name) in list.iter().enumerate() {
            if list[..number].contains(name) {
                diag.error(name, format!("`{name}` is {what} already"));
            }
        }
    }
    states.terminal.iter().for_each(|name| state(states, name, diag));
}

fn state(states: &States, name: &Ident, diag: &Diag) {
    if states.names.is_empty() || states.names.contains(name) {
        return;
    }
    let all: Vec<String> = states.names.iter().map(plain).collect();
    let all = || all.iter().map(String::as_str);
    let hint = closest(&plain(name), all())
        .map_or_else(|| format!(": the states are {}", listed(all())), |best| format!(", did you mean `{best}`?"));
    diag.error(name, format!("no state `{name}`{hint}"));
}

fn known(states: &States, transition: &Transition, diag: &Diag) {
    for (number, from) in transition.from.iter().enumerate() {
        state(states, from, diag);
        if states.terminal.contains(from) {
            diag.error(from, format!("`{from}` is terminal: nothing leaves it"));
        }
        if transition.from[..number].contains(from) {
            diag.error(from, format!("`{from}` is given twice"));
        }
    }
    state(states, &transition.to, diag);
}

fn time_out(states: &States, method: &Method, transition: &Transition, diag: &Diag) {
    let Some(after) = &transition.after else { return };
    if let Err(problem) = model::parse_period(&after.value()) {
        diag.error(after, problem);
    }
    if states.since.is_none() {
        diag.error(
            after,
            "a time-out counts from when the machine came into its state: `since = <field>` on `#[mosaik::state_machine]` names \
             the field of type `Duration` that holds it",
        );
    }
    for param in method.params.iter().filter(|param| !matches!(param.stored, Stored::Context)) {
        diag.error(
            &param.whole,
            "the group itself calls a time-out, so it has no arguments beside `ctx: &ApplyContext`",
        );
    }
}

/// The state is the transition's to set: `self.field = ..` in a method would be undone, or would undo it.
fn assigned(body: &TokenStream, states: &States, diag: &Diag) {
    let trees: Vec<TokenTree> = body.clone().into_iter().collect();
    let is = |tree: Option<&TokenTree>, wanted: char| matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted);
    for (at, tree) in trees.iter().enumerate() {
        match tree {
            TokenTree::Group(group) => assigned(&group.stream(), states, diag),
            TokenTree::Ident(word) if *word == states.field && at > 1 => {
                let own =
                    is(trees.get(at - 1), '.') && matches!(&trees[at - 2], TokenTree::Ident(word) if word == "self");
                let set = is(trees.get(at + 1), '=') && !is(trees.get(at + 2), '=') && !is(trees.get(at + 2), '>');
                if own && set {
                    diag.error(
                        word,
                        format!("the transition sets `{word}`, once the method has returned: leave it out here"),
                    );
                }
            }
            _ => {}
        }
    }
}

/// The name of the command that a transition is of.
fn command(method: &Method, transition: &Transition) -> String {
    transition.command.as_ref().map_or_else(|| plain(&method.signature.ident), |name| model::snake(&plain(name)))
}

/// Of two transitions of one command from one state, the first has a condition, and the second another one or none.
fn ambiguous(all: &[(&Method, &Transition)], diag: &Diag) {
    let condition = |transition: &Transition| {
        transition.guard.as_ref().map(|guard| {
            let function = &guard.function;
            (guard.negated, canonical(quote!(#function)))
        })
    };
    for (number, (method, transition)) in all.iter().enumerate() {
        let name = command(method, transition);
        for from in &transition.from {
            let clash = all[..number].iter().find(|(earlier, other)| {
                let same = command(earlier, other) == name && other.from.contains(from);
                same && (condition(other).is_none() || condition(other) == condition(transition))
            });
            if let Some((_, other)) = clash {
                let to = &other.to;
                let why = if condition(other).is_none() { "without a condition" } else { "under the same condition" };
                diag.error(
                    from,
                    format!(
                        "ambiguous: `{name}` leads from `{from}` to `{to}` {why} already; give the earlier transition a condition \
                         of its own, `if = Self::..`"
                    ),
                );
            }
        }
    }
}

fn reach(states: &States, all: &[(&Method, &Transition)], diag: &Diag) {
    let Some(first) = states.names.first() else { return };
    let mut reached = BTreeSet::from([first]);
    loop {
        let next = all.iter().filter(|(_, each)| each.from.iter().any(|from| reached.contains(from)));
        let before = reached.len();
        let next: Vec<&Ident> = next.map(|(_, each)| &each.to).collect();
        reached.extend(next);
        if reached.len() == before {
            break;
        }
    }
    for name in &states.names {
        let leaves = all.iter().any(|(_, each)| each.from.contains(name));
        if !reached.contains(name) {
            diag.error(
                name,
                format!("`{name}` is unreachable: no transition leads to it from `{first}`, where the machine begins"),
            );
        } else if !leaves && !states.terminal.contains(name) {
            diag.error(
                name,
                format!(
                    "`{name}` is a dead end: no transition leaves it; if that is meant, say so: `terminal = [{name}]`"
                ),
            );
        }
    }
}

/// Makes commands of the methods with transitions, in the place of the first of each, and keeps the methods as actions.
pub(super) fn merge(machine: &mut Machine, diag: &Diag) {
    let Some(states) = &machine.states else { return };
    let mut merged: Vec<Method> = Vec::new();
    for method in std::mem::take(&mut machine.methods) {
        if method.transitions.is_empty() {
            merged.push(method);
            continue;
        }
        let action = machine.actions.len();
        for transition in &method.transitions {
            let step = Step { action, transition: transition.clone() };
            let name = command(&method, transition);
            let known =
                merged.iter_mut().find(|known| !known.steps.is_empty() && plain(&known.signature.ident) == name);
            match known {
                Some(known) => {
                    alike(&machine.actions, known, &method, transition, diag);
                    known.broken |= method.broken;
                    known.steps.push(step);
                }
                None => merged.push(first(&machine.runtime, states, &method, &name, step)),
            }
        }
        machine.actions.push(method);
    }
    for command in &merged {
        let Some(name) = command.steps.first().and_then(|step| step.transition.command.as_ref()) else { continue };
        let text = plain(&command.signature.ident);
        super::machine::reserved(name, &text, "a command", diag);
        if merged.iter().any(|other| other.steps.is_empty() && plain(&other.signature.ident) == text) {
            diag.error(name, format!("there is a command or a query `{text}` besides this one"));
        }
    }
    merged.iter_mut().for_each(describe);
    machine.methods = merged;
}

/// Something is wrong: the commands keep their places in the client, and nothing is made of states, so that one mistake is one error.
pub(super) fn give_up(machine: &mut Machine) {
    machine.states = None;
    machine.actions.clear();
    machine.methods.iter_mut().filter(|method| !method.steps.is_empty()).for_each(|method| method.broken = true);
}

/// The command of a first transition.
fn first(runtime: &TokenStream, states: &States, method: &Method, name: &str, step: Step) -> Method {
    let (ident, ty, output) = (&method.signature.ident, &states.ty, &method.output);
    let mut command = method.clone();
    if plain(ident) != name {
        let at = step.transition.command.as_ref().unwrap_or(ident).span();
        // One that cannot be a method has been reported.
        if let Some(ident) = model::method_ident(name, at) {
            command.signature.ident = ident;
        }
    }
    command.variant = Ident::new(&model::camel(name), command.signature.ident.span());
    command.output = syn::parse_quote!(::core::result::Result<#output, #runtime::groups::NoTransition<#ty>>);
    command.returned = Some(method.output.clone());
    command.transitions = Vec::new();
    command.steps = vec![step];
    command
}

/// Methods of one command take and return the same.
fn alike(actions: &[Method], known: &Method, method: &Method, transition: &Transition, diag: &Diag) {
    let Some(other) = known.steps.first().and_then(|step| actions.get(step.action)) else { return };
    let arguments = |method: &Method| -> Vec<String> {
        let travels = method.params.iter().filter(|param| !matches!(param.stored, Stored::Context));
        travels.map(|param| canonical(param.whole.clone())).collect()
    };
    let output = |method: &Method| {
        let output = &method.output;
        canonical(quote!(#output))
    };
    let (name, first) = (&method.signature.ident, &other.signature.ident);
    let command = transition.command.as_ref().unwrap_or(name);
    if arguments(method) != arguments(other) {
        diag.error(name, format!("`{first}` is of the command `{command}` as well, so both take the same arguments"));
    } else if output(method) != output(other) {
        let what = format!("`{first}` is of the command `{command}` as well, so both return the same");
        match &method.signature.output {
            ReturnType::Default => diag.error(name, what),
            ReturnType::Type(_, ty) => diag.error(ty, what),
        }
    }
}

/// Says in the documentation of the command where it leads.
fn describe(command: &mut Method) {
    if command.steps.is_empty() {
        return;
    }
    let mut lines = vec![String::new()];
    for Step { transition, .. } in &command.steps {
        let from: Vec<String> = transition.from.iter().map(|from| format!("`{}`", plain(from))).collect();
        let mut line = format!("* {} to `{}`", from.join(" or "), plain(&transition.to));
        if let Some(guard) = &transition.guard {
            line.push_str(", if ");
            line.push_str(&guard.shown());
        }
        if let Some(after) = &transition.after {
            line.push_str(", after ");
            line.push_str(&after.value());
        }
        lines.push(line);
    }
    for line in &lines {
        let line = Expr::Lit(syn::parse_quote!(#line));
        command.attributes.push(syn::parse_quote!(#[doc = #line]));
    }
}
