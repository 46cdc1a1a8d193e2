//! One direction of a simulated stream: flow control at the sender, reassembly at the receiver.
//!
//! Both halves live in one struct because the world is one process; what travels between them travels as packets
//! all the same. The world calls in and sends what the methods return.

use std::{
    collections::{BTreeMap, VecDeque},
    task::Waker,
};

use bytes::Bytes;

use crate::transport::Code;

/// Bytes that may be on their way or unread on one stream.
pub(super) const STREAM_WINDOW: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Pipe {
    // The sender's half.
    pub(super) credit: u64,
    pub(super) written: u64,
    pub(super) sending: Sending,
    /// The receiver's code, once its stop has arrived.
    pub(super) stopped: Option<Code>,
    /// Everything up to the end has reached the receiver's transport, or the reset has.
    pub(super) acked: bool,
    pub(super) writer: Option<Waker>,
    // The receiver's half.
    ready: VecDeque<Bytes>,
    early: BTreeMap<u64, Bytes>,
    arrived: u64,
    end: Option<u64>,
    reset: Option<Code>,
    unreturned: u64,
    pub(super) receiving: Receiving,
    pub(super) reader: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Open,
    Finished,
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    Open,
    /// Read to the end, told of the reset, or stopped: nothing more will be read.
    Done,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Chunk(Bytes),
    End,
    Reset(Code),
    Nothing,
}

impl Pipe {
    pub(super) fn new() -> Self {
        Self {
            credit: STREAM_WINDOW,
            written: 0,
            sending: Sending::Open,
            stopped: None,
            acked: false,
            writer: None,
            ready: VecDeque::new(),
            early: BTreeMap::new(),
            arrived: 0,
            end: None,
            reset: None,
            unreturned: 0,
            receiving: Receiving::Open,
            reader: None,
        }
    }

    /// Takes in data; true when there is something new to read.
    pub(super) fn receive(&mut self, offset: u64, bytes: Bytes) -> bool {
        if self.receiving == Receiving::Done || self.reset.is_some() {
            return false;
        }
        self.early.insert(offset, bytes);
        let before = self.arrived;
        while let Some(bytes) = self.early.remove(&self.arrived) {
            self.arrived += bytes.len() as u64;
            self.ready.push_back(bytes);
        }
        self.arrived > before
    }

    /// Learns where the stream ends.
    pub(super) fn receive_end(&mut self, offset: u64) {
        self.end = Some(offset);
    }

    /// Drops what was not read.
    pub(super) fn receive_reset(&mut self, code: Code) {
        if !self.complete() {
            self.reset = Some(code);
            self.ready.clear();
            self.early.clear();
        }
    }

    /// All bytes up to the end have arrived.
    pub(super) fn complete(&self) -> bool {
        self.end == Some(self.arrived)
    }

    /// The next bytes, at most `max`.
    pub(super) fn read(&mut self, max: usize) -> Read {
        if let Some(code) = self.reset {
            self.receiving = Receiving::Done;
            return Read::Reset(code);
        }
        if let Some(mut bytes) = self.ready.pop_front() {
            let chunk = bytes.split_to(max.min(bytes.len()));
            if !bytes.is_empty() {
                self.ready.push_front(bytes);
            }
            self.unreturned += chunk.len() as u64;
            return Read::Chunk(chunk);
        }
        if self.complete() {
            self.receiving = Receiving::Done;
            return Read::End;
        }
        Read::Nothing
    }

    /// Credit that is worth a packet to the sender, if any.
    pub(super) fn return_credit(&mut self) -> Option<u64> {
        let due = self.unreturned >= STREAM_WINDOW / 8 && self.end.is_none();
        due.then(|| std::mem::take(&mut self.unreturned))
    }

    /// The receiver gives up; true the first time, when the sender has to be told.
    pub(super) fn stop(&mut self) -> bool {
        let first = self.receiving == Receiving::Open && self.reset.is_none();
        self.receiving = Receiving::Done;
        self.ready.clear();
        self.early.clear();
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overtaking_data_is_put_in_order() {
        let mut pipe = Pipe::new();
        pipe.receive_end(4);
        assert!(!pipe.receive(2, Bytes::from_static(b"cd")));
        assert_eq!(pipe.read(10), Read::Nothing);
        assert!(pipe.receive(0, Bytes::from_static(b"ab")));
        assert_eq!(pipe.read(1), Read::Chunk(Bytes::from_static(b"a")));
        assert_eq!(pipe.read(10), Read::Chunk(Bytes::from_static(b"b")));
        assert_eq!(pipe.read(10), Read::Chunk(Bytes::from_static(b"cd")));
        assert_eq!(pipe.read(10), Read::End);
    }

    #[test]
    fn a_reset_drops_what_was_not_read() {
        let mut pipe = Pipe::new();
        assert!(pipe.receive(0, Bytes::from_static(b"ab")));
        pipe.receive_reset(9);
        assert_eq!(pipe.read(10), Read::Reset(9));
        assert!(!pipe.receive(2, Bytes::from_static(b"cd")));
    }
}
