//! Late joiners on the whole stack: what a producer retains is replayed to who comes late, with an exact cut to the live flow,
//! and without harm to anybody else. The core of it is simulated in `tests/flow`.

use std::time::Duration;

use mosaik::{
    Network, NetworkId, PeerId,
    streams::{Buffer, ByteRate, Consumer, Event, Origin, Producer, Retain},
    testing::{LinkQuality, Sim, SimNode},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::streams::{event, soon};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tick {
    key: u64,
    at: u64,
    body: Vec<u8>,
}

async fn start(node: &SimNode, id: NetworkId) -> Network {
    node.builder(id).build().await.unwrap()
}

fn producer(network: &Network, retain: Retain<Tick>) -> Producer<Tick> {
    let builder = network.streams().producer::<Tick>().online_when(|c| c.minimum_of(0));
    builder.with_key(|tick| tick.key).retain(retain).build().unwrap()
}

/// Sends ticks with these numbers, each of `size` bytes; keys are numbers modulo 7.
async fn send(producer: &Producer<Tick>, numbers: std::ops::Range<u64>, size: usize) {
    for at in numbers {
        soon("send", producer.send(Tick { key: at % 7, at, body: vec![0; size] })).await.unwrap();
    }
}

async fn next(consumer: &mut Consumer<Tick>) -> (Tick, Origin) {
    soon("item", consumer.recv_from()).await.unwrap()
}

/// The numbers of all items up to that one.
async fn until(consumer: &mut Consumer<Tick>, last: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let (tick, origin) = next(consumer).await;
        assert_eq!(tick.at, origin.seq);
        numbers.push(tick.at);
    }
    numbers
}

/// Each retention, and live items that are sent while the replay is under way.
#[test]
fn a_late_joiner_gets_what_is_retained_and_then_every_live_item() {
    let sizes =
        [(Retain::last(10), 90), (Retain::last_per_key(2), 86), (Retain::keyframe(|tick: &Tick| tick.at == 60), 60)];
    for (seed, (retain, first)) in (21..).zip(sizes) {
        Sim::run(seed, |sim| async move {
            let id = NetworkId::from("retain");
            let (na, nb) = (start(&sim.node("a"), id).await, start(&sim.node("b"), id).await);
            let producer = producer(&na, retain);
            send(&producer, 0..100, 10_000).await;
            let mut consumer = nb.streams().consume::<Tick>();
            let mut events = consumer.events();
            soon("subscription", producer.when().subscribed()).await;
            send(&producer, 100..300, 10_000).await;
            assert_eq!(until(&mut consumer, 299).await, (first..300).collect::<Vec<_>>());
            let replayed = event(&mut events, |event| match event {
                Event::Replayed { items, next, .. } => Some((*items, *next)),
                Event::Gap { .. } | Event::Disconnected { .. } => panic!("{event:?}"),
                _ => None,
            });
            assert_eq!(replayed.await, (100 - first, 100));
            assert_eq!(consumer.stats().gaps(), 0);
            let mut live = nb.streams().consumer::<Tick>().live_only().build();
            soon("subscription", live.when().subscribed()).await;
            soon("subscription", producer.when().subscribed().minimum_of(1)).await;
            send(&producer, 300..301, 1).await;
            assert_eq!(until(&mut live, 300).await, [300], "who wants none gets none");
        });
    }
}

/// More live bytes come while a long replay is under way than wait anywhere by default: nobody is closed for that, and nothing
/// is missing, as long as they are fewer than those of the replay.
#[test]
fn a_long_replay_beside_a_busy_flow_comes_to_its_end() {
    const ITEM: usize = 64 << 10;
    Sim::run(29, |sim| async move {
        let id = NetworkId::from("long");
        let (na, nb) = (start(&sim.node("a"), id).await, start(&sim.node("b"), id).await);
        let producer = na
            .streams()
            .producer::<Tick>()
            .online_when(|c| c.minimum_of(0))
            .with_buffer(Buffer::items(65_536).bytes(1 << 20));
        let producer = producer.with_replay(Buffer::none()).with_replay_pace(ByteRate::mib_per_sec(4));
        let producer = producer.retain(Retain::window(24 << 20, Duration::from_mins(10))).build().unwrap();
        send(&producer, 0..383, ITEM).await;
        // One that keeps up: the other is measured by it.
        let nc = start(&sim.node("c"), id).await;
        let mut fast = nc.streams().consumer::<Tick>().live_only().build();
        soon("subscription", fast.when().subscribed()).await;
        soon("subscription", producer.when().subscribed()).await;
        tokio::spawn(async move { while fast.recv().await.is_some() {} });
        let mut consumer = nb.streams().consume::<Tick>();
        let mut events = consumer.events();
        soon("subscription", producer.when().subscribed().minimum_of(2)).await;
        let live = tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_secs(1) / 56);
            for at in 383..719 {
                every.tick().await;
                send(&producer, at..at + 1, ITEM).await;
            }
            producer
        });
        assert_eq!(until(&mut consumer, 718).await, (0..719).collect::<Vec<_>>());
        live.await.unwrap();
        let replayed = event(&mut events, |event| match event {
            Event::Replayed { items, .. } => Some(*items),
            Event::Gap { .. } | Event::Disconnected { .. } => panic!("{event:?}"),
            _ => None,
        });
        assert_eq!(replayed.await, 383);
    });
}

/// What a declaration says is kept, without a word at the producer.
#[mosaik::stream(key = |quote| quote.symbol.clone(), retain = last_per_key(1))]
#[derive(Debug, Clone, PartialEq)]
struct Quote {
    symbol: String,
    price: u64,
}

impl Quote {
    fn new(symbol: &str, price: u64) -> Self {
        Self { symbol: symbol.to_owned(), price }
    }
}

#[mosaik::stream(retain = keyframe(Frame::is_key))]
#[derive(Debug, Clone, PartialEq)]
struct Frame(u64);

impl Frame {
    fn is_key(&self) -> bool {
        self.0.is_multiple_of(10)
    }
}

#[mosaik::stream(retain = window("1KiB", "1m"))]
#[derive(Debug, Clone, PartialEq)]
struct Chunk(Vec<u8>);

#[test]
fn a_declared_stream_retains_what_its_attribute_says() {
    Sim::run(28, |sim| async move {
        let id = NetworkId::from("declared");
        let (na, nb) = (start(&sim.node("a"), id).await, start(&sim.node("b"), id).await);
        let quotes = Quote::producer(&na).online_when(|c| c.minimum_of(0)).build().unwrap();
        let frames = Frame::producer(&na).online_when(|c| c.minimum_of(0)).build().unwrap();
        let chunks = Chunk::producer(&na).online_when(|c| c.minimum_of(0)).build().unwrap();
        for (symbol, price) in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)] {
            soon("send", quotes.send(Quote::new(symbol, price))).await.unwrap();
        }
        for number in 0..25 {
            soon("send", frames.send(Frame(number))).await.unwrap();
        }
        for number in 0..5 {
            soon("send", chunks.send(Chunk(vec![number; 300]))).await.unwrap();
        }
        let mut late = Quote::consumer(&nb).build();
        for quote in [Quote::new("a", 3), Quote::new("c", 4), Quote::new("b", 5)] {
            assert_eq!(soon("quote", late.recv()).await, Some(quote));
        }
        let mut late = Frame::consumer(&nb).build();
        for number in 20..25 {
            assert_eq!(soon("frame", late.recv()).await, Some(Frame(number)));
        }
        let mut late = Chunk::consumer(&nb).build();
        for number in 2..5 {
            assert_eq!(soon("chunk", late.recv()).await, Some(Chunk(vec![number; 300])));
        }
    });
}

/// A field failure: items older than the window come back from the dead.
#[test]
fn what_is_older_than_the_window_is_not_replayed() {
    Sim::run(24, |sim| async move {
        let id = NetworkId::from("window");
        let (na, nb) = (start(&sim.node("a"), id).await, start(&sim.node("b"), id).await);
        let producer = producer(&na, Retain::window(1 << 20, Duration::from_mins(1)));
        for at in 0..100 {
            send(&producer, at..at + 1, 10).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        let mut consumer = nb.streams().consume::<Tick>();
        let first = next(&mut consumer).await.0.at;
        assert!((94..=95).contains(&first), "six in a minute: from {first} on");
        assert_eq!(until(&mut consumer, 99).await, (first + 1..100).collect::<Vec<_>>());
    });
}

/// A field failure: a restarted consumer that waits for ever for a key frame.
#[test]
fn a_restarted_consumer_begins_with_the_last_key_frame() {
    Sim::run(25, |sim| async move {
        let id = NetworkId::from("key frame");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, mut nb) = (start(&a, id).await, start(&b, id).await);
        let producer = producer(&na, Retain::keyframe(|tick: &Tick| tick.at.is_multiple_of(50)));
        for round in 0..4 {
            let mut consumer = nb.streams().consume::<Tick>();
            if round > 0 {
                let (tick, _) = next(&mut consumer).await;
                assert_eq!(tick.at, (round * 33 - 1) / 50 * 50, "it stands on its own");
                until(&mut consumer, round * 33 - 1).await;
            } else {
                soon("subscription", producer.when().subscribed()).await;
            }
            send(&producer, round * 33..round * 33 + 33, 100).await;
            until(&mut consumer, round * 33 + 32).await;
            b.crash();
            drop((consumer, nb));
            nb = b.restart(id).build().await.unwrap();
        }
    });
}

/// A field failure: a cache shared between producers that mixes their histories.
#[test]
fn what_two_producers_retain_is_never_mixed() {
    Sim::run(26, |sim| async move {
        let id = NetworkId::from("two histories");
        let nodes = [start(&sim.node("a"), id).await, start(&sim.node("b"), id).await];
        let producers = nodes.each_ref().map(|node| producer(node, Retain::last_per_key(1)));
        for at in 0..50 {
            send(&producers[0], at..at + 1, 0).await;
            send(&producers[1], at..at + 1, 1).await;
        }
        let late = start(&sim.node("late"), id).await;
        let mut consumer = late.streams().consume::<Tick>();
        let mut expected: Vec<(PeerId, u64)> = Vec::new();
        for node in &nodes {
            expected.extend((43..60).map(|at| (node.local().id(), at)));
        }
        soon("subscription", consumer.when().subscribed().minimum_of(2)).await;
        for (producer, size) in producers.iter().zip(0..) {
            send(producer, 50..60, size).await;
        }
        let mut got = Vec::new();
        for _ in 0..expected.len() {
            let (tick, origin) = next(&mut consumer).await;
            assert_eq!((tick.at, nodes[tick.body.len()].local().id()), (origin.seq, origin.producer));
            got.push((origin.producer, tick.at));
        }
        got.sort_by_key(|(producer, _)| *producer != nodes[0].local().id()); // stable: the order of each stays
        assert_eq!(got, expected);
    });
}

/// A field failure: a replay of a few MB that stalls the live flow. Over links of 4 MB/s; the items of others are on time, and
/// the late joiner, which takes seconds, lacks nothing, although its connection is lost half-way.
#[test]
fn a_large_replay_neither_stalls_the_live_flow_nor_loses_its_place() {
    const SENT: u64 = 1200;
    Sim::run(27, |sim| async move {
        let id = NetworkId::from("large replay");
        sim.default_link(LinkQuality { bandwidth: Some(4_000_000), ..LinkQuality::lan() });
        let (a, late) = (sim.node("a"), sim.node("late"));
        let (na, nb, nc) = (start(&a, id).await, start(&sim.node("b"), id).await, start(&late, id).await);
        let producer = producer(&na, Retain::last(10_000));
        send(&producer, 0..SENT, 10_000).await; // 12 MB
        let mut live = nb.streams().consumer::<Tick>().live_only().build();
        soon("subscription", producer.when().subscribed()).await;
        let joiner = nc.streams().consume::<Tick>();
        let reader = tokio::spawn(async move {
            let mut joiner = joiner;
            let numbers = until(&mut joiner, SENT + 999).await;
            (numbers, joiner.stats())
        });
        let mut worst = Duration::ZERO;
        for at in SENT..SENT + 1000 {
            let sent = Instant::now();
            send(&producer, at..at + 1, 100).await;
            assert_eq!(until(&mut live, at).await, [at]);
            worst = worst.max(sent.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
            if at == SENT + 200 {
                sim.partition(std::slice::from_ref(&a), std::slice::from_ref(&late));
            } else if at == SENT + 900 {
                sim.heal();
            }
        }
        assert!(worst < Duration::from_millis(50), "a live item took {worst:?}");
        let (numbers, stats) = soon("replay", reader).await.unwrap();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "in order, without a hole");
        assert_eq!((numbers.len() as u64, stats.gaps()), (SENT + 1000, 0));
    });
}

/// What is retained has a limit in bytes, whatever the number of items says.
#[test]
fn what_is_retained_is_bounded() {
    Sim::run(28, |sim| async move {
        let id = NetworkId::from("bounded");
        let (na, nb) = (start(&sim.node("a"), id).await, start(&sim.node("b"), id).await);
        let limit = Buffer::items(1000).bytes(100_000);
        let producer = producer(&na, Retain::last(500).within(limit));
        send(&producer, 0..1000, 10_000).await;
        let mut consumer = nb.streams().consume::<Tick>();
        assert_eq!(until(&mut consumer, 999).await, (991..1000).collect::<Vec<_>>());
    });
}
