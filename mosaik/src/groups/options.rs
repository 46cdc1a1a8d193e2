//! What a user chooses: consistency of a call, role of a member, timing of a group.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a call waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// A command: committed by the group and applied by its leader. A query: answered from the local machine at once,
    /// however far behind it is.
    Weak,
    /// A command: applied by the local machine, too, so that a local query sees it. A query: linearizable, it sees
    /// every command that was acknowledged to anybody before it was asked.
    #[default]
    Strong,
}

/// What a member is willing to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberRole {
    /// Votes and may lead.
    #[default]
    Voter,
    /// Votes, but leads only when nobody else can.
    Reluctant,
    /// Has all of the state and never votes. It is not one of the founders.
    Observer,
}

/// How quickly a group notices that its leader is gone. All members must agree; bonds refuse others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub(crate) heartbeat: Duration,
    pub(crate) election_min: Duration,
    pub(crate) election_max: Duration,
    pub(crate) founding_delay: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_secs(1),
            founding_delay: Duration::from_secs(1),
        }
    }
}

impl Timing {
    /// For members in one building: heartbeats every 30 ms, an election after 150 to 300 ms of silence.
    #[must_use]
    pub fn lan() -> Self {
        Self {
            heartbeat: Duration::from_millis(30),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            ..Self::default()
        }
    }

    /// The time between two heartbeats of the leader; at least 1 ms. Default: 100 ms.
    #[must_use]
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat.max(Duration::from_millis(1));
        self
    }

    /// The shortest and longest silence before an election; raised to three heartbeats and to twice the shortest where
    /// they are less. Default: 500 ms to 1 s.
    #[must_use]
    pub fn with_election(mut self, min: Duration, max: Duration) -> Self {
        self.election_min = min;
        self.election_max = max;
        self
    }

    /// How long a node without a group looks for one before it founds it. Default: 1 s.
    #[must_use]
    pub fn with_founding_delay(mut self, delay: Duration) -> Self {
        self.founding_delay = delay;
        self
    }
}
