//! Streams of the lane through Unix sockets: one connection of the kernel for each direction of a stream, so that its buffer is
//! the flow control, nothing is multiplexed, and what a receiver says never waits behind what it sends.
//!
//! From the sender go frames: `u32` in little-endian order, whose highest byte is the kind and the rest the length of what
//! follows; from the receiver goes at most one, which stops the stream. Ends are frames, because the kernel's own say nothing: a
//! process that is killed and one that is done look alike, and bytes that nobody read turn the other's end of file into an error.
//! A frame that was begun is always completed, also by whoever comes after a write that was cancelled.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{io::Interest, net::UnixStream, time::timeout};

use super::Tie;
use crate::transport::{Code, ConnectionLost, ReadError, WriteError};

/// The most bytes of one frame.
const MAX_FRAME: usize = 1 << 20;
/// Pieces of one `writev`; the kernel takes 1,024.
const MAX_SLICES: usize = 128;
/// What is read at once, in bytes: as little as that for a stream that trickles.
const MIN_READ: usize = 4 << 10;
/// As much as that for one that flows.
const MAX_READ: usize = 256 << 10;
/// How long the end of a stream may wait, after its last handle, for a receiver that does not read.
const LINGER: Duration = Duration::from_secs(10);

/// Bytes of a header.
const HEADER: usize = 4;
/// Bytes of a code.
const CODE: usize = 4;
/// Bits of the length in a header.
const LENGTH_BITS: u32 = 24;

/// What follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Bytes of the stream.
    Data = 0,
    /// Nothing: the stream is complete.
    Finish = 1,
    /// A code: the stream was reset.
    Reset = 2,
    /// A code: the receiver wants no more.
    Stop = 3,
}

fn header(kind: Kind, length: usize) -> [u8; HEADER] {
    let length = u32::try_from(length).unwrap_or(u32::MAX) & ((1 << LENGTH_BITS) - 1);
    (((kind as u32) << LENGTH_BITS) | length).to_le_bytes()
}

fn parse(bytes: [u8; HEADER]) -> Option<(Kind, usize)> {
    let header = u32::from_le_bytes(bytes);
    let length = (header & ((1 << LENGTH_BITS) - 1)) as usize;
    let (kind, fits) = match header >> LENGTH_BITS {
        0 => (Kind::Data, length <= MAX_FRAME),
        1 => (Kind::Finish, length == 0),
        2 => (Kind::Reset, length == CODE),
        3 => (Kind::Stop, length == CODE),
        _ => return None,
    };
    fits.then_some((kind, length))
}

fn with_code(kind: Kind, code: Code) -> [u8; HEADER + CODE] {
    let mut frame = [0; HEADER + CODE];
    frame[..HEADER].copy_from_slice(&header(kind, CODE));
    frame[HEADER..].copy_from_slice(&code.to_le_bytes());
    frame
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct SocketSend {
    /// Taken by the drop alone.
    half: Option<SendHalf>,
}

#[derive(Debug)]
struct SendHalf {
    socket: Arc<UnixStream>,
    tie: Tie,
    /// Of the frame under way: what the kernel has not taken yet.
    out: VecDeque<Bytes>,
    state: State,
    /// What has come of the receiver's frame.
    heard: BytesMut,
    stopped: Option<Code>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Finished,
    Reset,
}

/// The other end closed the socket.
struct Gone;

impl SocketSend {
    pub(super) fn new(socket: Arc<UnixStream>, tie: Tie) -> Self {
        let (out, heard) = (VecDeque::new(), BytesMut::new());
        Self { half: Some(SendHalf { socket, tie, out, state: State::Open, heard, stopped: None }) }
    }

    fn half(&mut self) -> Result<&mut SendHalf, WriteError> {
        self.half.as_mut().ok_or(WriteError::Finished)
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.write_all_chunks(&mut [Bytes::copy_from_slice(bytes)]).await
    }

    pub(crate) async fn write_all_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        self.half()?.write(chunks).await
    }

    pub(crate) fn finish(&mut self) {
        if let Some(half) = &mut self.half
            && half.state == State::Open
        {
            half.end(State::Finished, Bytes::copy_from_slice(&header(Kind::Finish, 0)));
        }
    }

    pub(crate) fn reset(&mut self, code: Code) {
        if let Some(half) = &mut self.half {
            half.reset(code);
        }
    }

    pub(crate) async fn stopped(&mut self) -> Result<Option<Code>, ConnectionLost> {
        match &mut self.half {
            Some(half) => half.stopped().await,
            None => Ok(None),
        }
    }
}

impl Drop for SocketSend {
    fn drop(&mut self) {
        let Some(mut half) = self.half.take() else { return };
        if half.state == State::Open {
            half.reset(0);
        }
        if !half.out.is_empty() && half.tie.lost().is_none() {
            let tasks = half.tie.tasks.clone();
            tasks.spawn("lane-end", async move {
                // Whoever does not read by then learns of the end by that of the socket.
                let _ = timeout(LINGER, half.flush()).await;
            });
        }
    }
}

impl SendHalf {
    async fn write(&mut self, mut chunks: &mut [Bytes]) -> Result<(), WriteError> {
        self.may_write()?;
        // Of a write that was cancelled.
        self.flush().await?;
        loop {
            let empty = chunks.iter().take_while(|chunk| chunk.is_empty()).count();
            chunks = &mut chunks[empty..];
            if chunks.is_empty() {
                return Ok(());
            }
            self.frame(chunks);
            self.flush().await?;
        }
    }

    fn may_write(&mut self) -> Result<(), WriteError> {
        if let Some(lost) = self.tie.lost() {
            return Err(WriteError::Lost(lost));
        }
        if self.state != State::Open {
            return Err(WriteError::Finished);
        }
        // An end without a word shows in the write.
        let _ = self.listen();
        self.stopped.map_or(Ok(()), |code| Err(WriteError::Stopped { code }))
    }

    /// Takes a frame's worth from the front of the chunks.
    fn frame(&mut self, chunks: &mut [Bytes]) {
        self.out.push_back(Bytes::new());
        let mut length = 0;
        for chunk in chunks {
            let part = chunk.split_to(chunk.len().min(MAX_FRAME - length));
            length += part.len();
            if !part.is_empty() {
                self.out.push_back(part);
            }
            if length == MAX_FRAME {
                break;
            }
        }
        if let Some(first) = self.out.front_mut() {
            *first = Bytes::copy_from_slice(&header(Kind::Data, length));
        }
    }

    /// Hands the frame under way to the kernel, waiting for room.
    async fn flush(&mut self) -> Result<(), WriteError> {
        loop {
            match self.try_flush() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(self.gone().await),
            }
            let ready = tokio::select! {
                biased;
                () = self.tie.ended.cancelled() => return Err(WriteError::Lost(self.tie.reason())),
                ready = self.socket.ready(Interest::READABLE | Interest::WRITABLE) => ready,
            };
            if ready.is_ok_and(|ready| !ready.is_readable()) {
                continue;
            }
            let gone = self.listen().is_err();
            if let Some(code) = self.stopped {
                return Err(WriteError::Stopped { code });
            }
            if gone {
                return Err(self.gone().await);
            }
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.out) {
                *slice = IoSlice::new(chunk);
                count += 1;
            }
            let mut written = self.socket.try_write_vectored(&slices[..count])?;
            while let Some(chunk) = self.out.front_mut() {
                let part = written.min(chunk.len());
                chunk.advance(part);
                written -= part;
                if !chunk.is_empty() {
                    break;
                }
                self.out.pop_front();
            }
        }
        Ok(())
    }

    /// What the receiver has said, without waiting.
    fn listen(&mut self) -> Result<(), Gone> {
        while self.stopped.is_none() {
            self.heard.reserve(HEADER + CODE);
            match self.socket.try_read_buf(&mut self.heard) {
                Ok(0) => return Err(Gone),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Gone),
            }
            if let Some((header, rest)) = self.heard.split_first_chunk::<HEADER>()
                && let Some(code) = rest.first_chunk::<CODE>()
            {
                let stop = parse(*header).is_some_and(|(kind, _)| kind == Kind::Stop);
                self.stopped = Some(if stop { Code::from_le_bytes(*code) } else { 0 });
            }
        }
        Ok(())
    }

    /// Why the kernel takes no more.
    async fn gone(&mut self) -> WriteError {
        let _ = self.listen();
        match self.stopped {
            Some(code) => WriteError::Stopped { code },
            None => WriteError::Lost(self.tie.gone().await),
        }
    }

    /// Ends the stream by a frame; what the kernel does not take now is left to the drop.
    fn end(&mut self, state: State, frame: Bytes) {
        self.state = state;
        // Past the end of the connection its reason counts and no other.
        if self.tie.lost().is_none() {
            self.out.push_back(frame);
            let _ = self.try_flush();
        }
    }

    fn reset(&mut self, code: Code) {
        if self.state == State::Reset {
            return;
        }
        if self.state == State::Finished {
            // What the kernel has is delivered; otherwise the end is the last that waits.
            if self.out.back().is_none_or(|last| last.len() < HEADER) {
                return;
            }
            self.out.pop_back();
        }
        self.end(State::Reset, Bytes::copy_from_slice(&with_code(Kind::Reset, code)));
    }

    async fn stopped(&mut self) -> Result<Option<Code>, ConnectionLost> {
        loop {
            let gone = self.listen().is_err();
            if let Some(code) = self.stopped {
                return Ok(Some(code));
            }
            let delivered = match self.try_flush() {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                Err(_) => return Err(self.tie.gone().await),
            };
            if delivered && self.state != State::Open {
                return self.tie.lost().map_or(Ok(None), Err);
            }
            if gone {
                return Err(self.tie.gone().await);
            }
            let interest = if delivered { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            tokio::select! {
                biased;
                () = self.tie.ended.cancelled() => return Err(self.tie.reason()),
                // An error shows in what comes next.
                _ = self.socket.ready(interest) => {}
            }
        }
    }
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct SocketRecv {
    socket: Arc<UnixStream>,
    tie: Tie,
    buffer: BytesMut,
    /// Bytes of the frame at the front of the buffer that were not handed on yet.
    left: usize,
    /// What is asked of the kernel next.
    want: usize,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Finished,
    Reset(Code),
    /// By this side.
    Stopped,
    /// Not by a frame.
    Cut,
}

impl SocketRecv {
    pub(super) fn new(socket: Arc<UnixStream>, tie: Tie) -> Self {
        Self { socket, tie, buffer: BytesMut::new(), left: 0, want: MIN_READ, end: None }
    }

    pub(crate) async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        loop {
            if self.tie.is_closed_here() {
                return Err(ConnectionLost::ClosedLocally.into());
            }
            if let Some(chunk) = self.next(max) {
                return Ok(Some(chunk));
            }
            match self.end {
                None => {}
                Some(End::Finished) => return Ok(None),
                Some(End::Reset(code)) => return Err(ReadError::Reset { code }),
                Some(End::Stopped) => return Err(ConnectionLost::Other("the stream was stopped here".into()).into()),
                Some(End::Cut) => return Err(self.tie.gone().await.into()),
            }
            match self.fill() {
                Ok(0) => self.end = Some(End::Cut),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(lost) = self.tie.lost() {
                        return Err(lost.into());
                    }
                    self.rest();
                    tokio::select! {
                        biased;
                        // What the kernel has by then can still be read.
                        () = self.tie.ended.cancelled() => {}
                        // An error shows in the read.
                        _ = self.socket.readable() => {}
                    }
                }
                Err(_) => self.end = Some(End::Cut),
            }
        }
    }

    pub(crate) fn stop(&mut self, code: Code) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(End::Stopped);
        self.buffer = BytesMut::new();
        if self.tie.lost().is_none() {
            // The only frame in this direction, so that there is room for it.
            let _ = self.socket.try_write(&with_code(Kind::Stop, code));
        }
    }

    /// The next bytes that were read already; takes in what the frames say.
    fn next(&mut self, max: usize) -> Option<Bytes> {
        while self.end.is_none() {
            if self.left > 0 {
                let length = self.left.min(self.buffer.len()).min(max);
                if length == 0 {
                    return None;
                }
                self.left -= length;
                return Some(self.buffer.split_to(length).freeze());
            }
            let (header, rest) = self.buffer.split_first_chunk::<HEADER>()?;
            match parse(*header) {
                Some((Kind::Data, length)) => {
                    self.left = length;
                    self.buffer.advance(HEADER);
                }
                Some((Kind::Finish, _)) => self.end = Some(End::Finished),
                Some((Kind::Reset, _)) => {
                    let code = rest.first_chunk::<CODE>()?;
                    self.end = Some(End::Reset(Code::from_le_bytes(*code)));
                }
                Some((Kind::Stop, _)) | None => {
                    tracing::warn!(connection = ?self.tie.connection, "no frame of a lane; its stream ends");
                    self.end = Some(End::Cut);
                }
            }
        }
        None
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(self.want);
        let room = self.buffer.capacity() - self.buffer.len();
        let read = self.socket.try_read_buf(&mut self.buffer)?;
        if read == room {
            self.want = (self.want * 2).min(MAX_READ);
        } else if read < self.want / 4 {
            self.want = (self.want / 2).max(MIN_READ);
        }
        Ok(read)
    }

    /// A stream that waits keeps no memory: there may be thousands.
    fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }
}

impl Drop for SocketRecv {
    fn drop(&mut self) {
        self.stop(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::fixtures::Fixture;

    #[test]
    fn frames_are_as_they_were() {
        Fixture::new("lane-frame/1")
            .bytes("data", [&header(Kind::Data, 3)[..], b"abc"].concat())
            .bytes("finish", header(Kind::Finish, 0))
            .bytes("reset", with_code(Kind::Reset, 0x0102_0304))
            .bytes("stop", with_code(Kind::Stop, 0x0102_0304))
            .check();
    }

    #[test]
    fn headers_hold_their_limits() {
        assert_eq!(parse(header(Kind::Data, MAX_FRAME)), Some((Kind::Data, MAX_FRAME)));
        assert_eq!(parse(header(Kind::Data, MAX_FRAME + 1)), None);
        assert_eq!(parse(header(Kind::Finish, 1)), None);
        assert_eq!(parse(header(Kind::Reset, 5)), None);
        assert_eq!(parse([0, 0, 0, 4]), None);
    }
}
