//! Producers that stand by: what they cost, that they are no subscribers' business, and how they take over. The core of it is
//! simulated in `tests/flow/handover.rs`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use mosaik::{
    Network, NetworkId, PeerId,
    prelude::*,
    streams::{ChannelState, Event, Events},
    testing::{LinkQuality, Sim, SimNode},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use crate::streams::soon;

const NETWORK: NetworkId = NetworkId::from_name("standby");
const LIMIT: Duration = Duration::from_mins(2);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Block {
    number: u64,
    body: Vec<u8>,
}

/// A node that publishes a block each `every`, of the one sequence that time makes: number `n` at `n` periods after the beginning.
struct Follower {
    net: Network,
    producer: Producer<Block>,
    id: PeerId,
    /// It publishes nothing any more.
    stopped: Arc<AtomicBool>,
}

async fn follower(sim: &Sim, node: &SimNode, every: Duration, size: usize) -> Follower {
    let net = node.restart(NETWORK).build().await.unwrap();
    let first = u64::try_from(sim.elapsed().as_nanos() / every.as_nanos()).unwrap() + 1;
    let builder = net.streams().producer::<Block>().online_when(|c| c.minimum_of(0)).starting_at(first);
    let producer = builder.with_replay(Buffer::items(10_000).bytes(64 << 20)).build().unwrap();
    let (id, sending, stopped) = (net.local().id(), producer.clone(), Arc::new(AtomicBool::new(false)));
    let is_stopped = stopped.clone();
    let began = Instant::now() - sim.elapsed();
    node.spawn("follower", async move {
        for number in first.. {
            tokio::time::sleep_until(began + every * u32::try_from(number).unwrap()).await;
            if is_stopped.load(Relaxed) || sending.send(Block { number, body: vec![1; size] }).await.is_err() {
                return;
            }
        }
    });
    Follower { net, producer, id, stopped }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn state(consumer: &Consumer<Block>, of: PeerId) -> Option<ChannelState> {
    consumer.candidates().find(|channel| channel.peer().id() == of).map(|channel| channel.state())
}

/// Reads to that number: each once and in order.
async fn read(consumer: &mut Consumer<Block>, at: &mut Option<u64>, to: u64) -> PeerId {
    loop {
        let (block, origin) = soon("item", consumer.recv_from()).await.unwrap();
        assert_eq!(block.number, origin.seq);
        assert!(at.is_none_or(|at| block.number == at + 1), "{} behind {at:?}", block.number);
        *at = Some(block.number);
        if block.number >= to {
            return origin.producer;
        }
    }
}

async fn switched(events: &mut Events) -> (PeerId, PeerId) {
    loop {
        match soon("switched", events.recv()).await.unwrap() {
            Event::Switched { from, to } => return (from, to),
            event => assert!(!matches!(event, Event::Gap { .. }), "{event:?}"),
        }
    }
}

/// 1,000 items of 1 KiB a second: who stands by costs at most a twentieth of that, and its producer has no subscriber.
#[test]
fn one_that_stands_by_costs_at_most_five_percent_of_the_bytes() {
    Sim::run(90, |sim| async move {
        let [one, two] = ["one", "two"].map(|name| sim.node(name));
        let every = Duration::from_millis(1);
        let a = follower(&sim, &one, every, 1024).await;
        let b = follower(&sim, &two, every, 1024).await;
        let net = sim.node("to").builder(NETWORK).build().await.unwrap();
        let mut consumer = net.streams().consumer::<Block>().with_fanin(1).with_standby(1).build();
        until("one is taken and one stands by", || {
            let states = [&a, &b].map(|it| state(&consumer, it.id));
            states.contains(&Some(ChannelState::Connected)) && states.contains(&Some(ChannelState::Standby))
        })
        .await;
        let taken_is_a = state(&consumer, a.id) == Some(ChannelState::Connected);
        let (taken, standby) = if taken_is_a { ((&one, &a), (&two, &b)) } else { ((&two, &b), (&one, &a)) };
        assert_eq!((taken.1.producer.consumers().count(), standby.1.producer.consumers().count()), (1, 0));
        let before = [taken.0, standby.0].map(|node| node.traffic().sent);
        let end = Instant::now() + Duration::from_secs(20);
        let mut items = 0_u64;
        while let Ok(Some(_)) = tokio::time::timeout_at(end, consumer.recv()).await {
            items += 1;
        }
        assert!(items > 19_000, "{items}");
        let [live, heads] =
            [(taken.0, before[0]), (standby.0, before[1])].map(|(node, before)| node.traffic().sent - before);
        assert!(live > 19_000 * 1024, "{live}");
        assert!(heads * 20 <= live, "{heads} of {live} bytes are {} per mille", heads * 1000 / live);
        let _ = (a.net, b.net);
    });
}

/// Neither `online_when` nor `with_max_consumers` counts who stands by.
#[test]
fn one_that_stands_by_is_no_subscriber() {
    Sim::run(91, |sim| async move {
        let mut producers = Vec::new();
        for name in ["one", "two"] {
            let net = sim.node(name).builder(NETWORK).build().await.unwrap();
            let producer = net.streams().producer::<Block>().with_max_consumers(1).build().unwrap();
            producers.push((net, producer));
        }
        let net = sim.node("to").builder(NETWORK).build().await.unwrap();
        let consumer = net.streams().consumer::<Block>().with_standby(1).build();
        let standing = || consumer.candidates().find(|it| it.state() == ChannelState::Standby).map(|it| it.peer().id());
        until("one stands by", || standing().is_some() && consumer.producers().count() == 1).await;
        let by = standing().unwrap();
        let (_, spare) = producers.iter().find(|(net, _)| net.local().id() == by).unwrap();
        assert!(!spare.is_online() && spare.consumers().count() == 0);
        let other = sim.node("other").builder(NETWORK).build().await.unwrap();
        let own = other.streams().consumer::<Block>().subscribe_if(move |peer| peer.id() == by).build();
        soon("its place is free", own.when().subscribed()).await;
        assert!(spare.is_online());
        assert_eq!(standing(), Some(by));
    });
}

/// The one that is taken is killed, frozen, or stays behind: the next one goes on at the next item.
#[test]
fn of_replicated_producers_the_next_one_goes_on_at_the_next_item() {
    for (seed, failure) in (92..).zip(["killed", "frozen", "behind"]) {
        Sim::run(seed, |sim| async move {
            let here = sim.node("to");
            for (name, millis) in [("near", 1), ("far", 5)] {
                sim.link(&here, &sim.node(name), LinkQuality::lan().with_latency(Duration::from_millis(millis)));
            }
            let every = Duration::from_millis(10);
            let near = follower(&sim, &sim.node("near"), every, 100).await;
            let far = follower(&sim, &sim.node("far"), every, 100).await;
            let net = here.builder(NETWORK).build().await.unwrap();
            let builder = net.streams().consumer::<Block>().prefer(Prefer::latency()).with_standby(1).replicated();
            let mut consumer = builder.with_deadline(Duration::from_millis(500)).build();
            let mut events = consumer.events();
            until("the near one is taken", || {
                let of = |it: &Follower| state(&consumer, it.id);
                of(&near) == Some(ChannelState::Connected) && of(&far) == Some(ChannelState::Standby)
            })
            .await;
            let mut at = None;
            let now = |sim: &Sim| u64::try_from(sim.elapsed().as_millis() / 10).unwrap();
            let to = now(&sim) + 300;
            assert_eq!(read(&mut consumer, &mut at, to).await, near.id);
            while timeout(Duration::ZERO, events.recv()).await.is_ok() {}
            let failed = Instant::now();
            match failure {
                "killed" => sim.node("near").crash(),
                "frozen" => sim.node("near").pause(),
                _ => near.stopped.store(true, Relaxed),
            }
            let last = at.unwrap();
            let from = read(&mut consumer, &mut at, last + 60).await;
            assert_eq!(from, far.id, "{failure}");
            assert!(failed.elapsed() < Duration::from_secs(1), "{failure}: {:?}", failed.elapsed());
            assert_eq!(switched(&mut events).await, (near.id, far.id));
            if failure == "frozen" {
                sim.node("near").resume();
            }
            let to = now(&sim) + 500;
            read(&mut consumer, &mut at, to).await;
            assert_eq!(consumer.stats().gaps(), 0, "{failure}");
            drop(far.net);
        });
    }
}
