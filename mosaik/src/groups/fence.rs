//! What is done under a [`Fence`] counts only while that leadership lasts, also when whoever does it was frozen meanwhile and does not
//! know yet that another member leads.
//!
//! A fenced command carries the term. Every member applies it in an entry of that very term or not at all, so what becomes of it is
//! a function of the log alone: a new leader's first entry ends the term for everything behind it.

use std::{future::Future, sync::Arc};

use super::{machine::StateMachine, worker::Board};
pub use crate::primitives::Fence;
use crate::primitives::GroupId;

tokio::task_local! {
    /// Under which leadership of which group this task runs, for the time being.
    static RUNNING: (GroupId, Fence);
}

/// Runs what is called under a leadership of a group.
pub(crate) fn within<T>((group, fence): (GroupId, Fence), call: impl FnOnce() -> T) -> T {
    RUNNING.sync_scope((group, fence), call)
}

/// Runs a future under a leadership of a group; not what it spawns.
pub(crate) fn scope<F: Future>((group, fence): (GroupId, Fence), future: F) -> impl Future<Output = F::Output> {
    RUNNING.scope((group, fence), future)
}

/// The fence that this task runs under, of whichever group.
pub(crate) fn running() -> Option<Fence> {
    RUNNING.try_with(|(_, fence)| *fence).ok()
}

/// The fence of this group that this task runs under.
pub(super) fn running_in(group: GroupId) -> Option<Fence> {
    RUNNING.try_with(|(of, fence)| (*of == group).then_some(*fence)).ok().flatten()
}

/// Knows whether the local member of a group leads, whatever its machine is. Does not keep the member alive.
#[derive(Clone, Debug)]
pub struct Leading(Arc<Board>);

impl Leading {
    pub(super) const fn new(board: Arc<Board>) -> Self {
        Self(board)
    }

    /// The group, and the fence of the leadership that lasts, as far as the member knows.
    pub(crate) fn fence(&self) -> Option<(GroupId, Fence)> {
        Some((self.0.group(), self.0.facts().fence()?))
    }
}

impl<M: StateMachine> super::Group<M> {
    /// The present leadership of the local member as a token; nothing while another member leads. It is given out from the moment on
    /// at which the local machine has everything that was acknowledged before the leadership began, so weak queries see that.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.board().facts().fence()
    }
}
