//! An app's data flow as constant data: which roles there are, and which streams and groups connect them. The compiler
//! checks it; `graph`, `roles` and `check` print it; the generated main starts roles from it.

use std::fmt;

use futures::future::BoxFuture;

use super::{
    app::App,
    decl::{
        ArgDecl, Direction, EndpointDecl, Link, Occurs, RoleDecl, StreamDecl, groups_conflict, same_text,
        streams_conflict,
    },
    machine::MachineDecl,
    role::{Handlers, RoleError, Setup},
    runner::{RoleHandle, spawn},
};

/// An app's roles and, through their fields, its streams and groups.
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
}

fn start<'a, R: Handlers>(setup: &'a mut Setup<'_>) -> Starting<'a> {
    Box::pin(async move {
        let role = R::open(setup).await?;
        Ok(spawn(setup.network, role))
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

/// A group of an app, with the names of the roles that are members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupUse {
    /// The declaration.
    pub machine: MachineDecl,
    /// The roles with a replica, in the app's order.
    pub members: Vec<&'static str>,
}

/// Something in an app that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Roles wait for a stream that no role sends.
    NoProducer {
        /// The stream's name.
        stream: &'static str,
        /// Who waits.
        consumers: Vec<&'static str>,
    },
    /// Roles send a stream that no role receives.
    NoConsumer {
        /// The stream's name.
        stream: &'static str,
        /// Who sends.
        producers: Vec<&'static str>,
    },
    /// The default of a flag is not a value of its field.
    Default {
        /// The role's name.
        role: &'static str,
        /// The flag without its dashes.
        flag: &'static str,
        /// What the type's parser said.
        error: String,
    },
    /// A type's serde container name is not its stream's name, so `produce::<T>()` means another stream than
    /// `T::producer`.
    SerdeName {
        /// The stream's name.
        stream: &'static str,
        /// The Rust type.
        ty: &'static str,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProducer { stream, consumers } => {
                write!(f, "stream \"{stream}\" is consumed by {} and produced by nobody", consumers.join(", "))
            }
            Self::NoConsumer { stream, producers } => {
                write!(f, "stream \"{stream}\" is produced by {} and consumed by nobody", producers.join(", "))
            }
            Self::Default { role, flag, error } => {
                write!(f, "the default of --{flag} of the role {role} is not a value of its field: {error}")
            }
            Self::SerdeName { stream, ty } => write!(
                f,
                "the serde name of `{ty}` is not \"{stream}\": `produce::<{ty}>()` and `{ty}::producer(..)` are two \
                 streams; put #[serde(rename = \"{stream}\")] on it"
            ),
        }
    }
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

    /// Every group that a role has a replica of, in the order in which the roles name them.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupUse> {
        let mut groups: Vec<GroupUse> = Vec::new();
        for role in self.roles() {
            for machine in role.endpoints.iter().filter_map(EndpointDecl::machine) {
                let known = groups.iter().position(|known| known.machine.group.name == machine.group.name);
                let index = known.unwrap_or_else(|| {
                    groups.push(GroupUse { machine: *machine, members: Vec::new() });
                    groups.len() - 1
                });
                if !groups[index].members.contains(&role.name) {
                    groups[index].members.push(role.name);
                }
            }
        }
        groups
    }

    /// What is probably not meant; nothing in a sound app.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let streams = self.streams();
        let mut warnings: Vec<Warning> = Vec::new();
        for StreamUse { stream, producers, consumers } in &streams {
            if producers.is_empty() {
                warnings.push(Warning::NoProducer { stream: stream.name, consumers: consumers.clone() });
            } else if consumers.is_empty() {
                warnings.push(Warning::NoConsumer { stream: stream.name, producers: producers.clone() });
            }
        }
        for StreamUse { stream, .. } in &streams {
            let differs = |end: &EndpointDecl| match end.link {
                Link::Stream { stream: its, serde_id, .. } => its.id == stream.id && serde_id() != stream.id,
                Link::Group(_) => false,
            };
            if self.roles().flat_map(|role| role.endpoints).any(differs) {
                warnings.push(Warning::SerdeName { stream: stream.name, ty: stream.ty });
            }
        }
        for role in self.roles() {
            for ArgDecl { flag, occurs, check, .. } in role.args {
                if let Occurs::Default(text) = occurs
                    && let Err(error) = check(text)
                {
                    warnings.push(Warning::Default { role: role.name, flag, error });
                }
            }
        }
        warnings
    }
}

/// Checks one role of an app against those before it. Called in a constant, so that a violation is a compile error.
///
/// # Panics
/// When an earlier role has the same name, a stream of the same name has another shape, or a group of the same name another
/// machine.
pub const fn check_role<A: App>(index: usize) {
    let roles = A::GRAPH.roles;
    let role = &roles[index].role;
    let mut earlier = 0;
    while earlier <= index {
        assert!(
            earlier == index || !same_text(roles[earlier].role.name, role.name),
            "two roles of this app have the same name: give one of them another, `#[mosaik::node(name = \"..\")]`"
        );
        assert!(
            !any_conflict(roles[earlier].role.endpoints, role.endpoints, false),
            "two streams of this app have the same name and different shapes: rename one, `#[mosaik::stream(name = \"..\")]`"
        );
        assert!(
            !any_conflict(roles[earlier].role.endpoints, role.endpoints, true),
            "two groups of this app have the same name and different machines: rename one, `#[mosaik::group(name = \"..\")]`"
        );
        earlier += 1;
    }
}

const fn any_conflict(a: &[EndpointDecl], b: &[EndpointDecl], groups: bool) -> bool {
    let mut i = 0;
    while i < a.len() {
        let mut j = 0;
        while j < b.len() {
            let (a, b) = (&a[i], &b[j]);
            if if groups { groups_conflict(a, b) } else { streams_conflict(a, b) } {
                return true;
            }
            j += 1;
        }
        i += 1;
    }
    false
}
