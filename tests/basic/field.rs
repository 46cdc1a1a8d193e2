//! What live feeds failed at in the field, each failure as a scenario that must go well here. In simulation.
//!
//! A restarted consumer that waits for ever for a key frame is in `late`; a feed that stops without anybody
//! noticing is `flow::a_silent_producer_is_late`, and in a role `declarative::handlers::gaps_and_lateness_are_handled`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use mosaik::{
    Network, NetworkId, PeerId,
    streams::{Buffer, Consumer, Event, GapReason, OnLag, Origin},
    testing::{LinkQuality, Sim, eventually},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::streams::soon;

const SOON: Duration = Duration::from_mins(1);

/// An item that says which one it is, of any size.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename = "feed")]
struct Tick {
    of: PeerId,
    n: u64,
    body: Vec<u8>,
}

/// What a consumer was given and told, item by item in the order in which it was.
#[derive(Default)]
struct Book {
    given: BTreeMap<(PeerId, u64), Vec<u64>>,
    told: BTreeMap<PeerId, Vec<(u64, u64, GapReason)>>,
}

impl Book {
    /// Of one run of a producer: nothing twice, in order, and what was not given was told.
    fn is_whole(&self, producer: PeerId, epoch: u64, sent: u64) -> bool {
        let empty = Vec::new();
        let given = self.given.get(&(producer, epoch)).unwrap_or(&empty);
        assert!(given.is_sorted_by(|one, next| one < next), "out of order or twice: {given:?}");
        let gaps = self.told.get(&producer).into_iter().flatten();
        let mut known: Vec<u64> = given.iter().copied().chain(gaps.flat_map(|(from, to, _)| *from..*to)).collect();
        known.sort_unstable();
        assert!(known.windows(2).all(|pair| pair[0] < pair[1]), "an item is given and told as missed");
        known.len() as u64 == sent
    }

    fn given(&self, producer: PeerId, epoch: u64) -> &[u64] {
        self.given.get(&(producer, epoch)).map_or(&[], Vec::as_slice)
    }
}

/// Keeps the book of a consumer that waits so long after each item.
fn keep(mut consumer: Consumer<Tick>, pause: Duration) -> Arc<Mutex<Book>> {
    let book = Arc::new(Mutex::new(Book::default()));
    let kept = book.clone();
    tokio::spawn(async move {
        let mut events = consumer.events();
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(Event::Gap { producer, from, to, reason }) => {
                        kept.lock().unwrap().told.entry(producer).or_default().push((from, to, reason));
                    }
                    Some(_) => {}
                    None => return,
                },
                item = consumer.recv_from() => {
                    let Some((tick, Origin { producer, epoch, seq, .. })) = item else { return };
                    assert_eq!((tick.of, tick.n), (producer, seq), "an item of another producer or with another number");
                    kept.lock().unwrap().given.entry((producer, epoch)).or_default().push(seq);
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    });
    book
}

async fn build<const N: usize>(sim: &Sim, names: [&str; N]) -> [Network; N] {
    let id = NetworkId::from("field");
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(sim.node(name).builder(id).build().await.unwrap());
    }
    nodes.try_into().expect("N nodes")
}

/// Items were skipped when another machine took over as producer, and nobody could say which. Here the first producer hands over
/// all that it has before it goes, so the hand-over is whole; when it is killed instead, each consumer knows how far it got.
#[test]
fn a_hand_over_to_another_producer_skips_nothing_untold() {
    Sim::run(31, |sim| async move {
        let [na, nb, nc] = build(&sim, ["a", "b", "c"]).await;
        let (first, second) = (na.streams().produce::<Tick>(), nb.streams().produce::<Tick>());
        let consumer = nc.streams().consume();
        let both = consumer.when().subscribed().minimum_of(2);
        let book = keep(consumer, Duration::from_millis(2)); // behind, so that there is something to hand over
        soon("both", both).await;
        let (a, b) = (na.local().id(), nb.local().id());
        for n in 0..100 {
            first.send(Tick { of: a, n, body: Vec::new() }).await.unwrap();
        }
        na.shutdown().await;
        for n in 0..50 {
            second.send(Tick { of: b, n, body: Vec::new() }).await.unwrap();
        }
        let (of_a, of_b) = (first.epoch(), second.epoch());
        let whole = || {
            let book = book.lock().unwrap();
            book.is_whole(a, of_a, 100) && book.is_whole(b, of_b, 50)
        };
        assert!(eventually(SOON, whole).await);
        assert!(book.lock().unwrap().told.is_empty(), "a graceful hand-over costs nothing");

        // The second one is killed in mid-flow and comes back: its new run is heard from its first item.
        for n in 50..80 {
            second.send(Tick { of: b, n, body: Vec::new() }).await.unwrap();
        }
        sim.node("b").crash();
        let nb = sim.node("b").restart(NetworkId::from("field")).build().await.unwrap();
        let third = nb.streams().produce::<Tick>();
        for n in 0..50 {
            soon("room", third.send(Tick { of: b, n, body: Vec::new() })).await.unwrap();
        }
        assert!(eventually(SOON, || book.lock().unwrap().is_whole(b, third.epoch(), 50)).await);
        let book = book.lock().unwrap();
        let before = book.given(b, of_b);
        assert!(before.iter().copied().eq(0..before.len() as u64), "what came of the lost run came without a hole");
    });
}

/// Subscribers of one feed lost different items at random, because each had a queue of its own that overflowed by itself. Here
/// those that keep up get the same and all of it, whoever else lags; who lags knows item by item what it has missed, and with
/// keys ends with the same last values.
#[test]
fn subscribers_that_keep_up_see_the_same_whatever_others_lose() {
    for (policy, seed) in [(OnLag::DropOldest, 32), (OnLag::Conflate, 33)] {
        Sim::run(seed, |sim| async move {
            const ITEMS: u64 = 3000;
            const KEYS: u64 = 10;
            let [source, fast, faster, slow, slower] =
                build(&sim, ["source", "fast", "faster", "slow", "slower"]).await;
            sim.link(&sim.node("source"), &sim.node("faster"), LinkQuality::wan());
            let id = source.local().id();
            let builder = source.streams().producer::<Tick>().on_lag(policy).with_key(|tick| tick.n % KEYS);
            let producer = builder.with_buffer(Buffer::items(256)).build().unwrap();
            let pauses = [(fast, 0), (faster, 0), (slow, 40), (slower, 90)]
                .map(|(node, pause)| (keep(node.streams().consume(), Duration::from_millis(pause)), pause, node));
            soon("all", producer.when().subscribed().minimum_of(4)).await;
            for n in 0..ITEMS {
                producer.send(Tick { of: id, n, body: vec![0; 4 << 10] }).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for (book, pause, _) in &pauses {
                let whole = || book.lock().unwrap().is_whole(id, producer.epoch(), ITEMS);
                assert!(eventually(Duration::from_mins(5), whole).await, "a pause of {pause} ms");
                let book = book.lock().unwrap();
                let given = book.given(id, producer.epoch());
                if *pause == 0 {
                    assert_eq!(given.len() as u64, ITEMS, "who keeps up loses nothing");
                } else {
                    assert!((given.len() as u64) < ITEMS, "this one lags");
                    let expected = if policy == OnLag::Conflate { GapReason::Conflated } else { GapReason::Dropped };
                    assert!(book.told[&id].iter().all(|(_, _, reason)| *reason == expected));
                }
                let last = |key| given.iter().rfind(|n| **n % KEYS == key).copied();
                if policy == OnLag::Conflate {
                    assert!((0..KEYS).all(|key| last(key) == Some(ITEMS - KEYS + key)), "the last value of each key");
                }
            }
        });
    }
}

/// A replay of a few MB for one subscriber stalled the live flow to all. Here one comes back for 8 MiB over a slow line, and the
/// others' items are no later for it.
#[test]
fn a_replay_of_megabytes_does_not_hold_up_the_live_flow() {
    Sim::run(34, |sim| async move {
        let [source, live, back] = build(&sim, ["source", "live", "back"]).await;
        sim.link(&sim.node("source"), &sim.node("back"), LinkQuality::lan().with_bandwidth(2 << 20));
        let id = source.local().id();
        let replay = Buffer::items(100_000).bytes(8 << 20);
        let producer = source.streams().producer::<Tick>().with_replay(replay).build().unwrap();
        let mut ticks = live.streams().consume::<Tick>();
        let consumer = back.streams().consume();
        let there = consumer.when().subscribed();
        let book = keep(consumer, Duration::ZERO);
        soon("one", there).await;
        soon("both", producer.when().subscribed().minimum_of(2)).await;
        sim.partition(&[sim.node("source"), sim.node("live")], &[sim.node("back")]);
        soon("one", producer.when().unsubscribed().minimum_of(2)).await;
        let mut next = 0;
        let mut send = async |bytes: usize| {
            let begun = Instant::now();
            producer.send(Tick { of: id, n: next, body: vec![0; bytes] }).await.unwrap();
            let (tick, _) = soon("live item", ticks.recv_from()).await.unwrap();
            assert_eq!(tick.n, next);
            next += 1;
            begun.elapsed()
        };
        for _ in 0..7 * 64 {
            send(16 << 10).await;
        }
        let mut alone = Duration::ZERO;
        for _ in 0..200 {
            alone = alone.max(send(100).await);
        }
        sim.heal();
        soon("back", producer.when().subscribed().minimum_of(2)).await;
        let (mut beside, mut items, begun) = (Duration::ZERO, 0, Instant::now());
        let whole = |sent| book.lock().unwrap().is_whole(id, producer.epoch(), sent);
        while !whole(items + 7 * 64 + 200) {
            beside = beside.max(send(100).await);
            items += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(begun.elapsed() > Duration::from_secs(3), "7 MiB at 2 MiB/s take their time");
        assert!(items > 300, "the live flow went on: {items} items");
        assert!(beside <= alone * 2, "{beside:?} beside a replay, {alone:?} without");
        assert!(book.lock().unwrap().told.is_empty(), "the ring had all of it");
    });
}

/// A cache that producers shared mixed their histories. Here each has a ring of its own: a consumer that comes back to two
/// producers of one stream, one of which has started anew meanwhile, gets each one's items as that one sent them.
#[test]
fn histories_of_two_producers_do_not_mix() {
    Sim::run(35, |sim| async move {
        let [na, nb, nc] = build(&sim, ["a", "b", "c"]).await;
        let (a, b) = (na.local().id(), nb.local().id());
        let always = |net: &Network| net.streams().producer::<Tick>().online_when(|c| c.minimum_of(0)).build().unwrap();
        let (one, other) = (always(&na), always(&nb));
        let consumer = nc.streams().consume();
        let both = consumer.when().subscribed().minimum_of(2);
        let book = keep(consumer, Duration::ZERO);
        soon("both", both).await;
        let tick = |of, n| Tick { of, n, body: vec![0; 1000] };
        for n in 0..100 {
            one.send(tick(a, n)).await.unwrap();
            other.send(tick(b, n)).await.unwrap();
        }
        let arrived =
            || [&one, &other].iter().zip([a, b]).all(|(it, id)| book.lock().unwrap().is_whole(id, it.epoch(), 100));
        assert!(eventually(SOON, arrived).await);
        sim.partition(&[sim.node("a"), sim.node("b")], &[sim.node("c")]);
        soon("a", one.when().unsubscribed()).await;
        soon("b", other.when().unsubscribed()).await;
        let first_run = other.epoch();
        sim.node("b").crash();
        drop(other);
        let nb = sim.node("b").restart(NetworkId::from("field")).build().await.unwrap();
        let other = always(&nb);
        for n in 0..50 {
            one.send(tick(a, 100 + n)).await.unwrap();
            other.send(tick(b, n)).await.unwrap();
        }
        sim.heal();
        let whole = || {
            let book = book.lock().unwrap();
            book.is_whole(a, one.epoch(), 150) && book.is_whole(b, other.epoch(), 50)
        };
        assert!(eventually(SOON, whole).await);
        let book = book.lock().unwrap();
        assert_eq!(book.given(a, one.epoch()).len(), 150);
        assert_eq!((book.given(b, first_run).len(), book.given(b, other.epoch()).len()), (100, 50));
        assert!(book.told.is_empty());
    });
}
