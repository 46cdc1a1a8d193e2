//! A declared store: the state, and the one method that folds deltas into it.

use proc_macro2::{Span, TokenStream};
use syn::{Attribute, Expr, Generics, Ident, LitStr, Signature, Type};

use super::{Helper, Name};

/// `#[mosaik::store]` on an impl.
pub(crate) struct Store {
    pub(crate) runtime: TokenStream,
    pub(crate) generics: Generics,
    /// The type as it was written.
    pub(crate) ty: Type,
    /// Its last word.
    pub(crate) ident: Ident,
    /// The store's name: `name = ".."`, else the type's identifier.
    pub(crate) name: Name,
    /// The doc comment of the impl.
    pub(crate) docs: String,
    pub(crate) version: Option<Expr>,
    /// How it may change from one program to the next: a variant of the runtime's `Evolve`.
    pub(crate) evolve: Option<&'static str>,
    /// The roles and grants of which one is needed to be the primary, and to have a replica.
    pub(crate) primary: Vec<LitStr>,
    pub(crate) replica: Vec<LitStr>,
    /// Only roles that clear it receive what is sent.
    pub(crate) label: Option<LitStr>,
    /// The group whose log has the deltas.
    pub(crate) owner: Option<Type>,
    /// Missing when no method has that name.
    pub(crate) fold: Option<Fold>,
    /// The other functions, which `fold` may call.
    pub(crate) helpers: Vec<Helper>,
    /// Where the attribute stands.
    pub(crate) at: Span,
}

/// The method `fold`.
pub(crate) struct Fold {
    pub(crate) signature: Signature,
    pub(crate) cfgs: Vec<Attribute>,
    /// What it takes beside `self`, if that is one thing.
    pub(crate) delta: Option<Type>,
    /// Its body, as tokens.
    pub(crate) body: TokenStream,
    /// `#[mosaik(nondeterministic = "..")]` stands on it.
    pub(crate) excused: bool,
    /// Set by `check`: it breaks a rule, and nothing calls it.
    pub(crate) broken: bool,
}
