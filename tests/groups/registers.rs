//! Registers under a random load: the machine, its clients, and the judgement of what they have seen.
//!
//! Two judgements that do not know each other: the history of each register must be linearizable, and each value, which is
//! written by one command only, must have been applied once if that was acknowledged, never if it was refused, and at most
//! once if nobody knows.

use std::{cell::RefCell, collections::BTreeMap, panic::resume_unwind, rc::Rc, time::Duration};

use mosaik::{
    groups::{ApplyContext, CallError, Group, Outcome, SnapshotError, Snapshots, StateMachine},
    prelude::*,
    testing::Sim,
};
use tokio::time::sleep;

use crate::{
    random::Rng,
    sim::linear::{self, Action, Event},
};

/// Registers of one round.
const KEYS: u64 = 3;

/// The values of registers and how often each value was asked for, whether it replaced another or not.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    values: BTreeMap<u64, u64>,
    applied: BTreeMap<u64, u64>,
    /// The place of each value among all that were applied.
    order: BTreeMap<u64, u64>,
    jam: Jam,
}

/// What is wrong with a state: it survives no snapshot.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Jam {
    #[default]
    Nothing,
    /// It cannot be encoded.
    NotWritten,
    /// It cannot be decoded.
    NotRead,
    /// Decoding it panics.
    ReadPanics,
    /// It is decoded as something else.
    ReadWrong,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Change {
    Write {
        key: u64,
        value: u64,
    },
    Cas {
        key: u64,
        expect: u64,
        value: u64,
    },
    /// Writes, and then panics.
    Panic {
        key: u64,
        value: u64,
    },
    /// From now on the state survives no snapshot, or does again.
    Jam(Jam),
    /// Forgets everything, between two rounds.
    Clear,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Ask {
    Value(u64),
    /// How often the value was applied.
    Applied(u64),
    All,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    Value(u64),
    All(Registers),
}

impl StateMachine for Registers {
    type Command = Change;
    /// The value before.
    type Output = u64;
    type Query = Ask;
    type QueryResult = Told;
    const NAME: &'static str = "registers";

    fn apply(&mut self, change: Change, _: &ApplyContext) -> u64 {
        let (key, value) = match change {
            Change::Write { key, value } | Change::Cas { key, value, .. } | Change::Panic { key, value } => {
                (key, value)
            }
            Change::Jam(jam) => {
                self.jam = jam;
                return 0;
            }
            Change::Clear => {
                *self = Self::default();
                return 0;
            }
        };
        *self.applied.entry(value).or_default() += 1;
        let place = self.order.len() as u64;
        self.order.entry(value).or_insert(place);
        let slot = self.values.entry(key).or_default();
        let was = *slot;
        match change {
            Change::Cas { expect, .. } if was != expect => {}
            _ => *slot = value,
        }
        if matches!(change, Change::Panic { .. }) {
            // As a panic does, without its words on stderr.
            resume_unwind(Box::new("asked for"));
        }
        was
    }

    fn query(&self, ask: Ask) -> Told {
        match ask {
            Ask::Value(key) => Told::Value(self.values.get(&key).copied().unwrap_or_default()),
            Ask::Applied(value) => Told::Value(self.applied.get(&value).copied().unwrap_or_default()),
            Ask::All => Told::All(self.clone()),
        }
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::with(
            |state| {
                let state = state.clone();
                Box::new(move || match state.jam {
                    Jam::NotWritten => Err(SnapshotError::new("jammed")),
                    _ => Ok(postcard::to_allocvec(&state)?.into()),
                })
            },
            |bytes| {
                let mut state: Self = postcard::from_bytes(bytes)?;
                match state.jam {
                    Jam::NotRead => return Err(SnapshotError::new("jammed")),
                    Jam::ReadPanics => resume_unwind(Box::new("jammed")),
                    Jam::ReadWrong => state.applied.insert(0, state.applied.len() as u64),
                    Jam::Nothing | Jam::NotWritten => None,
                };
                Ok(state)
            },
        )
    }
}

/// The next version of the machine: all of it is where it was.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Next {
    migrated: bool,
    registers: Registers,
}

impl StateMachine for Next {
    type Command = ();
    type Output = u64;
    type Query = ();
    type QueryResult = (bool, Registers);
    const NAME: &'static str = Registers::NAME;
    const VERSION: u32 = Registers::VERSION + 1;

    fn apply(&mut self, (): (), _: &ApplyContext) -> u64 {
        let slot = self.registers.values.entry(u64::MAX).or_default();
        *slot += 1;
        *slot
    }

    fn query(&self, (): ()) -> (bool, Registers) {
        (self.migrated, self.registers.clone())
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::serde().migrate_with(Registers::VERSION, |bytes| {
            Ok(Self { migrated: true, registers: postcard::from_bytes(bytes)? })
        })
    }
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    Refused,
    Unknown,
}

/// What clients and faults share.
#[derive(Default)]
pub struct Shared {
    /// The members that run.
    pub groups: RefCell<BTreeMap<usize, Group<Registers>>>,
    /// Clients end.
    pub done: RefCell<bool>,
    /// Registers of earlier rounds are not touched again.
    pub round: RefCell<u64>,
    history: RefCell<BTreeMap<u64, Vec<Event>>>,
    fates: RefCell<BTreeMap<u64, Fate>>,
    /// Values of commands that one handle was given one after the other, without waiting.
    pipelines: RefCell<Vec<Vec<u64>>>,
    /// Strong reads, and those of them that failed.
    reads: RefCell<(usize, usize)>,
    values: RefCell<u64>,
}

/// What was judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged {
    pub acknowledged: usize,
    pub unknown: usize,
    /// Strong reads, and those of them that failed.
    pub reads: usize,
    pub failed_reads: usize,
    /// Histories, and those of them that were too large to be searched.
    pub histories: usize,
    pub too_large: usize,
}

impl Judged {
    pub fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.reads += other.reads;
        self.failed_reads += other.failed_reads;
        self.histories += other.histories;
        self.too_large += other.too_large;
    }
}

/// One client, until it is told to end.
pub async fn client(sim: Sim, shared: Rc<Shared>, mut rng: Rng, nodes: usize) {
    while !*shared.done.borrow() {
        sleep(rng.millis(1, 400)).await;
        let group = shared.groups.borrow().get(&rng.node(nodes)).cloned();
        if let Some(group) = group {
            shared.act(&sim, group.with_timeout(rng.millis(200, 8000)), &mut rng).await;
        }
    }
}

impl Shared {
    /// One operation.
    async fn act(&self, sim: &Sim, group: Group<Registers>, rng: &mut Rng) {
        let key = *self.round.borrow() * KEYS + rng.below(KEYS);
        let start = micros(sim);
        if rng.below(100) < 35 {
            self.reads.borrow_mut().0 += 1;
            let told = match group.query(Ask::Value(key), Consistency::Strong).await {
                Ok(told) => told,
                Err(error) => {
                    let known = matches!(error, CallError::Timeout { .. } | CallError::Stopped(_));
                    assert!(known, "a read fails for want of time or of a member only: {error}");
                    self.reads.borrow_mut().1 += 1;
                    return;
                }
            };
            let Told::Value(saw) = *told else { panic!("not what was asked for") };
            return self.record(key, Event { start, end: Some(micros(sim)), action: Action::Read { saw } });
        }
        if rng.below(100) == 0 {
            let jams = [Jam::NotWritten, Jam::NotRead, Jam::ReadPanics, Jam::ReadWrong, Jam::Nothing, Jam::Nothing];
            // What becomes of it does not matter.
            let _ = group.execute(Change::Jam(jams[rng.node(jams.len())]), Consistency::Weak).await;
            return;
        }
        // Some are sent one after the other, without waiting: they are applied in this order, those that are.
        let count = if rng.below(4) == 0 { 2 + rng.below(4) } else { 1 };
        let commands: Vec<_> = (0..count).map(|_| self.command(key, rng)).collect();
        if count > 1 {
            self.pipelines.borrow_mut().push(commands.iter().map(|command| command.1).collect());
        }
        let runs = commands.into_iter().map(|command| self.run(sim, &group, key, start, command));
        futures::future::join_all(runs).await;
    }

    fn command(&self, key: u64, rng: &mut Rng) -> (Change, u64, Consistency) {
        let value = *self.values.borrow() + 1;
        *self.values.borrow_mut() = value;
        let expect = value.saturating_sub(1 + rng.below(5));
        let cas = rng.below(100) < 25;
        let panics = rng.below(100) < 4;
        let change = match (panics, cas) {
            (true, _) => Change::Panic { key, value },
            (false, true) => Change::Cas { key, expect, value },
            (false, false) => Change::Write { key, value },
        };
        let consistency = if rng.below(2) == 0 { Consistency::Strong } else { Consistency::Weak };
        (change, value, consistency)
    }

    async fn run(
        &self,
        sim: &Sim,
        group: &Group<Registers>,
        key: u64,
        start: u64,
        (change, value, consistency): (Change, u64, Consistency),
    ) {
        let panics = matches!(change, Change::Panic { .. });
        let result = group.execute(change, consistency).await;
        if result.is_ok()
            && consistency == Consistency::Strong
            && let Ok(told) = group.query(Ask::Applied(value), Consistency::Weak).await
        {
            assert_eq!(*told, Told::Value(1), "a strong command is applied locally when it is answered");
        }
        let (was, fate) = match &result {
            Ok(_) if panics => panic!("a command that panics has no output"),
            // Whatever became of it, it has no effect.
            Err(_) if panics => (None, Fate::Refused),
            Err(CallError::Panicked { index }) => panic!("a command that does not panic is said to at {index}"),
            Ok(was) => (Some(*was), Fate::Acknowledged),
            Err(error) if error.outcome() == Outcome::None => (None, Fate::Refused),
            Err(_) => (None, Fate::Unknown),
        };
        self.fates.borrow_mut().insert(value, fate);
        if fate != Fate::Refused {
            let action = match change {
                Change::Cas { expect, .. } => Action::Cas { expect, value, was },
                _ => Action::Write { value, was },
            };
            self.record(key, Event { start, end: was.map(|_| micros(sim)), action });
        }
    }

    fn record(&self, key: u64, event: Event) {
        self.history.borrow_mut().entry(key).or_default().push(event);
    }

    /// Snapshots can be made again.
    pub async fn unjam(&self, group: &Group<Registers>) {
        group.execute(Change::Jam(Jam::Nothing), Consistency::Strong).await.unwrap();
    }

    /// Judges what was done since the last judgement, by what the group has in the end. No client runs.
    pub async fn judge(&self, group: &Group<Registers>) -> Judged {
        let told = group.query(Ask::All, Consistency::Strong).await.unwrap();
        let Told::All(end) = &*told else { panic!("not what was asked for") };
        let mut judged = Judged::default();
        (judged.reads, judged.failed_reads) = std::mem::take(&mut *self.reads.borrow_mut());
        for pipeline in std::mem::take(&mut *self.pipelines.borrow_mut()) {
            let places: Vec<_> = pipeline.iter().filter_map(|value| end.order.get(value)).collect();
            assert!(
                places.is_sorted(),
                "commands {pipeline:?} of one handle were applied in another order: {places:?}"
            );
        }
        for (value, fate) in std::mem::take(&mut *self.fates.borrow_mut()) {
            let times = end.applied.get(&value).copied().unwrap_or_default();
            let right = match fate {
                Fate::Acknowledged => times == 1,
                Fate::Refused => times == 0,
                Fate::Unknown => times <= 1,
            };
            assert!(right, "the command of value {value}, {fate:?}, was applied {times} times");
            judged.acknowledged += usize::from(fate == Fate::Acknowledged);
            judged.unknown += usize::from(fate == Fate::Unknown);
        }
        for (key, mut history) in std::mem::take(&mut *self.history.borrow_mut()) {
            let saw = end.values.get(&key).copied().unwrap_or_default();
            history.push(Event { start: u64::MAX - 1, end: Some(u64::MAX), action: Action::Read { saw } });
            judged.histories += 1;
            match linear::check(&history) {
                Ok(linear) => assert!(linear, "register {key} is not linearizable: {history:#?}"),
                Err(_) => judged.too_large += 1,
            }
        }
        judged
    }
}

fn micros(sim: &Sim) -> u64 {
    u64::try_from(sim.elapsed().as_micros()).unwrap()
}

/// How long it takes until any of the members acknowledges a write.
pub async fn first_write(shared: &Shared) -> Duration {
    let began = tokio::time::Instant::now();
    let groups: Vec<_> = shared.groups.borrow().values().map(|group| group.with_timeout(crate::lab::LIMIT)).collect();
    let probe = Change::Cas { key: u64::MAX, expect: u64::MAX, value: 0 };
    let writes = groups.iter().map(|group| Box::pin(group.execute(probe, Consistency::Weak)));
    futures::future::select_ok(writes).await.unwrap();
    began.elapsed()
}
