//! Streams that a group owns: one sequence of committed items at all consumers, whoever leads, is killed, cut off or frozen.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::FutureExt;
use mosaik::{
    Network,
    groups::raft::{self, Mutant},
    prelude::*,
    streams::{self, BuildError, Event, GapReason, Origin, SendErrorKind},
    testing::{Cluster, FaultKind, LinkQuality, Plan, Sim, SimNode, eventually, run},
};
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(30);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(name = "owned.clock", key = env("OWNED_TEST_KEY"), size = 3)]
pub struct Clock(u64);

#[mosaik::state_machine]
impl Clock {
    #[command]
    fn set(&mut self, time: u64) -> u64 {
        self.0 = self.0.max(time);
        self.0
    }
}

/// Says who sent it, in which term, and the how manieth it was.
#[mosaik::stream(name = "owned.ticks", owner = Clock)]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick {
    pub by: u64,
    pub term: u64,
    pub number: u64,
}

#[mosaik::node]
pub struct Keeper {
    /// Snapshots every few seconds.
    #[mosaik(log_limit = "16KiB")]
    clock: Replica<Clock>,
    #[mosaik(default)]
    life: Life,
    ticks: Producer<Tick>,
}

/// One life of a keeper.
pub struct Life {
    id: u64,
    sent: u64,
}

impl Default for Life {
    fn default() -> Self {
        static LIVES: AtomicU64 = AtomicU64::new(0);
        Self { id: LIVES.fetch_add(1, Ordering::Relaxed), sent: 0 }
    }
}

#[mosaik::handlers]
impl Keeper {
    /// Three at a time: some of them in one entry.
    #[every("20ms", once = Clock, emit = ticks)]
    async fn tick(&mut self, fence: Fence) -> Vec<Tick> {
        // Frozen here, it sends in a term that is over.
        sleep(millis(5)).await;
        let next = |sent| Tick { by: self.life.id, term: fence.term(), number: sent };
        let ticks = (self.life.sent..self.life.sent + 3).map(next).collect();
        self.life.sent += 3;
        ticks
    }
}

#[mosaik::app(name = "owned-test", roles = [Keeper])]
pub struct Ticking;

/// What a consumer has received, checked as it comes.
#[derive(Default)]
struct Seen {
    items: BTreeMap<u64, (Tick, Fence)>,
    epoch: Option<u64>,
}

impl Seen {
    fn take(&mut self, item: Tick, origin: Origin) {
        let fence = origin.fence.expect("it is owned");
        assert_eq!(item.term, fence.term(), "sent under the leadership that committed it: {item:?} at {fence}");
        assert_eq!(*self.epoch.get_or_insert(origin.epoch), origin.epoch, "one cluster");
        if let Some((last, (_, before))) = self.items.last_key_value() {
            assert_eq!(origin.seq, last + 1, "no gap, no double, no reordering");
            assert!(fence >= *before, "{fence} after {before}");
        }
        self.items.insert(origin.seq, (item, fence));
    }

    /// Each life's ticks are in the order in which it sent them, each once.
    fn check(&self) {
        let mut last = BTreeMap::new();
        for (seq, (tick, _)) in &self.items {
            if let Some(before) = last.insert(tick.by, tick.number) {
                assert!(tick.number > before, "{seq}: {tick:?} after {before}");
            }
        }
    }
}

async fn receive(ticks: &mut Consumer<Tick>, seen: &mut Seen, until: u64) {
    while seen.items.last_key_value().is_none_or(|(last, _)| *last < until) {
        let (item, origin) = ticks.recv_from().await.expect("the network runs");
        seen.take(item, origin);
    }
}

async fn read(ticks: &mut Consumer<Tick>, seen: &mut Seen, until: u64) {
    timeout(SOON, receive(ticks, seen, until)).await.expect("goes on");
}

fn last(seen: &Seen) -> u64 {
    seen.items.last_key_value().map_or(0, |(last, _)| *last)
}

/// Consumers that are there from the start, that come later, that take one member with another one standing by, and at last one for each
/// member, which has what is kept there: all have the same.
async fn one_sequence(cluster: Cluster<Ticking>) {
    let (mut early, mut seen) = (cluster.tap::<Tick>(), Seen::default());
    let mut events = early.events();
    let sparing = Tick::consumer(cluster.observer()).with_fanin(1).with_standby(1);
    let (mut sparing, mut seen_sparing) = (sparing.build(), Seen::default());
    tokio::select! {
        biased;
        // Amid the faults there may be no majority for long.
        () = receive(&mut early, &mut seen, 30) => {}
        () = cluster.calm() => {}
    }
    let (mut late, mut seen_late) = (cluster.tap::<Tick>(), Seen::default());
    loop {
        let (taken, by) = tokio::select! {
            biased;
            next = early.recv_from() => (next, &mut seen),
            next = late.recv_from() => (next, &mut seen_late),
            next = sparing.recv_from() => (next, &mut seen_sparing),
            () = cluster.calm() => break,
        };
        let (item, origin) = taken.expect("the network runs");
        by.take(item, origin);
    }
    cluster.converged().await.expect("as declared after the faults");
    let until = last(&seen) + 60;
    read(&mut early, &mut seen, until).await;
    for (consumer, seen) in [(&mut late, &mut seen_late), (&mut sparing, &mut seen_sparing)] {
        read(consumer, seen, until).await;
    }
    seen.check();
    assert!(eventually(SOON, || early.producers().count() == 3).await, "three members serve");
    let members: Vec<_> = early.producers().map(|it| it.peer().id()).collect();
    let mut all = vec![seen_late, seen_sparing];
    for member in members {
        let of_one = Tick::consumer(cluster.observer()).subscribe_if(move |peer| peer.id() == member);
        let (mut of_one, mut seen) = (of_one.build(), Seen::default());
        read(&mut of_one, &mut seen, until).await;
        all.push(seen);
    }
    for other in &all {
        assert_eq!(
            other.items.first_key_value().map(|(first, _)| *first),
            Some(0),
            "from the beginning, which is kept"
        );
        for (seq, item) in &other.items {
            if let Some(ours) = seen.items.get(seq) {
                assert_eq!(item, ours, "{seq}");
            }
        }
    }
    while let Some(Some(event)) = events.recv().now_or_never() {
        assert!(!matches!(event, Event::Gap { .. } | Event::Restarted { .. }), "{event:?}");
    }
    assert_eq!(early.stats().gaps(), 0);
}

const fn plan(seeds: u64) -> Plan {
    let faults = &[FaultKind::Pause, FaultKind::Partition];
    Plan { name: "basic::owned::frozen_and_cut_off", seeds, faults, roles: &[("keeper", 3)], durable: false }
}

const fn killing(seeds: u64) -> Plan {
    let faults = &[FaultKind::Kill, FaultKind::Partition, FaultKind::Pause];
    Plan { name: "basic::owned::killed", faults, durable: true, ..plan(seeds) }
}

fn seeds(default: u64) -> u64 {
    std::env::var("OWNED_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `OWNED_SEEDS` (default 20) seeds.
#[test]
fn frozen_and_cut_off() {
    run(&plan(seeds(20)), one_sequence);
}

/// `OWNED_SEEDS` (default 10) seeds, with members on disk.
#[test]
fn killed() {
    run(&killing(seeds(10)), one_sequence);
}

#[test]
#[ignore = "takes minutes: 500 seeds"]
fn five_hundred_seeds() {
    run(&plan(seeds(250)), one_sequence);
    run(&killing(seeds(250)), one_sequence);
}

fn is_found(plan: &Plan) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(plan, one_sequence))).is_err()
}

/// Whether some seed shows a bug that is planted in the group.
fn finds(mutant: Mutant, plan: &Plan) -> bool {
    let before = raft::Switch::plant(mutant).set_for_this_thread();
    let found = is_found(plan);
    before.set_for_this_thread();
    found
}

/// Whether some seed shows a bug that is planted in consumers.
fn finds_at_consumers(mutant: streams::Mutant, plan: &Plan) -> bool {
    let before = streams::Switch::set_for_this_thread(Some(mutant));
    let found = is_found(plan);
    streams::Switch::set_for_this_thread(before);
    found
}

/// Items of a leadership that was over are committed.
#[test]
fn an_ignored_fence_is_found() {
    assert!(finds(Mutant::FenceIgnored, &plan(200)));
}

/// Without windows in snapshots a member that comes back gives other numbers to the same items.
#[test]
fn a_snapshot_without_windows_is_found() {
    assert!(finds(Mutant::WindowsNotInSnapshot, &Plan { faults: &[FaultKind::Kill], ..killing(50) }));
}

/// Going over to another member, a consumer asks for the item behind the next one.
#[test]
fn a_hand_over_that_loses_is_found() {
    assert!(finds_at_consumers(streams::Mutant::HandOverLoses, &plan(10)));
}

/// What two members bring is handed on twice.
#[test]
fn a_hand_over_that_repeats_is_found() {
    assert!(finds_at_consumers(streams::Mutant::HandOverRepeats, &plan(10)));
}

/// Three members by hand, the second half of each pair its producer.
async fn members(sim: &Sim) -> Vec<(Network, Group<NoOp>, Producer<u64>)> {
    let mut members = Vec::new();
    for n in 0..3 {
        let network = sim.node(&format!("n{n}")).restart("owned").build().await.expect("starts");
        let key = GroupKey::from_secret("a key for an owned stream");
        let group = network.groups().with_key(key).with_state_machine(NoOp).with_size(3).join().await.expect("joins");
        let numbers = network.streams().producer::<u64>().owned_by(&group).build().expect("is new");
        members.push((network, group, numbers));
    }
    assert!(eventually(SOON, || members.iter().any(|(_, group, _)| group.fence().is_some())).await);
    members
}

async fn reader(sim: &Sim, name: &str) -> (SimNode, Network) {
    let node = sim.node(name);
    let network = node.restart("owned").build().await.expect("starts");
    (node, network)
}

/// By hand, without roles: followers refuse, the leader learns what became of each item, and a consumer has all.
#[test]
fn the_leader_sends_and_the_others_say_who_does_not() {
    Sim::run(9, |sim| async move {
        let members = members(&sim).await;
        let (_, network) = reader(&sim, "reader").await;
        let mut numbers = network.streams().consumer::<u64>().owned().build();
        let leader = members.iter().position(|(_, group, _)| group.fence().is_some()).expect("there is one");
        let other = &members[(leader + 1) % 3].2;
        assert_eq!(other.try_send(1).expect_err("does not lead").kind(), &SendErrorKind::NotLeader);
        assert_eq!(other.send(1).await.expect_err("does not lead").kind(), &SendErrorKind::NotLeader);
        let (network, group, sender) = &members[leader];
        assert!(eventually(SOON, || numbers.producers().count() == 3).await);
        for n in 0..1000 {
            sender.send(n).await.expect("it leads");
        }
        let committed = sender.committed().await;
        assert_eq!((committed.committed, committed.all()), (1000, 1000));
        for n in 0..1000 {
            let (number, origin) = timeout(SOON, numbers.recv_from()).await.expect("comes").expect("runs");
            assert_eq!((number, origin.seq), (n, n));
            assert_eq!(origin.fence.map(|fence| fence.term()), group.fence().map(|fence| fence.term()));
        }
        assert_eq!((numbers.stats().datums(), numbers.stats().gaps()), (1000, 0));
        let blobs = network.streams().producer::<Vec<u8>>().with_stream_id("blobs").owned_by(group).build();
        let blobs = blobs.expect("is new");
        let error = blobs.send(vec![0_u8; 600 << 10]).await.expect_err("too large");
        assert!(matches!(error.kind(), SendErrorKind::TooLargeForGroup { size } if *size > 600 << 10), "{error}");
        blobs.send(vec![0_u8; 500 << 10]).await.expect("is not too large");
        assert_eq!(blobs.committed().await.committed, 1);
    });
}

/// One that was away for less than the window has everything; one that was away for longer is told what it missed.
#[test]
fn behind_the_window_is_a_gap_that_is_counted() {
    for (blobs, gaps) in [(10_u64, false), (60, true)] {
        Sim::run(4, |sim| async move {
            let members = members(&sim).await;
            let make = |(network, group, _): &(Network, Group<NoOp>, _)| {
                let blobs = network.streams().producer::<Vec<u8>>().with_stream_id("blobs").owned_by(group);
                blobs.build().expect("is new")
            };
            let producers: Vec<_> = members.iter().map(make).collect();
            let (node, network) = reader(&sim, "reader").await;
            let mut consumer = network.streams().consumer::<Vec<u8>>().with_stream_id("blobs").owned().build();
            let mut events = consumer.events();
            assert!(eventually(SOON, || consumer.producers().count() == 3).await);
            let leader = members.iter().position(|(_, group, _)| group.fence().is_some()).expect("there is one");
            producers[leader].send(vec![0]).await.expect("it leads");
            timeout(SOON, consumer.recv()).await.expect("comes");
            let others: Vec<_> = (0..3).map(|n| sim.node(&format!("n{n}"))).collect();
            sim.partition(&[node], &others);
            for n in 0..blobs {
                producers[leader].send(vec![u8::try_from(n).expect("few"); 300 << 10]).await.expect("it leads");
            }
            assert_eq!(producers[leader].committed().await.committed, blobs + 1);
            assert!(eventually(SOON, || consumer.producers().count() == 0).await);
            sim.heal();
            let mut seen = Vec::new();
            while seen.last() != Some(&blobs) {
                let (_, origin) = timeout(SOON, consumer.recv_from()).await.expect("comes").expect("runs");
                seen.push(origin.seq);
            }
            let missed = seen[0] - 1;
            assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seen:?}");
            assert_eq!((missed > 0, consumer.stats().drops()), (gaps, missed));
            assert_eq!(consumer.stats().gaps(), u64::from(gaps));
            assert!(seen.len() >= 10, "the window is kept");
            let mut told = Vec::new();
            while let Some(Some(event)) = events.recv().now_or_never() {
                if let Event::Gap { from, to, reason, .. } = event {
                    told.push((from, to, reason));
                }
            }
            let expected = if gaps { vec![(1, missed + 1, GapReason::Reconnected)] } else { vec![] };
            assert_eq!(told, expected);
        });
    }
}

/// Whoever does not say that a group owns the stream is told so, and the other way round.
#[test]
fn an_end_that_does_not_know_the_owner_is_told() {
    Sim::run(5, |sim| async move {
        let _members = members(&sim).await;
        let (_, network) = reader(&sim, "reader").await;
        let numbers = network.streams().consumer::<u64>().build();
        let mut events = numbers.events();
        let told = async {
            loop {
                if let Event::Incompatible { what, ours, theirs, .. } = events.recv().await.expect("runs") {
                    return (what, ours, theirs);
                }
            }
        };
        let (what, ours, theirs) = timeout(SOON, told).await.expect("is told");
        assert_eq!((what.as_str(), theirs.as_str()), ("owner", "owned by a group"));
        assert!(ours.contains("owned()"), "says what to do: {ours}");

        let (_, other) = reader(&sim, "other").await;
        let _plain = other.streams().produce::<u32>();
        let words = network.streams().consumer::<u32>().owned().build();
        let mut events = words.events();
        let told = async {
            while !matches!(events.recv().await, Some(Event::Incompatible { what, .. }) if what == "owner") {}
        };
        timeout(SOON, told).await.expect("is told");

        // A declared type knows its owner, also by hand.
        let error = network.streams().producer::<Tick>().build().expect_err("it has an owner");
        assert!(matches!(&error, BuildError::NoOwner { group: "owned.clock", .. }), "{error}");
        assert!(error.to_string().contains("owned_by"), "{error}");
    });
}

/// On its way to a consumer an item of an owned stream makes one round trip more than one of another stream: to a majority and back.
#[test]
fn an_item_takes_one_round_trip_longer() {
    const ITEMS: usize = 101;
    const ONE_WAY: Duration = millis(10);
    Sim::run(11, |sim| async move {
        sim.default_link(LinkQuality::lan().with_latency(ONE_WAY));
        let members = members(&sim).await;
        let (_, network) = reader(&sim, "reader").await;
        let mut numbers = network.streams().consumer::<u64>().owned().build();
        let mut plain = network.streams().consumer::<u64>().with_stream_id("plain").build();
        assert!(eventually(SOON, || numbers.producers().count() == 3).await);
        let (leader, _, sender) = members.iter().find(|(_, group, _)| group.fence().is_some()).expect("one leads");
        let other = leader.streams().producer::<u64>().with_stream_id("plain").build().expect("is new");
        assert!(eventually(SOON, || plain.producers().count() == 1).await);
        let (mut owned, mut direct) = (Vec::new(), Vec::new());
        for n in 0..ITEMS as u64 {
            for (producer, consumer, delays) in [(sender, &mut numbers, &mut owned), (&other, &mut plain, &mut direct)]
            {
                let sent = Instant::now();
                producer.send(n).await.expect("is sent");
                timeout(SOON, consumer.recv()).await.expect("comes").expect("runs");
                delays.push(sent.elapsed());
                // Nothing is on its way any more.
                sleep(millis(500 + n)).await;
            }
        }
        let [owned, direct] = [owned, direct].map(|mut delays| {
            delays.sort_unstable();
            delays[ITEMS / 2]
        });
        let added = owned.saturating_sub(direct);
        let round_trips = added.as_secs_f64() / (2.0 * ONE_WAY.as_secs_f64());
        println!("{owned:?} instead of {direct:?}: {round_trips} round trips more");
        assert!(round_trips <= 1.2, "{owned:?} instead of {direct:?}");
    });
}

/// Whoever looks at the app's declarations sees who owns what.
#[test]
fn the_graph_shows_the_owner() {
    let graph = Ticking::GRAPH;
    assert!(graph.to_json().contains("\"owner\":\"owned.clock\""), "{}", graph.to_json());
    assert!(
        graph.to_listing().contains("produces  owned.ticks (Tick), owned by owned.clock"),
        "{}",
        graph.to_listing()
    );
    assert!(graph.to_mermaid().contains("g0 -. owns .-> s0"), "{}", graph.to_mermaid());
    assert!(graph.to_dot().contains("g0 -> s0 [style=dotted, label=owns];"), "{}", graph.to_dot());
}
