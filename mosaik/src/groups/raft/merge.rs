//! Two clusters under one key meet. The lesser dissolves into the greater if no user ever wrote to it; nothing is ever
//! merged and nothing written by a user is dropped silently.
//!
//! Order: fewer voters at the high-water mark, then no user command, then cluster id. The lesser yields only after the
//! greater has *committed* that it adopts it, and a cluster that adopted never yields: so two never dissolve into each
//! other. A lesser that holds user commands stops and says so (`SplitGenesis`); of two equals that both do, both stop.

use super::{ClusterId, Halt, Mutant, Output, Payload, Raft, Role, message::Envelope, message::Message};

impl Raft {
    fn user(&self) -> bool {
        self.log.has_user()
    }

    /// Leader: tells foreign peers about this cluster, once per second or so.
    pub(super) fn census(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        if !leader.round.is_multiple_of(5) || !self.is_established() {
            return;
        }
        let membership = self.log.membership();
        let body = Message::Census {
            peak: membership.peak,
            user: self.user(),
            adopted: self.adopted.clone(),
            ancestors: membership.ancestors.clone(),
        };
        // A member on paper may have founded a cluster of its own before this one's messages reached it.
        let foreign = |cluster: Option<ClusterId>| cluster.is_some() && cluster != self.hard.cluster;
        let strangers: Vec<_> = self
            .peers
            .values()
            .filter(|peer| peer.up && (foreign(peer.cluster) || !membership.contains(&peer.member)))
            .map(|peer| peer.member)
            .collect();
        for stranger in strangers {
            self.outbox.send(stranger, body.clone());
        }
    }

    /// A message from another cluster of the same key.
    pub(super) fn on_foreign(&mut self, envelope: &Envelope) {
        let (Some(ours), Some(theirs)) = (self.hard.cluster, envelope.cluster) else {
            self.founder.cluster_seen = Some(self.now.mono);
            return;
        };
        let Message::Census { peak, user, adopted, ancestors } = &envelope.body else { return };
        if ours == theirs {
            return;
        }
        if ancestors.contains(&ours) {
            return self.halt(Halt::Superseded { by: theirs });
        }
        if !self.is_established() || self.log.membership().ancestors.contains(&theirs) {
            return;
        }
        let (our_peak, our_user) = (self.log.membership().peak, self.user());
        let own = (our_peak, our_user, ours);
        let other = (*peak, *user, theirs);
        if own > other {
            self.meet_lesser(other, our_peak, our_user);
        } else {
            self.meet_greater(theirs, *user, adopted, *peak == our_peak);
        }
    }

    fn meet_lesser(&mut self, (peak, user, theirs): (u32, bool, ClusterId), our_peak: u32, our_user: bool) {
        if user && our_user && peak == our_peak {
            return self.halt(Halt::SplitGenesis { other: theirs });
        }
        let pending = self.log.last().index > self.commit && self.log.has_adopt(theirs);
        if user || self.log.is_yielding() || self.adopted.contains(&theirs) || pending {
            return;
        }
        self.append(vec![Payload::Adopt(theirs)]);
        self.feed_all();
    }

    fn meet_greater(&mut self, theirs: ClusterId, user: bool, adopted: &[ClusterId], equal: bool) {
        if self.user() {
            if !equal || user {
                self.halt(Halt::SplitGenesis { other: theirs });
            }
            return;
        }
        let Some(ours) = self.hard.cluster else { return };
        let welcome = adopted.contains(&ours) || self.settings.switch.is(Mutant::YieldBeforeAdopt);
        let bound = !self.adopted.is_empty() || self.log.has_any_adopt();
        let bound = bound && !self.settings.switch.is(Mutant::YieldBeforeAdopt);
        if welcome && !bound && !self.log.is_yielding() {
            self.append(vec![Payload::Yield(theirs)]);
            self.feed_all();
        }
    }

    /// A committed `Yield` ends this member. A leader goes last: when all others are gone, or after a while.
    pub(super) fn dissolve(&mut self) {
        let Some((into, until)) = self.dissolving else { return };
        let waits = |leader: &super::Leader| leader.progress.keys().any(|member| !self.is_dead(member));
        if matches!(&self.role, Role::Leader(leader) if waits(leader) && self.now.mono < until) || self.halted.is_some()
        {
            return;
        }
        self.drop_leadership();
        self.halted = Some(Halt::Superseded { by: into });
        self.outbox.put(Output::Wipe { into });
    }
}
