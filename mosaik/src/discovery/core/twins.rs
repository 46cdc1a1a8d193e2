//! Two nodes with one key, noticed by how they outbid each other's entries for ever: at each of the two, and at their peers.
//!
//! One outbid is an earlier self with its clock ahead. An outbid takes the run right after the one that it outbids; a restart takes its
//! wall clock in microseconds, so the two are told apart.

use std::{collections::BTreeMap, time::Duration};

use iroh::EndpointAddr;

use super::{
    super::entry::{EntryDigest, PeerEntry, Version},
    Core, Key, Notice, Now, Output,
};
use crate::primitives::PeerId;

/// So many outbids within [`WITHIN`] are no earlier self.
const OUTBIDS: u32 = 3;
const WITHIN: Duration = Duration::from_mins(1);
/// Runs between two versions that one sees of a peer that outbids: some of those between may be missed.
const STEP: u64 = 64;
/// Peers that are watched at one time.
const MAX_WATCHED: usize = 256;

/// The outbids of one key.
#[derive(Debug)]
pub(super) struct Outbids {
    count: u32,
    since: Now,
    /// Where the other one is, as far as it is known.
    other: Option<EndpointAddr>,
    told: Option<Now>,
}

/// The local node's entry, or a hint of it, as it comes back from others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Echo<'a> {
    pub(super) version: Version,
    pub(super) digest: EntryDigest,
    pub(super) beat: u64,
    /// Where the node is said to be; absent in a hint.
    pub(super) addr: Option<&'a EndpointAddr>,
    /// Who can be asked for the entry.
    pub(super) from: Option<PeerId>,
}

/// Whether the newer version is of another start of the peer. Between twins, who outbid each other, runs differ by little.
pub(super) const fn is_restart(old: Version, new: Version) -> bool {
    new.run_id.saturating_sub(old.run_id) > STEP
}

impl Outbids {
    pub(super) const fn new(now: Now) -> Self {
        Self { count: 0, since: now, other: None, told: None }
    }

    /// One more; true when they are too many and that was not told within the last minute.
    fn note(&mut self, now: Now) -> bool {
        if now > self.since + WITHIN {
            (self.count, self.since) = (0, now);
        }
        self.count += 1;
        self.count >= OUTBIDS && self.told.is_none_or(|told| now >= told + WITHIN)
    }
}

impl Core {
    /// A peer's entry was replaced.
    pub(super) fn watch_outbids(&mut self, old: &PeerEntry, new: &PeerEntry, now: Now) {
        if new.version().run_id <= old.version().run_id || is_restart(old.version(), new.version()) {
            return;
        }
        let key = *new.id().as_bytes();
        if self.outbids.len() >= MAX_WATCHED && !self.outbids.contains_key(&key) {
            self.outbids.retain(|_, outbids| now <= outbids.since + WITHIN);
            if self.outbids.len() >= MAX_WATCHED {
                return;
            }
        }
        let outbids = self.outbids.entry(key).or_insert_with(|| Outbids::new(now));
        if old.addr() != new.addr() {
            outbids.other = Some(old.addr().clone());
        }
        if outbids.note(now) {
            outbids.told = Some(now);
            let other = outbids.other.clone().unwrap_or_else(|| old.addr().clone());
            self.outputs.push(Output::Notice(Notice::Twins { peer: new.id(), one: other, other: new.addr().clone() }));
        }
    }

    /// The local node was outbid; `echo` is what it outbids in its turn.
    pub(super) fn on_outbid(&mut self, echo: Echo<'_>, now: Now) {
        let rivals = &mut self.rivals;
        let tell = rivals.note(now);
        if let Some(addr) = echo.addr {
            rivals.other = Some(addr.clone());
        } else if rivals.count > 1
            && let Some(from) = echo.from
        {
            // Where the other one is stands in its entry.
            self.pulls.ask(*self.local.id().as_bytes(), echo.version, from);
        }
        if tell {
            self.tell_of_rival(now);
        }
    }

    /// An entry that the local node has outbid came after all.
    pub(super) fn on_rival_entry(&mut self, addr: &EndpointAddr, now: Now) {
        self.rivals.other = Some(addr.clone());
        if self.rivals.count >= OUTBIDS && self.rivals.told.is_none_or(|told| now >= told + WITHIN) {
            self.tell_of_rival(now);
        }
    }

    /// Waits for the other's address for as long as there is hope for it.
    fn tell_of_rival(&mut self, now: Now) {
        if self.rivals.other.is_none() && self.rivals.count < 3 * OUTBIDS {
            return;
        }
        self.rivals.told = Some(now);
        let (here, there) = (self.local.entry().addr().clone(), self.rivals.other.clone());
        self.outputs.push(Output::Notice(Notice::Rival { here, there }));
    }
}

/// The peers whose entries are watched.
pub(super) type Watched = BTreeMap<Key, Outbids>;
