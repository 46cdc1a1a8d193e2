//! What generated code calls. Not for people: it may change with every release of the two crates, which are released
//! together.

pub use inventory;
pub use serde;

use crate::{
    groups::fence::{self, Fence},
    network::Network,
    primitives::{GroupId, StoreId, Streamed},
    stores::{PrimaryBuilder, ReplicaBuilder},
    streams::{Consumer, ConsumerBuilder, Producer, ProducerBuilder, SendErrorKind},
    trust::Label,
};

/// How a field of bytes is written. Not the whole crate, whose names would turn up in the compiler's messages as ours.
pub mod byte_field {
    pub use serde_bytes::{deserialize, serialize};
}

#[cfg(feature = "cli")]
pub use super::operator::operator;
pub use super::{
    corridor::assert_no_path,
    decl::{TagDecl, check_late, check_once},
    embed::{record, record_size},
    graph::check_role,
    machine::{key_from_env, key_from_file},
    names::{Clash, clashes, slots},
    outcome::{Call, Done, Outcome},
    program::{Program, main_with},
    snapshots::{Probe, SnapshotsCloned, SnapshotsNone, SnapshotsSerde},
    together::lend,
};
use super::{
    feed::Feeds,
    machine::{Declared, KeyError},
    outcome::{Emits, Handled},
    role::{Consumes, Produces, StreamType},
    store::StoreType,
};

/// The builder of a declared stream's producer.
pub fn producer<T: StreamType>(net: &Network) -> ProducerBuilder<T> {
    let producer = net.streams().producer::<T>().with_stream_id(T::STREAM.id);
    let producer = T::STREAM.declared().into_iter().fold(producer, ProducerBuilder::with_declared);
    let (produce, consume) = (T::STREAM.produce.iter().copied(), T::STREAM.consume.iter().copied());
    let producer = producer.with_produce_grants(produce).with_consume_grants(consume);
    let producer = T::STREAM.label.map(Label::declared).into_iter().fold(producer, ProducerBuilder::with_label);
    let producer = match T::OWNER {
        Some(owner) => producer.owned_in(net.groups().clone(), owner().map_err(|error| error.to_string())),
        None => producer,
    };
    T::configure(T::CODEC.into_iter().fold(producer, ProducerBuilder::with_codec).with_evolve(T::EVOLVE))
}

/// The builder of a declared stream's consumer.
pub fn consumer<T: StreamType>(net: &Network) -> ConsumerBuilder<T> {
    let consumer = net.streams().consumer::<T>().with_stream_id(T::STREAM.id);
    let consumer = T::STREAM.declared().into_iter().fold(consumer, ConsumerBuilder::with_declared);
    let consumer = consumer.with_produce_grants(T::STREAM.produce.iter().copied());
    let consumer = T::STREAM.label.map(Label::declared).into_iter().fold(consumer, ConsumerBuilder::with_label);
    let consumer = if T::REPLICATED { consumer.replicated() } else { consumer };
    let consumer = if T::OWNER.is_some() { consumer.owned() } else { consumer };
    T::CODEC.into_iter().fold(consumer, ConsumerBuilder::with_codec).with_evolve(T::EVOLVE)
}

/// The builder of a declared store's primary: durable where there is a data directory, as the members of groups are.
pub fn primary<V: StoreType>(net: &Network) -> PrimaryBuilder<V> {
    // From the name, so that reports have it; it is the declared id.
    let primary = net.stores().primary(StoreId::from(V::STORE.name));
    let (granted, replicas) = (V::STORE.primary.iter().copied(), V::STORE.replica.iter().copied());
    let primary = primary.with_primary_grants(granted).with_replica_grants(replicas);
    let primary = V::STORE.label.map(Label::declared).into_iter().fold(primary, PrimaryBuilder::with_label);
    let primary = match V::OWNER {
        Some(owner) => primary.owned_in(net.groups().clone(), owner().map_err(|error| error.to_string())),
        None => primary,
    };
    if net.stores().has_data_dir() { primary.durable() } else { primary }
}

/// The builder of a declared store's replica: durable where there is a data directory.
pub fn replica<V: StoreType>(net: &Network) -> ReplicaBuilder<V> {
    let replica = net.stores().replica(StoreId::from(V::STORE.name));
    let replica = replica.with_primary_grants(V::STORE.primary.iter().copied());
    let replica = V::STORE.label.map(Label::declared).into_iter().fold(replica, ReplicaBuilder::with_label);
    let replica = if V::OWNER.is_some() { replica.owned() } else { replica };
    if net.stores().has_data_dir() { replica.durable() } else { replica }
}

/// The fence that a handler with `once` runs under.
#[must_use]
pub fn fence() -> Fence {
    fence::running().unwrap_or(Fence::NOTHING)
}

/// The group of a declared machine, once its key is known.
///
/// # Errors
/// When the key is not where the declaration says.
pub fn owner<M: Declared>() -> Result<GroupId, KeyError> {
    Ok(M::key()?.group_id(M::NAME))
}

/// A condition of `only_if`.
#[must_use]
pub const fn holds(condition: bool) -> bool {
    condition
}

/// The machine that a member begins with, when none is given.
pub fn initial<M: Default>() -> M {
    M::default()
}

/// The field that `#[on(field)]` names.
pub fn feeding<T, O>(field: &mut impl Feeds<T, O>) -> &mut dyn Feeds<T, O> {
    field
}

/// The field that `#[on(field.gap)]` or `#[on(field.late)]` names.
pub fn consuming<T: Streamed>(field: &mut impl Consumes<T>) -> Option<&mut Consumer<T>> {
    field.consumer()
}

/// The field that `emit = ..` names.
pub fn sending<T: Streamed>(field: &impl Produces<T>) -> Option<&Producer<T>> {
    field.sender()
}

/// The field whose items come back.
pub fn producing<T: Streamed>(field: &mut impl Produces<T>) -> Option<&mut Producer<T>> {
    field.producer()
}

/// The outcome of a handler that emits nothing.
pub fn done(result: impl Handled) -> Outcome {
    result.handled().map(|()| Done::default())
}

/// The outcome of a handler whose items go out on `producer`. It does not wait: a handler must not pile up. What finds nobody,
/// no room or no producer is dropped and counted.
pub fn emit<T: Streamed>(producer: Option<&Producer<T>>, result: impl Emits<T::Item>) -> Outcome {
    let items = result.items()?;
    let mut done = Done::default();
    let Some(producer) = producer else {
        done.dropped = items.into_iter().count() as u64;
        return Ok(done);
    };
    for item in items {
        match producer.try_send(item) {
            Ok(()) => done.emitted += 1,
            Err(error) => match error.kind() {
                SendErrorKind::Offline | SendErrorKind::Full | SendErrorKind::NotLeader => done.dropped += 1,
                _ => return Err(error.to_string()),
            },
        }
    }
    Ok(done)
}
