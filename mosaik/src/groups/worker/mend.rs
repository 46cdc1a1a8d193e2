//! A command has panicked: the machine is made anew from a snapshot and the log, without that command.
//!
//! All members do so at the same command, because the machine is deterministic and unlike builds refuse each other. The error
//! is the command's output in the table of sessions, so a retry, a snapshot and a later member give the same. While the applier
//! waits for the log it keeps the lock of the machine: nobody sees the broken state.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

use super::{
    applier::{Applier, Ended, Job, Outcome, Source, What, make},
    replica::{Captured, Replica, Skipped, State},
};
use crate::groups::{
    machine::StateMachine,
    raft::{Entry, Index},
    snapshots::SnapshotError,
};

/// The state before the entry of the last command that panicked, encoded: so that many of them do not cost as many passes over
/// the log. Held until a newer one, or a newer snapshot, takes its place.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    index: Index,
    data: Bytes,
}

/// The machine with the entry applied but for the commands that panic, what the entry gave, and what to begin with next time.
struct Mended<M: StateMachine> {
    state: State<M>,
    /// How many commands of the entry panic.
    commands: u64,
    outcome: Option<Outcome>,
    checkpoint: Option<Checkpoint>,
}

impl<M: StateMachine> Applier<M> {
    /// Makes the machine anew, with the entry applied but for the command that panicked, and reports the entry. False: a job
    /// that waits replaces the machine altogether.
    pub async fn mend(
        &mut self,
        life: u64,
        state: &mut OwnedMutexGuard<State<M>>,
        entry: &Entry,
        said: &str,
    ) -> Result<bool, Ended> {
        let index = entry.index;
        warn::<M>(index, said);
        if !self.replica.has_first() {
            tracing::warn!(machine = M::NAME, index, "it goes on with what the command had changed before it panicked");
            let (commands, outcome) = state.go_on(entry);
            self.applied(life, state, entry, commands, outcome);
            return Ok(true);
        }
        let have = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.index);
        self.report(life, What::Broken { index, have });
        let Some(source) = self.source(life).await? else { return Ok(false) };
        let skipped = state.panicked(index);
        let (replica, checkpoint) = (self.replica.clone(), self.checkpoint.take());
        let mended = self.tasks.blocking(move || mended(&replica, skipped, &source, checkpoint)).await;
        match mended {
            Some(Ok(Mended { state: anew, commands, outcome, checkpoint })) => {
                **state = anew;
                self.checkpoint = checkpoint;
                self.applied(life, state, entry, commands, outcome);
                Ok(true)
            }
            Some(Err(error)) => Err(self.fail(life, format!("a command panicked at index {index}: {error}"))),
            None => Err(self.fail(life, format!("it panicked while it was made anew before index {index}"))),
        }
    }

    fn applied(&self, life: u64, state: &State<M>, entry: &Entry, commands: u64, outcome: Option<Outcome>) {
        self.replica.show(state);
        self.report(life, What::Panicked { index: entry.index, commands });
        let results = outcome.into_iter().collect();
        self.report(life, What::Applied { index: entry.index, time: entry.time, results });
    }

    /// What the machine is made anew from; nothing if a job replaces it or begins again.
    async fn source(&mut self, life: u64) -> Result<Option<Source>, Ended> {
        loop {
            let found = self.jobs.iter().position(|(of, job)| *of == life && matches!(job, Job::Rebuild(_)));
            if let Some((_, Job::Rebuild(source))) = found.and_then(|at| self.jobs.remove(at)) {
                return Ok(Some(source));
            }
            let replaces = |(of, job): &(u64, Job)| *of > life || matches!(job, Job::Restore(..) | Job::Reset);
            if let Some(at) = self.jobs.iter().position(replaces) {
                self.jobs.drain(..at);
                return Ok(None);
            }
            self.more().await?;
        }
    }
}

fn warn<M: StateMachine>(index: Index, said: &str) {
    tracing::warn!(machine = M::NAME, index, said, "a command panicked: its caller gets an error, the group goes on");
}

fn mended<M: StateMachine>(
    replica: &Replica<M>,
    mut skipped: Skipped,
    source: &Source,
    checkpoint: Option<Checkpoint>,
) -> Result<Mended<M>, SnapshotError> {
    let (last, before) = source.entries.split_last().ok_or_else(|| SnapshotError::new("the log is gone"))?;
    let mut checkpoint = checkpoint;
    let begin = |skipped: &Skipped, checkpoint: Option<&Checkpoint>| {
        let mut state = match (&source.snapshot, checkpoint) {
            (Some((index, data)), _) => replica.decode(*index, data)?,
            (None, Some(Checkpoint { index, data })) => replica.decode(*index, data)?,
            (None, None) => replica.first()?,
        };
        state.skip(skipped.clone());
        let again = |said| SnapshotError::new(format!("another one that had not panicked before does so now: {said}"));
        let behind = before.iter().position(|entry| entry.index > state.applied()).unwrap_or(before.len());
        state.replay(&before[behind..]).map_err(again)?;
        Ok::<_, SnapshotError>(state)
    };
    let mut state = begin(&skipped, checkpoint.as_ref())?;
    let mut commands = 1;
    if let Some(newer) = self::checkpoint(replica, &state) {
        checkpoint = Some(newer);
    }
    loop {
        match state.replay(slice::from_ref(last)) {
            Ok(outcome) => {
                state.forget_up_to(checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.index));
                return Ok(Mended { state, commands, outcome, checkpoint });
            }
            // Another command of the same entry.
            Err(said) => {
                let more = state.panicked(last.index);
                if more.len() == skipped.len() {
                    return Err(SnapshotError::new(format!("it panics without the command, too: {said}")));
                }
                warn::<M>(last.index, &said);
                commands += 1;
                skipped = more;
                state = match &checkpoint {
                    Some(Checkpoint { index, data }) if *index + 1 == last.index => {
                        let mut state = replica.decode(*index, data)?;
                        state.skip(skipped.clone());
                        state
                    }
                    older => begin(&skipped, older.as_ref())?,
                };
            }
        }
    }
}

/// The state, encoded and read back. Nothing if it cannot be: the next time begins further back.
fn checkpoint<M: StateMachine>(replica: &Replica<M>, state: &State<M>) -> Option<Checkpoint> {
    // The user's code, which may panic, too.
    let made = catch_unwind(AssertUnwindSafe(|| {
        let Captured { index, encode } = replica.capture(state)?;
        let (data, _) = make(replica.snapshots(), encode).ok()?;
        Some(Checkpoint { index, data })
    }));
    made.ok().flatten()
}
