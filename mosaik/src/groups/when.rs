//! Conditions on the local member and futures that wait for them: `group.when()`.
//!
//! Everything here only looks at what the worker publishes, so a condition holds no lock and does not keep a group alive.
//! All futures are cancellation-safe. What cannot come any more stays pending.

use super::{
    raft::{Index, Member},
    status::Facts,
};
use crate::primitives::watch;

/// Waits for conditions of the local member; made by [`Group::when`](super::Group::when).
#[derive(Clone)]
pub struct When {
    facts: watch::Receiver<Facts>,
}

impl std::fmt::Debug for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.facts.borrow().fmt(f)
    }
}

/// Waits for what is committed and applied here; made by [`When::committed`].
#[derive(Clone, Debug)]
#[must_use = "says nothing until `reaches` is awaited"]
pub struct Committed(When);

/// Waits for links to other members; made by [`When::bonds`].
#[derive(Clone, Debug)]
#[must_use = "says nothing until `minimum_of` is awaited"]
pub struct Bonded(When);

impl When {
    pub(super) const fn new(facts: watch::Receiver<Facts>) -> Self {
        Self { facts }
    }

    fn until(
        &self,
        mut holds: impl FnMut(&Facts) -> bool + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut facts = self.facts.clone();
        async move {
            if facts.wait_for(|facts| holds(facts)).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The member knows a leader of the group, which may be itself.
    pub fn leader_elected(&self) -> impl Future<Output = ()> + Send + 'static {
        self.until(|facts| facts.leader.is_some())
    }

    /// The leader is another one than at the time of this call: resolves when one is known.
    pub fn leader_changed(&self) -> impl Future<Output = ()> + Send + 'static {
        let before: Option<Member> = self.facts.borrow().leader;
        self.until(move |facts| facts.leader.is_some() && facts.leader != before)
    }

    /// The member leads.
    pub fn is_leader(&self) -> impl Future<Output = ()> + Send + 'static {
        self.until(|facts| facts.is_leader)
    }

    /// The member follows another one.
    pub fn is_follower(&self) -> impl Future<Output = ()> + Send + 'static {
        self.until(|facts| facts.is_follower)
    }

    /// The member knows a leader and is up to date: calls are served.
    pub fn is_online(&self) -> impl Future<Output = ()> + Send + 'static {
        self.until(|facts| facts.online)
    }

    /// A majority of the group's voters is reachable from here.
    pub fn has_quorum(&self) -> impl Future<Output = ()> + Send + 'static {
        self.until(|facts| facts.has_quorum)
    }

    /// Conditions on what is committed and applied by the local member.
    pub fn committed(&self) -> Committed {
        Committed(self.clone())
    }

    /// Conditions on links to other members.
    pub fn bonds(&self) -> Bonded {
        Bonded(self.clone())
    }
}

impl Committed {
    /// Everything up to the index is committed and applied by the local member.
    pub fn reaches(&self, index: Index) -> impl Future<Output = ()> + Send + 'static {
        self.0.until(move |facts| facts.applied >= index)
    }
}

impl Bonded {
    /// The member has links to so many others.
    pub fn minimum_of(&self, count: usize) -> impl Future<Output = ()> + Send + 'static {
        self.0.until(move |facts| facts.bonds >= count)
    }
}
