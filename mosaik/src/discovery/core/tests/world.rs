//! A network of cores: gossip floods and loses, syncs and pulls take a moment, nodes crash, leave, come back with
//! their clocks wrong, partitions come and go. Thousands of seeds; what must hold is checked after every step, and at the
//! end all living nodes must have the same catalog.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    super::{super::entry::Version, sync::Message},
    *,
};

/// One-way latency.
const HOP: Duration = Duration::from_millis(5);
/// How long it takes to find that a peer does not answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

struct World {
    rng: SmallRng,
    now: Now,
    nodes: BTreeMap<u8, Node>,
    /// Which side of the partition a node is on.
    side: BTreeMap<u8, bool>,
    queue: BTreeMap<(Now, u64), (u8, u64, What)>,
    seq: u64,
    /// The share of hints that gossip loses.
    loss: f64,
    /// Whether nodes have a bootstrap peer; else what each knew in its former life.
    bootstrap: bool,
    memory: BTreeMap<u8, Vec<(EndpointAddr, bool)>>,
}

struct Node {
    core: Core,
    /// Which life of the node it is: messages for a former one are dropped.
    life: u64,
    /// The highest version of each peer that this life's catalog ever had.
    seen: BTreeMap<PeerId, Version>,
}

enum What {
    Feed(Input),
    Dial(PeerId),
    Pull(u64, PeerId, Vec<Want>),
    Tick,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let loss = rng.random_range(0.0..0.3);
        let (nodes, side, queue, memory) = Default::default();
        Self { rng, now: T0, nodes, side, queue, seq: 0, loss, bootstrap: true, memory }
    }

    fn start(&mut self, n: u8, run_id: u64) {
        let life = self.seq;
        let mut core = core_with(n, run_id, Config::default());
        core.rng = SmallRng::seed_from_u64(self.rng.random());
        let target = EndpointAddr::from(id(0)).into();
        self.end(n);
        self.nodes.insert(n, Node { core, life, seen: BTreeMap::new() });
        if self.bootstrap {
            self.feed(n, Input::Contact { target, attempts: None });
        } else {
            let memory = self.memory.get(&n).cloned().unwrap_or_default();
            self.feed(n, Input::Remembered(memory));
        }
    }

    /// A node crashes. What it knew is written down.
    fn end(&mut self, n: u8) {
        if let Some(node) = self.nodes.remove(&n) {
            self.memory.insert(n, node.core.to_remember(9));
        }
    }

    fn connected(&self, a: u8, b: u8) -> bool {
        self.nodes.contains_key(&b) && self.side.get(&a) == self.side.get(&b)
    }

    fn number(peer: PeerId) -> Option<u8> {
        (0..32).find(|n| id(*n) == peer)
    }

    fn at(&mut self, after: Duration, n: u8, what: What) {
        let Some(life) = self.nodes.get(&n).map(|node| node.life) else { return };
        self.seq += 1;
        self.queue.insert((self.now + after, self.seq), (n, life, what));
    }

    fn feed(&mut self, n: u8, input: Input) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(&n) {
            node.core.step(input, now);
        }
        self.settle(n);
    }

    /// Carries out what a core asks for.
    fn settle(&mut self, n: u8) {
        let Some(node) = self.nodes.get_mut(&n) else { return };
        let outputs = node.core.take_outputs();
        check(node);
        let next = node.core.next_deadline().saturating_sub(self.now).max(Duration::from_millis(1));
        self.at(next, n, What::Tick);
        for output in outputs {
            match output {
                Output::Broadcast { hint, .. } => self.flood(n, hint),
                Output::Dial { target, .. } => self.at(HOP * 2, n, What::Dial(target.peer)),
                Output::Pull { request, from, wants } => {
                    self.at(HOP * 2, n, What::Pull(request, from.id.into(), wants));
                }
                Output::Join { peer, .. } => {
                    let up = Self::number(peer).is_some_and(|other| self.connected(n, other));
                    if up {
                        self.at(HOP, n, What::Feed(Input::NeighborUp(peer)));
                    }
                }
                // In this world a dial finds its peer wherever that is.
                Output::Reach(_) | Output::Moved(_) | Output::Event(_) | Output::Notice(_) => {}
            }
        }
    }

    fn flood(&mut self, from: u8, hint: Hint) {
        let others: Vec<u8> = self.nodes.keys().copied().filter(|n| *n != from && self.connected(from, *n)).collect();
        for to in others {
            if self.rng.random_bool(1.0 - self.loss) {
                let sign = Sign { hint, age: Duration::ZERO };
                self.at(HOP, to, What::Feed(Input::Hint { sign, from: id(from) }));
            }
        }
    }

    fn run_until(&mut self, until: Now) {
        while let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= until) {
            let ((at, _), (n, life, what)) = next.remove_entry();
            self.now = at;
            if self.nodes.get(&n).is_none_or(|node| node.life != life) {
                continue;
            }
            match what {
                What::Feed(input) => self.feed(n, input),
                What::Tick if self.nodes[&n].core.next_deadline() > self.now => {}
                What::Tick => self.feed(n, Input::Tick),
                What::Dial(peer) => match Self::number(peer).filter(|other| self.connected(n, *other)) {
                    Some(other) => {
                        self.synchronize(n, other);
                        self.feed(n, Input::Dialled { peer, reached: true });
                    }
                    None => self.at(DIAL_TIMEOUT, n, What::Feed(Input::Dialled { peer, reached: false })),
                },
                What::Pull(request, peer, wants) => {
                    if let Some(other) = Self::number(peer).filter(|other| self.connected(n, *other)) {
                        let (records, _) = self.nodes[&other].core.pull_answer(&wants, id(n), self.now);
                        let records = records.iter().map(|record| record.verify(NET).expect("honest")).collect();
                        self.feed(n, Input::Records(records));
                    }
                    self.feed(n, Input::Pulled { request });
                }
            }
        }
        self.now = until;
    }

    /// A whole session in an instant.
    fn synchronize(&mut self, a: u8, b: u8) {
        let now = self.now;
        let open = self.nodes.get_mut(&a).expect("lives").core.sync_open(now);
        let Message::Open { root, me, silent } = open else { panic!("opens") };
        let opener = me.verify(NET).expect("honest");
        self.feed(b, Input::Hint { sign: opener, from: id(a) });
        let (signs, digests) = match self.nodes[&b].core.sync_greet(root, &opener.hint, &silent, now) {
            Message::Same { signs } => (signs, None),
            Message::Buckets { signs, digests } => (signs, Some(digests)),
            other => panic!("{other:?}"),
        };
        for sign in signs {
            self.feed(a, Input::Hint { sign: sign.verify(NET).expect("honest"), from: id(b) });
        }
        for offer in digests.map(|digests| self.nodes[&a].core.sync_offers(&digests)).unwrap_or_default() {
            let Message::Offer { buckets, items, .. } = offer else { panic!("offers") };
            for delta in self.nodes[&b].core.sync_delta(&buckets, &items, now) {
                let Message::Delta { records, signs, wants, .. } = delta else { panic!("answers") };
                let records = records.iter().map(|record| record.verify(NET).expect("honest")).collect();
                self.feed(a, Input::Records(records));
                for sign in signs {
                    self.feed(a, Input::Hint { sign: sign.verify(NET).expect("honest"), from: id(b) });
                }
                for page in self.nodes[&a].core.sync_records(&wants, now) {
                    let Message::Records { records, .. } = page else { panic!("answers") };
                    let records = records.iter().map(|record| record.verify(NET).expect("honest")).collect();
                    self.feed(b, Input::Records(records));
                }
            }
        }
    }

    /// Something goes wrong, or well.
    fn trouble(&mut self, count: u8) {
        let n = self.rng.random_range(0..count);
        let clock = u64::try_from(self.now.as_micros()).expect("fits");
        match self.rng.random_range(0..8) {
            0 => self.end(n),
            1 => {
                let now = self.now;
                if let Some(mut node) = self.nodes.remove(&n) {
                    let farewell = node.core.depart(now);
                    self.nodes.insert(n, node);
                    self.flood(n, farewell);
                    self.end(n);
                }
            }
            // A restart, sometimes with the clock an hour behind.
            2 | 3 => {
                let behind = if self.rng.random_bool(0.3) { 3_600_000_000 } else { 0 };
                self.start(n, clock - behind);
            }
            4 => (0..count).for_each(|n| _ = self.side.insert(n, self.rng.random())),
            5 => self.side.clear(),
            6 => {
                let (now, tag) = (self.now, self.rng.random::<u16>().to_string());
                if let Some(node) = self.nodes.get_mut(&n) {
                    node.core.try_update_local(|said| _ = said.tags.insert(tag), now).expect("few");
                }
                self.settle(n);
            }
            _ => {
                let peer = id(self.rng.random_range(0..count));
                self.feed(n, Input::ConnectionLost(peer));
            }
        }
    }
}

/// What holds after every step.
fn check(node: &mut Node) {
    let core = &node.core;
    let catalog = core.catalog();
    let mut again = super::super::super::catalog::Catalog::new(catalog.local().clone());
    catalog.peers().for_each(|entry| again.put(entry.clone()));
    assert_eq!(again.root(), catalog.root(), "digests are kept right");
    assert_eq!(catalog.len(), core.peers.len() + 1);
    let watched: BTreeSet<_> = core.checks.iter().map(|(_, key)| key).collect();
    for (key, peer) in &core.peers {
        assert_eq!(catalog.get(peer.entry.id()), Some(&peer.entry));
        assert!(watched.contains(key), "every lease ends some time");
        assert!(core.gone.last_hint(key).is_none(), "nobody is both here and gone");
        assert!(!core.search.contains(key), "nobody is looked for who is here");
        assert!(peer.hint.is_none_or(|hint| hint.is_about(&peer.entry)));
        let seen = node.seen.entry(peer.entry.id()).or_insert(peer.entry.version());
        assert!(peer.entry.version() >= *seen, "versions never go back");
        *seen = peer.entry.version();
    }
    core.gone.len();
    assert!(core.search.len() <= core.config.max_lost);
}

/// A seed without a bootstrap peer: all meet once; then they crash, leave, move to one side or the other for hours, and come back
/// with nothing but what they knew.
fn run_from_memory(seed: u64) {
    let mut world = World::new(seed);
    let count = world.rng.random_range(2..7);
    for n in 0..count {
        let clock = u64::try_from(world.now.as_micros()).expect("fits");
        world.start(n, clock);
    }
    world.run_until(world.now + secs(40));
    assert!(world.nodes.values().all(|node| node.core.catalog().len() == usize::from(count)), "seed {seed}: they meet");
    world.bootstrap = false;
    // The way to a bootstrap peer is forgotten.
    for n in 0..count {
        let clock = u64::try_from(world.now.as_micros()).expect("fits");
        world.start(n, clock);
        world.run_until(world.now + Duration::from_millis(300));
    }
    for _ in 0..world.rng.random_range(1..10) {
        let long = world.rng.random_bool(0.2);
        let pause = world.rng.random_range(0..if long { 7_200_000 } else { 20_000 });
        world.run_until(world.now + Duration::from_millis(pause));
        world.trouble(count);
    }
    world.side.clear();
    for n in 0..count {
        if !world.nodes.contains_key(&n) {
            let clock = u64::try_from(world.now.as_micros()).expect("fits");
            world.start(n, clock);
        }
    }
    world.run_until(world.now + secs(120));
    for (n, node) in &world.nodes {
        assert_eq!(node.core.catalog().len(), usize::from(count), "seed {seed}: the catalog of {n}");
    }
}

/// Runs one seed; how many nodes live at the end.
fn run(seed: u64) -> usize {
    let mut world = World::new(seed);
    let count = world.rng.random_range(2..8);
    for n in 0..count {
        let clock = u64::try_from(world.now.as_micros()).expect("fits");
        world.start(n, clock);
        let pause = Duration::from_millis(world.rng.random_range(0..500));
        world.run_until(world.now + pause);
    }
    for _ in 0..world.rng.random_range(0..12) {
        let pause = Duration::from_millis(world.rng.random_range(0..15_000));
        world.run_until(world.now + pause);
        world.trouble(count);
    }
    // In the end the network is whole, and the bootstrap peer is there: it may be all that two nodes have in common.
    world.side.clear();
    if !world.nodes.contains_key(&0) {
        let clock = u64::try_from(world.now.as_micros()).expect("fits");
        world.start(0, clock);
    }
    world.run_until(world.now + secs(90));
    let living: Vec<PeerId> = world.nodes.keys().map(|n| id(*n)).collect();
    for (n, node) in &world.nodes {
        let catalog = node.core.catalog();
        let mut known: Vec<PeerId> = catalog.iter().map(|entry| entry.id()).collect();
        known.sort_by_key(|peer| living.iter().position(|other| other == peer));
        assert_eq!(known, living, "seed {seed}: the catalog of {n}");
        for (m, other) in &world.nodes {
            let (theirs, ours) = (other.core.catalog().local(), catalog.get(id(*m)));
            assert_eq!(ours, Some(theirs), "seed {seed}: {n} on {m}");
        }
        assert!(node.core.in_touch(id(0)) || *n == 0, "seed {seed}: {n} and the bootstrap peer");
    }
    living.len()
}

#[test]
fn whatever_happened_the_living_end_with_the_same_catalog() {
    let seeds = std::env::var("DISCOVERY_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(25);
    let nodes: usize = (0..seeds).map(run).sum();
    assert!(nodes > 0);
}

#[test]
fn whatever_happened_those_who_knew_each_other_once_meet_again() {
    let seeds = std::env::var("DISCOVERY_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(25);
    (0..seeds).for_each(run_from_memory);
}
