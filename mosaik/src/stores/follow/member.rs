//! The worker of a store that a group owns, at a member: it folds what the local log has, in place of a subscription.

use std::sync::Arc;

use super::{
    super::{
        core::{At, Cut},
        lineage::Witness,
        owned::{Log, Shared, Tail},
        protocol::codec,
        serve::Snapshots,
        view::{Versioned, View},
    },
    BATCH, Worker,
};
use crate::{primitives::watch, streams::framed_items};

/// What the worker of a member has besides.
pub(in crate::stores) struct Member<V: View> {
    pub(in crate::stores) log: Arc<dyn Log>,
    pub(in crate::stores) shared: Arc<Shared>,
    /// What handles read, and what replicas and other members are given.
    pub(in crate::stores) shown: watch::Sender<Versioned<V>>,
    pub(in crate::stores) snapshots: Arc<Snapshots>,
    /// The cluster whose deltas are folded.
    pub(in crate::stores) bound: Option<u64>,
}

impl<V: View> Worker<V> {
    /// Follows the log of the local member until it is cancelled.
    pub(super) async fn fold_log(&mut self, log: Arc<dyn Log>) {
        let mut changes = log.changes();
        loop {
            let more = self.read(&*log);
            self.publish();
            self.ask();
            if !more {
                tokio::select! {
                    biased;
                    beside = self.beside() => {
                        // There is no subscription that could be over.
                        let _ = self.did(beside);
                    }
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Folds some of what the log has. Whether there is more.
    fn read(&mut self, log: &dyn Log) -> bool {
        let group = self.identity();
        let Some(epoch) = log.epoch() else {
            if self.bind(None).is_some() {
                self.cut.disconnected(group);
            }
            return false;
        };
        let known = self.cut.at().filter(|at| at.epoch == epoch).map(|at| at.next);
        let Tail { first, next, parts } = log.tail(known.unwrap_or(0));
        let known = known.or_else(|| (first == 0).then(|| self.begin(epoch)));
        let goes_on = known.filter(|known| *known >= first);
        if self.bind(Some(epoch)) != Some(epoch) {
            self.cut.connected(group, epoch, goes_on.unwrap_or(first), goes_on.is_some());
        } else if goes_on.is_none() {
            self.cut.missed(group, first);
        }
        if self.cut.wanted().is_some() {
            return false;
        }
        let Some(from) = known else { return false };
        let all = parts.iter().flat_map(|part| framed_items(part));
        let new = (first..).zip(all).skip_while(|(number, _)| *number < from);
        for (number, (format, payload)) in new.take(BATCH) {
            match codec::<V, V::Delta>().decode(format, payload) {
                Ok(delta) => self.fold(delta, (group, epoch, number)),
                Err(error) => {
                    self.cut.delta(group, epoch, number, true);
                    self.leave_out(number, &format!("it cannot be decoded: {error}"));
                }
            }
            if self.cut.at().is_none_or(|at| at.next != number + 1) {
                // It went back, to leave one out.
                return true;
            }
        }
        self.cut.at().is_some_and(|at| at.next < next)
    }

    fn bind(&mut self, epoch: Option<u64>) -> Option<u64> {
        self.member.as_mut().and_then(|member| std::mem::replace(&mut member.bound, epoch))
    }

    /// All deltas of the cluster are there, from the first one on: the state begins with none.
    fn begin(&mut self, epoch: u64) -> u64 {
        let at = At { primary: self.identity(), epoch, next: 0 };
        (self.state, self.cut) = (V::default(), Cut::restored(at, Witness::Volatile));
        if let Some(member) = &mut self.member {
            member.bound = None;
        }
        if let Some(saver) = &mut self.saver {
            saver.replaced();
        }
        0
    }

    /// Goes back to what is published, to fold from there without that delta: all members do so, as it is the same to them.
    pub(super) fn skip(&mut self, number: u64, why: &str) {
        self.leave_out(number, why);
        let value = self.published.borrow().value.clone();
        self.state = V::clone(&value);
        if value.position().epoch == self.position().epoch {
            self.cut.back_to(value.position().seq);
        }
    }

    fn leave_out(&mut self, number: u64, why: &str) {
        tracing::error!(store = ?self.store, number, why, "a delta of a group's store is left out, at all members alike");
        if let Some(member) = &self.member {
            member.shared.skip(number, why.to_owned());
        }
        // A file would fold it.
        if let Some(saver) = &mut self.saver {
            saver.replaced();
        }
    }
}
