//! Typed, framed, bounded links: one [`Protocol`] over one bidirectional stream.
//!
//! A frame is a little-endian `u32` length and a postcard message. The first frame of every stream is the [`Preamble`],
//! which names the network and the protocol. An over-long or undecodable frame closes its link with a code and
//! nothing else.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{close::CloseCode, pool::InUse};
use crate::{
    primitives::{NetworkId, PeerId},
    transport::{Connection, ConnectionLost, ReadError, RecvStream, SendStream, WriteError},
    trust::proof::{Channel, SEAL},
};

/// Bytes of the length in front of each frame.
const HEADER: usize = 4;
/// In the length of a frame that is sealed; no protocol's limit reaches so far.
const SEALED: u32 = 1 << 31;
/// How much is taken from the transport at once, in bytes.
const READ_CHUNK: usize = 256 << 10;
/// A frame that has begun must go on arriving; a pause longer than this ends the link.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest preamble in bytes.
pub(crate) const MAX_PREAMBLE: usize = 256;

/// A connection family: the protocols that share one connection between two peers. Its ALPN carries a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(&'static str);

impl Family {
    /// Gossip, catalog sync and entry pulls.
    pub const DISCOVERY: Self = Self("mosaik/discovery/1");
    /// Subscriptions.
    pub const STREAMS: Self = Self("mosaik/streams/1");
    /// Bonds between the members of a group.
    pub const GROUPS: Self = Self("mosaik/groups/1");
    /// Questions of operators; read-only.
    pub const DIAGNOSTICS: Self = Self("mosaik/diagnostics/1");

    pub(crate) const ALL: [Self; 4] = [Self::DISCOVERY, Self::STREAMS, Self::GROUPS, Self::DIAGNOSTICS];

    /// The ALPN of the family (RFC 7301).
    #[must_use]
    pub const fn alpn(self) -> &'static str {
        self.0
    }

    /// Whether its streams may go past the network between peers of one host.
    pub(crate) fn has_lane(self) -> bool {
        matches!(self, Self::STREAMS | Self::GROUPS)
    }

    pub(crate) fn from_alpn(alpn: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.0.as_bytes() == alpn)
    }
}

/// One wire protocol: what a link carries and its limits.
pub trait Protocol: Send + Sync + 'static {
    /// What travels in both directions.
    type Message: Serialize + DeserializeOwned + Send + 'static;
    /// The connection it runs on.
    const FAMILY: Family;
    /// Its name and version, such as `sync/1`: sent in the preamble, so that another version is refused with
    /// [`CloseCode::UnsupportedProtocol`].
    const NAME: &'static str;
    /// The longest frame that is read, in bytes.
    const MAX_FRAME: usize = 1 << 20;
    /// The longest frame that is sent, in bytes: where the two sides say unlike things, each has a type of its own.
    const MAX_SENT: usize = Self::MAX_FRAME;
}

/// The first frame of every stream.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Preamble {
    pub(crate) network: NetworkId,
    pub(crate) protocol: String,
}

/// Why a link failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer closed the link or the connection.
    #[error("closed by the peer: {0}")]
    Closed(CloseCode),
    /// The connection is gone.
    #[error("connection lost: {0}")]
    Lost(String),
    /// A frame is longer than the protocol allows.
    #[error("a frame of {len} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// The frame's length in bytes.
        len: usize,
        /// The protocol's limit in bytes.
        limit: usize,
    },
    /// A frame is no message of this protocol.
    #[error("a frame of {len} bytes cannot be decoded: {error}")]
    Undecodable {
        /// The frame's length in bytes.
        len: usize,
        /// What the decoder said.
        error: String,
    },
    /// A message cannot be encoded.
    #[error("a message cannot be encoded: {0}")]
    Unencodable(String),
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// A frame began and did not go on within 10 s.
    #[error("a frame began and did not go on")]
    Stalled,
    /// One of the two does not admit the other one to its network.
    #[error("refused: see `Network::trust`")]
    Refused,
    /// The connection carries as many streams as it may, and none ended within 2 s.
    #[error("the connection to the peer carries {limit} streams, which is the limit")]
    NoStream {
        /// Streams that one connection carries.
        limit: u32,
    },
}

impl LinkError {
    /// The code with which a link is closed whose peer sent something that it must not.
    fn offence(&self) -> Option<CloseCode> {
        match self {
            Self::TooLarge { .. } => Some(CloseCode::TooLarge),
            Self::Undecodable { .. } => Some(CloseCode::Undecodable),
            Self::Stalled => Some(CloseCode::Timeout),
            _ => None,
        }
    }
}

impl From<ConnectionLost> for LinkError {
    fn from(error: ConnectionLost) -> Self {
        match error {
            ConnectionLost::ClosedByPeer { code } => Self::Closed(code.into()),
            error => Self::Lost(error.to_string()),
        }
    }
}

impl From<ReadError> for LinkError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset { code } => Self::Closed(code.into()),
            ReadError::Lost(error) => error.into(),
        }
    }
}

impl From<WriteError> for LinkError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped { code } => Self::Closed(code.into()),
            WriteError::Finished => Self::Closed(CloseCode::Normal),
            WriteError::Lost(error) => error.into(),
        }
    }
}

/// A typed bidirectional link to one peer. Dropping it resets both directions with [`CloseCode::Normal`].
#[derive(Debug)]
pub(crate) struct Link<P> {
    sender: LinkSender<P>,
    receiver: LinkReceiver<P>,
    connection: Connection,
}

/// The sending half of a [`Link`].
#[derive(Debug)]
pub(crate) struct LinkSender<P> {
    stream: SendStream,
    in_use: Arc<InUse>,
    protocol: PhantomData<fn(P)>,
}

/// The receiving half of a [`Link`].
#[derive(Debug)]
pub(crate) struct LinkReceiver<P> {
    stream: RecvStream,
    buffer: BytesMut,
    in_use: Arc<InUse>,
    protocol: PhantomData<fn() -> P>,
}

/// A link without its frames, for a data path with a framing of its own.
#[derive(Debug)]
pub(crate) struct RawLink {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    /// Bytes that were read from `recv` already.
    pub(crate) buffered: Bytes,
    pub(crate) connection: Connection,
    /// Keeps the connection from being closed as idle.
    pub(crate) in_use: Arc<InUse>,
}

impl<P: Protocol> Link<P> {
    pub(crate) fn new(
        connection: Connection,
        (send, recv): (SendStream, RecvStream),
        buffer: BytesMut,
        in_use: Arc<InUse>,
    ) -> Self {
        let sender = LinkSender { stream: send, in_use: in_use.clone(), protocol: PhantomData };
        let receiver = LinkReceiver { stream: recv, buffer, in_use, protocol: PhantomData };
        Self { sender, receiver, connection }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.connection.peer()
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What both ends of this link's connection can derive and nobody else; see [`Connection::exporter`].
    pub(crate) fn exporter(&self, label: &[u8], context: &[u8]) -> Option<[u8; 32]> {
        self.connection.exporter(label, context)
    }

    /// Sends one message. NOT cancellation-safe: a part of the frame may be on its way.
    pub(crate) async fn send(&mut self, message: &P::Message) -> Result<(), LinkError> {
        self.sender.send(message).await
    }

    /// The next message; `None` when the peer has finished. Cancellation-safe.
    pub(crate) async fn recv(&mut self) -> Result<Option<P::Message>, LinkError> {
        let received = self.receiver.recv().await;
        if let Some(code) = received.as_ref().err().and_then(LinkError::offence) {
            self.sender.close(code);
        }
        received
    }

    /// Ends the sending direction after what was sent.
    pub(crate) fn finish(&mut self) {
        self.sender.finish();
    }

    /// Ends both directions at once, telling the peer why.
    pub(crate) fn close(mut self, code: CloseCode) {
        self.sender.close(code);
        self.receiver.close(code);
    }

    pub(crate) fn split(self) -> (LinkSender<P>, LinkReceiver<P>) {
        (self.sender, self.receiver)
    }

    pub(crate) fn into_raw(self) -> RawLink {
        RawLink {
            send: self.sender.stream,
            recv: self.receiver.stream,
            buffered: self.receiver.buffer.freeze(),
            connection: self.connection,
            in_use: self.receiver.in_use,
        }
    }
}

impl<P: Protocol> LinkSender<P> {
    /// See [`Link::send`].
    pub(crate) async fn send(&mut self, message: &P::Message) -> Result<(), LinkError> {
        let gate = self.in_use.gate();
        let frame = gate.seal(encode_frame(message, P::MAX_SENT)?);
        self.stream.write_all_chunks(&mut [frame]).await.map_err(|error| gate.explain(error))
    }

    /// Ends the direction after what was sent.
    pub(crate) fn finish(&mut self) {
        self.stream.finish();
    }

    /// Ends the direction at once.
    pub(crate) fn close(&mut self, code: CloseCode) {
        self.stream.reset(code.code());
    }
}

impl<P: Protocol> LinkReceiver<P> {
    /// See [`Link::recv`]. After a frame that is too long or undecodable the link is closed with that code.
    pub(crate) async fn recv(&mut self) -> Result<Option<P::Message>, LinkError> {
        let gate = self.in_use.gate();
        gate.passed().await?;
        let received = match read_frame(&mut self.stream, &mut self.buffer, P::MAX_FRAME, gate.channel()).await {
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => decode(&frame),
            Err(error) => Err(error),
        };
        if let Some(code) = received.as_ref().err().and_then(LinkError::offence) {
            self.close(code);
        }
        received.map(Some)
    }

    /// Tells the peer to stop sending.
    pub(crate) fn close(&mut self, code: CloseCode) {
        self.stream.stop(code.code());
    }
}

/// A message as one frame.
pub(crate) fn encode_frame<T: Serialize>(message: &T, limit: usize) -> Result<Bytes, LinkError> {
    let mut frame =
        postcard::to_extend(message, vec![0; HEADER]).map_err(|error| LinkError::Unencodable(error.to_string()))?;
    let len = frame.len() - HEADER;
    let header = u32::try_from(len).ok().filter(|_| len <= limit).ok_or(LinkError::TooLarge { len, limit })?;
    frame[..HEADER].copy_from_slice(&header.to_le_bytes());
    Ok(frame.into())
}

/// A frame with its body hidden from who cannot derive the channel's key: behind the length stands the number of the key
/// stream.
pub(super) fn sealed_frame(frame: &[u8], number: u64, channel: &Channel) -> Bytes {
    let body = frame.get(HEADER..).unwrap_or_default();
    let len = u32::try_from(body.len() + SEAL).unwrap_or(SEALED) | SEALED;
    let mut sealed = Vec::with_capacity(HEADER + SEAL + body.len());
    sealed.extend_from_slice(&len.to_le_bytes());
    sealed.extend_from_slice(&number.to_le_bytes());
    sealed.extend_from_slice(body);
    channel.seal(number, &mut sealed[HEADER + SEAL..]);
    sealed.into()
}

/// The body of the next frame; `None` at the end of the stream between frames. Sealed frames are read with the channel of their
/// connection, if the peer may send some. Cancellation-safe: what was read stays in the buffer.
pub(crate) async fn read_frame(
    stream: &mut RecvStream,
    buffer: &mut BytesMut,
    limit: usize,
    channel: Option<&Channel>,
) -> Result<Option<Bytes>, LinkError> {
    loop {
        if let Some(header) = buffer.first_chunk::<HEADER>() {
            let header = u32::from_le_bytes(*header);
            let unseal = channel.filter(|_| header & SEALED != 0);
            let (len, limit) = match unseal {
                Some(_) => ((header & !SEALED) as usize, limit + SEAL),
                None => (header as usize, limit),
            };
            if len > limit {
                return Err(LinkError::TooLarge { len, limit });
            }
            if buffer.len() >= HEADER + len {
                buffer.advance(HEADER);
                let mut body = buffer.split_to(len);
                if let Some(channel) = unseal {
                    let number = *body.first_chunk::<SEAL>().ok_or(LinkError::Truncated)?;
                    body.advance(SEAL);
                    channel.seal(u64::from_le_bytes(number), &mut body);
                }
                return Ok(Some(body.freeze()));
            }
        }
        let chunk = if buffer.is_empty() {
            stream.read_chunk(READ_CHUNK).await?
        } else {
            timeout(STALL_TIMEOUT, stream.read_chunk(READ_CHUNK)).await.map_err(|_| LinkError::Stalled)??
        };
        match chunk {
            Some(chunk) => buffer.extend_from_slice(&chunk),
            None if buffer.is_empty() => return Ok(None),
            None => return Err(LinkError::Truncated),
        }
    }
}

/// A whole frame body as a message; bytes left over are an error.
pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, LinkError> {
    let undecodable = |error: String| LinkError::Undecodable { len: frame.len(), error };
    match postcard::take_from_bytes(frame) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(undecodable(format!("{} bytes left over", rest.len()))),
        Err(error) => Err(undecodable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_hold_their_limit() {
        assert_eq!(encode_frame(&[7u8; 8], 8).map(|f| f.to_vec()), Ok([&[8, 0, 0, 0][..], &[7; 8]].concat()));
        assert_eq!(encode_frame(&[7u8; 9], 8), Err(LinkError::TooLarge { len: 9, limit: 8 }));
    }

    #[test]
    fn leftover_bytes_are_undecodable() {
        assert_eq!(decode::<u8>(&[1]), Ok(1));
        assert!(matches!(decode::<u8>(&[1, 2]), Err(LinkError::Undecodable { len: 2, .. })));
        assert!(matches!(decode::<u8>(&[]), Err(LinkError::Undecodable { len: 0, .. })));
    }
}
