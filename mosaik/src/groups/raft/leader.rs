//! What only a leader does: append, replicate, count acknowledgements, commit, and notice that it has lost its quorum.

use std::collections::BTreeMap;

use super::{
    Contradiction, Entry, Index, Member, Mutant, Output, Payload, Proposal, Quirk, Raft, Refusal, Role, Write,
    clock::Clock,
    handover::Moving,
    message::{Conflict, Message},
    progress::{Mode, Progress},
    read::LeaderReads,
};

/// The state of a leadership.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub progress: BTreeMap<Member, Progress>,
    /// The no-op that opened the term; nothing is decided before it is committed.
    pub first: Index,
    /// Heartbeat rounds sent.
    pub round: u64,
    pub heartbeat_at: u64,
    quorum_at: u64,
    pub autopilot_at: u64,
    /// Leadership is being handed to this member, until this time.
    pub transfer: Option<(Member, u64)>,
    /// The own disk hangs: when leadership ends if no hand-over ends it before.
    pub gives_up_at: Option<u64>,
    /// Hand-overs by itself, to a member that is fitter.
    pub moving: Moving,
    /// Who asked to be taken in, and as observer or not. Bounded by the table of peers.
    pub joining: BTreeMap<Member, bool>,
    pub reads: LeaderReads,
    /// Payload bytes that wait for commit.
    pub waiting_bytes: usize,
    /// What time it is in the group.
    pub clock: Clock,
}

impl Raft {
    pub(super) fn become_leader(&mut self) {
        let now = self.now.mono;
        let last = self.log.last();
        let (time, civil) = self.log.last_times();
        let others = self.log.membership().everyone().into_iter().filter(|member| *member != self.me);
        self.leader = None;
        self.role = Role::Leader(Box::new(Leader {
            progress: others.map(|member| (member, Progress::new(last.index + 1, now))).collect(),
            first: last.index + 1,
            round: 0,
            heartbeat_at: now,
            quorum_at: now + self.settings.election_max,
            autopilot_at: now,
            transfer: None,
            gives_up_at: None,
            moving: Moving::default(),
            joining: BTreeMap::new(),
            reads: LeaderReads::default(),
            waiting_bytes: self.log.bytes_after(self.commit),
            clock: Clock::new(time, civil, now),
        }));
        self.catching = None;
        self.installing = None;
        self.append(vec![Payload::Noop]);
        self.leader_tick();
    }

    /// Leaves leadership, if it has it: what waits for it fails.
    pub(super) fn drop_leadership(&mut self) {
        if let Role::Leader(leader) = std::mem::replace(&mut self.role, Role::Follower) {
            self.fail_leader_reads(leader.reads);
        }
    }

    pub(super) fn leader_tick(&mut self) {
        if self.odd(Quirk::Resignation) {
            return self.step_down(self.hard.term);
        }
        if self.odd(Quirk::SpuriousTransfer) {
            self.on_transfer(None);
        }
        if self.gives_up() {
            return self.step_down(self.hard.term);
        }
        let now = self.now.mono;
        let Self { role: Role::Leader(leader), settings, .. } = self else { return };
        if leader.transfer.is_some_and(|(_, until)| now >= until) {
            leader.transfer = None;
        }
        if now >= leader.quorum_at {
            leader.quorum_at = now + settings.election_max;
            let since = now.saturating_sub(settings.election_max);
            let heard = |member: &Member| *member == self.me || leader.heard_since(member, since);
            if !self.log.membership().quorum(heard) {
                return self.step_down(self.hard.term);
            }
        }
        if now >= leader.heartbeat_at {
            leader.heartbeat_at = now + settings.heartbeat;
            self.heartbeat();
            self.census();
            self.hand_to_fitter();
        }
        self.autopilot();
    }

    /// Starts a new round: one message to everybody, and another try for whoever is stuck.
    pub(super) fn heartbeat(&mut self) {
        let Self { role: Role::Leader(leader), settings, log, outbox, commit, now, me, .. } = self else { return };
        leader.round += 1;
        leader.clock.look(*me, now.wall, log.membership());
        let clock = leader.clock.wall().unwrap_or(0);
        for (member, progress) in &mut leader.progress {
            let stalled = now.mono >= progress.moved + 4 * settings.heartbeat;
            match progress.mode {
                Mode::Replicate if stalled && !progress.is_idle() => {
                    progress.probe(progress.matched + 1);
                    progress.cautious = true;
                }
                Mode::CatchUp { .. } | Mode::Snapshot { .. }
                    if now.mono >= progress.moved + 20 * settings.heartbeat =>
                {
                    progress.probe(progress.matched + 1);
                    progress.moved = now.mono;
                }
                Mode::Probe { .. } => progress.mode = Mode::Probe { asked: false },
                _ => {}
            }
            let previous = log.at(progress.matched).unwrap_or_default();
            let beat = Message::Append { previous, entries: Vec::new(), commit: *commit, round: leader.round, clock };
            progress.told = *commit;
            outbox.send(*member, beat);
        }
        self.feed_all();
    }

    pub(super) fn feed_all(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let all: Vec<Member> = leader.progress.keys().copied().collect();
        for member in all {
            self.feed(member);
        }
    }

    /// Sends the member what it may get now.
    pub(super) fn feed(&mut self, to: Member) {
        let tiny = self.odd(Quirk::TinyWindow);
        let most = if self.odd(Quirk::SmallBatch) { 1 } else { self.settings.append_entries };
        let offers = self.odd(Quirk::ForcedOffer);
        let fetches = self.odd(Quirk::ForcedCatchUp);
        let Self { role: Role::Leader(leader), settings, log, outbox, commit, now, .. } = self else { return };
        let (round, clock) = (leader.round, leader.clock.wall().unwrap_or(0));
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        if progress.next <= log.base().index && !matches!(progress.mode, Mode::Snapshot { .. }) {
            return self.offer(to);
        }
        if offers
            && progress.mode == Mode::Replicate
            && self.snapshot.as_ref().is_some_and(|it| it.manifest.position.index > progress.matched)
        {
            return self.offer(to);
        }
        let far = if fetches { 0 } else { settings.catch_up };
        match progress.mode {
            Mode::Probe { asked: false } => {
                progress.mode = Mode::Probe { asked: true };
                let Some(previous) = log.at(progress.next - 1) else { return };
                outbox.send(to, Message::Append { previous, entries: Vec::new(), commit: *commit, round, clock });
            }
            Mode::Replicate if progress.is_idle() && progress.next + far <= *commit => {
                self.ask_to_catch_up(to);
            }
            Mode::Replicate => {
                while progress.next <= log.last().index && progress.has_room(settings) {
                    let Some(previous) = log.at(progress.next - 1) else { return };
                    let most = if progress.cautious { 1 } else { most };
                    let entries = log.slice(progress.next, Index::MAX, most, settings.append_bytes);
                    let bytes = entries.iter().map(|entry| entry.payload.size()).sum();
                    progress.sent(previous.index + entries.len() as u64, bytes, now.mono);
                    progress.told = *commit;
                    outbox.send(to, Message::Append { previous, entries, commit: *commit, round, clock });
                    if tiny {
                        break;
                    }
                }
            }
            Mode::Probe { asked: true } | Mode::CatchUp { .. } | Mode::Snapshot { .. } => {}
        }
    }

    /// Appends entries of the own term and starts writing and sending them.
    pub(super) fn append(&mut self, payloads: Vec<Payload>) -> Index {
        let first = self.log.last().index + 1;
        let Role::Leader(leader) = &self.role else { return first };
        let (term, times) = (self.hard.term, leader.clock.times());
        for payload in payloads {
            self.log.create(term, times, payload);
        }
        let entries = self.log.since(first);
        self.count_waiting(&entries);
        self.write_entries(entries);
        first
    }

    fn count_waiting(&mut self, entries: &[Entry]) {
        if let Role::Leader(leader) = &mut self.role {
            leader.waiting_bytes += entries.iter().map(|entry| entry.payload.size()).sum::<usize>();
        }
    }

    pub(super) fn write_entries(&mut self, entries: Vec<Entry>) {
        let token = self.outbox.write(Write::Replace(entries));
        self.log.writing(token);
    }

    /// Appends what there is room for; each proposal is answered by itself.
    pub(super) fn on_propose(&mut self, proposals: Vec<Proposal>) {
        let mut times = (0, 0);
        let refusal = match &self.role {
            Role::Leader(leader) if leader.transfer.is_some() || self.log.is_yielding() => Some(Refusal::Leaving),
            Role::Leader(_) if self.is_sealed() && !self.settings.switch.is(Mutant::CommandAfterSeal) => {
                Some(Refusal::Sealed)
            }
            // Only in the first moments of a cluster: machines are to see a time that a majority agrees with.
            Role::Leader(leader) if !leader.clock.has_begun() => Some(Refusal::Busy),
            Role::Leader(leader) => {
                times = leader.clock.times();
                None
            }
            _ => Some(Refusal::NotLeader(self.leader)),
        };
        if let Some(why) = refusal {
            for Proposal { id, .. } in proposals {
                self.outbox.put(Output::Refused { id, why });
            }
            return;
        }
        let (term, first) = (self.hard.term, self.log.last().index + 1);
        let (mut queued, mut busy) = (Vec::with_capacity(proposals.len()), Vec::new());
        let mut room = self.room();
        for Proposal { id, payload } in proposals.into_iter().filter(|it| it.payload.is_user()) {
            // Nothing is taken after what was refused: a client relies on the order of its commands.
            if busy.is_empty() && room > 0 && self.takes(payload.size()) {
                room = room.saturating_sub(payload.size());
                self.log.create(term, times, payload);
                queued.push(id);
            } else {
                busy.push(id);
            }
        }
        if !queued.is_empty() {
            self.write_entries(self.log.since(first));
        }
        for (id, index) in queued.into_iter().zip(first..) {
            self.outbox.put(Output::Queued { id, index, term });
        }
        for id in busy {
            self.outbox.put(Output::Refused { id, why: Refusal::Busy });
        }
        if self.log.last().index >= first {
            self.feed_all();
        }
    }

    /// Ends the log for this version of the machine.
    pub(super) fn on_seal(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        if leader.transfer.is_none() && !self.log.is_yielding() && !self.is_sealed() {
            self.append(vec![Payload::Seal]);
            self.feed_all();
        }
    }

    /// Bytes that may be added to what waits for storage. As long as that owes nothing, one entry always may.
    fn room(&self) -> usize {
        let (batches, bytes) = self.outbox.owed();
        if self.is_full() {
            0
        } else if batches == 0 || self.settings.switch.is(Mutant::UnwrittenUnbounded) {
            self.settings.unwritten_bytes.max(1)
        } else {
            self.settings.unwritten_bytes.saturating_sub(bytes)
        }
    }

    /// Whether so many bytes more may wait for commit, and counts them. One entry always may.
    fn takes(&mut self, bytes: usize) -> bool {
        let waiting = self.log.last().index - self.commit;
        let Self { role: Role::Leader(leader), settings, .. } = self else { return false };
        let sum = leader.waiting_bytes.saturating_add(bytes);
        let fits = waiting == 0 || (waiting < settings.uncommitted && sum <= settings.uncommitted_bytes);
        if fits {
            leader.waiting_bytes = sum;
        }
        fits
    }

    pub(super) fn on_append_reply(
        &mut self,
        from: Member,
        matched: Index,
        asked: Option<Index>,
        conflict: Option<Conflict>,
        round: u64,
    ) {
        let Self { role: Role::Leader(leader), log, now, .. } = self else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        // A follower never has more of this leader's log than the leader itself.
        let last = log.last().index;
        if matched > last {
            return self.contradict(from, Contradiction::BeyondTheEnd { matched, last });
        }
        progress.heard = now.mono;
        let answers = round > progress.round;
        progress.round = progress.round.max(round);
        let news = progress.acked(matched, now.mono);
        match (progress.mode, conflict) {
            (Mode::Probe { .. }, Some(hint)) if asked == Some(progress.next - 1) => {
                let next = log.last_at_or_below(hint.index.min(progress.next.saturating_sub(2)), hint.term) + 1;
                progress.probe(next.max(progress.matched + 1));
            }
            (Mode::Replicate, Some(hint)) if asked.is_some_and(|asked| asked > progress.matched) => {
                let next = log.last_at_or_below(hint.index, hint.term) + 1;
                progress.probe(next.clamp(progress.matched + 1, progress.next));
            }
            (Mode::Probe { .. }, None) if asked == Some(progress.next - 1) => progress.mode = Mode::Replicate,
            (Mode::Probe { .. }, None) if news && matched + 1 >= progress.next => progress.mode = Mode::Replicate,
            (Mode::CatchUp { target } | Mode::Snapshot { target }, _) if matched >= target => {
                progress.probe(matched + 1);
                progress.mode = Mode::Replicate;
            }
            _ => {}
        }
        if progress.mode == Mode::Replicate && self.settings.caught_up + progress.matched >= self.commit {
            progress.near = now.mono;
        }
        if news {
            self.try_commit();
            self.transfer_if_ready(from);
        }
        if answers {
            self.probe_oddly(from);
        }
        self.count_round();
        self.feed(from);
    }

    /// A follower has told its wall clock.
    pub(super) fn hear_clock(&mut self, from: Member, wall: u64) {
        let Self { role: Role::Leader(leader), log, me, now, .. } = self else { return };
        if log.membership().contains(&from) {
            leader.clock.heard(from, wall);
            if !leader.clock.has_begun() {
                leader.clock.look(*me, now.wall, log.membership());
            }
        }
    }

    /// At most once in a heartbeat round: the window that follows is answered message by message, and would feed itself.
    fn probe_oddly(&mut self, member: Member) {
        if self.odd(Quirk::SpuriousProbe)
            && let Role::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress.get_mut(&member)
            && progress.mode == Mode::Replicate
        {
            progress.probe(progress.matched + 1);
        }
    }

    /// Commits what a quorum has made durable, but only through an entry of the own term (Raft 5.4.2).
    pub(super) fn try_commit(&mut self) {
        let Self { role: Role::Leader(leader), log, me, settings, .. } = self else { return };
        let index = |member: &Member| {
            if member == me { log.durable() } else { leader.progress.get(member).map_or(0, |it| it.matched) }
        };
        let membership = log.membership();
        let agreed = if settings.switch.is(Mutant::OneMajorityInJoint) {
            membership.incoming_agreed(index)
        } else {
            membership.agreed(index)
        };
        if agreed <= self.commit {
            return;
        }
        let own = log.at(agreed).is_some_and(|at| at.term == self.hard.term);
        if !own && !settings.switch.is(Mutant::OldTermCommit) {
            return;
        }
        self.commit_to(agreed);
        self.start_reads();
        self.after_commit();
        self.tell_commit();
    }

    /// Everybody who takes entries learns the new commit index at once. Round 0: an answer is needed only to say something
    /// new.
    fn tell_commit(&mut self) {
        if self.odd(Quirk::SilentCommit) {
            return;
        }
        let Self { role: Role::Leader(leader), log, outbox, commit, .. } = self else { return };
        let clock = leader.clock.wall().unwrap_or(0);
        for (member, progress) in &mut leader.progress {
            if progress.mode == Mode::Replicate && progress.told < *commit {
                progress.told = *commit;
                let Some(previous) = log.at(progress.matched) else { continue };
                outbox
                    .send(*member, Message::Append { previous, entries: Vec::new(), commit: *commit, round: 0, clock });
            }
        }
    }

    /// Whether an entry of the own term is committed: before that a leader does not know what is.
    pub(super) fn is_established(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if self.commit >= leader.first)
    }

    /// Brings the followers in line with the configuration in force.
    pub(super) fn sync_progress(&mut self) {
        let Self { role: Role::Leader(leader), log, me, now, .. } = self else { return };
        let everyone = log.membership().everyone();
        leader.progress.retain(|member, _| everyone.contains(member));
        for member in everyone.into_iter().filter(|member| member != me) {
            leader.progress.entry(member).or_insert_with(|| Progress::new(log.last().index, now.mono));
        }
        leader.joining.retain(|member, _| !log.membership().contains(member));
    }
}

impl Leader {
    pub fn heard_since(&self, member: &Member, since: u64) -> bool {
        self.progress.get(member).is_some_and(|progress| progress.heard >= since)
    }
}
