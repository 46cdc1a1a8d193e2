//! Streams of the lane within one process: pieces change hands under a lock, bounded in bytes, without a system call or a copy.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Tie, session::Session};
use crate::transport::{Code, ConnectionLost, ReadError, WriteError};

/// How much one direction of a stream holds until its reader must catch up, in bytes: as over QUIC.
const CAPACITY: usize = 1 << 20;

/// One direction of a stream.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    state: Mutex<State>,
    /// For the reader: bytes, or an end.
    readable: Notify,
    /// For the writer: room, or an end.
    writable: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    bytes: usize,
    end: Option<End>,
    /// By the reader.
    stopped: Option<Code>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Finished,
    Reset(Code),
    /// The writer's connection ended before the stream did.
    Cut,
}

impl Pipe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: End) {
        {
            let mut state = self.state();
            match (state.end, end) {
                (None, _) => {}
                // What was read to its end stays complete.
                (Some(End::Finished), End::Reset(_)) if !state.queue.is_empty() => {}
                _ => return,
            }
            state.end = Some(end);
            if matches!(end, End::Reset(_)) {
                state.queue.clear();
                state.bytes = 0;
            }
        }
        self.readable.notify_one();
        self.writable.notify_one();
    }
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct MemorySend {
    pipe: Arc<Pipe>,
    tie: Tie,
    /// Where the stream appears with its first byte, and its number there.
    appears: Option<(Weak<Session>, u64)>,
    finished: bool,
}

impl MemorySend {
    pub(super) fn new(pipe: Arc<Pipe>, tie: Tie, appears: Option<(Weak<Session>, u64)>) -> Self {
        Self { pipe, tie, appears, finished: false }
    }

    fn appear(&mut self) {
        if let Some((session, number)) = self.appears.take()
            && let Some(session) = session.upgrade()
        {
            session.appear(number);
        }
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.write_all_chunks(&mut [Bytes::copy_from_slice(bytes)]).await
    }

    pub(crate) async fn write_all_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        let mut chunks = chunks.iter_mut();
        let mut next = chunks.next();
        loop {
            if let Some(lost) = self.tie.lost() {
                return Err(WriteError::Lost(lost));
            }
            {
                let mut state = self.pipe.state();
                if state.end.is_some() {
                    return Err(WriteError::Finished);
                }
                if let Some(code) = state.stopped {
                    return Err(WriteError::Stopped { code });
                }
                while let Some(chunk) = &mut next {
                    let part = chunk.split_to(chunk.len().min(CAPACITY - state.bytes));
                    if !part.is_empty() {
                        state.bytes += part.len();
                        state.queue.push_back(part);
                    }
                    if !chunk.is_empty() {
                        break;
                    }
                    next = chunks.next();
                }
            }
            self.appear();
            self.pipe.readable.notify_one();
            if next.is_none() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = self.tie.ended.cancelled() => {}
                () = self.pipe.writable.notified() => {}
            }
        }
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
        if self.tie.lost().is_none() {
            self.pipe.end(End::Finished);
            self.appear();
        }
    }

    pub(crate) fn reset(&mut self, code: Code) {
        if self.tie.lost().is_none() {
            self.pipe.end(End::Reset(code));
            self.appear();
        }
    }

    pub(crate) async fn stopped(&mut self) -> Result<Option<Code>, ConnectionLost> {
        loop {
            {
                let state = self.pipe.state();
                if let Some(code) = state.stopped {
                    return Ok(Some(code));
                }
                if matches!(state.end, Some(End::Finished | End::Reset(_))) {
                    return Ok(None);
                }
            }
            if let Some(lost) = self.tie.lost() {
                return Err(lost);
            }
            tokio::select! {
                biased;
                () = self.tie.ended.cancelled() => {}
                () = self.pipe.writable.notified() => {}
            }
        }
    }
}

impl Drop for MemorySend {
    fn drop(&mut self) {
        if !self.finished {
            self.reset(0);
        }
        self.pipe.end(End::Cut);
    }
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct MemoryRecv {
    pipe: Arc<Pipe>,
    tie: Tie,
    stopped: bool,
}

impl MemoryRecv {
    pub(super) fn new(pipe: Arc<Pipe>, tie: Tie) -> Self {
        Self { pipe, tie, stopped: false }
    }

    pub(crate) async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        loop {
            if self.tie.is_closed_here() {
                return Err(ConnectionLost::ClosedLocally.into());
            }
            if self.stopped {
                return Err(ConnectionLost::Other("the stream was stopped here".into()).into());
            }
            let end = {
                let mut state = self.pipe.state();
                if let Some(front) = state.queue.front_mut() {
                    let chunk = front.split_to(front.len().min(max));
                    if front.is_empty() {
                        state.queue.pop_front();
                    }
                    let was_full = state.bytes == CAPACITY;
                    state.bytes -= chunk.len();
                    drop(state);
                    if was_full {
                        self.pipe.writable.notify_one();
                    }
                    return Ok(Some(chunk));
                }
                state.end
            };
            match end {
                Some(End::Finished) => return Ok(None),
                Some(End::Reset(code)) => return Err(ReadError::Reset { code }),
                Some(End::Cut) => return Err(self.tie.gone().await.into()),
                None => {}
            }
            if let Some(lost) = self.tie.lost() {
                return Err(lost.into());
            }
            tokio::select! {
                biased;
                () = self.tie.ended.cancelled() => {}
                () = self.pipe.readable.notified() => {}
            }
        }
    }

    pub(crate) fn stop(&mut self, code: Code) {
        if std::mem::replace(&mut self.stopped, true) || self.tie.lost().is_some() {
            return;
        }
        {
            let mut state = self.pipe.state();
            if state.end.is_none() {
                state.stopped = Some(code);
            }
            state.queue.clear();
            state.bytes = 0;
        }
        self.pipe.writable.notify_one();
    }
}

impl Drop for MemoryRecv {
    fn drop(&mut self) {
        self.stop(0);
    }
}
