//! A state machine: what its commands and queries are, from the methods of its inherent impl or from named types.

use proc_macro2::{Span, TokenStream};
use syn::{Attribute, Expr, Generics, Ident, Signature, Type};

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
    /// Its body, as tokens.
    pub(crate) body: TokenStream,
    /// `#[mosaik(nondeterministic = "..")]` stands on it.
    pub(crate) excused: bool,
    /// Set by `check`: it breaks a rule, and nothing calls it.
    pub(crate) broken: bool,
}

/// A parameter beside `self`.
pub(crate) struct Param {
    /// Its name; nothing when it is another pattern.
    pub(crate) ident: Option<Ident>,
    pub(crate) whole: TokenStream,
    /// As it was written, with `Self` written out.
    pub(crate) ty: Type,
    pub(crate) stored: Stored,
}

/// How a parameter travels.
pub(crate) enum Stored {
    /// As it is.
    Owned,
    /// As the owned form of what it refers to.
    Borrowed(Box<Type>),
    /// Not at all: it is the `ApplyContext`.
    Context,
}

/// `#[derive(StateMachine)]` on a struct whose commands are a type of their own.
pub(crate) struct Derived {
    pub(crate) runtime: TokenStream,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) command: Option<Type>,
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
