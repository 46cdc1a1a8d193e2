//! [`Group`]: the handle of a member. Encodes commands and queries, hands them to the worker and waits.
//!
//! It knows nothing of leaders or elections: any member serves any call.

use std::{
    fmt,
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Groups, Registry,
    bonds::{Bonds, Refused},
    client::bundle::{self, Output},
    error::{CallError, LeaveError, MAX_COMMAND, SealError, StopReason},
    fence::{self, Fence, Leading},
    machine::StateMachine,
    options::Consistency,
    status::{GroupStatus, MemberInfo, peer_of},
    when::When,
    worker::{Answer, Ask, Board, NotAsked, Queue, Replica, Slot, Submission, slots},
};
use crate::primitives::{
    Datum, GroupId, PeerId,
    codec::{Codec, EncodeError},
    figures::Watch,
};

/// How long a call may take, unless a handle says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long leaving may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// The local member of a group, which runs a state machine of type `M`. Cheap to clone. When the last clone is dropped the
/// member stops as in a crash: it stays part of the group. See [`leave`](Self::leave) for the other way.
///
/// Commands of all handles of one member are applied in the order in which their calls were first polled. Any member
/// serves any call; followers forward commands to the leader, try again when it changes, and never apply one twice.
///
/// ```
/// use mosaik::{builtin::NoOp, prelude::*};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::new(NetworkId::random()).await?;
/// let group = network.groups().with_key(GroupKey::random()).with_state_machine(NoOp).join().await?;
/// group.when().leader_elected().await;
/// group.execute((), Consistency::Strong).await?;
/// assert!(group.is_leader() && group.committed() > 0);
/// network.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct Group<M: StateMachine> {
    handle: Arc<Handle<M>>,
    timeout: Duration,
    /// The leadership that the handle's commands depend on, if it was given one.
    fence: Option<Fence>,
}

/// What all clones share.
pub(super) struct Handle<M: StateMachine> {
    pub registry: Arc<Registry>,
    pub replica: Arc<Replica<M>>,
    pub queue: Arc<Queue>,
    pub board: Arc<Board>,
    pub bonds: Bonds,
    pub cancel: CancellationToken,
    pub executes: Watch,
    pub commands: Codec<M::Command>,
    pub outputs: Codec<M::Output>,
}

impl<M: StateMachine> Drop for Handle<M> {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.registry.forget(self.board.group());
    }
}

impl<M: StateMachine> Clone for Group<M> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), timeout: self.timeout, fence: self.fence }
    }
}

impl<M: StateMachine> fmt::Debug for Group<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("machine", &M::NAME).field("board", &self.handle.board).finish_non_exhaustive()
    }
}

impl<M: StateMachine> Group<M> {
    pub(super) fn new(handle: Handle<M>) -> Self {
        Self { handle: Arc::new(handle), timeout: DEFAULT_TIMEOUT, fence: None }
    }

    /// Gives a handle while there are others; does not keep the member running.
    pub(crate) fn downgrade(&self) -> impl Fn() -> Option<Self> + Send + Sync + use<M> {
        let (handle, timeout, fence) = (Arc::downgrade(&self.handle), self.timeout, self.fence);
        move || handle.upgrade().map(|handle| Self { handle, timeout, fence })
    }

    /// A handle whose calls may take so long. Default: [`DEFAULT_TIMEOUT`]. It is kept to within one heartbeat.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// A handle whose commands are applied only while the leadership of this fence lasts: when another one has begun, or the group
    /// took the command in a later term, they fail with [`CallError::Fenced`](CallError::Fenced). Queries are as ever.
    ///
    /// ```
    /// # use mosaik::{builtin::NoOp, prelude::*};
    /// # async fn example(group: Group<NoOp>) -> Result<(), CallError> {
    /// if let Some(fence) = group.fence() {
    ///     // However long this takes: if another member leads by then, nothing is done.
    ///     group.with_fence(fence).execute((), Consistency::Weak).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_fence(&self, fence: Fence) -> Self {
        Self { fence: Some(fence), ..self.clone() }
    }

    /// The group's id: the key and the machine's name.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.handle.board.group()
    }

    /// Applies a command on all members, exactly once, and returns what `apply` returned for it.
    ///
    /// `Weak` resolves when the group has committed it and the leader has applied it, `Strong` when the local machine has
    /// applied it, too. While too much is under way (8,192 commands or 16 MiB), it waits for room.
    ///
    /// Cancellation-safe in that nothing breaks; a command that was dropped may or may not be applied, unless it was still
    /// waiting for room.
    ///
    /// # Errors
    /// After the handle's timeout, and as [`CallError`] says; [`CallError::outcome`] says what became of the command.
    pub async fn execute(&self, command: M::Command, consistency: Consistency) -> Result<M::Output, CallError> {
        let began = self.handle.executes.start();
        let body = self.encode(&command)?;
        drop(command);
        let (submission, answer) = self.submission(body, consistency == Consistency::Strong);
        let waiting = self.submit([submission])?;
        let result = self.answer(answer).await;
        waiting.over();
        self.handle.executes.stop(began);
        decode(self.handle.outputs, &mut &*result?.1)
    }

    /// Applies commands in order, in as few messages and writes as possible, and returns their outputs in order. They are
    /// not a transaction: commands of others may come between.
    ///
    /// # Errors
    /// The first error of any; commands before and after it may have been applied. Nothing is sent when one cannot be encoded.
    pub async fn execute_many<C>(&self, commands: C, consistency: Consistency) -> Result<Vec<M::Output>, CallError>
    where
        C: IntoIterator<Item = M::Command> + Send,
    {
        let (counts, answers, waiting) = {
            let bodies = bundle::pack(self.handle.commands, commands, MAX_COMMAND)?;
            if bodies.is_empty() {
                return Ok(Vec::new());
            }
            let (slots, answers) = slots(bodies.len());
            let (deadline, timeout, strong) =
                (Instant::now() + self.timeout, self.timeout, consistency == Consistency::Strong);
            let fenced = |(body, count)| (self.fenced(body), count);
            let (bodies, counts): (Vec<_>, Vec<_>) = bodies.into_iter().map(fenced).unzip();
            let submission = |(body, answer)| Submission { body, strong, deadline, timeout, answer, queued: None };
            (counts, answers, self.submit(bodies.into_iter().zip(slots).map(submission))?)
        };
        let result = answers.await;
        waiting.over();
        match result {
            Ok(Ok(outputs)) => unpack(self.handle.outputs, &counts, &outputs),
            Ok(Err(Some(error))) => Err(error),
            Ok(Err(None)) | Err(_) => Err(self.interrupted()),
        }
    }

    /// Hands a command to the leader; resolves when that has it in its log, to a handle that resolves to the output once the
    /// command is committed and applied. Until then it may still be lost. The command goes on when the handle is dropped.
    ///
    /// Before it has resolved, dropping it is as with [`execute`](Self::execute).
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn feed(&self, command: M::Command) -> Result<Fed<M::Output>, CallError> {
        let body = self.encode(&command)?;
        drop(command);
        let (mut submission, answer) = self.submission(body, false);
        let (queued, told) = oneshot::channel();
        submission.queued = Some(queued);
        let waiting = self.submit([submission])?;
        let mut fed = Fed { answer, queue: self.handle.queue.clone(), outputs: self.handle.outputs };
        if told.await.is_err() {
            // It failed, or was applied before it was said to be queued.
            let result = (&mut fed.answer).await.unwrap_or_else(|_| Err(self.interrupted()));
            let (sender, answer) = oneshot::channel();
            let _ = sender.send(Ok(result?));
            fed.answer = answer;
        }
        waiting.over();
        Ok(fed)
    }

    /// Asks the machine. `Weak`: the local one as it is now. `Strong`: linearizable, which takes one round trip of the leader
    /// to a majority; all strong queries that wait share one. Queries run between commands, and wait as a task for the one that
    /// is being applied. Cancellation-safe.
    ///
    /// # Errors
    /// After the handle's timeout, or when the local member has stopped.
    pub async fn query(
        &self,
        query: M::Query,
        consistency: Consistency,
    ) -> Result<Answered<M::QueryResult>, CallError> {
        let deadline = Instant::now() + self.timeout;
        if consistency == Consistency::Strong {
            let (sender, answer) = oneshot::channel();
            let ask = Ask::Read { deadline, timeout: self.timeout, answer: sender };
            self.handle.queue.ask(ask).map_err(CallError::Stopped)?;
            answer.await.unwrap_or_else(|_| Err(CallError::Stopped(self.stopped())))?;
        } else if let Some(why) = self.handle.queue.closed() {
            return Err(CallError::Stopped(why));
        }
        self.ask_machine(query, deadline).await
    }

    /// Asks the local machine once it has applied everything up to the index, such as that of an earlier answer or of
    /// [`committed`](Self::committed) at another member. Cancellation-safe.
    ///
    /// # Errors
    /// After the handle's timeout, or when the local member has stopped.
    pub async fn query_at_least(&self, query: M::Query, index: u64) -> Result<Answered<M::QueryResult>, CallError> {
        let deadline = Instant::now() + self.timeout;
        let mut facts = self.handle.board.watch_facts();
        while self.handle.replica.applied() < index {
            if let Some(why) = self.handle.queue.closed() {
                return Err(CallError::Stopped(why));
            }
            if timeout_at(deadline, facts.changed()).await.is_err() {
                return Err(CallError::Timeout { waited: self.timeout, why: self.handle.board.why() });
            }
        }
        self.ask_machine(query, deadline).await
    }

    async fn ask_machine(&self, query: M::Query, deadline: Instant) -> Result<Answered<M::QueryResult>, CallError> {
        let tasks = self.handle.registry.node.tasks();
        match self.handle.replica.query(tasks, query, deadline).await {
            Ok((result, index)) => Ok(Answered { result, index }),
            Err(NotAsked::Late) => Err(CallError::Timeout { waited: self.timeout, why: self.handle.board.why() }),
            Err(NotAsked::Ended) => Err(CallError::Stopped(self.stopped())),
        }
    }

    fn encode(&self, command: &M::Command) -> Result<Bytes, CallError> {
        Ok(self.fenced(encode_command(self.handle.commands, command)?))
    }

    /// The body with the fence of this handle, or of the handler that is running.
    fn fenced(&self, body: Bytes) -> Bytes {
        match self.fence.or_else(|| fence::running_in(self.id())) {
            Some(fence) => bundle::fenced(fence.term(), &body),
            None => body,
        }
    }

    fn submission(&self, body: Bytes, strong: bool) -> (Submission, oneshot::Receiver<Answer>) {
        let (sender, answer) = oneshot::channel();
        let (deadline, timeout) = (Instant::now() + self.timeout, self.timeout);
        (Submission { body, strong, deadline, timeout, answer: Slot::One(sender), queued: None }, answer)
    }

    fn submit(&self, submissions: impl IntoIterator<Item = Submission>) -> Result<Waiting<'_>, CallError> {
        let tickets = self.handle.queue.submit(submissions).map_err(CallError::Stopped)?;
        Ok(Waiting { queue: &self.handle.queue, tickets })
    }

    async fn answer(&self, answer: oneshot::Receiver<Answer>) -> Answer {
        answer.await.unwrap_or_else(|_| Err(self.interrupted()))
    }

    /// The groups of this node.
    pub(crate) fn groups(&self) -> Groups {
        Groups(self.handle.registry.clone())
    }

    pub(super) fn board(&self) -> &Board {
        &self.handle.board
    }

    /// Whether the local member leads, for those who do not know its machine.
    pub(crate) fn leading(&self) -> Leading {
        Leading::new(self.handle.board.clone())
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.handle.queue
    }

    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    fn stopped(&self) -> StopReason {
        self.handle.queue.closed().unwrap_or(StopReason::Shutdown)
    }

    fn interrupted(&self) -> CallError {
        CallError::Interrupted(self.stopped())
    }

    /// The last index that is committed and applied by the local machine. Never goes back.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.handle.board.facts().applied
    }

    /// The end of the local log. What lies beyond [`committed`](Self::committed) may still be replaced.
    #[must_use]
    pub fn log_position(&self) -> u64 {
        self.handle.board.facts().last
    }

    /// The leader, as far as the local member knows.
    #[must_use]
    pub fn leader(&self) -> Option<PeerId> {
        self.handle.board.facts().leader.and_then(|leader| peer_of(leader.node))
    }

    /// Whether the local member leads. Another one may lead already without this one knowing; only what is committed counts.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.handle.board.facts().is_leader
    }

    /// The members of the group, the local one included, from the configuration in the local log.
    #[must_use]
    pub fn members(&self) -> Vec<MemberInfo> {
        self.handle.board.status().members().to_vec()
    }

    /// The members that the local one has a link to now, with the round-trip time if it was measured.
    #[must_use]
    pub fn bonds(&self) -> Vec<Bond> {
        let bonds = self.handle.bonds.peers().into_iter();
        bonds.map(|bond| Bond { peer: bond.peer, rtt: bond.rtt, age: bond.since.elapsed() }).collect()
    }

    /// Who was refused by the local member or has refused it, oldest first: the last 64 that differ, also while the group is
    /// online. See `docs/src/groups/bonds.md` for what each means.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refused> {
        self.handle.bonds.refusals()
    }

    /// Futures that wait for conditions of the local member.
    #[must_use]
    pub fn when(&self) -> When {
        When::new(self.handle.board.watch_facts())
    }

    /// How the local member stands, and why it is not online if it is not.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        self.handle.board.status()
    }

    /// The status now and after each change of anything but the indexes; changes that follow each other closely come as
    /// one. It ends with the network. Cancellation-safe.
    pub fn statuses(&self) -> impl Stream<Item = GroupStatus> + Send + Unpin + use<M> {
        let receiver = self.handle.board.watch_status();
        Box::pin(futures::stream::unfold((receiver, true), |(mut receiver, first)| async move {
            if !first {
                receiver.changed().await.ok()?;
            }
            let status = receiver.borrow_and_update().clone();
            Some((status, (receiver, false)))
        }))
    }

    /// Ends this version of the machine: a seal is committed, every member takes a snapshot at exactly that index, and no command
    /// is taken after it; queries go on. Then stop all members and start the next version, which takes the state over with
    /// [`Snapshots::migrate_from`](super::Snapshots::migrate_from). Resolves to the index once the local snapshot is durable;
    /// [`GroupStatus::machine`] says so at every member. A seal cannot be taken back. Cancelling the future does not stop it.
    ///
    /// # Errors
    /// When the machine has no snapshots, when it takes longer than the handle's timeout, or when the snapshot cannot be taken.
    pub async fn seal(&self) -> Result<u64, SealError> {
        if !M::snapshots().any() {
            return Err(SealError::NoSnapshots);
        }
        let (sender, answer) = oneshot::channel();
        let (deadline, timeout) = (Instant::now() + self.timeout, self.timeout);
        self.handle.queue.ask(Ask::Seal { deadline, timeout, answer: sender }).map_err(SealError::Stopped)?;
        answer.await.unwrap_or_else(|_| Err(SealError::Stopped(self.stopped())))
    }

    /// Leaves the group for good: leadership is handed over, the removal is committed, the local state is deleted and the
    /// member stops. Cancelling the future does not take it back.
    ///
    /// # Errors
    /// When fewer voters than the group's floor would be left, and when it takes more than 30 s; the member then goes on.
    pub async fn leave(&self) -> Result<(), LeaveError> {
        self.go(false).await
    }

    /// Leaves without asking: the local state is deleted and the member stops, as if its disk had died. The others remove
    /// its vote when they can; until then it counts as a dead voter.
    ///
    /// # Errors
    /// When the local member does not run any more.
    pub async fn leave_forced(&self) -> Result<(), LeaveError> {
        self.go(true).await
    }

    async fn go(&self, forced: bool) -> Result<(), LeaveError> {
        let (sender, answer) = oneshot::channel();
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        let ask = Ask::Leave { forced, deadline, answer: sender };
        self.handle.queue.ask(ask).map_err(LeaveError::Stopped)?;
        answer.await.unwrap_or_else(|_| Err(LeaveError::Stopped(self.stopped())))
    }
}

/// Takes commands back that the worker has not taken yet when their caller goes away.
struct Waiting<'a> {
    queue: &'a Queue,
    tickets: std::ops::Range<u64>,
}

impl Waiting<'_> {
    /// All are answered.
    fn over(mut self) {
        self.tickets = 0..0;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.tickets.clone().for_each(|ticket| self.queue.withdraw(ticket));
    }
}

/// A command that is in the leader's log; made by [`Group::feed`]. Resolves to its output.
#[must_use = "its command may still be lost, which only awaiting it tells"]
pub struct Fed<O> {
    answer: oneshot::Receiver<Answer>,
    queue: Arc<Queue>,
    outputs: Codec<O>,
}

impl<O> fmt::Debug for Fed<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fed")
    }
}

impl<O: Datum> Future for Fed<O> {
    type Output = Result<O, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(cx));
        let stopped = || CallError::Interrupted(self.queue.closed().unwrap_or(StopReason::Shutdown));
        Poll::Ready(
            answer.unwrap_or_else(|_| Err(stopped())).and_then(|(_, output)| decode(self.outputs, &mut &*output)),
        )
    }
}

/// The answer to a query: derefs to the result and knows which state it was given from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered<R> {
    result: R,
    index: u64,
}

impl<R> Answered<R> {
    pub(super) const fn new(result: R, index: u64) -> Self {
        Self { result, index }
    }

    /// The index up to which the machine had applied everything when it answered.
    pub const fn at(&self) -> u64 {
        self.index
    }

    /// The result by itself.
    pub fn into_inner(self) -> R {
        self.result
    }
}

impl<R> Deref for Answered<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.result
    }
}

/// A link to another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bond {
    peer: PeerId,
    rtt: Option<Duration>,
    age: Duration,
}

impl Bond {
    /// The other member.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// The smoothed round-trip time, once it was measured.
    #[must_use]
    pub const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// How long the link has been up.
    #[must_use]
    pub const fn age(&self) -> Duration {
        self.age
    }
}

/// The body of a single command.
pub(super) fn encode_command<T: Datum>(codec: Codec<T>, command: &T) -> Result<Bytes, CallError> {
    Ok(bundle::single(|body| codec.append(command, body, MAX_COMMAND))?.into())
}

impl From<EncodeError> for CallError {
    fn from(why: EncodeError) -> Self {
        match why {
            EncodeError::Refused(why) => Self::Encode(why),
            EncodeError::TooLarge(size) => Self::TooLarge { size },
        }
    }
}

/// The outputs of bodies with so many commands each.
fn unpack<T: Datum>(codec: Codec<T>, counts: &[usize], outputs: &[Bytes]) -> Result<Vec<T>, CallError> {
    let mut all = Vec::with_capacity(counts.iter().sum());
    for (count, outputs) in counts.iter().zip(outputs) {
        let mut rest = &**outputs;
        for _ in 0..*count {
            all.push(decode(codec, &mut rest)?);
        }
    }
    Ok(all)
}

/// The output of a command that was sent by itself.
pub(super) fn decode_single<T: Datum>(codec: Codec<T>, mut output: &[u8]) -> Result<T, CallError> {
    decode(codec, &mut output)
}

/// The next output.
fn decode<T: Datum>(codec: Codec<T>, outputs: &mut &[u8]) -> Result<T, CallError> {
    match bundle::output(outputs) {
        Some(Output::Encoded(format, output)) => {
            codec.decode(format, output).map_err(|error| CallError::UndecodableOutput(error.to_string()))
        }
        Some(Output::Panicked(index)) => Err(CallError::Panicked { index }),
        Some(Output::Undecodable) => Err(CallError::Undecodable),
        None => Err(CallError::UndecodableOutput("some outputs are missing".to_owned())),
    }
}
