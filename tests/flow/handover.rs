//! Several producers of one sequence, and a consumer that takes one of them while others stand by: producers are killed, frozen, late
//! and behind, and what the consumer hands on is the sequence, each item once and in order.
//!
//! Links carry what was written at once, or nothing while their producer is frozen; a killed producer is seen at once, a frozen one only
//! by its silence. Times are milliseconds.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    streams::{
        core::{
            SubId,
            admission::{Admission, Answer},
            choice::{Candidate, Choice, HOLD, Value},
            frames::{Frame, FrameReader},
            key::Key,
            lag::Limit,
            log::{Log, Settings},
            mutants::{Mutant, Switch},
            progress::{Missed, Progress, Resume, Step},
            union::{Trail, Union},
        },
        limits::OnLag,
    },
    swarm::number,
};

/// Silence after which a producer is late.
const DEADLINE: u64 = 500;
/// For how long items may trail a standby's heads.
const BEHIND: u64 = 400;
/// A switch may take so long after the failure could be seen.
const SLACK: u64 = 50;
/// A step of time.
const TICK: u64 = 10;

struct Producer {
    /// `None` while it is killed.
    log: Option<Log>,
    epoch: u64,
    /// The first number of its run.
    first: u64,
    frozen: bool,
    /// It lives and takes nothing of the source.
    behind: bool,
    rtt: u64,
}

struct Subscription {
    id: SubId,
    heads: bool,
    epoch: u64,
    progress: Progress,
    pipe: VecDeque<Bytes>,
    reader: FrameReader,
    /// The head that was told last, and when something new came last.
    head: u64,
    heard: u64,
}

pub struct World {
    rng: SmallRng,
    now: u64,
    source: u64,
    producers: Vec<Producer>,
    choice: Choice<u8>,
    union: Union,
    trails: BTreeMap<u8, Trail>,
    subscriptions: BTreeMap<u8, Subscription>,
    next_id: SubId,
    mutant: Option<Mutant>,
    /// What was handed on: everything before, and the number of items and of those missed.
    at: Option<u64>,
    pub delivered: u64,
    pub missed: u64,
    pub switches: u64,
    /// When it last got an item.
    heard: u64,
}

impl World {
    pub fn new(producers: u64, standby: usize, mutant: Option<Mutant>, seed: u64) -> Self {
        let switch = Switch::plant(mutant);
        let mut world = Self {
            rng: SmallRng::seed_from_u64(seed),
            now: 1000,
            source: 0,
            producers: Vec::new(),
            choice: Choice::new(1, standby).planted(switch),
            union: Union::with(switch),
            trails: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            next_id: 0,
            mutant,
            at: None,
            delivered: 0,
            missed: 0,
            switches: 0,
            heard: 1000,
        };
        for n in 0..producers {
            let log = Some(world.log());
            let (epoch, first, frozen, behind, rtt) = (n + 1, 0, false, false, 10 * (n + 1));
            world.producers.push(Producer { log, epoch, first, frozen, behind, rtt });
        }
        world
    }

    fn log(&self) -> Log {
        let (limit, ring) = (Limit { items: 1 << 20, bytes: 1 << 30 }, Limit { items: 1 << 20, bytes: 1 << 30 });
        let switch = Switch::plant(self.mutant);
        Log::new(Settings { policy: OnLag::Disconnect, limit, ring, lifespan: None, keyed: false, switch })
    }

    /// So many items at the source. Producers take them with the next tick.
    pub fn produce(&mut self, items: u64) {
        self.source += items;
    }

    pub fn kill(&mut self, which: usize) {
        self.producers[which].log = None;
        self.subscriptions.remove(&(which as u8));
        self.trails.remove(&(which as u8));
    }

    /// It begins anew where the source is.
    pub fn restart(&mut self, which: usize) {
        let mut log = self.log();
        log.begin_at(self.source);
        let producer = &mut self.producers[which];
        if producer.log.is_none() {
            producer.epoch += 100;
            (producer.log, producer.first, producer.frozen, producer.behind) = (Some(log), self.source, false, false);
        }
    }

    fn taken(&self) -> Option<u8> {
        (0..self.producers.len() as u8).find(|peer| self.choice.takes(peer))
    }

    /// Time goes on by a tick, and everything that can happens.
    pub fn tick(&mut self) {
        self.now += TICK;
        self.follow();
        self.deliver();
        self.decide();
        self.deliver();
        let active = self.subscriptions.values().filter(|subscription| !subscription.heads).count();
        assert!(active <= 1, "{active} producers are active");
    }

    /// Producers take what the source has.
    fn follow(&mut self) {
        for producer in self.producers.iter_mut().filter(|it| !it.frozen && !it.behind) {
            let Some(log) = &mut producer.log else { continue };
            while log.head() < self.source {
                let seq = log.head();
                log.append(&[&8_u32.to_le_bytes()[..], &seq.to_le_bytes()].concat(), &mut Key::default());
            }
        }
    }

    fn decide(&mut self) {
        let (had, now) = (self.union.next(), Duration::from_millis(self.now));
        let limit = Duration::from_millis(BEHIND);
        let trails = self.trails.values_mut().any(|it| it.look(had, now).is_some_and(|since| now >= since + limit));
        let mut candidates = Vec::new();
        for (peer, producer) in (0_u8..).zip(&self.producers) {
            let subscription = self.subscriptions.get(&peer);
            let late = subscription.is_some_and(|it| self.now >= it.heard + DEADLINE);
            candidates.push(Candidate {
                peer,
                values: vec![Value::Latency(Some(Duration::from_millis(producer.rtt)))],
                lot: peer.into(),
                flows: subscription.is_some_and(|it| !it.heads),
                heads: subscription.is_some_and(|it| it.heads),
                fails: late || producer.log.is_none() || (trails && self.choice.takes(&peer)),
            });
        }
        let known: Vec<_> =
            candidates.into_iter().filter(|it| self.producers[usize::from(it.peer)].log.is_some()).collect();
        self.switches += self.choice.decide(&known, self.now * 1000).len() as u64;
        for peer in 0..self.producers.len() as u8 {
            let wanted = match () {
                () if self.choice.takes(&peer) => Some(false),
                () if self.choice.stands_by(&peer) => Some(true),
                () => None,
            };
            let has = self.subscriptions.get(&peer).map(|subscription| subscription.heads);
            if has == wanted || self.producers[usize::from(peer)].log.is_none() {
                continue;
            }
            self.end(peer);
            if let Some(heads) = wanted
                && !self.producers[usize::from(peer)].frozen
            {
                self.subscribe(peer, heads);
            }
        }
    }

    fn end(&mut self, peer: u8) {
        self.trails.remove(&peer);
        if let Some(subscription) = self.subscriptions.remove(&peer)
            && let Some(log) = &mut self.producers[usize::from(peer)].log
        {
            log.unsubscribe(subscription.id);
            if log.subscribers() == 0 {
                log.unclaimed(false);
            }
        }
    }

    fn subscribe(&mut self, peer: u8, heads: bool) {
        let Producer { log: Some(log), epoch, .. } = &mut self.producers[usize::from(peer)] else { return };
        let (id, epoch) = (self.next_id, *epoch);
        self.next_id += 1;
        let from = self.union.next();
        let mut progress = from.map_or_else(Progress::default, |next| Resume { epoch, next }.into());
        let next = if heads { log.head() } else { log.join(id, from) };
        if !heads {
            self.union.begins(next);
            if self.at.is_none() {
                self.at = Some(next);
            }
            let missed = progress.joined(epoch, next, false).missed.and_then(|missed| self.union.missed(missed));
            self.gap(peer, missed);
        }
        let (pipe, reader) = (VecDeque::new(), FrameReader::default());
        let subscription = Subscription { id, heads, epoch, progress, pipe, reader, head: 0, heard: self.now };
        self.subscriptions.insert(peer, subscription);
    }

    /// What is written arrives.
    fn deliver(&mut self) {
        let peers: Vec<u8> = self.subscriptions.keys().copied().collect();
        for peer in peers {
            let producer = &mut self.producers[usize::from(peer)];
            let (Some(log), false) = (&mut producer.log, producer.frozen) else { continue };
            let Some(subscription) = self.subscriptions.get_mut(&peer) else { continue };
            if subscription.heads {
                let head = log.head();
                if head > subscription.head {
                    (subscription.head, subscription.heard) = (head, self.now);
                }
                let now = Duration::from_millis(self.now);
                self.trails.entry(peer).or_default().head(head, self.union.next(), now);
                continue;
            }
            while let Some(taken) = log.take(subscription.id, 1 << 16) {
                subscription.pipe.extend(taken.header());
                subscription.pipe.extend(taken.chunks.iter().cloned());
                log.wrote(subscription.id, taken.bytes);
            }
            while let Some(bytes) = subscription.pipe.pop_front() {
                subscription.reader.push(&bytes);
            }
            let mut frames = Vec::new();
            while let Some(frame) = subscription.reader.next_frame().expect("valid") {
                frames.push(frame);
            }
            for frame in frames {
                let Frame::Items { first, count, data } = frame else { panic!("{frame:?}") };
                let subscription = self.subscriptions.get_mut(&peer).expect("there");
                subscription.heard = self.now;
                assert_eq!(subscription.epoch, self.producers[usize::from(peer)].epoch);
                let step = subscription.progress.received(first, count.into());
                let step = self.union.received(first, count.into(), step);
                self.gap(peer, step.missed);
                for (n, item) in data.chunks(12).enumerate().skip(usize::try_from(step.skip).unwrap()) {
                    let seq = first + n as u64;
                    assert_eq!(item[4..], seq.to_le_bytes(), "another item is {seq}");
                    assert_eq!(self.at, Some(seq), "item {seq} comes twice, out of order or after an untold gap");
                    self.at = Some(seq + 1);
                    self.delivered += 1;
                    self.heard = self.now;
                }
            }
        }
    }

    fn gap(&mut self, peer: u8, missed: Option<Missed>) {
        let Some(Missed { from, to, .. }) = missed else { return };
        assert_eq!(self.at, Some(from), "a gap that does not begin where the last item or gap ended");
        let first = self.producers[usize::from(peer)].first;
        assert!(
            from < to && to <= first,
            "{from}..{to} is told as missed, and producer {peer} has all from {first} on"
        );
        self.at = Some(to);
        self.missed += to - from;
    }

    /// Everybody is well; then everything must have come.
    pub fn rest(&mut self) {
        for which in 0..self.producers.len() {
            self.restart(which);
            (self.producers[which].frozen, self.producers[which].behind) = (false, false);
        }
        for _ in 0..3000 {
            self.produce(1);
            self.tick();
        }
        assert_eq!(self.at, Some(self.source), "not told of everything at rest");
    }

    pub fn step(&mut self) {
        let which = self.rng.random_range(0..self.producers.len());
        match self.rng.random_range(0..1000_u32) {
            0..3 => self.kill(which),
            3..10 => self.restart(which),
            10..14 => self.producers[which].frozen = true,
            14..24 => self.producers[which].frozen = false,
            24..28 => self.producers[which].behind = true,
            28..38 => self.producers[which].behind = false,
            38..60 => {
                let rtt = self.rng.random_range(1..100);
                self.producers[which].rtt = rtt;
            }
            60..400 => {
                let items = self.rng.random_range(1..20);
                self.produce(items);
            }
            _ => self.tick(),
        }
    }

    /// Runs for so long, with an item each tick.
    fn run(&mut self, millis: u64) {
        for _ in 0..millis / TICK {
            self.produce(1);
            self.tick();
        }
    }
}

type Schedule = fn(Option<Mutant>);

/// Every planted bug of switching, and the schedule that kills it.
pub const KILLS: &[(Mutant, Schedule)] = &[
    (Mutant::HandOverLoses, a_killed_producer_is_followed_at_the_next_item),
    (Mutant::HandOverRepeats, what_two_producers_send_comes_once),
    (Mutant::BothActive, a_frozen_producer_is_replaced_when_it_is_late),
    (Mutant::FailedStaysTaken, one_that_is_behind_is_replaced),
    (Mutant::StandbyNotPreferred, one_that_stands_by_goes_before_one_that_only_seems_better),
    (Mutant::NoHysteresis, noise_switches_nothing),
    (Mutant::StandbyTakesPlace, who_stands_by_takes_no_place),
];

fn a_killed_producer_is_followed_at_the_next_item(mutant: Option<Mutant>) {
    let mut world = World::new(3, 1, mutant, 0);
    world.run(2000);
    assert_eq!((world.taken(), world.subscriptions.len()), (Some(0), 2));
    world.kill(0);
    world.run(SLACK);
    assert!(world.now - world.heard <= SLACK && world.taken() == Some(1));
    world.run(1000);
    assert_eq!((world.missed, world.switches, world.at), (0, 1, Some(world.source)));
}

fn a_frozen_producer_is_replaced_when_it_is_late(mutant: Option<Mutant>) {
    let mut world = World::new(2, 1, mutant, 0);
    world.run(2000);
    world.producers[0].frozen = true;
    world.run(BEHIND.min(DEADLINE) + SLACK);
    assert_eq!((world.taken(), world.at, world.missed), (Some(1), Some(world.source), 0));
    world.producers[0].frozen = false;
    world.run(1000);
    assert_eq!((world.at, world.missed), (Some(world.source), 0));
}

fn one_that_is_behind_is_replaced(mutant: Option<Mutant>) {
    let mut world = World::new(2, 1, mutant, 0);
    world.run(2000);
    world.producers[0].behind = true;
    world.run(BEHIND + SLACK);
    assert_eq!((world.taken(), world.at, world.missed), (Some(1), Some(world.source), 0));
}

/// A source that is silent makes everybody late, and moves nobody.
#[test]
fn a_silent_source_switches_nothing() {
    let mut world = World::new(2, 1, None, 0);
    world.run(2000);
    (0..1000).for_each(|_| world.tick());
    assert_eq!(world.switches, 0);
}

/// The one that is left thaws, and both send for a moment.
fn what_two_producers_send_comes_once(mutant: Option<Mutant>) {
    let mut world = World::new(2, 1, mutant, 0);
    world.run(2000);
    let next = world.union.next().expect("items came");
    // The other one is told to send from a while ago, as when it was asked before the last items came.
    let step = world.union.received(next - 5, 6, Step::default());
    assert_eq!(step.skip, 5, "they were handed on");
}

fn one_that_stands_by_goes_before_one_that_only_seems_better(mutant: Option<Mutant>) {
    let mut world = World::new(3, 1, mutant, 0);
    world.run(11_000);
    assert!(world.choice.stands_by(&1));
    world.producers[1].rtt = 60; // it stays the one that stands by
    world.producers[2].frozen = true; // nearer, and nobody knows that it is frozen
    world.run(100);
    world.kill(0);
    world.run(SLACK);
    assert_eq!((world.taken(), world.at), (Some(1), Some(world.source)));
}

/// An hour in which round trips vary by 30 % to both sides.
fn noise_switches_nothing(mutant: Option<Mutant>) {
    let mut choice = Choice::new(1, 1).planted(Switch::plant(mutant));
    let mut rng = SmallRng::seed_from_u64(7);
    let mut switches = 0;
    for second in 0..3600 {
        let mut noisy = |peer: u8| Candidate {
            peer,
            values: vec![Value::Latency(Some(Duration::from_micros(rng.random_range(14_000..26_000))))],
            lot: peer.into(),
            flows: true,
            heads: false,
            fails: false,
        };
        let all: Vec<_> = (0..4).map(&mut noisy).collect();
        let began = second == 0;
        let moved = choice.decide(&all, second * HOLD / 10).len();
        switches += if began { 0 } else { moved };
    }
    assert_eq!(switches, 0);
}

fn who_stands_by_takes_no_place(mutant: Option<Mutant>) {
    let mut admission = Admission::new(1, 10).planted(Switch::plant(mutant));
    assert_eq!(admission.stand_by(1), Answer::Admit);
    assert_eq!(admission.request(2, None), Answer::Admit);
}

/// Of a hundred consumers of four equal producers none has more than 35, and two of the others stand by at each.
#[test]
fn consumers_spread_over_equal_producers() {
    let mut consumers = [0; 4];
    for consumer in 0..100_u64 {
        let lot = |n: u8| {
            let hash = blake3::hash(&[&consumer.to_le_bytes()[..], &[n]].concat());
            u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
        };
        let equal = |peer| Candidate {
            peer,
            values: vec![Value::Latency(Some(Duration::from_millis(10)))],
            lot: lot(peer),
            flows: true,
            heads: false,
            fails: false,
        };
        let all: Vec<_> = (0..4).map(equal).collect();
        let mut choice = Choice::new(1, 2);
        choice.decide(&all, 0);
        assert_eq!((0..4).filter(|peer| choice.stands_by(peer)).count(), 2);
        consumers[(0..4_u8).position(|peer| choice.takes(&peer)).unwrap()] += 1;
    }
    assert!(consumers.iter().all(|count| *count <= 35), "{consumers:?}");
}

#[test]
fn the_sound_core_passes_every_schedule() {
    KILLS.iter().for_each(|(_, schedule)| schedule(None));
}

#[test]
fn every_planted_bug_is_killed_by_its_schedule() {
    for (mutant, schedule) in KILLS {
        let killed = catch_unwind(AssertUnwindSafe(|| schedule(Some(*mutant)))).is_err();
        assert!(killed, "{mutant:?} survives");
    }
}

fn one(seed: u64) -> World {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0xA11);
    let mut world = World::new(rng.random_range(2..5), rng.random_range(0..3), None, seed);
    for _ in 0..rng.random_range(1..4) {
        for _ in 0..rng.random_range(100..1500) {
            world.step();
        }
        world.rest();
    }
    world
}

/// `FLOW_SEEDS` (default 500, of which this takes a tenth) and `FLOW_FROM`, as of the other swarm.
#[test]
fn hand_over_swarm() {
    let (seeds, from) = (number("FLOW_SEEDS").unwrap_or(500).max(10) / 10, number("FLOW_FROM").unwrap_or(1));
    let (mut delivered, mut missed, mut switches) = (0, 0, 0);
    for seed in from..from + seeds {
        let world = catch_unwind(|| one(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        (delivered, missed, switches) = (delivered + world.delivered, missed + world.missed, switches + world.switches);
    }
    eprintln!("{seeds} seeds, {delivered} items handed on, {missed} missed, {switches} switches");
}
