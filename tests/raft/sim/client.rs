//! Callers on every node: they submit operations to the session of their node, which goes through routers of leaders as in
//! a real group, over calls that are lost, late and repeated. What they saw is judged.

use std::collections::{BTreeMap, BTreeSet};

use mosaik::groups::{
    client::{Batch, Call, CallId, Done, Event as Told, Failure, Notice, Response, Router, Session, Source},
    raft::{ClusterId, Index, Input, Mutant, Refusal, SessionId},
};

use super::{
    linear::{self, Action, Event as Operation},
    machine::Op,
    world::{Event, World, index_of},
};

/// How a router answers a remote session: its node, the life of that node, and the flight.
#[derive(Clone, Copy, Debug)]
pub struct ReplyTo(usize, u64, u64);

/// What one life of a node has for callers.
pub struct Host {
    pub session: Session,
    pub router: Router<ReplyTo>,
    /// The first proposal of the present step that the core refused.
    pub refused: Option<(u64, Refusal)>,
    /// Leadership as the router knows it.
    led: Option<u64>,
    epoch: u64,
    next: CallId,
    calls: BTreeMap<CallId, Submitted>,
    wakes: u64,
    driving: bool,
}

#[derive(Clone, Copy)]
struct Submitted {
    op: Op,
    client: usize,
    start: u64,
}

/// A read under way.
struct Read {
    client: usize,
    key: u8,
    start: u64,
    node: usize,
    /// What was acknowledged before it began.
    floor: (Option<ClusterId>, Index),
}

/// Where a value came from: node, life and place in the order of submissions.
type Origin = (usize, u64, CallId);

#[derive(Default)]
pub struct Clients {
    /// Operations of each client that are under way.
    busy: Vec<usize>,
    reads_out: BTreeMap<u64, Read>,
    next_read: u64,
    values: u64,
    origins: BTreeMap<u64, Origin>,
    /// Where each value was applied.
    ran: BTreeMap<(ClusterId, u64), Index>,
    /// The last place in the order of submissions that was applied, of each life.
    order: BTreeMap<(ClusterId, usize, u64), (CallId, Index)>,
    /// Values whose callers were told that they were not applied.
    never: BTreeSet<u64>,
    /// What was seen, by cluster (none: never answered) and key.
    history: BTreeMap<(Option<ClusterId>, u8), Vec<Operation>>,
    /// Changes acknowledged by one cluster: an earlier attempt may take effect in another one, if a founding was split.
    elsewhere: Vec<(ClusterId, u8, Operation)>,
    acked: BTreeMap<ClusterId, Index>,
    last_cluster: Option<ClusterId>,
    pub acked_at: u64,
    pub writes: u64,
    pub reads: u64,
    pub unknown: u64,
    /// Told as expired, with their session or by themselves.
    pub expired: u64,
    /// Histories too large to judge.
    pub unjudged: u64,
    pub stopped: bool,
}

const KEYS: u64 = 3;
/// Operations of one client at once.
const BUSY: usize = 3;
/// How long a caller waits, microseconds.
const PATIENCE: u64 = 8_000_000;
/// Between two tries of a rejected batch, microseconds.
const RETRY: u64 = 15_000;

impl Clients {
    pub fn new(count: usize) -> Self {
        Self { busy: vec![0; count], ..Self::default() }
    }

    /// Every register of every cluster must have a linear history.
    pub fn judge(&mut self) {
        let clusters: BTreeSet<ClusterId> = self.history.keys().filter_map(|(cluster, _)| *cluster).collect();
        for cluster in clusters {
            for key in 0..KEYS as u8 {
                let mut history = self.history.get(&(Some(cluster), key)).cloned().unwrap_or_default();
                history.extend(self.history.get(&(None, key)).into_iter().flatten().copied());
                let others = self.elsewhere.iter().filter(|(of, at, _)| *of != cluster && *at == key);
                history.extend(others.map(|(_, _, operation)| *operation));
                match linear::check(&history) {
                    Ok(linear) => assert!(linear, "register {key} is not linearizable: {history:?}"),
                    Err(_) => self.unjudged += 1,
                }
            }
        }
    }

    /// The machine of a member really ran an operation: each runs once, in the order of its caller, and never if its caller
    /// was told that it did not.
    pub fn ran(&mut self, cluster: ClusterId, op: Op, index: Index) {
        let value = op.value();
        let at = *self.ran.entry((cluster, value)).or_insert(index);
        assert_eq!(at, index, "an operation of a caller was applied twice, as entries {at} and {index}");
        assert!(!self.never.contains(&value), "applied after its caller was told that it never would be");
        let Some((node, life, place)) = self.origins.get(&value).copied() else { return };
        let last = self.order.entry((cluster, node, life)).or_insert((place, index));
        assert!(place >= last.0 || index <= last.1, "applied before an earlier one of the same node");
        *last = (*last).max((place, index));
    }

    /// The outcome stays unknown: the operation may still happen at any later time.
    fn unknown(&mut self, submitted: Submitted) {
        self.unknown += 1;
        let operation = unknown(submitted.op, submitted.start);
        self.history.entry((None, submitted.op.key())).or_default().push(operation);
    }

    fn acknowledged(&mut self, submitted: Submitted, cluster: ClusterId, index: Index, was: u64, now: u64) {
        let action = match submitted.op {
            Op::Write { value, .. } => Action::Write { value, was: Some(was) },
            Op::Cas { expect, value, .. } => Action::Cas { expect, value, was: Some(was) },
        };
        assert!(self.ran.contains_key(&(cluster, submitted.op.value())), "acknowledged and nowhere applied");
        self.writes += 1;
        self.acked_at = now;
        let acked = self.acked.entry(cluster).or_insert(0);
        *acked = (*acked).max(index);
        self.last_cluster = Some(cluster);
        let key = submitted.op.key();
        self.elsewhere.push((cluster, key, unknown(submitted.op, submitted.start)));
        let operation = Operation { start: submitted.start, end: Some(now), action };
        self.history.entry((Some(cluster), key)).or_default().push(operation);
    }
}

/// The change may happen at any time after it was asked for, or never.
fn unknown(op: Op, start: u64) -> Operation {
    let action = match op {
        Op::Write { value, .. } => Action::Write { value, was: None },
        Op::Cas { expect, value, .. } => Action::Cas { expect, value, was: None },
    };
    Operation { start, end: None, action }
}

impl World {
    pub fn host(&mut self, n: usize) -> Host {
        let (epoch, id) = (self.clock(n).mono, self.session_id());
        let settings = &self.plan.settings;
        Host {
            session: Session::new(id, 2 * settings.election_max, self.plan.sessions.1, 0, settings.switch),
            router: Router::new(),
            refused: None,
            led: None,
            epoch,
            next: 0,
            calls: BTreeMap::new(),
            wakes: 0,
            driving: false,
        }
    }

    fn session_id(&mut self) -> SessionId {
        SessionId(u128::from(self.rng.next()) << 64 | u128::from(self.rng.next()))
    }

    /// The clock of the node's session: it begins with the process.
    fn micros(&self, n: usize) -> u64 {
        let now = self.clock(n).mono;
        self.nodes[n].host.as_ref().map_or(0, |host| now - host.epoch)
    }

    /// The process has died: nobody is told anything.
    pub fn callers_lost(&mut self, n: usize) {
        let Some(host) = self.nodes[n].host.take() else { return };
        for (_, submitted) in host.calls {
            self.clients.busy[submitted.client] -= 1;
            self.clients.unknown(submitted);
        }
    }

    /// The client begins something new.
    pub fn client_acts(&mut self, c: usize) {
        if self.clients.stopped {
            return;
        }
        let delay = self.rng.between(1_000, 400_000);
        self.at(delay, Event::Client(c));
        let n = self.rng.below(self.nodes.len() as u64) as usize;
        if self.nodes[n].host.is_none() || self.clients.busy[c] >= BUSY {
            return;
        }
        if self.rng.chance(350_000) {
            return self.read(c, n);
        }
        let burst = if self.rng.chance(200_000) { BUSY - self.clients.busy[c] } else { 1 };
        let calls: Vec<Call> = (0..burst).filter_map(|_| self.call(c, n)).collect();
        if let Some(host) = &mut self.nodes[n].host {
            host.session.submit(calls);
        }
        self.drive(n);
    }

    fn call(&mut self, c: usize, n: usize) -> Option<Call> {
        let (dice, key) = (self.rng.below(100), self.rng.below(KEYS) as u8);
        self.clients.values += 1;
        let value = self.clients.values;
        let expect = value.saturating_sub(1 + dice % 5);
        let op = if dice < 75 { Op::Write { key, value } } else { Op::Cas { key, expect, value } };
        let (start, now, life) = (self.now, self.micros(n), self.nodes[n].life);
        let host = self.nodes[n].host.as_mut()?;
        let id = host.next;
        host.next += 1;
        host.calls.insert(id, Submitted { op, client: c, start });
        self.clients.busy[c] += 1;
        self.clients.origins.insert(value, (n, life, id));
        let strong = dice % 2 == 0;
        Some(Call {
            id,
            body: op.body(),
            deadline: now + PATIENCE,
            strong,
            detached: false,
            ack_on_append: dice % 7 == 0,
        })
    }

    fn read(&mut self, c: usize, n: usize) {
        let floor = self.clients.last_cluster;
        let floor = (floor, floor.and_then(|it| self.clients.acked.get(&it)).copied().unwrap_or(0));
        let read = Read { client: c, key: self.rng.below(KEYS) as u8, start: self.now, node: n, floor };
        self.clients.next_read += 1;
        let id = self.clients.next_read;
        self.clients.busy[c] += 1;
        self.clients.reads_out.insert(id, read);
        self.at(3_000_000, Event::ReadLate(id));
        self.feed(n, Input::Read { id });
    }

    /// The read has no answer, and no effect.
    pub fn read_failed(&mut self, id: u64) {
        if let Some(read) = self.clients.reads_out.remove(&id) {
            self.clients.busy[read.client] -= 1;
        }
    }

    pub fn read_ready(&mut self, n: usize, id: u64, index: Index) {
        let machine = &self.nodes[n].machine;
        assert!(machine.applied >= index, "a read is ready before its index is applied");
        let Some(read) = self.clients.reads_out.remove(&id) else { return };
        assert_eq!(read.node, n);
        self.clients.busy[read.client] -= 1;
        let saw = machine.values.get(&read.key).copied().unwrap_or(0);
        let Some(cluster) = self.cluster(n) else { return };
        if read.floor.0 == Some(cluster) {
            assert!(index >= read.floor.1, "a strong read at {index} misses what was acknowledged before it");
        }
        self.clients.reads += 1;
        let operation = Operation { start: read.start, end: Some(self.now), action: Action::Read { saw } };
        self.clients.history.entry((Some(cluster), read.key)).or_default().push(operation);
    }

    /// A command of a session was applied at this node, or a session opened.
    pub fn result(&mut self, n: usize, session: SessionId, done: Done, time: u64) {
        let (now, applied) = (self.micros(n), self.nodes[n].machine.applied);
        let Some(host) = &mut self.nodes[n].host else { return };
        host.session.observe_time(time, now);
        let mut notices = Vec::new();
        host.router.applied(session, &done, time, |notice| notices.push(notice));
        host.session.applied_here(session, done);
        host.session.applied(applied);
        notices.into_iter().for_each(|notice| self.notice(n, notice));
        self.tell(n);
    }

    pub fn restored(&mut self, n: usize) {
        let applied = self.nodes[n].machine.applied;
        if let Some(host) = &mut self.nodes[n].host {
            host.session.restored(applied);
        }
        self.tell(n);
    }

    fn notice(&mut self, n: usize, notice: Notice<ReplyTo>) {
        let now = self.micros(n);
        let Some(host) = &mut self.nodes[n].host else { return };
        match notice {
            Notice::Queued(flight) => host.session.queued(flight),
            Notice::Lost(flight) => host.session.lost(flight, RETRY, now),
            Notice::Rejected(flight, why) => host.session.rejected(flight, why, RETRY, now),
            Notice::Remote(ReplyTo(to, life, flight), response) => {
                if !self.cuts.contains_key(&(n, to)) {
                    let delay = self.delay();
                    self.at(delay, Event::Response(to, life, flight, response));
                }
            }
        }
    }

    /// The round of a worker: what the session has to send goes out, and what came for a leader goes into its log.
    pub fn drive(&mut self, n: usize) {
        if self.nodes[n].host.as_ref().is_none_or(|host| host.driving) || self.nodes[n].paused_until > self.now {
            return;
        }
        let life = self.nodes[n].life;
        if let Some(host) = &mut self.nodes[n].host {
            host.driving = true;
        }
        for _ in 0..100 {
            if self.nodes[n].life != life || !self.turn(n) {
                break;
            }
        }
        if self.nodes[n].life == life {
            self.tell(n);
            self.wake_later(n);
        }
        if let Some(host) = &mut self.nodes[n].host {
            host.driving = false;
        }
    }

    /// Whether there may be more to do.
    fn turn(&mut self, n: usize) -> bool {
        let (now, fresh) = (self.micros(n), self.session_id());
        let crate::sim::world::Node { raft: Some(raft), host: Some(host), life, .. } = &mut self.nodes[n] else {
            return false;
        };
        let (cluster, term, leader, me) = (raft.cluster(), raft.term(), raft.leader(), raft.me());
        let leads = cluster.filter(|_| raft.is_leader());
        let led = leads.map(|_| term);
        if host.led != led {
            host.led = led;
            host.router.clear();
        }
        host.session.set_leader(cluster.zip(leader).map(|(cluster, leader)| (cluster, leader, term)));
        let mut out: Vec<(usize, u64, Batch)> = Vec::new();
        let mut notices = Vec::new();
        while let Some((flight, to, batch)) = host.session.poll(now, || fresh) {
            if to == me {
                notices.extend(host.router.take(batch, Source::Local(flight), leads));
            } else {
                out.push((index_of(to.node), flight, batch));
            }
        }
        let (life, sent) = (*life, !out.is_empty() || !notices.is_empty());
        for (to, flight, batch) in out {
            self.request(n, life, to, flight, batch);
        }
        notices.into_iter().for_each(|notice| self.notice(n, notice));
        let Some(host) = &mut self.nodes[n].host else { return false };
        if host.router.is_idle() {
            return sent;
        }
        host.refused = None;
        let proposals = host.router.proposals();
        if !proposals.is_empty() {
            self.feed(n, Input::Propose(proposals));
        }
        if self.nodes[n].life != life {
            return false;
        }
        let Some(host) = &mut self.nodes[n].host else { return false };
        let refused = host.refused.take();
        for notice in host.router.decided(refused) {
            self.notice(n, notice);
        }
        true
    }

    fn request(&mut self, n: usize, life: u64, to: usize, flight: u64, batch: Batch) {
        // What is not answered is taken for lost when the link is: sooner or later.
        let lost = self.rng.between(300_000, 3_000_000);
        self.at(lost, Event::CallLost(n, life, flight));
        if self.cuts.contains_key(&(n, to)) || (!self.calm && self.rng.chance(self.plan.loss)) {
            return;
        }
        let from = ReplyTo(n, life, flight);
        // A call arrives at most once, perhaps long after its caller has given it up: bonds owe that to sessions.
        let delay = self.delay();
        self.at(delay, Event::Request(to, from, batch));
    }

    pub fn requested(&mut self, n: usize, from: ReplyTo, batch: Batch) {
        if self.nodes[n].paused_until > self.now {
            let delay = self.nodes[n].paused_until - self.now;
            return self.at(delay, Event::Request(n, from, batch));
        }
        let crate::sim::world::Node { raft: Some(raft), host: Some(host), .. } = &mut self.nodes[n] else { return };
        let leads = raft.cluster().filter(|_| raft.is_leader());
        let led = leads.map(|_| raft.term());
        if host.led != led {
            host.led = led;
            host.router.clear();
        }
        let notice = host.router.take(batch, Source::Remote(from), leads);
        notice.into_iter().for_each(|notice| self.notice(n, notice));
        self.drive(n);
    }

    pub fn responded(&mut self, n: usize, life: u64, flight: u64, response: Response) {
        if self.nodes[n].life != life {
            return;
        }
        let (now, applied) = (self.micros(n), self.nodes[n].machine.applied);
        let Some(host) = &mut self.nodes[n].host else { return };
        match response {
            Response::Done(results, time) => host.session.answered(flight, results, time, applied, now),
            Response::Queued => host.session.queued(flight),
            Response::Rejected(why) => host.session.rejected(flight, why, RETRY, now),
            Response::Removed | Response::HandingOver(_) => {}
        }
        self.drive(n);
    }

    pub fn call_lost(&mut self, n: usize, life: u64, flight: u64) {
        let (now, is_same) = (self.micros(n), self.nodes[n].life == life);
        if let Some(host) = self.nodes[n].host.as_mut().filter(|_| is_same) {
            host.session.lost(flight, RETRY, now);
            self.drive(n);
        }
    }

    fn wake_later(&mut self, n: usize) {
        let (now, life) = (self.micros(n), self.nodes[n].life);
        let Some(host) = &mut self.nodes[n].host else { return };
        if let Some(at) = host.session.wake_at(now) {
            host.wakes += 1;
            let wake = host.wakes;
            self.at((at.saturating_sub(now)).max(1_000), Event::Wake(n, life, wake));
        }
    }

    pub fn wake(&mut self, n: usize, life: u64, wake: u64) {
        if self.nodes[n].life == life && self.nodes[n].host.as_ref().is_some_and(|host| host.wakes == wake) {
            self.drive(n);
        }
    }

    /// Callers past their time are told so.
    pub fn expire(&mut self, n: usize) {
        let now = self.micros(n);
        if let Some(host) = &mut self.nodes[n].host {
            host.session.expire(now, |_| false);
        }
        self.drive(n);
    }

    fn tell(&mut self, n: usize) {
        let Some(host) = &mut self.nodes[n].host else { return };
        for event in host.session.events().collect::<Vec<_>>() {
            let Told::Done(id, answer) = event else { continue };
            let Some(submitted) = self.nodes[n].host.as_mut().and_then(|host| host.calls.remove(&id)) else {
                panic!("a caller was answered twice");
            };
            self.clients.busy[submitted.client] -= 1;
            match answer {
                Ok((index, output)) => {
                    let was = super::machine::was(&output);
                    let Some(cluster) = self.cluster(n) else { panic!("an answer without a cluster") };
                    self.clients.acknowledged(submitted, cluster, index, was, self.now);
                }
                Err(failure) => self.failed(submitted, failure),
            }
        }
    }

    fn failed(&mut self, submitted: Submitted, failure: Failure) {
        // No run takes an hour. With a short retention a session may end while slow disks and links keep its commands waiting.
        let is_long = self.plan.sessions.1 >= 3_600_000 && !self.plan.settings.switch.is(Mutant::SessionEvictedEarly);
        assert!(failure != Failure::Expired || !is_long, "expired, though the group remembers for an hour");
        self.clients.expired += u64::from(failure == Failure::Expired);
        if failure.is_unknown() {
            return self.clients.unknown(submitted);
        }
        let value = submitted.op.value();
        let applied = self.clients.ran.keys().any(|(_, ran)| *ran == value);
        assert!(!applied, "{failure:?} was told of an operation that was applied");
        self.clients.never.insert(value);
    }
}
