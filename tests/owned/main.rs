//! A stream that a group owns, from outside: its three members are processes with data directories on this machine, and the one that
//! leads is killed and frozen while it sends, or all are killed. Whatever happens, each consumer has one sequence without gaps, doubles and
//! reordering, which holds all that was acknowledged and nothing that was refused.
//!
//! By default a few faults and items are part of `cargo test`. More of them:
//!
//! ```text
//! OWNED_KILLS=200 OWNED_FREEZES=200 OWNED_RATE=20000 cargo test -p mosaik-tests --test owned -- --nocapture
//! ```

#![expect(clippy::disallowed_methods, reason = "processes live in real time")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod members;
mod rate;
mod sequence;

use std::{
    env, fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::FutureExt;
use members::{Fate, Members};
use mosaik::{
    NetworkId, PeerId,
    prelude::*,
    streams::{DisconnectReason, Event},
};
use mosaik_tests::feed::{Item, NETWORK, STREAM};
use sequence::Sequence;
use tokio::runtime::Runtime;

/// For what has no promise of its own.
const SOON: Duration = Duration::from_mins(1);
/// From the election of a leader to its first item at a consumer, on a machine with nothing else to do.
const WANTED: Duration = Duration::from_millis(300);
/// An outage of which it is said when it was.
const LONG: Duration = Duration::from_secs(2);
/// The same as `WANTED`, on any machine.
const NEXT_ITEM: Duration = Duration::from_secs(3);

/// A promised time, stretched by how much more the machine has to do than it can.
fn promised(time: Duration) -> Duration {
    let load = fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse().ok());
    let cores = thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    time.mul_f64((load.unwrap_or(0.0) / cores).clamp(1.0, 20.0))
}

fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

fn pause(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// What is known of one consumer.
#[derive(Default)]
struct Known {
    sequence: Sequence,
    wrong: Option<String>,
}

/// A consumer with a node of its own.
struct Reader(Arc<Mutex<Known>>);

/// Whom it takes.
#[derive(Clone, Copy)]
enum Takes {
    /// Every member.
    All,
    /// One, while another one stands by.
    OneOfTwo,
    /// This one.
    Only(PeerId),
}

impl Reader {
    fn start(runtime: &Runtime, contacts: Vec<String>, takes: Takes) -> Self {
        let known: Arc<Mutex<Known>> = Arc::default();
        let reader = Self(known.clone());
        runtime.spawn(async move {
            let wrong = read(&known, contacts, takes).await;
            known.lock().unwrap_or_else(PoisonError::into_inner).wrong = Some(wrong);
        });
        reader
    }

    /// What it has received by now, all of it right.
    fn seen(&self) -> MutexGuard<'_, Known> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(known.wrong, None);
        known
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&Sequence) -> bool) {
        wait_for(what, || holds(&self.seen().sequence));
    }
}

/// Reads until something is wrong; what.
async fn read(known: &Mutex<Known>, contacts: Vec<String>, takes: Takes) -> String {
    let mut builder = Network::builder(NetworkId::from(NETWORK)).with_listen("127.0.0.1:0".parse().unwrap());
    for contact in contacts {
        builder = builder.with_bootstrap(contact.as_str());
    }
    let network = builder.build().await.expect("starts");
    let items = network.streams().consumer::<[u8; 32]>().with_stream_id(STREAM).owned();
    let mut items = match takes {
        Takes::All => items.build(),
        Takes::OneOfTwo => items.with_fanin(1).with_standby(1).build(),
        Takes::Only(member) => items.subscribe_if(move |peer| peer.id() == member).build(),
    };
    let mut events = items.events();
    loop {
        let Some((item, origin)) = items.recv_from().await else { return String::from("it has ended") };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(wrong) = known.sequence.take(Item::from_bytes(&item), origin, wall_clock()) {
            return wrong;
        }
        drop(known);
        while let Some(Some(event)) = events.recv().now_or_never() {
            let fenced = matches!(event, Event::Disconnected { reason: DisconnectReason::Fenced { .. }, .. });
            if fenced || matches!(event, Event::Gap { .. } | Event::Restarted { .. }) {
                return format!("{event:?}");
            }
        }
    }
}

/// Members that send, and two consumers.
struct Trial {
    runtime: Runtime,
    members: Members,
    readers: [Reader; 2],
    /// From the fault, and from the election that followed, to the next item.
    outages: Vec<(Duration, Duration)>,
}

impl Trial {
    fn new(rate: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut members = Members::new(rate);
        let readers = [Takes::All, Takes::OneOfTwo].map(|takes| Reader::start(&runtime, members.contacts(), takes));
        (0..3).for_each(|n| members.spawn(n));
        (0..3).for_each(|n| members.wait_caught_up(n));
        for reader in &readers {
            reader.wait_until("the first items", |seen| seen.next() > 0);
        }
        Self { runtime, members, readers, outages: Vec::new() }
    }

    /// Waits for an item that was received after now by each consumer.
    fn wait_for_items(&self) {
        let now = wall_clock();
        for reader in &self.readers {
            reader.wait_until("items go on", |seen| seen.last_at() > now);
        }
    }

    /// Waits for the next leader's first item, after a fault at this time.
    fn wait_for_successor(&mut self, term: u64, fault: Duration) {
        self.readers[0].wait_until("items of another leader", |seen| seen.first_after(term).is_some());
        let item = self.readers[0].seen().sequence.first_after(term).unwrap();
        let elected = self.members.elected_before(item).unwrap_or(fault);
        let (outage, next) = (item.saturating_sub(fault), item.saturating_sub(elected));
        if next > WANTED || outage > LONG {
            println!("outage {} at {fault:?}: {outage:?}, of which {next:?} behind the election", self.outages.len());
        }
        self.outages.push((outage, next));
    }

    /// SIGKILL of the leader; it comes back when another one sends.
    fn kill_leader(&mut self) {
        let leader = self.members.leader();
        let (term, at) = (self.readers[0].seen().sequence.term(), wall_clock());
        self.members.kill(leader);
        self.wait_for_successor(term, at);
        self.members.spawn(leader);
        self.members.wait_caught_up(leader);
        self.wait_for_items();
    }

    /// SIGKILL of all members at once; what they had comes back from their directories.
    fn kill_all(&mut self) {
        let (term, at) = (self.readers[0].seen().sequence.term(), wall_clock());
        (0..3).for_each(|n| self.members.kill(n));
        (0..3).for_each(|n| self.members.spawn(n));
        self.wait_for_successor(term, at);
        (0..3).for_each(|n| self.members.wait_caught_up(n));
        self.wait_for_items();
    }

    /// SIGSTOP of the leader for so long.
    fn freeze_leader(&mut self, time: Duration) {
        let leader = self.members.leader();
        let (term, at) = (self.readers[0].seen().sequence.term(), wall_clock());
        self.members.signal(leader, "STOP");
        self.wait_for_successor(term, at);
        pause(time.saturating_sub(wall_clock().saturating_sub(at)));
        self.members.signal(leader, "CONT");
        // Until it knows that it does not lead any more.
        self.members.leader();
        self.members.wait_caught_up(leader);
        self.wait_for_items();
    }

    /// Nobody sends any more: all consumers have the same, with all that was acknowledged.
    fn finish(mut self) {
        self.members.quiet();
        let Self { runtime, members, readers: [all, sparing], outages } = self;
        let settled = std::mem::take(&mut members.told().settled);
        let (mut counts, mut committed) = ([0; 3], Vec::new());
        for (life, ranges) in &settled {
            for (numbers, fate) in ranges {
                counts[*fate as usize] += numbers.end - numbers.start;
                if *fate == Fate::Committed {
                    committed.push((*life, numbers));
                }
            }
        }
        let has_all = |seen: &Sequence| {
            committed.iter().all(|(life, numbers)| seen.received(*life, numbers) == numbers.end - numbers.start)
        };
        all.wait_until("all that was acknowledged", has_all);
        // The last leader knows what became of its last item, so nothing comes behind it.
        let end = all.seen().sequence.next();
        sparing.wait_until("what the other one has", |seen| seen.next() == end);
        let all = &all.seen().sequence;
        all.assert_equals(&sparing.seen().sequence);
        for (life, ranges) in &settled {
            for (numbers, _) in ranges.iter().filter(|(_, fate)| *fate == Fate::Refused) {
                assert_eq!(all.received(*life, numbers), 0, "of life {life} {numbers:?} were refused");
            }
        }
        for member in members.ids() {
            let one = Reader::start(&runtime, members.contacts(), Takes::Only(member));
            one.wait_until("what one member has", |seen| seen.next() == end);
            one.seen().sequence.assert_ends_alike(all);
        }
        let [committed, refused, unknown] = counts;
        println!(
            "{end} items; their senders know that {committed} were committed and {refused} refused, not of {unknown}"
        );
        println!("from `send` to receipt: median {:?}, of 99 in 100 below {:?}", all.delay(50), all.delay(99));
        let of = |pick: fn(&(Duration, Duration)) -> Duration| outages.iter().map(pick).collect::<Vec<_>>();
        report("from the fault to the next item", of(|it| it.0));
        let longest = report("from the leader's election to its first item", of(|it| it.1));
        assert!(longest < promised(NEXT_ITEM), "{longest:?}");
    }
}

/// Prints how these times are distributed; the longest.
fn report(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let [median, most, longest] = [50, 90, 100].map(|percent| at(percent).copied().unwrap_or_default());
    println!("{what}: {} times, median {median:?}, nine of ten below {most:?}, longest {longest:?}", times.len());
    longest
}

/// `OWNED_KILLS` and `OWNED_FREEZES` of the leader (default 2 each) in turn with `OWNED_ALL` kills of all members (default 1), under
/// `OWNED_RATE` (default 2,000) items per second.
#[test]
fn one_sequence_through_killed_and_frozen_leaders() {
    let [kills, freezes] = ["OWNED_KILLS", "OWNED_FREEZES"].map(|name| number(name, 2));
    let all = number("OWNED_ALL", 1);
    let mut trial = Trial::new(number("OWNED_RATE", 2000));
    for round in 0..kills.max(freezes).max(all) {
        if round < kills {
            trial.kill_leader();
        }
        if round < freezes {
            // From 1 to 5 s.
            trial.freeze_leader(Duration::from_millis(1000 + round * 2472 % 4001));
        }
        if round < all {
            trial.kill_all();
        }
        if (round + 1) % 10 == 0 {
            let next = trial.readers[0].seen().sequence.next();
            println!("{} rounds, {next} items", round + 1);
        }
    }
    trial.finish();
}
