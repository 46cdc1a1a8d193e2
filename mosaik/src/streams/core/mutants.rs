//! Classic bugs behind a switch, so that the simulation (tests/flow) can prove that it would find them.
//!
//! Without feature `testing` the switch is a constant `false` and all of them compile to nothing.

/// A planted bug; docs/src/streams/flow.md explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(any(test, feature = "testing")), allow(dead_code, reason = "planted in simulations only"))]
pub(crate) enum Mutant {
    ResumeRepeats,
    RingOffByOne,
    ResumeAtHead,
    SilentDrop,
    HeartbeatIgnored,
    ReplayOverlapsLive,
    WrongEpochAccepted,
    ConflateKeepsFirst,
    GapToldTwice,
    ReleasedByFastest,
    SnapshotCutEarly,
    ReplayPastCut,
    ReplayNotResumed,
    ReplayGapUntold,
    FilterAfterNumbering,
    FilterHidesLoss,
    FilterHidesHole,
    HandOverLoses,
    HandOverRepeats,
    BothActive,
    NoHysteresis,
    StandbyTakesPlace,
    StandbyNotPreferred,
    FailedStaysTaken,
}

/// Which bug is planted, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Switch {
    #[cfg(any(test, feature = "testing"))]
    mutant: Option<Mutant>,
}

impl Switch {
    /// Plants a bug, or none.
    #[cfg(any(test, feature = "testing"))]
    #[allow(dead_code, reason = "planted in simulations only")]
    pub(crate) const fn plant(mutant: Option<Mutant>) -> Self {
        Self { mutant }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn is(self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    #[cfg(not(any(test, feature = "testing")))]
    #[allow(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn is(self, _: Mutant) -> bool {
        false
    }
}
