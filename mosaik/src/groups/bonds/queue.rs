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

use super::{super::raft::Message, wire::Frame};

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
        Frame::Gossip(entries) => entries.iter().map(|entry| entry.len() + SMALL).sum(),
        _ => SMALL,
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

#[derive(Debug, Default)]
struct State {
    classes: [VecDeque<(usize, Frame)>; CLASSES],
    bytes: [usize; CLASSES],
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame to be written. Never blocks. A frame may go over the limit of bytes if nothing of its class waits.
    pub(super) fn push(&self, frame: Frame) -> Result<(), Refused> {
        let (class, size) = (Class::of(&frame) as usize, size(&frame));
        let mut state = self.state();
        if state.closed {
            return Err(Refused::Closed);
        }
        let (items, bytes) = LIMITS[class];
        let waiting = state.classes[class].len();
        if waiting >= items || (waiting > 0 && state.bytes[class] + size > bytes) {
            return Err(Refused::Full);
        }
        let was_empty = state.is_empty();
        state.classes[class].push_back((size, frame));
        state.bytes[class] += size;
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// What to write next, in order; empty once closed. Cancellation-safe.
    pub(super) async fn batch(&self, into: &mut Vec<Frame>) {
        loop {
            {
                let mut state = self.state();
                state.take(into);
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
    fn is_empty(&self) -> bool {
        self.classes.iter().all(VecDeque::is_empty)
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

    #[test]
    fn a_closed_queue_gives_back_what_was_not_written() {
        let queue = Queue::default();
        queue.push(call(7, 1)).expect("has room");
        assert!(matches!(queue.close()[..], [Frame::Call { id: 7, .. }]));
        assert_eq!(queue.push(call(8, 1)), Err(Refused::Closed));
        assert!(taken(&queue).is_empty());
    }
}
