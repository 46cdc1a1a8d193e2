//! The event loop: what happens when, and what a core's outputs do.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use mosaik::groups::client::{Batch, Response};
use mosaik::groups::raft::{
    Change, Envelope, Fitness, Input, Member, Message, Mutant, NodeId, Now, Output, Payload, Position, Raft, Settings,
};

use super::{
    checks::{Checks, Disks},
    client::{Clients, Host, ReplyTo},
    disk::Disk,
    machine::Machine,
    plan::Plan,
    rng::Rng,
};

#[derive(Debug)]
pub enum Event {
    Start(usize),
    Tick(usize, u64),
    Deliver(Box<Envelope>),
    Synced(usize, u64, u64),
    Feed(usize, u64, Box<Input>),
    Links,
    Storm(Storm),
    Calm,
    Heal(u64),
    Client(usize),
    /// A read that is not ready by now has failed.
    ReadLate(u64),
    /// A batch arrives at a node.
    Request(usize, ReplyTo, Batch),
    /// An answer arrives at a session: node, its life, flight.
    Response(usize, u64, u64, Response),
    CallLost(usize, u64, u64),
    /// The session of a node wants to do something.
    Wake(usize, u64, u64),
    /// A member whose storage failed notices, and stops as its contract says.
    Stop(usize, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storm {
    Crash,
    Pause,
    Cut,
    OneWay,
    Isolate,
    Wipe,
    Transfer,
    Change,
    Compact,
    /// Storage fails: nothing completes any more.
    Eio,
    /// A wall clock jumps.
    Skew,
    /// Storage answers nothing for a while.
    Hang,
}

pub struct Node {
    pub id: NodeId,
    pub incarnation: u64,
    /// Grows at every start of the process; events of an earlier one are void.
    pub life: u64,
    /// Boxed, because it is taken out for every step.
    pub raft: Option<Box<Raft>>,
    /// Its callers and what they need, while it runs.
    pub host: Option<Host>,
    pub disk: Disk,
    pub disk_free: u64,
    /// Until then storage answers nothing.
    pub hung_until: u64,
    /// Storage has failed.
    pub broken: bool,
    pub machine: Machine,
    pub paused_until: u64,
    /// Clock rate, millionths of true time.
    pub rate: u64,
    /// How far its wall clock is ahead of true time, milliseconds.
    pub skew: i64,
}

impl Node {
    pub fn member(&self) -> Member {
        Member { node: self.id, incarnation: self.incarnation }
    }
}

struct At(u64, u64, Event);

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for At {}
impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for At {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// A seed takes 20,000 steps of the core on average; one that takes this many feeds itself.
const MAX_STEPS: u64 = 2_000_000;

pub struct World {
    pub now: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<At>>,
    pub rng: Rng,
    pub plan: Plan,
    pub nodes: Vec<Node>,
    /// Cut links, from and to, with the fault that cut them.
    pub cuts: BTreeMap<(usize, usize), u64>,
    connected: BTreeMap<(usize, usize), (Member, Member)>,
    pub checks: Checks,
    pub clients: Clients,
    /// Disks of dead incarnations, as they were.
    graves: BTreeMap<Member, Disk>,
    pub calm: bool,
    pub wipes: u64,
    pub steps: u64,
    pub ends: u64,
    faults: u64,
    trace: bool,
    /// Directed schedules drop messages by this.
    pub filter: Option<Box<dyn FnMut(&Envelope) -> bool>>,
}

struct Others<'a>(&'a [Node], &'a BTreeMap<Member, Disk>);

impl Disks for Others<'_> {
    fn disk(&self, member: &Member) -> Option<&Disk> {
        let lives = self.0.iter().find(|node| node.member() == *member).map(|node| &node.disk);
        lives.or_else(|| self.1.get(member))
    }

    fn lives(&self, member: &Member) -> bool {
        self.0.iter().any(|node| node.member() == *member)
    }

    fn last(&self, member: &Member) -> Option<Position> {
        let node = self.0.iter().find(|node| node.member() == *member)?;
        Some(node.raft.as_ref()?.log().last())
    }
}

pub fn id(n: usize) -> NodeId {
    NodeId::from_bytes([n as u8 + 1; 32])
}

pub fn index_of(node: NodeId) -> usize {
    node.as_bytes()[0] as usize - 1
}

const STORMS: [Storm; 12] = [
    Storm::Crash,
    Storm::Pause,
    Storm::Cut,
    Storm::OneWay,
    Storm::Isolate,
    Storm::Wipe,
    Storm::Transfer,
    Storm::Change,
    Storm::Compact,
    Storm::Eio,
    Storm::Skew,
    Storm::Hang,
];

impl World {
    pub fn swarm(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut rng = Rng::new(seed);
        let switch = mutant.map_or_else(Default::default, mosaik::groups::raft::Switch::plant);
        let mut plan = Plan::swarm(&mut rng, switch);
        // Drawn apart from the rest, so that a seed means what it meant before disks hung.
        let mut apart = Rng::new(seed ^ 0x6861_6E67);
        if apart.chance(300_000) {
            plan.hang = apart.pick(&[2, 5, 10]) * 1_000_000;
            plan.settings.unwritten = apart.pick(&[3, 20, 16_384]);
            plan.settings.unwritten_bytes = apart.pick(&[300, 64 << 20]);
            plan.settings.hung = apart.pick(&[500_000, 2_000_000]);
        }
        Self::new(plan, rng)
    }

    pub fn new(plan: Plan, mut rng: Rng) -> Self {
        let nodes = (0..plan.nodes).map(|n| Node {
            id: id(n),
            incarnation: 1,
            life: 0,
            raft: None,
            host: None,
            disk: Disk::default(),
            disk_free: 0,
            hung_until: 0,
            broken: false,
            machine: Machine::new(plan.settings.switch, plan.sessions),
            paused_until: 0,
            rate: 1_000_000 - plan.drift + rng.below(2 * plan.drift + 1),
            skew: if plan.skew > 0 { skew(&mut rng) } else { 0 },
        });
        let nodes: Vec<Node> = nodes.collect();
        let one_genesis = plan.declared > 0 && plan.nodes < 2 * plan.declared as usize && !plan.volatile;
        let mut world = Self {
            now: 1,
            sequence: 0,
            queue: BinaryHeap::new(),
            clients: Clients::new(plan.clients),
            nodes,
            cuts: BTreeMap::new(),
            connected: BTreeMap::new(),
            checks: Checks::new(one_genesis),
            graves: BTreeMap::new(),
            calm: false,
            wipes: 0,
            steps: 0,
            faults: 0,
            ends: plan.stormy + plan.calm,
            trace: std::env::var_os("RAFT_TRACE").is_some(),
            filter: None,
            rng,
            plan,
        };
        for n in 0..world.nodes.len() {
            let at = if world.plan.start == 0 { 0 } else { world.rng.below(world.plan.start) };
            world.at(at, Event::Start(n));
        }
        for client in 0..world.plan.clients {
            let at = world.rng.below(2_000_000);
            world.at(at, Event::Client(client));
        }
        world.at(10, Event::Links);
        for storm in STORMS {
            world.next_storm(storm);
        }
        let stormy = world.plan.stormy;
        world.at(stormy, Event::Calm);
        world
    }

    pub fn at(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(At(self.now + delay, self.sequence, event)));
    }

    /// Runs until the time, microseconds.
    pub fn run_until(&mut self, end: u64) {
        while self.queue.peek().is_some_and(|Reverse(At(at, _, _))| *at <= end) {
            let Some(Reverse(At(at, _, event))) = self.queue.pop() else { break };
            self.now = at;
            self.handle(event);
        }
        self.now = end;
    }

    /// Runs until the condition holds; panics at the deadline.
    pub fn wait(&mut self, what: &str, seconds: u64, mut done: impl FnMut(&Self) -> bool) {
        let deadline = self.now + seconds * 1_000_000;
        while !done(self) {
            assert!(self.now < deadline, "waited {seconds} s in vain: {what}");
            let next = self.queue.peek().map_or(deadline, |Reverse(At(at, _, _))| *at);
            self.run_until(next);
        }
    }

    fn handle(&mut self, event: Event) {
        if self.trace && !matches!(event, Event::Tick(..) | Event::Links | Event::Synced(..)) {
            eprintln!("{:>9} {event:?}", self.now);
        }
        match event {
            Event::Start(n) => self.start(n),
            Event::Tick(n, life) => {
                if self.nodes[n].life == life && self.nodes[n].raft.is_some() {
                    let next = self.rng.between(20_000, 40_000);
                    self.at(next, Event::Tick(n, life));
                    self.feed(n, Input::Tick);
                    self.expire(n);
                }
            }
            Event::Deliver(envelope) => self.feed(index_of(envelope.to.node), Input::Message(*envelope)),
            Event::Synced(n, life, token) => {
                let until = self.nodes[n].hung_until;
                if self.nodes[n].life == life && until > self.now && !self.calm {
                    return self.at(until - self.now, Event::Synced(n, life, token));
                }
                if self.nodes[n].life == life && !self.nodes[n].broken {
                    self.nodes[n].disk.complete(token);
                    self.feed(n, Input::Persisted { token });
                }
            }
            Event::Feed(n, life, input) => {
                if self.nodes[n].life == life {
                    self.feed(n, *input);
                }
            }
            Event::Stop(n, life) => {
                if self.nodes[n].life == life {
                    self.crash(n);
                    let delay = self.rng.between(self.plan.restart.0, self.plan.restart.1);
                    self.at(delay, Event::Start(n));
                }
            }
            Event::Links => self.links(),
            Event::Storm(storm) => {
                if !self.calm {
                    self.storm(storm);
                    self.next_storm(storm);
                }
            }
            Event::Heal(fault) => self.cuts.retain(|_, by| *by != fault),
            Event::Calm => self.becalm(),
            Event::Client(client) => self.client_acts(client),
            Event::ReadLate(id) => self.read_failed(id),
            Event::Request(n, from, batch) => self.requested(n, from, batch),
            Event::Response(n, life, flight, response) => self.responded(n, life, flight, response),
            Event::CallLost(n, life, flight) => self.call_lost(n, life, flight),
            Event::Wake(n, life, wake) => self.wake(n, life, wake),
        }
    }

    pub fn start(&mut self, n: usize) {
        if self.nodes[n].raft.is_some() {
            return;
        }
        let settings =
            Settings { declared: self.plan.declared, volatile: self.plan.volatile, ..self.plan.settings.clone() };
        let (seed, now) = (self.rng.next(), self.clock(n));
        let node = &mut self.nodes[n];
        node.life += 1;
        node.disk_free = 0;
        node.hung_until = 0;
        node.broken = false;
        node.machine = Machine::new(settings.switch, self.plan.sessions);
        let life = node.life;
        node.raft = Some(Box::new(Raft::new(settings, node.member(), node.disk.durable.clone(), seed, now)));
        self.nodes[n].host = Some(self.host(n));
        self.at(1, Event::Tick(n, life));
    }

    pub fn crash(&mut self, n: usize) {
        if self.nodes[n].raft.take().is_none() {
            return;
        }
        self.callers_lost(n);
        let keep = self.rng.below(self.nodes[n].disk.pending() + 1);
        let node = &mut self.nodes[n];
        node.life += 1;
        node.paused_until = 0;
        node.disk.crash(keep);
        self.checks.died(node.member());
        if self.plan.volatile {
            self.blank(n);
        }
    }

    /// The storage of a stopped node is gone.
    pub fn blank(&mut self, n: usize) {
        assert!(self.nodes[n].raft.is_none());
        let grave = std::mem::take(&mut self.nodes[n].disk);
        self.graves.insert(self.nodes[n].member(), grave);
        if !self.plan.settings.switch.is(Mutant::IncarnationReused) {
            self.nodes[n].incarnation += 1;
        }
        // A founder that forgets is one more possible founder.
        self.checks.one_genesis = false;
        self.wipes += 1;
    }

    pub fn clock(&self, n: usize) -> Now {
        let node = &self.nodes[n];
        let mono = 1 + (u128::from(self.now) * u128::from(node.rate) / 1_000_000) as u64;
        Now { mono, wall: (EPOCH + self.now / 1000).saturating_add_signed(node.skew) }
    }

    /// Gives the core an input and carries out what it says.
    pub fn feed(&mut self, n: usize, input: Input) {
        let now = self.clock(n);
        let node = &mut self.nodes[n];
        if node.paused_until > self.now {
            let (delay, life) = (node.paused_until - self.now, node.life);
            return self.at(delay, Event::Feed(n, life, Box::new(input)));
        }
        let Some(mut raft) = node.raft.take() else { return };
        let outputs = raft.step(input, now);
        self.steps += 1;
        assert!(
            self.steps < MAX_STEPS,
            "{} steps by {} us of virtual time: the run does not end",
            self.steps,
            self.now
        );
        self.checks.after_step(&raft, &Others(&self.nodes, &self.graves));
        let life = self.nodes[n].life;
        self.nodes[n].raft = Some(raft);
        for output in outputs {
            if !self.calm && self.plan.crash_at_output > 0 && self.rng.chance(self.plan.crash_at_output) {
                self.crash(n);
                let delay = self.rng.between(self.plan.restart.0, self.plan.restart.1);
                self.at(delay, Event::Start(n));
            }
            if self.nodes[n].life != life {
                return;
            }
            self.output(n, output);
        }
        self.drive(n);
    }

    fn output(&mut self, n: usize, output: Output) {
        let life = self.nodes[n].life;
        match output {
            Output::Persist { token, writes } => {
                self.nodes[n].disk.submit(token, writes);
                let (low, high) = self.plan.fsync;
                let slow = !self.calm && self.rng.chance(self.plan.slow_fsync);
                let takes = self.rng.between(low, high) * if slow { 50 } else { 1 };
                let done = self.nodes[n].disk_free.max(self.now) + takes;
                self.nodes[n].disk_free = done;
                self.at(done - self.now, Event::Synced(n, life, token));
            }
            Output::Send(envelope) => self.send(n, envelope),
            Output::Apply(entries) => {
                let mut last = 0;
                for entry in entries {
                    last = entry.index;
                    let most = (self.now / 1000) * (1_000_000 + self.plan.drift) / 1_000_000 + 1;
                    assert!(entry.time <= most, "group time {} runs ahead of true time {most}", entry.time);
                    if let Some(applied) = self.nodes[n].machine.apply(&entry) {
                        let cluster = self.cluster(n).expect("has one");
                        if !applied.ran.is_empty() {
                            self.checks.ran(cluster, applied.session, applied.done.sequence, entry.index);
                        }
                        for op in applied.ran {
                            self.clients.ran(cluster, op, entry.index);
                        }
                        self.result(n, applied.session, applied.done, entry.time);
                    }
                }
                self.applied(n, last);
            }
            Output::Restore(snapshot) => {
                self.nodes[n].machine.restore(&snapshot.data);
                assert_eq!(self.nodes[n].machine.applied, snapshot.manifest.position.index);
                self.restored(n);
                self.applied(n, snapshot.manifest.position.index);
            }
            Output::ReadReady { id, index } => self.read_ready(n, id, index),
            Output::ReadFailed { id } => self.read_failed(id),
            Output::Queued { .. } => {}
            Output::Refused { id, why } => {
                if let Some(host) = &mut self.nodes[n].host {
                    host.refused.get_or_insert((id, why));
                }
            }
            Output::Wipe { into } => {
                let from = self.cluster(n).expect("has one");
                self.checks.wiped(from, into);
                self.crash(n);
                if !self.plan.volatile {
                    self.blank(n);
                    self.wipes -= 1;
                }
                self.at(50_000, Event::Start(n));
            }
            Output::Halted(_) | Output::Contradicted { .. } => {}
        }
    }

    fn applied(&mut self, n: usize, index: u64) {
        let (life, delay) = (self.nodes[n].life, self.rng.between(1, 2_000));
        self.at(delay, Event::Feed(n, life, Box::new(Input::Applied { index })));
    }

    pub fn cluster(&self, n: usize) -> Option<mosaik::groups::raft::ClusterId> {
        self.nodes[n].raft.as_ref()?.cluster()
    }

    fn send(&mut self, n: usize, mut envelope: Envelope) {
        let Some(raft) = &self.nodes[n].raft else { return };
        let others = Others(&self.nodes, &self.graves);
        self.checks.sent(raft, &envelope, &self.nodes[n].disk, &others);
        if raft.founding().founded.is_some() {
            self.checks.founded(raft, &others);
        }
        if self.filter.as_mut().is_some_and(|keep| !keep(&envelope)) {
            return;
        }
        let to = index_of(envelope.to.node);
        if self.cuts.contains_key(&(n, to)) || (!self.calm && self.rng.chance(self.plan.loss)) {
            return;
        }
        if !self.calm && self.rng.chance(self.plan.damage) {
            damage(&mut envelope, &mut self.rng);
        }
        if !self.calm && self.rng.chance(self.plan.duplicate) {
            let delay = self.delay();
            self.at(delay, Event::Deliver(Box::new(envelope.clone())));
        }
        let delay = self.delay();
        self.at(delay, Event::Deliver(Box::new(envelope)));
    }

    pub fn delay(&mut self) -> u64 {
        let delay = self.plan.delay.0 + self.rng.below(self.plan.delay.1 + 1);
        if !self.calm && self.rng.chance(self.plan.straggle) { delay * 100 } else { delay }
    }

    /// Links go up and down as nodes and cables do.
    fn links(&mut self) {
        self.at(200_000, Event::Links);
        if self.calm {
            self.operate();
        }
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                let up = |n: usize| self.nodes[n].raft.is_some();
                let open = !self.cuts.contains_key(&(a, b)) && !self.cuts.contains_key(&(b, a));
                let pair = (self.nodes[a].member(), self.nodes[b].member());
                let want = (up(a) && up(b) && open).then_some(pair);
                let have = self.connected.get(&(a, b)).copied();
                if let Some((was_a, was_b)) = have
                    && want != have
                {
                    self.connected.remove(&(a, b));
                    self.feed(a, Input::PeerDown(was_b));
                    self.feed(b, Input::PeerDown(was_a));
                }
                if let Some((now_a, now_b)) = want {
                    self.connected.insert((a, b), (now_a, now_b));
                    self.feed(a, Input::PeerUp(now_b));
                    self.feed(b, Input::PeerUp(now_a));
                }
            }
        }
    }

    /// What an operator does: frees a founder from a ballot whose proposer lost its storage, and with it whatever it may
    /// have founded, as nobody else belongs to that cluster.
    fn operate(&mut self) {
        for n in 0..self.nodes.len() {
            let Some(raft) = &self.nodes[n].raft else { continue };
            let Some(ballot) = &raft.founding().accepted else { continue };
            let lives = self.nodes.iter().any(|node| node.member() == ballot.proposer);
            let cluster = Some(ballot.cluster());
            if !lives && self.nodes.iter().flat_map(|node| &node.raft).all(|raft| raft.cluster() != cluster) {
                self.feed(n, Input::ReleaseBallot);
            }
        }
    }

    fn next_storm(&mut self, storm: Storm) {
        let mean = match storm {
            Storm::Crash => self.plan.crash,
            Storm::Pause => self.plan.pause,
            Storm::Cut => self.plan.cut,
            Storm::OneWay => self.plan.one_way,
            Storm::Isolate => self.plan.isolate,
            Storm::Wipe => self.plan.wipe,
            Storm::Transfer => self.plan.transfer,
            Storm::Change => self.plan.change,
            Storm::Compact => self.plan.compact,
            Storm::Eio => self.plan.eio,
            Storm::Skew => self.plan.skew,
            Storm::Hang => self.plan.hang,
        };
        if mean > 0 {
            let delay = self.rng.between(1, 2 * mean);
            self.at(delay, Event::Storm(storm));
        }
    }

    fn storm(&mut self, storm: Storm) {
        let count = self.nodes.len() as u64;
        let n = self.rng.below(count) as usize;
        let other = (n + 1 + self.rng.below(count - 1) as usize) % count as usize;
        self.faults += 1;
        let fault = self.faults;
        let lasts = self.rng.between(1, 2 * self.plan.heal);
        match storm {
            Storm::Crash | Storm::Wipe => {
                self.crash(n);
                if storm == Storm::Wipe && self.nodes[n].raft.is_none() && !self.plan.volatile {
                    self.blank(n);
                }
                let delay = self.rng.between(self.plan.restart.0, self.plan.restart.1);
                self.at(delay, Event::Start(n));
            }
            Storm::Pause => self.nodes[n].paused_until = self.now + self.rng.between(1, 3_000_000),
            Storm::Cut => self.cut(&[(n, other), (other, n)], fault, lasts),
            Storm::OneWay => self.cut(&[(n, other)], fault, lasts),
            Storm::Isolate => {
                let island = self.rng.next();
                let apart = |a: usize, b: usize| (island >> a) & 1 != (island >> b) & 1;
                let all = 0..count as usize;
                let links = all.clone().flat_map(|a| all.clone().map(move |b| (a, b)));
                let links: Vec<_> = links.filter(|(a, b)| apart(*a, *b)).collect();
                self.cut(&links, fault, lasts);
            }
            Storm::Transfer => self.hand_over(n, other),
            Storm::Change => {
                let (member, other) = (self.nodes[n].member(), self.nodes[other].member());
                let change = match self.rng.below(5) {
                    0 | 1 => Change::Demote(member),
                    2 => Change::Promote(member),
                    3 => Change::Remove(member),
                    _ => Change::Swap { out: member, into: other },
                };
                for at in 0..self.nodes.len() {
                    self.feed(at, Input::Change(change.clone()));
                }
            }
            Storm::Compact => self.compact(n),
            Storm::Skew => self.nodes[n].skew = skew(&mut self.rng),
            Storm::Hang => self.nodes[n].hung_until = self.now + self.rng.between(500_000, 8_000_000),
            Storm::Eio => {
                self.nodes[n].broken = true;
                let (life, delay) = (self.nodes[n].life, self.rng.between(1, 500_000));
                self.at(delay, Event::Stop(n, life));
            }
        }
    }

    /// Leadership is to move: to whoever is best, to somebody named who may be dead, behind or without a vote, or because
    /// somebody becomes more or less fit. What it is comes from the clock: drawn, it would change what a seed means.
    fn hand_over(&mut self, n: usize, other: usize) {
        match self.now % 5 {
            0 | 1 => self.feed(n, Input::Transfer { to: None }),
            2 => {
                let to = Some(self.nodes[other].member());
                for at in 0..self.nodes.len() {
                    self.feed(at, Input::Transfer { to });
                }
            }
            3 => self.feed(n, Input::Fitness(Fitness::Preferred)),
            _ => self
                .feed(n, Input::Fitness(if self.now.is_multiple_of(2) { Fitness::Unready } else { Fitness::Normal })),
        }
    }

    pub fn compact(&mut self, n: usize) {
        let machine = &self.nodes[n].machine;
        let (index, data) = (machine.applied, machine.snapshot());
        self.feed(n, Input::Compact { index, data });
    }

    pub fn cut(&mut self, links: &[(usize, usize)], fault: u64, lasts: u64) {
        for link in links {
            self.cuts.insert(*link, fault);
        }
        self.at(lasts, Event::Heal(fault));
    }

    /// Faults end: from here on the group must recover.
    pub fn becalm(&mut self) {
        self.calm = true;
        let switch = self.plan.settings.switch.with_quirks(0);
        self.plan.settings.switch = switch;
        for raft in self.nodes.iter_mut().filter_map(|node| node.raft.as_mut()) {
            raft.set_switch(switch);
        }
        self.cuts.clear();
        for n in 0..self.nodes.len() {
            self.nodes[n].paused_until = self.nodes[n].paused_until.min(self.now);
            self.nodes[n].hung_until = 0;
            if self.nodes[n].broken {
                self.crash(n);
            }
            self.start(n);
        }
    }

    pub fn leader(&self) -> Option<usize> {
        let leads = |n: &usize| self.nodes[*n].raft.as_ref().is_some_and(|raft| raft.is_leader());
        (0..self.nodes.len()).filter(leads).max_by_key(|n| self.nodes[*n].raft.as_ref().map(|it| it.term()))
    }

    pub fn raft(&self, n: usize) -> &Raft {
        self.nodes[n].raft.as_ref().expect("the node runs")
    }

    /// The whole run with its verdict: panics on any violation. Returns whether liveness could be demanded.
    pub fn run(&mut self) -> bool {
        let end = self.ends;
        self.run_until(end - 8_000_000);
        self.clients.stopped = true;
        self.run_until(end);
        // Who came late and fetches a few entries at a time over slow links may need longer; for ever it may not.
        for _ in 0..6 {
            if !self.lags() {
                break;
            }
            self.run_until(self.now + 10_000_000);
        }
        self.verdict()
    }

    /// For the eyes of whoever replays a seed.
    pub fn dump(&self) {
        eprintln!("{:#?}", self.plan);
        for node in &self.nodes {
            let Some(raft) = &node.raft else { continue };
            eprintln!("{:?} {:?}\n  {:?}\n  {:?}", raft.me(), raft.status(), raft.log().membership(), raft.founding());
        }
    }

    fn lags(&self) -> bool {
        let commit = self.leader().map(|n| self.raft(n).commit());
        commit.is_some_and(|commit| self.nodes.iter().flat_map(|node| &node.raft).any(|raft| raft.applied() < commit))
    }

    fn can_live(&self) -> bool {
        let rafts = || self.nodes.iter().filter_map(|node| node.raft.as_ref());
        if rafts().any(|raft| raft.halted().is_some()) {
            return false;
        }
        let Some(most) = rafts().filter(|it| it.cluster().is_some()).max_by_key(|it| {
            let last = it.log().last();
            (last.term, last.index)
        }) else {
            return self.wipes == 0;
        };
        // A member that missed the end of its cluster waits for an operator (consensus.md, known weaknesses).
        if rafts().filter_map(|raft| raft.cluster()).any(|cluster| self.checks.dissolved.contains(&cluster)) {
            return false;
        }
        let alive = |member: &Member| self.nodes.iter().any(|node| node.member() == *member);
        let clusters: std::collections::BTreeSet<_> = rafts().filter_map(|raft| raft.cluster()).collect();
        // The end of the longest log may say less than what is committed: its leader appended it just before it was lost.
        let committed = most.cluster().and_then(|cluster| self.checks.config(cluster));
        let quorum = most.log().membership().quorum(alive) && committed.is_none_or(|config| config.quorum(alive));
        self.wipes == 0 || (clusters.len() == 1 && quorum)
    }

    fn verdict(&mut self) -> bool {
        self.clients.judge();
        if !self.can_live() {
            return false;
        }
        let leader = self.leader().expect("liveness: a leader after the faults ended");
        let lead = self.raft(leader);
        let (commit, cluster) = (lead.commit(), lead.cluster());
        assert!(self.clients.acked_at >= self.plan.stormy + self.plan.calm / 2, "liveness: no write was acknowledged");
        for node in &self.nodes {
            let raft = node.raft.as_ref().expect("all run");
            assert_eq!(raft.cluster(), cluster, "liveness: {:?} is in no or another cluster", raft.me());
            assert!(lead.log().membership().contains(&raft.me()), "liveness: {:?} is not a member", raft.me());
            assert_eq!(raft.applied(), commit, "liveness: {:?} does not catch up", raft.me());
            assert_eq!(node.machine.values, self.nodes[leader].machine.values, "machines differ");
            assert_eq!(node.machine.sessions, self.nodes[leader].machine.sessions, "session tables differ");
        }
        true
    }
}

/// The true wall clock at the beginning, milliseconds.
const EPOCH: u64 = 1_800_000_000_000;

/// How far a wall clock is wrong, milliseconds: from nothing to a lifetime, either way.
fn skew(rng: &mut Rng) -> i64 {
    let most = rng.pick(&[1, 500, 5_000, 7_200_000, 2_200_000_000_000]);
    let by = rng.below(most).cast_signed();
    if rng.chance(500_000) { -by } else { by }
}

/// Flips something in an entry on its way.
fn damage(envelope: &mut Envelope, rng: &mut Rng) {
    let (Message::Append { entries, .. } | Message::Pulled { entries, .. }) = &mut envelope.body else { return };
    if entries.is_empty() {
        return;
    }
    let at = rng.below(entries.len() as u64) as usize;
    if let Payload::Command(command) = &mut entries[at].payload {
        let mut body = command.body.to_vec();
        if let Some(last) = body.last_mut() {
            *last ^= 0x40;
        }
        command.body = body.into();
    }
}
