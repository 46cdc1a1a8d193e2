//! A configuration: who votes, who listens, and what a quorum is. A pure value that lies in the log.
//!
//! Quorums are decided here and nowhere else, from the configuration alone: silence, lag and lost links are inputs
//! to proposals for the next configuration (`autopilot`), never to this arithmetic.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::types::{ClusterId, Digest, Index, Member, NodeId};

/// The members of a cluster at one point of its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The cluster; a forced recovery changes it.
    pub cluster: ClusterId,
    /// Clusters that this one supersedes by forced recovery, oldest first.
    pub ancestors: Vec<ClusterId>,
    /// The voters; in a joint configuration the incoming ones.
    pub voters: BTreeSet<Member>,
    /// The outgoing voters of a joint configuration.
    pub outgoing: Option<BTreeSet<Member>>,
    /// Replicated to, and candidates for promotion.
    pub learners: BTreeSet<Member>,
    /// Replicated to, never promoted.
    pub observers: BTreeSet<Member>,
    /// The declared size; 0 when the group was founded undeclared.
    pub declared: u32,
    /// The highest number of voters of any configuration up to here.
    pub peak: u32,
}

fn majority(of: &BTreeSet<Member>, mut has: impl FnMut(&Member) -> bool) -> bool {
    of.iter().filter(|member| has(member)).count() > of.len() / 2
}

/// The highest index that a majority of `of` has reached.
fn reached(of: &BTreeSet<Member>, mut index: impl FnMut(&Member) -> Index) -> Index {
    // Fixed room for the usual sizes: this runs for every acknowledgement.
    let mut room = [0; 16];
    if of.len() <= room.len() {
        for (slot, member) in room.iter_mut().zip(of) {
            *slot = index(member);
        }
        let used = &mut room[..of.len()];
        used.sort_unstable();
        return used.get((of.len().saturating_sub(1)) / 2).copied().unwrap_or(0);
    }
    let mut all: Vec<Index> = of.iter().map(index).collect();
    all.sort_unstable();
    all[(all.len() - 1) / 2]
}

impl Membership {
    /// The configuration of a genesis.
    #[must_use]
    pub fn founding(cluster: ClusterId, voters: BTreeSet<Member>, declared: u32) -> Self {
        let peak = u32::try_from(voters.len()).unwrap_or(u32::MAX);
        Self {
            cluster,
            ancestors: Vec::new(),
            voters,
            outgoing: None,
            learners: BTreeSet::new(),
            observers: BTreeSet::new(),
            declared,
            peak,
        }
    }

    /// Whether `has` holds for a quorum: a majority of the voters, and in a joint configuration also of the outgoing.
    #[must_use]
    pub fn quorum(&self, mut has: impl FnMut(&Member) -> bool) -> bool {
        majority(&self.voters, &mut has) && self.outgoing.as_ref().is_none_or(|old| majority(old, &mut has))
    }

    /// As [`Self::quorum`] over the incoming voters only: what a joint configuration must not be satisfied with.
    pub(super) fn incoming_quorum(&self, has: impl FnMut(&Member) -> bool) -> bool {
        majority(&self.voters, has)
    }

    /// The highest index that a quorum has reached.
    #[must_use]
    pub fn agreed(&self, mut index: impl FnMut(&Member) -> Index) -> Index {
        let incoming = reached(&self.voters, &mut index);
        self.outgoing.as_ref().map_or(incoming, |old| incoming.min(reached(old, &mut index)))
    }

    /// As [`Self::agreed`] over the incoming voters only.
    pub(super) fn incoming_agreed(&self, index: impl FnMut(&Member) -> Index) -> Index {
        reached(&self.voters, index)
    }

    /// Whether the member votes here.
    #[must_use]
    pub fn is_voter(&self, member: &Member) -> bool {
        self.voters.contains(member) || self.outgoing.as_ref().is_some_and(|old| old.contains(member))
    }

    /// Whether the member is replicated to in any part.
    #[must_use]
    pub fn contains(&self, member: &Member) -> bool {
        self.is_voter(member) || self.learners.contains(member) || self.observers.contains(member)
    }

    /// Every voter, incoming and outgoing, each once.
    pub fn all_voters(&self) -> impl Iterator<Item = Member> + '_ {
        let outgoing = self.outgoing.iter().flatten().filter(|member| !self.voters.contains(member));
        self.voters.iter().chain(outgoing).copied()
    }

    /// Every member in any part, each once.
    pub fn everyone(&self) -> BTreeSet<Member> {
        self.all_voters().chain(self.learners.iter().copied()).chain(self.observers.iter().copied()).collect()
    }

    /// Any incarnation of the node that is a member.
    #[must_use]
    pub fn incarnation_of(&self, node: NodeId) -> Option<Member> {
        self.everyone().into_iter().rfind(|member| member.node == node)
    }

    /// The number of voters below which no change may go: the declared size if that is 1 or 2, else three as soon as
    /// three have ever been reached.
    #[must_use]
    pub fn floor(&self) -> usize {
        let reached = self.peak.min(3);
        (if (1..3).contains(&self.declared) { self.declared.min(reached) } else { reached }) as usize
    }

    /// Whether this may follow `before` directly in a log: same voters, or one half of a joint change.
    #[must_use]
    pub fn follows(&self, before: &Self) -> bool {
        if self.cluster != before.cluster {
            return self.ancestors.contains(&before.cluster);
        }
        match (&before.outgoing, &self.outgoing) {
            (None, None) => self.voters == before.voters,
            (None, Some(old)) => *old == before.voters,
            (Some(_), None) => self.voters == before.voters,
            (Some(_), Some(_)) => false,
        }
    }

    /// Estimated bytes on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        let outgoing = self.outgoing.as_ref().map_or(0, BTreeSet::len);
        128 + 48 * (self.voters.len() + outgoing + self.learners.len() + self.observers.len())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let members = |out: &mut Vec<u8>, set: &BTreeSet<Member>| {
            out.extend_from_slice(&(set.len() as u64).to_le_bytes());
            for member in set {
                out.extend_from_slice(member.node.as_bytes());
                out.extend_from_slice(&member.incarnation.to_le_bytes());
            }
        };
        out.extend_from_slice(&self.cluster.0.0);
        out.extend_from_slice(&(self.ancestors.len() as u64).to_le_bytes());
        for ancestor in &self.ancestors {
            out.extend_from_slice(&ancestor.0.0);
        }
        members(out, &self.voters);
        out.push(u8::from(self.outgoing.is_some()));
        members(out, self.outgoing.as_ref().unwrap_or(&BTreeSet::new()));
        members(out, &self.learners);
        members(out, &self.observers);
        out.extend_from_slice(&self.declared.to_le_bytes());
        out.extend_from_slice(&self.peak.to_le_bytes());
    }

    /// A stand-in for a node that belongs to no cluster: nobody votes and nothing is a quorum.
    pub(super) fn nobody() -> Self {
        Self::founding(ClusterId(Digest::default()), BTreeSet::new(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: u8) -> Member {
        Member { node: NodeId::from_bytes([n; 32]), incarnation: 1 }
    }

    fn of(ids: &[u8]) -> BTreeSet<Member> {
        ids.iter().map(|n| member(*n)).collect()
    }

    #[test]
    fn a_joint_quorum_needs_both_majorities() {
        let mut config = Membership::founding(ClusterId(Digest::default()), of(&[1, 2, 3]), 0);
        config.outgoing = Some(of(&[3, 4, 5]));
        assert!(config.quorum(|m| of(&[1, 2, 4, 5]).contains(m)));
        assert!(!config.quorum(|m| of(&[1, 2, 3]).contains(m)));
        assert!(!config.quorum(|m| of(&[3, 4, 5]).contains(m)));
        assert_eq!(config.agreed(|m| u64::from(m.node.as_bytes()[0])), 2);
    }

    #[test]
    fn nobody_is_no_quorum() {
        assert!(!Membership::nobody().quorum(|_| true));
        assert_eq!(Membership::nobody().agreed(|_| 7), 0);
    }

    #[test]
    fn an_even_set_needs_more_than_half() {
        let config = Membership::founding(ClusterId(Digest::default()), of(&[1, 2, 3, 4]), 0);
        assert!(!config.quorum(|m| of(&[1, 2]).contains(m)));
        assert_eq!(config.agreed(|m| if m.node.as_bytes()[0] <= 2 { 9 } else { 4 }), 4);
    }

    #[test]
    fn the_floor_follows_the_peak_up_to_three() {
        let mut config = Membership::founding(ClusterId(Digest::default()), of(&[1]), 0);
        assert_eq!(config.floor(), 1);
        config.peak = 5;
        assert_eq!(config.floor(), 3);
        config.declared = 2;
        assert_eq!(config.floor(), 2);
    }
}
