//! What the core wants done, and when the log is compacted.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Worker,
    applier::{Job, Source},
};
use crate::groups::{
    raft::{Entry, Index, Input, Output, Token, Write},
    status::Contradicted,
};

/// After a snapshot that was not taken the next one is tried so much later, doubled with each further one.
const RETRY: Duration = Duration::from_secs(15);
/// But at most so much later.
const RETRY_MAX: Duration = Duration::from_mins(15);

/// Decides when a snapshot is taken: when the log since the last one is longer than the limit and than twice the snapshot, so
/// that writing snapshots costs at most half as much as writing the log. And by up to a half longer, by chance: members that all
/// compact at one index would all be slow at once, fail at once where a snapshot cannot be made, and let whoever is behind fetch
/// from nobody but the leader.
#[derive(Debug)]
pub(super) struct Compaction {
    possible: bool,
    limit: u64,
    /// Bytes of log that the machine was given since the last snapshot was begun.
    since: u64,
    /// Those of them that the snapshot under way stands for.
    begun: u64,
    snapshot: u64,
    running: bool,
    /// Snapshots that were not taken, one after the other.
    failures: u32,
    not_before: Option<Instant>,
    /// However short the log is.
    pub wanted: bool,
    /// By how much longer the log becomes this time, in 256ths of a half.
    spread: u64,
}

impl Compaction {
    pub const fn new(possible: bool, limit: u64) -> Self {
        Self {
            possible,
            limit,
            since: 0,
            begun: 0,
            snapshot: 0,
            running: false,
            failures: 0,
            not_before: None,
            wanted: false,
            spread: 0,
        }
    }

    fn grew(&mut self, entries: &[Entry]) {
        self.since += entries.iter().map(|entry| entry.payload.size() as u64).sum::<u64>();
    }

    /// How much longer the log becomes, by a random byte.
    pub fn spread(&mut self, random: u8) {
        self.spread = random.into();
    }

    /// Whether to begin one now.
    fn begin(&mut self) -> bool {
        let later = self.not_before.is_some_and(|at| at > Instant::now());
        let least = self.limit.max(2 * self.snapshot);
        let long = self.wanted || self.since > least.saturating_add(least / 512 * self.spread);
        let due = self.possible && !self.running && !later && long;
        if due {
            self.running = true;
            self.not_before = None;
            self.begun = self.since;
            self.wanted = false;
        }
        due
    }

    pub fn done(&mut self, size: usize) {
        (self.running, self.failures) = (false, 0);
        self.snapshot = size as u64;
        // What the machine was given meanwhile is not in it.
        self.since -= self.begun.min(self.since);
    }

    /// There is no snapshot, so the log is as long as before. Returns when the next one is tried.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let wait = (RETRY * 2_u32.saturating_pow(self.failures.min(16))).min(RETRY_MAX);
        (self.running, self.failures) = (false, self.failures.saturating_add(1));
        self.not_before = Some(now + wait);
        wait
    }

    fn restored(&mut self, size: usize) {
        self.snapshot = size as u64;
        (self.since, self.begun) = (0, 0);
    }

    pub fn restart(&mut self) {
        *self = Self { spread: self.spread, ..Self::new(self.possible, self.limit) };
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
                if let Some((token, writes)) = self.unwritten.keep(self.raft.is_leader(), token, writes) {
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
                if snapshot.manifest.sealed {
                    self.seal_written(snapshot.manifest.position.index);
                }
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
            Output::Contradicted { by, what } => {
                if let Some(contradicted) = Contradicted::new(by, what) {
                    tracing::warn!(group = ?self.board.group(), "{contradicted}");
                }
            }
        }
    }

    fn write(&mut self, token: Token, writes: Vec<Write>) {
        self.written.extend(self.writes.start().map(|now| (token, now)));
        self.storage.submit(self.marking.core(token), writes);
    }

    /// A leader's own writes. Its frames have a turn to leave first: a follower's disk is farther away than its own, and
    /// the disk's thread would take a core from who sends them.
    pub(super) async fn write_own(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        tokio::task::yield_now().await;
        for (token, writes) in self.unwritten.take() {
            self.write(token, writes);
        }
    }

    /// Gives the applier what it makes its machine anew from. It has what stands for the log up to `have`.
    pub(super) fn rebuild(&mut self, index: Index, have: Index) {
        let snapshot = self.raft.snapshot().filter(|snapshot| snapshot.manifest.position.index > have);
        let begin = snapshot.map_or(have, |snapshot| snapshot.manifest.position.index);
        if begin < self.raft.log().base().index || begin >= index {
            // The log begins after a snapshot that was fetched: it waits in the lane and replaces the machine.
            return;
        }
        let snapshot = snapshot.map(|it| (it.manifest.position.index, it.data.clone()));
        let entries = self.raft.log().between(begin + 1, index);
        self.lanes.jobs.push((self.life, Job::Rebuild(Source { snapshot, entries })));
    }

    pub(super) fn compact(&mut self) {
        if self.compaction.begin() {
            self.compaction.spread(self.node.transport().random_seed()[0]);
            self.lanes.jobs.push((self.life, Job::Capture));
        }
    }
}
