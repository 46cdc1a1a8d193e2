//! Planted bugs: each must be killed by its directed schedule, which the honest core survives.

use mosaik::groups::raft::Mutant;

pub const ALL: &[Mutant] = &[
    Mutant::VoteNotPersisted,
    Mutant::OldTermCommit,
    Mutant::NoUpToDateCheck,
    Mutant::ReadWithoutQuorum,
    Mutant::ReadBeforeOwnTermCommit,
    Mutant::AckBeyondVerified,
    Mutant::AckByIndexOnly,
    Mutant::JointLeftEarly,
    Mutant::OneMajorityInJoint,
    Mutant::FloorIgnored,
    Mutant::TwoChangesInFlight,
    Mutant::IncarnationReused,
    Mutant::AcceptanceReleasedByTime,
    Mutant::ProposerAcceptsFirst,
    Mutant::CatchUpDropsMatching,
    Mutant::ChainNotVerified,
    Mutant::SessionsNotInSnapshot,
    Mutant::SessionEvictedEarly,
    Mutant::TruncationBelowCommit,
    Mutant::TransferWithoutCatchUp,
    Mutant::YieldBeforeAdopt,
    Mutant::AckBeforeDurable,
    Mutant::ChangeBeforeOwnTermCommit,
];
