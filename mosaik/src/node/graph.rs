//! An app's data flow as constant data: which roles there are, and which streams, groups and stores connect them. The compiler
//! checks it; `graph`, `roles` and `check` print it; the generated main starts roles from it.

use std::fmt;

use futures::future::BoxFuture;

use super::{
    corridor,
    decl::{Direction, EndpointDecl, RoleDecl, StreamDecl, owning},
    machine::MachineDecl,
    names::Clash,
    restart::maker,
    role::{Handlers, RoleError, Setup},
    runner::{RoleHandle, run},
    store::StoreDecl,
};

/// An app's roles and, through their fields, its streams, groups and stores.
#[derive(Clone, Copy, Debug)]
pub struct Graph {
    /// The app's name.
    pub app: &'static str,
    /// The app's doc comment.
    pub doc: &'static str,
    /// The version of the package that declares the app.
    pub version: Option<&'static str>,
    /// Its roles, in the order in which they are listed.
    pub roles: &'static [RoleEntry],
}

/// A role of an app: its declaration and how to start it.
#[derive(Clone, Copy)]
pub struct RoleEntry {
    /// The declaration.
    pub role: RoleDecl,
    pub(super) start: for<'a, 'b> fn(&'a mut Setup<'b>) -> Starting<'a>,
}

/// A role that is being started.
type Starting<'a> = BoxFuture<'a, Result<RoleHandle, RoleError>>;

impl RoleEntry {
    /// The entry of a role.
    #[must_use]
    pub const fn of<R: Handlers>() -> Self {
        Self { role: R::ROLE, start: start::<R> }
    }

    /// Starts the role.
    #[cfg(feature = "testing")]
    pub(crate) async fn start(&self, setup: &mut Setup<'_>) -> Result<RoleHandle, RoleError> {
        (self.start)(setup).await
    }
}

fn start<'a, R: Handlers>(setup: &'a mut Setup<'_>) -> Starting<'a> {
    Box::pin(async move {
        let maker = maker::<R>(setup);
        let role = R::open(setup).await?;
        Ok(run(setup.network, role, Some(maker)))
    })
}

impl fmt::Debug for RoleEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.role.fmt(f)
    }
}

/// A stream of an app, with the names of the roles at its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamUse {
    /// The declaration.
    pub stream: StreamDecl,
    /// The roles that send it, in the app's order.
    pub producers: Vec<&'static str>,
    /// The roles that receive it, in the app's order.
    pub consumers: Vec<&'static str>,
}

/// A group of an app, with the names of the roles that are members or call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupUse {
    /// The declaration.
    pub machine: MachineDecl,
    /// The roles with a replica, in the app's order.
    pub members: Vec<&'static str>,
    /// The roles that call it and are no members, in the app's order.
    pub clients: Vec<&'static str>,
}

/// A store of an app, with the names of the roles at its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUse {
    /// The declaration.
    pub store: StoreDecl,
    /// The roles that change it, in the app's order. It should be one.
    pub primaries: Vec<&'static str>,
    /// The roles that follow it, in the app's order.
    pub replicas: Vec<&'static str>,
}

impl Graph {
    /// The declarations of the roles.
    pub fn roles(&self) -> impl Iterator<Item = &'static RoleDecl> {
        self.roles.iter().map(|entry| &entry.role)
    }

    /// The role of this name.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&'static RoleEntry> {
        self.roles.iter().find(|entry| entry.role.name == name)
    }

    /// Every stream that a role has an end of, in the order in which the roles name them.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamUse> {
        let mut streams: Vec<StreamUse> = Vec::new();
        for role in self.roles() {
            for (direction, stream) in role.endpoints.iter().filter_map(EndpointDecl::stream) {
                let known = streams.iter().position(|known| known.stream.id == stream.id);
                let index = known.unwrap_or_else(|| {
                    streams.push(StreamUse { stream: *stream, producers: Vec::new(), consumers: Vec::new() });
                    streams.len() - 1
                });
                let ends = match direction {
                    Direction::Produces => &mut streams[index].producers,
                    Direction::Consumes => &mut streams[index].consumers,
                };
                if !ends.contains(&role.name) {
                    ends.push(role.name);
                }
            }
        }
        streams
    }

    /// Every group that a role has a replica or a client of, in the order in which the roles name them.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupUse> {
        let mut groups: Vec<GroupUse> = Vec::new();
        for role in self.roles() {
            for endpoint in role.endpoints {
                let Some(machine) = endpoint.machine().or_else(|| endpoint.called()) else { continue };
                let known = groups.iter().position(|known| known.machine.group.name == machine.group.name);
                let index = known.unwrap_or_else(|| {
                    groups.push(GroupUse { machine: *machine, members: Vec::new(), clients: Vec::new() });
                    groups.len() - 1
                });
                let group = &mut groups[index];
                let ends = if endpoint.called().is_some() { &mut group.clients } else { &mut group.members };
                if !ends.contains(&role.name) {
                    ends.push(role.name);
                }
            }
        }
        groups
    }

    /// Every store that a role has an end of, in the order in which the roles name them.
    #[must_use]
    pub fn stores(&self) -> Vec<StoreUse> {
        let mut stores: Vec<StoreUse> = Vec::new();
        for role in self.roles() {
            for (direction, store) in role.endpoints.iter().filter_map(EndpointDecl::store) {
                let known = stores.iter().position(|known| known.store.id == store.id);
                let index = known.unwrap_or_else(|| {
                    stores.push(StoreUse { store: *store, primaries: Vec::new(), replicas: Vec::new() });
                    stores.len() - 1
                });
                let ends = match direction {
                    Direction::Produces => &mut stores[index].primaries,
                    Direction::Consumes => &mut stores[index].replicas,
                };
                if !ends.contains(&role.name) {
                    ends.push(role.name);
                }
            }
        }
        stores
    }
}

/// Checks one role of an app, of which [`clashes`](super::names::clashes) says whether its names are those of something else. Called in a
/// constant, so that a violation is a compile error.
///
/// # Panics
/// When there is a clash; when the role sends on a stream, or changes a store, that a group owns and is no member of that group; or when a label reaches
/// who does not clear it (`corridor`).
pub const fn check_role(graph: &'static Graph, index: usize, clash: Option<Clash>) {
    let owning = owning(&graph.roles[index].role);
    assert!(
        !owning.is_outside,
        "a role of this app has a `Producer` of a stream, or the `Primary` of a store, that a group owns, and is no member of that \
         group: give the role a field of type `Replica` of it"
    );
    assert!(
        !owning.is_mislabelled,
        "a stream or store of this app and the group that owns it have different labels, and all members of the group hold \
         what it holds: give both the same, `label = \"..\"`"
    );
    if let Some(clash) = clash {
        panic!("{}", clash.text());
    }
    corridor::check(graph, index);
}
