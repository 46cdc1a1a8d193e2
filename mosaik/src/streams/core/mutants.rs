//! Classic bugs behind a switch, so that the simulation (tests/flow) can prove that it would find them.
//!
//! Without feature `testing` the switch is a constant `false` and all of them compile to nothing.

/// A planted bug; docs/src/streams/flow.md explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(any(test, feature = "testing")), allow(dead_code, reason = "planted in simulations only"))]
#[allow(missing_docs, reason = "the page explains them")]
pub enum Mutant {
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
    OldTermTaken,
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static OF_THIS_THREAD: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Which bug is planted, if any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Switch {
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

    /// For consumers that are made on this thread from now on, as all of a simulation are. Returns what it was before.
    #[cfg(any(test, feature = "testing"))]
    #[allow(dead_code, reason = "planted in simulations only")]
    pub fn set_for_this_thread(mutant: Option<Mutant>) -> Option<Mutant> {
        OF_THIS_THREAD.replace(mutant)
    }

    /// What was set for this thread.
    #[cfg(any(test, feature = "testing"))]
    #[allow(dead_code, reason = "simulations of the core pass it on themselves")]
    pub(crate) fn of_this_thread() -> Self {
        Self { mutant: OF_THIS_THREAD.get() }
    }

    /// What was set for this thread: nothing.
    #[cfg(not(any(test, feature = "testing")))]
    pub(crate) const fn of_this_thread() -> Self {
        Self {}
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
