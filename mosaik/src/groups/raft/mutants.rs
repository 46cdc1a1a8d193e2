//! Classic bugs behind a switch, so that the simulator can prove that it would find them.
//!
//! Without feature `testing` the switch is a constant `false` and all of them compile to nothing.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it; the table in docs/src/groups/consensus.md explains each")]
pub enum Mutant {
    VoteNotPersisted,
    OldTermCommit,
    NoUpToDateCheck,
    ReadWithoutQuorum,
    ReadBeforeOwnTermCommit,
    AckBeyondVerified,
    AckByIndexOnly,
    JointLeftEarly,
    OneMajorityInJoint,
    FloorIgnored,
    TwoChangesInFlight,
    IncarnationReused,
    AcceptanceReleasedByTime,
    ProposerAcceptsFirst,
    CatchUpDropsMatching,
    ChainNotVerified,
    SessionsNotInSnapshot,
    SessionEvictedEarly,
    TruncationBelowCommit,
    TransferWithoutCatchUp,
    YieldBeforeAdopt,
    AckBeforeDurable,
    ChangeBeforeOwnTermCommit,
}

/// Which bug is planted, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switch(#[cfg(any(test, feature = "testing"))] Option<Mutant>);

impl Switch {
    /// No bug.
    #[cfg(any(test, feature = "testing"))]
    pub const NONE: Self = Self(None);

    /// Plants a bug.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub const fn plant(mutant: Mutant) -> Self {
        Self(Some(mutant))
    }

    /// Whether this bug is planted.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn is(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }

    /// Whether this bug is planted: never in a build for production.
    #[cfg(not(any(test, feature = "testing")))]
    #[must_use]
    pub const fn is(self, _: Mutant) -> bool {
        false
    }
}
