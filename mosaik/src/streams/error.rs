//! Why sending or building failed. What was moved in can be taken out again.
//!
//! Errors are `Error + Send + Sync + 'static` for every datum `T`, which is itself only `Send`: so the item sits in a
//! mutex, and no bound on `T` is needed to print them.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use super::{filter::FilterError, limits::MAX_ITEM, producer::Producer};
use crate::{
    discovery::EntryError,
    primitives::{StreamId, Unnamed},
};

/// An item handed back.
struct Returned<T>(Mutex<Option<T>>);

impl<T> Returned<T> {
    fn new(item: Option<T>) -> Self {
        Self(Mutex::new(item))
    }

    fn into_inner(self) -> Option<T> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What kept an item from being sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// The stream or the network is shut down.
    #[error("the stream is closed")]
    Closed,
    /// The encoded item is larger than 16 MiB.
    #[error("an item of {size} bytes is over the limit of {MAX_ITEM} bytes")]
    TooLarge {
        /// The encoded size in bytes.
        size: usize,
    },
    /// No format carries the item, or its type is refused: the text names the type, the field and what to do.
    #[error("the item cannot be encoded: {0}")]
    Encode(String),
    /// `try_send` only: the stream's online condition is not met.
    #[error("the stream is offline")]
    Offline,
    /// A group owns the stream, and this node's member does not lead it.
    #[error("the group that owns the stream is led by another member")]
    NotLeader,
    /// A group owns the stream, and the encoded item is larger than 512 KiB.
    #[error("an item of {size} bytes is over the limit of 512 KiB for streams that a group owns")]
    TooLargeForGroup {
        /// The encoded size in bytes.
        size: usize,
    },
    /// `try_send` only: `send` would wait for room.
    #[error("the queues are full")]
    Full,
}

macro_rules! send_error {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name<T> {
            kind: SendErrorKind,
            item: Returned<T>,
        }

        impl<T> $name<T> {
            pub(crate) fn new(kind: SendErrorKind, item: Option<T>) -> Self {
                Self { kind, item: Returned::new(item) }
            }

            /// What went wrong.
            pub const fn kind(&self) -> &SendErrorKind {
                &self.kind
            }

            /// Takes the item back. `None` for an error of `Sink::poll_ready` and `poll_flush`, which have no item.
            pub fn into_item(self) -> Option<T> {
                self.item.into_inner()
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("kind", &self.kind).finish_non_exhaustive()
            }
        }

        impl<T> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.kind.fmt(f)
            }
        }

        impl<T> std::error::Error for $name<T> {}
    };
}

send_error! {
    /// An item could not be sent, and never will be; see [`kind`](Self::kind).
    SendError
}
send_error! {
    /// An item could not be sent now; see [`kind`](Self::kind).
    TrySendError
}

impl<T> From<TrySendError<T>> for SendError<T> {
    fn from(error: TrySendError<T>) -> Self {
        Self { kind: error.kind, item: error.item }
    }
}

/// Why a consumer was not built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// The type has no name, and the stream was given none.
    #[error(transparent)]
    Unnamed(#[from] Unnamed),
    /// The filter cannot be sent.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// Why a producer was not built.
#[non_exhaustive]
pub enum BuildError<T> {
    /// The type has no name, and the stream was given none.
    Unnamed(Unnamed),
    /// This node already produces the stream.
    Exists {
        /// The stream.
        stream: StreamId,
        /// A handle to the producer that is there.
        existing: Producer<T>,
    },
    /// This node already produces the stream with items of another type.
    OtherType {
        /// The stream.
        stream: StreamId,
        /// The Rust type of its items.
        other: &'static str,
    },
    /// The type's declaration says that a group owns the stream, and the builder was not told which.
    NoOwner {
        /// The stream.
        stream: StreamId,
        /// The name of the group.
        group: &'static str,
    },
    /// The node's entry cannot list the stream, so no consumer would ever find it.
    NotAnnounced {
        /// The stream.
        stream: StreamId,
        /// The limit that is in the way, and how much there would be.
        error: EntryError,
    },
}

impl<T> BuildError<T> {
    /// A handle to the producer that stood in the way, unless it has items of another type.
    pub fn into_existing(self) -> Option<Producer<T>> {
        match self {
            Self::Exists { existing, .. } => Some(existing),
            Self::Unnamed(_) | Self::OtherType { .. } | Self::NoOwner { .. } | Self::NotAnnounced { .. } => None,
        }
    }
}

impl<T> fmt::Debug for BuildError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildError({self})")
    }
}

impl<T> fmt::Display for BuildError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed(error) => error.fmt(f),
            Self::Exists { stream, .. } => write!(f, "this node already produces the stream {stream:?}"),
            Self::OtherType { stream, other } => {
                write!(f, "this node already produces the stream {stream:?}, with items of type {other}")
            }
            Self::NoOwner { stream, group } => write!(
                f,
                "the stream {stream:?} is declared with an owner: say `.owned_by(..)` with the member of the group \"{group}\" on this \
                 node, or build it with `producer(..)` of its type"
            ),
            Self::NotAnnounced { stream, error } => {
                write!(f, "this node cannot announce the stream {stream:?}: {error}")
            }
        }
    }
}

impl<T> std::error::Error for BuildError<T> {}
