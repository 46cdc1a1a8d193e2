//! What one subscriber was handed and told, held against what was produced.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::streams::core::{
    filter::Filter,
    key::Key,
    progress::{GapReason, Missed},
};

/// One item as its producer sent it.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub key: u8,
    pub bytes: usize,
}

/// What a producer has sent, by epoch.
pub type History = BTreeMap<u64, Vec<Sent>>;

/// The book of one subscriber. Panics at the first entry that breaks the promise.
#[derive(Debug, Default)]
pub struct Ledger {
    epoch: u64,
    /// Everything before was delivered or reported; `None` before the first subscription.
    at: Option<u64>,
    pub delivered: u64,
    pub missed: u64,
    pub gaps: BTreeMap<&'static str, u64>,
    /// What it is still to be replayed, in order; `None` when no replay is under way or was interrupted.
    replay: Option<VecDeque<u64>>,
    /// Of an interrupted replay everything before was handed on.
    replayed: u64,
    /// It was never there before.
    fresh: bool,
    pub replays: u64,
    /// Items reported as conflated, in this epoch.
    conflated: Vec<(u64, u64)>,
    /// What it is for, if not for everything.
    filter: Option<Arc<Filter>>,
    pub filtered: u64,
}

/// What a gap may be reported for.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    pub drops: bool,
    pub conflates: bool,
    pub expires: bool,
}

impl Ledger {
    pub fn of(filter: Option<Arc<Filter>>) -> Self {
        Self { filter, ..Self::default() }
    }

    /// Whether it is for an item of the present epoch.
    fn wanted(&self, seq: u64, history: &History) -> bool {
        let key = Key::new(&[history[&self.epoch][seq as usize].key]);
        self.filter.as_ref().is_none_or(|filter| filter.admits(&key))
    }

    /// It was told that everything before `next` was filtered out.
    pub fn filtered(&mut self, next: u64, history: &History) {
        assert!(self.filter.is_some(), "told of a filter that it does not have");
        self.within(next, history);
        if let Some(replay) = &self.replay {
            assert!(replay.front().is_none_or(|owed| *owed >= next), "{replay:?} are owed, not filtered out");
            self.replayed = self.replayed.max(next);
        }
        let at = self.at.expect("subscribed");
        for seq in at..next {
            assert!(!self.wanted(seq, history), "item {seq} is wanted, and told as filtered out");
            self.filtered += 1;
        }
        self.at = Some(at.max(next));
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn at(&self) -> Option<u64> {
        self.at
    }

    /// The first subscription of all: what was before is not asked for.
    pub fn begins(&mut self, epoch: u64, next: u64) {
        (self.epoch, self.at) = (epoch, Some(next));
    }

    /// The producer has started anew: all of the new epoch is asked for.
    pub fn restarted(&mut self, epoch: u64) {
        (self.epoch, self.at) = (epoch, Some(0));
        self.conflated.clear();
    }

    /// From where on it is owed what is kept.
    pub fn wants(&self, epoch: u64) -> u64 {
        match self.at {
            Some(_) if self.epoch == epoch && self.cut_off() => self.replayed,
            Some(at) if self.epoch == epoch => at,
            _ => 0,
        }
    }

    fn cut_off(&self) -> bool {
        self.replay.is_some() && self.fresh
    }

    /// The last subscription has ended. One that was cut off in its first replay is owed all that comes behind.
    pub fn ended(&mut self) {
        if self.cut_off() {
            self.at = (self.replayed > 0).then_some(self.replayed);
        }
        self.replay = None;
        self.fresh = self.at.is_none();
    }

    /// A subscription begins: with a replay of these, or with none. After [`begins`](Self::begins) and its like.
    pub fn joined(&mut self, mut owed: VecDeque<u64>, from: u64, replay: bool, history: &History) {
        assert_eq!(!owed.is_empty(), replay, "owed is {owed:?}");
        owed.retain(|seq| self.wanted(*seq, history));
        self.replay = replay.then_some(owed);
        self.replayed = from;
    }

    /// An item of the replay was handed on.
    pub fn replayed(&mut self, seq: u64, real: (u64, u64), history: &History) {
        let owed = self.replay.as_mut().expect("a replay is under way");
        assert_eq!(owed.pop_front(), Some(seq), "replayed is not what is owed");
        self.replayed = seq + 1;
        self.replays += 1;
        if self.at.is_some_and(|at| seq < at) {
            assert_eq!(real, (self.epoch, seq), "another item is replayed as {seq}");
            self.within(seq + 1, history);
            return;
        }
        self.delivered(seq, real, history);
    }

    pub fn replay_over(&mut self, cut: u64) {
        let owed = self.replay.take().expect("a replay is under way");
        assert!(owed.is_empty(), "{owed:?} were owed and not replayed");
        assert_eq!(self.at, Some(cut), "not told of everything before the cut");
    }

    pub fn gap(&mut self, missed: Missed, allowed: Allowed, history: &History) {
        let Missed { from, to, reason } = missed;
        assert_eq!(Some(from), self.at, "a gap {missed:?} that does not begin where the last item or gap ended");
        assert!(from < to, "an empty gap {missed:?}");
        self.within(to, history);
        let owed = self.replay.iter().flatten().find(|owed| (from..to).contains(*owed));
        assert_eq!(owed, None, "a gap {missed:?} over an item that is owed");
        let told_exactly = !matches!(reason, GapReason::Reconnected | GapReason::Restarted);
        let costs = (from..to).any(|seq| self.wanted(seq, history));
        assert!(costs || !told_exactly, "a gap {missed:?} of nothing that it is for");
        let allowed = match reason {
            GapReason::Dropped => allowed.drops,
            GapReason::Conflated => allowed.conflates,
            GapReason::Expired => allowed.expires,
            GapReason::Reconnected | GapReason::Restarted => true,
            _ => false,
        };
        assert!(allowed, "a gap for a reason that cannot be: {missed:?}");
        if reason == GapReason::Conflated {
            self.conflated.push((from, to));
        }
        *self.gaps.entry(name(reason)).or_default() += 1;
        self.missed += to - from;
        self.at = Some(to);
    }

    /// An item was handed on as number `seq`, and is in truth item `real` of epoch `epoch`.
    pub fn delivered(&mut self, seq: u64, (epoch, real): (u64, u64), history: &History) {
        assert_eq!(Some(seq), self.at, "item {seq} is delivered twice, out of order, or after an untold gap");
        assert_eq!((epoch, real), (self.epoch, seq), "item {real} of epoch {epoch} is delivered as another");
        self.within(seq + 1, history);
        assert!(self.wanted(seq, history), "item {seq} is delivered, and was not asked for");
        self.delivered += 1;
        self.at = Some(seq + 1);
    }

    fn within(&self, to: u64, history: &History) {
        let produced = history.get(&self.epoch).map_or(0, Vec::len) as u64;
        assert!(to <= produced, "told of item {to} where {produced} were produced");
    }

    /// Everything has come to rest: the subscriber knows of every item, and no key's last one was conflated away.
    pub fn at_rest(&self, epoch: u64, history: &History) {
        let produced = &history[&epoch];
        assert_eq!((self.epoch, self.at), (epoch, Some(produced.len() as u64)), "not told of everything at rest");
        let last: BTreeMap<u8, u64> = (0..).zip(produced).map(|(seq, item)| (item.key, seq)).collect();
        for (key, seq) in last {
            if !self.wanted(seq, history) {
                continue;
            }
            let conflated = self.conflated.iter().any(|(from, to)| (*from..*to).contains(&seq));
            assert!(!conflated, "item {seq}, the last of key {key}, was conflated away");
        }
    }
}

fn name(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Reconnected => "reconnected",
        GapReason::Restarted => "restarted",
        GapReason::Dropped => "dropped",
        GapReason::Conflated => "conflated",
        GapReason::Expired => "expired",
        _ => "other",
    }
}
