//! What is remembered of members' storages: told to the bonds with every heartbeat and stored once a second at most.

use std::time::Duration;

use tokio::time::Instant;

use super::{Unbonded, Worker};
use crate::groups::raft::{Start, Token, Write};

/// How often what has changed is stored: what a member has witnessed in the last second may be forgotten with it.
const STORE_EVERY: Duration = Duration::from_secs(1);
/// A member that somebody has been bonded to for so long is not taken for an older copy on the word of another one.
const ACCEPTED: Duration = Duration::from_secs(30);
/// Bits of a storage's token that number the batches between two of the core.
const BITS: u32 = 16;

/// Numbers the batches of the core and those of the worker itself in one sequence, so that the core's can be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens {
    last: Token,
}

impl Tokens {
    /// After the batch with which a start begins.
    pub const fn after_start() -> Self {
        Self { last: START }
    }

    /// For a batch of the core.
    pub fn core(&mut self, token: Token) -> Token {
        self.last = token << BITS;
        self.last
    }

    /// For a batch of the worker; none when there were too many since the last one of the core.
    fn own(&mut self) -> Option<Token> {
        let next = self.last + 1;
        (next >> BITS == self.last >> BITS).then(|| {
            self.last = next;
            next
        })
    }

    /// The core's last batch of those up to this one.
    pub const fn of_core(token: Token) -> Token {
        token >> BITS
    }
}

/// The batch with which each start begins.
const START: Token = 1;

/// What the worker knows of its marks.
#[derive(Debug)]
pub(super) struct Marking {
    start: Start,
    tokens: Tokens,
    /// The version that was stored last, and when the next one may be.
    stored: u64,
    next: Instant,
    /// The worker's own batch that storage has not answered, and since when.
    writing: Option<(Token, Instant)>,
    /// Whether the start is durable, so that others may hear of it.
    begun: bool,
    /// Since when somebody has been bonded without a pause.
    accepted: Option<Instant>,
}

impl Marking {
    pub const fn new(start: Start, now: Instant) -> Self {
        let tokens = Tokens::after_start();
        Self { start, tokens, stored: 0, next: now, writing: None, begun: false, accepted: None }
    }

    /// For a batch of the core.
    pub fn core(&mut self, token: Token) -> Token {
        self.tokens.core(token)
    }

    /// Whether storage owes an answer to the worker itself.
    pub const fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// For how long storage has kept the start from being heard of, if it does.
    pub fn waits_for_start(&self) -> Option<Duration> {
        self.writing.filter(|_| !self.begun).map(|(_, since)| since.elapsed())
    }
}

impl Worker {
    /// Makes this start durable. The first one of an incarnation may be heard of before: until that is durable, nothing of
    /// the incarnation is, and the next start is another one. Later ones may not: the next start would have the same number.
    pub(super) fn begin_start(&mut self) {
        let Marking { start, .. } = self.marking;
        if start.number > 0 {
            let (marks, version) = self.bonds.marks(start);
            self.storage.submit(START, vec![Write::Marks(marks)]);
            (self.marking.stored, self.marking.writing) = (version, Some((START, Instant::now())));
        }
        if start.number <= 1 {
            self.open();
        }
    }

    fn open(&mut self) {
        self.marking.begun = true;
        self.bonds.open();
    }

    /// Storage has answered all batches up to this one.
    pub(super) fn marks_durable(&mut self, token: Token) {
        if self.marking.writing.is_some_and(|(own, _)| own <= token) {
            self.marking.writing = None;
        }
        if !self.marking.begun {
            self.open();
        }
    }

    /// Tells how far this member and those that it leads are durable, and stores what has changed, not too often.
    pub(super) fn mark(&mut self, now: Instant) {
        self.note_marks();
        let bonded = !self.bonds.watch().borrow().is_empty();
        self.marking.accepted = if bonded { self.marking.accepted.or(Some(now)) } else { None };
        if now >= self.marking.next {
            self.marking.next = now + STORE_EVERY;
            self.store_marks();
        }
    }

    /// As far as it is durable now.
    pub(super) fn note_marks(&self) {
        if let Some(extent) = self.raft.extent() {
            self.bonds.set_extent(extent);
        }
        self.bonds.acknowledged(self.raft.acknowledged());
    }

    pub(super) fn store_marks(&mut self) {
        // One batch at a time: a storage that hangs is not given more and more of them.
        if self.settings.volatile || self.wiping || self.marking.is_writing() {
            return;
        }
        if self.bonds.marks_version() == self.marking.stored {
            return;
        }
        if let Some(token) = self.marking.tokens.own() {
            let (marks, version) = self.bonds.marks(self.marking.start);
            self.storage.submit(token, vec![Write::Marks(marks)]);
            (self.marking.stored, self.marking.writing) = (version, Some((token, Instant::now())));
        }
    }

    /// Whether others refuse this storage for good: they know a later incarnation of it, a later start, or more of its log.
    /// (A copy of a storage that another process is running on is refused in another way, and left alone.) A member that
    /// others have accepted for long goes on: who refuses it has met a copy of it first.
    pub(super) fn is_refused_as_old(&self, now: Instant) -> bool {
        if self.marking.accepted.is_some_and(|since| now.duration_since(since) > ACCEPTED) {
            return false;
        }
        self.bonds.refusals().iter().any(|it| {
            let old = matches!(it.reason, Unbonded::OldIncarnation | Unbonded::OlderCopy);
            let here = old && it.by_peer && it.at > self.epoch;
            if here && self.cluster.is_some() {
                tracing::warn!(
                    group = ?self.board.group(), by = ?it.peer, reason = %it.reason,
                    "the local storage is not what it was: it is discarded, and this member joins as a new incarnation",
                );
            }
            here
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_grow_and_tell_the_batches_of_the_core() {
        let mut tokens = Tokens::after_start();
        assert_eq!((tokens.last, Tokens::of_core(tokens.last)), (START, 0));
        let own = tokens.own().expect("room");
        assert!(own > START && Tokens::of_core(own) == 0);
        let core = tokens.core(1);
        assert!(core > own && Tokens::of_core(core) == 1);
        let own = tokens.own().expect("room");
        assert!(own > core && Tokens::of_core(own) == 1, "it stands for the core's batch before it");
        let next = tokens.core(2);
        assert!(next > own && tokens.last == next);
        while tokens.own().is_some() {}
        assert!(tokens.last < tokens.core(3), "the core's next batch always has a number");
    }
}
