//! The replicated log in memory: entries after a base, the chain hash at every index, and the configurations in it.
//!
//! Only `Raft` mutates it. It knows which part is durable, and refuses to truncate what the caller says is committed.

use std::collections::VecDeque;

use super::{
    membership::Membership,
    message::Manifest,
    types::{ClusterId, Digest, Entry, Index, Payload, Position, Term, Token, chain},
};

/// The log of one member.
#[derive(Clone, Debug)]
pub struct Log {
    /// Where the entries begin: zero, or the last entry that a snapshot stands for.
    base: Position,
    base_time: u64,
    base_civil: u64,
    base_user: bool,
    entries: VecDeque<Entry>,
    /// The configurations in force, each from its index on; never empty.
    configs: Vec<(Index, Membership)>,
    /// User entries among `entries`.
    user: usize,
    /// `Yield`s among `entries`.
    yields: usize,
    /// `Seal`s among `entries`.
    seals: usize,
    durable: Index,
    /// Writes under way: when `token` is done, the log is durable up to the index.
    writing: VecDeque<(Token, Index)>,
    scratch: Vec<u8>,
}

impl Log {
    /// A log without entries, before the first one.
    pub(super) fn empty() -> Self {
        Self::new(Self::root(), (0, 0), false, Membership::nobody())
    }

    /// A log without entries, after a snapshot.
    pub(super) fn resting(on: &Manifest) -> Self {
        Self::new(on.position, (on.time, on.civil), on.user, on.membership.clone())
    }

    fn new(base: Position, (base_time, base_civil): (u64, u64), base_user: bool, membership: Membership) -> Self {
        Self {
            base,
            base_time,
            base_civil,
            base_user,
            entries: VecDeque::new(),
            configs: vec![(base.index, membership)],
            user: 0,
            yields: 0,
            seals: 0,
            durable: base.index,
            writing: VecDeque::new(),
            scratch: Vec::with_capacity(256),
        }
    }

    /// Where the entries begin.
    #[must_use]
    pub const fn base(&self) -> Position {
        self.base
    }

    /// The last position.
    #[must_use]
    pub fn last(&self) -> Position {
        self.entries.back().map_or(self.base, Entry::position)
    }

    /// The last index that is known to be durable.
    #[must_use]
    pub const fn durable(&self) -> Index {
        self.durable
    }

    /// Group time and civil time of the last entry, milliseconds.
    #[must_use]
    pub fn last_times(&self) -> (u64, u64) {
        self.entries.back().map_or((self.base_time, self.base_civil), |entry| (entry.time, entry.civil))
    }

    /// Whether any user entry was ever in this log.
    #[must_use]
    pub const fn has_user(&self) -> bool {
        self.base_user || self.user > 0
    }

    /// Whether this log dissolves its cluster, committed or not.
    #[must_use]
    pub const fn is_yielding(&self) -> bool {
        self.yields > 0
    }

    /// Whether a seal is among the entries, committed or not.
    pub(super) const fn has_seal(&self) -> bool {
        self.seals > 0
    }

    /// Whether a seal is among the entries at or below `index`.
    pub(super) fn has_seal_up_to(&self, index: Index) -> bool {
        let sealed = |entry: &Entry| entry.payload == Payload::Seal;
        self.seals > 0 && self.entries.iter().take_while(|entry| entry.index <= index).any(sealed)
    }

    /// Whether the log adopts the cluster.
    pub(super) fn has_adopt(&self, cluster: ClusterId) -> bool {
        self.entries.iter().any(|entry| entry.payload == Payload::Adopt(cluster))
    }

    /// Whether the log adopts any cluster.
    pub(super) fn has_any_adopt(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.payload, Payload::Adopt(_)))
    }

    /// Whether any user entry is at or below `index`.
    pub(super) fn has_user_up_to(&self, index: Index) -> bool {
        self.base_user
            || self.entries.iter().take_while(|entry| entry.index <= index).any(|entry| entry.payload.is_user())
    }

    /// The position at `index`, unless it is compacted away or beyond the end.
    #[must_use]
    pub fn at(&self, index: Index) -> Option<Position> {
        if index == self.base.index { Some(self.base) } else { self.get(index).map(Entry::position) }
    }

    /// The entry at `index`.
    #[must_use]
    pub fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.checked_sub(self.base.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Group time and civil time at `index`, milliseconds.
    pub(super) fn times_at(&self, index: Index) -> (u64, u64) {
        self.get(index).map_or((self.base_time, self.base_civil), |entry| (entry.time, entry.civil))
    }

    /// The configuration in force: the last in the log, committed or not.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.configs[self.configs.len() - 1].1
    }

    /// Where the configuration in force stands.
    #[must_use]
    pub fn membership_index(&self) -> Index {
        self.configs[self.configs.len() - 1].0
    }

    /// The configuration in force at `index`.
    #[must_use]
    pub fn membership_at(&self, index: Index) -> &Membership {
        let found = self.configs.iter().rev().find(|(at, _)| *at <= index);
        &found.unwrap_or(&self.configs[0]).1
    }

    /// Up to `max` entries and `bytes` bytes from `from` on, at least one if there is any.
    pub(super) fn slice(&self, from: Index, to: Index, max: usize, bytes: usize) -> Vec<Entry> {
        assert!(from > self.base.index, "entries below the base are compacted");
        let start = usize::try_from(from - self.base.index - 1).unwrap_or(usize::MAX);
        let wanted = usize::try_from(to.saturating_add(1).saturating_sub(from)).unwrap_or(usize::MAX);
        let end = self.entries.len().min(start.saturating_add(wanted.min(max)));
        if start >= end {
            return Vec::new();
        }
        let mut size = 0;
        let mut out = Vec::with_capacity(end - start);
        for entry in self.entries.range(start..end) {
            size += entry.payload.size();
            if size > bytes && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        out
    }

    /// The entries from `from` to `to`, which must not be compacted.
    pub(crate) fn between(&self, from: Index, to: Index) -> Vec<Entry> {
        self.slice(from, to, usize::MAX, usize::MAX)
    }

    /// All entries from `from` on.
    pub(super) fn since(&self, from: Index) -> Vec<Entry> {
        self.slice(from, Index::MAX, usize::MAX, usize::MAX)
    }

    /// Payload bytes after `index`.
    pub(super) fn bytes_after(&self, index: Index) -> usize {
        self.entries.iter().rev().take_while(|entry| entry.index > index).map(|entry| entry.payload.size()).sum()
    }

    /// The last index at or below `index` whose term is at most `term`: where two logs may agree at best.
    pub(super) fn last_at_or_below(&self, index: Index, term: Term) -> Index {
        let mut at = index.min(self.last().index);
        while at > self.base.index && self.at(at).is_some_and(|position| position.term > term) {
            at -= 1;
        }
        at
    }

    /// Appends what a leader creates, at its group time and civil time.
    pub(super) fn create(&mut self, term: Term, times: (u64, u64), payload: Payload) {
        let Position { index, hash, term: before } = self.last();
        assert!(term >= before, "terms never decrease along a log");
        let last = self.last_times();
        let (index, time, civil) = (index + 1, times.0.max(last.0), times.1.max(last.1));
        let mut entry = Entry { index, term, time, civil, payload, hash };
        entry.hash = chain(&hash, &entry, &mut self.scratch);
        self.push(entry);
    }

    /// Replaces everything from the first entry's index on. The caller has verified the chain.
    pub(super) fn replace(&mut self, entries: &[Entry], commit: Index) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > commit, "truncation never reaches the commit index");
        self.replace_unchecked(entries);
    }

    /// As `replace` without its guard; called directly only by a planted bug.
    pub(super) fn replace_unchecked(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.base.index && first.index <= self.last().index + 1);
        while self.last().index >= first.index {
            if let Some(entry) = self.entries.pop_back() {
                self.count(&entry, -1);
            }
        }
        self.configs.retain(|(at, _)| *at < first.index || *at <= self.base.index);
        self.durable = self.durable.min(first.index - 1);
        for (_, to) in &mut self.writing {
            *to = (*to).min(first.index - 1);
        }
        for entry in entries {
            self.push(entry.clone());
        }
    }

    fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.index, self.last().index + 1);
        if let Payload::Config(membership) = &entry.payload {
            self.configs.push((entry.index, (**membership).clone()));
        }
        self.count(&entry, 1);
        self.entries.push_back(entry);
    }

    fn count(&mut self, entry: &Entry, by: isize) {
        if entry.payload.is_user() {
            self.user = self.user.saturating_add_signed(by);
        }
        if entry.payload == Payload::Seal {
            self.seals = self.seals.saturating_add_signed(by);
        } else if matches!(entry.payload, Payload::Yield(_)) {
            self.yields = self.yields.saturating_add_signed(by);
        }
    }

    /// Whether `entries` form a chain after `previous`.
    pub(super) fn verify(&mut self, previous: Position, entries: &[Entry]) -> bool {
        let mut before = previous;
        for entry in entries {
            let next = entry.index == before.index + 1 && entry.term >= before.term;
            if !next || !entry.follows(&before.hash, &mut self.scratch) {
                return false;
            }
            before = entry.position();
        }
        true
    }

    /// Notes that everything up to the end is being written under `token`.
    pub(super) fn writing(&mut self, token: Token) {
        let last = self.last().index;
        match self.writing.back_mut() {
            Some((of, to)) if *of == token => *to = last,
            _ => self.writing.push_back((token, last)),
        }
    }

    /// Writes up to `token` are done. Returns whether the durable index grew.
    pub(super) fn written(&mut self, token: Token) -> bool {
        let before = self.durable;
        while let Some((of, to)) = self.writing.front().copied() {
            if of > token {
                break;
            }
            self.writing.pop_front();
            self.durable = self.durable.max(to);
        }
        debug_assert!(self.durable <= self.last().index);
        self.durable > before
    }

    /// The log rests on a snapshot that is only being written: nothing of it counts before `token` is done.
    pub(super) fn unsettle(&mut self, token: Token) {
        self.durable = 0;
        self.writing.clear();
        self.writing(token);
    }

    /// Everything read back from storage is durable.
    pub(super) fn loaded(&mut self) {
        self.durable = self.last().index;
    }

    /// The lowest index at which the log may begin so that at most `count` entries and `bytes` bytes up to `index` stay.
    pub(super) fn tail(&self, index: Index, count: u64, bytes: usize) -> Index {
        let (mut begin, mut size) = (index, 0);
        while begin > self.base.index && index - begin < count {
            size += self.get(begin).map_or(0, |entry| entry.payload.size());
            if size > bytes {
                break;
            }
            begin -= 1;
        }
        begin
    }

    /// Drops entries up to `index`, which a snapshot now stands for.
    pub(super) fn compact(&mut self, index: Index) {
        let Some(position) = self.at(index) else { return };
        (self.base_time, self.base_civil) = self.times_at(index);
        self.base_user = self.has_user_up_to(index);
        let membership = self.membership_at(index).clone();
        while self.entries.front().is_some_and(|entry| entry.index <= index) {
            if let Some(entry) = self.entries.pop_front() {
                self.count(&entry, -1);
            }
        }
        self.base = position;
        self.configs.retain(|(at, _)| *at > index);
        self.configs.insert(0, (index, membership));
    }

    /// The root of the chain before the first entry.
    pub(super) const fn root() -> Position {
        Position { index: 0, term: 0, hash: Digest([0; 32]) }
    }
}
