//! [`Outlet`]: a member as those see it who let the group own a stream: items go into its log and come out of its windows, and
//! what its machine is does not matter. Does not keep the member alive.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Groups,
    client::bundle,
    error::{CallError, StopReason},
    fence::{self, Fence},
    raft::{Mutant, Switch},
    status::Facts,
    windows::{Shown, Tail},
    worker::{Answer, Board, Queue, Slot, Submission},
};
use crate::primitives::{GroupId, StreamId, watch};

/// See the module's text.
#[derive(Clone)]
pub(crate) struct Outlet {
    pub(super) board: Arc<Board>,
    pub(super) queue: Arc<Queue>,
    pub(super) shown: Arc<Shown>,
}

/// Items on their way into the log.
pub(crate) struct Offered(oneshot::Receiver<Answer>);

impl Offered {
    /// Resolves to the number of the first when they are committed and applied by the leader, or when it is known that they will not be,
    /// or nothing can be known.
    pub(crate) async fn outcome(self) -> Result<u64, CallError> {
        match self.0.await {
            Ok(answer) => {
                let (_, output) = answer?;
                let first = output[..].try_into().map_err(|_| CallError::UndecodableOutput("no number".to_owned()))?;
                Ok(u64::from_le_bytes(first))
            }
            Err(_) => Err(CallError::Interrupted(StopReason::Shutdown)),
        }
    }
}

impl Outlet {
    /// The leadership under which items may be offered now: that of the handler that is running, or else the member's own.
    pub(crate) fn fence(&self) -> Option<Fence> {
        fence::running_in(self.board.group()).or_else(|| self.board.facts().fence())
    }

    /// Names the cluster, in which a stream's numbers are counted; nothing before there is one.
    pub(crate) fn epoch(&self) -> Option<u64> {
        let [a, b, c, d, e, f, g, h, ..] = self.board.facts().cluster?.0.0;
        Some(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Puts framed items into the log, under a leadership. Those of several calls keep their order.
    pub(crate) fn offer(
        &self,
        fence: Fence,
        (stream, count, framed): (StreamId, u64, &[u8]),
        timeout: Duration,
    ) -> Result<Offered, StopReason> {
        let late = Switch::of_this_thread().is(Mutant::FenceTakenLate).then(|| self.board.facts().fence());
        let fence = late.flatten().unwrap_or(fence);
        let body: Bytes = bundle::fenced(fence.term(), &bundle::items(stream, count, framed));
        let (sender, answer) = oneshot::channel();
        let (deadline, answering) = (Instant::now() + timeout, Slot::One(sender));
        // It goes on when nobody waits for the answer: the sender may have gone.
        let submission = Submission { body, strong: false, deadline, timeout, answer: answering, queued: None };
        self.queue.submit([submission])?;
        Ok(Offered(answer))
    }

    /// What there is of a stream from this number on.
    pub(crate) fn tail(&self, stream: StreamId, next: u64) -> Tail {
        self.shown.tail(stream, next)
    }

    /// Tells when a window has changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shown.changes()
    }

    /// Tells when the member's standing has changed.
    pub(crate) fn standing(&self) -> watch::Receiver<Facts> {
        self.board.watch_facts()
    }

    /// Whether the member knows a leader and keeps up with it.
    pub(crate) fn is_online(&self) -> bool {
        self.board.facts().online
    }

    /// Whether the member has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.queue.closed().is_some()
    }
}

impl Groups {
    /// Cancelled when the node ends; cancelling it ends nothing else.
    pub(crate) fn ending(&self) -> CancellationToken {
        self.0.cancel()
    }

    /// The member of a group on this node, if it runs.
    pub(crate) fn outlet(&self, group: GroupId) -> Option<Outlet> {
        let joined = self.0.joined();
        Some(joined.get(&group)?.window.as_ref()?.outlet.clone())
    }
}
