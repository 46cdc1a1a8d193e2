//! Bounded model checking: the real core, every order of events within a bound, breadth first.
//!
//! Breadth first, so that the first violation found is a shortest one, or depth first where the whole shall be seen, because then
//! only the states on one path are in memory at once. A state that was seen is remembered by 16 bytes of hash.
//!
//! Founding alone: every order of deliveries, ticks and crashes of three possible founders of a group of two. A message may
//! be delivered at any later time or never, so loss, delay and re-ordering need no events of their own. A tick is the
//! moment at which a node does whatever it may do by time: the clock jumps far enough for every timeout but patience.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use mosaik::groups::raft::{
    Ballot, Change, ClusterId, Entry, Envelope, HardState, Input, Member, Membership, Message, Now, Output, Payload,
    Position, Proposal, Raft, SessionId, Settings, Stored,
};

use crate::sim::{
    disk::Disk,
    world::{id, index_of},
};

const PATIENCE: u64 = 5_000_000;

#[derive(Clone)]
struct Node {
    raft: Raft,
    disk: Disk,
    ticks: u8,
    now: u64,
}

/// How far an exploration goes.
#[derive(Clone, Copy)]
struct Bound {
    nodes: usize,
    /// Founders that must agree.
    declared: u32,
    /// Ticks of each node.
    ticks: u8,
    /// Crashes in all.
    crashes: u8,
}

#[derive(Clone)]
struct State {
    bound: Bound,
    nodes: Vec<Node>,
    mail: Vec<Envelope>,
    crashes: u8,
}

fn settings(bound: Bound) -> Settings {
    Settings { declared: bound.declared, founding_delay: 1, ..Settings::default() }
}

fn member(n: usize) -> Member {
    Member { node: id(n), incarnation: 1 }
}

/// Only what founding is about travels: once a cluster exists, its elections are another exploration's business.
fn is_founding(body: &Message) -> bool {
    matches!(
        body,
        Message::Propose { .. }
            | Message::Accepted { .. }
            | Message::Refused { .. }
            | Message::Abandoned { .. }
            | Message::Founded { .. }
            | Message::Inquire { .. }
    )
}

impl State {
    fn new(bound: Bound) -> Self {
        let mut state = Self { bound, nodes: Vec::new(), mail: Vec::new(), crashes: 0 };
        for n in 0..bound.nodes {
            let now = 1_000_000;
            let raft = Raft::new(settings(bound), member(n), Stored::default(), n as u64, Now { mono: now, wall: 0 });
            state.nodes.push(Node { raft, disk: Disk::default(), ticks: 0, now });
        }
        for n in 0..bound.nodes {
            state.introduce(n);
        }
        state.mail.clear();
        state
    }

    /// The node knows all others, and that they are blank.
    fn introduce(&mut self, n: usize) {
        for other in (0..self.bound.nodes).filter(|other| *other != n) {
            self.feed(n, Input::PeerUp(member(other)));
            let body = Message::Join { observer: false };
            let join = Envelope { from: member(other), to: member(n), cluster: None, term: 0, body };
            self.feed(n, Input::Message(join));
        }
    }

    fn feed(&mut self, n: usize, input: Input) {
        let mut work = VecDeque::from([input]);
        while let Some(input) = work.pop_front() {
            let node = &mut self.nodes[n];
            let now = Now { mono: node.now, wall: 0 };
            for output in node.raft.step(input, now) {
                match output {
                    Output::Persist { token, writes } => {
                        node.disk.submit(token, writes);
                        node.disk.complete(token);
                        work.push_back(Input::Persisted { token });
                    }
                    Output::Send(envelope) if is_founding(&envelope.body) && !self.mail.contains(&envelope) => {
                        self.mail.push(envelope);
                    }
                    _ => {}
                }
            }
        }
    }

    fn more(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for at in 0..self.mail.len() {
            let mut next = self.clone();
            let envelope = next.mail.remove(at);
            next.feed(index_of(envelope.to.node), Input::Message(envelope));
            all.push(next);
        }
        for n in 0..self.bound.nodes {
            if self.nodes[n].ticks < self.bound.ticks {
                let mut next = self.clone();
                next.nodes[n].ticks += 1;
                next.nodes[n].now += PATIENCE;
                next.introduce(n);
                next.feed(n, Input::Tick);
                all.push(next);
            }
            if self.crashes < self.bound.crashes {
                let mut next = self.clone();
                next.crashes += 1;
                let node = &mut next.nodes[n];
                let now = Now { mono: node.now, wall: 0 };
                node.raft = Raft::new(settings(self.bound), member(n), node.disk.durable.clone(), n as u64, now);
                next.introduce(n);
                all.push(next);
            }
        }
        all
    }

    /// At most one genesis, and none without the durable acceptance of all its founders.
    fn safe(&self) {
        let founded: BTreeSet<&Ballot> =
            self.nodes.iter().filter_map(|node| node.raft.founding().founded.as_ref()).collect();
        let clusters: BTreeSet<ClusterId> = founded.iter().map(|ballot| ballot.cluster()).collect();
        assert!(clusters.len() <= 1, "two geneses");
        for ballot in founded {
            for founder in &ballot.founders {
                let record = &self.nodes[index_of(founder.node)].disk.durable.founding;
                let bound = [&record.accepted, &record.founded].into_iter().flatten().any(|it| it == ballot);
                assert!(bound, "genesis without {founder:?}");
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Breadth,
    Depth,
}

/// What can be explored.
trait Model: Clone {
    fn successors(&self) -> Vec<Self>;
    /// Panics if anything is violated.
    fn check(&self);
    fn key(&self) -> u128;
    /// Whether something worth reaching has been reached.
    fn reached(&self) -> bool;
}

fn hash_of(parts: impl Iterator<Item = u128>, mail: &[Envelope]) -> u128 {
    let mut letters: Vec<String> = mail.iter().map(|envelope| format!("{envelope:?}")).collect();
    letters.sort();
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&part.to_le_bytes());
    }
    hasher.update(letters.concat().as_bytes());
    u128::from_le_bytes(hasher.finalize().as_bytes()[..16].try_into().unwrap())
}

impl Model for State {
    fn successors(&self) -> Vec<Self> {
        self.more()
    }

    fn check(&self) {
        self.safe();
    }

    fn key(&self) -> u128 {
        let node = |node: &Node| [node.raft.fingerprint(), u128::from(node.ticks)];
        hash_of(self.nodes.iter().flat_map(node).chain([u128::from(self.crashes)]), &self.mail)
    }

    fn reached(&self) -> bool {
        self.nodes.iter().any(|node| node.raft.founding().founded.is_some())
    }
}

/// Elections, replication and one joint change: two voters and a learner that becomes the third. No pull, no snapshots.
#[derive(Clone)]
struct Group {
    bound: Bound,
    nodes: Vec<Node>,
    mail: Vec<Envelope>,
    crashes: u8,
    proposed: u8,
    changed: u8,
    /// Position and the term of the leader that committed it.
    committed: Vec<(Position, u64)>,
    leaders: BTreeMap<u64, Member>,
}

impl Group {
    fn new(bound: Bound) -> Self {
        let founders = (0..2).map(member).collect();
        let ballot = Ballot { proposer: member(0), number: 1, founders, declared: 2 };
        let genesis = ballot.genesis();
        let mut next = Membership::founding(ballot.cluster(), ballot.founders.clone(), 2);
        next.learners.insert(member(2));
        let second = Entry::after(&genesis.hash, 2, 1, (0, 0), Payload::Config(Box::new(next)));
        let hard = HardState { cluster: Some(ballot.cluster()), incarnation: 1, term: 1, voted: None, commit: 2 };
        let stored = Stored { hard, entries: vec![genesis.clone(), second.clone()], ..Stored::default() };
        let committed = vec![(genesis.position(), 1), (second.position(), 1)];
        let now = 10_000_000;
        let nodes = (0..bound.nodes).map(|n| {
            let disk = Disk { durable: stored.clone(), ..Disk::default() };
            let raft = Raft::new(Self::settings(), member(n), stored.clone(), n as u64, Now { mono: now, wall: 0 });
            Node { raft, disk, ticks: 0, now }
        });
        let leaders = BTreeMap::new();
        let nodes = nodes.collect();
        Self { bound, nodes, mail: Vec::new(), crashes: 0, proposed: 0, changed: 0, committed, leaders }
    }

    fn settings() -> Settings {
        Settings { target_voters: 1, declared: 2, silent: u64::MAX / 2, catch_up: 1 << 40, ..Settings::default() }
    }

    fn feed(&mut self, n: usize, input: Input) {
        let mut work = VecDeque::from([input]);
        while let Some(input) = work.pop_front() {
            let node = &mut self.nodes[n];
            for output in node.raft.step(input, Now { mono: node.now, wall: 0 }) {
                match output {
                    Output::Persist { token, writes } => {
                        node.disk.submit(token, writes);
                        node.disk.complete(token);
                        work.push_back(Input::Persisted { token });
                    }
                    Output::Apply(entries) => {
                        work.push_back(Input::Applied { index: entries.last().map_or(0, |entry| entry.index) });
                    }
                    Output::Send(envelope) if !self.mail.contains(&envelope) => self.mail.push(envelope),
                    _ => {}
                }
            }
        }
        let raft = &self.nodes[n].raft;
        if raft.is_leader() {
            let holder = *self.leaders.entry(raft.term()).or_insert(raft.me());
            assert_eq!(holder, raft.me(), "two leaders in term {}", raft.term());
            for (position, by) in &self.committed {
                let has = raft.log().at(position.index) == Some(*position);
                assert!(has || *by >= raft.term(), "leader of {} lacks {position:?}", raft.term());
            }
        }
        for index in 1..=raft.commit() {
            let position = raft.log().at(index).unwrap();
            match self.committed.get(index as usize - 1) {
                Some((before, _)) => assert_eq!(*before, position, "two entries committed at {index}"),
                None => self.committed.push((position, raft.term())),
            }
        }
    }

    fn tick(&self, n: usize, by: u64) -> Self {
        let mut next = self.clone();
        next.nodes[n].ticks += 1;
        next.nodes[n].now += by;
        next.feed(n, Input::Tick);
        next
    }
}

impl Model for Group {
    fn successors(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for at in 0..self.mail.len() {
            let mut next = self.clone();
            let envelope = next.mail.remove(at);
            next.feed(index_of(envelope.to.node), Input::Message(envelope));
            all.push(next);
        }
        for n in 0..self.bound.nodes {
            let raft = &self.nodes[n].raft;
            if self.nodes[n].ticks < self.bound.ticks {
                // A leader's timer is the heartbeat; a jump over everything makes it step down.
                all.push(self.tick(n, 2_000_000));
                if raft.is_leader() {
                    all.push(self.tick(n, 100_000));
                }
            }
            if raft.is_leader() && self.proposed < 1 {
                let mut next = self.clone();
                next.proposed += 1;
                next.feed(n, Input::Propose(vec![Proposal { id: 1, payload: Payload::Open(SessionId(1)) }]));
                all.push(next);
            }
            if raft.is_leader() && self.changed < 1 {
                let mut next = self.clone();
                next.changed += 1;
                next.feed(n, Input::Change(Change::Promote(member(2))));
                all.push(next);
            }
            if self.crashes < self.bound.crashes {
                let mut next = self.clone();
                next.crashes += 1;
                let node = &mut next.nodes[n];
                let now = Now { mono: node.now, wall: 0 };
                node.raft = Raft::new(Self::settings(), member(n), node.disk.durable.clone(), n as u64, now);
                all.push(next);
            }
        }
        all
    }

    /// All is checked while it happens (`feed`).
    fn check(&self) {}

    fn key(&self) -> u128 {
        let node = |node: &Node| [node.raft.fingerprint(), u128::from(node.ticks)];
        let counts = [self.crashes, self.proposed, self.changed].map(u128::from);
        hash_of(self.nodes.iter().flat_map(node).chain(counts), &self.mail)
    }

    /// A joint change is through.
    fn reached(&self) -> bool {
        let through = |node: &Node| node.raft.log().membership_at(node.raft.commit()).voters.len() == 3;
        self.nodes.iter().any(through)
    }
}

/// Explores until nothing is left, or for `seconds`, or as long as the frontier fits into memory.
fn explore<M: Model>(name: &str, root: M, seconds: u64, order: Order) -> u64 {
    let began = Instant::now();
    // A state takes some 20 KiB.
    let room = number("RAFT_FRONTIER").unwrap_or(60_000) as usize;
    let mut seen = BTreeSet::from([root.key()]);
    let mut queue = VecDeque::from([(0, root)]);
    let (mut depth, mut reached, mut done) = (0, 0_u64, 0_u64);
    while let Some((at, state)) = if order == Order::Depth { queue.pop_back() } else { queue.pop_front() } {
        depth = depth.max(at);
        done += 1;
        state.check();
        reached += u64::from(state.reached());
        for next in state.successors() {
            if seen.insert(next.key()) {
                queue.push_back((at + 1, next));
            }
        }
        if began.elapsed() > Duration::from_secs(seconds) || queue.len() > room {
            break;
        }
    }
    let end = if queue.is_empty() { "finished".to_owned() } else { format!("frontier of {}", queue.len()) };
    eprintln!(
        "{name}: {done} states expanded of {} seen, to depth {depth}, {reached} of them at the goal; {end}, {:.0?}",
        seen.len(),
        began.elapsed()
    );
    reached
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seconds() -> u64 {
    number("RAFT_SECONDS").unwrap_or(600)
}

const FOUNDING_OF_TWO: Bound = Bound { nodes: 3, declared: 2, ticks: 2, crashes: 1 };
const FOUNDING_OF_THREE: Bound = Bound { nodes: 4, declared: 3, ticks: 2, crashes: 1 };
const ONE_CHANGE: Bound = Bound { nodes: 3, declared: 2, ticks: 3, crashes: 1 };

#[test]
#[ignore = "minutes; prints how many states it explored"]
fn founding_of_two() {
    assert!(explore("founding of two among three", State::new(FOUNDING_OF_TWO), seconds(), Order::Depth) > 0);
}

#[test]
#[ignore = "minutes; prints how many states it explored"]
fn founding_of_three() {
    assert!(explore("founding of three among four", State::new(FOUNDING_OF_THREE), seconds(), Order::Breadth) > 0);
}

#[test]
#[ignore = "minutes; prints how many states it explored"]
fn elections_and_one_change() {
    explore("elections, replication and one joint change", Group::new(ONE_CHANGE), seconds(), Order::Breadth);
}

/// The same within bounds that take a moment.
#[test]
fn small_bounds() {
    let small = Bound { ticks: 1, crashes: 1, ..FOUNDING_OF_TWO };
    assert!(explore("founding of two, one tick each", State::new(small), 20, Order::Breadth) > 0);
    explore("elections and one change, the beginning", Group::new(ONE_CHANGE), 3, Order::Breadth);
}
