//! [`View`]: a state that deltas are folded into; and what handles read of it, [`Versioned`].

use std::{fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::primitives::{Datum, Evolve};

/// A state that deltas are folded into. The implementing type is the state; its serialised form is what a late joiner gets.
///
/// Folding must be deterministic: the same deltas in the same order give the same state on every node. The state is cloned once
/// for every batch of deltas that is published to readers, so large ones keep their data in persistent collections (such as
/// those of the crate `im`), of which a clone costs nothing.
///
/// ```
/// use std::collections::BTreeMap;
/// use mosaik::stores::View;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// struct Balances(BTreeMap<String, i64>);
///
/// impl View for Balances {
///     type Delta = (String, i64);
///     const NAME: &'static str = "balances";
///
///     fn fold(&mut self, (account, change): Self::Delta) {
///         *self.0.entry(account).or_default() += change;
///     }
/// }
/// ```
///
/// [`#[mosaik::store]`](macro@crate::store) implements it in terms of an inherent method `fold`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the state of a store",
    label = "nothing is folded into it",
    note = "put `#[mosaik::store]` on its inherent impl, which has `fn fold(&mut self, delta: Delta)`, or implement `View`"
)]
pub trait View: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What changes the state.
    type Delta: Datum + Clone;
    /// Says what kind of state it is. Both ends must agree, or they refuse each other as incompatible.
    const NAME: &'static str;
    /// The version of the state, its deltas and what folding does. Both ends must agree.
    const VERSION: u32 = 0;
    /// The fingerprint of the delta's type, if there is one. Both ends must agree.
    const SCHEMA: Option<[u8; 32]> = None;
    /// How the deltas and the state may change from one program to the next; both ends must say the same. What may grow is
    /// written by names. A primary does not open a file that has fields which this program does not know: it would lose them.
    const EVOLVE: Evolve = Evolve::Strict;

    /// Changes the state. The delta of a panic is refused by the primary, and leaves no trace; a replica on which alone it panics
    /// takes a snapshot instead.
    fn fold(&mut self, delta: Self::Delta);
}

/// A point in the history of a store: the run of its primary, and how many deltas were folded in it.
///
/// Points of one run are ordered by the second; a later run has a greater epoch, and begins with an empty state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The run of the primary: grows with each start of it.
    pub epoch: u64,
    /// The deltas of that run that were folded.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

/// A state as it was at one [`Position`]: derefs to it, does not change any more, and costs nothing to clone.
pub struct Versioned<V>(Arc<(V, Position)>);

impl<V> Versioned<V> {
    pub(super) fn new(state: V, position: Position) -> Self {
        Self(Arc::new((state, position)))
    }

    /// Which deltas are in it.
    #[must_use]
    pub fn position(&self) -> Position {
        self.0.1
    }
}

impl<V> Deref for Versioned<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.0.0
    }
}

impl<V> Clone for Versioned<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V: fmt::Debug> fmt::Debug for Versioned<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versioned").field("state", &self.0.0).field("position", &self.0.1).finish()
    }
}
