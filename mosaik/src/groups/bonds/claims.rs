//! Copies beside their originals: before a start of a storage is let in, everybody who may know of another one is asked.
//!
//! A member compares a claim with its own bonds first; then those that it is bonded to compare it with theirs. One that does
//! not answer holds the claim up until its bond ends, because the original may be bonded to it alone. While a claim is being
//! looked into, another start of the same storage is put off at every member that is asked, so of two that knock at different
//! members at once at most one gets in.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::{
    super::raft::Start,
    bond::{Bond, Reply},
    group::{Failed, Group},
    handshake::{Hello, Refusal},
    wire::Frame,
};
use crate::{network::CloseCode, primitives::PeerId};

/// Who asks to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) peer: PeerId,
    /// The life of its storage, and the start of it.
    pub(super) incarnation: u64,
    pub(super) start: Start,
}

impl Claim {
    pub(super) const fn new(peer: PeerId, hello: &Hello) -> Self {
        Self { peer, incarnation: hello.incarnation, start: hello.start }
    }

    /// Whether another process can run on the same storage: not before a first start was durable, nor without a disk.
    const fn can_be_a_copy(&self) -> bool {
        self.start.number > 1
    }

    /// Whether the other claim is of another process with the same identity.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        self.peer == other.peer && self != other
    }
}

/// A claim that is being looked into, until this is dropped.
pub(super) struct Open<'a> {
    group: &'a Group,
    claim: Claim,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.group.mesh().end_claim(&self.claim);
    }
}

impl Group {
    /// Whether a start of a storage may be let in, as far as this member and those that it is bonded to know. Keep what is
    /// returned until it is let in.
    pub(super) async fn examine(&self, claim: Claim) -> Result<Open<'_>, Failed> {
        let others: Vec<_> = {
            let mut mesh = self.mesh();
            mesh.begin_claim(claim)?;
            mesh.bonds().filter(|bond| claim.can_be_a_copy() && bond.peer != claim.peer).cloned().collect()
        };
        let open = Open { group: self, claim };
        let own = async { self.object(&claim).await.map_or(Ok(()), |reason| Err(Failed::Refused(reason, false))) };
        futures::try_join!(own, try_join_all(others.iter().map(|bond| ask(bond, claim))))?;
        Ok(open)
    }

    /// Why this member would not let it in. If another process is bonded with the same identity and lives, that one was first;
    /// it is told.
    async fn object(&self, claim: &Claim) -> Option<Refusal> {
        let rival = self.mesh().rival(claim).cloned();
        if let Some(present) = rival
            && present.answers().await
        {
            if present.queue.push(Frame::Copied).is_err() {
                tracing::debug!(peer = ?claim.peer, "no room to tell a member of a copy of its storage; the copy tries again");
            }
            return Some(Refusal::SecondStart);
        }
        self.mesh().check(claim).err()
    }

    /// Answers another member that has been asked to let somebody in.
    pub(super) async fn judge(&self, claim: Claim, reply: Reply) {
        let code = match self.object(&claim).await {
            Some(reason) => reason.code(),
            None if self.mesh().is_contested(&claim) => CloseCode::Duplicate,
            None => CloseCode::Normal,
        };
        reply.send_now(Bytes::copy_from_slice(&code.code().to_le_bytes()));
    }
}

/// Asks another member. That it has gone meanwhile is no objection.
async fn ask(bond: &Arc<Bond>, claim: Claim) -> Result<(), Failed> {
    let answer = match bond.ask(claim).await {
        Ok(answer) => answer,
        Err(_) if bond.cancel.is_cancelled() => return Ok(()),
        Err(error) => {
            tracing::debug!(peer = ?bond.peer, ?claim, %error, "a member does not say whether it knows another start of a storage");
            return Err(Failed::Lost);
        }
    };
    let code = answer[..].try_into().map(|code| CloseCode::from(u32::from_le_bytes(code)));
    match code {
        Ok(CloseCode::Normal) => Ok(()),
        Ok(CloseCode::Duplicate) => Err(Failed::Duplicate),
        Ok(code) => Err(Refusal::from_code(code).map_or(Failed::Lost, |reason| Failed::Refused(reason, false))),
        Err(_) => Err(Failed::Lost),
    }
}
