//! What waits to be written to one member: bounded, in three classes.
//!
//! Small consensus messages, heartbeats and control go first; calls and replies share what is left with bulk (entries and
//! snapshot chunks). The order inside of a class is kept. What does not fit is refused: the core sends again, a caller is
//! told. Consensus messages may overtake each other: the core's simulator reorders them all the time.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    super::raft::{ClusterId, Envelope, Index, Message, Term},
    wire::Frame,
};

/// Frames and bytes that may wait, by class. Bulk is what the core keeps under way to one follower, and half as much again.
const LIMITS: [(usize, usize); CLASSES] = [(4096, 4 << 20), (8192, 32 << 20), (1024, 24 << 20)];
const CLASSES: usize = 3;
/// Bytes of calls, and of bulk, in one batch: what is urgent waits no longer than for these.
const SHARE: usize = 128 << 10;

/// The class of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Urgent,
    Calls,
    Bulk,
}

impl Class {
    fn of(frame: &Frame) -> Self {
        match frame {
            Frame::Call { .. } | Frame::Reply { .. } | Frame::Dropped { .. } => Self::Calls,
            Frame::Raft(envelope) => match &envelope.body {
                Message::Append { entries, .. } if !entries.is_empty() => Self::Bulk,
                Message::Pulled { .. } | Message::Chunk { .. } | Message::Offer { .. } => Self::Bulk,
                _ => Self::Urgent,
            },
            _ => Self::Urgent,
        }
    }
}

/// About how many bytes a frame is on the wire.
fn size(frame: &Frame) -> usize {
    const SMALL: usize = 64;
    match frame {
        Frame::Call { body, .. } | Frame::Reply { body, .. } => SMALL + body.len(),
        Frame::Raft(envelope) => match &envelope.body {
            Message::Append { entries, .. } | Message::Pulled { entries, .. } => {
                SMALL + entries.iter().map(|entry| SMALL + entry.payload.size()).sum::<usize>()
            }
            Message::Chunk { data, .. } => SMALL + data.len(),
            Message::Offer { manifest, .. } => 16 * SMALL + manifest.chunks.len() * 32,
            _ => 2 * SMALL,
        },
        Frame::Marks(marks) => SMALL * (1 + 2 * marks.len()),
        Frame::Gossip(entries) => entries.iter().map(|entry| entry.len() + SMALL).sum(),
        _ => SMALL,
    }
}

/// Whether an acknowledgement says what the one before it says, and more: then that says it, too. The first one answers
/// what was asked, the next one only that it has become durable.
fn merges(last: &mut Frame, next: &Frame) -> bool {
    let (Frame::Raft(last), Frame::Raft(next)) = (last, next) else { return false };
    if (last.cluster, last.term) != (next.cluster, next.term) {
        return false;
    }
    match (&mut last.body, &next.body) {
        (
            Message::AppendReply { matched, conflict: None, fitness, .. },
            Message::AppendReply { matched: more, asked: None, conflict: None, round: 0, fitness: newer, .. },
        ) if *more >= *matched => {
            (*matched, *fitness) = (*more, *newer);
            true
        }
        (
            Message::Append { previous, entries, commit, round: 0, .. },
            Message::Append { previous: now, entries: none, commit: newer, round: 0, .. },
        ) if entries.is_empty() && none.is_empty() && *newer >= *commit => {
            (*previous, *commit) = (*now, *newer);
            true
        }
        _ => false,
    }
}

/// Of a frame that does nothing but tell of a commit: in which cluster and term, and how far.
fn tells_commit(frame: &Frame) -> Option<(Option<ClusterId>, Term, Index)> {
    match frame {
        Frame::Raft(Envelope { cluster, term, body: Message::Append { entries, commit, round: 0, .. }, .. })
            if entries.is_empty() =>
        {
            Some((*cluster, *term, *commit))
        }
        _ => None,
    }
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Notify,
}

/// What is in the queue and the writer has not been woken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Unflushed {
    #[default]
    Nothing,
    /// Only what tells of commits.
    Commits,
    Something,
}

#[derive(Debug, Default)]
struct State {
    classes: [VecDeque<(usize, Frame)>; CLASSES],
    bytes: [usize; CLASSES],
    unflushed: Unflushed,
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame to be written now. Never blocks. A frame may go over the limit of bytes if nothing of its class waits.
    pub(super) fn push(&self, frame: Frame) -> Result<(), Refused> {
        self.add(frame)?;
        self.flush(false);
        Ok(())
    }

    /// Has what is in the queue written. `hold_commits`: unless that is nothing but notices of commits, which may go with
    /// something else soon; then true.
    pub(super) fn flush(&self, hold_commits: bool) -> bool {
        let unflushed = {
            let mut state = self.state();
            if hold_commits && state.unflushed == Unflushed::Commits {
                return true;
            }
            std::mem::take(&mut state.unflushed)
        };
        if unflushed != Unflushed::Nothing {
            self.filled.notify_one();
        }
        false
    }

    /// Takes a frame to be written with the next [`flush`](Self::flush) at the latest.
    pub(super) fn add(&self, frame: Frame) -> Result<(), Refused> {
        let (class, size) = (Class::of(&frame) as usize, size(&frame));
        let mut state = self.state();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.classes[Class::Urgent as usize].back_mut().is_some_and(|(_, last)| merges(last, &frame)) {
            return Ok(());
        }
        let is_notice = tells_commit(&frame).is_some();
        let (items, bytes) = LIMITS[class];
        let waiting = state.classes[class].len();
        if waiting >= items || (waiting > 0 && state.bytes[class] + size > bytes) {
            return Err(Refused::Full);
        }
        if !is_notice {
            state.overtake(&frame);
            state.unflushed = Unflushed::Something;
        } else if state.unflushed == Unflushed::Nothing {
            state.unflushed = Unflushed::Commits;
        }
        state.classes[class].push_back((size, frame));
        state.bytes[class] += size;
        Ok(())
    }

    /// What to write next, in order; empty once closed. Cancellation-safe.
    pub(super) async fn batch(&self, into: &mut Vec<Frame>) {
        loop {
            {
                let mut state = self.state();
                state.take(into);
                state.unflushed = Unflushed::Nothing;
                if !into.is_empty() || state.closed {
                    return;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Refuses everything from now on and gives back what was not written.
    pub(super) fn close(&self) -> Vec<Frame> {
        let mut state = self.state();
        state.closed = true;
        state.bytes = [0; CLASSES];
        let left = std::mem::take(&mut state.classes).into_iter().flatten().map(|(_, frame)| frame).collect();
        drop(state);
        self.filled.notify_one();
        left
    }
}

impl State {
    /// Entries say how far the log is committed, so what tells only of that need not go before them.
    fn overtake(&mut self, next: &Frame) {
        let Frame::Raft(Envelope { cluster, term, body: Message::Append { commit: newer, .. }, .. }) = next else {
            return;
        };
        let urgent = Class::Urgent as usize;
        let told = |(_, last): &(usize, Frame)| {
            tells_commit(last).is_some_and(|told| (told.0, told.1) == (*cluster, *term) && told.2 <= *newer)
        };
        if self.classes[Class::Bulk as usize].is_empty()
            && self.classes[urgent].back().is_some_and(told)
            && let Some((size, _)) = self.classes[urgent].pop_back()
        {
            self.bytes[urgent] -= size;
        }
    }

    fn take(&mut self, into: &mut Vec<Frame>) {
        for class in [Class::Urgent, Class::Calls, Class::Bulk] {
            let class = class as usize;
            let mut taken = 0;
            while taken < SHARE
                && let Some((size, frame)) = self.classes[class].pop_front()
            {
                taken += size;
                self.bytes[class] -= size;
                into.push(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt;

    use super::*;
    use crate::groups::raft::{Digest, Entry, Fitness, Member, NodeId, Payload, Position};

    fn call(id: u64, len: usize) -> Frame {
        Frame::Call { id, body: Bytes::from(vec![0; len]) }
    }

    fn taken(queue: &Queue) -> Vec<Frame> {
        let mut frames = Vec::new();
        queue.batch(&mut frames).now_or_never();
        frames
    }

    #[test]
    fn urgent_goes_first_and_order_is_kept() {
        let queue = Queue::default();
        for id in 0..3 {
            queue.push(call(id, 10)).expect("has room");
        }
        queue.push(Frame::Ping { at: 1 }).expect("has room");
        queue.push(Frame::Pong { at: 2 }).expect("has room");
        let taken = taken(&queue);
        assert!(matches!(
            taken[..],
            [
                Frame::Ping { .. },
                Frame::Pong { .. },
                Frame::Call { id: 0, .. },
                Frame::Call { id: 1, .. },
                Frame::Call { id: 2, .. }
            ]
        ));
    }

    #[test]
    fn a_batch_holds_its_share_and_the_queue_its_limits() {
        let queue = Queue::default();
        let fitting = (0..1 << 20).take_while(|id| queue.push(call(*id, SHARE)).is_ok()).count();
        assert_eq!(fitting, LIMITS[1].1 / (SHARE + 64), "bytes are bounded");
        assert_eq!(taken(&queue).len(), 1, "one call fills the share");
        assert_eq!(queue.push(call(0, SHARE)), Ok(()), "room is given back");
        let queue = Queue::default();
        assert_eq!(
            (0..1 << 20).take_while(|id| queue.push(call(*id, 0)).is_ok()).count(),
            LIMITS[1].0,
            "frames are bounded"
        );
        assert_eq!(queue.push(Frame::Ping { at: 0 }), Ok(()), "classes do not share their limits");
    }

    fn raft(term: u64, body: Message) -> Frame {
        let end = |node| Member { node: NodeId::from_bytes([node; 32]), incarnation: 1 };
        Frame::Raft(Envelope { from: end(1), to: end(2), cluster: None, term, body })
    }

    fn reply(matched: u64, asked: Option<u64>, term: u64) -> Frame {
        raft(term, Message::AppendReply { matched, asked, conflict: None, round: 0, wall: 0, fitness: Fitness::Normal })
    }

    fn append(count: u64, commit: u64) -> Frame {
        let digest = Digest::default();
        let entries = (1..=count).map(|at| Entry::after(&digest, at, 1, (0, 0), Payload::Noop)).collect();
        raft(1, Message::Append { previous: Position::default(), entries, commit, round: 0, clock: 0 })
    }

    #[test]
    fn what_tells_of_commits_waits_for_company_if_asked_to() {
        let queue = Queue::default();
        queue.add(append(0, 3)).expect("has room");
        queue.add(append(0, 4)).expect("has room");
        assert!(queue.flush(true), "it waits");
        queue.add(append(2, 4)).expect("has room");
        assert!(!queue.flush(true), "entries do not");
        let entries = |frame: &Frame| match frame {
            Frame::Raft(Envelope { body: Message::Append { entries, commit, .. }, .. }) => (entries.len(), *commit),
            other => panic!("{other:?}"),
        };
        assert_eq!(taken(&queue).iter().map(entries).collect::<Vec<_>>(), [(2, 4)], "entries tell of the commit, too");
        queue.add(append(0, 5)).expect("has room");
        assert!(!queue.flush(false), "it was told to go");
        assert_eq!(taken(&queue).iter().map(entries).collect::<Vec<_>>(), [(0, 5)]);
        assert_eq!(queue.state().bytes, [0; CLASSES]);
    }

    #[test]
    fn what_was_added_is_written_with_the_next_flush() {
        let queue = Queue::default();
        let mut frames = Vec::new();
        let mut writer = std::pin::pin!(queue.batch(&mut frames));
        assert_eq!(writer.as_mut().now_or_never(), None);
        let wakes = futures::task::noop_waker();
        let mut cx = std::task::Context::from_waker(&wakes);
        queue.add(Frame::Ping { at: 1 }).expect("has room");
        assert!(writer.as_mut().poll(&mut cx).is_pending(), "nobody has said so");
        assert!(!queue.flush(true));
        assert!(writer.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn an_acknowledgement_takes_in_the_one_that_follows_and_asks_nothing() {
        let queue = Queue::default();
        for frame in [reply(3, Some(7), 1), reply(8, None, 1), reply(9, Some(8), 1), reply(9, None, 2)] {
            queue.push(frame).expect("has room");
        }
        let seen = taken(&queue).into_iter().map(|frame| match frame {
            Frame::Raft(Envelope { term, body: Message::AppendReply { matched, asked, .. }, .. }) => {
                (matched, asked, term)
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(seen.collect::<Vec<_>>(), [(8, Some(7), 1), (9, Some(8), 1), (9, None, 2)]);
    }

    #[test]
    fn a_closed_queue_gives_back_what_was_not_written() {
        let queue = Queue::default();
        queue.push(call(7, 1)).expect("has room");
        assert!(matches!(queue.close()[..], [Frame::Call { id: 7, .. }]));
        assert_eq!(queue.push(call(8, 1)), Err(Refused::Closed));
        assert!(taken(&queue).is_empty());
    }
}
