//! [`Client`]: a group as a field of a role that calls it and is no member.

use std::{fmt, future::ready, ops::Deref};

use super::{
    decl::Link,
    machine::Declared,
    replica::GroupHandle,
    role::{Endpoint, Opening, RoleError, Setup},
};
use crate::{groups::GroupClient, network::Network, trust::Label};

/// Calls a declared group without being a member: holds no data and never votes, so roles with it are scaled up and down as one
/// likes. Derefs to the same generated client as a [`Replica`](super::Replica); its own only method is
/// [`group`](Self::group). Cheap to clone.
///
/// `.weak()` queries are answered by the nearest member, `.strong()` ones by way of the leader; a command resolves when it is
/// committed and applied, exactly once. Calls wait for the first member to be found.
pub struct Client<M: Declared> {
    group: GroupClient<M>,
    client: M::Client,
}

impl<M: Declared> Client<M> {
    /// A client on a node, as a role opens it: with the declared key.
    ///
    /// # Errors
    /// When the key is not there.
    pub fn open(network: &Network) -> Result<Self, RoleError> {
        let (member, call) = (M::MACHINE.group.member.iter().copied(), M::MACHINE.group.call.iter().copied());
        let label = M::MACHINE.group.label.map(Label::declared);
        Ok(network.groups().client_with_label::<M>(&M::key()?, member, call, label.as_ref()).into())
    }

    /// The client by itself: its members, the leader, what is in the way.
    #[must_use]
    pub const fn group(&self) -> &GroupClient<M> {
        &self.group
    }
}

impl<M: Declared> From<GroupClient<M>> for Client<M> {
    fn from(group: GroupClient<M>) -> Self {
        let client = M::client(GroupHandle::Client(group.clone()));
        Self { group, client }
    }
}

impl<M: Declared> Deref for Client<M> {
    type Target = M::Client;

    fn deref(&self) -> &M::Client {
        &self.client
    }
}

impl<M: Declared> Clone for Client<M> {
    fn clone(&self) -> Self {
        Self { group: self.group.clone(), client: self.client.clone() }
    }
}

impl<M: Declared> fmt::Debug for Client<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("group", &M::NAME).finish_non_exhaustive()
    }
}

impl<M: Declared> Endpoint for Client<M> {
    const LINK: Link = Link::Client(M::MACHINE);

    fn open<'a>(setup: &'a mut Setup<'_>, _: &'static str) -> Opening<'a, Self> {
        let opened = Self::open(setup.network);
        if let Ok(client) = &opened {
            let group = client.group.clone();
            setup.await_online(async move { group.connected().await });
        }
        Box::pin(ready(opened))
    }
}
