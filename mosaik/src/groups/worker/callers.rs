//! Who waits for an entry of the log: the caller of its command, or of each of several that came at the same time.

use std::time::Duration;

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};

use super::queue::{Answer, Slot, Submission};
use crate::groups::{bundle, error::CallError, raft::Index};

/// One call, or one body of a call of many commands.
#[derive(Debug)]
pub(super) struct Caller {
    pub deadline: Instant,
    pub timeout: Duration,
    pub strong: bool,
    pub queued: Option<oneshot::Sender<()>>,
    /// It goes on when its caller does not wait any more.
    pub fed: bool,
    /// How many commands, and how many bytes they take.
    pub weight: (usize, usize),
    pub answer: Slot,
}

impl Caller {
    /// Whether it waits no longer: it is past its time, or has gone.
    pub fn is_late(&self, now: Instant) -> bool {
        self.deadline <= now || (self.answer.is_closed() && !self.fed)
    }
}

/// A body under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub body: Bytes,
    pub attempted: u64,
    /// A single one for the whole body, or one for each of its commands. `None`: it waits no longer.
    pub callers: Vec<Option<Caller>>,
    /// Batches with it that have not been answered.
    pub flying: u32,
    /// It may be in a leader's log.
    pub unsure: bool,
    /// How often it was sent.
    pub sends: u32,
    /// The leader has applied it here, but its output was too long for the reply.
    pub elsewhere: Option<Index>,
}

impl Pending {
    /// Whether what becomes of it is not in the hands of its client alone.
    pub const fn is_out(&self) -> bool {
        self.unsure || self.flying > 0
    }

    pub fn is_hasty(&self) -> bool {
        self.callers.iter().flatten().any(|caller| caller.queued.is_some())
    }

    /// Says to all who want to know that it is in the leader's log.
    pub fn queued(&mut self) {
        for queued in self.callers.iter_mut().flatten().filter_map(|caller| caller.queued.take()) {
            // The caller may have gone.
            let _ = queued.send(());
        }
    }

    /// Takes out who does not wait any more. Unless it is out, their commands go, too.
    pub fn late(&mut self, now: Instant) -> Vec<Caller> {
        let late: Vec<_> = self.callers.iter_mut().filter_map(|it| it.take_if(|it| it.is_late(now))).collect();
        if !late.is_empty()
            && !self.is_out()
            && let Some(rest) = bundle::without(&self.body, |at| self.callers.get(at).is_some_and(Option::is_some))
        {
            self.body = rest;
            self.callers.retain(Option::is_some);
        }
        late
    }

    pub fn is_forgotten(&self) -> bool {
        self.callers.iter().all(Option::is_none)
    }

    /// Each caller with its part of the output.
    pub fn answers(self, index: Index, output: &Bytes) -> impl Iterator<Item = (Caller, Answer)> {
        let mut outputs = bundle::outputs(output, self.callers.len());
        let answers = self.callers.into_iter().map(move |caller| {
            let answer = match outputs.next().flatten() {
                Some(Some(output)) => Ok((index, output)),
                Some(None) => Err(CallError::Undecodable),
                None => Err(CallError::UndecodableOutput("it is missing".to_owned())),
            };
            (caller, answer)
        });
        answers.filter_map(|(caller, answer)| Some((caller?, answer)))
    }
}

/// Makes bodies of what callers submit: short commands that came at the same time go together.
#[derive(Debug, Default)]
pub(super) struct Joining {
    body: Bytes,
    /// Instead of the body, once it has several commands.
    joined: Vec<u8>,
    callers: Vec<Option<Caller>>,
}

impl Joining {
    /// Takes a command. Returns the body before it if that is complete.
    pub fn add(&mut self, submission: Submission, wall: u64) -> Option<Pending> {
        let Submission { body, strong, deadline, timeout, answer, queued } = submission;
        let weight = (bundle::count(&body), body.len());
        let caller = Caller { deadline, timeout, strong, fed: queued.is_some(), queued, weight, answer };
        let present = if self.joined.is_empty() { &*self.body } else { &*self.joined };
        if !self.callers.is_empty() && self.callers.len() == bundle::count(present) && bundle::joins(present, &body) {
            if self.joined.is_empty() {
                self.joined.extend_from_slice(&self.body);
            }
            bundle::join(&mut self.joined, &body);
            self.callers.push(Some(caller));
            return None;
        }
        let done = self.done(wall);
        (self.body, self.callers) = (body, vec![Some(caller)]);
        done
    }

    /// The body with what came since the last one. `wall` is the wall clock in milliseconds.
    pub fn done(&mut self, wall: u64) -> Option<Pending> {
        let Self { body, joined, callers } = std::mem::take(self);
        let body = if joined.is_empty() { body } else { joined.into() };
        let fresh = Pending { body, attempted: wall, callers, flying: 0, unsure: false, sends: 0, elsewhere: None };
        (!fresh.callers.is_empty()).then_some(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(command: &[u8], until: Instant) -> (Submission, oneshot::Receiver<Answer>) {
        let (sender, answer) = oneshot::channel();
        let body = [&[1], command].concat().into();
        let (timeout, answering) = (Duration::from_secs(1), Slot::One(sender));
        (Submission { body, strong: false, deadline: until, timeout, answer: answering, queued: None }, answer)
    }

    /// Three commands in one body, the second of which has no time left at the end.
    fn three() -> (Pending, Vec<oneshot::Receiver<Answer>>, Instant) {
        let soon = Instant::now();
        let later = soon + Duration::from_mins(1);
        let mut joining = Joining::default();
        let mut receivers = Vec::new();
        for (command, until) in [(b"one", later), (b"two", soon), (b"six", later)] {
            let (submission, receiver) = submission(command, until);
            assert!(joining.add(submission, 7).is_none(), "they go together");
            receivers.push(receiver);
        }
        (joining.done(7).expect("something was added"), receivers, soon)
    }

    fn commands(pending: &Pending) -> Vec<&[u8]> {
        bundle::commands(&pending.body).map(|command| command.expect("a sound body")).collect()
    }

    #[tokio::test]
    async fn each_caller_gets_its_own_output() {
        let (pending, receivers, _) = three();
        assert_eq!(commands(&pending), [b"one", b"two", b"six"]);
        let mut outputs = Vec::new();
        bundle::append_output(Some(&1_u8), &mut outputs);
        bundle::append_output(None::<&u8>, &mut outputs);
        bundle::append_output(Some(&6_u8), &mut outputs);
        for (caller, answer) in pending.answers(9, &outputs.into()) {
            caller.answer.send(answer);
        }
        let mut seen = Vec::new();
        for receiver in receivers {
            seen.push(receiver.await.expect("answered").map(|(index, output)| (index, output.to_vec())).ok());
        }
        assert_eq!(seen, [Some((9, vec![1])), None, Some((9, vec![6]))]);
    }

    #[test]
    fn who_is_late_takes_the_command_along_unless_that_may_be_in_a_log() {
        let (mut inside, _receivers, now) = three();
        assert_eq!(inside.late(now).len(), 1);
        assert_eq!(commands(&inside), [b"one", b"six"]);
        assert_eq!(inside.callers.len(), 2);
        let (mut out, _receivers, now) = three();
        out.flying = 1;
        assert_eq!(out.late(now).len(), 1);
        assert_eq!(commands(&out), [b"one", b"two", b"six"], "what may be in a log is not changed");
        assert_eq!(out.callers.iter().filter(|caller| caller.is_some()).count(), 2);
    }

    #[test]
    fn a_body_of_several_is_not_added_to() {
        let (mut several, _several) = submission(b"", Instant::now());
        several.body = Bytes::from_static(&[2, 1, 7, 1, 8]);
        let (single, _single) = submission(b"x", Instant::now());
        let mut joining = Joining::default();
        assert!(joining.add(several, 1).is_none());
        let first = joining.add(single, 1).expect("complete");
        assert_eq!((first.callers.len(), bundle::count(&first.body)), (1, 2), "its caller takes all outputs in one");
        assert_eq!(joining.done(1).map(|pending| pending.body), Some(Bytes::from_static(b"\x01x")));
    }
}
