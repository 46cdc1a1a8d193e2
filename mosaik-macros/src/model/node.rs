//! A declared role: a struct whose fields are endpoints, arguments and state.

use proc_macro2::{Span, TokenStream};
use syn::{Attribute, Expr, ExprPath, Generics, Ident, LitStr, Type};

use super::{Name, Retain};

pub(crate) struct Node {
    pub(crate) runtime: TokenStream,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) name: Name,
    pub(crate) docs: String,
    pub(crate) tags: Vec<Expr>,
    /// The labels of what it may receive.
    pub(crate) clears: Vec<LitStr>,
    /// The file with what may run at those that it is connected to, itself included.
    pub(crate) attest: Option<LitStr>,
    pub(crate) fields: Vec<Field>,
}

pub(crate) struct Field {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) docs: String,
    pub(crate) source: Source,
    /// What switches the field on or off, repeated on what is generated for it.
    pub(crate) cfgs: Vec<Attribute>,
}

/// A key of `#[mosaik(..)]` on an endpoint: what is set at its builder.
pub(crate) struct Setting {
    pub(crate) key: Ident,
    pub(crate) to: To,
    /// The value as it was written, in canonical text.
    pub(crate) shown: String,
}

/// The value of a setting.
pub(crate) enum To {
    /// Nothing: the key alone says it.
    Flag,
    /// An expression of the type that the builder takes.
    Expr(Expr),
    /// A function of a peer, which takes these fields of the role before it.
    Predicate { function: Expr, fields: Vec<Ident> },
    /// What a producer keeps for late joiners.
    Retain(Retain),
    /// A method of the role that takes an item.
    Method(ExprPath),
    /// At least this many peers with all of these tags.
    Conditions { minimum: usize, tags: Vec<String>, span: Span },
    /// At most this many items and bytes.
    Buffer { items: Option<usize>, bytes: Option<usize>, span: Span },
    /// A length of time in nanoseconds.
    Nanos(u64, Span),
    /// The least and the most, in nanoseconds.
    Range(u64, u64, Span),
    /// A number of bytes.
    Bytes(u64, Span),
    /// Bytes per second.
    Rate(u64, Span),
    /// One of the values of an enum or a function of the runtime, such as `OnLag::DropOldest`.
    Known { path: &'static str, span: Span },
    /// Criteria of a preference, in their order.
    Prefer(Vec<Criterion>),
    /// Which items are asked for: the kind of the filter, and what it takes, which may be a field of the role.
    Filter { kind: Ident, value: Expr },
    /// Why something is declassified: part of the declaration, nothing for the builder.
    Reason,
    /// `OnLag::Block` with this many nanoseconds.
    Block(u64, Span),
}

/// What a preference orders producers by: the runtime's function of that name, and what it takes.
pub(crate) struct Criterion {
    pub(crate) name: Ident,
    pub(crate) takes: Option<Expr>,
}

/// The field of the role that a filter takes its keys from: a name that is no constant's.
pub(crate) fn field_of(value: &Expr) -> Option<&Ident> {
    match value {
        Expr::Path(path) => {
            path.path.get_ident().filter(|name| !name.to_string().chars().any(|c| c.is_ascii_uppercase()))
        }
        _ => None,
    }
}

/// Where a field's value comes from when a role is started from the command line.
pub(crate) enum Source {
    /// Its type opens it: a producer or a consumer. With a condition it may be absent: a field of the role, or a function of
    /// some.
    Endpoint { settings: Vec<Setting>, only_if: Option<Expr> },
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
