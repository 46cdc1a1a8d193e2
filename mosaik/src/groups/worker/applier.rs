//! The apply worker: the one task that changes the state machine, so that a slow machine holds up nobody else.
//!
//! It takes committed entries from the consensus worker, decides with the replicated table of sessions what is run, and
//! reports results. Readers lock the machine between commands.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lane::Lane;
use crate::{
    groups::{
        client::{CommandResult, Done, bundle},
        machine::{ApplyContext, SnapshotError, Snapshots, StateMachine},
        raft::{Command, Entry, Index, Payload, SessionId, Sessions, Switch, Verdict},
    },
    transport::Tasks,
};

/// Sessions that a group holds at most. *Agreed*, as the next two: all members must have the same.
pub(in crate::groups) const SESSIONS: usize = 16_384;
/// Group time after which an unused session ends, milliseconds.
pub(in crate::groups) const RETENTION: u64 = 3_600_000;
/// Outputs kept for one session.
pub(in crate::groups) const WINDOW: u64 = 16_384;
/// Commands between two looks at who else wants the machine.
const CHUNK: usize = 64;
/// A chunk that took longer than this makes the next one run beside the runtime's workers.
const SLOW: Duration = Duration::from_millis(2);

/// The state machine with what is replicated beside it.
pub(in crate::groups) struct Replica<M> {
    state: Mutex<State<M>>,
    /// As in the state, for those who do not want to wait for it.
    applied: AtomicU64,
    snapshots: Snapshots<M>,
}

struct State<M> {
    machine: M,
    sessions: Sessions,
    applied: Index,
}

/// Work for the machine.
#[derive(Debug)]
pub(super) enum Job {
    Apply(Vec<Entry>),
    /// Replace everything by a snapshot's bytes, which stand for the log up to the index.
    Restore(Index, Bytes),
    /// The cluster dissolved, and no user had written to it: begin again.
    Reset,
    /// Take the state, for a snapshot.
    Capture,
}

/// What came of it. `life` is that of the job.
#[derive(Debug)]
pub(super) struct Report {
    pub life: u64,
    pub what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Applied {
        index: Index,
        /// Group time there, milliseconds.
        time: u64,
        results: Vec<Outcome>,
    },
    Restored {
        index: Index,
    },
    /// A snapshot, encoded.
    Captured {
        index: Index,
        data: Bytes,
    },
    /// The machine cannot go on.
    Failed(String),
}

/// The result of one committed entry of a client.
#[derive(Debug)]
pub(super) struct Outcome {
    pub session: SessionId,
    pub done: Done,
}

/// Both lanes between the workers.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    pub jobs: Lane<(u64, Job)>,
    pub reports: Lane<Report>,
}

fn sessions() -> Sessions {
    Sessions::new(SESSIONS, RETENTION, WINDOW)
}

impl<M: StateMachine> Replica<M> {
    pub(in crate::groups) fn new(machine: M) -> Self {
        let state = State { machine, sessions: sessions(), applied: 0 };
        Self { state: Mutex::new(state), applied: AtomicU64::new(0), snapshots: M::snapshots() }
    }

    /// The last index applied.
    pub(in crate::groups) fn applied(&self) -> Index {
        self.applied.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the machine as it is now. Returns the index that it reflects, too. Waits for the command being applied.
    pub(in crate::groups) fn query(&self, query: M::Query) -> (M::QueryResult, Index) {
        let state = self.state();
        (state.machine.query(query), state.applied)
    }

    fn apply(&self, entries: &[Entry]) -> Vec<Outcome> {
        let mut results = Vec::with_capacity(entries.len());
        let mut state = self.state();
        for entry in entries {
            debug_assert_eq!(entry.index, state.applied + 1, "the machine is given every entry once");
            if let Some(outcome) = state.take(entry) {
                results.push(outcome);
            }
            state.applied = entry.index;
        }
        self.applied.store(state.applied, Ordering::Release);
        results
    }

    fn restore(&self, index: Index, data: &[u8]) -> Result<(), SnapshotError> {
        let (sessions, machine): (Sessions, Bytes) = postcard::from_bytes(data)?;
        let machine = self.snapshots.restore(&machine)?;
        let mut state = self.state();
        *state = State { machine, sessions, applied: index };
        self.applied.store(index, Ordering::Release);
        Ok(())
    }

    fn reset(&self) {
        let mut state = self.state();
        state.sessions = sessions();
        state.applied = 0;
        self.applied.store(0, Ordering::Release);
    }

    /// The state now, yet to be encoded.
    fn capture(&self) -> Option<(Index, impl FnOnce() -> Result<Bytes, SnapshotError> + Send + use<M>)> {
        let state = self.state();
        let machine = self.snapshots.capture(&state.machine)?;
        let (sessions, index) = (state.sessions.clone(), state.applied);
        Some((index, move || Ok(postcard::to_allocvec(&(sessions, machine()?))?.into())))
    }
}

impl<M: StateMachine> State<M> {
    fn take(&mut self, entry: &Entry) -> Option<Outcome> {
        match &entry.payload {
            Payload::Open(session) => {
                let (index, result) = match self.sessions.open(*session, entry.index, entry.time, Switch::default()) {
                    Some(opened) => (opened, CommandResult::Opened),
                    None => (entry.index, CommandResult::Full),
                };
                Some(Outcome { session: *session, done: Done { sequence: 0, index, result } })
            }
            Payload::Command(command) => {
                let result = self.run(command, entry);
                let done = Done { sequence: command.sequence, index: entry.index, result };
                Some(Outcome { session: command.session, done })
            }
            _ => None,
        }
    }

    fn run(&mut self, command: &Command, entry: &Entry) -> CommandResult {
        match self.sessions.admit(command, entry.time, Switch::default()) {
            Verdict::Apply => {}
            Verdict::Duplicate(output) => return CommandResult::Output(output),
            Verdict::Expired => return CommandResult::Expired,
            Verdict::Settled => return CommandResult::Settled,
            Verdict::Ended => return CommandResult::Ended,
            Verdict::TooFar => return CommandResult::TooFar,
        }
        let ctx = ApplyContext::of(entry);
        let output = match bundle::count(&command.body) {
            1 => match postcard::from_bytes(&command.body[1..]) {
                // An output that cannot be encoded fails to decode at the caller, who learns that way that it was applied.
                Ok(one) => postcard::to_allocvec(&self.machine.apply(one, &ctx)).unwrap_or_default(),
                Err(_) => return CommandResult::Undecodable,
            },
            count => {
                let mut outputs = Vec::with_capacity(8 * count);
                for (part, encoded) in bundle::commands(&command.body).enumerate() {
                    let decoded = encoded.and_then(|encoded| postcard::from_bytes(encoded).ok());
                    let output = decoded.map(|decoded| self.machine.apply(decoded, &ctx.part_at(part)));
                    bundle::append_output(output.as_ref(), &mut outputs);
                }
                outputs
            }
        };
        let output = Bytes::from(output);
        self.sessions.record(command, entry.index, output.clone());
        CommandResult::Output(output)
    }
}

/// Runs until cancelled or until the machine fails.
pub(super) async fn run<M: StateMachine>(
    replica: Arc<Replica<M>>,
    lanes: Arc<Lanes>,
    tasks: Tasks,
    cancel: CancellationToken,
) {
    let mut slow = false;
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = lanes.jobs.filled() => {}
        }
        for (life, job) in lanes.jobs.take() {
            let report = |what| lanes.reports.push(Report { life, what });
            match job {
                Job::Apply(entries) => {
                    for chunk in chunks(entries) {
                        match apply(&replica, chunk, &tasks, &mut slow).await {
                            Ok((index, time, results)) => report(What::Applied { index, time, results }),
                            Err(why) => return report(What::Failed(why)),
                        }
                    }
                }
                Job::Restore(index, data) => {
                    let replica = replica.clone();
                    match tasks.blocking(move || replica.restore(index, &data)).await {
                        Some(Ok(())) => report(What::Restored { index }),
                        Some(Err(error)) => return report(What::Failed(format!("cannot read a snapshot: {error}"))),
                        None => return report(What::Failed("panicked while reading a snapshot".into())),
                    }
                }
                Job::Reset => replica.reset(),
                Job::Capture => {
                    let from = replica.clone();
                    let Some(Some((index, encode))) = tasks.blocking(move || from.capture()).await else { continue };
                    let (lanes, threads) = (lanes.clone(), tasks.clone());
                    tasks.spawn("group snapshot", async move {
                        let what = match threads.blocking(encode).await {
                            Some(Ok(data)) => What::Captured { index, data },
                            Some(Err(error)) => What::Failed(format!("cannot make a snapshot: {error}")),
                            None => What::Failed("panicked while making a snapshot".into()),
                        };
                        lanes.reports.push(Report { life, what });
                    });
                }
            }
        }
    }
}

/// Cuts entries into pieces that are applied in one go.
fn chunks(entries: Vec<Entry>) -> impl Iterator<Item = Vec<Entry>> {
    let mut entries = entries.into_iter();
    std::iter::from_fn(move || {
        let mut commands = 0;
        let mut few = |entry: &Entry| {
            let room = commands < CHUNK;
            commands += match &entry.payload {
                Payload::Command(command) => bundle::count(&command.body),
                _ => 1,
            };
            room
        };
        let len = entries.as_slice().iter().take_while(|entry| few(entry)).count();
        (len > 0).then(|| entries.by_ref().take(len).collect())
    })
}

type Chunk = Result<(Index, u64, Vec<Outcome>), String>;

async fn apply<M: StateMachine>(replica: &Arc<Replica<M>>, chunk: Vec<Entry>, tasks: &Tasks, slow: &mut bool) -> Chunk {
    let (index, time) = chunk.last().map_or((0, 0), |entry| (entry.index, entry.time));
    let began = Instant::now();
    let results = if *slow {
        let replica = replica.clone();
        tasks.blocking(move || replica.apply(&chunk)).await
    } else {
        catch_unwind(AssertUnwindSafe(|| replica.apply(&chunk))).ok()
    };
    *slow = began.elapsed() > SLOW;
    let results = results.ok_or_else(|| format!("it panicked while applying a command, at or before index {index}"))?;
    // Lets others run on a runtime of one thread.
    tokio::task::consume_budget().await;
    Ok((index, time, results))
}
