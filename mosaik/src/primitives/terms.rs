//! [`StreamTerms`]: what the declaration of a type asks of the ends of its stream, found by the type alone. `produce::<T>()` knows nothing
//! else: every serde type can be sent, so that no trait can tell the declared ones apart.
//!
//! `#[mosaik::stream]` submits one for each type that asks for something; they are collected when the program starts.

use std::{any::TypeId, collections::BTreeMap, sync::LazyLock};

/// The grants, the label and the owner of a declared stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamTerms {
    /// The type that is declared.
    pub ty: fn() -> TypeId,
    /// The roles and grants of which a producer's ticket needs one; none when every member may produce.
    pub produce: &'static [&'static str],
    /// The same of a consumer.
    pub consume: &'static [&'static str],
    /// Only roles that clear it receive the stream.
    pub label: Option<&'static str>,
    /// The name of the group that owns the stream, if one does.
    pub owner: Option<&'static str>,
}

inventory::collect!(StreamTerms);

impl StreamTerms {
    /// Nothing is asked for.
    const NOTHING: Self = Self { ty: TypeId::of::<()>, produce: &[], consume: &[], label: None, owner: None };

    /// That of a type.
    pub(crate) fn of<T: 'static>() -> Self {
        static ALL: LazyLock<BTreeMap<TypeId, &'static StreamTerms>> =
            LazyLock::new(|| inventory::iter::<StreamTerms>().map(|declared| ((declared.ty)(), declared)).collect());
        ALL.get(&TypeId::of::<T>()).map_or(Self::NOTHING, |declared| **declared)
    }
}
