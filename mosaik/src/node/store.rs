//! Declared stores: their declaration as constant data, the trait that the attribute implements, and the ends of a store as
//! fields of a role.

use super::{
    decl::{Direction, Link, Schema, checked, same_optional, same_text},
    machine::KeyError,
    options::Configure,
    role::{Endpoint, Opening, Setup},
};
use crate::{
    primitives::{GroupId, StoreId},
    stores::{Primary, StoreReplica, View},
};

/// A declared store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreDecl {
    /// Its name in the network.
    pub name: &'static str,
    /// The identifier derived from the name.
    pub id: StoreId,
    /// The identifier of the state's Rust type.
    pub ty: &'static str,
    /// The doc comment of the declaration.
    pub doc: &'static str,
    /// The type of a delta in canonical text.
    pub delta: &'static str,
    /// The fingerprint of that text.
    pub schema: Schema,
    /// The version that was declared.
    pub version: u32,
    /// The roles and grants of which the ticket of the primary needs one; with none, every member may be it.
    pub primary: &'static [&'static str],
    /// The same of a replica.
    pub replica: &'static [&'static str],
    /// Only roles that clear it follow the store.
    pub label: Option<&'static str>,
    /// The name of the group that owns it; only its leader changes it then.
    pub owner: Option<&'static str>,
}

impl StoreDecl {
    /// A store of this name, Rust type, doc comment, type of deltas and version.
    #[must_use]
    pub const fn new(
        name: &'static str,
        ty: &'static str,
        doc: &'static str,
        delta: &'static str,
        version: u32,
    ) -> Self {
        let (id, schema) = (StoreId::from_name(name), Schema::of(delta));
        Self { name, id, ty, doc, delta, schema, version, primary: &[], replica: &[], label: None, owner: None }
    }

    /// With the grants that its ends need.
    #[must_use]
    pub const fn granting(self, primary: &'static [&'static str], replica: &'static [&'static str]) -> Self {
        Self { primary, replica, ..self }
    }

    /// With a label.
    ///
    /// # Panics
    /// When it is none; in a constant that is a compile error.
    #[must_use]
    pub const fn labelled(self, label: &'static str) -> Self {
        Self { label: Some(checked(label)), ..self }
    }

    /// Owned by a group.
    #[must_use]
    pub const fn owned_by(self, group: &'static str) -> Self {
        Self { owner: Some(group), ..self }
    }

    /// Whether two declarations give one name two meanings.
    pub(super) const fn conflicts(&self, other: &Self) -> bool {
        same_text(self.name, other.name)
            && !(self.version == other.version
                && same_text(self.delta, other.delta)
                && same_text(self.ty, other.ty)
                && same_optional(self.owner, other.owner))
    }
}

/// A state with a declared store; implemented by `#[mosaik::store]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a declared store",
    label = "not declared with `#[mosaik::store]`",
    note = "put `#[mosaik::store]` on the inherent impl of the state, which has `fn fold(&mut self, delta: Delta)`"
)]
pub trait StoreType: View {
    /// The declaration.
    const STORE: StoreDecl;

    /// The group that owns the store (`owner`), once its key is known.
    const OWNER: Option<fn() -> Result<GroupId, KeyError>> = None;
}

impl<V: StoreType> Endpoint for Primary<V> {
    const LINK: Link = Link::Store { direction: Direction::Produces, store: V::STORE };

    fn open<'a>(setup: &'a mut Setup<'_>, field: &'static str) -> Opening<'a, Self> {
        Self::open_with(Self::builder(setup), setup, field)
    }
}

impl<V: StoreType> Endpoint for StoreReplica<V> {
    const LINK: Link = Link::Store { direction: Direction::Consumes, store: V::STORE };

    fn open<'a>(setup: &'a mut Setup<'_>, field: &'static str) -> Opening<'a, Self> {
        Self::open_with(Self::builder(setup), setup, field)
    }
}
