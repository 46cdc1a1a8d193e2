//! A member's state without its clocks, as a digest: two members with equal fingerprints behave alike as long as every
//! timer that matters has the same answer. For explorations (`tests/raft/explore.rs`), which let time pass in jumps.

use std::fmt::{self, Write};

use super::{Raft, Role};

struct Hashed(blake3::Hasher);

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

impl Raft {
    /// The digest.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        let mut out = Hashed(blake3::Hasher::new());
        // Writing to a hash cannot fail.
        let written = self.describe(&mut out).map(|()| out.0.finalize());
        let bytes = written.map(|hash| *hash.as_bytes()).unwrap_or_default();
        bytes[..16].iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte))
    }

    fn describe(&self, out: &mut Hashed) -> fmt::Result {
        let base = self.log.base();
        write!(out, "{:?}{:?}{base:?}{:?}{}", self.me, self.hard, self.log.last(), self.log.durable())?;
        write!(out, "{:?}{:?}", self.founder.record, self.founder.votes)?;
        match &self.role {
            Role::Follower => {}
            Role::PreCandidate(votes) => write!(out, "p{votes:?}")?,
            Role::Candidate(votes) => write!(out, "c{votes:?}")?,
            Role::Leader(leader) => {
                write!(out, "l{}/{}/{:?}", leader.first, leader.round, leader.transfer.map(|(to, _)| to))?;
                for (member, it) in &leader.progress {
                    write!(out, "{member:?}{}/{}/{:?}/{}/{}", it.matched, it.next, it.mode, it.round, it.is_idle())?;
                }
            }
        }
        let led = self.now.mono < self.leader_heard + self.settings.election_min;
        let due = self.now.mono >= self.election_at;
        write!(out, "{:?}{led}{due}{}/{}/{}/{}", self.leader, self.verified, self.round, self.acked, self.commit)?;
        write!(out, "{}/{}{:?}{:?}", self.handed, self.applied, self.adopted, self.halted)
    }
}
