//! The options of endpoints: what `#[mosaik(..)]` on a field of a role sets at the builder of its endpoint. One trait for each
//! option, implemented by the builders that have it, so that an option on the wrong end is a compile error that says where
//! it belongs. Called by what `#[mosaik::node]` generates; by hand one calls the builders' own methods.

use std::{
    future::{pending, ready},
    time::Duration,
};

use futures::FutureExt;
use serde::Serialize;

use super::{
    decl::Link,
    machine::Declared,
    members, private,
    replica::Replica,
    role::{Endpoint, Opening, RoleError, Setup, StreamType},
    store::StoreType,
};
use crate::{
    discovery::PeerEntry,
    groups::{MemberRole, StateMachine, Timing, fence::Leading},
    primitives::Streamed,
    stores::{Primary, PrimaryBuilder, ReplicaBuilder, StoreReplica, View},
    streams::{
        Buffer, ByteRate, Conditions, ConsumeError, Consumer, ConsumerBuilder, Filter, OnLag, Prefer, Producer,
        ProducerBuilder, Retain,
    },
};

/// An endpoint that is set up by a builder, so that its field can have options.
#[diagnostic::on_unimplemented(
    message = "a `{Self}` has no options",
    label = "options are those of a `Producer<T>`, `Consumer<T>`, `Replica<M>`, `Primary<V>` or `StoreReplica<V>`"
)]
pub trait Configure: Endpoint {
    /// Collects the options.
    type Builder: Send;

    /// The builder of an endpoint on the node, with what its declaration says.
    fn builder(setup: &Setup<'_>) -> Self::Builder;

    /// Opens the endpoint that the builder describes.
    ///
    /// # Errors
    /// When the node cannot have it, as with [`Endpoint::open`].
    fn open_with<'a>(builder: Self::Builder, setup: &'a mut Setup<'_>, field: &'static str) -> Opening<'a, Self>;
}

/// A field that `only_if` can leave empty.
#[diagnostic::on_unimplemented(
    message = "`only_if` needs a field that can be empty, but this one is a `{Self}`",
    label = "not an `Option`",
    note = "make it an `Option<Producer<T>>` or an `Option<Consumer<T>>`; it is `None` when the condition does not hold"
)]
pub trait Absent {
    /// The empty field.
    fn absent() -> Self;
}

impl<E> Absent for Option<E> {
    fn absent() -> Self {
        None
    }
}

/// An endpoint that is not always there.
impl<E: Endpoint + Send + 'static> Endpoint for Option<E> {
    const LINK: Link = E::LINK;

    fn open<'a>(setup: &'a mut Setup<'_>, field: &'static str) -> Opening<'a, Self> {
        let opening = E::open(setup, field);
        Box::pin(async move { opening.await.map(Some) })
    }

    fn set_ready(&self, ready: bool) {
        if let Some(endpoint) = self {
            endpoint.set_ready(ready);
        }
    }

    fn member(&self) -> Option<Leading> {
        self.as_ref().and_then(Endpoint::member)
    }
}

impl<E: Configure + Send + 'static> Configure for Option<E> {
    type Builder = E::Builder;

    fn builder(setup: &Setup<'_>) -> Self::Builder {
        E::builder(setup)
    }

    fn open_with<'a>(builder: Self::Builder, setup: &'a mut Setup<'_>, field: &'static str) -> Opening<'a, Self> {
        let opening = E::open_with(builder, setup, field);
        Box::pin(async move { opening.await.map(Some) })
    }
}

impl<T: StreamType> Configure for Producer<T> {
    type Builder = ProducerBuilder<T>;

    fn builder(setup: &Setup<'_>) -> ProducerBuilder<T> {
        private::producer::<T>(setup.network)
    }

    fn open_with<'a>(builder: ProducerBuilder<T>, setup: &'a mut Setup<'_>, field: &'static str) -> Opening<'a, Self> {
        let failed = |error: crate::streams::BuildError<T>| RoleError::Endpoint {
            field,
            stream: T::STREAM.name,
            error: error.to_string(),
        };
        if let Some(Err(error)) = T::OWNER.map(|owner| owner()) {
            return Box::pin(ready(Err(error.into())));
        }
        let built = builder.build().map_err(failed);
        if let Ok(producer) = &built {
            setup.await_online(producer.when().online());
        }
        Box::pin(ready(built))
    }
}

impl<T: StreamType> Configure for Consumer<T> {
    type Builder = ConsumerBuilder<T>;

    fn builder(setup: &Setup<'_>) -> ConsumerBuilder<T> {
        private::consumer::<T>(setup.network)
    }

    fn open_with<'a>(builder: ConsumerBuilder<T>, setup: &'a mut Setup<'_>, field: &'static str) -> Opening<'a, Self> {
        let failed =
            |error: ConsumeError| RoleError::Endpoint { field, stream: T::STREAM.name, error: error.to_string() };
        let built = builder.try_build().map_err(failed);
        if let Ok(consumer) = &built {
            setup.await_online(consumer.when().online());
        }
        Box::pin(ready(built))
    }
}

impl<V: StoreType> Configure for Primary<V> {
    type Builder = PrimaryBuilder<V>;

    fn builder(setup: &Setup<'_>) -> PrimaryBuilder<V> {
        private::primary::<V>(setup.network)
    }

    fn open_with<'a>(builder: PrimaryBuilder<V>, setup: &'a mut Setup<'_>, field: &'static str) -> Opening<'a, Self> {
        let built = builder.build().map_err(|error| RoleError::Store { field, store: V::STORE.name, error });
        if let Ok(primary) = &built {
            setup.await_online(primary.when().online());
        }
        Box::pin(ready(built))
    }
}

impl<V: StoreType> Configure for StoreReplica<V> {
    type Builder = ReplicaBuilder<V>;

    fn builder(setup: &Setup<'_>) -> ReplicaBuilder<V> {
        private::replica::<V>(setup.network)
    }

    fn open_with<'a>(builder: ReplicaBuilder<V>, setup: &'a mut Setup<'_>, _: &'static str) -> Opening<'a, Self> {
        let replica = builder.build();
        // One whose view has panicked is never ready.
        let synced = replica.when().synced().then(|synced| async move {
            if synced.is_err() {
                pending::<()>().await;
            }
        });
        setup.await_online(synced);
        Box::pin(ready(Ok(replica)))
    }
}

/// How a role is a member of a declared group.
#[derive(Debug)]
pub struct MemberOptions<M> {
    pub(super) size: Option<u32>,
    pub(super) role: MemberRole,
    pub(super) timing: Timing,
    pub(super) log_limit: Option<u64>,
    pub(super) machine: std::marker::PhantomData<fn() -> M>,
}

impl<M: Declared> MemberOptions<M> {
    /// With the declared size, the defaults of the groups' builder for the rest.
    pub(super) fn declared() -> Self {
        Self {
            size: M::MACHINE.group.size,
            role: MemberRole::default(),
            timing: Timing::default(),
            log_limit: None,
            machine: std::marker::PhantomData,
        }
    }
}

impl<M: Declared> Configure for Replica<M> {
    type Builder = MemberOptions<M>;

    fn builder(setup: &Setup<'_>) -> MemberOptions<M> {
        let mut options = MemberOptions::declared();
        if setup.alone {
            options.size = None;
        }
        options
    }

    fn open_with<'a>(options: MemberOptions<M>, setup: &'a mut Setup<'_>, _: &'static str) -> Opening<'a, Self> {
        Box::pin(async move {
            let replica = Self::join_with(setup.network, options).await?;
            setup.await_online(replica.group().when().is_online());
            if let Some(prefix) = setup.lines.clone() {
                let lines = members::tell(replica.group().statuses(), prefix, M::NAME);
                setup.network.node().tasks().spawn("group lines", lines);
            }
            Ok(replica)
        })
    }
}

/// A trait for one option: its message, what it takes, and how each builder that has it sets it.
macro_rules! option {
    ($trait:ident, $method:ident, $message:literal, $takes:tt, $given:tt,
     $($builder:ident<$item:ident: $bound:ident> => $set:ident),+) => {
        #[doc = concat!("The builders that have the option `", stringify!($method), "`.")]
        #[diagnostic::on_unimplemented(message = $message, label = "this field is built by a `{Self}`")]
        pub trait $trait: Sized {
            #[doc = concat!("Sets the option `", stringify!($method), "`.")]
            #[must_use]
            fn $method $takes -> Self;
        }

        $(
            impl<$item: $bound> $trait for $builder<$item> {
                fn $method $takes -> Self {
                    $builder::$set $given
                }
            }
        )+
    };
}

option!(SetAcceptIf, accept_if, "`accept_if` is an option of a field of type `Producer<T>` or `Primary<V>`",
    (self, predicate: impl Fn(&PeerEntry) -> bool + Send + Sync + 'static), (self, predicate),
    ProducerBuilder<T: Streamed> => accept_if, PrimaryBuilder<V: View> => accept_if);
option!(SetOnlineWhen, online_when, "`online_when` is an option of a field of type `Producer<T>`",
    (self, conditions: impl FnOnce(Conditions) -> Conditions), (self, conditions), ProducerBuilder<T: Streamed> => online_when);
option!(SetMaxConsumers, max_consumers, "`max_consumers` is an option of a field of type `Producer<T>`",
    (self, max: usize), (self, max), ProducerBuilder<T: Streamed> => with_max_consumers);
option!(SetEgress, egress, "`egress` is an option of a field of type `Producer<T>`",
    (self, rate: ByteRate), (self, rate), ProducerBuilder<T: Streamed> => with_egress_limit);
option!(SetBuffer, buffer, "`buffer` is an option of a field of type `Producer<T>` or `Primary<V>`",
    (self, buffer: Buffer), (self, buffer), ProducerBuilder<T: Streamed> => with_buffer, PrimaryBuilder<V: View> => with_buffer);
option!(SetOnLag, on_lag, "`on_lag` is an option of a field of type `Producer<T>`",
    (self, policy: OnLag), (self, policy), ProducerBuilder<T: Streamed> => on_lag);
option!(SetReplay, replay, "`replay` is an option of a field of type `Producer<T>` or `Primary<V>`",
    (self, replay: Buffer), (self, replay), ProducerBuilder<T: Streamed> => with_replay, PrimaryBuilder<V: View> => with_replay);
option!(SetReplayPace, replay_pace, "`replay_pace` is an option of a field of type `Producer<T>`",
    (self, rate: ByteRate), (self, rate), ProducerBuilder<T: Streamed> => with_replay_pace);
option!(SetLifespan, lifespan, "`lifespan` is an option of a field of type `Producer<T>`",
    (self, lifespan: Duration), (self, lifespan), ProducerBuilder<T: Streamed> => with_lifespan);
option!(SetSubscribeIf, subscribe_if, "`subscribe_if` is an option of a field of type `Consumer<T>` or `StoreReplica<V>`",
    (self, predicate: impl Fn(&PeerEntry) -> bool + Send + Sync + 'static), (self, predicate),
    ConsumerBuilder<T: Streamed> => subscribe_if, ReplicaBuilder<V: View> => subscribe_if);
option!(SetDeadline, deadline, "`deadline` is an option of a field of type `Consumer<T>`",
    (self, deadline: Duration), (self, deadline), ConsumerBuilder<T: Streamed> => with_deadline);
option!(SetBackoff, backoff, "`backoff` is an option of a field of type `Consumer<T>`",
    (self, delays: (Duration, Duration)), (self, delays), ConsumerBuilder<T: Streamed> => with_backoff);
option!(SetLiveOnly, live_only, "`live_only` is an option of a field of type `Consumer<T>`",
    (self), (self), ConsumerBuilder<T: Streamed> => live_only);
option!(SetPrefer, prefer, "`prefer` is an option of a field of type `Consumer<T>`",
    (self, prefer: Prefer), (self, prefer), ConsumerBuilder<T: Streamed> => prefer);
option!(SetFanin, fanin, "`fanin` is an option of a field of type `Consumer<T>`",
    (self, producers: usize), (self, producers), ConsumerBuilder<T: Streamed> => with_fanin);
option!(SetStandby, standby, "`standby` is an option of a field of type `Consumer<T>`",
    (self, producers: usize), (self, producers), ConsumerBuilder<T: Streamed> => with_standby);
option!(SetFilter, filter, "`filter` is an option of a field of type `Consumer<T>`",
    (self, filter: Filter), (self, filter), ConsumerBuilder<T: Streamed> => with_filter);
option!(SetRole, role, "`role` is an option of a field of type `Replica<M>`",
    (self, role: MemberRole), (self, role), MemberOptions<M: StateMachine> => with_role);
option!(SetTiming, timing, "`timing` is an option of a field of type `Replica<M>`",
    (self, timing: Timing), (self, timing), MemberOptions<M: StateMachine> => with_timing);
option!(SetLogLimit, log_limit, "`log_limit` is an option of a field of type `Replica<M>`",
    (self, bytes: u64), (self, bytes), MemberOptions<M: StateMachine> => with_log_limit);

impl<M> MemberOptions<M> {
    const fn with_role(mut self, role: MemberRole) -> Self {
        self.role = role;
        self
    }

    const fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    const fn with_log_limit(mut self, bytes: u64) -> Self {
        self.log_limit = Some(bytes);
        self
    }
}

/// The builders that have the option `undelivered`. The method that it names is a handler, which the role's runner connects.
#[diagnostic::on_unimplemented(
    message = "`undelivered` is an option of a field of type `Producer<T>`",
    label = "this field is built by a `{Self}`"
)]
pub trait SetUndelivered {
    /// Only says that the endpoint has such items.
    fn takes_undelivered(&self) {}
}

impl<T: Streamed> SetUndelivered for ProducerBuilder<T> {}

/// The builders that have the option `retain`.
#[diagnostic::on_unimplemented(
    message = "`retain` is an option of a field of type `Producer<T>`",
    label = "this field is built by a `{Self}`"
)]
pub trait SetRetain: Sized {
    /// What it sends.
    type Item;

    /// Sets the option `retain`.
    #[must_use]
    fn retain(self, retain: Retain<Self::Item>) -> Self;
}

impl<T: Streamed> SetRetain for ProducerBuilder<T> {
    type Item = T::Item;

    fn retain(self, retain: Retain<T::Item>) -> Self {
        Self::retain(self, retain)
    }
}

/// The builders that have the option `key`.
#[diagnostic::on_unimplemented(
    message = "`key` is an option of a field of type `Producer<T>`",
    label = "this field is built by a `{Self}`"
)]
pub trait SetKey: Sized {
    /// What it sends.
    type Item;

    /// Sets the option `key`.
    #[must_use]
    fn key<K: Serialize>(self, key: impl Fn(&Self::Item) -> K + Send + Sync + 'static) -> Self;
}

impl<T: Streamed> SetKey for ProducerBuilder<T> {
    type Item = T::Item;

    fn key<K: Serialize>(self, key: impl Fn(&T::Item) -> K + Send + Sync + 'static) -> Self {
        self.with_key(key)
    }
}

/// The builders that have the option `state`.
#[diagnostic::on_unimplemented(
    message = "`state` is an option of a field of type `Primary<V>`",
    label = "this field is built by a `{Self}`"
)]
pub trait SetState: Sized {
    /// What it begins with.
    type State;

    /// Sets the option `state`.
    #[must_use]
    fn state(self, state: Self::State) -> Self;
}

impl<V: View> SetState for PrimaryBuilder<V> {
    type State = V;

    fn state(self, state: V) -> Self {
        self.with_state(state)
    }
}
