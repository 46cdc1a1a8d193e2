//! Forced recovery: an operator turns one survivor's storage into a new cluster that names its ancestor.
//!
//! Offline and explicit, for a group that has lost its majority for good. Everything in the survivor's log is kept,
//! committed or not; what only the lost majority had is gone, which is why nothing here happens by itself.

use super::{ClusterId, Digest, Entry, Extent, Log, Member, Membership, Payload, Position, Stored};

/// Makes the storage of the sole voter of a new cluster. `salt` must be fresh. None if the storage holds no cluster.
#[must_use]
pub fn recover(mut stored: Stored, me: Member, salt: u64) -> Option<Stored> {
    let old = stored.hard.cluster?;
    let last = stored.last();
    let mut membership = stored.membership()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mosaik recovery 1").update(&old.0.0).update(&last.hash.0).update(&salt.to_le_bytes());
    hasher.update(me.node.as_bytes());
    membership.cluster = ClusterId(Digest(*hasher.finalize().as_bytes()));
    membership.ancestors.push(old);
    membership.voters = [me].into();
    membership.outgoing = None;
    membership.learners.clear();
    membership.observers.clear();
    membership.peak = 1;
    let term = stored.hard.term.max(last.term) + 1;
    let rest = stored.snapshot.as_ref().map_or((0, 0), |it| (it.manifest.time, it.manifest.civil));
    let times = stored.entries.last().map_or(rest, |entry| (entry.time, entry.civil));
    stored.hard.cluster = Some(membership.cluster);
    stored.hard.term = term;
    stored.hard.voted = None;
    stored.hard.incarnation = me.incarnation;
    stored.hard.commit = last.index + 1;
    let entry = Entry::after(&last.hash, last.index + 1, term, times, Payload::Config(Box::new(membership)));
    stored.entries.push(entry);
    Some(stored)
}

impl Stored {
    /// The end of the log.
    #[must_use]
    pub fn last(&self) -> Position {
        let base = self.snapshot.as_ref().map(|snapshot| snapshot.manifest.position);
        self.entries.last().map(Entry::position).or(base).unwrap_or_else(Log::root)
    }

    /// The last configuration, committed or not.
    #[must_use]
    pub fn membership(&self) -> Option<Membership> {
        let in_log = self.entries.iter().rev().find_map(|entry| match &entry.payload {
            Payload::Config(membership) => Some((**membership).clone()),
            _ => None,
        });
        in_log.or_else(|| self.snapshot.as_ref().map(|it| it.manifest.membership.clone()))
    }

    /// How far it is durable: all of it.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let last = self.last().index;
        let base = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.manifest.position.index);
        let committed = self.hard.commit.max(base).min(last);
        Extent { term: self.hard.term, last, verified: committed, committed }
    }
}
