//! The apply worker: the one task that changes the state machine, so that a slow machine holds up nobody else.
//!
//! It takes committed entries from the consensus worker, applies them in chunks that are bounded in number and in time, and
//! reports results. Chunks of a machine that was seen to be slow run beside the runtime's workers. A command that panics is
//! contained: `mend` makes the machine anew. Snapshots are read back before they are reported.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::{
    lane::Lane,
    mend::Checkpoint,
    replica::{Applied, Captured, Replica, State, unpack},
};
use crate::{
    groups::{
        client::{Done, bundle},
        machine::StateMachine,
        raft::{Entry, Index, Payload, SessionId},
        snapshots::{ReadBack, SnapshotError, Snapshots},
    },
    transport::Tasks,
};

/// Commands between two looks at who else wants the machine.
const CHUNK: usize = 64;
/// A chunk ends with the entry that takes it beyond this, and the next ones run beside the runtime's workers.
pub(super) const SLOW: Duration = Duration::from_millis(2);
/// So many quick chunks in a row, and they run on the runtime's workers again: a thread for each costs some 10 us.
const QUICK: u32 = 16;

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
    /// What the machine is made anew from, after [`What::Broken`].
    Rebuild(Source),
}

/// The log up to and with the command that panicked, and what it begins after.
#[derive(Debug)]
pub(super) struct Source {
    /// None: the log begins at its beginning, or after what the applier said that it has.
    pub snapshot: Option<(Index, Bytes)>,
    pub entries: Vec<Entry>,
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
    /// A snapshot, encoded and read back.
    Captured {
        index: Index,
        data: Bytes,
        varies: bool,
    },
    /// A snapshot that cannot be made, or not be read back.
    NotCaptured {
        index: Index,
        why: String,
    },
    /// A command at the index panicked. [`Job::Rebuild`] is waited for; what stands for the log up to `have` is here.
    Broken {
        index: Index,
        have: Index,
    },
    /// So many commands of the entry panicked and were contained.
    Panicked {
        index: Index,
        commands: u64,
    },
    /// The seal was applied: no command follows.
    Sealed,
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

/// The machine's only writer.
pub(super) struct Applier<M: StateMachine> {
    pub replica: Arc<Replica<M>>,
    pub lanes: Arc<Lanes>,
    pub tasks: Tasks,
    pub cancel: CancellationToken,
    /// Jobs that were taken from the lane.
    pub jobs: VecDeque<(u64, Job)>,
    pub checkpoint: Option<Checkpoint>,
    /// The lock of a broken machine that the next job replaces.
    held: Option<OwnedMutexGuard<State<M>>>,
    /// A command was seen that takes long: all run beside the runtime's workers from then on.
    long: bool,
    /// Quick chunks since the last slow one.
    quick: u32,
}

/// The applier ends: it was cancelled, or the machine cannot go on.
pub(super) struct Ended;

/// Runs until cancelled or until the machine fails.
pub(super) async fn run<M: StateMachine>(
    replica: Arc<Replica<M>>,
    lanes: Arc<Lanes>,
    tasks: Tasks,
    cancel: CancellationToken,
) {
    let (jobs, checkpoint) = (VecDeque::new(), None);
    let mut applier = Applier { replica, lanes, tasks, cancel, jobs, checkpoint, held: None, long: false, quick: 0 };
    loop {
        while let Some((life, job)) = applier.jobs.pop_front() {
            if let Err(Ended) = applier.job(life, job).await {
                return;
            }
        }
        if let Err(Ended) = applier.more().await {
            return;
        }
    }
}

impl<M: StateMachine> Applier<M> {
    /// Waits for further jobs.
    pub async fn more(&mut self) -> Result<(), Ended> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(Ended),
            () = self.lanes.jobs.filled() => {}
        }
        self.jobs.extend(self.lanes.jobs.take());
        Ok(())
    }

    pub fn report(&self, life: u64, what: What) {
        self.lanes.reports.push(Report { life, what });
    }

    pub fn fail(&self, life: u64, why: String) -> Ended {
        self.report(life, What::Failed(why));
        Ended
    }

    async fn job(&mut self, life: u64, job: Job) -> Result<(), Ended> {
        match job {
            Job::Apply(entries) => self.apply(life, entries).await,
            Job::Restore(index, data) => self.restore(life, index, data).await,
            Job::Reset => {
                self.checkpoint = None;
                let mut state = self.locked().await;
                if !state.reset() {
                    *state = self.replica.first().map_err(|error| self.fail(life, error.to_string()))?;
                }
                self.replica.show(&state);
                Ok(())
            }
            Job::Capture => {
                let state = self.replica.lock().await;
                self.capture(life, state).await;
                Ok(())
            }
            // A snapshot has taken the place of the broken machine meanwhile.
            Job::Rebuild(_) => Ok(()),
        }
    }

    /// The machine, which may be broken.
    async fn locked(&mut self) -> OwnedMutexGuard<State<M>> {
        match self.held.take() {
            Some(state) => state,
            None => self.replica.lock().await,
        }
    }

    async fn apply(&mut self, life: u64, mut entries: Vec<Entry>) -> Result<(), Ended> {
        let mut from = 0;
        while from < entries.len() {
            let to = from + chunk(&entries[from..]);
            let (mut state, applied);
            (state, entries, applied) = self.chunk(entries, from..to).await.ok_or(Ended)?;
            self.quick = if applied.slow { 0 } else { self.quick.saturating_add(1) };
            self.long |= applied.long;
            from += applied.count;
            self.replica.show(&state);
            let done = |results| {
                let last = &entries[from - 1];
                What::Applied { index: last.index, time: last.time, results }
            };
            if let Some(said) = applied.panicked {
                if applied.count > 0 {
                    self.report(life, done(applied.results));
                }
                if !self.mend(life, &mut state, &entries[from], &said).await? {
                    // A later job replaces all of it, and what these entries did is in there.
                    self.held = Some(state);
                    return Ok(());
                }
                from += 1;
                continue;
            }
            if applied.sealed {
                // At exactly this index.
                self.report(life, done(applied.results));
                self.report(life, What::Sealed);
                self.capture(life, state).await;
                continue;
            }
            drop(state);
            self.report(life, done(applied.results));
            // Lets others run on a runtime of one thread.
            tokio::task::consume_budget().await;
        }
        Ok(())
    }

    /// Applies some of the entries. Nothing: the runtime ends.
    async fn chunk(
        &mut self,
        entries: Vec<Entry>,
        range: std::ops::Range<usize>,
    ) -> Option<(OwnedMutexGuard<State<M>>, Vec<Entry>, Applied)> {
        let (mut state, busy) = (self.replica.lock().await, self.replica.busy.clone());
        let work = move || {
            let applied = state.apply(&entries[range], &busy);
            (state, entries, applied)
        };
        if self.long || self.quick < QUICK { self.tasks.blocking(work).await } else { Some(work()) }
    }

    async fn restore(&mut self, life: u64, index: Index, data: Bytes) -> Result<(), Ended> {
        let replica = self.replica.clone();
        match self.tasks.blocking(move || replica.decode(index, &data)).await {
            Some(Ok(restored)) => {
                let mut state = self.locked().await;
                *state = restored;
                self.replica.show(&state);
                drop(state);
                self.report(life, What::Restored { index });
                Ok(())
            }
            Some(Err(error)) => Err(self.fail(life, format!("cannot read a snapshot: {error}"))),
            None => Err(self.fail(life, "panicked while reading a snapshot".into())),
        }
    }

    /// Takes the state between two commands; it is encoded and read back while further ones are applied.
    async fn capture(&mut self, life: u64, state: OwnedMutexGuard<State<M>>) {
        let replica = self.replica.clone();
        let index = state.applied();
        let captured = self.tasks.blocking(move || replica.capture(&state)).await;
        let why = match captured {
            Some(Some(Captured { index, encode })) => {
                let (lanes, replica, threads) = (self.lanes.clone(), self.replica.clone(), self.tasks.clone());
                self.tasks.spawn("group snapshot", async move {
                    let made = threads.blocking(move || make(replica.snapshots(), encode)).await;
                    let what = match made {
                        Some(Ok((data, varies))) => What::Captured { index, data, varies },
                        Some(Err(error)) => What::NotCaptured { index, why: error.to_string() },
                        None => What::NotCaptured { index, why: String::from("the machine panicked") },
                    };
                    lanes.reports.push(Report { life, what });
                });
                return;
            }
            Some(None) => String::from("the machine has no snapshots"),
            None => String::from("the machine panicked"),
        };
        self.report(life, What::NotCaptured { index, why });
    }
}

/// Encodes a snapshot and reads it back, so that nothing relies on one that has lost something.
pub(super) fn make<M: StateMachine>(
    snapshots: &Snapshots<M>,
    encode: impl FnOnce() -> Result<Bytes, SnapshotError>,
) -> Result<(Bytes, bool), SnapshotError> {
    let data = encode()?;
    let machine = unpack(&data)?.machine;
    Ok((data, snapshots.read_back(&machine)? == ReadBack::Varies))
}

/// How many of the entries are applied in one go.
fn chunk(entries: &[Entry]) -> usize {
    let mut commands = 0;
    let mut few = |entry: &&Entry| {
        let room = commands < CHUNK;
        commands += match &entry.payload {
            Payload::Command(command) => bundle::count(&command.body).max(1),
            _ => 1,
        };
        room
    };
    entries.iter().take_while(|entry| few(entry)).count()
}
