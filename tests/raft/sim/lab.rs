//! Directed schedules: a few cores, every message and every tick in the hands of the test, the same checks.

use std::collections::{BTreeMap, VecDeque};

use mosaik::groups::{
    client::CommandResult,
    raft::{
        Ballot, Command, Entry, Envelope, HardState, Index, Input, Member, Mutant, Now, Output, Payload, Position,
        Proposal, Raft, SessionId, Settings, Stored, Switch,
    },
};

use super::{
    checks::{Checks, Disks},
    disk::Disk,
    machine::{Machine, Op},
    world::{id, index_of},
};

pub struct Node {
    pub incarnation: u64,
    pub raft: Option<Raft>,
    pub disk: Disk,
    pub machine: Machine,
    /// Writes do not finish while this is set.
    pub stuck: bool,
    tokens: Vec<u64>,
}

pub struct Lab {
    pub now: u64,
    pub nodes: Vec<Node>,
    pub mail: Vec<Envelope>,
    pub checks: Checks,
    pub settings: Settings,
    pub limits: (usize, u64, u64),
    /// Where each session was first opened.
    pub opened: BTreeMap<SessionId, Index>,
    /// The highest index that a leader applied: acknowledged.
    pub acked: Index,
    /// Strong reads by id: the floor at their start, and what they got.
    pub reads: BTreeMap<u64, (Index, Option<Index>)>,
    graves: BTreeMap<Member, Disk>,
    work: VecDeque<(usize, Input)>,
    next: u64,
}

struct Others<'a>(&'a [Node], &'a BTreeMap<Member, Disk>);

impl Disks for Others<'_> {
    fn disk(&self, member: &Member) -> Option<&Disk> {
        let node = self.0.get(index_of(member.node)).filter(|node| node.incarnation == member.incarnation);
        node.map(|node| &node.disk).or_else(|| self.1.get(member))
    }

    fn lives(&self, member: &Member) -> bool {
        self.0.get(index_of(member.node)).is_some_and(|node| node.incarnation == member.incarnation)
    }

    fn last(&self, member: &Member) -> Option<Position> {
        let node = self.0.get(index_of(member.node)).filter(|node| node.incarnation == member.incarnation);
        Some(node?.raft.as_ref()?.log().last())
    }
}

fn member(n: usize, incarnation: u64) -> Member {
    Member { node: id(n), incarnation }
}

impl Lab {
    /// Nodes of which the first `voters` are a cluster already; the others are blank.
    pub fn new(nodes: usize, voters: usize, mutant: Option<Mutant>, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            declared: voters as u32,
            switch: mutant.map_or_else(Switch::default, Switch::plant),
            ..Settings::default()
        };
        change(&mut settings);
        let founders = (0..voters).map(|n| member(n, 1)).collect();
        let ballot = Ballot { proposer: member(0, 1), number: 1, founders, declared: voters as u32 };
        let mut lab = Self {
            now: 1_000_000,
            nodes: Vec::new(),
            mail: Vec::new(),
            checks: Checks::new(false),
            limits: (8, 3_600_000, 64),
            opened: BTreeMap::new(),
            acked: 0,
            reads: BTreeMap::new(),
            graves: BTreeMap::new(),
            work: VecDeque::new(),
            next: 0,
            settings,
        };
        for n in 0..nodes {
            let mut disk = Disk::default();
            if n < voters {
                let hard =
                    HardState { cluster: Some(ballot.cluster()), incarnation: 1, term: 1, voted: None, commit: 1 };
                disk.durable = Stored { hard, entries: vec![ballot.genesis()], ..Stored::default() };
                disk.durable.founding.founded = Some(ballot.clone());
            }
            let machine = Machine::new(lab.settings.switch, lab.limits);
            lab.nodes.push(Node { incarnation: 1, raft: None, disk, machine, stuck: false, tokens: Vec::new() });
            lab.start(n);
        }
        lab
    }

    pub fn start(&mut self, n: usize) {
        let now = self.clock();
        let node = &mut self.nodes[n];
        node.machine = Machine::new(self.settings.switch, self.limits);
        let me = member(n, node.incarnation);
        node.raft = Some(Raft::new(self.settings.clone(), me, node.disk.durable.clone(), n as u64 + 7, now));
        self.tick(n);
    }

    pub fn crash(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.raft = None;
        node.disk.crash(0);
        node.tokens.clear();
        self.checks.died(member(n, node.incarnation));
    }

    pub fn restart(&mut self, n: usize) {
        self.crash(n);
        self.start(n);
    }

    /// Loses the storage and starts again.
    pub fn wipe(&mut self, n: usize) {
        self.crash(n);
        let grave = std::mem::take(&mut self.nodes[n].disk);
        self.graves.insert(member(n, self.nodes[n].incarnation), grave);
        if !self.settings.switch.is(Mutant::IncarnationReused) {
            self.nodes[n].incarnation += 1;
        }
        self.start(n);
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, wall: 1_000_000 + self.now / 1000 }
    }

    pub fn member(&self, n: usize) -> Member {
        member(n, self.nodes[n].incarnation)
    }

    pub fn raft(&self, n: usize) -> &Raft {
        self.nodes[n].raft.as_ref().expect("runs")
    }

    pub fn leads(&self, n: usize) -> bool {
        self.raft(n).is_leader()
    }

    pub fn commit(&self, n: usize) -> Index {
        self.raft(n).commit()
    }

    pub fn last(&self, n: usize) -> Index {
        self.raft(n).log().last().index
    }

    pub fn entry(&self, n: usize, index: Index) -> Entry {
        self.raft(n).log().get(index).expect("there").clone()
    }

    pub fn feed(&mut self, n: usize, input: Input) {
        self.work.push_back((n, input));
        while let Some((n, input)) = self.work.pop_front() {
            let now = self.clock();
            let Some(mut raft) = self.nodes[n].raft.take() else { continue };
            let outputs = raft.step(input, now);
            self.checks.after_step(&raft, &Others(&self.nodes, &self.graves));
            self.nodes[n].raft = Some(raft);
            let life = self.nodes[n].incarnation;
            for output in outputs {
                if self.nodes[n].incarnation == life {
                    self.output(n, output);
                }
            }
        }
    }

    fn output(&mut self, n: usize, output: Output) {
        match output {
            Output::Persist { token, writes } => {
                self.nodes[n].disk.submit(token, writes);
                self.nodes[n].tokens.push(token);
                if !self.nodes[n].stuck {
                    self.sync(n);
                }
            }
            Output::Send(envelope) => {
                let others = Others(&self.nodes, &self.graves);
                let raft = self.nodes[n].raft.as_ref().expect("runs");
                self.checks.sent(raft, &envelope, &self.nodes[n].disk, &others);
                self.checks.founded(raft, &others);
                self.mail.push(envelope);
            }
            Output::Apply(entries) => {
                let cluster = self.raft(n).cluster().expect("has one");
                for entry in entries {
                    let index = entry.index;
                    let Some(applied) = self.nodes[n].machine.apply(&entry) else {
                        self.work.push_back((n, Input::Applied { index }));
                        continue;
                    };
                    if applied.done.result == CommandResult::Opened {
                        self.opened.entry(applied.session).or_insert(applied.done.index);
                    }
                    if !applied.ran.is_empty() {
                        self.checks.ran(cluster, applied.session, applied.done.sequence, index);
                        if self.leads(n) {
                            self.acked = self.acked.max(index);
                        }
                    }
                    self.work.push_back((n, Input::Applied { index }));
                }
            }
            Output::Restore(snapshot) => {
                self.nodes[n].machine.restore(&snapshot.data);
                self.work.push_back((n, Input::Applied { index: snapshot.manifest.position.index }));
            }
            Output::ReadReady { id, index } => {
                let (floor, got) = self.reads.get_mut(&id).expect("asked");
                assert!(index >= *floor, "a strong read at {index} misses what was acknowledged before it");
                let applied = self.nodes[n].machine.applied;
                assert!(applied >= index, "a strong read at {index} is asked of a machine at {applied}");
                *got = Some(index);
            }
            Output::Wipe { into } => {
                let from = self.raft(n).cluster().expect("has one");
                self.checks.wiped(from, into);
                self.wipe(n);
            }
            Output::ReadFailed { .. }
            | Output::Queued { .. }
            | Output::Refused { .. }
            | Output::Halted(_)
            | Output::Contradicted { .. } => {}
        }
    }

    /// Finishes the writes of a node.
    pub fn sync(&mut self, n: usize) {
        if let Some(token) = std::mem::take(&mut self.nodes[n].tokens).last().copied() {
            self.nodes[n].disk.complete(token);
            self.work.push_back((n, Input::Persisted { token }));
        }
    }

    pub fn tick(&mut self, n: usize) {
        self.feed(n, Input::Tick);
    }

    /// Delivers mail that matches, and what comes of it, until none is left.
    pub fn flow_if(&mut self, mut which: impl FnMut(&Envelope) -> bool) {
        for _ in 0..20_000 {
            let Some(at) = self.mail.iter().position(&mut which) else { return };
            let envelope = self.mail.remove(at);
            self.feed(index_of(envelope.to.node), Input::Message(envelope));
        }
        panic!("messages without end");
    }

    /// Delivers all mail among these nodes.
    pub fn flow(&mut self, among: &[usize]) {
        self.flow_if(|mail| within(mail, among));
    }

    pub fn drop_mail(&mut self) {
        self.mail.clear();
    }

    /// Lets time pass for these nodes, which hear only each other.
    pub fn pass(&mut self, millis: u64, among: &[usize]) {
        for _ in 0..millis.div_ceil(50) {
            self.now += 50_000;
            for n in among {
                self.tick(*n);
            }
            self.flow(among);
        }
    }

    /// Everybody forgets the old leader, then `n` stands for election, hearing what matches; a few times, because it may
    /// have to learn the term first. Whether it won.
    pub fn stand_if(&mut self, n: usize, mut which: impl FnMut(&Envelope) -> bool) -> bool {
        for _ in 0..3 {
            self.now += 2_000_000;
            self.tick(n);
            self.flow_if(&mut which);
            if self.leads(n) {
                return true;
            }
        }
        false
    }

    pub fn stand(&mut self, n: usize, among: &[usize]) -> bool {
        self.stand_if(n, |mail| within(mail, among))
    }

    pub fn link(&mut self, a: usize, b: usize) {
        let (first, second) = (self.member(a), self.member(b));
        self.feed(a, Input::PeerUp(second));
        self.feed(b, Input::PeerUp(first));
    }

    pub fn link_all(&mut self) {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                self.link(a, b);
            }
        }
    }

    pub fn propose_raw(&mut self, n: usize, payload: Payload) {
        self.next += 1;
        let id = self.next;
        self.feed(n, Input::Propose(vec![Proposal { id, payload }]));
    }

    pub fn open(&mut self, n: usize, session: u128) {
        self.propose_raw(n, Payload::Open(SessionId(session)));
    }

    /// Writes `value` to register 0 as number `sequence` of the session.
    pub fn write(&mut self, n: usize, session: u128, sequence: u64, value: u64) {
        let body = Op::Write { key: 0, value }.body();
        let (session, attempted) = (SessionId(session), self.raft(n).log().last_times().0);
        let log = self.raft(n).log();
        let opens = |index: &Index| log.get(*index).is_some_and(|entry| entry.payload == Payload::Open(session));
        let in_log = || (log.base().index + 1..=log.last().index).find(opens).unwrap_or(0);
        let opened = self.opened.get(&session).copied().unwrap_or_else(in_log);
        self.propose_raw(n, Payload::Command(Command { session, opened, sequence, settled: 1, attempted, body }));
    }

    pub fn read(&mut self, n: usize) -> u64 {
        self.next += 1;
        self.reads.insert(self.next, (self.acked, None));
        self.feed(n, Input::Read { id: self.next });
        self.next
    }

    pub fn value(&self, n: usize) -> u64 {
        self.nodes[n].machine.values.get(&0).copied().unwrap_or(0)
    }
}

pub fn within(mail: &Envelope, among: &[usize]) -> bool {
    among.contains(&index_of(mail.from.node)) && among.contains(&index_of(mail.to.node))
}
