//! Clients: one operation at a time each, retried at other members under the same number, and the history they saw.

use std::collections::{BTreeMap, BTreeSet};

use mosaik::groups::raft::{ClusterId, Command, Index, Input, Payload, Proposal, Refusal, SessionId};

use super::{
    linear::{self, Action, Event as Operation},
    machine::{Applied, Op, Outcome},
    world::{Event, World, index_of},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Open,
    Change(Op),
    Read(u8),
}

#[derive(Clone, Copy, Debug)]
struct Current {
    doing: Doing,
    start: u64,
    sequence: u64,
    /// Wall time of the first attempt, milliseconds.
    attempted: u64,
    attempt: u64,
    tries: u32,
    node: usize,
    /// What was acknowledged before a read began.
    floor: (Option<ClusterId>, Index),
}

struct Client {
    session: SessionId,
    opened: bool,
    sequence: u64,
    current: Option<Current>,
}

pub struct Clients {
    all: Vec<Client>,
    attempts: u64,
    values: u64,
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
    /// Histories too large to judge.
    pub unjudged: u64,
    pub stopped: bool,
}

const KEYS: u64 = 3;

impl Clients {
    pub fn new(count: usize) -> Self {
        let client = |_| Client { session: SessionId(0), opened: false, sequence: 0, current: None };
        Self {
            all: (0..count).map(client).collect(),
            attempts: 0,
            values: 0,
            history: BTreeMap::new(),
            elsewhere: Vec::new(),
            acked: BTreeMap::new(),
            last_cluster: None,
            acked_at: 0,
            writes: 0,
            reads: 0,
            unknown: 0,
            unjudged: 0,
            stopped: false,
        }
    }

    /// Every register of every cluster must have a linear history.
    pub fn judge(&mut self) {
        for client in 0..self.all.len() {
            self.give_up(client);
        }
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

    /// The outcome stays unknown: the operation may still happen at any later time.
    fn give_up(&mut self, client: usize) {
        let Some(current) = self.all[client].current.take() else { return };
        self.all[client].opened = false;
        if let Doing::Change(op) = current.doing {
            self.unknown += 1;
            let operation = unknown(op, current.start);
            self.history.entry((None, op.key())).or_default().push(operation);
        }
    }

    fn done(&mut self, client: usize, cluster: ClusterId, now: u64, key: u8, action: Action) {
        let Some(current) = self.all[client].current.take() else { return };
        if let Doing::Change(op) = current.doing {
            self.elsewhere.push((cluster, key, unknown(op, current.start)));
        }
        let operation = Operation { start: current.start, end: Some(now), action };
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
    /// The client begins something new, or tries again.
    pub fn client_acts(&mut self, c: usize) {
        if self.clients.all[c].current.is_none() {
            if self.clients.stopped {
                return;
            }
            self.begin(c);
        }
        self.attempt(c);
    }

    fn begin(&mut self, c: usize) {
        let (dice, key) = (self.rng.below(100), self.rng.below(KEYS) as u8);
        let session = SessionId(u128::from(self.rng.next()) << 64 | u128::from(self.rng.next()));
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        self.clients.values += 1;
        let value = self.clients.values;
        let client = &mut self.clients.all[c];
        let doing = if dice < 35 {
            Doing::Read(key)
        } else if !client.opened {
            client.session = session;
            client.sequence = 0;
            Doing::Open
        } else {
            client.sequence += 1;
            let expect = value.saturating_sub(1 + dice % 5);
            Doing::Change(if dice < 85 { Op::Write { key, value } } else { Op::Cas { key, expect, value } })
        };
        let sequence = client.sequence;
        let floor = self.clients.last_cluster;
        let floor = (floor, floor.and_then(|it| self.clients.acked.get(&it)).copied().unwrap_or(0));
        let (start, attempted) = (self.now, 1_000_000 + self.now / 1000);
        self.clients.all[c].current =
            Some(Current { doing, start, sequence, attempted, attempt: 0, tries: 0, node, floor });
    }

    fn attempt(&mut self, c: usize) {
        self.clients.attempts += 1;
        let attempt = self.clients.attempts;
        let client = &mut self.clients.all[c];
        let Some(current) = &mut client.current else { return };
        current.attempt = attempt;
        current.tries += 1;
        if current.tries > 25 {
            self.clients.give_up(c);
            return self.at(100_000, Event::Client(c));
        }
        let Current { doing, sequence, attempted, node, .. } = *current;
        let (session, settled) = (client.session, sequence);
        self.at(1_500_000, Event::Timeout(c, attempt));
        let propose = |payload| Input::Propose(vec![Proposal { id: attempt, payload }]);
        let input = match doing {
            Doing::Open => propose(Payload::Open(session)),
            Doing::Change(op) => {
                propose(Payload::Command(Command { session, sequence, settled, attempted, body: op.encode() }))
            }
            Doing::Read(_) => Input::Read { id: attempt },
        };
        self.feed(node, input);
    }

    fn of_attempt(&self, attempt: u64) -> Option<usize> {
        self.clients.all.iter().position(|client| client.current.is_some_and(|it| it.attempt == attempt))
    }

    pub fn client_timeout(&mut self, c: usize, attempt: u64) {
        if self.of_attempt(attempt) == Some(c) {
            self.try_elsewhere(c, None, 1);
        }
    }

    fn try_elsewhere(&mut self, c: usize, hint: Option<usize>, delay: u64) {
        let any = self.rng.below(self.nodes.len() as u64) as usize;
        if let Some(current) = &mut self.clients.all[c].current {
            current.node = hint.unwrap_or(any);
            current.attempt = 0;
            self.at(delay, Event::Client(c));
        }
    }

    pub fn client_refused(&mut self, attempt: u64, why: Refusal) {
        let Some(c) = self.of_attempt(attempt) else { return };
        let hint = if let Refusal::NotLeader(hint) = why { hint.map(|it| index_of(it.node)) } else { None };
        let delay = self.rng.between(20_000, 300_000);
        self.try_elsewhere(c, hint, delay);
    }

    pub fn client_refused_read(&mut self, attempt: u64) {
        if let Some(c) = self.of_attempt(attempt) {
            let delay = self.rng.between(20_000, 300_000);
            self.try_elsewhere(c, None, delay);
        }
    }

    pub fn client_read(&mut self, n: usize, attempt: u64, index: Index) {
        let Some(c) = self.of_attempt(attempt) else { return };
        let Some(current) = self.clients.all[c].current else { return };
        let Doing::Read(key) = current.doing else { return };
        let machine = &self.nodes[n].machine;
        assert!(machine.applied >= index, "a read is ready before its index is applied");
        let saw = machine.values.get(&key).copied().unwrap_or(0);
        let Some(cluster) = self.cluster(n) else { return };
        if current.floor.0 == Some(cluster) {
            assert!(index >= current.floor.1, "a strong read at {index} misses what was acknowledged before it");
        }
        self.clients.reads += 1;
        self.clients.done(c, cluster, self.now, key, Action::Read { saw });
        self.pause_client(c);
    }

    pub fn client_applied(&mut self, n: usize, cluster: ClusterId, applied: &Applied, index: Index) {
        let found = self.clients.all.iter().position(|client| {
            let waits = client.current.is_some_and(|it| {
                it.node == n && it.sequence == applied.sequence && !matches!(it.doing, Doing::Read(_))
            });
            waits && client.session == applied.session
        });
        let Some(c) = found else { return };
        let Some(current) = self.clients.all[c].current else { return };
        match (current.doing, applied.outcome) {
            (Doing::Open, Outcome::Opened(opened)) => {
                self.clients.all[c].opened = opened;
                self.clients.all[c].current = None;
            }
            (Doing::Change(op), Outcome::Was(was)) => {
                let action = match op {
                    Op::Write { value, .. } => Action::Write { value, was: Some(was) },
                    Op::Cas { expect, value, .. } => Action::Cas { expect, value, was: Some(was) },
                };
                self.clients.writes += 1;
                self.clients.acked_at = self.now;
                let acked = self.clients.acked.entry(cluster).or_insert(0);
                if applied.ran {
                    *acked = (*acked).max(index);
                }
                self.clients.last_cluster = Some(cluster);
                self.clients.done(c, cluster, self.now, op.key(), action);
            }
            (_, Outcome::Lost) => self.clients.give_up(c),
            _ => return,
        }
        self.pause_client(c);
    }

    fn pause_client(&mut self, c: usize) {
        let delay = self.rng.between(1_000, 400_000);
        self.at(delay, Event::Client(c));
    }
}
