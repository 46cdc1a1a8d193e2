//! [`Replica`]: a group as a field of a role, which derefs to the client that the machine's attribute generates.

use std::{fmt, ops::Deref};

use super::{
    decl::Link,
    machine::Declared,
    options::{Configure, MemberOptions},
    role::{Endpoint, Opening, RoleError, Setup},
    states,
};
use crate::{
    groups::{CallError, Consistency, Group, GroupBuilder, GroupClient, StateMachine, fence::Leading},
    network::Network,
    trust::Label,
};

/// This node's member of a declared group. Derefs to the client of its machine, which has a method for every command and
/// query; its own only method is [`group`](Self::group). Cheap to clone.
///
/// As the type of a role's field it joins the group when the role starts. When the last clone is dropped the member ends
/// as in a crash.
pub struct Replica<M: Declared> {
    group: Group<M>,
    client: M::Client,
}

impl<M: Declared> Replica<M> {
    /// Joins the group on a node, as a role does: with the declared key, size and initial machine, durable if the node has
    /// a data directory. Ready when the local member runs, not when there is a leader.
    ///
    /// # Errors
    /// When the key is not there, or the group cannot be joined.
    pub async fn join(network: &Network) -> Result<Self, RoleError> {
        Self::join_with(network, MemberOptions::declared()).await
    }

    pub(super) async fn join_with(network: &Network, options: MemberOptions<M>) -> Result<Self, RoleError> {
        let MemberOptions { size, role, timing, log_limit, .. } = options;
        let builder = network.groups().with_key(M::key()?).with_initial(M::initial).tried();
        let (member, call) = (M::MACHINE.group.member.iter().copied(), M::MACHINE.group.call.iter().copied());
        let builder = builder.with_role(role).with_timing(timing).with_member_grants(member).with_call_grants(call);
        let builder = M::MACHINE.group.label.map(Label::declared).into_iter().fold(builder, GroupBuilder::with_label);
        let builder = size.into_iter().fold(builder, GroupBuilder::with_size);
        let joined = log_limit.into_iter().fold(builder, GroupBuilder::with_log_limit).join().await;
        let group = joined.map_err(|error| RoleError::Group { group: M::NAME, error: error.to_string() })?;
        states::call_time_outs(network.node(), &group);
        Ok(group.into())
    }

    /// Joins as a member that never votes and founds nothing.
    #[cfg(feature = "testing")]
    pub(crate) async fn observe(network: &Network) -> Result<Self, RoleError> {
        let role = crate::groups::MemberRole::Observer;
        Self::join_with(network, MemberOptions { role, ..MemberOptions::declared() }).await
    }

    /// The group itself: its leader, its members, what it waits for.
    #[must_use]
    pub const fn group(&self) -> &Group<M> {
        &self.group
    }
}

impl<M: Declared> From<Group<M>> for Replica<M> {
    fn from(group: Group<M>) -> Self {
        let client = M::client(GroupHandle::Member(group.clone()));
        Self { group, client }
    }
}

impl<M: Declared> Deref for Replica<M> {
    type Target = M::Client;

    fn deref(&self) -> &M::Client {
        &self.client
    }
}

impl<M: Declared> Clone for Replica<M> {
    fn clone(&self) -> Self {
        Self { group: self.group.clone(), client: self.client.clone() }
    }
}

impl<M: Declared> fmt::Debug for Replica<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("group", &M::NAME).finish_non_exhaustive()
    }
}

impl<M: Declared> Endpoint for Replica<M> {
    const LINK: Link = Link::Group(M::MACHINE);

    fn open<'a>(setup: &'a mut Setup<'_>, field: &'static str) -> Opening<'a, Self> {
        Self::open_with(Self::builder(setup), setup, field)
    }

    fn set_ready(&self, ready: bool) {
        self.group().set_ready(ready);
    }

    fn member(&self) -> Option<Leading> {
        Some(self.group().leading())
    }
}

/// What a generated client calls. Not for people.
#[doc(hidden)]
pub enum GroupHandle<M: StateMachine> {
    /// Of a member.
    Member(Group<M>),
    /// Of a node that is none.
    Client(GroupClient<M>),
}

impl<M: StateMachine> GroupHandle<M> {
    /// Executes a command; `pick` takes the result out of the machine's output.
    ///
    /// # Errors
    /// As [`Group::execute`] or [`GroupClient::execute`].
    pub async fn call<T>(&self, command: M::Command, pick: fn(M::Output) -> Option<T>) -> Result<T, CallError> {
        let output = match self {
            Self::Member(group) => group.execute(command, Consistency::Weak).await?,
            Self::Client(client) => client.execute(command).await?,
        };
        pick(output).ok_or_else(another_answer)
    }

    /// A query that is yet to be asked.
    pub const fn ask<T>(&self, query: M::Query, pick: fn(M::QueryResult) -> Option<T>) -> QueryCall<'_, M, T> {
        QueryCall { group: self, query, pick }
    }
}

impl<M: StateMachine> Clone for GroupHandle<M> {
    fn clone(&self) -> Self {
        match self {
            Self::Member(group) => Self::Member(group.clone()),
            Self::Client(client) => Self::Client(client.clone()),
        }
    }
}

impl<M: StateMachine> fmt::Debug for GroupHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GroupHandle").field(&M::NAME).finish()
    }
}

/// A query of a [`Replica`] or [`Client`](super::Client) that has not been asked: say how fresh the answer must be.
#[must_use = "asks nothing until `.strong().await` or `.weak().await`"]
pub struct QueryCall<'a, M: StateMachine, T> {
    group: &'a GroupHandle<M>,
    query: M::Query,
    pick: fn(M::QueryResult) -> Option<T>,
}

impl<M: StateMachine, T> QueryCall<'_, M, T> {
    /// Linearizable: the answer sees every command that was acknowledged to anybody before it was asked. Costs a round
    /// trip between the leader and a majority. Cancellation-safe.
    ///
    /// # Errors
    /// When no leader of a majority can be reached in time.
    pub async fn strong(self) -> Result<T, CallError> {
        self.ask(Consistency::Strong).await
    }

    /// From the local machine at once, however far behind it is; of a [`Client`](super::Client), from that of the nearest
    /// member. Cancellation-safe.
    ///
    /// # Errors
    /// When the local member has ended, or no member answers a client in time.
    pub async fn weak(self) -> Result<T, CallError> {
        self.ask(Consistency::Weak).await
    }

    async fn ask(self, consistency: Consistency) -> Result<T, CallError> {
        let answer = match self.group {
            GroupHandle::Member(group) => group.query(self.query, consistency).await?,
            GroupHandle::Client(client) => client.query(self.query, consistency).await?,
        };
        (self.pick)(answer.into_inner()).ok_or_else(another_answer)
    }
}

impl<M: StateMachine, T> fmt::Debug for QueryCall<'_, M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryCall").field("group", &M::NAME).finish_non_exhaustive()
    }
}

/// The client of a machine over a command type of its own (`#[derive(StateMachine)]`).
#[derive(Clone, Debug)]
pub struct MachineClient<M: StateMachine> {
    handle: GroupHandle<M>,
}

impl<M: StateMachine> MachineClient<M> {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(handle: GroupHandle<M>) -> Self {
        Self { handle }
    }

    /// Executes a command: resolves once the group has committed it and it was applied, exactly once.
    ///
    /// # Errors
    /// When the group cannot be reached, or it is not known whether it was applied.
    pub async fn execute(&self, command: M::Command) -> Result<M::Output, CallError> {
        self.handle.call(command, Some).await
    }

    /// Asks the machine; `.strong().await` or `.weak().await` does.
    pub const fn query(&self, query: M::Query) -> QueryCall<'_, M, M::QueryResult> {
        self.handle.ask(query, Some)
    }
}

/// Cannot happen between members of one schema, which are the only ones that talk to each other.
fn another_answer() -> CallError {
    CallError::UndecodableOutput(String::from("it is that of another call"))
}
