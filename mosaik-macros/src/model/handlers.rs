//! The handlers of a role: methods of its inherent impl and what each of them is called for.

use proc_macro2::TokenStream;
use syn::{Attribute, FnArg, Generics, Ident, LitStr, Signature, Type};

pub(crate) struct Handlers {
    pub(crate) runtime: TokenStream,
    pub(crate) generics: Generics,
    pub(crate) role: Type,
    pub(crate) handlers: Vec<Handler>,
}

/// What one helper attribute on one method asks for; one that names several fields is several of these.
pub(crate) struct Handler {
    pub(crate) method: Signature,
    /// Attributes that switch the method on or off, repeated on what is generated for it.
    pub(crate) cfgs: Vec<Attribute>,
    pub(crate) receiver: Receiver,
    pub(crate) fires: Fires,
    /// The producer field that what it returns goes out on.
    pub(crate) emit: Option<Ident>,
    pub(crate) on_error: Option<OnError>,
    /// The machine of the group whose leader alone runs it.
    pub(crate) once: Option<Type>,
    /// How many calls may share the role.
    pub(crate) concurrency: Option<Concurrency>,
    /// The helper attribute as it was written.
    pub(crate) attribute: Attribute,
    /// Whether it is not the first of its attribute's: what is wrong with the method has been reported.
    pub(crate) further: bool,
}

impl Handler {
    /// The parameters beside `self`.
    pub(crate) fn params(&self) -> impl Iterator<Item = &FnArg> {
        self.method.inputs.iter().filter(|arg| matches!(arg, FnArg::Typed(_)))
    }

    /// The parameter for the fence of `once`: the one behind those of what it is called for.
    pub(crate) fn fence(&self) -> Option<&FnArg> {
        self.once.as_ref().and_then(|_| self.params().nth(self.fires.most()))
    }

    /// How many parameters it may have.
    pub(crate) fn most(&self) -> usize {
        self.fires.most() + usize::from(self.once.is_some())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    Missing,
    Value,
    Shared,
    Exclusive,
}

/// What becomes of the role when a handler fails: a variant of the runtime's `OnError`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnError {
    Log,
    Restart,
    Stop,
}

/// Several calls of a handler at a time.
#[derive(Clone)]
pub(crate) struct Concurrency {
    pub(crate) key: Ident,
    pub(crate) calls: usize,
}

/// What a handler is called for.
pub(crate) enum Fires {
    On { field: Ident, of: Of },
    Every { period: LitStr },
    Start,
    Stop,
    Ready,
}

/// What of a consumer field.
#[derive(Clone)]
pub(crate) enum Of {
    Items,
    Connected,
    Disconnected,
    Gaps,
    /// After a time of its own, or after the deadline that the field declares.
    Lateness {
        after: Option<LitStr>,
        word: Ident,
    },
}

/// The events of a consumer field, as they are written.
pub(crate) const EVENTS: [&str; 4] = ["connected", "disconnected", "gap", "late"];

impl Of {
    /// The part behind the field's name.
    pub(crate) const fn suffix(&self) -> &'static str {
        match self {
            Self::Items => "",
            Self::Connected => ".connected",
            Self::Disconnected => ".disconnected",
            Self::Gaps => ".gap",
            Self::Lateness { .. } => ".late",
        }
    }

    /// What a handler of it takes first, and what that is called.
    pub(crate) const fn takes(&self) -> (&'static str, &'static str) {
        match self {
            Self::Items => ("items", "item: T"),
            Self::Connected => ("connections", "producer: PeerId"),
            Self::Disconnected => ("disconnections", "reason: DisconnectReason"),
            Self::Gaps => ("gaps", "gap: Gap"),
            Self::Lateness { .. } => ("lateness", "silent: Duration"),
        }
    }

    /// How many parameters a handler of it may have.
    pub(crate) const fn most(&self) -> usize {
        if matches!(self, Self::Connected) { 1 } else { 2 }
    }
}

impl Fires {
    /// How many parameters a handler of it may have, but for the fence of `once`.
    pub(crate) const fn most(&self) -> usize {
        match self {
            Self::On { of, .. } => of.most(),
            Self::Every { .. } | Self::Start | Self::Stop | Self::Ready => 0,
        }
    }

    /// The helper attribute's name.
    pub(crate) const fn attribute(&self) -> &'static str {
        match self {
            Self::On { .. } => "on",
            Self::Every { .. } => "every",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Ready => "ready",
        }
    }
}
