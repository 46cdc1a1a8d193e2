//! One bond: what is known of it, its queue, its calls, and the two tasks that read and write its link.
//!
//! A bond tells of itself with one `Up` and one `Down`, and its messages lie between them. The successor of a bond waits
//! for that `Down`.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::raft::{ClusterId, Envelope, Extent, Member, Start},
    claims::Claim,
    queue::{Queue, Refused},
    wire::{Frame, MAX_BODY},
};
use crate::{network::CloseCode, primitives::PeerId};

/// Calls to one member that may be unanswered, and their bytes.
const MAX_CALLS: usize = 8192;
const MAX_CALL_BYTES: usize = 32 << 20;
/// How long a bond may take to answer when another process claims to be its other side: four round trips, within this.
const PROBE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));
/// How often the answer is looked for.
const PROBE_EVERY: Duration = Duration::from_millis(5);

/// A live link to a member whose key is proved.
#[derive(Debug)]
pub(super) struct Bond {
    pub(super) peer: PeerId,
    pub(super) member: Member,
    /// Which start of its storage, how far that was durable and the cluster, when the bond was made.
    pub(super) start: Start,
    pub(super) extent: Extent,
    pub(super) cluster: Option<ClusterId>,
    /// Who this node is on the bond.
    pub(super) me: Member,
    /// The same at both ends.
    pub(super) id: u64,
    /// The other side's session.
    pub(super) session: u64,
    /// Whether this node dialled, and the dialler's count of dials.
    pub(super) dialled: bool,
    pub(super) dial: u64,
    pub(super) since: Instant,
    pub(super) cancel: CancellationToken,
    /// Cancelled when everything of the bond was told.
    pub(super) ended: CancellationToken,
    pub(super) queue: Queue,
    code: OnceLock<CloseCode>,
    /// Microseconds, smoothed; 0: not known yet.
    rtt: AtomicU64,
    /// One more than the time of the latest ping that came back; 0: none yet.
    ponged: AtomicU64,
    calls: Mutex<Calls>,
    serving: AtomicUsize,
}

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    bytes: usize,
    waiting: BTreeMap<u64, (usize, oneshot::Sender<Answer>)>,
}

type Answer = Result<Bytes, CallFailed>;
/// The number of a call, and where its answer will be.
type Queued = (u64, oneshot::Receiver<Answer>);

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallFailed {
    /// It certainly never left: there is no bond, or no room.
    #[error("the call was not sent")]
    NotSent,
    /// It may have been served.
    #[error("the call was lost")]
    Lost,
    /// It never left: it is over the limit.
    #[error("a call of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// What a new bond is made of.
pub(super) struct Made {
    pub(super) peer: PeerId,
    pub(super) member: Member,
    pub(super) start: Start,
    pub(super) extent: Extent,
    pub(super) cluster: Option<ClusterId>,
    pub(super) me: Member,
    pub(super) id: u64,
    pub(super) session: u64,
    pub(super) dialled: bool,
    pub(super) dial: u64,
}

impl Bond {
    pub(super) fn new(made: &Made, group: &CancellationToken) -> Arc<Self> {
        let Made { peer, member, start, extent, cluster, me, id, session, dialled, dial } = *made;
        Arc::new(Self {
            peer,
            member,
            start,
            extent,
            cluster,
            me,
            id,
            session,
            dialled,
            dial,
            since: Instant::now(),
            cancel: group.child_token(),
            ended: CancellationToken::new(),
            queue: Queue::default(),
            code: OnceLock::new(),
            rtt: AtomicU64::new(0),
            ponged: AtomicU64::new(0),
            calls: Mutex::default(),
            serving: AtomicUsize::new(0),
        })
    }

    /// Ends the bond; the first code counts.
    pub(super) fn close(&self, code: CloseCode) {
        // Set already: it is closing for another reason.
        let _ = self.code.set(code);
        self.cancel.cancel();
    }

    /// The code with which the link is closed.
    pub(super) fn code(&self) -> CloseCode {
        self.code.get().copied().unwrap_or(CloseCode::ShuttingDown)
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        Some(self.rtt.load(Ordering::Relaxed)).filter(|rtt| *rtt > 0).map(Duration::from_micros)
    }

    /// The clock of pings.
    pub(super) fn clock(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether the other side answers now. A process that has just died does not, although its bond is still there.
    pub(super) async fn answers(&self) -> bool {
        let asked = self.clock();
        if self.queue.push(Frame::Ping { at: asked }).is_err() {
            tracing::debug!(peer = ?self.peer, "no room for a ping; an earlier one may be answered");
        }
        let limit = self.rtt().map_or(PROBE.0, |rtt| rtt.saturating_mul(4).clamp(PROBE.0, PROBE.1));
        let answer = async {
            while self.ponged.load(Ordering::Relaxed) <= asked {
                sleep(PROBE_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => false,
            answered = timeout(limit, answer) => answered.is_ok(),
        }
    }

    /// A ping of that time came back.
    pub(super) fn pong(&self, at: u64) {
        self.ponged.fetch_max(at.saturating_add(1), Ordering::Relaxed);
        let sample = self.clock().saturating_sub(at).max(1);
        let smoothed = match self.rtt.load(Ordering::Relaxed) {
            0 => sample,
            rtt => (rtt.saturating_mul(7).saturating_add(sample)) / 8,
        };
        self.rtt.store(smoothed, Ordering::Relaxed);
    }

    /// Queues a message for the next flush; false when its ends are not those of this bond or there is no room.
    pub(super) fn send(&self, envelope: Envelope) -> bool {
        (envelope.to, envelope.from) == (self.member, self.me) && self.queue.add(Frame::Raft(envelope)).is_ok()
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a call now; the future is its answer.
    pub(super) fn call(self: &Arc<Self>, request: Bytes) -> impl Future<Output = Answer> + Send + use<> {
        let len = request.len();
        self.answer(self.queue_call(len, |id| Frame::Call { id, body: request }))
    }

    /// Asks whether the other side knows of another start of that storage. As a call, but sent at once.
    pub(super) fn ask(self: &Arc<Self>, claim: Claim) -> impl Future<Output = Answer> + Send + use<> {
        let queued = self.queue_call(0, |id| Frame::Ask { id, claim });
        self.queue.flush(false);
        self.answer(queued)
    }

    fn answer(self: &Arc<Self>, queued: Result<Queued, CallFailed>) -> impl Future<Output = Answer> + Send + use<> {
        let bond = self.clone();
        async move {
            let (id, answer) = queued?;
            let _waiting = Waiting { bond, id };
            answer.await.unwrap_or(Err(CallFailed::Lost))
        }
    }

    fn queue_call(&self, len: usize, frame: impl FnOnce(u64) -> Frame) -> Result<Queued, CallFailed> {
        if len > MAX_BODY {
            return Err(CallFailed::TooLarge { len, limit: MAX_BODY });
        }
        let (sender, answer) = oneshot::channel();
        // Held over the push, so that calls are queued in the order of their numbers.
        let mut calls = self.calls();
        if calls.waiting.len() >= MAX_CALLS || (calls.bytes > 0 && calls.bytes + len > MAX_CALL_BYTES) {
            return Err(CallFailed::NotSent);
        }
        let id = calls.next;
        self.queue.add(frame(id)).map_err(|_| CallFailed::NotSent)?;
        calls.next += 1;
        calls.bytes += len;
        calls.waiting.insert(id, (len, sender));
        Ok((id, answer))
    }

    /// The answer to a call of ours; one that nobody waits for any more is dropped.
    pub(super) fn answered(&self, id: u64, answer: Answer) {
        let waiting = self.forget(id);
        if let Some(sender) = waiting {
            // An error says that the caller went in this instant.
            let _ = sender.send(answer);
        }
    }

    fn forget(&self, id: u64) -> Option<oneshot::Sender<Answer>> {
        let mut calls = self.calls();
        let (len, sender) = calls.waiting.remove(&id)?;
        calls.bytes -= len;
        Some(sender)
    }

    /// Nothing is sent any more: what is still queued has not left, all other calls may have.
    pub(super) fn end_calls(&self) {
        for frame in self.queue.close() {
            if let Frame::Call { id, .. } | Frame::Ask { id, .. } = frame {
                self.answered(id, Err(CallFailed::NotSent));
            }
        }
        let waiting = std::mem::take(&mut self.calls().waiting);
        for (_, sender) in waiting.into_values() {
            let _ = sender.send(Err(CallFailed::Lost));
        }
    }

    /// Takes on a call of the other side, unless it has too many under way.
    pub(super) fn serve(self: &Arc<Self>, id: u64) -> Option<Reply> {
        let reply = Reply { bond: self.clone(), id, open: true };
        // The reply exists either way and gives its place back when it is dropped.
        (self.serving.fetch_add(1, Ordering::Relaxed) < MAX_CALLS).then_some(reply)
    }
}

/// Forgets a call whose future is dropped.
struct Waiting {
    bond: Arc<Bond>,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.bond.forget(self.id);
    }
}

/// The way back to a caller. Dropped without an answer, the caller gets [`CallFailed::Lost`].
#[derive(Debug)]
#[must_use = "dropping it tells the caller that the call is lost"]
pub(crate) struct Reply {
    bond: Arc<Bond>,
    id: u64,
    open: bool,
}

impl Reply {
    /// As [`send`](Self::send), without waiting for more to go with it.
    pub(super) fn send_now(self, body: Bytes) {
        let bond = self.bond.clone();
        self.send(body);
        bond.queue.flush(false);
    }

    /// Answers. Never blocks; what finds no room in the queue or is over the limit is lost for the caller.
    pub(crate) fn send(mut self, body: Bytes) {
        let fits = body.len() <= MAX_BODY;
        if fits && self.bond.queue.add(Frame::Reply { id: self.id, body }).is_ok() {
            self.open = false;
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.bond.serving.fetch_sub(1, Ordering::Relaxed);
        if self.open && self.bond.queue.push(Frame::Dropped { id: self.id }) == Err(Refused::Full) {
            // The caller must not wait for ever: losing the bond tells it.
            tracing::debug!(peer = ?self.bond.peer, "no room to drop a call; the bond is made anew");
            self.bond.close(CloseCode::TooSlow);
        }
    }
}
