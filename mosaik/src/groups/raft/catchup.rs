//! Catching up from many: a follower that is far behind fetches disjoint ranges from several members at once.
//!
//! Responders serve only what they have committed, and the whole must form a chain from the own committed log to the
//! position that the leader named. Entries that the follower holds already, beyond the target too, stay unless they
//! mismatch: they may have been acknowledged.

use std::collections::BTreeMap;

use super::{Entry, Fetching, Index, Member, Mutant, Position, Quirk, Raft, Role, message::Message, progress::Mode};

/// Ranges under way.
#[derive(Clone, Debug)]
pub(super) struct CatchUp {
    target: Position,
    commit: Index,
    sources: Vec<Member>,
    /// By first index.
    pieces: BTreeMap<Index, Piece>,
    turn: usize,
}

#[derive(Clone, Debug)]
struct Piece {
    to: Index,
    /// Whom and when it was last asked.
    asked: Option<(Member, u64)>,
    entries: Vec<Entry>,
}

impl CatchUp {
    fn is_complete(&self) -> bool {
        self.pieces.values().all(|piece| !piece.entries.is_empty())
    }

    pub fn fetching(&self) -> Fetching {
        let begin = self.pieces.keys().next().map_or(self.target.index, |first| first - 1);
        Fetching {
            mode: super::Mode::CatchUp,
            target: self.target.index,
            have: self.pieces.values().map(|piece| piece.entries.len() as u64).sum(),
            of: self.target.index.saturating_sub(begin),
        }
    }
}

impl Raft {
    /// Leader: the member is far behind; name a target and who has it.
    pub(super) fn ask_to_catch_up(&mut self, to: Member) {
        let alive = self.now.mono.saturating_sub(self.settings.election_max);
        let Self { role: Role::Leader(leader), settings, log, outbox, commit, now, me, .. } = self else { return };
        let Some(matched) = leader.progress.get(&to).map(|progress| progress.matched) else { return };
        let Some(target) = log.at((*commit).min(matched.max(log.base().index) + settings.catch_up_window)) else {
            return;
        };
        let has = |member: &&Member| {
            **member != to
                && leader.progress.get(member).is_some_and(|it| it.heard >= alive && it.matched >= target.index)
        };
        let sources: Vec<Member> = leader.progress.keys().filter(has).take(8).chain([&*me]).copied().collect();
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        progress.mode = Mode::CatchUp { target: target.index };
        progress.moved = now.mono;
        outbox.send(to, Message::CatchUp { target, sources, commit: *commit, round: leader.round });
    }

    pub(super) fn on_catch_up(&mut self, target: Position, sources: Vec<Member>, commit: Index) {
        self.leader_commit = self.leader_commit.max(commit);
        let Some(leader) = self.leader else { return };
        if self.verified >= target.index {
            return self.ack(leader, None, 0);
        }
        if self.catching.as_ref().is_some_and(|it| it.target == target) {
            return;
        }
        let mut pieces = BTreeMap::new();
        let mut from = self.commit + 1;
        while from <= target.index {
            let to = (from + self.settings.pull_entries - 1).min(target.index);
            pieces.insert(from, Piece { to, asked: None, entries: Vec::new() });
            from = to + 1;
        }
        let sources: Vec<Member> = sources.into_iter().filter(|source| *source != self.me).collect();
        self.catching = Some(CatchUp { target, commit, sources, pieces, turn: 0 });
        self.catch_up_tick();
    }

    /// Asks for what is missing, each piece from the next source in turn.
    pub(super) fn catch_up_tick(&mut self) {
        let Self { catching: Some(catching), outbox, now, settings, .. } = self else { return };
        if catching.sources.is_empty() {
            return;
        }
        for (from, piece) in &mut catching.pieces {
            let due = piece.asked.is_none_or(|(_, at)| now.mono >= at + 3 * settings.heartbeat);
            if piece.entries.is_empty() && due {
                let source = catching.sources[catching.turn % catching.sources.len()];
                catching.turn += 1;
                piece.asked = Some((source, now.mono));
                outbox.send(source, Message::Pull { from: *from, to: piece.to });
            }
        }
    }

    /// Serves committed entries, to whoever asks.
    pub(super) fn on_pull(&mut self, from: Member, first: Index, to: Index) {
        let short = self.odd(Quirk::ShortPull);
        let entries = if first > self.log.base().index && first <= self.commit {
            let max = if short { 1 } else { usize::try_from(self.settings.pull_entries).unwrap_or(usize::MAX) };
            self.log.slice(first, to.min(self.commit), max, self.settings.append_bytes)
        } else {
            Vec::new()
        };
        self.outbox.send(from, Message::Pulled { from: first, entries, commit: self.commit });
    }

    pub(super) fn on_pulled(&mut self, from: Member, first: Index, entries: Vec<Entry>) {
        let Some(catching) = &mut self.catching else { return };
        let Some(piece) = catching.pieces.get_mut(&first) else { return };
        if !piece.entries.is_empty() || piece.asked.is_none_or(|(source, _)| source != from) {
            return;
        }
        let right = entries.iter().zip(first..).all(|(entry, index)| entry.index == index);
        let last = first + entries.len() as u64 - 1;
        if entries.is_empty() || !right || last > piece.to {
            piece.asked = None; // the next source may do better, at the next tick
            return;
        }
        let to = std::mem::replace(&mut piece.to, last);
        piece.entries = entries;
        if last < to {
            catching.pieces.insert(last + 1, Piece { to, asked: None, entries: Vec::new() });
            self.catch_up_tick();
        } else if catching.is_complete() {
            self.finish_catch_up();
        }
    }

    fn finish_catch_up(&mut self) {
        let Some(catching) = self.catching.take() else { return };
        let Some(leader) = self.leader else { return };
        let begin = catching.pieces.keys().next().copied().unwrap_or(1) - 1;
        let begin = begin.max(self.log.base().index);
        let entries: Vec<Entry> =
            catching.pieces.into_values().flat_map(|piece| piece.entries).filter(|entry| entry.index > begin).collect();
        let Some(previous) = self.log.at(begin) else { return };
        let end = entries.last().map_or(previous, Entry::position);
        let valid = self.log.verify(previous, &entries) && end == catching.target;
        if !valid && !self.settings.switch.is(Mutant::ChainNotVerified) {
            return; // the leader asks again after a while, and the sources come in another order
        }
        if self.settings.switch.is(Mutant::CatchUpDropsMatching) && !entries.is_empty() {
            let entries: Vec<Entry> = entries.into_iter().filter(|entry| entry.index > self.commit).collect();
            self.log.replace(&entries, self.commit);
            self.write_entries(entries);
        } else if let Err(halt) = self.take(entries) {
            return self.halt(halt);
        }
        self.verified = self.verified.max(catching.target.index);
        self.commit_to(catching.commit.min(self.verified));
        self.ack(leader, None, 0);
    }
}
