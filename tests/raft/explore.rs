//! Bounded model checking: the real core, every order of events within a bound, breadth first.
//!
//! Founding alone: every order of deliveries, ticks and crashes of three possible founders of a group of two. A message may
//! be delivered at any later time or never, so loss, delay and re-ordering need no events of their own. A tick is the
//! moment at which a node does whatever it may do by time: the clock jumps far enough for every timeout but patience.

use std::collections::{BTreeSet, VecDeque};

use mosaik::groups::raft::{Ballot, ClusterId, Envelope, Input, Member, Message, Now, Output, Raft, Settings, Stored};

use crate::sim::{
    disk::Disk,
    world::{id, index_of},
};

const NODES: usize = 3;
const TICKS: u8 = 3;
const CRASHES: u8 = 1;

#[derive(Clone)]
struct Node {
    raft: Raft,
    disk: Disk,
    ticks: u8,
    now: u64,
}

#[derive(Clone)]
struct State {
    nodes: Vec<Node>,
    mail: Vec<Envelope>,
    crashes: u8,
}

fn settings() -> Settings {
    Settings { declared: 2, founding_delay: 1, ..Settings::default() }
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
    fn new() -> Self {
        let mut state = Self { nodes: Vec::new(), mail: Vec::new(), crashes: 0 };
        for n in 0..NODES {
            let now = 1_000_000;
            let raft = Raft::new(settings(), member(n), Stored::default(), n as u64, Now { mono: now, wall: 0 });
            state.nodes.push(Node { raft, disk: Disk::default(), ticks: 0, now });
        }
        for n in 0..NODES {
            state.introduce(n);
        }
        state.mail.clear();
        state
    }

    /// The node knows all others, and that they are blank.
    fn introduce(&mut self, n: usize) {
        for other in (0..NODES).filter(|other| *other != n) {
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

    fn successors(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for at in 0..self.mail.len() {
            let mut next = self.clone();
            let envelope = next.mail.remove(at);
            next.feed(index_of(envelope.to.node), Input::Message(envelope));
            all.push(next);
        }
        for n in 0..NODES {
            if self.nodes[n].ticks < TICKS {
                let mut next = self.clone();
                next.nodes[n].ticks += 1;
                next.nodes[n].now += 5_000_000;
                next.introduce(n);
                next.feed(n, Input::Tick);
                all.push(next);
            }
            if self.crashes < CRASHES {
                let mut next = self.clone();
                next.crashes += 1;
                let node = &mut next.nodes[n];
                let now = Now { mono: node.now, wall: 0 };
                node.raft = Raft::new(settings(), member(n), node.disk.durable.clone(), n as u64, now);
                next.introduce(n);
                all.push(next);
            }
        }
        all
    }

    /// At most one genesis, and none without the durable acceptance of all its founders.
    fn check(&self) {
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

    fn key(&self) -> [u8; 16] {
        let mut text = String::new();
        for node in &self.nodes {
            text += &format!("{:?}{}{:?}", node.raft, node.ticks, node.disk.durable.founding);
        }
        let mut mail: Vec<String> = self.mail.iter().map(|envelope| format!("{envelope:?}")).collect();
        mail.sort();
        text += &mail.concat();
        let hash = blake3::hash(text.as_bytes());
        hash.as_bytes()[..16].try_into().unwrap()
    }
}

/// `RAFT_STATES` bounds the search; it reports whether it finished or what its frontier was.
#[test]
#[ignore = "minutes; prints how many states it explored"]
fn founding_within_a_bound() {
    let limit = std::env::var("RAFT_STATES").ok().and_then(|it| it.parse().ok()).unwrap_or(1_000_000);
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::from([(0, State::new())]);
    let (mut depth, mut foundings) = (0, 0_u64);
    while let Some((at, state)) = queue.pop_front() {
        depth = at;
        state.check();
        foundings += u64::from(state.nodes.iter().any(|node| node.raft.founding().founded.is_some()));
        if seen.len() >= limit {
            queue.push_front((at, state));
            break;
        }
        for next in state.successors() {
            if seen.insert(next.key()) {
                queue.push_back((at + 1, next));
            }
        }
    }
    let frontier = queue.len();
    eprintln!("{} states to depth {depth}, {foundings} with a genesis; frontier {frontier}", seen.len());
    assert!(foundings > 0, "the exploration never reached a genesis");
}
