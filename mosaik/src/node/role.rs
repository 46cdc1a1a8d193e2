//! The traits that the attributes implement, and how a role's fields get their values.

use std::fmt;

use futures::future::BoxFuture;

use crate::{
    groups::fence::Leading,
    network::Network,
    primitives::{Evolve, Format, GroupId, StreamId, Streamed},
    stores::StoreError,
    streams::{Consumer, Producer, ProducerBuilder},
};

use super::{
    args::{ArgError, ArgValues},
    decl::{Direction, Link, RoleDecl, StreamDecl},
    machine::KeyError,
    options::Configure,
    table::Table,
};

/// A datum with a declared stream; implemented by `#[mosaik::stream]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a declared stream",
    label = "not declared with `#[mosaik::stream]`",
    note = "put `#[mosaik::stream]` on the type; declare a type of your own around one of another crate"
)]
pub trait StreamType: Streamed + Sized {
    /// The declaration.
    const STREAM: StreamDecl;
    /// The format of every item, where the declaration says it (`codec`).
    const CODEC: Option<Format> = None;
    /// How the type may change from one program to the next (`evolve`).
    const EVOLVE: Evolve = Evolve::Strict;
    /// Whether every producer publishes the same sequence (`replicated`).
    const REPLICATED: bool = false;

    /// The group that owns the stream (`owner`), once its key is known.
    const OWNER: Option<fn() -> Result<GroupId, KeyError>> = None;

    /// Sets at a producer what the declaration says of it (`key`, `retain`).
    fn configure(producer: ProducerBuilder<Self>) -> ProducerBuilder<Self> {
        producer
    }
}

/// A struct declared as a role; implemented by `#[mosaik::node]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not declared as a role",
    label = "its struct lacks `#[mosaik::node]`",
    note = "put `#[mosaik::node]` on `struct {Self}`"
)]
pub trait Role: Sized + Send + 'static {
    /// The declaration.
    const ROLE: RoleDecl;

    /// Makes the role: opens its endpoints on the node, joins its groups and reads its flags.
    ///
    /// # Errors
    /// When an endpoint cannot be opened, a group not be joined, or a flag is missing or malformed.
    fn open(setup: &mut Setup<'_>) -> impl Future<Output = Result<Self, RoleError>> + Send;

    /// Registers the methods that the options of its fields name.
    #[doc(hidden)]
    fn wire(_: &mut Table<Self>) {}

    /// Tells its endpoints whether it is ready.
    #[doc(hidden)]
    fn set_ready(&self, _: bool) {}

    /// The member of the group of this name that one of its fields is.
    #[doc(hidden)]
    fn member(&self, _: &str) -> Option<Leading> {
        None
    }
}

/// A role with handlers, which an app can run; implemented by `#[mosaik::handlers]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a role of an app",
    label = "not a role",
    note = "a role has `#[mosaik::node]` on its struct and `#[mosaik::handlers]` on its inherent impl",
    note = "a role without handlers says so with an empty impl: `#[mosaik::handlers] impl {Self} {{}}`"
)]
pub trait Handlers: Role {
    /// Registers the handlers.
    fn handlers(table: &mut Table<Self>);
}

/// A field of a role that is being opened.
pub type Opening<'a, T> = BoxFuture<'a, Result<T, RoleError>>;

/// A type that connects a role with other nodes when it is the type of one of its fields: [`Producer`], [`Consumer`],
/// [`Replica`](super::Replica), [`Client`](super::Client), [`Primary`](crate::stores::Primary) or [`StoreReplica`](crate::stores::StoreReplica).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an endpoint",
    label = "neither a `Producer<T>` nor a `Consumer<T>` nor a `Replica<M>` nor a `Client<M>` nor a `Primary<V>` nor a `StoreReplica<V>`",
    note = "a field that is not an endpoint says where its value comes from: `#[mosaik(arg)]` for a flag, \
            `#[mosaik(default)]` for its type's default"
)]
pub trait Endpoint: Sized {
    /// What it is connected to.
    const LINK: Link;

    /// Opens the endpoint on the node.
    ///
    /// # Errors
    /// When the node cannot have it, such as a second producer of one stream.
    fn open<'a>(setup: &'a mut Setup<'_>, field: &'static str) -> Opening<'a, Self>;

    /// Hears whether the role is ready, if it has a `#[ready]` method: a member of a group that is not leads only while nobody
    /// else can.
    #[doc(hidden)]
    fn set_ready(&self, _: bool) {}

    /// The member of a group that it is, if it is one and there.
    #[doc(hidden)]
    fn member(&self) -> Option<Leading> {
        None
    }
}

fn serde_id<T: StreamType>() -> Option<StreamId> {
    T::stream_id().ok()
}

impl<T: StreamType> Endpoint for Producer<T> {
    const LINK: Link = Link::Stream { direction: Direction::Produces, stream: T::STREAM, serde_id: serde_id::<T> };

    fn open<'a>(setup: &'a mut Setup<'_>, field: &'static str) -> Opening<'a, Self> {
        Self::open_with(Self::builder(setup), setup, field)
    }
}

impl<T: StreamType> Endpoint for Consumer<T> {
    const LINK: Link = Link::Stream { direction: Direction::Consumes, stream: T::STREAM, serde_id: serde_id::<T> };

    fn open<'a>(setup: &'a mut Setup<'_>, field: &'static str) -> Opening<'a, Self> {
        Self::open_with(Self::builder(setup), setup, field)
    }
}

/// A field that `#[on(field.gap)]` and `#[on(field.late)]` can name.
#[diagnostic::on_unimplemented(
    message = "gaps and lateness are those of a stream, but this field is a `{Self}`",
    label = "not a `Consumer<T>`",
    note = "to receive the items of a stream, give the role a field of type `Consumer<T>`"
)]
pub trait Consumes<T: Streamed> {
    /// The consumer itself, if it is there.
    fn consumer(&mut self) -> Option<&mut Consumer<T>>;
}

impl<T: Streamed> Consumes<T> for Consumer<T> {
    fn consumer(&mut self) -> Option<&mut Self> {
        Some(self)
    }
}

impl<T: Streamed> Consumes<T> for Option<Consumer<T>> {
    fn consumer(&mut self) -> Option<&mut Consumer<T>> {
        self.as_mut()
    }
}

/// A field that `emit = ..` can name.
#[diagnostic::on_unimplemented(
    message = "`emit = ..` needs a field that sends items, but this one is a `{Self}`",
    label = "not a `Producer<T>`",
    note = "to send items on a stream, give the role a field of type `Producer<T>`"
)]
pub trait Produces<T: Streamed> {
    /// The producer itself, if it is there.
    fn producer(&mut self) -> Option<&mut Producer<T>>;

    /// The same, to send on it.
    #[doc(hidden)]
    fn sender(&self) -> Option<&Producer<T>>;
}

impl<T: Streamed> Produces<T> for Producer<T> {
    fn producer(&mut self) -> Option<&mut Self> {
        Some(self)
    }

    fn sender(&self) -> Option<&Self> {
        Some(self)
    }
}

impl<T: Streamed> Produces<T> for Option<Producer<T>> {
    fn producer(&mut self) -> Option<&mut Producer<T>> {
        self.as_mut()
    }

    fn sender(&self) -> Option<&Producer<T>> {
        self.as_ref()
    }
}

/// What a role is made from: the node that it runs on, and its flags.
pub struct Setup<'a> {
    pub(super) network: &'a Network,
    pub(super) values: &'a ArgValues,
    /// Groups are founded by whoever is there, whatever size they declare: for trials with one node of each role.
    pub(super) alone: bool,
    /// What begins the lines on stderr that tell of groups; no lines without it.
    pub(super) lines: Option<String>,
    /// Resolve when the endpoints of the role are online.
    pub(super) online: Vec<BoxFuture<'static, ()>>,
}

impl fmt::Debug for Setup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("network", self.network).field("values", self.values).finish_non_exhaustive()
    }
}

impl<'a> Setup<'a> {
    /// A role on `network` with these flags.
    #[must_use]
    pub const fn new(network: &'a Network, values: &'a ArgValues) -> Self {
        Self { network, values, alone: false, lines: None, online: Vec::new() }
    }

    /// The same for a trial with one node of each role, which no group may wait for.
    pub(super) const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// The same, telling of groups on stderr.
    pub(super) fn telling(mut self, prefix: String) -> Self {
        self.lines = Some(prefix);
        self
    }

    /// Whether the node asks for evidence, or need not as in a trial.
    #[doc(hidden)]
    pub fn attested(&self, role: &'static str) -> Result<(), RoleError> {
        let trust = self.network.node().trust();
        if trust.demands_evidence() || trust.waives_evidence() { Ok(()) } else { Err(RoleError::NotAttested { role }) }
    }

    /// The role is ready for its supervisor only when this has resolved.
    pub(super) fn await_online(&mut self, online: impl Future<Output = ()> + Send + 'static) {
        self.online.push(Box::pin(online));
    }

    /// The node.
    #[must_use]
    pub const fn network(&self) -> &Network {
        self.network
    }
}

/// Why a role could not be started or has ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoleError {
    /// An endpoint could not be opened.
    #[error("cannot open the field `{field}` on the stream \"{stream}\": {error}")]
    Endpoint {
        /// The field.
        field: &'static str,
        /// The stream's name.
        stream: &'static str,
        /// Why.
        error: String,
    },
    /// A group could not be joined.
    #[error("cannot join the group \"{group}\": {error}")]
    Group {
        /// The group's name.
        group: &'static str,
        /// Why.
        error: String,
    },
    /// A field could not be opened on its store.
    #[error("cannot open the field `{field}` on the store \"{store}\": {error}")]
    Store {
        /// The field.
        field: &'static str,
        /// The store's name.
        store: &'static str,
        /// Why.
        error: StoreError,
    },
    /// The key of a group is not there.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A flag is missing or malformed.
    #[error(transparent)]
    Arg(#[from] ArgError),
    /// The role declares `attest`, and its node was not told to ask for evidence.
    #[error(
        "the role {role} declares `attest`, and its node asks nobody for evidence: build the network with `with_evidence` and \
         `with_attested_peers`"
    )]
    NotAttested {
        /// The role's name.
        role: &'static str,
    },
    /// The role's `#[start]` handler failed, so the role did not start.
    #[error("the start handler `{handler}` of the role {role} failed: {error}")]
    Start {
        /// The role's name.
        role: &'static str,
        /// The handler's name.
        handler: &'static str,
        /// Its error, or its panic.
        error: String,
    },
    /// A handler failed whose `on_error` says that this ends the role.
    #[error("the handler `{handler}` of the role {role} failed: {error}")]
    Handler {
        /// The role's name.
        role: &'static str,
        /// The handler's name.
        handler: &'static str,
        /// Its error, or its panic.
        error: String,
    },
    /// The node was shut down or dropped under the role before it could stop.
    #[error("the node ended before the role {role} had stopped")]
    NodeEnded {
        /// The role's name.
        role: &'static str,
    },
}
