//! How commands of local callers become batches, and how long the notice of a commit waits for a frame that it can go with.
//!
//! One batch costs about as much as one command: an append, a write, a frame per follower, an answer. So where many callers
//! wait, giving the others a few turns of the scheduler before taking the first command saves more than it costs. A single
//! caller never waits. Pure: it counts rounds and commands, and knows no clock. Why these numbers: `docs/src/decisions.md`.

/// Callers at once from which on their commands are gathered.
const MANY_CALLERS: usize = 4;
/// Turns of the scheduler that gathering takes at most: with more the runtime's other tasks decide how long a round is.
const MAX_GATHER_TURNS: u32 = 20;
/// Rounds about something else, in a row, in which submissions are left in the queue while there are many callers: those that
/// are there would go as a small batch, and others are about to come.
const MAX_DEFERRED_ROUNDS: u32 = 8;
/// Rounds for which the notice of a commit waits for something that goes the same way: the answer to the command, or the next
/// command of the caller who was answered.
const COMMIT_NOTICE_DELAY: u32 = 3;

/// What the worker does after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Waits for something to do.
    Wait,
    /// Gives the other tasks one turn.
    Yield,
    /// Gathers a batch.
    Gather,
}

/// The batching policy of one member.
#[derive(Debug)]
pub(super) struct Batching {
    /// There are many callers at once, so more commands may be about to come.
    many_callers: bool,
    /// Rounds since submissions were taken.
    deferred_rounds: u32,
    /// Rounds for which the notice of a commit may still wait.
    notice_rounds: u32,
}

impl Batching {
    pub(super) const fn new() -> Self {
        Self { many_callers: false, deferred_rounds: 0, notice_rounds: COMMIT_NOTICE_DELAY }
    }

    /// Whether this round takes the submissions that wait.
    pub(super) const fn take_submissions(&mut self) -> bool {
        let defer = self.many_callers && self.deferred_rounds < MAX_DEFERRED_ROUNDS;
        if defer {
            self.deferred_rounds += 1;
        }
        !defer
    }

    /// Submissions were taken: so many, with so many commands in flight before them. `is_full`: some found no room, and since
    /// nothing wakes the worker for them the next round looks again.
    pub(super) const fn taken(&mut self, count: usize, in_flight: usize, is_full: bool) {
        self.deferred_rounds = if is_full { MAX_DEFERRED_ROUNDS } else { 0 };
        if count > 0 {
            self.many_callers = in_flight + count >= MANY_CALLERS;
        }
    }

    /// So many callers were answered in one round: they may all come with another command at once.
    pub(super) const fn answered(&mut self, count: usize) {
        self.many_callers |= count >= MANY_CALLERS;
    }

    /// Whether links that have nothing to send but the notice of a commit hold it back in this round.
    pub(super) const fn holds_notices(&self) -> bool {
        self.notice_rounds > 0
    }

    /// What follows the round; `is_held`: the notice of a commit is held back.
    pub(super) const fn after_round(&mut self, is_held: bool) -> Next {
        if !is_held {
            self.notice_rounds = COMMIT_NOTICE_DELAY;
            return Next::Wait;
        }
        self.notice_rounds -= 1;
        if self.notice_rounds == 0 { Next::Gather } else { Next::Yield }
    }

    /// Begins to gather a batch: the next round takes it.
    pub(super) const fn gather(&mut self) -> Gather {
        self.deferred_rounds = MAX_DEFERRED_ROUNDS;
        Gather { turns: if self.many_callers { MAX_GATHER_TURNS } else { 0 }, seen: None }
    }
}

/// A batch that is being gathered.
#[derive(Debug)]
pub(super) struct Gather {
    turns: u32,
    seen: Option<u64>,
}

impl Gather {
    /// Whether the other tasks get one more turn; `submitted`: how many commands callers have submitted so far. As long as
    /// each turn brings some.
    pub(super) fn goes_on(&mut self, submitted: u64) -> bool {
        let grows = self.seen.replace(submitted) != Some(submitted);
        let goes_on = self.turns > 0 && grows;
        self.turns = self.turns.saturating_sub(1);
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_never_waits() {
        let mut batching = Batching::new();
        for _ in 0..100 {
            assert!(batching.take_submissions());
            batching.taken(1, 0, false);
            batching.answered(1);
            assert!(!batching.gather().goes_on(1), "no turn is given away");
        }
    }

    #[test]
    fn with_many_callers_other_rounds_leave_submissions_for_a_while() {
        let mut batching = Batching::new();
        assert!(batching.take_submissions());
        batching.taken(1, MANY_CALLERS - 1, false);
        let deferred = (0..100).take_while(|_| !batching.take_submissions()).count();
        assert_eq!(deferred, MAX_DEFERRED_ROUNDS as usize);
        batching.taken(0, 0, false);
        assert!(!batching.take_submissions(), "that nothing came says nothing about how many there are");
        batching.gather();
        assert!(batching.take_submissions(), "what was gathered is taken");
        batching.taken(1, 0, false);
        assert!(batching.take_submissions(), "a single one is not many");
    }

    #[test]
    fn what_found_no_room_is_looked_at_in_the_next_round() {
        let mut batching = Batching::new();
        batching.taken(MANY_CALLERS, 0, true);
        assert!(batching.take_submissions());
        batching.taken(MANY_CALLERS, 0, false);
        assert!(!batching.take_submissions());
    }

    #[test]
    fn callers_that_were_answered_together_are_many() {
        let mut batching = Batching::new();
        batching.answered(MANY_CALLERS - 1);
        assert!(batching.take_submissions());
        batching.answered(MANY_CALLERS);
        assert!(!batching.take_submissions());
    }

    #[test]
    fn a_batch_is_gathered_while_it_grows_and_not_for_ever() {
        let mut batching = Batching::new();
        batching.taken(MANY_CALLERS, 0, false);
        let mut gather = batching.gather();
        assert!(gather.goes_on(1) && gather.goes_on(2) && !gather.goes_on(2), "it ends when a turn brings nothing");
        let mut gather = batching.gather();
        assert_eq!((0..1_000).take_while(|submitted| gather.goes_on(*submitted)).count(), MAX_GATHER_TURNS as usize);
    }

    #[test]
    fn a_notice_waits_for_some_rounds_and_the_last_of_them_gathers() {
        let mut batching = Batching::new();
        for _ in 1..COMMIT_NOTICE_DELAY {
            assert!(batching.holds_notices());
            assert_eq!(batching.after_round(true), Next::Yield);
        }
        assert!(batching.holds_notices());
        assert_eq!(batching.after_round(true), Next::Gather);
        assert!(!batching.holds_notices(), "it goes with the next round whatever else does");
        assert_eq!(batching.after_round(false), Next::Wait);
        assert!(batching.holds_notices(), "the next notice waits again");
    }
}
