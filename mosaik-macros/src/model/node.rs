//! A declared role: a struct whose fields are endpoints, arguments and state.

use proc_macro2::TokenStream;
use syn::{Expr, Generics, Ident, LitStr, Type};

use super::Name;

pub(crate) struct Node {
    pub(crate) runtime: TokenStream,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) name: Name,
    pub(crate) docs: String,
    pub(crate) tags: Vec<Expr>,
    pub(crate) fields: Vec<Field>,
}

pub(crate) struct Field {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) docs: String,
    pub(crate) source: Source,
}

/// Where a field's value comes from when a role is started from the command line.
pub(crate) enum Source {
    /// Its type opens it: a producer or a consumer.
    Endpoint,
    /// A flag.
    Arg { shape: Shape, default: Option<DefaultValue> },
    /// An expression, or `Default` when there is none.
    Default(Option<Expr>),
}

/// How often a flag may be given, read off the field's type as clap's own derive does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Single,
    Optional,
    Many,
    Switch,
}

pub(crate) enum DefaultValue {
    /// Text, read as if it had been given on the command line.
    Text(LitStr),
    /// A value of the field's type.
    Value(Expr),
}
