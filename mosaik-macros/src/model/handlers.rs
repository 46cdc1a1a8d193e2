//! The handlers of a role: methods of its inherent impl and what each of them is called for.

use proc_macro2::TokenStream;
use syn::{Attribute, Generics, Ident, LitStr, Signature, Type};

pub(crate) struct Handlers {
    pub(crate) runtime: TokenStream,
    pub(crate) generics: Generics,
    pub(crate) role: Type,
    pub(crate) handlers: Vec<Handler>,
}

/// One helper attribute on one method.
pub(crate) struct Handler {
    pub(crate) method: Signature,
    /// Attributes that switch the method on or off, repeated on what is generated for it.
    pub(crate) cfgs: Vec<Attribute>,
    pub(crate) receiver: Receiver,
    pub(crate) fires: Fires,
    /// The helper attribute as it was written.
    pub(crate) attribute: Attribute,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    Missing,
    Value,
    Reference,
}

/// What a handler is called for.
pub(crate) enum Fires {
    On { field: Ident, of: Of },
    Every { period: LitStr, emit: Option<Ident> },
    Start,
    Stop,
}

/// What of a consumer field.
pub(crate) enum Of {
    Items,
    Gaps,
    Lateness { after: LitStr },
}

impl Of {
    /// The part behind the field's name.
    pub(crate) const fn suffix(&self) -> &'static str {
        match self {
            Self::Items => "",
            Self::Gaps => ".gap",
            Self::Lateness { .. } => ".late",
        }
    }

    /// What a handler of it takes first, and what that is called.
    pub(crate) const fn takes(&self) -> (&'static str, &'static str) {
        match self {
            Self::Items => ("items", "item: T"),
            Self::Gaps => ("gaps", "gap: Gap"),
            Self::Lateness { .. } => ("lateness", "silent: Duration"),
        }
    }
}

impl Fires {
    /// The helper attribute's name.
    pub(crate) const fn attribute(&self) -> &'static str {
        match self {
            Self::On { .. } => "on",
            Self::Every { .. } => "every",
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}
