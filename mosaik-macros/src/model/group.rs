//! A declared group: the struct that it replicates, and how its members find and know each other.

use proc_macro2::TokenStream;
use syn::{Expr, Generics, Ident, LitStr, Type};

use super::Name;

pub(crate) struct Group {
    pub(crate) runtime: TokenStream,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    /// The machine's name: `name = ".."`, else the type's identifier.
    pub(crate) name: Name,
    pub(crate) docs: String,
    /// Missing when there was none that could be read.
    pub(crate) key: Option<Key>,
    /// How many founders must agree.
    pub(crate) size: Option<Expr>,
    /// The machine that a member begins with; `Default` without it.
    pub(crate) initial: Option<Expr>,
    /// The roles and grants of which one is needed to be a member, and to call it from outside.
    pub(crate) member: Vec<LitStr>,
    pub(crate) call: Vec<LitStr>,
    /// Only roles that clear it receive what is sent.
    pub(crate) label: Option<LitStr>,
    pub(crate) fields: Vec<StateField>,
}

/// Where the secret comes from.
pub(crate) enum Key {
    /// The environment variable of that name.
    Env(Expr),
    /// The file of that name.
    File(Expr),
    /// A text.
    Secret(Expr),
    /// A `GroupKey`.
    Value(Expr),
}

/// A field of a machine.
pub(crate) struct StateField {
    pub(crate) ty: Type,
    /// `#[mosaik(nondeterministic = "..")]` stands on it.
    pub(crate) excused: bool,
}
