//! What the worker of a replica waits for beside its deltas: a snapshot, the answer to a check, an operator's file.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    super::{
        core::{Standing, Wanted},
        disk::word,
        fetch::{FetchError, Fetched, check, fetch},
        lineage::Witness,
        view::{Position, View},
    },
    FOLLOW, Fetching, Over, Worker,
};
use crate::{discovery::PeerEntry, primitives::PeerId};

/// Between attempts to get a snapshot: from the first to the second, doubling.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often a replica that waits for an operator's word looks for the file that is one.
const LOOK: Duration = Duration::from_secs(2);

impl<V: View> Worker<V> {
    /// Begins what the core wants now, and drops what it does not want any more.
    pub(super) fn ask(&mut self) {
        let wanted = self.cut.wanted();
        let run = wanted.map(|wanted| (wanted.primary, wanted.epoch));
        self.fetching.take_if(|(now, _)| run != Some((now.primary, now.epoch)));
        if self.fetching.is_none()
            && self.cut.may_fetch()
            && let Some(wanted) = wanted
        {
            self.fetching = Some((wanted, self.fetch(wanted)));
        }
        let claim = self.cut.claim();
        self.checking.take_if(|(now, _)| claim != Some(*now));
        if self.checking.is_none()
            && let Some(claim) = claim
        {
            let (registry, store, pause) = (self.registry.clone(), self.store, self.pause());
            self.checking = Some((
                claim,
                Box::pin(async move {
                    sleep(pause).await;
                    check(&registry, store, claim).await
                }),
            ));
        }
        let refused = matches!(self.cut.standing(), Standing::Refused(_));
        match self.saver.as_ref().filter(|_| refused) {
            None => self.looking = None,
            Some(saver) if self.looking.is_none() => {
                let (tasks, file) = (self.registry.node.tasks().clone(), word(saver.disk().file(), FOLLOW));
                self.looking = Some(Box::pin(async move {
                    sleep(LOOK).await;
                    tasks.blocking(move || std::fs::remove_file(file).is_ok()).await.unwrap_or(false)
                }));
            }
            Some(_) => {}
        }
    }

    fn pause(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => (PAUSES.0 * 2u32.pow((failures - 1).min(8))).min(PAUSES.1),
        }
    }

    /// Gets a snapshot, after a pause if the last attempts failed.
    fn fetch(&mut self, wanted: Wanted) -> Fetching<V> {
        let (registry, store, watch) = (self.registry.clone(), self.store, self.watch.clone());
        let from = self.source(wanted);
        let (pause, continues) = (self.pause(), self.cut.must_continue());
        self.progress = Arc::default();
        let progress = self.progress.clone();
        tracing::debug!(?store, ?wanted, "needs a snapshot");
        Box::pin(async move {
            sleep(pause).await;
            let began = watch.start();
            let fetched = match from {
                Some(from) => fetch::<V>(&registry, store, wanted, from, continues, &progress).await,
                None => Err(FetchError::Nobody),
            };
            watch.stop(began.filter(|_| fetched.is_ok()));
            fetched
        })
    }

    /// Who is asked: the primary, or of a store that a group owns one member after the other.
    fn source(&self, wanted: Wanted) -> Option<PeerId> {
        if !self.is_owned {
            return Some(wanted.primary);
        }
        let (me, catalog) = (self.registry.node.id(), self.registry.discovery.catalog());
        let serve = |entry: &&PeerEntry| entry.id() != me && entry.stores().contains(&self.store);
        let known: Vec<PeerId> = catalog.peers().filter(serve).map(PeerEntry::id).collect();
        let turn = self.failures as usize % known.len().max(1);
        known.get(turn).copied()
    }

    pub(super) fn fetched(&mut self, result: Result<Fetched<V>, FetchError>) -> Result<(), Over> {
        let Some((wanted, _)) = self.fetching.take() else { return Ok(()) };
        let Wanted { primary, epoch, .. } = wanted;
        match result {
            Ok(Fetched { state, seq, witness }) => {
                (self.failures, self.failure) = (0, None);
                let before = self.cut.at();
                if !self.cut.snapshot(primary, epoch, seq, witness) {
                    return Ok(());
                }
                tracing::debug!(store = ?self.store, ?primary, seq, "took a snapshot");
                let moved = before.is_some_and(|at| at.primary != primary);
                if let Some(before) = before.filter(|at| at.epoch != epoch && self.saver.is_some()) {
                    let (had, now) = (Position { epoch: before.epoch, seq: before.next }, Position { epoch, seq });
                    tracing::warn!(store = ?self.store, ?primary, %had, %now,
                        "a durable replica goes over to another run; what it had is kept as the previous generation");
                }
                self.state = state;
                self.note_beginning();
                self.stats.snapshots += 1;
                if let Some(saver) = &mut self.saver {
                    saver.replaced();
                }
                // What is published is of the run that is folded on.
                self.publish();
                if moved {
                    return Err(Over::Moved);
                }
                self.fold_held();
            }
            Err(FetchError::OtherHistory) => {
                self.cut.refuse(primary, epoch);
                tracing::warn!(store = ?self.store, ?primary, epoch, at = %self.position(),
                    "a primary has another history than a durable replica, which keeps what it has and waits for a word");
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.failure = Some(error.to_string());
                self.cut.failed(primary);
                tracing::debug!(store = ?self.store, ?primary, %error, "no snapshot");
            }
        }
        Ok(())
    }

    pub(super) fn checked(&mut self, result: Result<Option<Witness>, FetchError>) {
        let Some((claim, _)) = self.checking.take() else { return };
        match result {
            Ok(Some(witness)) => {
                (self.failures, self.failure) = (0, None);
                self.cut.checked(claim, witness);
                self.fold_held();
            }
            Ok(None) => {
                let primary = claim.primary;
                tracing::warn!(store = ?self.store, ?primary, at = %self.position(),
                    "a primary lacks what it once gave out: its file was put back to an older copy");
                self.cut.contradicted(claim);
                self.release();
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.failure = Some(error.to_string());
            }
        }
    }

    /// The operator's file was there, or not.
    pub(super) fn looked(&mut self, found: bool) {
        self.looking = None;
        if let Standing::Refused(primary) = self.cut.standing()
            && found
        {
            tracing::warn!(store = ?self.store, ?primary, "a durable replica goes over to another history as told");
            self.cut.follow(primary);
        }
    }
}
