//! What a leader knows about one follower, and how much it may send to it.

use std::collections::VecDeque;

use super::{handover::Fitness, settings::Settings, types::Index};

/// How entries reach the follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Its log is unknown: one question at a time. `asked` until an answer or the next heartbeat.
    Probe { asked: bool },
    /// It matches: entries flow without waiting, within the window.
    Replicate,
    /// It fetches from several members up to the index.
    CatchUp { target: Index },
    /// It fetches a snapshot up to the index.
    Snapshot { target: Index },
}

#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Durable there, verified against this leader's log.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    pub mode: Mode,
    /// The last heartbeat round that it answered.
    pub round: u64,
    /// When it was last heard, microseconds.
    pub heard: u64,
    /// When it was last near enough to the commit index to count as caught up, microseconds.
    pub near: u64,
    /// The last commit index that it was sent.
    pub told: Index,
    /// When `matched` last grew or sending began, microseconds.
    pub moved: u64,
    /// Nothing was acknowledged for long: one entry at a time until something is, or a follower whose disk hangs would be sent
    /// a full window again and again.
    pub cautious: bool,
    /// How fit it says that it is to lead.
    pub fitness: Fitness,
    window: VecDeque<(Index, usize)>,
    window_bytes: usize,
}

impl Progress {
    pub const fn new(next: Index, now: u64) -> Self {
        Self {
            matched: 0,
            next,
            mode: Mode::Probe { asked: false },
            round: 0,
            heard: now,
            near: now,
            told: 0,
            moved: now,
            cautious: false,
            fitness: Fitness::Unready,
            window: VecDeque::new(),
            window_bytes: 0,
        }
    }

    /// Whether another message may be under way.
    pub fn has_room(&self, settings: &Settings) -> bool {
        let most = if self.cautious { 1 } else { settings.inflight };
        self.window.len() < most && self.window_bytes < settings.inflight_bytes
    }

    pub fn is_idle(&self) -> bool {
        self.window.is_empty()
    }

    /// Entries up to `last` were sent.
    pub fn sent(&mut self, last: Index, bytes: usize, now: u64) {
        if self.window.is_empty() {
            self.moved = now;
        }
        self.window.push_back((last, bytes));
        self.window_bytes += bytes;
        self.next = last + 1;
    }

    /// The follower has everything up to `matched`. Returns whether that is news.
    pub fn acked(&mut self, matched: Index, now: u64) -> bool {
        while self.window.front().is_some_and(|(last, _)| *last <= matched) {
            if let Some((_, bytes)) = self.window.pop_front() {
                self.window_bytes -= bytes;
            }
        }
        if matched <= self.matched {
            return false;
        }
        self.matched = matched;
        self.next = self.next.max(matched + 1);
        self.moved = now;
        self.cautious = false;
        true
    }

    pub fn probe(&mut self, next: Index) {
        debug_assert!(next > self.matched);
        self.mode = Mode::Probe { asked: false };
        self.next = next;
        self.window.clear();
        self.window_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_bounded_and_freed_by_acknowledgements() {
        let settings = Settings { inflight: 2, ..Settings::default() };
        let mut progress = Progress::new(1, 0);
        progress.mode = Mode::Replicate;
        progress.sent(4, 10, 1);
        progress.sent(8, 10, 2);
        assert!(!progress.has_room(&settings));
        assert!(progress.acked(4, 3));
        assert!(progress.has_room(&settings));
        assert!(!progress.acked(4, 4), "no news");
        assert_eq!((progress.matched, progress.next), (4, 9));
    }

    #[test]
    fn a_cautious_window_holds_one_message_until_something_is_acknowledged() {
        let settings = Settings::default();
        let mut progress = Progress::new(1, 0);
        (progress.mode, progress.cautious) = (Mode::Replicate, true);
        assert!(progress.has_room(&settings));
        progress.sent(1, 10, 1);
        assert!(!progress.has_room(&settings));
        assert!(progress.acked(1, 2) && !progress.cautious && progress.has_room(&settings));
    }
}
