//! [`Shown`], evidence as it travels, and [`Attested`], what a node has verified of its peers. Pure.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{AttestError, Challenge, Evidence, measured::MEASURED, policy::ATTESTED};
use crate::{
    primitives::{NetworkId, PeerId},
    trust::{Claims, LEEWAY},
};

/// The longest evidence, in bytes.
pub(crate) const MAX_EVIDENCE: usize = 64 << 10;
/// For how long evidence counts after it was made.
pub(crate) const MAX_AGE: Duration = Duration::from_hours(24);
/// Peers of which something is kept: as many as a node may know.
const MAX_PEERS: usize = 1 << 16;

/// Evidence with what its challenge follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) kind: String,
    /// Seconds since the Unix epoch.
    pub(crate) made: u64,
    pub(crate) evidence: Vec<u8>,
}

impl Shown {
    /// Made by this node. `now`: seconds since the Unix epoch.
    pub(crate) fn make(evidence: &dyn Evidence, network: NetworkId, me: PeerId, now: u64) -> Result<Self, AttestError> {
        let bytes = evidence.make(&Challenge::new(network, me, now))?;
        if bytes.len() > MAX_EVIDENCE {
            return Err(AttestError::Unavailable {
                why: format!("{} bytes are longer than {MAX_EVIDENCE}", bytes.len()),
            });
        }
        Ok(Self { kind: evidence.kind().to_owned(), made: now, evidence: bytes })
    }

    /// What it proves of a peer, until when: at most a day after it was made. Also until when its machine could make it anew.
    pub(crate) fn verify<'a>(
        &self,
        verifiers: impl IntoIterator<Item = &'a dyn Evidence>,
        network: NetworkId,
        peer: PeerId,
        now: u64,
    ) -> Result<(Claims, u64), AttestError> {
        let known = verifiers.into_iter().find(|verifier| verifier.kind() == self.kind);
        let verifier = known.ok_or_else(|| AttestError::Kind { theirs: self.kind.clone() }.heard())?;
        let (ahead, age) = (self.made.saturating_sub(now), now.saturating_sub(self.made));
        if ahead > LEEWAY.as_secs() {
            return Err(AttestError::NotYet { ahead });
        }
        if age > MAX_AGE.as_secs() {
            return Err(AttestError::TooOld { age, max: MAX_AGE.as_secs() });
        }
        let claims = verifier.verify(&self.evidence, &Challenge::new(network, peer, self.made), now)?;
        let proved_until = claims.not_after;
        let until = proved_until.min(self.made.saturating_add(MAX_AGE.as_secs()));
        // What an implementation says beyond this is not its business: rights are given by authorities.
        let grants =
            claims.grants.into_iter().filter(|grant| grant.starts_with(ATTESTED) || grant.starts_with(MEASURED));
        Ok((grants.fold(Claims::new(self.made, until), Claims::with_grant), proved_until))
    }
}

/// What was verified, by peer.
#[derive(Debug, Default)]
pub(super) struct Attested(BTreeMap<PeerId, (Claims, u64)>);

impl Attested {
    /// Puts what a peer's evidence proves in place of what it proved before.
    pub(super) fn set(&mut self, peer: PeerId, claims: Claims, proved_until: u64) {
        if self.0.len() < MAX_PEERS || self.0.contains_key(&peer) {
            self.0.insert(peer, (claims, proved_until));
        }
    }

    /// What a peer's evidence grants by one of these clocks; seconds since the Unix epoch.
    pub(super) fn grants(&self, peer: PeerId, clocks: [u64; 2]) -> impl Iterator<Item = &str> {
        let holds = move |claims: &&Claims| {
            clocks.into_iter().any(|now| now <= claims.not_after.saturating_add(LEEWAY.as_secs()))
        };
        self.0
            .get(&peer)
            .map(|(claims, _)| claims)
            .filter(holds)
            .into_iter()
            .flat_map(|claims| claims.grants.iter().map(String::as_str))
    }

    /// When a peer's evidence ends.
    pub(super) fn until(&self, peer: PeerId) -> Option<u64> {
        self.0.get(&peer).map(|(claims, _)| claims.not_after)
    }

    /// Until when a peer's machine could make evidence anew by what was known of it.
    pub(super) fn proved_until(&self, peer: PeerId) -> Option<u64> {
        self.0.get(&peer).map(|(_, until)| *until)
    }
}
