//! Who waits for an entry of the log: the caller of its command, or of each of several that came at the same time.

use bytes::Bytes;

use super::{
    bundle,
    session::{Event, Failure},
};
use crate::groups::raft::Index;

/// Names a caller; the driver chooses it, and may use it again once it was answered.
pub type CallId = usize;

/// What a caller wants done.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who.
    pub id: CallId,
    /// One or several encoded commands ([`bundle`]).
    pub body: Bytes,
    /// Microseconds of the driver's monotonic clock: when it waits no longer.
    pub deadline: u64,
    /// It is answered only when the local machine has applied its command, too.
    pub strong: bool,
    /// It goes on when its caller does not wait any more.
    pub detached: bool,
    /// It wants to know when a leader has it in its log.
    pub ack_on_append: bool,
}

/// A caller of a body in flight.
#[derive(Debug)]
pub(super) struct Caller {
    pub id: CallId,
    deadline: u64,
    pub strong: bool,
    detached: bool,
    ack_on_append: bool,
    /// How many commands, and how many bytes they take.
    pub weight: (usize, usize),
}

impl Caller {
    /// Whether it waits no longer: it is past its time, or has gone.
    pub fn is_late(&self, now: u64, is_gone: &impl Fn(CallId) -> bool) -> bool {
        self.deadline <= now || (!self.detached && is_gone(self.id))
    }
}

/// A body with a number.
#[derive(Debug)]
pub(super) struct Pending {
    pub body: Bytes,
    /// Group time of the first attempt, milliseconds.
    pub attempted: u64,
    /// A single one for the whole body, or one for each of its commands. `None`: it waits no longer.
    pub callers: Vec<Option<Caller>>,
    /// Batches with it that have not been answered.
    pub in_flight: u32,
    /// It may be in a leader's log.
    pub maybe_logged: bool,
    /// How often it was sent.
    pub sends: u32,
    /// The leader has applied it here, but its output was too long for the response.
    pub elsewhere: Option<Index>,
    /// The group has said that its session has ended.
    pub ended: bool,
}

impl Pending {
    /// Whether what becomes of it is not in the hands of its session alone.
    pub const fn is_out(&self) -> bool {
        self.maybe_logged || self.in_flight > 0
    }

    pub fn wants_ack(&self) -> bool {
        self.callers.iter().flatten().any(|caller| caller.ack_on_append)
    }

    /// Says to all who want to know that it is in the leader's log.
    pub fn appended(&mut self, events: &mut Vec<Event>) {
        for caller in self.callers.iter_mut().flatten() {
            if std::mem::take(&mut caller.ack_on_append) {
                events.push(Event::Appended(caller.id));
            }
        }
    }

    /// Takes out who does not wait any more. Unless it is out, their commands go, too.
    pub fn late(&mut self, now: u64, is_gone: &impl Fn(CallId) -> bool) -> Vec<Caller> {
        let late: Vec<_> = self.callers.iter_mut().filter_map(|it| it.take_if(|it| it.is_late(now, is_gone))).collect();
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
    pub fn answers(
        self,
        index: Index,
        output: &Bytes,
    ) -> impl Iterator<Item = (Caller, Result<(Index, Bytes), Failure>)> {
        // A single caller may have sent several commands: it takes all outputs.
        let whole = (self.callers.len() == 1).then(|| output.clone());
        let mut parts = bundle::outputs(output, self.callers.len());
        let answers = self.callers.into_iter().map(move |caller| {
            let output = whole.clone().or_else(|| parts.next().flatten());
            (caller, output.map(|output| (index, output)).ok_or(Failure::OutputMissing))
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
    pub fn add(&mut self, call: Call) -> Option<Pending> {
        let Call { id, body, deadline, strong, detached, ack_on_append } = call;
        let weight = (bundle::count(&body), body.len());
        let caller = Caller { id, deadline, strong, detached, ack_on_append, weight };
        let present = if self.joined.is_empty() { &*self.body } else { &*self.joined };
        if !self.callers.is_empty() && self.callers.len() == bundle::count(present) && bundle::joins(present, &body) {
            if self.joined.is_empty() {
                self.joined.extend_from_slice(&self.body);
            }
            bundle::join(&mut self.joined, &body);
            self.callers.push(Some(caller));
            return None;
        }
        let done = self.done();
        (self.body, self.callers) = (body, vec![Some(caller)]);
        done
    }

    /// The body with what came since the last one.
    pub fn done(&mut self) -> Option<Pending> {
        let Self { body, joined, callers } = std::mem::take(self);
        let body = if joined.is_empty() { body } else { joined.into() };
        let fresh = Pending {
            body,
            attempted: 0,
            callers,
            in_flight: 0,
            maybe_logged: false,
            sends: 0,
            elsewhere: None,
            ended: false,
        };
        (!fresh.callers.is_empty()).then_some(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::codec::Format;

    fn call(id: CallId, command: &[u8], deadline: u64) -> Call {
        let body = [&[1], command].concat().into();
        Call { id, body, deadline, strong: false, detached: false, ack_on_append: false }
    }

    /// Three commands in one body, the second of which has no time left at 10.
    fn three() -> Pending {
        let mut joining = Joining::default();
        for (id, command, deadline) in [(0, b"one", 99), (1, b"two", 10), (2, b"six", 99)] {
            assert!(joining.add(call(id, command, deadline)).is_none(), "they go together");
        }
        joining.done().expect("something was added")
    }

    fn commands(pending: &Pending) -> Vec<&[u8]> {
        bundle::commands(&pending.body).map(|command| command.expect("a sound body").1).collect()
    }

    #[test]
    fn each_caller_gets_its_own_output() {
        let pending = three();
        assert_eq!(commands(&pending), [b"one", b"two", b"six"]);
        let mut outputs = Vec::new();
        for byte in [1, 5, 6] {
            let write = |out: &mut Vec<u8>| {
                out.push(byte);
                Format::Postcard
            };
            bundle::append_output(write, &mut outputs);
        }
        let outputs = Bytes::from(outputs);
        let expected: Vec<_> =
            bundle::outputs(&outputs, 3).map(|output| Ok((9, output.expect("all are there")))).collect();
        let answers: Vec<_> = pending.answers(9, &outputs).map(|(caller, answer)| (caller.id, answer)).collect();
        assert_eq!(answers, (0..).zip(expected).collect::<Vec<_>>());
        let short = three().answers(9, &Bytes::new()).map(|(_, answer)| answer).collect::<Vec<_>>();
        assert_eq!(short, [const { Err(Failure::OutputMissing) }; 3]);
    }

    #[test]
    fn who_is_late_takes_the_command_along_unless_that_may_be_in_a_log() {
        let (mut inside, here) = (three(), |_| false);
        assert_eq!(inside.late(10, &here).len(), 1);
        assert_eq!(commands(&inside), [b"one", b"six"]);
        assert_eq!(inside.callers.len(), 2);
        let mut out = three();
        out.in_flight = 1;
        assert_eq!(out.late(10, &here).len(), 1);
        assert_eq!(commands(&out), [b"one", b"two", b"six"], "what may be in a log is not changed");
        assert_eq!(out.callers.iter().filter(|caller| caller.is_some()).count(), 2);
    }

    #[test]
    fn a_body_of_several_is_not_added_to() {
        let several = Call { body: Bytes::from_static(&[2, 2, 7, 2, 8]), ..call(0, b"", 9) };
        let mut joining = Joining::default();
        assert!(joining.add(several).is_none());
        let first = joining.add(call(1, b"x", 9)).expect("complete");
        assert_eq!((first.callers.len(), bundle::count(&first.body)), (1, 2), "its caller takes all outputs in one");
        assert_eq!(joining.done().map(|pending| pending.body), Some(Bytes::from_static(b"\x01x")));
    }
}
