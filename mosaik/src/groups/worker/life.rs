//! How a member ends, and how it begins again as a new incarnation.

use std::future::poll_fn;

use tokio::time::Instant;

use super::{
    Worker,
    applier::Job,
    departure,
    marks::{Marking, Tokens},
    setup::{incarnation, seed, start},
};

use crate::groups::{
    error::StopReason,
    raft::{Extent, Input, Member, Raft, Stored},
    storage::InMemory,
};

impl Worker {
    /// The last act: everybody who waits is told, writes under way are finished if that is quick.
    pub(super) async fn end(&mut self, why: &StopReason) {
        self.queue.close(why.clone());
        self.session.stop();
        self.tell_callers();
        self.reads.stop(why);
        self.departure.stop(why);
        self.sealing.stop(why);
        self.handovers.stop(why);
        self.router.clear();
        if !self.cancel.is_cancelled() {
            self.note_marks();
            self.store_marks();
            self.flush().await;
            if self.durable < self.submitted {
                tracing::warn!(group = ?self.board.group(), "storage does not answer; the local member ends without it");
                self.storage.abandon();
            }
            self.bonds.leave().await;
        } else if self.raft.storage_hangs() {
            self.storage.abandon();
        }
        if self.wipe_on_end {
            let mut storage = std::mem::replace(&mut self.storage, Box::new(InMemory::default()));
            if let Some(Err(error)) = self.node.tasks().blocking(move || storage.wipe()).await {
                tracing::warn!(group = ?self.board.group(), %error, "the state of a group that was left cannot be deleted");
            }
        }
    }

    /// Waits for writes under way, within a bound.
    pub(super) async fn flush(&mut self) {
        let until = Instant::now() + departure::FLUSH;
        while self.durable < self.submitted || self.marking.is_writing() {
            let Self { storage, .. } = self;
            let next = tokio::time::timeout_at(until, poll_fn(|cx| storage.poll_durable(cx))).await;
            match next {
                Ok(Ok(token)) => {
                    self.marks_durable(token);
                    self.durable = Tokens::of_core(token);
                }
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// Forgets everything and begins as a new incarnation that is more than `leap` above the last: the cluster dissolved into
    /// another one, or others refuse this incarnation.
    pub(super) async fn begin_again(&mut self, leap: u64) {
        (self.wiping, self.is_outdated) = (false, false);
        let mut storage = std::mem::replace(&mut self.storage, Box::new(InMemory::default()));
        // A wiped storage takes nothing until it is read again: a life of it begins so.
        let wiped = self.node.tasks().blocking(move || {
            let blank = storage.wipe().and_then(|()| storage.load());
            (blank.map(|_| ()), storage)
        });
        let wiped = wiped.await;
        match wiped {
            Some((Ok(()), storage)) => self.storage = storage,
            Some((Err(error), _)) => return self.stop = Some(error.into()),
            None => return self.stop = Some(StopReason::Bug),
        }
        let me = self.raft.me();
        let me = Member { incarnation: incarnation(&self.node, me.incarnation.saturating_add(leap)), ..me };
        self.life += 1;
        self.epoch = Instant::now();
        self.ticked = 0;
        self.raft = Raft::new(self.settings.clone(), me, Stored::default(), seed(&self.node), self.now());
        if self.cluster.is_some() {
            self.raft.expect_cluster();
        }
        (self.submitted, self.durable) = (0, 0);
        let start = start(&self.node, self.settings.volatile, 0, Extent::default());
        self.marking = Marking::new(start, self.epoch);
        self.written.clear();
        self.unwritten.take();
        self.lanes.jobs.push((self.life, Job::Reset));
        self.router.clear();
        self.reads.restart();
        self.session.set_leader(None);
        self.compaction.restart();
        self.cluster = None;
        self.bonds.set_cluster(None);
        self.bonds.set_me(me, start);
        // Ahead of everything that the core writes: what is left of this life is left of its start, too.
        self.begin_start();
        self.step(Input::Tick);
    }
}
