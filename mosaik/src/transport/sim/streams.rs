//! What happens on the streams of a simulated connection: the calls of their handles, and the packets they cause.
//!
//! Pure bookkeeping on the world; the futures around it are in `stream.rs`.

use std::task::{Poll, Waker};

use bytes::Bytes;

use super::{
    connection::{Conn, EndState, Stream},
    event::{Body, ConnId, Side, StreamKey},
    link,
    pipe::{Pipe, Read, Receiving, Sending},
    world::World,
};
use crate::transport::{Code, ConnectionLost, ReadError, WriteError};

/// Most bytes in one packet; larger writes are cut up, so that streams share a narrow path.
const MAX_SEGMENT: usize = 64 << 10;
/// One in so many segments is cut at a random place, so that no reader relies on where a write ended.
const CUT_ONE_IN: u64 = 8;

impl World {
    fn pipe(&mut self, conn: ConnId, key: StreamKey, sender: Side) -> Option<&mut Pipe> {
        Some(self.conns.get_mut(&conn)?.streams.get_mut(&key)?.from(sender))
    }

    fn over(&self, conn: ConnId, side: Side) -> Option<ConnectionLost> {
        match self.conns.get(&conn).map(|connection| &connection.end(side).state) {
            Some(EndState::Over(reason)) => Some(reason.clone()),
            Some(_) => None,
            None => Some(ConnectionLost::ClosedLocally),
        }
    }

    /// A new stream, unless the other end allows no more for now.
    pub(super) fn open_stream(&mut self, conn: ConnId, side: Side) -> Poll<Result<StreamKey, ConnectionLost>> {
        if let Some(reason) = self.over(conn, side) {
            return Poll::Ready(Err(reason));
        }
        let Some(connection) = self.conns.get_mut(&conn) else { return Poll::Pending };
        let end = connection.end_mut(side);
        if end.opened == end.allowed {
            return Poll::Pending;
        }
        let key = StreamKey { opener: side, index: end.opened };
        end.opened += 1;
        let mut stream = Stream::new();
        stream.halves[side as usize] = 2;
        self.nodes[end.node].traffic.streams += 1;
        connection.streams.insert(key, stream);
        Poll::Ready(Ok(key))
    }

    /// The next stream that the other end opened; streams that came before the end of the connection still count.
    pub(super) fn accept_stream(&mut self, conn: ConnId, side: Side) -> Poll<Result<StreamKey, ConnectionLost>> {
        if let Some(connection) = self.conns.get_mut(&conn)
            && let Some(key) = connection.end_mut(side).incoming.pop_front()
        {
            if let Some(stream) = connection.streams.get_mut(&key) {
                stream.accepted = true;
                stream.halves[side as usize] = 2;
            }
            return Poll::Ready(Ok(key));
        }
        self.over(conn, side).map_or(Poll::Pending, |reason| Poll::Ready(Err(reason)))
    }

    /// Shows the receiving end all streams up to this one, as QUIC does: a stream's first packet also opens those
    /// that were opened before it (RFC 9000, 3.2).
    fn show(&mut self, conn: ConnId, side: Side, key: StreamKey) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        if key.opener == side || connection.end(side).seen > key.index {
            return;
        }
        let end = connection.end_mut(side);
        let new = end.seen..=key.index;
        end.seen = key.index + 1;
        end.incoming.extend(new.map(|index| StreamKey { opener: side.other(), index }));
        self.wakes.signal(&end.signals.incoming);
    }

    /// Writes as much as the window allows and takes it off `bytes`; pending when nothing was written for lack of
    /// credit; `waker` is woken then.
    pub(super) fn write(
        &mut self,
        conn: ConnId,
        side: Side,
        key: StreamKey,
        bytes: &mut Bytes,
        waker: &Waker,
    ) -> Poll<Result<(), WriteError>> {
        let lost = self.over(conn, side);
        let Some(pipe) = self.pipe(conn, key, side) else { return Poll::Ready(Err(WriteError::Finished)) };
        if pipe.sending != Sending::Open {
            return Poll::Ready(Err(WriteError::Finished));
        }
        if let Some(reason) = lost {
            return Poll::Ready(Err(reason.into()));
        }
        if let Some(code) = pipe.stopped {
            return Poll::Ready(Err(WriteError::Stopped { code }));
        }
        if pipe.credit == 0 {
            pipe.writer = Some(waker.clone());
            return Poll::Pending;
        }
        let fits = bytes.len().min(usize::try_from(pipe.credit).unwrap_or(usize::MAX));
        let mut offset = pipe.written;
        pipe.written += fits as u64;
        pipe.credit -= fits as u64;
        let mut rest = bytes.split_to(fits);
        while !rest.is_empty() {
            let segment = rest.split_to(self.segment(rest.len()));
            let length = segment.len() as u64;
            self.send(conn, side, Body::Data { stream: key, offset, bytes: segment });
            offset += length;
        }
        Poll::Ready(Ok(()))
    }

    fn segment(&mut self, length: usize) -> usize {
        let length = length.min(MAX_SEGMENT);
        if length > 1 && link::draw(&mut self.rng, CUT_ONE_IN - 1) == 0 {
            return 1 + usize::try_from(link::draw(&mut self.rng, length as u64 - 2)).unwrap_or(0);
        }
        length
    }

    pub(super) fn finish_stream(&mut self, conn: ConnId, side: Side, key: StreamKey) {
        let Some(pipe) = self.pipe(conn, key, side) else { return };
        if pipe.sending == Sending::Open {
            pipe.sending = Sending::Finished;
            let offset = pipe.written;
            self.send_open(conn, side, Body::Fin { stream: key, offset });
            self.settle(conn, key);
        }
    }

    pub(super) fn reset_stream(&mut self, conn: ConnId, side: Side, key: StreamKey, code: Code) {
        let Some(pipe) = self.pipe(conn, key, side) else { return };
        if pipe.sending != Sending::Reset && !pipe.acked {
            pipe.sending = Sending::Reset;
            self.send_open(conn, side, Body::Reset { stream: key, code });
            self.settle(conn, key);
        }
    }

    /// The receiver's code if it stopped the stream, `None` inside if everything reached it.
    pub(super) fn poll_stopped(
        &mut self,
        conn: ConnId,
        side: Side,
        key: StreamKey,
        waker: &Waker,
    ) -> Poll<Result<Option<Code>, ConnectionLost>> {
        let lost = self.over(conn, side);
        let Some(pipe) = self.pipe(conn, key, side) else { return Poll::Ready(Ok(None)) };
        if pipe.stopped.is_some() || pipe.acked {
            return Poll::Ready(Ok(pipe.stopped));
        }
        if let Some(reason) = lost {
            return Poll::Ready(Err(reason));
        }
        pipe.writer = Some(waker.clone());
        Poll::Pending
    }

    /// Reads what has arrived, also after the end of the connection.
    pub(super) fn read(
        &mut self,
        conn: ConnId,
        side: Side,
        key: StreamKey,
        max: usize,
        waker: &Waker,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        let lost = self.over(conn, side);
        let Some(pipe) = self.pipe(conn, key, side.other()) else { return Poll::Ready(Ok(None)) };
        let found = pipe.read(max);
        let credit = pipe.return_credit();
        if found == Read::Nothing && lost.is_none() {
            pipe.reader = Some(waker.clone());
        }
        if let Some(bytes) = credit {
            self.send_open(conn, side, Body::Credit { stream: key, bytes });
        }
        match found {
            Read::Chunk(bytes) => Poll::Ready(Ok(Some(bytes))),
            Read::Nothing => lost.map_or(Poll::Pending, |reason| Poll::Ready(Err(reason.into()))),
            Read::End => {
                self.settle(conn, key);
                Poll::Ready(Ok(None))
            }
            Read::Reset(code) => {
                self.settle(conn, key);
                Poll::Ready(Err(ReadError::Reset { code }))
            }
        }
    }

    pub(super) fn stop_stream(&mut self, conn: ConnId, side: Side, key: StreamKey, code: Code) {
        let Some(pipe) = self.pipe(conn, key, side.other()) else { return };
        if pipe.stop() {
            self.send_open(conn, side, Body::Stop { stream: key, code });
        }
        self.settle(conn, key);
    }

    /// The sending half was dropped: unless it was finished, that resets the stream.
    pub(super) fn drop_sender(&mut self, conn: ConnId, side: Side, key: StreamKey) {
        if self.pipe(conn, key, side).is_some_and(|pipe| pipe.sending == Sending::Open) {
            self.reset_stream(conn, side, key, 0);
        }
        self.drop_half(conn, side, key);
    }

    /// A half of a stream was dropped.
    pub(super) fn drop_half(&mut self, conn: ConnId, side: Side, key: StreamKey) {
        if let Some(stream) = self.conns.get_mut(&conn).and_then(|connection| connection.streams.get_mut(&key)) {
            stream.halves[side as usize] = stream.halves[side as usize].saturating_sub(1);
        }
        self.settle(conn, key);
    }

    /// Sends from an end that is not over.
    fn send_open(&mut self, conn: ConnId, side: Side, body: Body) {
        if self.over(conn, side).is_none() {
            self.send(conn, side, body);
        }
    }

    /// Gives the opener its stream credit back once the other end is done with the stream, and forgets a stream that
    /// nobody holds.
    fn settle(&mut self, conn: ConnId, key: StreamKey) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        let Some(stream) = connection.streams.get_mut(&key) else { return };
        let acceptor = key.opener.other();
        let done = stream.from(key.opener).receiving == Receiving::Done
            && stream.from(acceptor).sending != Sending::Open
            && !stream.returned;
        stream.returned |= done;
        let unused = stream.returned && stream.halves == [0; 2];
        if done {
            self.send_open(conn, acceptor, Body::StreamCredit);
        }
        if unused && let Some(connection) = self.conns.get_mut(&conn) {
            connection.streams.remove(&key);
        }
    }

    // Packets.

    pub(super) fn on_data(&mut self, conn: ConnId, to: Side, key: StreamKey, offset: u64, bytes: Bytes) {
        self.show(conn, to, key);
        let length = bytes.len() as u64;
        if let Some(node) = self.conns.get(&conn).map(|connection| connection.end(to).node) {
            self.nodes[node].traffic.received += length;
        }
        self.at_receiver(conn, to, key, |pipe| pipe.receive(offset, bytes));
    }

    pub(super) fn on_fin(&mut self, conn: ConnId, to: Side, key: StreamKey, offset: u64) {
        self.show(conn, to, key);
        self.at_receiver(conn, to, key, |pipe| {
            pipe.receive_end(offset);
            true
        });
    }

    pub(super) fn on_reset(&mut self, conn: ConnId, to: Side, key: StreamKey, code: Code) {
        self.show(conn, to, key);
        self.at_receiver(conn, to, key, |pipe| {
            pipe.receive_reset(code);
            true
        });
        self.send_open(conn, to, Body::Acked { stream: key });
    }

    fn at_receiver(&mut self, conn: ConnId, to: Side, key: StreamKey, change: impl FnOnce(&mut Pipe) -> bool) {
        let Some(stream) = self.conns.get_mut(&conn).and_then(|c: &mut Conn| c.streams.get_mut(&key)) else { return };
        let pipe = stream.from(to.other());
        let news = change(pipe);
        if news {
            self.wakes.task(&mut pipe.reader);
        }
        if pipe.complete() {
            self.send_open(conn, to, Body::Acked { stream: key });
        }
    }

    pub(super) fn on_stop(&mut self, conn: ConnId, to: Side, key: StreamKey, code: Code) {
        self.show(conn, to, key);
        self.at_sender(conn, to, key, |pipe| {
            if !pipe.acked && pipe.sending != Sending::Reset {
                pipe.stopped = Some(code);
            }
        });
    }

    pub(super) fn on_credit(&mut self, conn: ConnId, to: Side, key: StreamKey, bytes: u64) {
        self.at_sender(conn, to, key, |pipe| pipe.credit += bytes);
    }

    pub(super) fn on_acked(&mut self, conn: ConnId, to: Side, key: StreamKey) {
        self.at_sender(conn, to, key, |pipe| pipe.acked = true);
    }

    fn at_sender(&mut self, conn: ConnId, to: Side, key: StreamKey, change: impl FnOnce(&mut Pipe)) {
        let Some(stream) = self.conns.get_mut(&conn).and_then(|c: &mut Conn| c.streams.get_mut(&key)) else { return };
        let pipe = stream.from(to);
        change(pipe);
        self.wakes.task(&mut pipe.writer);
    }

    pub(super) fn on_stream_credit(&mut self, conn: ConnId, to: Side) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        let end = connection.end_mut(to);
        end.allowed += 1;
        self.wakes.signal(&end.signals.credit);
    }
}
