//! [`Replica`]: the state machine with the replicated table of sessions beside it, and who may touch them when.
//!
//! One at a time: the applier for one chunk of commands, or a query. Both wait for each other as tasks, never as threads, in
//! the order in which they came; so queries run between chunks. Invariant: `State` is that after the entry `applied`, or it is
//! marked as broken, which only the applier sees, because it keeps the lock until it has made the machine anew.

use std::{
    collections::BTreeSet,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::{Instant, timeout_at},
};

use super::{
    applier::{Outcome, SLOW},
    busy::Busy,
};
use crate::{
    groups::{
        client::{CommandResult, Done, bundle},
        machine::{ApplyContext, StateMachine},
        raft::{Command, Entry, Index, Mutant, Payload, Sessions, Switch, Verdict},
        snapshots::{SnapshotError, Snapshots},
        windows::{Shown, Windows},
    },
    primitives::codec::{Codec, Format},
    transport::Tasks,
};

/// Sessions that a group holds at most. *Agreed*, as the next two: all members must have the same.
pub(in crate::groups) const SESSIONS: usize = 16_384;
/// Group time after which an unused session ends, milliseconds.
pub(in crate::groups) const RETENTION: u64 = 3_600_000;
/// Outputs kept for one session.
pub(in crate::groups) const WINDOW: u64 = 16_384;
/// Room for a short output.
const OUTPUT: usize = 8;
/// How often a query looks again for a machine that another query has, before it waits.
const SPINS: u32 = 64;
/// One query of so many is timed: a clock costs as much as a quick query.
const TIMED: u32 = 32;

/// Commands that panic, and are not run when they come again: the index and the place in the entry.
pub(super) type Skipped = BTreeSet<(Index, usize)>;

/// Makes the machine in its first state.
pub(in crate::groups) type Initial<M> = Arc<dyn Fn() -> M + Send + Sync>;

/// The state machine with what is replicated beside it.
pub(in crate::groups) struct Replica<M: StateMachine> {
    state: Arc<Mutex<State<M>>>,
    /// As in the state, for those who do not want to wait for it.
    applied: AtomicU64,
    pub(super) busy: Arc<Busy>,
    snapshots: Snapshots<M>,
    first: First<M>,
    /// What others see of the windows.
    shown: Arc<Shown>,
}

/// Why a query was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::groups) enum NotAsked {
    /// The command being applied took longer than the caller waits.
    Late,
    /// The member ended.
    Ended,
}

/// How to get the machine in its first state again.
enum First<M> {
    Made(Initial<M>),
    Encoded(Bytes),
    /// It is gone.
    Nothing,
}

impl<M: StateMachine> First<M> {
    fn of(machine: &M, initial: Option<Initial<M>>) -> Self {
        let snapshots = M::snapshots();
        let encoded = || {
            // The user's code; a machine that cannot be encoded is only harder to make anew.
            let bytes = catch_unwind(AssertUnwindSafe(|| {
                let bytes = snapshots.encode(machine).ok()?;
                snapshots.read_back(&bytes).is_ok().then_some(bytes)
            }));
            bytes.ok().flatten().map_or(Self::Nothing, Self::Encoded)
        };
        initial.map_or_else(encoded, Self::Made)
    }

    const fn is_known(&self) -> bool {
        !matches!(self, Self::Nothing)
    }
}

pub(super) struct State<M: StateMachine> {
    machine: M,
    commands: Codec<M::Command>,
    outputs: Codec<M::Output>,
    sessions: Sessions,
    /// The last items of the streams that the group owns.
    windows: Windows,
    applied: Index,
    skipped: Skipped,
    /// The commands of the entry being applied that are over.
    part: Part,
    /// A command panicked half-way.
    broken: bool,
    /// Queries take long: they run beside the runtime's workers.
    slow_queries: bool,
    queries: u32,
    switch: Switch,
}

/// What is known of an entry of several commands while it is applied.
#[derive(Debug, Default)]
struct Part {
    /// So many commands are over.
    done: usize,
    /// Their outputs, perhaps with the beginning of the next one.
    outputs: Vec<u8>,
    /// Bytes of outputs that are whole.
    whole: usize,
}

/// How far a chunk got.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Entries that were applied.
    pub count: usize,
    pub results: Vec<Outcome>,
    /// What the command after them said when it panicked.
    pub panicked: Option<String>,
    /// It took longer than a chunk should.
    pub slow: bool,
    /// The last of them was the seal.
    pub sealed: bool,
    /// An entry took so long that it is named in the status.
    pub long: bool,
}

/// Machine and table of sessions, yet to be encoded.
pub(super) struct Captured<F> {
    pub index: Index,
    pub encode: F,
}

fn sessions() -> Sessions {
    Sessions::new(SESSIONS, RETENTION, WINDOW)
}

impl<M: StateMachine> Replica<M> {
    /// `initial` makes `machine` again, if anything does.
    pub(in crate::groups) fn new(machine: M, initial: Option<Initial<M>>) -> Self {
        let first = First::of(&machine, initial);
        Self {
            state: Arc::new(Mutex::new(State::new(machine, sessions(), Windows::default(), 0))),
            applied: AtomicU64::new(0),
            busy: Arc::new(Busy::new()),
            snapshots: M::snapshots(),
            first,
            shown: Arc::default(),
        }
    }

    /// Whether a command that panicked can be undone. The same at all members, or they would differ from then on.
    pub(in crate::groups) fn can_be_made_anew(machine: &M, initial: Option<Initial<M>>) -> bool {
        First::of(machine, initial).is_known()
    }

    /// What others see of the streams that the group owns.
    pub(in crate::groups) fn shown(&self) -> Arc<Shown> {
        self.shown.clone()
    }

    /// The last index applied.
    pub(in crate::groups) fn applied(&self) -> Index {
        self.applied.load(Ordering::Acquire)
    }

    pub(super) const fn snapshots(&self) -> &Snapshots<M> {
        &self.snapshots
    }

    pub(super) const fn has_first(&self) -> bool {
        self.first.is_known()
    }

    /// Waits for its turn.
    pub(super) async fn lock(&self) -> OwnedMutexGuard<State<M>> {
        self.state.clone().lock_owned().await
    }

    /// Asks the machine as it is between two chunks of commands. Returns the index that it reflects, too.
    pub(in crate::groups) async fn query(
        &self,
        tasks: &Tasks,
        query: M::Query,
        deadline: Instant,
    ) -> Result<(M::QueryResult, Index), NotAsked> {
        for _ in 0..SPINS {
            if let Ok(mut state) = self.state.try_lock() {
                if state.slow_queries || state.broken {
                    break;
                }
                return Ok(state.ask(query));
            }
            if self.busy.is_busy() {
                break;
            }
            std::hint::spin_loop();
        }
        let Ok(mut state) = timeout_at(deadline, self.lock()).await else { return Err(NotAsked::Late) };
        if state.broken {
            return Err(NotAsked::Ended);
        }
        if !state.slow_queries {
            return Ok(state.ask(query));
        }
        let asked = tasks.blocking(move || catch_unwind(AssertUnwindSafe(|| state.ask(query))));
        match asked.await {
            Some(Ok(answer)) => Ok(answer),
            // As if the query had been asked on the caller's own thread.
            Some(Err(panic)) => resume_unwind(panic),
            None => Err(NotAsked::Ended),
        }
    }

    /// Says how far the machine is. The caller has the lock.
    pub(super) fn show(&self, state: &State<M>) {
        self.shown.show(&state.windows);
        self.applied.store(state.applied, Ordering::Release);
    }

    /// What a snapshot's bytes say.
    pub(super) fn decode(&self, index: Index, data: &[u8]) -> Result<State<M>, SnapshotError> {
        let Unpacked { sessions, machine, windows } = unpack(data)?;
        Ok(State::new(self.snapshots.restore(&machine)?, sessions, windows, index))
    }

    /// The state before the first entry, if it can be had again.
    pub(super) fn first(&self) -> Result<State<M>, SnapshotError> {
        let machine = match &self.first {
            First::Made(make) => make(),
            First::Encoded(bytes) => self.snapshots.restore(bytes)?,
            First::Nothing => return Err(SnapshotError::new("its first state cannot be made again")),
        };
        Ok(State::new(machine, sessions(), Windows::default(), 0))
    }

    /// The state now, yet to be encoded.
    pub(super) fn capture(
        &self,
        state: &State<M>,
    ) -> Option<Captured<impl FnOnce() -> Result<Bytes, SnapshotError> + Send + use<M>>> {
        let machine = self.snapshots.capture(&state.machine)?;
        let (sessions, index) = (state.sessions.clone(), state.applied);
        let lost = state.switch.is(Mutant::WindowsNotInSnapshot);
        let windows = if lost { Windows::default() } else { state.windows.clone() };
        Some(Captured { index, encode: move || pack(&Unpacked { sessions, machine: machine()?, windows }) })
    }
}

impl<M: StateMachine> fmt::Debug for Replica<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("applied", &self.applied).finish_non_exhaustive()
    }
}

/// The parts of a snapshot's bytes.
pub(in crate::groups) struct Unpacked {
    pub sessions: Sessions,
    pub machine: Bytes,
    /// Behind the rest, and only if there are some.
    pub windows: Windows,
}

/// The parts of a snapshot's bytes.
pub(in crate::groups) fn unpack(data: &[u8]) -> Result<Unpacked, SnapshotError> {
    let ((sessions, machine), rest) = postcard::take_from_bytes(data)?;
    let windows = if rest.is_empty() { Windows::default() } else { postcard::from_bytes(rest)? };
    Ok(Unpacked { sessions, machine, windows })
}

/// The bytes of a snapshot with these parts.
pub(in crate::groups) fn pack(parts: &Unpacked) -> Result<Bytes, SnapshotError> {
    let Unpacked { sessions, machine, windows } = parts;
    let packed = postcard::to_allocvec(&(sessions, machine))?;
    Ok(if windows.is_empty() { packed } else { postcard::to_extend(windows, packed)? }.into())
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no text").to_owned()
}

impl<M: StateMachine> State<M> {
    fn new(machine: M, sessions: Sessions, windows: Windows, applied: Index) -> Self {
        Self {
            machine,
            commands: Codec::of(),
            outputs: Codec::of(),
            sessions,
            windows,
            applied,
            skipped: BTreeSet::new(),
            part: Part { done: 0, outputs: Vec::new(), whole: 0 },
            broken: false,
            slow_queries: false,
            queries: 0,
            switch: Switch::of_this_thread(),
        }
    }

    pub(super) const fn applied(&self) -> Index {
        self.applied
    }

    fn ask(&mut self, query: M::Query) -> (M::QueryResult, Index) {
        self.queries = self.queries.wrapping_add(1);
        if !self.queries.is_multiple_of(TIMED) && !self.slow_queries {
            return (self.machine.query(query), self.applied);
        }
        let began = Instant::now();
        let result = self.machine.query(query);
        self.slow_queries = began.elapsed() > SLOW;
        (result, self.applied)
    }

    /// Applies entries until one has taken long or panics. A panic leaves the state broken, at the entry before.
    pub(super) fn apply(&mut self, entries: &[Entry], busy: &Busy) -> Applied {
        let next = self.applied + 1;
        debug_assert!(entries.first().is_none_or(|first| first.index == next), "the machine is given every entry once");
        let mut applied = Applied { results: Vec::with_capacity(entries.len()), ..Applied::default() };
        let began = Instant::now();
        let mut since = began;
        let ended = catch_unwind(AssertUnwindSafe(|| {
            for entry in entries {
                busy.begin(entry.index, since);
                applied.results.extend(self.take(entry));
                applied.count += 1;
                self.applied = entry.index;
                let now = Instant::now();
                applied.long |= busy.end(entry.index, since, now);
                since = now;
                applied.slow = now.duration_since(began) > SLOW;
                applied.sealed = entry.payload == Payload::Seal;
                if applied.slow || applied.sealed {
                    break;
                }
            }
        }));
        busy.rest();
        if let Err(panic) = ended {
            self.broken = true;
            applied.panicked = Some(words(&*panic));
        }
        applied
    }

    /// What is known to panic, with the command of the entry at `index` that has just done so.
    pub(super) fn panicked(&mut self, index: Index) -> Skipped {
        let mut skipped = self.skipped.clone();
        skipped.insert((index, self.part.done));
        skipped
    }

    /// Commands that are not to be run.
    pub(super) fn skip(&mut self, skipped: Skipped) {
        self.skipped = skipped;
    }

    /// Applies entries again whose outcomes are known but for that of the last one, which is returned. `Err`: a command panicked,
    /// and what it said.
    pub(super) fn replay(&mut self, entries: &[Entry]) -> Result<Option<Outcome>, String> {
        let mut last = None;
        let ended = catch_unwind(AssertUnwindSafe(|| {
            for entry in entries {
                last = self.take(entry);
                self.applied = entry.index;
            }
        }));
        ended.map_err(|panic| words(&*panic)).map(|()| last)
    }

    /// Goes on after a command that panicked with what it left behind. The rest of its entry is applied. Returns how many
    /// commands of it panicked, too.
    pub(super) fn go_on(&mut self, entry: &Entry) -> (u64, Option<Outcome>) {
        let Payload::Command(command) = &entry.payload else { return (1, None) };
        let mut panics = 0;
        loop {
            panics += 1;
            self.skipped = [(entry.index, self.part.done)].into();
            self.part.outputs.truncate(self.part.whole);
            // Each turn ends at the end or at a later command of the entry.
            if let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| self.execute(command, entry))) {
                (self.applied, self.broken) = (entry.index, false);
                self.skipped.clear();
                return (panics, Some(outcome));
            }
        }
    }

    /// Nothing up to the index will be applied again.
    pub(super) fn forget_up_to(&mut self, index: Index) {
        self.skipped = self.skipped.split_off(&(index + 1, 0));
    }

    /// Begins again, as before the first entry: no command was ever applied. False if one was, and has panicked.
    pub(super) fn reset(&mut self) -> bool {
        self.sessions = sessions();
        self.windows = Windows::default();
        self.applied = 0;
        self.skipped.clear();
        !self.broken
    }

    fn take(&mut self, entry: &Entry) -> Option<Outcome> {
        match &entry.payload {
            Payload::Open(session) => {
                let (index, result) = match self.sessions.open(*session, entry.index, entry.time, self.switch) {
                    Some(opened) => (opened, CommandResult::Opened),
                    None => (entry.index, CommandResult::Full),
                };
                Some(Outcome { session: *session, done: Done { sequence: 0, index, result } })
            }
            Payload::Command(command) => {
                self.part = Part::default();
                let done = |result| Done { sequence: command.sequence, index: entry.index, result };
                let refused = match self.sessions.admit(command, entry.time, self.switch) {
                    Verdict::Apply if self.is_fenced(command, entry) => CommandResult::Fenced,
                    Verdict::Apply => return Some(self.execute(command, entry)),
                    Verdict::Duplicate(output) => CommandResult::Output(output),
                    Verdict::Expired => CommandResult::Expired,
                    Verdict::Settled => CommandResult::Settled,
                    Verdict::Ended => CommandResult::Ended,
                    Verdict::TooFar => CommandResult::TooFar,
                };
                Some(Outcome { session: command.session, done: done(refused) })
            }
            _ => None,
        }
    }

    /// Whether the command is to be applied in an earlier term only.
    fn is_fenced(&self, command: &Command, entry: &Entry) -> bool {
        let ignored = self.switch.is(Mutant::FenceIgnored);
        bundle::fence(&command.body).is_some_and(|term| term != entry.term) && !ignored
    }

    /// Runs an admitted command, or the rest of an entry of several.
    fn execute(&mut self, command: &Command, entry: &Entry) -> Outcome {
        let result = match self.run(command, entry) {
            Some(output) => {
                self.sessions.record(command, entry.index, output.clone());
                CommandResult::Output(output)
            }
            None => CommandResult::Undecodable,
        };
        let done = Done { sequence: command.sequence, index: entry.index, result };
        Outcome { session: command.session, done }
    }

    /// The outputs of a body of commands; `None`: the only one cannot be decoded.
    fn run(&mut self, command: &Command, entry: &Entry) -> Option<Bytes> {
        if let Some(items) = bundle::items_of(&command.body) {
            let first = self.windows.push(&items, entry.term, entry.index)?;
            return Some(Bytes::copy_from_slice(&first.to_le_bytes()));
        }
        let ctx = ApplyContext::of(entry);
        let count = bundle::count(&command.body);
        self.part.outputs.reserve(OUTPUT * count);
        for (part, encoded) in bundle::commands(&command.body).enumerate().skip(self.part.done) {
            if self.skips(entry.index, part) {
                bundle::append_panicked(entry.index, &mut self.part.outputs);
            } else if let Some(decoded) = encoded.and_then(|(form, command)| self.commands.decode(form, command).ok()) {
                let output = self.machine.apply(decoded, &ctx.part_at(part));
                // One that cannot be encoded is empty and fails to decode at the caller, who learns that way that it was applied.
                let write =
                    |out: &mut Vec<u8>| self.outputs.write(&output, out, usize::MAX).unwrap_or(Format::MessagePack);
                bundle::append_output(write, &mut self.part.outputs);
            } else if count == 1 {
                return None;
            } else {
                bundle::append_undecodable(&mut self.part.outputs);
            }
            (self.part.done, self.part.whole) = (part + 1, self.part.outputs.len());
        }
        Some(std::mem::take(&mut self.part.outputs).into())
    }

    fn skips(&self, index: Index, part: usize) -> bool {
        !self.skipped.is_empty() && self.skipped.contains(&(index, part))
    }
}
