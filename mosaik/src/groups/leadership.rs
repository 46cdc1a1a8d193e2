//! Who leads, as far as users decide: handing over, preferences of members, readiness.
//!
//! All of it is a wish that the leader carries out by handing over; none of it decides about votes or safety. The rules:
//! `docs/src/groups/leadership.md`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Group,
    error::{StopReason, TransferError},
    machine::StateMachine,
    options::MemberRole,
    raft::Fitness,
    worker::{Ask, Queue},
};
use crate::primitives::PeerId;

/// How much a member is to lead. A leader hands over to a living voter that is preferred above it, as soon as that has caught
/// up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LeaderPreference {
    /// It leads only while no other member can.
    Reluctant,
    /// As any other.
    #[default]
    Normal,
    /// It leads whenever it can.
    Preferred,
}

impl LeaderPreference {
    /// What it says of a member that is ready.
    pub(super) const fn fitness(self) -> Fitness {
        match self {
            Self::Reluctant => Fitness::Reluctant,
            Self::Normal => Fitness::Normal,
            Self::Preferred => Fitness::Preferred,
        }
    }
}

impl From<MemberRole> for LeaderPreference {
    fn from(role: MemberRole) -> Self {
        match role {
            MemberRole::Voter => Self::Normal,
            MemberRole::Reluctant | MemberRole::Observer => Self::Reluctant,
        }
    }
}

impl fmt::Display for LeaderPreference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reluctant => "reluctant",
            Self::Normal => "normal",
            Self::Preferred => "preferred",
        })
    }
}

/// The text is none of `reluctant`, `normal` and `preferred`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no preference: reluctant, normal or preferred")]
pub struct UnknownPreference(String);

impl FromStr for LeaderPreference {
    type Err = UnknownPreference;

    fn from_str(text: &str) -> Result<Self, UnknownPreference> {
        let all = [Self::Reluctant, Self::Normal, Self::Preferred];
        all.into_iter().find(|it| it.to_string() == text).ok_or_else(|| UnknownPreference(text.to_owned()))
    }
}

/// What came of handing leadership over; made by [`Group::transfer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transferred {
    leader: PeerId,
    term: u64,
    moved: bool,
}

impl Transferred {
    pub(super) const fn new(leader: PeerId, term: u64, moved: bool) -> Self {
        Self { leader, term, moved }
    }

    /// Who leads.
    #[must_use]
    pub const fn leader(&self) -> PeerId {
        self.leader
    }

    /// In which term.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// False if it led already when it was asked for.
    #[must_use]
    pub const fn has_moved(&self) -> bool {
        self.moved
    }
}

/// Asks the worker for another leader.
pub(super) async fn transfer(queue: &Queue, to: PeerId, timeout: Duration) -> Result<Transferred, TransferError> {
    let (sender, answer) = oneshot::channel();
    let ask = Ask::Transfer { to, deadline: Instant::now() + timeout, timeout, answer: sender };
    queue.ask(ask).map_err(TransferError::Stopped)?;
    let stopped = || TransferError::Stopped(queue.closed().unwrap_or(StopReason::Shutdown));
    answer.await.unwrap_or_else(|_| Err(stopped()))
}

impl<M: StateMachine> Group<M> {
    /// Hands leadership to the member on that node; any member may ask. Resolves when it leads, as far as the local member
    /// knows. Until then commands wait for at most the shortest election timeout at a time and are then applied as ever; no
    /// acknowledged one is lost. The target gets all of the log first; while it is far behind, nothing waits for it.
    ///
    /// Within the handle's timeout. Cancelling the future does not take back what has begun.
    ///
    /// # Errors
    /// At once when the target is no voter, is silent, or another member is fitter; after three attempts when the target does not
    /// come to lead; in the end when it is still behind, or no leader is known. Whoever led goes on.
    pub async fn transfer(&self, to: PeerId) -> Result<Transferred, TransferError> {
        transfer(self.queue(), to, self.timeout()).await
    }

    /// How much the local member is to lead from now on, until it ends. At first it is what its role says: `Reluctant` for
    /// [`MemberRole::Reluctant`], otherwise `Normal`. Of no effect once the member has stopped.
    pub fn set_preference(&self, preference: LeaderPreference) {
        self.wish(Ask::Prefer(preference));
    }

    /// Whether the local member can do a leader's work; a member is ready until it says otherwise. A leader that is not ready
    /// hands over to a voter that is, if there is one.
    ///
    /// A member that was not ready counts as ready half a second after it says so. One that falls a second time within ten
    /// minutes must then be ready for a minute without a break, and twice as long after each further fall, up to ten minutes.
    /// So readiness that flaps moves leadership three times at most, and then at most once a minute. Of no effect once the member
    /// has stopped.
    pub fn set_ready(&self, ready: bool) {
        self.wish(Ask::Ready(ready));
    }

    fn wish(&self, ask: Ask) {
        if let Err(why) = self.queue().ask(ask) {
            tracing::debug!(group = ?self.id(), %why, "a stopped member has no wish to lead");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_read_as_it_is_written() {
        for preference in [LeaderPreference::Reluctant, LeaderPreference::Normal, LeaderPreference::Preferred] {
            assert_eq!(preference.to_string().parse(), Ok(preference));
        }
        let error = "leader".parse::<LeaderPreference>().expect_err("is none");
        assert_eq!(error.to_string(), "\"leader\" is no preference: reluctant, normal or preferred");
    }
}
