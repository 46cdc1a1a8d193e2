//! Changes of the configuration: operators' wishes, joiners, and the leader's autopilot.
//!
//! Every change of voters goes through a joint configuration; one change at a time, and only after a commit of the own
//! term. What is silent or far behind is *proposed* away here; until that commits it counts as before.

use std::collections::BTreeSet;

use super::{Change, Member, Membership, Mutant, Payload, Raft, Role, message::Message, progress::Mode};

impl Raft {
    /// Whether a change may be proposed now.
    fn can_change(&self) -> bool {
        let switch = self.settings.switch;
        let Role::Leader(leader) = &self.role else { return false };
        let established = self.is_established() || switch.is(Mutant::ChangeBeforeOwnTermCommit);
        let alone = self.log.membership_index() <= self.commit || switch.is(Mutant::TwoChangesInFlight);
        let joint = self.log.membership().outgoing.is_some() && !switch.is(Mutant::TwoChangesInFlight);
        established && alone && !joint && !self.log.is_yielding() && leader.transfer.is_none()
    }

    /// Appends the configuration; with other voters than now it becomes a joint one first.
    fn propose_config(&mut self, mut next: Membership) {
        let now = self.log.membership();
        debug_assert!(!next.voters.is_empty() && next.voters.is_disjoint(&next.learners));
        if next.voters != now.voters {
            next.outgoing = Some(now.voters.clone());
        }
        let early = self.settings.switch.is(Mutant::JointLeftEarly);
        self.append_config(next);
        if early {
            self.leave_joint();
        }
        self.feed_all();
    }

    fn append_config(&mut self, next: Membership) {
        self.append(vec![Payload::Config(Box::new(next))]);
        self.sync_progress();
    }

    fn leave_joint(&mut self) {
        let mut next = self.log.membership().clone();
        if next.outgoing.take().is_some() {
            next.peak = next.peak.max(u32::try_from(next.voters.len()).unwrap_or(u32::MAX));
            self.append_config(next);
        }
    }

    /// Something was committed: a joint configuration is left, and a leader that is no longer a voter goes.
    pub(super) fn after_commit(&mut self) {
        if !self.is_established() || self.log.membership_index() > self.commit {
            return;
        }
        if self.log.membership().outgoing.is_some() {
            self.leave_joint();
            self.feed_all();
            self.try_commit();
        } else if !self.log.membership().is_voter(&self.me) {
            self.tell_everyone();
            self.step_down(self.hard.term);
        }
    }

    /// One last heartbeat, so that the others know what is committed.
    fn tell_everyone(&mut self) {
        self.heartbeat();
    }

    /// An operator's wish.
    #[expect(clippy::needless_pass_by_value, reason = "an input is handed over whole")]
    pub(super) fn on_change(&mut self, change: Change) {
        if !self.can_change() {
            return;
        }
        let now = self.log.membership();
        let mut next = now.clone();
        match change {
            Change::Promote(member) => {
                if !self.may_vote(&member) || !(next.learners.remove(&member) || next.observers.remove(&member)) {
                    return;
                }
                next.voters.insert(member);
            }
            Change::Demote(member) => {
                if !next.voters.remove(&member) {
                    return;
                }
                next.observers.insert(member);
            }
            Change::Remove(member) => {
                if !(next.voters.remove(&member) | next.learners.remove(&member) | next.observers.remove(&member)) {
                    return;
                }
            }
            Change::Swap { out, into } => {
                if !self.may_vote(&into) || !next.learners.remove(&into) || !next.voters.remove(&out) {
                    return;
                }
                next.voters.insert(into);
            }
        }
        self.propose_if_safe(next);
    }

    /// Proposes unless it would go below the floor, or could not commit because too few are alive.
    fn propose_if_safe(&mut self, next: Membership) -> bool {
        let now = self.log.membership();
        let shrinks = next.voters.len() < now.voters.len();
        if shrinks && next.voters.len() < now.floor() && !self.settings.switch.is(Mutant::FloorIgnored) {
            return false;
        }
        if next.voters.is_empty() || !(self.is_live(&now.voters) && self.is_live(&next.voters)) {
            return false;
        }
        self.propose_config(next);
        true
    }

    fn is_alive(&self, member: &Member) -> bool {
        let since = self.now.mono.saturating_sub(self.settings.election_max);
        *member == self.me || matches!(&self.role, Role::Leader(leader) if leader.heard_since(member, since))
    }

    /// Whether living, caught-up members are a majority.
    fn is_live(&self, voters: &BTreeSet<Member>) -> bool {
        voters.iter().filter(|member| self.is_alive(member) && self.is_caught_up(member)).count() > voters.len() / 2
    }

    pub(super) fn is_caught_up(&self, member: &Member) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        *member == self.me
            || leader.progress.get(member).is_some_and(|progress| {
                progress.mode == Mode::Replicate && progress.matched + self.settings.caught_up >= self.commit
            })
    }

    /// Whether a later life of the member's node is known: then it will never speak again.
    pub(super) fn is_dead(&self, member: &Member) -> bool {
        self.peers.get(&member.node).is_some_and(|peer| peer.member.incarnation > member.incarnation)
    }

    /// Looks after the configuration, once per heartbeat.
    pub(super) fn autopilot(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        if self.now.mono < leader.autopilot_at {
            return;
        }
        leader.autopilot_at = self.now.mono + self.settings.heartbeat;
        if self.can_change() && !self.take_in() && !self.swap_dead() && !self.grow() {
            self.replace_weak();
        }
    }

    /// Members without a vote that have been silent for long, the longest last: learners after observers, which an operator
    /// may have made of voters. A learner that is put out asks to be taken in when it is back.
    fn long_silent(&self) -> Vec<Member> {
        let Role::Leader(leader) = &self.role else { return Vec::new() };
        let Some(since) = self.now.mono.checked_sub(self.settings.silent) else { return Vec::new() };
        if self.settings.switch.is(Mutant::SilentLearnersStay) {
            return Vec::new();
        }
        let membership = self.log.membership();
        let silent = leader.progress.iter().filter(|(member, it)| it.heard < since && !membership.is_voter(member));
        let mut silent: Vec<_> =
            silent.map(|(member, it)| (membership.learners.contains(member), u64::MAX - it.heard, *member)).collect();
        silent.sort_unstable();
        silent.into_iter().map(|(_, _, member)| member).collect()
    }

    /// Takes in those who asked, as learners or observers; earlier lives of the same nodes go, if they do not vote. In a full
    /// group members without a vote that were silent for long make room. Who finds none is told.
    fn take_in(&mut self) -> bool {
        let Role::Leader(leader) = &mut self.role else { return false };
        if leader.joining.is_empty() {
            return false;
        }
        let joining = std::mem::take(&mut leader.joining);
        let mut silent = self.long_silent();
        let now = self.log.membership();
        let mut next = now.clone();
        let mut refused = Vec::new();
        for (member, observer) in joining {
            if now.contains(&member) || self.is_dead(&member) {
                continue;
            }
            next.learners.retain(|other| other.node != member.node);
            next.observers.retain(|other| other.node != member.node);
            while next.everyone().len() >= self.settings.peers
                && let Some(out) = silent.pop()
            {
                next.learners.remove(&out);
                next.observers.remove(&out);
            }
            if next.everyone().len() >= self.settings.peers {
                refused.push(member);
                continue;
            }
            if observer {
                next.observers.insert(member)
            } else {
                next.learners.insert(member)
            };
        }
        let is_new = next != *now;
        let members = u32::try_from(now.everyone().len()).unwrap_or(u32::MAX);
        for member in refused {
            self.outbox.send(member, Message::Full { members });
        }
        if is_new {
            self.propose_config(next);
        }
        is_new
    }

    /// Whether no further member can be taken in, and none that was silent for long could make room.
    pub(super) fn has_no_room(&self) -> bool {
        self.log.membership().everyone().len() >= self.settings.peers && self.long_silent().is_empty()
    }

    /// Whether the member could vote from now on. One that has no entry yet could not: it does not know its cluster, and would
    /// be missing from every majority until a leader reaches it.
    fn may_vote(&self, member: &Member) -> bool {
        self.is_alive(member) && self.is_caught_up(member) && !self.is_dead(member)
    }

    /// Learners that could vote from now on.
    fn eligible(&self) -> Vec<Member> {
        self.log.membership().learners.iter().copied().filter(|it| self.may_vote(it)).collect()
    }

    /// Puts a new life in the place of a dead one, without waiting: the old one cannot return.
    fn swap_dead(&mut self) -> bool {
        let now = self.log.membership();
        let pair = self.eligible().into_iter().find_map(|into| {
            let out = now.voters.iter().find(|voter| voter.node == into.node && self.is_dead(voter))?;
            Some((*out, into))
        });
        let Some((out, into)) = pair else { return false };
        let mut next = now.clone();
        next.voters.remove(&out);
        next.learners.remove(&into);
        next.voters.insert(into);
        self.propose_if_safe(next)
    }

    /// Below three voters everybody who can is promoted; above, only to an odd number, up to the target.
    fn grow(&mut self) -> bool {
        let now = self.log.membership();
        let nodes: BTreeSet<_> = now.voters.iter().map(|voter| voter.node).collect();
        let mut eligible = self.eligible();
        eligible.retain(|it| !nodes.contains(&it.node));
        let voters = now.voters.len();
        let goal = if voters < 3 { 3 } else { self.settings.target_voters };
        let mut take = eligible.len().min(goal.saturating_sub(voters));
        if voters + take > 3 && (voters + take).is_multiple_of(2) {
            take = take.saturating_sub(1);
        }
        if take == 0 {
            return false;
        }
        let mut next = now.clone();
        for member in &eligible[..take] {
            next.learners.remove(member);
            next.voters.insert(*member);
        }
        self.propose_if_safe(next)
    }

    /// A voter that was silent or far behind for long gives its vote to a learner; without one it is demoted, down to the
    /// floor.
    fn replace_weak(&mut self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let now = self.log.membership();
        let Some(since) = self.now.mono.checked_sub(self.settings.silent) else { return false };
        let lags =
            |voter: &Member| leader.progress.get(voter).is_some_and(|it| it.near < since) && !self.is_caught_up(voter);
        let others = || now.voters.iter().filter(|voter| **voter != self.me);
        let silent = others().find(|voter| !leader.heard_since(voter, since)).or_else(|| others().find(|it| lags(it)));
        let Some(silent) = silent.copied() else { return false };
        let mut next = now.clone();
        next.voters.remove(&silent);
        if !self.is_dead(&silent) {
            next.learners.insert(silent);
        }
        if let Some(into) = self.eligible().first() {
            next.learners.remove(into);
            next.voters.insert(*into);
        }
        self.propose_if_safe(next)
    }

    /// Asks to be taken in, as long as that is needed.
    pub(super) fn join_tick(&mut self) {
        if self.now.mono < self.join_at {
            return;
        }
        self.join_at = self.now.mono + 3 * self.settings.heartbeat;
        // A voter that hears no leader may have been removed without knowing.
        let deaf = self.now.mono > self.leader_heard + 2 * self.settings.election_max;
        if self.hard.cluster.is_none() || (deaf && !matches!(self.role, Role::Leader(_))) {
            let observer = self.settings.preference == super::Preference::Observer;
            for peer in self.linked() {
                self.outbox.send(peer, Message::Join { observer });
            }
        }
    }

    /// Somebody asks to be taken in.
    pub(super) fn on_join(&mut self, from: Member, observer: bool) {
        match &mut self.role {
            Role::Leader(leader)
                if !self.log.membership().contains(&from) && leader.joining.len() < self.settings.peers =>
            {
                leader.joining.insert(from, observer);
            }
            _ => {}
        }
        self.outbox.send(from, Message::Present);
    }
}
