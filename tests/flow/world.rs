//! One producer, its subscribers and the connections between them, as the drivers of `mosaik::streams` run the core.

use std::{collections::VecDeque, ops::Bound, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    checks::{Allowed, History, Ledger, Sent},
    late::{Line, Owed},
    streams::{
        core::{
            SubId,
            filter::Filter,
            frames::{self, Frame, FrameReader, HEADER, MAX_BATCH, split_item},
            key::Key,
            lag::{Limit, Room},
            log::{CHUNK, LARGE, Log, Settings},
            mutants::{Mutant, Switch},
            progress::Progress,
            retain::{Label, Retained, Retention},
        },
        limits::OnLag,
    },
};

/// The shape of one world.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub policy: OnLag,
    pub limit: Limit,
    pub ring: Limit,
    pub lifespan: Option<Duration>,
    pub retention: Option<Retention>,
    pub subscribers: usize,
    pub keys: u8,
    /// Bytes that a connection holds between its ends.
    pub window: usize,
    /// Of a hundred items so many are large.
    pub large: u32,
    /// Which filters subscribers have: none, the same for all, or another one for each.
    pub filters: Filters,
    pub mutant: Option<Mutant>,
}

impl Plan {
    pub fn small(policy: OnLag) -> Self {
        let limit = Limit { items: 16, bytes: 1 << 20 };
        let (ring, window) = (Limit { items: 64, bytes: 1 << 20 }, 1 << 20);
        let (lifespan, retention, mutant, filters) = (None, None, None, Filters::None);
        Self { policy, limit, ring, lifespan, retention, subscribers: 1, keys: 4, window, large: 0, filters, mutant }
    }

    fn allowed(&self) -> Allowed {
        let conflates = self.policy == OnLag::Conflate;
        let drops = conflates || self.policy == OnLag::DropOldest;
        Allowed { drops, conflates, expires: self.lifespan.is_some() }
    }

    fn log(&self) -> Log {
        let Self { policy, limit, ring, lifespan, mutant, .. } = *self;
        Log::new(Settings { policy, limit, ring, lifespan, keyed: true, switch: Switch::plant(mutant) })
    }

    fn kept(&self) -> Option<(Retained, Owed)> {
        let switch = Switch::plant(self.mutant);
        self.retention.map(|retention| (Retained::new(retention, switch), Owed::new(retention)))
    }
}

/// Whose subscribers are for which keys.
#[derive(Debug, Clone, Copy)]
pub enum Filters {
    None,
    /// All for this key.
    Key(u8),
    /// Each another one, some none.
    Mixed,
}

impl Filters {
    fn of(self, subscriber: usize) -> Option<Arc<Filter>> {
        let key = |of: u8| Key::new(&[of]);
        let filter = match (self, subscriber % 5) {
            (Self::None, _) | (Self::Mixed, 0) => return None,
            (Self::Key(of), _) => Filter::Prefix(vec![of]),
            (Self::Mixed, 1) => Filter::In([key(0), key(3), key(11)].into()),
            (Self::Mixed, 2) => Filter::Range(Bound::Included(key(2)), Bound::Excluded(key(9))),
            (Self::Mixed, 3) => Filter::Prefix(vec![1]),
            (Self::Mixed, _) => Filter::In([].into()),
        };
        Some(Arc::new(filter))
    }
}

/// One connection, from its producer's session to its consumer's reader.
#[derive(Debug)]
struct Connection {
    id: SubId,
    /// The answer to the subscription, until it is read, and what is owed with it, from where on.
    accepted: Option<(u64, u64, bool)>,
    owed: (VecDeque<u64>, u64),
    /// The replay, until it is read to its end. The live flow waits for it.
    replay: Option<Line>,
    /// Taken and not written yet, the bytes of control frames apart.
    unwritten: VecDeque<(Bytes, bool)>,
    pipe: VecDeque<Bytes>,
    in_pipe: usize,
    reader: FrameReader,
}

#[derive(Debug)]
struct Subscriber {
    progress: Progress,
    connection: Option<Connection>,
    ledger: Ledger,
    paused: bool,
    filter: Option<Arc<Filter>>,
    /// A subscription that only the producer still believes in.
    ghost: Option<SubId>,
}

pub struct World {
    pub plan: Plan,
    pub rng: SmallRng,
    pub now: Duration,
    epoch: u64,
    log: Log,
    kept: Option<(Retained, Owed)>,
    history: History,
    subscribers: Vec<Subscriber>,
    next_id: SubId,
    pub steps: u64,
}

impl World {
    pub fn new(plan: Plan, seed: u64) -> Self {
        let subscriber = |which| Subscriber {
            progress: Progress::with(Switch::plant(plan.mutant)),
            connection: None,
            ledger: Ledger::of(plan.filters.of(which)),
            paused: false,
            filter: plan.filters.of(which),
            ghost: None,
        };
        Self {
            plan,
            rng: SmallRng::seed_from_u64(seed),
            now: Duration::ZERO,
            epoch: 1,
            log: plan.log(),
            kept: plan.kept(),
            history: History::from([(1, Vec::new())]),
            subscribers: (0..plan.subscribers).map(subscriber).collect(),
            next_id: 0,
            steps: 0,
        }
    }

    pub fn ledger(&self, subscriber: usize) -> &Ledger {
        &self.subscribers[subscriber].ledger
    }

    /// Sends an item, if there is room: with this key, padded to at least this size.
    pub fn send(&mut self, key: u8, size: usize) -> bool {
        let room = self.log.room(|| self.now) == Room::Yes;
        for id in self.log.expelled() {
            for subscriber in &mut self.subscribers {
                subscriber.connection.take_if(|connection| connection.id == id);
                subscriber.ghost.take_if(|ghost| *ghost == id);
            }
            self.left();
        }
        if !room {
            return false;
        }
        let sent = self.history.entry(self.epoch).or_default();
        let mut payload = [self.epoch.to_le_bytes(), (sent.len() as u64).to_le_bytes()].concat();
        payload.resize(size.max(16), key);
        let mut framed = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
        framed.extend_from_slice(&payload);
        let seq = sent.len() as u64;
        sent.push(Sent { key, bytes: framed.len() });
        if let Some((retained, owed)) = &mut self.kept {
            retained.push(
                seq,
                Bytes::copy_from_slice(&framed),
                Label { key: Key::new(&[key]), opens: key == 0 },
                self.now,
            );
            owed.sent(seq, key, framed.len(), self.now);
            let (held, limit) = (retained.held(), self.plan.retention.map(|retention| retention.limit));
            assert!(limit.is_none_or(|limit| held.items <= limit.items && held.bytes <= limit.bytes), "{held:?} kept");
        }
        self.log.tick(self.now);
        if self.log.subscribers() == 0 && !self.log.has_ring() {
            self.log.skip();
        } else if framed.len() >= LARGE {
            self.log.append_chunk(framed.into(), &mut Key::new(&[key]));
        } else {
            self.log.append(&framed, &mut Key::new(&[key]));
        }
        let bound = self.plan.ring.bytes + self.plan.limit.bytes + 4 * CHUNK as u64;
        assert!(self.log.held() as u64 <= bound, "{} bytes are held", self.log.held());
        true
    }

    /// The subscriber's consumer connects, and its producer serves it.
    pub fn connect(&mut self, which: usize) {
        let subscriber = &mut self.subscribers[which];
        if subscriber.connection.is_some() {
            return;
        }
        if let Some(ghost) = subscriber.ghost.take() {
            self.log.unsubscribe(ghost);
            self.left();
        }
        let subscriber = &mut self.subscribers[which];
        let from = subscriber.progress.resume().map(|resume| resume.within(self.epoch));
        let wants = subscriber.ledger.wants(self.epoch);
        let id = self.next_id;
        self.next_id += 1;
        let filter = subscriber.filter.clone();
        let next = self.log.join_filtered(id, from, filter.clone());
        let (mut owed, mut replay) = (VecDeque::new(), None);
        if let Some((retained, model)) = &mut self.kept {
            owed = model.between(wants, next, self.now);
            replay = retained.replay(from.unwrap_or_default(), next, filter, self.now);
        }
        let kept = self.ring();
        let wanted = from.unwrap_or(kept.1);
        assert!(next <= wanted.max(kept.0), "served from {next} on: {wanted} was asked for, and {kept:?} is kept");
        let subscriber = &mut self.subscribers[which];
        subscriber.connection = Some(Connection {
            id,
            accepted: Some((self.epoch, next, replay.is_some())),
            owed: (owed, wants),
            replay: replay.map(|replay| Line::new(replay, next)),
            unwritten: VecDeque::new(),
            pipe: VecDeque::new(),
            in_pipe: 0,
            reader: FrameReader::default(),
        });
    }

    /// What the ring must have, from where to where.
    fn ring(&self) -> (u64, u64) {
        let sent = &self.history[&self.epoch];
        let (mut items, mut bytes) = (0, 0);
        for item in sent.iter().rev() {
            let larger = bytes + item.bytes as u64;
            if items == self.plan.ring.items || larger > self.plan.ring.bytes {
                break;
            }
            (items, bytes) = (items + 1, larger);
        }
        (sent.len() as u64 - items, sent.len() as u64)
    }

    /// The connection is lost with all that is on it. The producer may notice only when its consumer is back.
    pub fn cut(&mut self, which: usize, noticed: bool) {
        let Some(connection) = self.subscribers[which].connection.take() else { return };
        if noticed {
            self.log.unsubscribe(connection.id);
            self.left();
        } else {
            self.subscribers[which].ghost = Some(connection.id);
        }
    }

    fn left(&mut self) {
        if self.log.subscribers() == 0 {
            self.log.unclaimed(false);
        }
    }

    /// The producer is killed and starts anew.
    pub fn crash(&mut self) {
        self.epoch += 1;
        self.log = self.plan.log();
        self.kept = self.plan.kept();
        self.history.insert(self.epoch, Vec::new());
        for subscriber in &mut self.subscribers {
            (subscriber.connection, subscriber.ghost) = (None, None);
        }
    }

    pub fn pause(&mut self, which: usize, paused: bool) {
        self.subscribers[which].paused = paused;
    }

    /// The producer's session writes up to so many bytes; whether it did anything.
    pub fn write(&mut self, which: usize, max: usize) -> bool {
        let Some(connection) = &mut self.subscribers[which].connection else { return false };
        if connection.unwritten.is_empty() {
            self.log.tick(self.now);
            let Some(taken) = self.log.take(connection.id, max.clamp(1, MAX_BATCH)) else { return false };
            connection.unwritten.extend(taken.header().map(|header| (header, false)));
            connection.unwritten.extend(taken.chunks.into_iter().map(|chunk| (chunk, true)));
        }
        let mut room = self.plan.window.saturating_sub(connection.in_pipe).min(max);
        let mut wrote = false;
        while let Some((mut bytes, counts)) = connection.unwritten.pop_front() {
            let part = bytes.split_to(bytes.len().min(room));
            if !bytes.is_empty() {
                connection.unwritten.push_front((bytes, counts));
            }
            if part.is_empty() {
                break;
            }
            room -= part.len();
            connection.in_pipe += part.len();
            if counts {
                self.log.wrote(connection.id, part.len());
            }
            connection.pipe.push_back(part);
            wrote = true;
        }
        wrote
    }

    /// The producer writes up to so many bytes of a replay; whether it did anything.
    pub fn write_replay(&mut self, which: usize, max: usize) -> bool {
        let connection = self.subscribers[which].connection.as_mut();
        let line = connection.and_then(|connection| connection.replay.as_mut());
        line.is_some_and(|line| line.write(max, self.plan.window))
    }

    /// An idle session's heartbeat.
    pub fn heartbeat(&mut self, which: usize) {
        let Some(connection) = &mut self.subscribers[which].connection else { return };
        if connection.unwritten.is_empty() && connection.in_pipe + HEADER <= self.plan.window {
            let Some((before, next)) = self.log.heartbeat(connection.id) else { return };
            connection.in_pipe += HEADER;
            connection.pipe.push_back(frames::mark(before, next));
        }
    }

    /// The consumer reads up to so many bytes; whether there were any.
    pub fn read(&mut self, which: usize, max: usize) -> bool {
        let subscriber = &mut self.subscribers[which];
        let (allowed, history) = (self.plan.allowed(), &self.history);
        let Subscriber { progress, connection: Some(connection), ledger, paused: false, .. } = subscriber else {
            return false;
        };
        let mut any = false;
        if let Some((epoch, next, replay)) = connection.accepted.take() {
            any = true;
            ledger.ended();
            let known = ledger.at().is_some();
            let joined = progress.joined(epoch, next, replay);
            if !known {
                ledger.begins(epoch, next);
            } else if joined.restarted_from.is_some() {
                ledger.restarted(epoch);
            }
            let (owed, from) = std::mem::take(&mut connection.owed);
            ledger.joined(owed, from, replay, history);
            joined.missed.into_iter().for_each(|missed| ledger.gap(missed, allowed, history));
        }
        if let Some(line) = &mut connection.replay {
            any |= line.read(max);
            while let Some(frame) = line.reader.next_frame().expect("a producer writes valid frames") {
                match frame {
                    Frame::Items { first, count, data } => {
                        let step = progress.replayed(first, count.into()).expect("within the cut");
                        step.missed.into_iter().for_each(|missed| ledger.gap(missed, allowed, history));
                        for (seq, real) in items(first, &data).filter(|(seq, _)| seq - first >= step.skip) {
                            ledger.replayed(seq, real, history);
                        }
                    }
                    Frame::End { next, .. } => {
                        let missed = progress.replay_ended(next).expect("the cut");
                        missed.into_iter().for_each(|missed| ledger.gap(missed, allowed, history));
                        ledger.replay_over(next);
                        connection.replay = None;
                        break;
                    }
                    Frame::Filtered { next } => {
                        progress.filtered(next).expect("within the cut");
                        ledger.filtered(next, history);
                    }
                    Frame::Mark { .. } => panic!("no marks in a replay"),
                }
            }
        }
        let mut left = max;
        while left > 0
            && let Some(mut bytes) = connection.pipe.pop_front()
        {
            let part = bytes.split_to(bytes.len().min(left));
            left -= part.len();
            connection.in_pipe -= part.len();
            connection.reader.push(&part);
            if !bytes.is_empty() {
                connection.pipe.push_front(bytes);
            }
            any = true;
        }
        while connection.replay.is_none()
            && let Some(frame) = connection.reader.next_frame().expect("a producer writes valid frames")
        {
            match frame {
                Frame::Items { first, count, data } => {
                    let step = progress.received(first, count.into());
                    step.missed.into_iter().for_each(|missed| ledger.gap(missed, allowed, history));
                    for (seq, real) in items(first, &data).filter(|(seq, _)| seq - first >= step.skip) {
                        ledger.delivered(seq, real, history);
                    }
                }
                Frame::Mark { reason, next } => {
                    progress.marked(next, reason).into_iter().for_each(|missed| ledger.gap(missed, allowed, history));
                }
                Frame::Filtered { next } => {
                    progress.filtered(next).expect("no replay is under way");
                    ledger.filtered(next, history);
                }
                Frame::End { .. } => panic!("nobody ends a subscription here"),
            }
        }
        any
    }

    /// Everybody connects, reads and is idle; then everybody must know of everything.
    pub fn rest(&mut self) {
        for which in 0..self.subscribers.len() {
            self.pause(which, false);
        }
        loop {
            let mut any = false;
            for which in 0..self.subscribers.len() {
                self.connect(which);
                any |= self.write_replay(which, 1 << 20);
                any |= self.write(which, 1 << 20);
                any |= self.read(which, 1 << 20);
            }
            if !any {
                break;
            }
        }
        for which in 0..self.subscribers.len() {
            self.heartbeat(which);
            self.read(which, 1 << 20);
            self.subscribers[which].ledger.at_rest(self.epoch, &self.history);
        }
    }

    /// One step at random.
    pub fn step(&mut self) {
        self.steps += 1;
        let which = self.rng.random_range(0..self.subscribers.len());
        match self.rng.random_range(0..1000u32) {
            0..350 => {
                let (key, large) = (self.rng.random_range(0..self.plan.keys), self.rng.random_range(0..100));
                let size = if large < self.plan.large { LARGE + 100 } else { self.rng.random_range(16..400) };
                self.send(key, size);
            }
            350..600 => _ = self.write_some(which),
            600..640 => {
                let max = self.rng.random_range(1..10_000);
                self.write_replay(which, max);
            }
            640..850 => {
                let max = self.rng.random_range(1..20_000);
                self.read(which, max);
            }
            850..900 => self.now += Duration::from_millis(self.rng.random_range(1..60)),
            900..920 => self.heartbeat_if_idle(which),
            920..960 => self.connect(which),
            960..980 => {
                let noticed = self.rng.random();
                self.cut(which, noticed);
            }
            980..998 => {
                let paused = self.rng.random_range(0..3) == 0;
                self.pause(which, paused);
            }
            _ => self.crash(),
        }
    }

    fn write_some(&mut self, which: usize) -> bool {
        let max = self.rng.random_range(1..10_000);
        self.write(which, max)
    }

    fn heartbeat_if_idle(&mut self, which: usize) {
        if !self.write_some(which) {
            self.heartbeat(which);
        }
    }
}

/// The numbers of whole items, and the epochs and numbers that they had when they were sent.
fn items(first: u64, data: &[u8]) -> impl Iterator<Item = (u64, (u64, u64))> {
    let mut rest = data;
    (first..).map_while(move |seq| {
        let (payload, behind) = split_item(rest)?;
        rest = behind;
        let number = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
        Some((seq, (number(0), number(8))))
    })
}
