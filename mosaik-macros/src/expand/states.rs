//! Machines with states: which transition a command takes, the time-outs that the group calls, and the states as data and as a
//! drawing.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Type, spanned::Spanned};

use super::machine::{Names, arguments};
use crate::model::{Guard, Machine, Method, States, Step, Stored, parse_period, plain};

/// The command's transitions are tried in order: the first from the present state whose condition holds runs its method, then
/// sets the state. `call` takes the arguments out of the variant, which is `#call { .. }`.
pub(super) fn arm(
    machine: &Machine,
    states: &States,
    method: &Method,
    (call, result): (&Ident, &Ident),
) -> TokenStream {
    let (runtime, variant) = (&machine.runtime, &method.variant);
    let bound = arguments(method).enumerate().map(|(index, (ident, _))| {
        let local = local(ident, index);
        quote!(#ident: #local)
    });
    let refused = quote!(#runtime::groups::NoTransition);
    let (field, ty) = (&states.field, &states.ty);
    let present = quote_spanned!(ty.span()=> <#ty as ::core::clone::Clone>::clone(&self.#field));
    let begun = method.steps.iter().any(|step| step.transition.after.is_some()).then(|| begin(states));
    let steps = method.steps.iter().map(|step| {
        let (from, condition) = (from(states, step), condition(machine, states, method, step));
        let (taken, condition) =
            (taken(machine, states, method, step), condition.map(|condition| quote!(if #condition)));
        quote!(#from #condition => { #taken })
    });
    let unmet = method.steps.iter().filter(|step| is_conditional(step)).map(|step| from(states, step));
    let unmet = unmet.map(|from| quote!(#from => ::core::result::Result::Err(#refused::Unmet { state: #present })));
    quote! {
        #call::#variant { #(#bound),* } => #result::#variant({
            #begun
            #[allow(unreachable_patterns)]
            match self.#field {
                #(#steps)*
                #(#unmet,)*
                _ => ::core::result::Result::Err(#refused::None { state: #present }),
            }
        })
    }
}

fn is_conditional(step: &Step) -> bool {
    step.transition.guard.is_some() || step.transition.after.is_some()
}

fn local(ident: &Ident, index: usize) -> Ident {
    Ident::new(&format!("argument{index}"), ident.span().resolved_at(Span::mixed_site()))
}

/// The states that a transition is from, as a pattern.
fn from(states: &States, step: &Step) -> TokenStream {
    let ty = &states.ty;
    let from = step.transition.from.iter().map(|from| quote!(#ty::#from));
    quote!(#(#from)|*)
}

/// The time in the first state begins when somebody first asks, for nobody is there to note it before.
fn begin(states: &States) -> Option<TokenStream> {
    let since = states.since.as_ref()?;
    Some(quote!(if self.#since.is_zero() { self.#since = ctx.time(); }))
}

/// What a transition asks for besides its state.
fn condition(machine: &Machine, states: &States, method: &Method, step: &Step) -> Option<TokenStream> {
    let due = due(states, step);
    match (due, guard(machine, method, step)) {
        (Some(due), Some(guard)) => Some(quote!(#due && #guard)),
        (due, guard) => due.or(guard),
    }
}

fn due(states: &States, step: &Step) -> Option<TokenStream> {
    let (since, after) = (states.since.as_ref()?, step.transition.after.as_ref()?);
    let after = super::duration(after);
    Some(quote!(ctx.time().saturating_sub(self.#since) >= #after))
}

fn guard(machine: &Machine, method: &Method, step: &Step) -> Option<TokenStream> {
    let guard = step.transition.guard.as_ref()?;
    let given = arguments(method).enumerate().map(|(index, (ident, param))| {
        let local = local(ident, index);
        match param.stored {
            Stored::Borrowed(_) => quote!(::core::borrow::Borrow::borrow(&#local)),
            _ => quote!(&#local),
        }
    });
    let (function, span) = (&guard.function, guard.function.span());
    let runtime = super::at(&machine.runtime, span);
    let holds = quote_spanned!(span=> #runtime::__private::holds(#function(self, #(#given),*)));
    Some(if guard.negated { quote!(!#holds) } else { holds })
}

/// Runs the method and sets the state, unless the method says that it failed.
fn taken(machine: &Machine, states: &States, command: &Method, step: &Step) -> TokenStream {
    let Some(action) = machine.actions.get(step.action) else { return TokenStream::new() };
    let mut locals = arguments(command).enumerate().map(|(index, (ident, _))| local(ident, index));
    let given: Vec<TokenStream> = action
        .params
        .iter()
        .map(|param| match &param.stored {
            Stored::Context => quote!(ctx),
            Stored::Borrowed(_) => {
                let local = locals.next();
                quote_spanned!(param.ty.span()=> ::core::borrow::Borrow::borrow(&#local))
            }
            Stored::Owned => locals.next().map_or_else(TokenStream::new, |local| quote!(#local)),
        })
        .collect();
    let (ident, field, ty, to) = (&action.signature.ident, &states.field, &states.ty, &step.transition.to);
    let since = states.since.as_ref().map(|since| quote!(self.#since = ctx.time();));
    let moved = quote!(self.#field = #ty::#to; #since);
    let moved = if is_result(&action.output) { quote!(if result.is_ok() { #moved }) } else { moved };
    quote! {
        let result = Self::#ident(self, #(#given),*);
        #moved
        ::core::result::Result::Ok(result)
    }
}

fn is_result(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Result"))
}

/// All time-outs, the shortest first.
fn time_outs(machine: &Machine) -> Vec<(&Method, &Step)> {
    let steps = machine.methods.iter().flat_map(|method| method.steps.iter().map(move |step| (method, step)));
    let mut all: Vec<_> = steps.filter(|(method, step)| step.transition.after.is_some() && !method.broken).collect();
    all.sort_by_key(|(_, step)| step.transition.after.as_ref().and_then(|after| parse_period(&after.value()).ok()));
    all
}

/// The query for time-outs and its answer, as variants; nothing for a machine without.
pub(super) fn variants(machine: &Machine) -> (Option<TokenStream>, Option<TokenStream>) {
    if time_outs(machine).is_empty() {
        return (None, None);
    }
    let answer = quote!(::core::option::Option<(::core::time::Duration, u32)>);
    (
        Some(quote!(
            #[doc(hidden)]
            __TimeOut {}
        )),
        Some(quote!(#[doc(hidden)] __TimeOut(#answer))),
    )
}

/// The arm of that query: since when the machine is in its state, and which time-out comes next.
pub(super) fn asked(machine: &Machine, names: &Names) -> Option<TokenStream> {
    let (states, all) = (machine.states.as_ref()?, time_outs(machine));
    if all.is_empty() {
        return None;
    }
    let (query, answer, field, since) = (&names.query, &names.answer, &states.field, states.since.as_ref()?);
    let arms = all.iter().zip(0_u32..).map(|((method, step), number)| {
        let (from, guard) = (from(states, step), guard(machine, method, step).map(|guard| quote!(if #guard)));
        quote!(#from #guard => ::core::option::Option::Some((self.#since, #number)))
    });
    Some(quote! {
        #query::__TimeOut {} => #answer::__TimeOut({
            #[allow(unreachable_patterns)]
            match self.#field { #(#arms,)* _ => ::core::option::Option::None }
        })
    })
}

/// How a member asks for time-outs and calls them.
pub(super) fn called(machine: &Machine, names: &Names) -> Option<TokenStream> {
    let all = time_outs(machine);
    if all.is_empty() {
        return None;
    }
    let (runtime, Names { command, query, answer, .. }) = (&machine.runtime, names);
    let due = quote!(#runtime::node::Due);
    let arms = all.iter().zip(0_u32..).map(|((method, step), number)| {
        let (variant, after) = (&method.variant, step.transition.after.as_ref().map(super::duration));
        quote!(#answer::__TimeOut(::core::option::Option::Some((since, #number))) => {
            ::core::option::Option::Some(#due { since, after: #after, command: #command::#variant {} })
        })
    });
    Some(quote! {
        fn time_outs() -> ::core::option::Option<#runtime::node::TimeOuts<Self>> {
            ::core::option::Option::Some(#runtime::node::TimeOuts {
                query: || #query::__TimeOut {},
                next: |answer| match answer { #(#arms)* _ => ::core::option::Option::None },
            })
        }
    })
}

/// Puts the machine that a member begins with into its first state.
pub(super) fn initial(machine: &Machine, initial: &TokenStream) -> TokenStream {
    let Some(states) = &machine.states else { return initial.clone() };
    let (field, ty, first) = (&states.field, &states.ty, states.names.first());
    let since = states.since.as_ref().map(|since| quote!(machine.#since = ::core::time::Duration::ZERO;));
    quote!({ let mut machine: Self = #initial; machine.#field = #ty::#first; #since machine })
}

/// The states as data, and a check that they are all of the enum's.
pub(super) fn declared(machine: &Machine) -> (TokenStream, Option<TokenStream>) {
    let Some(states) = &machine.states else { return (quote!(::core::option::Option::None), None) };
    let (runtime, ty) = (&machine.runtime, &states.ty);
    let drawing = drawing(machine).unwrap_or_default();
    let named = |names: &[Ident]| names.iter().map(plain).collect::<Vec<_>>();
    let (names, terminal, called) = (named(&states.names), named(&states.terminal), last_word(states));
    let transitions = edges(machine).map(|edge| {
        let Edge { command, from, to, guard, .. } = &edge;
        let after = edge.step.transition.after.as_ref().map(super::duration);
        let after = after
            .map_or_else(|| quote!(::core::option::Option::None), |after| quote!(::core::option::Option::Some(#after)));
        quote!(#runtime::node::TransitionDecl { command: #command, from: #from, to: #to, guard: #guard, after: #after })
    });
    let decl = quote! {
        ::core::option::Option::Some(#runtime::node::StatesDecl {
            ty: #called,
            names: &[#(#names),*],
            terminal: &[#(#terminal),*],
            transitions: &[#(#transitions),*],
            mermaid: #drawing,
        })
    };
    let all = &states.names;
    let check = quote_spanned! {ty.span()=>
        const _: fn(&#ty) = |state| match state { #(#ty::#all)|* => {} };
    };
    (decl, Some(check))
}

fn last_word(states: &States) -> String {
    states.ty.segments.last().map(|last| plain(&last.ident)).unwrap_or_default()
}

/// One arrow between two states.
struct Edge<'a> {
    command: String,
    from: String,
    to: String,
    /// Empty without one.
    guard: String,
    step: &'a Step,
}

fn edges(machine: &Machine) -> impl Iterator<Item = Edge<'_>> {
    let steps = machine.methods.iter().flat_map(|method| method.steps.iter().map(move |step| (method, step)));
    steps.flat_map(|(method, step)| {
        step.transition.from.iter().map(move |from| Edge {
            command: plain(&method.signature.ident),
            from: plain(from),
            to: plain(&step.transition.to),
            guard: step.transition.guard.as_ref().map(Guard::shown).unwrap_or_default(),
            step,
        })
    })
}

/// A Mermaid state diagram.
fn drawing(machine: &Machine) -> Option<String> {
    let states = machine.states.as_ref()?;
    let mut out = format!("stateDiagram-v2\n    [*] --> {}\n", plain(states.names.first()?));
    for edge in edges(machine) {
        let guard = if edge.guard.is_empty() { String::new() } else { format!(" [{}]", edge.guard) };
        let after =
            edge.step.transition.after.as_ref().map_or_else(String::new, |after| format!(" after {}", after.value()));
        let line = format!("    {} --> {}: {}{guard}{after}\n", edge.from, edge.to, edge.command);
        out.push_str(&line);
    }
    for terminal in &states.terminal {
        let line = format!("    {} --> [*]\n", plain(terminal));
        out.push_str(&line);
    }
    Some(out)
}

/// The drawing as documentation of the machine.
pub(crate) fn documentation(machine: &Machine) -> Option<TokenStream> {
    let text = format!("Its states and what leads from one to another:\n\n```mermaid\n{}```", drawing(machine)?);
    Some(quote!(#[doc = #text]))
}

/// What members must agree on: the same command leads to the same state.
pub(super) fn shape(machine: &Machine) -> String {
    drawing(machine)
        .map_or_else(String::new, |drawing| format!(";{}", drawing.split_whitespace().collect::<Vec<_>>().join(" ")))
}
