//! [`GroupClient`]: what a node holds that calls a group without being a member.

use std::{collections::BTreeSet, fmt, marker::PhantomData, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    lines::{Line, Lines, leader_of},
    protocol::{Shape, Unanswered},
    worker::{Worker, why},
};
use crate::{
    groups::{
        DEFAULT_TIMEOUT, Groups,
        error::{CallError, MAX_COMMAND, StopReason},
        group::{Answered, decode_single, encode_command},
        key::GroupKey,
        machine::StateMachine,
        options::Consistency,
        worker::{Queue, Slot, Submission},
    },
    primitives::{GroupId, PeerId, codec::Codec},
    trust::{Label, Needed, Right},
};

/// How long one member may take for a query while others could be asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// Calls a group from a node that is no member of it: holds no data, never votes, and its coming and going is no matter of the
/// group. Cheap to clone; when the last clone is dropped its links end.
///
/// It finds members through discovery and needs the group's key. Its commands are applied exactly once, in the order in which
/// its calls were first polled, over changes of leader and losses of members.
///
/// ```
/// use mosaik::{builtin::NoOp, prelude::*};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (network, key) = (NetworkId::random(), GroupKey::random());
/// let (member, front) = (Network::new(network).await?, Network::new(network).await?);
/// let group = member.groups().with_key(key.clone()).with_state_machine(NoOp).join().await?;
/// let client = front.groups().client::<NoOp>(&key);
/// client.execute(()).await?;
/// assert_eq!(group.members().len(), 1);
/// # front.shutdown().await;
/// # member.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct GroupClient<M: StateMachine> {
    inner: Arc<Inner>,
    timeout: Duration,
    machine: PhantomData<fn() -> M>,
}

struct Inner {
    group: GroupId,
    lines: Arc<Lines>,
    queue: Arc<Queue>,
    cancel: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Groups {
    /// A client of the group of this key and machine, on a node that need not be a member. It looks for members at once; calls wait
    /// for the first. Members of another version of the machine, or with commands or queries of another shape, are not called.
    #[must_use]
    pub fn client<M: StateMachine>(&self, key: &GroupKey) -> GroupClient<M> {
        self.client_with_grants::<M>(key, [""; 0], [""; 0])
    }

    /// As [`client`](Self::client), of a group that is declared with grants: in a network of an authority, members are called whose ticket
    /// grants one of `member`; `call` is what they ask of this node, to say what it lacks if one refuses it. With none,
    /// nothing is asked.
    #[must_use]
    pub fn client_with_grants<M: StateMachine>(
        &self,
        key: &GroupKey,
        member: impl IntoIterator<Item = impl Into<String>>,
        call: impl IntoIterator<Item = impl Into<String>>,
    ) -> GroupClient<M> {
        self.client_with_label::<M>(key, member, call, None)
    }

    /// As [`client_with_grants`](Self::client_with_grants), of a group that has this label, or none. Members that declare another one
    /// are not called; in a network of an authority this node's ticket needs the grant `clears:` and the label, and so do they.
    #[must_use]
    pub fn client_with_label<M: StateMachine>(
        &self,
        key: &GroupKey,
        member: impl IntoIterator<Item = impl Into<String>>,
        call: impl IntoIterator<Item = impl Into<String>>,
        label: Option<&Label>,
    ) -> GroupClient<M> {
        let member = Needed::one_of(Right::Member, member).about(M::NAME).clearing(label);
        let call = Needed::one_of(Right::Call, call).about(M::NAME).clearing(label);
        let (node, group) = (self.0.node.clone(), key.group_id(M::NAME));
        let (cancel, queue) = (self.0.cancel(), Arc::new(Queue::default()));
        let at = (node.clone(), self.0.discovery.clone());
        node.asks_for([&member, &call]);
        let lines = Lines::new(at, (group, key.clone()), (member, call), Shape::of::<M>(label), cancel.clone());
        let worker = Worker::new(node.clone(), lines.clone(), queue.clone());
        node.tasks().spawn("lines to a group", lines.clone().follow());
        node.tasks().spawn("client of a group", worker.run(cancel.clone()));
        let inner = Arc::new(Inner { group, lines, queue, cancel });
        GroupClient { inner, timeout: DEFAULT_TIMEOUT, machine: PhantomData }
    }
}

impl<M: StateMachine> GroupClient<M> {
    /// A handle whose calls may take so long. Default: [`DEFAULT_TIMEOUT`]. It is kept to within 50 ms.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { inner: self.inner.clone(), timeout, machine: PhantomData }
    }

    /// The group's id: the key and the machine's name.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.inner.group
    }

    /// The members that it has links to now, by id.
    #[must_use]
    pub fn members(&self) -> Vec<PeerId> {
        self.inner.lines.live().iter().map(|line| line.peer).collect()
    }

    /// The leader, as far as its members know.
    #[must_use]
    pub fn leader(&self) -> Option<PeerId> {
        let standings = self.inner.lines.live().into_iter().map(|line| line.standing());
        standings.filter(|it| it.leader.is_some()).max_by_key(|it| it.term).and_then(|it| leader_of(&it))
    }

    /// What is in the way of each member that it tries to reach and does not.
    #[must_use]
    pub fn unreached(&self) -> Vec<(PeerId, String)> {
        self.inner.lines.in_the_way()
    }

    /// Resolves when it has a link to a member that knows a leader. Stays pending after the end of the network.
    /// Cancellation-safe.
    pub async fn connected(&self) {
        let mut changed = self.inner.lines.watch();
        while self.leader().is_none() {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Applies a command, exactly once, and returns what `apply` returned for it: resolves when the group has committed it and
    /// its leader has applied it. While too much is under way (8,192 commands or 16 MiB), it waits for room.
    ///
    /// Cancellation-safe in that nothing breaks; a command that was dropped may or may not be applied, unless it was still
    /// waiting for room.
    ///
    /// # Errors
    /// After the handle's timeout, and as [`CallError`] says; [`CallError::outcome`] says what became of the command. An output
    /// over 1 MiB does not come back: a command with such outputs is for a member.
    pub async fn execute(&self, command: M::Command) -> Result<M::Output, CallError> {
        let body = encode_command(Codec::of(), &command)?;
        drop(command);
        let (sender, answer) = oneshot::channel();
        let (deadline, timeout) = (Instant::now() + self.timeout, self.timeout);
        let submission = Submission { body, strong: false, deadline, timeout, answer: Slot::One(sender), queued: None };
        let tickets = self.inner.queue.submit([submission]).map_err(CallError::Stopped)?;
        let mut waiting = Withdraw { queue: &self.inner.queue, tickets };
        let answered = answer.await.unwrap_or_else(|_| Err(CallError::Interrupted(self.stopped())));
        waiting.tickets = 0..0;
        decode_single(Codec::of(), &answered?.1)
    }

    /// Asks the machine of a member. `Weak`: as that member has it now, which is the nearest one that is online. `Strong`:
    /// linearizable. When a member gives no answer within a second, the next one is asked. Cancellation-safe.
    ///
    /// # Errors
    /// After the handle's timeout, when the query panics or its result is over 3 MiB, or after the end of the network.
    pub async fn query(
        &self,
        query: M::Query,
        consistency: Consistency,
    ) -> Result<Answered<M::QueryResult>, CallError> {
        self.ask(query, consistency == Consistency::Strong, 0).await
    }

    /// As a weak [`query`](Self::query), of a machine that has applied everything up to the index.
    ///
    /// # Errors
    /// As there.
    pub async fn query_at_least(&self, query: M::Query, index: u64) -> Result<Answered<M::QueryResult>, CallError> {
        self.ask(query, false, index).await
    }

    async fn ask(&self, query: M::Query, strong: bool, at_least: u64) -> Result<Answered<M::QueryResult>, CallError> {
        let body: bytes::Bytes = Codec::of().marked(&query, MAX_COMMAND)?.into();
        drop(query);
        let deadline = Instant::now() + self.timeout;
        let (mut changed, mut asked) = (self.inner.lines.watch(), BTreeSet::new());
        let late = || CallError::Timeout { waited: self.timeout, why: why(&self.inner.lines) };
        loop {
            if self.inner.queue.closed().is_some() {
                return Err(CallError::Stopped(self.stopped()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late());
            }
            let Some(line) = self.nearest(strong, &asked) else {
                // All were asked in vain: in a moment they are asked again.
                asked.clear();
                let waited = timeout_at(deadline, timeout(PATIENCE / 10, changed.changed())).await;
                match waited {
                    Err(_) => return Err(late()),
                    Ok(Ok(Err(_))) => return Err(CallError::Stopped(self.stopped())),
                    Ok(Ok(Ok(())) | Err(_)) => continue,
                }
            };
            let within = left.min(PATIENCE);
            match timeout(within, line.query(body.clone(), strong, at_least, within)).await {
                Ok(Ok((index, result))) => {
                    let result = Codec::<M::QueryResult>::of().decode_marked(&result);
                    let result = result.map_err(|error| CallError::UndecodableOutput(error.to_string()))?;
                    return Ok(Answered::new(result, index));
                }
                Ok(Err(Unanswered::Failed(why))) => return Err(CallError::Query(why)),
                Ok(Err(Unanswered::NotHere(why))) => {
                    tracing::trace!(member = ?line.peer, why, "a query goes to another member");
                }
                Err(_) => tracing::trace!(member = ?line.peer, "a query goes to another member, this one is silent"),
            }
            asked.insert(line.peer);
        }
    }

    /// The member to ask: for a strong query the leader, which needs no further hop; else the one with the shortest round trip
    /// among those that are online.
    fn nearest(&self, strong: bool, asked: &BTreeSet<PeerId>) -> Option<Arc<Line>> {
        let leader = self.leader();
        let lines = self.inner.lines.live().into_iter().filter(|line| !asked.contains(&line.peer));
        lines.min_by_key(|line| {
            let standing = line.standing();
            let rtt = self.inner.lines.rtt(line.peer).unwrap_or(Duration::MAX);
            (!standing.online, strong && leader != Some(line.peer), rtt, line.peer)
        })
    }

    fn stopped(&self) -> StopReason {
        self.inner.queue.closed().unwrap_or(StopReason::Shutdown)
    }
}

/// Takes a command back that the worker has not taken yet when its caller goes away.
struct Withdraw<'a> {
    queue: &'a Queue,
    tickets: std::ops::Range<u64>,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        self.tickets.clone().for_each(|ticket| self.queue.withdraw(ticket));
    }
}

impl<M: StateMachine> Clone for GroupClient<M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), timeout: self.timeout, machine: PhantomData }
    }
}

impl<M: StateMachine> fmt::Debug for GroupClient<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("GroupClient");
        debug.field("machine", &M::NAME).field("group", &self.inner.group).field("members", &self.members());
        debug.finish_non_exhaustive()
    }
}
