//! Classic bugs behind a switch, so that the simulator can prove that it would find them, and oddities that are no bugs,
//! so that it reaches places where a healthy group seldom is.
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
    OldRoundCounted,
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
    SessionNamedByIdAlone,
    RenumberedResend,
    ForgetfulReplacement,
    SettledEarly,
    PriorSkipped,
    AttemptInLocalTime,
    TruncationBelowCommit,
    TransferWithoutCatchUp,
    YieldBeforeAdopt,
    AckBeforeDurable,
    ChangeBeforeOwnTermCommit,
    CommandAfterSeal,
    SealNotInSnapshot,
    SnapshotOfAnotherMachine,
    LeadsOnHungDisk,
    CampaignsOnHungDisk,
    UnwrittenUnbounded,
    SilentLearnersStay,
    FetchedSnapshotDropped,
    FenceIgnored,
    WindowsNotInSnapshot,
    FenceTakenLate,
}

/// Something odd that a correct member may do at any time, and a healthy one hardly ever does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// Room for one message under way only.
    TinyWindow,
    /// One entry per message.
    SmallBatch,
    /// The election timeout has passed early.
    EarlyElection,
    /// Nothing is acknowledged until something else asks for it.
    DelayedAck,
    /// The leader goes back to probing.
    SpuriousProbe,
    /// A snapshot is offered where entries would do.
    ForcedOffer,
    /// A follower that lags by little fetches from several members.
    ForcedCatchUp,
    /// One entry is served where more were asked for.
    ShortPull,
    /// The leader resigns.
    Resignation,
    /// A vote that could be given is refused.
    Refusal,
    /// A follower forgets how far it has verified its log in this term.
    ForgottenVerification,
    /// Nobody is told of a commit before the next heartbeat.
    SilentCommit,
    /// Nothing is handed to the machine for now.
    LazyMachine,
    /// Leadership is handed over without a reason.
    SpuriousTransfer,
}

impl Quirk {
    /// All of them; the place is the bit in a set.
    pub const ALL: [Self; 14] = [
        Self::TinyWindow,
        Self::SmallBatch,
        Self::EarlyElection,
        Self::DelayedAck,
        Self::SpuriousProbe,
        Self::ForcedOffer,
        Self::ForcedCatchUp,
        Self::ShortPull,
        Self::Resignation,
        Self::Refusal,
        Self::ForgottenVerification,
        Self::SilentCommit,
        Self::LazyMachine,
        Self::SpuriousTransfer,
    ];

    /// One opportunity in this many is taken: those that end a leadership are rare, or nothing would ever get done.
    #[cfg(any(test, feature = "testing"))]
    const fn rarity(self) -> u64 {
        match self {
            Self::Resignation | Self::SpuriousTransfer => 256,
            Self::EarlyElection => 64,
            _ => 4,
        }
    }
}

/// Which bug is planted, if any, and which oddities happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switch {
    #[cfg(any(test, feature = "testing"))]
    mutant: Option<Mutant>,
    #[cfg(any(test, feature = "testing"))]
    quirks: u32,
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static OF_THIS_THREAD: std::cell::Cell<Switch> = const { std::cell::Cell::new(Switch::NONE) };
}

#[cfg(any(test, feature = "testing"))]
impl Switch {
    /// For machines that are made on this thread from now on, as all of a simulation are. Returns what it was before.
    #[allow(clippy::return_self_not_must_use, reason = "what was before matters to who puts it back")]
    pub fn set_for_this_thread(self) -> Self {
        OF_THIS_THREAD.replace(self)
    }

    /// What was set for this thread.
    pub(in crate::groups) fn of_this_thread() -> Self {
        OF_THIS_THREAD.get()
    }

    /// No bug, nothing odd.
    pub const NONE: Self = Self { mutant: None, quirks: 0 };

    /// Plants a bug.
    #[must_use]
    pub const fn plant(mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), quirks: 0 }
    }

    /// Makes oddities happen: a set of bits, each the place of a quirk in [`Quirk::ALL`].
    #[must_use]
    pub const fn with_quirks(self, quirks: u32) -> Self {
        Self { quirks, ..self }
    }

    /// Whether this bug is planted.
    #[must_use]
    pub fn is(self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether this oddity happens, given a random number.
    pub(super) fn happens(self, quirk: Quirk, random: impl FnOnce() -> u64) -> bool {
        self.quirks & (1 << quirk as u32) != 0 && random().is_multiple_of(quirk.rarity())
    }
}

#[cfg(not(any(test, feature = "testing")))]
impl Switch {
    /// What was set for this thread: nothing.
    pub(in crate::groups) const fn of_this_thread() -> Self {
        Self {}
    }

    /// Whether this bug is planted: never in a build for production.
    #[must_use]
    pub const fn is(self, _: Mutant) -> bool {
        false
    }

    /// Whether this oddity happens: never in a build for production.
    #[expect(clippy::unused_self, reason = "with the feature for tests it is asked")]
    pub(super) fn happens(self, _: Quirk, _: impl FnOnce() -> u64) -> bool {
        false
    }
}
