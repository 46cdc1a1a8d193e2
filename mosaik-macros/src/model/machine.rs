//! A state machine: what its commands and queries are, from the methods of its inherent impl or from named types.

use proc_macro2::{Span, TokenStream};
use syn::{Attribute, Expr, Generics, Ident, LitStr, Signature, Type};

/// `#[mosaik::state_machine]` on an impl.
pub(crate) struct Machine {
    pub(crate) runtime: TokenStream,
    pub(crate) generics: Generics,
    /// The type as it was written.
    pub(crate) ty: Type,
    /// Its last word, from which generated types are named.
    pub(crate) ident: Ident,
    pub(crate) version: Option<Expr>,
    pub(crate) snapshots: Option<Expr>,
    /// Earlier versions, and what takes over their state.
    pub(crate) migrations: Vec<(Expr, Expr)>,
    pub(crate) methods: Vec<Method>,
    /// Its other functions, which commands may call.
    pub(crate) helpers: Vec<Helper>,
    /// Where the attribute stands.
    pub(crate) at: Span,
    /// The states of one that has them.
    pub(crate) states: Option<States>,
    /// The methods with transitions, once `check` has made commands of them.
    pub(crate) actions: Vec<Method>,
}

/// A function that is neither a command nor a query.
pub(crate) struct Helper {
    pub(crate) ident: Ident,
    pub(crate) body: TokenStream,
    /// `#[mosaik(nondeterministic = "..")]` stands on it.
    pub(crate) excused: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MethodKind {
    Command,
    Query,
}

impl MethodKind {
    /// "a command", for messages.
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Command => "a command",
            Self::Query => "a query",
        }
    }
}

/// A command or a query.
#[derive(Clone)]
pub(crate) struct Method {
    pub(crate) kind: MethodKind,
    /// The variant that stands for it.
    pub(crate) variant: Ident,
    pub(crate) signature: Signature,
    pub(crate) docs: String,
    /// Those that a method of the client has, too: documentation and deprecation.
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) cfgs: Vec<Attribute>,
    pub(crate) params: Vec<Param>,
    /// What it returns, with `Self` written out.
    pub(crate) output: Type,
    /// What the methods of its transitions return, which is a part of that. Set by `check`.
    pub(crate) returned: Option<Type>,
    /// Its body, as tokens.
    pub(crate) body: TokenStream,
    /// `#[mosaik(nondeterministic = "..")]` stands on it.
    pub(crate) excused: bool,
    /// Set by `check`: it breaks a rule, and nothing calls it.
    pub(crate) broken: bool,
    /// What `#[transition(..)]` on it says.
    pub(crate) transitions: Vec<Transition>,
    /// Of a command that is one of transitions: which, in the order in which they are tried. Set by `check`.
    pub(crate) steps: Vec<Step>,
}

/// A parameter beside `self`.
#[derive(Clone)]
pub(crate) struct Param {
    /// Its name; nothing when it is another pattern.
    pub(crate) ident: Option<Ident>,
    pub(crate) whole: TokenStream,
    /// As it was written, with `Self` written out.
    pub(crate) ty: Type,
    pub(crate) stored: Stored,
}

/// How a parameter travels.
#[derive(Clone)]
pub(crate) enum Stored {
    /// As it is.
    Owned,
    /// As the owned form of what it refers to.
    Borrowed(Box<Type>),
    /// Not at all: it is the `ApplyContext`.
    Context,
}

/// The states of a machine: an enum of the user's, and the field that holds one of them.
pub(crate) struct States {
    /// The field.
    pub(crate) field: Ident,
    /// The field that holds since when.
    pub(crate) since: Option<Ident>,
    /// The enum.
    pub(crate) ty: syn::Path,
    /// Its variants; the machine begins in the first.
    pub(crate) names: Vec<Ident>,
    /// Those that nothing leaves.
    pub(crate) terminal: Vec<Ident>,
}

/// `#[transition(Placed: Open | Part -> Filled, if = Self::enough, after = "30s")]`.
#[derive(Clone)]
pub(crate) struct Transition {
    /// The command, if it is not named after the method.
    pub(crate) command: Option<Ident>,
    pub(crate) from: Vec<Ident>,
    pub(crate) to: Ident,
    pub(crate) guard: Option<Guard>,
    pub(crate) after: Option<LitStr>,
    pub(crate) attribute: Attribute,
}

/// A condition: a function of the machine and the arguments.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) negated: bool,
    pub(crate) function: syn::ExprPath,
}

impl Guard {
    /// For people: the function's last word.
    pub(crate) fn shown(&self) -> String {
        let word = self.function.path.segments.last().map(|last| super::plain(&last.ident)).unwrap_or_default();
        if self.negated { format!("not {word}") } else { word }
    }
}

/// A transition of a command and the method that it runs.
#[derive(Clone)]
pub(crate) struct Step {
    /// Its place among the machine's `actions`.
    pub(crate) action: usize,
    pub(crate) transition: Transition,
}

/// A variant of the enum of commands, which has a method of the machine for it.
pub(crate) struct Variant {
    pub(crate) ident: Ident,
    /// The method's name, where the variant's stands.
    pub(crate) method: Ident,
    pub(crate) fields: syn::Fields,
    /// The method takes the `ApplyContext` last.
    pub(crate) context: bool,
}

/// `#[derive(StateMachine)]` on a struct whose commands are a type of their own, or on the enum of the commands.
pub(crate) struct Derived {
    pub(crate) runtime: TokenStream,
    /// The machine: the type that it stands on, or the one that it names.
    pub(crate) machine: Type,
    pub(crate) generics: Generics,
    /// The type of commands: named, or the one that it stands on.
    pub(crate) command: Option<Type>,
    /// Of commands with a method each.
    pub(crate) variants: Option<Vec<Variant>>,
    pub(crate) output: Option<Type>,
    pub(crate) query: Option<Type>,
    pub(crate) answer: Option<Type>,
    pub(crate) version: Option<Expr>,
    pub(crate) snapshots: Option<Expr>,
    /// Earlier versions, and what takes over their state.
    pub(crate) migrations: Vec<(Expr, Expr)>,
    /// Set by `check`: a rule is broken, and its methods are not called.
    pub(crate) broken: bool,
}
