//! Values of well-known crates through everything that carries values: an item of a stream, delta and state of a store, a group's
//! command, output and snapshot with a restart. What arrives is equal, or the test names the type.
#![cfg(test)]

mod alloy_types;
mod attributes;
mod everyday;
mod table;

use std::{fmt::Debug, time::Duration};

use mosaik::{
    groups::{ApplyContext, Snapshots, StateMachine},
    prelude::*,
    stores::View,
    testing::{Sim, SimDisk},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// What a value must be to go through all of it.
pub(crate) trait Value:
    Serialize + DeserializeOwned + Clone + PartialEq + Debug + Send + Sync + 'static
{
}

impl<T: Serialize + DeserializeOwned + Clone + PartialEq + Debug + Send + Sync + 'static> Value for T {}

/// Keeps every value: as a store's state and as a group's machine.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Shelf<T> {
    kept: Vec<T>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { kept: Vec::new() }
    }
}

impl<T: Value> View for Shelf<T> {
    type Delta = T;
    const NAME: &'static str = "shelf";

    fn fold(&mut self, delta: T) {
        self.kept.push(delta);
    }
}

impl<T: Value> StateMachine for Shelf<T> {
    type Command = T;
    type Output = T;
    type Query = ();
    type QueryResult = Vec<T>;
    const NAME: &'static str = "shelf";

    fn apply(&mut self, value: T, _: &ApplyContext) -> T {
        self.kept.push(value.clone());
        value
    }

    fn query(&self, (): ()) -> Vec<T> {
        self.kept.clone()
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::serde()
    }
}

/// Sends the values through a stream, a store and a group, and compares.
pub(crate) fn carried<T: Value>(values: &[T]) {
    Sim::run(7, |sim| async move {
        let limit = Duration::from_secs(60);
        let id = NetworkId::from("types");
        let (here, there) = (sim.node("here"), sim.node("there"));
        let disk = SimDisk::new();
        let one = here.builder(id).build().await.unwrap();
        let other = there.builder(id).with_bootstrap(here.addr()).build().await.unwrap();

        let producer = one.streams().producer::<T>().with_stream_id("values").build().unwrap();
        let mut consumer = other.streams().consumer::<T>().with_stream_id("values").build();
        for value in values {
            timeout(limit, producer.send(value.clone())).await.expect("sent in time").unwrap();
            let arrived = timeout(limit, consumer.recv()).await.expect("arrived in time");
            assert_eq!(arrived.as_ref(), Some(value), "through a stream");
        }

        let primary = one.stores().primary::<Shelf<T>>("values").build().unwrap();
        for value in values {
            timeout(limit, primary.apply(value.clone())).await.expect("written in time").unwrap();
        }
        // It comes late, so that it takes the state; and then another delta.
        let replica = other.stores().replica::<Shelf<T>>("values").build();
        let more = values[0].clone();
        timeout(limit, primary.apply(more.clone())).await.expect("written in time").unwrap();
        let all: Vec<T> = values.iter().cloned().chain([more]).collect();
        let whole = timeout(limit, async {
            loop {
                let state = replica.read();
                if state.kept.len() == all.len() {
                    return state.kept.clone();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert_eq!(whole.await.expect("in step in time"), all, "through a store");

        let key = mosaik::groups::GroupKey::from_bytes([7; 32]);
        let join = |network: &Network| {
            let builder = network.groups().with_key(key.clone()).with_state_machine(Shelf::<T>::default());
            builder.with_storage(disk.clone()).with_size(1).join()
        };
        let group = timeout(limit, join(&one)).await.expect("joined in time").unwrap();
        for value in values {
            let output =
                timeout(limit, group.execute(value.clone(), Consistency::Strong)).await.expect("in time").unwrap();
            assert_eq!(output, *value, "through a group");
        }
        // A snapshot of everything.
        timeout(limit, group.seal()).await.expect("sealed in time").unwrap();
        drop(group);
        timeout(limit, one.shutdown()).await.expect("in time");
        let one = here.restart(id).build().await.unwrap();
        let group = timeout(limit, join(&one)).await.expect("joined again in time").unwrap();
        let kept = timeout(limit, async {
            loop {
                let kept = group.query((), Consistency::Weak).await.unwrap();
                if kept.len() >= values.len() {
                    return kept;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let kept = kept.await.expect("read back in time");
        assert_eq!(*kept, values, "through a snapshot");
    });
}

/// The error of a value that is refused.
pub(crate) fn refused<T: Value>(value: T) -> String {
    Sim::run(7, |sim| async move {
        let node = sim.node("here");
        let network = node.builder("types").build().await.unwrap();
        let producer = network.streams().producer::<T>().with_stream_id("values").online_when(|c| c.minimum_of(0));
        producer.build().unwrap().send(value).await.unwrap_err().to_string()
    })
}
