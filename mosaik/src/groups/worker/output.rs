//! What the core wants done, and when the log is compacted.

use super::{Job, Worker};
use crate::groups::raft::{Entry, Input, Output, Token, Write};

/// Decides when a snapshot is taken: when the log since the last one is longer than the limit and than twice the snapshot, so
/// that writing snapshots costs at most half as much as writing the log.
#[derive(Debug)]
pub(super) struct Compaction {
    possible: bool,
    limit: u64,
    /// Bytes of log that the machine was given since the last snapshot was begun.
    since: u64,
    snapshot: u64,
    running: bool,
}

impl Compaction {
    pub const fn new(possible: bool, limit: u64) -> Self {
        Self { possible, limit, since: 0, snapshot: 0, running: false }
    }

    fn grew(&mut self, entries: &[Entry]) {
        self.since += entries.iter().map(|entry| entry.payload.size() as u64).sum::<u64>();
    }

    /// Whether to begin one now.
    fn begin(&mut self) -> bool {
        let due = self.possible && !self.running && self.since > self.limit.max(2 * self.snapshot);
        if due {
            self.running = true;
            self.since = 0;
        }
        due
    }

    pub fn done(&mut self, size: usize) {
        self.running = false;
        self.snapshot = size as u64;
    }

    fn restored(&mut self, size: usize) {
        self.snapshot = size as u64;
        self.since = 0;
    }

    pub fn restart(&mut self) {
        *self = Self::new(self.possible, self.limit);
    }
}

impl Worker {
    /// Gives the core an input and carries out what it says, in order.
    pub(super) fn step(&mut self, input: Input) {
        if self.wiping || self.stop.is_some() {
            return;
        }
        let now = self.now();
        for output in self.raft.step(input, now) {
            self.output(output);
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Persist { token, writes } => {
                self.submitted = token;
                // Storage takes them in order, also when a leader steps down in between.
                if self.raft.is_leader() || !self.unwritten.is_empty() {
                    self.unwritten.push((token, writes));
                } else {
                    self.write(token, writes);
                }
            }
            Output::Send(envelope) => self.bonds.send(envelope),
            Output::Apply(entries) => {
                self.compaction.grew(&entries);
                self.lanes.jobs.push((self.life, Job::Apply(entries)));
            }
            Output::Restore(snapshot) => {
                self.compaction.restored(snapshot.data.len());
                let job = Job::Restore(snapshot.manifest.position.index, snapshot.data);
                self.lanes.jobs.push((self.life, job));
            }
            Output::ReadReady { id, index } => self.reads.ready(id, index),
            Output::ReadFailed { id } => self.reads.failed(id, tokio::time::Instant::now()),
            Output::Queued { .. } => {}
            Output::Refused { id, why } => _ = self.refused.get_or_insert((id, why)),
            Output::Wipe { .. } => self.wiping = true,
            Output::Halted(halt) => {
                tracing::warn!(group = ?self.board.group(), ?halt, "the local member has stopped for good");
                self.stop = Some(halt.into());
            }
        }
    }

    fn write(&mut self, token: Token, writes: Vec<Write>) {
        self.written.extend(self.writes.start().map(|now| (token, now)));
        self.storage.submit(token, writes);
    }

    /// A leader's own writes. Its frames have a turn to leave first: a follower's disk is farther away than its own, and
    /// the disk's thread would take a core from who sends them.
    pub(super) async fn write_own(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        tokio::task::yield_now().await;
        for (token, writes) in std::mem::take(&mut self.unwritten) {
            self.write(token, writes);
        }
    }

    pub(super) fn compact(&mut self) {
        if self.compaction.begin() {
            self.lanes.jobs.push((self.life, Job::Capture));
        }
    }
}
