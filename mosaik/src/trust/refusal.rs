//! Why somebody was refused: typed reasons with the two facts that differ, and the list of the last ones that a node keeps.
//!
//! A stranger is told "refused" and nothing else. Who holds a ticket that the authority did sign is told what is wrong with it.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

use super::{
    NetworkKind,
    authority::AuthorityId,
    revoke::Revoked,
    rights::MissingGrant,
    ticket::{LEEWAY, TicketError},
};
use crate::primitives::{NetworkId, PeerId};

/// Refusals that a node keeps; for a further one the one that was repeated least recently goes.
pub const MAX_REFUSALS: usize = 64;

/// Which end of the connection refused the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusedBy {
    /// This node.
    Us,
    /// The peer.
    Them,
}

/// Why a peer was refused, or refused this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The two are in networks of different kinds.
    #[error("this node is in {ours}, the peer is in {}", theirs.map_or_else(|| String::from("one that asks for a proof"), |it| it.to_string()))]
    WrongKind {
        /// The kind of this node's network.
        ours: NetworkKind,
        /// The kind of the peer's; `None` when all that it shows is that it asks for a proof.
        theirs: Option<NetworkKind>,
    },
    /// The peer named another network.
    #[error("this node is in network {ours:?}, the peer in {theirs:?}")]
    OtherNetwork {
        /// This node's network.
        ours: NetworkId,
        /// The peer's.
        theirs: NetworkId,
    },
    /// The peer did not prove that it knows this network's key, or its authority.
    #[error("{ours} here, and the peer's proof is not one of it: another key, another authority or another network id")]
    NotProved {
        /// The kind of this node's network.
        ours: NetworkKind,
    },
    /// The peer sent something that is no proof, or nothing in time.
    #[error("the peer gave no proof: {what}")]
    NoProof {
        /// What came instead.
        what: &'static str,
    },
    /// The peer's ticket is none.
    #[error("the peer's ticket: {0}")]
    BadTicket(#[from] TicketError),
    /// The ticket is of an authority that is not trusted here.
    #[error("the peer's ticket is of authority {theirs:?}, trusted here: {ours:?}")]
    UnknownAuthority {
        /// The authorities trusted here.
        ours: Vec<AuthorityId>,
        /// The ticket's.
        theirs: AuthorityId,
    },
    /// The ticket is for another network.
    #[error("the ticket is for network {theirs:?}, this one is {ours:?}")]
    TicketOfOtherNetwork {
        /// This network.
        ours: NetworkId,
        /// The ticket's.
        theirs: NetworkId,
    },
    /// The ticket is for another peer.
    #[error("the ticket is for {subject:?} and was shown by another peer")]
    NotTheSubject {
        /// For whom it is.
        subject: PeerId,
    },
    /// The ticket has expired. Times are seconds since the Unix epoch.
    #[error("the ticket expired {} before now by the clock of who refused{}", ago(*now, *not_after), skew(*now, *theirs))]
    Expired {
        /// Until when it held.
        not_after: u64,
        /// The time at the node that refused.
        now: u64,
        /// The time at the one that was refused, if it said.
        theirs: Option<u64>,
    },
    /// The ticket does not hold yet. Times are seconds since the Unix epoch.
    #[error("the ticket holds only {} after now by the clock of who refused{}", ago(*not_before, *now), skew(*now, *theirs))]
    NotYetValid {
        /// From when it holds.
        not_before: u64,
        /// The time at the node that refused.
        now: u64,
        /// The time at the one that was refused, if it said.
        theirs: Option<u64>,
    },
    /// The authority has taken the ticket back.
    #[error("the ticket was revoked: {what}")]
    Revoked {
        /// What the authority took back.
        what: Revoked,
    },
    /// The ticket grants what its authority cannot give here.
    #[error("the ticket has the {what}, which authority {authority:?} cannot give in this network")]
    OutOfScope {
        /// The authority.
        authority: AuthorityId,
        /// The role or the grant.
        what: String,
    },
    /// A ticket does not grant what a declaration asks for; see [`MissingGrant`].
    #[error(transparent)]
    GrantMissing(#[from] MissingGrant),
    /// Evidence of what runs on the peer does not pass a check.
    #[cfg(feature = "attest")]
    #[error("attestation: {0}")]
    Attestation(#[from] super::attest::AttestError),
    /// The peer refused and did not say why.
    #[error("the peer refused and says nothing more; this node is in {ours}")]
    Untold {
        /// The kind of this node's network.
        ours: NetworkKind,
    },
}

impl Reason {
    /// A word for the label of a metric.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::WrongKind { .. } => "wrong_kind",
            Self::OtherNetwork { .. } => "other_network",
            Self::NotProved { .. } => "not_proved",
            Self::NoProof { .. } => "no_proof",
            Self::BadTicket(_) => "bad_ticket",
            Self::UnknownAuthority { .. } => "unknown_authority",
            Self::TicketOfOtherNetwork { .. } => "ticket_of_other_network",
            Self::NotTheSubject { .. } => "not_the_subject",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Revoked { .. } => "revoked",
            Self::OutOfScope { .. } => "out_of_scope",
            Self::GrantMissing(_) => "grant_missing",
            #[cfg(feature = "attest")]
            Self::Attestation(_) => "attestation",
            Self::Untold { .. } => "untold",
        }
    }
}

fn ago(later: u64, earlier: u64) -> String {
    format!("{:?}", Duration::from_secs(later.saturating_sub(earlier)))
}

/// The other clock, if it is further off than is allowed for.
fn skew(now: u64, theirs: Option<u64>) -> String {
    match theirs {
        Some(theirs) if theirs > now + LEEWAY.as_secs() => {
            format!("; the other clock is {} ahead of it", ago(theirs, now))
        }
        Some(theirs) if now > theirs + LEEWAY.as_secs() => {
            format!("; the other clock is {} behind it", ago(now, theirs))
        }
        _ => String::new(),
    }
}

/// A peer that was refused, or that refused this node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The peer.
    pub peer: PeerId,
    /// Who refused whom.
    pub by: RefusedBy,
    /// Why, the last time.
    pub reason: Reason,
    /// When last, by this node's wall clock: microseconds since the Unix epoch.
    pub at: u64,
    /// How often in a row for a reason of this name.
    pub times: u64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (peer, reason) = (self.peer, &self.reason);
        match self.by {
            RefusedBy::Us => write!(f, "refused {peer:?}: {reason}"),
            RefusedBy::Them => write!(f, "refused by {peer:?}: {reason}"),
        }
    }
}

/// The last refusals, oldest first, and how many there were of each reason.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    last: VecDeque<Refusal>,
    counts: BTreeMap<&'static str, u64>,
}

impl Refusals {
    /// Adds one; true when it is not a repetition.
    pub(super) fn add(&mut self, peer: PeerId, by: RefusedBy, reason: Reason, at: u64) -> bool {
        let count = self.counts.entry(reason.name()).or_default();
        *count = count.saturating_add(1);
        let same = |it: &Refusal| (it.peer, it.by, it.reason.name()) == (peer, by, reason.name());
        let before = self.last.iter().position(same).and_then(|at| self.last.remove(at));
        let times = before.as_ref().map_or(1, |it| it.times.saturating_add(1));
        if self.last.len() >= MAX_REFUSALS {
            self.last.pop_front();
        }
        self.last.push_back(Refusal { peer, by, reason, at, times });
        before.is_none()
    }

    pub(super) fn newest_first(&self) -> Vec<Refusal> {
        self.last.iter().rev().cloned().collect()
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::*;

    fn peer(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).public().into()
    }

    #[test]
    fn the_newest_come_first_repetitions_are_counted_and_the_list_has_an_end() {
        let mut refusals = Refusals::default();
        let silent = || Reason::NoProof { what: "silence" };
        assert!(refusals.add(peer(0), RefusedBy::Us, silent(), 1));
        assert!(refusals.add(peer(1), RefusedBy::Us, Reason::NotProved { ours: NetworkKind::Secret }, 2));
        assert!(!refusals.add(peer(0), RefusedBy::Us, silent(), 3));
        let seen: Vec<_> = refusals.newest_first().iter().map(|it| (it.peer, it.at, it.times)).collect();
        assert_eq!(seen, [(peer(0), 3, 2), (peer(1), 2, 1)]);
        for n in 0..=u8::MAX {
            refusals.add(peer(n), RefusedBy::Them, silent(), 9);
        }
        assert_eq!(refusals.newest_first().len(), MAX_REFUSALS);
        assert_eq!(refusals.counts(), BTreeMap::from([("no_proof", 258), ("not_proved", 1)]));
    }

    #[test]
    fn a_reason_tells_both_facts() {
        let expired = Reason::Expired { not_after: 1_000, now: 1_180, theirs: Some(880) };
        let text = expired.to_string();
        assert!(text.contains("expired 180s before") && text.contains("300s behind"), "{text}");
        let kinds = Reason::WrongKind { ours: NetworkKind::Secret, theirs: Some(NetworkKind::Open) }.to_string();
        assert!(kinds.contains("a secret network") && kinds.contains("an open network"), "{kinds}");
    }
}
