//! What the apply task reports: applied commands, snapshots, and what went wrong with the machine.

use tokio::time::Instant;

use super::{
    Worker,
    applier::{Outcome, What},
};

use crate::groups::{
    error::StopReason,
    raft::{Index, Input},
};

impl Worker {
    /// Results of the machine.
    pub(super) fn reports(&mut self) {
        let (mut applied, waited) = (None, self.session.in_flight());
        for report in self.lanes.reports.take() {
            if report.life != self.life {
                continue;
            }
            match report.what {
                What::Applied { index, time, results } => {
                    applied = Some(index);
                    self.publish.applied(index, &self.board);
                    self.session.observe_time(time, self.micros());
                    results.into_iter().for_each(|result| self.result(result, time));
                    self.session.applied(index);
                }
                What::Restored { index } => {
                    self.applied(&mut applied);
                    self.step(Input::Applied { index });
                    self.publish.applied(index, &self.board);
                    self.publish.restored(index);
                    if self.raft.is_sealed_at(index) {
                        self.sealed(false);
                    }
                    self.session.restored(index);
                }
                What::Captured { index, data, varies } => {
                    self.applied(&mut applied);
                    let size = data.len();
                    self.step(Input::Compact { index, data });
                    let snapshot = self.raft.snapshot().map(|snapshot| &snapshot.manifest);
                    if snapshot.is_none_or(|it| it.position.index < index) {
                        // The core took none, because too much waits for the disk.
                        let _ = self.compaction.failed(Instant::now());
                        self.compaction.wanted |= self.sealing.is_applied();
                        continue;
                    }
                    self.compaction.done(size);
                    self.publish.captured(index, varies);
                    if snapshot.is_some_and(|manifest| manifest.sealed && manifest.position.index == index) {
                        self.seal_written(index);
                    }
                }
                What::Sealed => {
                    self.applied(&mut applied);
                    self.sealed(true);
                }
                What::NotCaptured { index, why } => {
                    let retry = self.compaction.failed(Instant::now());
                    self.compaction.wanted |= self.sealing.is_applied();
                    tracing::warn!(group = ?self.board.group(), index, why, ?retry, "no snapshot, the log is kept; it is tried again");
                    self.publish.not_captured(index, why);
                }
                What::Broken { index, have } => self.rebuild(index, have),
                What::Panicked { index, commands } => self.publish.panicked(index, commands),
                What::Failed(why) => self.stop = Some(StopReason::Machine(why)),
            }
        }
        self.applied(&mut applied);
        self.tell_callers();
        self.batching.answered(waited.saturating_sub(self.session.in_flight()));
    }

    /// Tells the core once of everything that was applied since the last time.
    pub(super) fn applied(&mut self, index: &mut Option<Index>) {
        if let Some(index) = index.take() {
            self.step(Input::Applied { index });
        }
    }

    /// A command was applied here. `time`: the group time of the last one of the same report.
    pub(super) fn result(&mut self, Outcome { session, done }: Outcome, time: u64) {
        let mut notices = Vec::new();
        self.router.applied(session, &done, time, |notice| notices.push(notice));
        self.session.applied_here(session, done);
        notices.into_iter().for_each(|notice| self.notice(notice));
    }
}
