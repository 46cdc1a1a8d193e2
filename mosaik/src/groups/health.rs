//! [`MachineStatus`]: how the local state machine fares, as part of a group's status. Written by the worker, read by displays
//! and metrics.

use std::{fmt, time::Duration};

/// A command that takes longer than this is named in the status.
pub(crate) const LONG: Duration = Duration::from_millis(50);
/// How long one that is over stays named.
pub(crate) const NAMED: Duration = Duration::from_secs(30);

/// How the local state machine fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineStatus {
    pub(crate) snapshot: Option<u64>,
    pub(crate) failure: Option<SnapshotFailure>,
    pub(crate) failures: u64,
    pub(crate) varies: bool,
    pub(crate) panics: u64,
    pub(crate) panicked: Option<u64>,
    pub(crate) long: Option<LongCommand>,
    pub(crate) sealed: Option<u64>,
}

impl MachineStatus {
    /// The index of the last snapshot that was taken, or received, in this run; the log up to there may be gone.
    #[must_use]
    pub const fn last_snapshot(&self) -> Option<u64> {
        self.snapshot
    }

    /// Why the last snapshot was not taken, until one is. The log is kept meanwhile, and it is tried again.
    #[must_use]
    pub const fn snapshot_failure(&self) -> Option<&SnapshotFailure> {
        self.failure.as_ref()
    }

    /// Snapshots that were not taken, in this run.
    #[must_use]
    pub const fn snapshot_failures(&self) -> u64 {
        self.failures
    }

    /// Whether one state was seen to encode to different bytes: it holds a map or set in random order. A machine whose commands
    /// or queries let that order be seen differs from member to member.
    #[must_use]
    pub const fn is_nondeterministic(&self) -> bool {
        self.varies
    }

    /// Commands that panicked when they were applied in this run, those of the log that was applied again at its start included.
    #[must_use]
    pub const fn panics(&self) -> u64 {
        self.panics
    }

    /// The index of the last command that panicked.
    #[must_use]
    pub const fn last_panic(&self) -> Option<u64> {
        self.panicked
    }

    /// The command that is being applied for longer than 50 ms now, or was within the last 30 s.
    #[must_use]
    pub const fn long_command(&self) -> Option<&LongCommand> {
        self.long.as_ref()
    }

    /// The index of the seal, once this member has a durable snapshot of it: the next version of the machine may begin here.
    #[must_use]
    pub const fn sealed(&self) -> Option<u64> {
        self.sealed
    }

    /// Whether somebody who watches should be told.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let head = |it: &Self| (it.failure.as_ref().map(|it| it.why.clone()), it.varies, it.panics, it.sealed);
        let long = |it: &Self| it.long.map(|long| (long.index, long.running));
        head(self) != head(other) || long(self) != long(other)
    }

    /// What an operator should know, a line for each.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(failure) = &self.failure {
            notes.push(failure.to_string());
        }
        if self.varies {
            notes.push(String::from(
                "the state's encoding is not deterministic (a map or set in random order): use ordered ones",
            ));
        }
        if let Some(index) = self.panicked {
            let (count, s) = (self.panics, if self.panics == 1 { "" } else { "s" });
            notes.push(format!("{count} command{s} panicked, the last at index {index}"));
        }
        if let Some(long) = &self.long {
            notes.push(long.to_string());
        }
        if let Some(index) = self.sealed {
            notes.push(format!("sealed at index {index}: takes no commands, the next version may begin"));
        }
        notes
    }
}

/// A snapshot that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFailure {
    pub(crate) index: u64,
    pub(crate) why: String,
}

impl SnapshotFailure {
    /// The index whose state it was to be.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Why.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl fmt::Display for SnapshotFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no snapshot at index {}, so the log is kept: {}", self.index, self.why)
    }
}

/// A command that takes long, or took long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongCommand {
    pub(crate) index: u64,
    pub(crate) took: Duration,
    pub(crate) running: bool,
}

impl LongCommand {
    /// Its place in the log.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How long it took, or has taken so far.
    #[must_use]
    pub const fn took(&self) -> Duration {
        self.took
    }

    /// Whether it is still being applied.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.running
    }
}

impl fmt::Display for LongCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, millis) = (self.index, self.took.as_millis());
        if self.running {
            write!(f, "the command at index {index} has been applied for {millis} ms and is not done")
        } else {
            write!(f, "the command at index {index} took {millis} ms")
        }
    }
}
