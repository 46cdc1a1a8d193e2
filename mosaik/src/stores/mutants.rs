//! Classic bugs in the rules of replicas, behind a switch, so that the model (`core/model.rs`) can prove that it would find them.
//!
//! Outside of the crate's own tests the switch is a constant `false` and all of them compile to nothing.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "planted in tests only"))]
pub(super) enum Mutant {
    /// A replica goes on with a run after a reconnect, and does not let the primary check what it has.
    CheckSkipped,
    /// Deltas are folded while the check is under way.
    FoldsUnchecked,
    /// What the primary does not know of is kept, and the run goes on.
    ContradictionIgnored,
    /// The deltas of a primary that contradicts the state are folded.
    RefusedIsFolded,
    /// An earlier run of the primary counts as a new one.
    EarlierRunUnchecked,
    /// A delta that the state has is folded again.
    FoldsTwice,
    /// A delta is folded although some before it are missing.
    FoldsOverGap,
    /// The run of a delta is not looked at.
    OtherRunFolded,
    /// A snapshot that lacks something counts as all of it.
    ShortSnapshotSuffices,
    /// Deltas that are told as missed do not count.
    GapIgnored,
    /// A delta for which there was no room is not fetched.
    LeftOutForgotten,
    /// What was lacking before a reconnect is not lacking after it.
    LackForgotten,
    /// A state of a durable primary is left for any other history.
    GuardIgnored,
    /// Another primary is followed although the own one is there.
    LeavesItsOwn,
    /// A delta on which the view panicked counts as folded.
    UnfoldableCounts,
    /// What came over one connection to a durable primary is folded on what comes over the next.
    UnfoldedSurvives,
    /// A snapshot of a primary that has started again replaces the state before that is checked.
    RestartUnchecked,
    /// A replica that needs a snapshot takes itself for synced.
    SyncedTooEarly,
}

/// Which bug is planted, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Switch {
    #[cfg(test)]
    mutant: Option<Mutant>,
}

impl Switch {
    /// Plants a bug, or none.
    #[cfg(test)]
    pub(super) const fn plant(mutant: Option<Mutant>) -> Self {
        Self { mutant }
    }

    /// Whether this bug is planted.
    #[cfg(test)]
    pub(super) fn is(self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether this bug is planted: never outside of tests.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "in tests it is asked")]
    pub(super) const fn is(self, _: Mutant) -> bool {
        false
    }
}
