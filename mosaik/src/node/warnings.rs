//! What the compiler lets pass in an app, and what is probably not meant all the same.

use std::fmt;

use super::{
    corridor::declassifies_nothing,
    decl::{ArgDecl, EndpointDecl, Link, Occurs},
    graph::{Graph, StoreUse, StreamUse},
};

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
    /// Roles follow a store that no role changes.
    NoPrimary {
        /// The store's name.
        store: &'static str,
        /// Who follows.
        replicas: Vec<&'static str>,
    },
    /// A role changes a store that no role follows.
    NoReplica {
        /// The store's name.
        store: &'static str,
        /// Who changes it.
        primaries: Vec<&'static str>,
    },
    /// Roles call a group that no role is a member of.
    NoMember {
        /// The group's name.
        group: &'static str,
        /// Who calls it.
        clients: Vec<&'static str>,
    },
    /// Several roles change one store, which has one primary at a time.
    Primaries {
        /// The store's name.
        store: &'static str,
        /// Who changes it.
        primaries: Vec<&'static str>,
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
    /// A field declassifies, and its role receives no label that it would lack.
    Declassify {
        /// The role's name.
        role: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A role asks for evidence (`attest`), and one that is connected with it shows none.
    NotAttested {
        /// The role that shows none.
        role: &'static str,
        /// The role that asks for some.
        asks: &'static str,
        /// What connects them.
        by: String,
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
            Self::NoPrimary { store, replicas } => {
                write!(f, "store \"{store}\" is followed by {} and changed by nobody", replicas.join(", "))
            }
            Self::NoReplica { store, primaries } => {
                write!(f, "store \"{store}\" is changed by {} and followed by nobody", primaries.join(", "))
            }
            Self::NoMember { group, clients } => {
                write!(f, "group \"{group}\" is called by {} and nobody is a member of it", clients.join(", "))
            }
            Self::Primaries { store, primaries } => write!(
                f,
                "store \"{store}\" is changed by {}: it has one primary, replicas follow one of two that run at the same \
                 time",
                primaries.join(" and ")
            ),
            Self::Default { role, flag, error } => {
                write!(f, "the default of --{flag} of the role {role} is not a value of its field: {error}")
            }
            Self::Declassify { role, field } => {
                write!(
                    f,
                    "the field {field} of the role {role} declassifies nothing: the role receives no label that it lacks"
                )
            }
            Self::NotAttested { role, asks, by } => write!(
                f,
                "the role {role} has no `attest`, and {asks} asks for evidence: they refuse each other on {by}; give {role} one, too"
            ),
            Self::SerdeName { stream, ty } => write!(
                f,
                "the serde name of `{ty}` is not \"{stream}\": `produce::<{ty}>()` and `{ty}::producer(..)` are two \
                 streams; put #[serde(rename = \"{stream}\")] on it"
            ),
        }
    }
}

impl Graph {
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
        warnings.extend(
            self.groups()
                .into_iter()
                .filter(|group| group.members.is_empty())
                .map(|group| Warning::NoMember { group: group.machine.group.name, clients: group.clients }),
        );
        warnings.extend(self.stores().into_iter().filter_map(store_warnings));
        for StreamUse { stream, .. } in &streams {
            let differs = |end: &EndpointDecl| match end.link {
                Link::Stream { stream: its, serde_id, .. } => its.id == stream.id && serde_id() != Some(stream.id),
                Link::Group(_) | Link::Client(_) | Link::Store { .. } => false,
            };
            if self.roles().flat_map(|role| role.endpoints).any(differs) {
                warnings.push(Warning::SerdeName { stream: stream.name, ty: stream.ty });
            }
        }
        warnings.extend(self.unattested());
        for role in self.roles() {
            let useless = role.endpoints.iter().filter(|end| declassifies_nothing(role, end));
            warnings.extend(useless.map(|end| Warning::Declassify { role: role.name, field: end.field }));
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

impl Graph {
    /// The roles that are connected with one that asks for evidence, and show none.
    fn unattested(&self) -> Vec<Warning> {
        let mut found: Vec<Warning> = Vec::new();
        for asks in self.roles().filter(|role| role.attest.is_some()) {
            for end in asks.endpoints {
                let meets = |other: &&EndpointDecl| {
                    end.is_of_the_same(other) && (end.sends() && other.receives() || end.receives() && other.sends())
                };
                let others = self.roles().filter(|role| role.attest.is_none());
                let (kind, name) = end.target();
                found.extend(others.filter(|other| other.endpoints.iter().any(|other| meets(&other))).map(|other| {
                    Warning::NotAttested { role: other.name, asks: asks.name, by: format!("{kind} \"{name}\"") }
                }));
            }
        }
        found
    }
}

fn store_warnings(used: StoreUse) -> Option<Warning> {
    let StoreUse { store, primaries, replicas } = used;
    match (primaries.len(), replicas.len()) {
        (0, _) => Some(Warning::NoPrimary { store: store.name, replicas }),
        (1, 0) => Some(Warning::NoReplica { store: store.name, primaries }),
        (1, _) => None,
        _ => Some(Warning::Primaries { store: store.name, primaries }),
    }
}
