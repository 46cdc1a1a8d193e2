//! Exactly once: the replicated table of client sessions, part of the state that every machine and snapshot carries.
//!
//! A pure value: every member that applies the same entries has the same table. Time here is the group time in the
//! entries, never a local clock.
//!
//! A session is named by its id *and* the index of the entry that opened it. A command carries both. So a session that
//! has ended never comes back under its old name, whatever is delivered late, and needs no tombstone: a command whose
//! session is not in the table belongs to one that has ended.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Command, Index, Mutant, SessionId, Switch};

/// What to do with a command that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Apply it, then `record` its output.
    Apply,
    /// It was applied before; this was its output.
    Duplicate(Bytes),
    /// Its first attempt is older than the table reaches back: whether it was applied cannot be known.
    Expired,
    /// Its number is below the session's window: it was settled long ago. Not applied.
    Settled,
    /// Its session has ended. Not applied now; whether an earlier copy was is not known here.
    Ended,
    /// The number is too far ahead of the window. Not applied.
    TooFar,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    /// Index of the entry that opened it.
    opened: Index,
    /// Group time of its last command, milliseconds.
    used: u64,
    /// Numbers below are settled.
    low: u64,
    /// Outputs by number.
    outputs: BTreeMap<u64, (Index, Bytes)>,
}

/// The table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    /// Sessions at most; beyond it new ones are refused, never old ones evicted early.
    cap: usize,
    /// Milliseconds of group time after which an unused session ends.
    retention: u64,
    /// Outputs kept per session.
    window: u64,
    /// Highest group time seen, milliseconds.
    time: u64,
}

impl Sessions {
    /// An empty table. All members of a group must agree on the limits.
    #[must_use]
    pub const fn new(cap: usize, retention: u64, window: u64) -> Self {
        Self { sessions: BTreeMap::new(), cap, retention, window, time: 0 }
    }

    /// Group time moves on. Ended sessions are dropped now and then, by a rule that depends on the log alone, so that a
    /// full table costs nothing for each command; whether one has ended is asked where it matters.
    fn advance(&mut self, time: u64) {
        let before = self.time;
        self.time = before.max(time);
        let period = (self.retention / 16).max(1);
        if before / period != self.time / period {
            self.purge();
        }
    }

    fn purge(&mut self) {
        let (now, retention) = (self.time, self.retention);
        self.sessions.retain(|_, session| now <= session.used.saturating_add(retention));
    }

    /// Drops the session if it has ended.
    fn end(&mut self, id: SessionId) {
        let ended = |session: &Session| self.time > session.used.saturating_add(self.retention);
        if self.sessions.get(&id).is_some_and(ended) {
            self.sessions.remove(&id);
        }
    }

    /// The entry at `index` opens a session at group time `time`. Returns where it was opened, which is earlier if this is a
    /// repetition; none if the table is full: the session does not exist then.
    pub fn open(&mut self, id: SessionId, index: Index, time: u64, switch: Switch) -> Option<Index> {
        self.advance(time);
        self.end(id);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.used = self.time;
            return Some(session.opened);
        }
        if self.sessions.len() >= self.cap {
            self.purge();
        }
        if self.sessions.len() >= self.cap {
            if !switch.is(Mutant::SessionEvictedEarly) {
                return None;
            }
            self.sessions.pop_first();
        }
        self.sessions.insert(id, Session { opened: index, used: self.time, low: 1, outputs: BTreeMap::new() });
        Some(index)
    }

    /// A command was committed at group time `time`.
    pub fn admit(&mut self, command: &Command, time: u64, switch: Switch) -> Verdict {
        self.advance(time);
        self.end(command.session);
        if command.attempted.saturating_add(self.retention) < self.time {
            return Verdict::Expired;
        }
        if switch.is(Mutant::SessionEvictedEarly) && !self.sessions.contains_key(&command.session) {
            self.open(command.session, command.opened, time, switch);
        }
        let lives =
            |session: &&mut Session| session.opened == command.opened || switch.is(Mutant::SessionNamedByIdAlone);
        let Some(session) = self.sessions.get_mut(&command.session).filter(lives) else { return Verdict::Ended };
        session.used = self.time;
        if command.settled > session.low {
            session.low = command.settled;
            session.outputs = session.outputs.split_off(&command.settled);
        }
        if command.sequence < session.low {
            return Verdict::Settled;
        }
        if let Some((_, output)) = session.outputs.get(&command.sequence) {
            return Verdict::Duplicate(output.clone());
        }
        if command.sequence >= session.low + self.window {
            return Verdict::TooFar;
        }
        Verdict::Apply
    }

    /// The output of a command that was admitted for application at `index`.
    pub fn record(&mut self, command: &Command, index: Index, output: Bytes) {
        if let Some(session) = self.sessions.get_mut(&command.session) {
            let before = session.outputs.insert(command.sequence, (index, output));
            assert!(before.is_none(), "a command is applied once");
        }
    }

    /// Sessions in the table; some may have ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Switch = Switch::NONE;

    fn command(session: u128, sequence: u64, settled: u64, attempted: u64) -> Command {
        Command { session: SessionId(session), opened: 1, sequence, settled, attempted, body: Bytes::new() }
    }

    #[test]
    fn a_retry_gets_the_first_output() {
        let mut table = Sessions::new(10, 1000, 8);
        assert_eq!(table.open(SessionId(1), 1, 0, NONE), Some(1));
        let first = command(1, 1, 1, 0);
        assert_eq!(table.admit(&first, 1, NONE), Verdict::Apply);
        table.record(&first, 5, Bytes::from_static(b"out"));
        assert_eq!(table.admit(&first, 2, NONE), Verdict::Duplicate(Bytes::from_static(b"out")));
        assert_eq!(table.admit(&command(1, 2, 2, 2), 3, NONE), Verdict::Apply);
        assert_eq!(table.admit(&first, 4, NONE), Verdict::Settled);
    }

    #[test]
    fn a_full_table_refuses_and_never_evicts_early() {
        let mut table = Sessions::new(1, 1000, 8);
        assert_eq!(table.open(SessionId(1), 1, 0, NONE), Some(1));
        assert_eq!(table.open(SessionId(2), 2, 1000, NONE), None);
        assert_eq!(table.open(SessionId(2), 3, 1001, NONE), Some(3), "the first has expired by group time");
        assert_eq!(table.admit(&command(1, 1, 1, 1000), 1001, NONE), Verdict::Ended);
    }

    #[test]
    fn a_session_that_has_ended_does_not_come_back_under_its_name() {
        let mut table = Sessions::new(4, 1000, 8);
        assert_eq!(table.open(SessionId(1), 1, 0, NONE), Some(1));
        let first = command(1, 1, 1, 0);
        assert_eq!(table.admit(&first, 1, NONE), Verdict::Apply);
        table.record(&first, 2, Bytes::from_static(b"out"));
        assert_eq!(table.open(SessionId(1), 3, 900, NONE), Some(1), "a repetition of what opened it");
        assert_eq!(table.open(SessionId(1), 4, 5000, NONE), Some(4), "opened anew, empty");
        assert_eq!(table.admit(&Command { attempted: 5000, ..first }, 5000, NONE), Verdict::Ended);
        let second = Command { opened: 4, ..command(1, 1, 1, 5000) };
        assert_eq!(table.admit(&second, 5000, NONE), Verdict::Apply);
    }

    /// To the millisecond, although ended sessions are swept now and then only: or two members that sweep at different entries, as
    /// after a snapshot, would judge one command differently.
    #[test]
    fn a_session_ends_when_it_ends() {
        for (time, verdict) in [(2000, Verdict::Apply), (2001, Verdict::Ended)] {
            let mut table = Sessions::new(4, 2000, 8);
            assert_eq!(table.open(SessionId(1), 1, 0, NONE), Some(1));
            assert_eq!(table.open(SessionId(2), 2, 2000, NONE), Some(2), "swept here, when the first has not ended");
            assert_eq!(table.admit(&command(1, 1, 1, time), time, NONE), verdict, "at {time}");
        }
    }

    #[test]
    fn an_old_attempt_is_expired_and_a_far_number_is_not_applied() {
        let mut table = Sessions::new(2, 1000, 8);
        assert_eq!(table.open(SessionId(1), 1, 5000, NONE), Some(1));
        assert_eq!(table.admit(&command(1, 1, 1, 3999), 5000, NONE), Verdict::Expired);
        assert_eq!(table.admit(&command(1, 1, 1, 4000), 5000, NONE), Verdict::Apply);
        assert_eq!(table.admit(&command(1, 9, 1, 5000), 5000, NONE), Verdict::TooFar);
        assert_eq!(table.admit(&command(1, 8, 1, 5000), 5000, NONE), Verdict::Apply);
    }

    /// Sixteen times in a retention, at times that the log alone decides.
    #[test]
    fn sessions_that_ended_are_swept_now_and_then() {
        let mut table = Sessions::new(10, 1600, 8);
        assert!(table.is_empty());
        let mut open = |id, time| {
            assert_eq!(table.open(SessionId(id), 1, time, NONE), Some(1));
            (table.len(), table.is_empty())
        };
        assert_eq!(open(1, 0), (1, false));
        assert_eq!(open(2, 1600), (2, false), "the first has not ended");
        assert_eq!(open(3, 1699), (3, false), "it has, and is not swept yet");
        assert_eq!(open(4, 1700), (3, false), "swept");
    }
}
