//! Plain iroh: one long-lived uni-stream per receiver over endpoints on 127.0.0.1, tuned as well as we know how.
//! It finds nobody, checks nothing and drops nobody: the ceiling for whatever is built on iroh.

use std::env;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use iroh::{
    Endpoint, RelayMode,
    endpoint::{self, NetReportConfig, RecvStream, SendStream, presets},
};
use postcard::ser_flavors::Flavor;
use tokio::sync::mpsc;

use super::{Contender, Receiver, Sender, Session};
use crate::{item::Item, quic};

const ALPN: &[u8] = b"mosaik-bench/1";
/// How much is encoded before it is written, in bytes.
const BATCH: usize = 64 << 10;
/// Bodies from this size on go to the transport by reference, in bytes.
const BY_REFERENCE: usize = 4 << 10;
/// Batches that may wait for one receiver.
const QUEUE: usize = 8;
/// How a child learns which transport settings to use.
pub const SETTINGS: &str = "MOSAIK_BENCH_QUIC";

pub struct Raw;

impl Contender for Raw {
    type Sender = RawSender;
    type Receiver = RawReceiver;
    const WINDOW: Option<u64> = None;

    async fn connect(receivers: usize) -> Result<Session<RawSender, RawReceiver>> {
        let connections = connect(receivers).await?;
        let mut lanes = Vec::new();
        let mut inputs = Vec::new();
        for (connection, far) in &connections.pairs {
            let (send, recv) = stream(connection, far).await?;
            lanes.push(Lane::new(send, receivers > 1));
            inputs.push(RawReceiver { recv, buffer: BytesMut::with_capacity(2 * BATCH) });
        }
        let sender = RawSender { lanes, pending: Pending::default() };
        Ok(Session { sender, receivers: inputs, keep: Box::new(connections) })
    }
}

/// Connections from one endpoint to several others; each pair holds both ends.
pub struct Connections {
    pairs: Vec<(endpoint::Connection, endpoint::Connection)>,
    _endpoints: Vec<Endpoint>,
}

async fn connect(receivers: usize) -> Result<Connections> {
    let near = bind().await?;
    let (mut pairs, mut endpoints) = (Vec::new(), Vec::new());
    for _ in 0..receivers {
        let far = bind().await?;
        let accept = async { anyhow::Ok(far.accept().await.context("endpoint closed")?.accept()?.await?) };
        let (dialled, accepted) = tokio::join!(near.connect(far.addr(), ALPN), accept);
        pairs.push((dialled?, accepted?));
        endpoints.push(far);
    }
    endpoints.push(near);
    Ok(Connections { pairs, _endpoints: endpoints })
}

async fn bind() -> Result<Endpoint> {
    let settings = env::var(SETTINGS).unwrap_or_default();
    Ok(Endpoint::builder(presets::Minimal)
        .alpns(vec![ALPN.to_vec()])
        .relay_mode(RelayMode::Disabled)
        .net_report_config(NetReportConfig::minimal())
        .transport_config(quic::transport_config(&settings)?)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")?
        .bind()
        .await?)
}

async fn stream(near: &endpoint::Connection, far: &endpoint::Connection) -> Result<(SendStream, RecvStream)> {
    let mut send = near.open_uni().await?;
    // A stream is not there for the other side before its first byte.
    send.write_all(&[0]).await?;
    let mut recv = far.accept_uni().await?;
    recv.read_exact(&mut [0]).await?;
    Ok((send, recv))
}

/// Where the batches for one receiver go: straight into its stream, or to a task that writes them, so that one
/// receiver does not hold up another before its queue is full.
enum Lane {
    Direct(SendStream),
    Task(mpsc::Sender<Vec<Bytes>>),
}

impl Lane {
    fn new(mut send: SendStream, task: bool) -> Self {
        if !task {
            return Self::Direct(send);
        }
        let (queue, mut batches) = mpsc::channel::<Vec<Bytes>>(QUEUE);
        tokio::spawn(async move {
            while let Some(mut batch) = batches.recv().await {
                if send.write_all_chunks(&mut batch).await.is_err() {
                    return;
                }
            }
        });
        Self::Task(queue)
    }

    async fn write(&mut self, mut chunks: Vec<Bytes>) -> Result<()> {
        match self {
            Self::Direct(send) => Ok(send.write_all_chunks(&mut chunks).await?),
            Self::Task(queue) => Ok(queue.send(chunks).await?),
        }
    }
}

/// Encoded items that have not been written yet: frames of a 4-byte length and the item as postcard writes it.
#[derive(Default)]
struct Pending {
    chunks: Vec<Bytes>,
    buffer: BytesMut,
    bytes: usize,
}

impl Pending {
    fn push(&mut self, item: Item) -> Result<()> {
        let start = self.buffer.len();
        self.buffer.put_u32_le(0);
        let by_reference = item.body.len() >= BY_REFERENCE;
        if by_reference {
            // What postcard writes before the bytes of the body.
            let mut serializer = postcard::Serializer { output: Output(&mut self.buffer) };
            serde::Serialize::serialize(&(item.sequence, item.body.len()), &mut serializer)?;
        } else {
            postcard::serialize_with_flavor(&item, Output(&mut self.buffer))?;
        }
        let tail = if by_reference { item.body.len() } else { 0 };
        let length = self.buffer.len() - start - 4 + tail;
        self.buffer[start..start + 4].copy_from_slice(&u32::try_from(length)?.to_le_bytes());
        self.bytes += length + 4;
        if by_reference {
            self.chunks.push(self.buffer.split().freeze());
            self.chunks.push(item.body);
        }
        Ok(())
    }

    fn take(&mut self) -> Vec<Bytes> {
        if !self.buffer.is_empty() {
            self.chunks.push(self.buffer.split().freeze());
        }
        self.buffer.reserve(2 * BATCH);
        self.bytes = 0;
        std::mem::take(&mut self.chunks)
    }
}

/// Lets postcard write to the end of a buffer.
struct Output<'b>(&'b mut BytesMut);

impl Flavor for Output<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

pub struct RawSender {
    lanes: Vec<Lane>,
    pending: Pending,
}

impl Sender for RawSender {
    async fn send(&mut self, item: Item) -> Result<()> {
        self.pending.push(item)?;
        if self.pending.bytes >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let chunks = self.pending.take();
        for lane in &mut self.lanes {
            lane.write(chunks.clone()).await?;
        }
        Ok(())
    }
}

pub struct RawReceiver {
    recv: RecvStream,
    buffer: BytesMut,
}

impl Receiver for RawReceiver {
    async fn next(&mut self) -> Result<Item> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                if self.buffer.len() >= 4 + length {
                    return decode(&mut self.buffer, length);
                }
            }
            let chunk = self.recv.read_chunk(BATCH).await?.context("stream ended")?;
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

fn decode(buffer: &mut BytesMut, length: usize) -> Result<Item> {
    buffer.advance(4);
    if length < BY_REFERENCE {
        let item = postcard::from_bytes(&buffer[..length])?;
        buffer.advance(length);
        return Ok(item);
    }
    // A large body stays where it is.
    let mut frame = buffer.split_to(length).freeze();
    let ((sequence, size), rest) = postcard::take_from_bytes::<(u64, usize)>(&frame)?;
    let header = frame.len() - rest.len();
    frame.advance(header);
    ensure!(frame.len() == size, "a body of {} bytes where {size} were due", frame.len());
    Ok(Item { sequence, body: frame })
}

/// Nothing but bytes from one endpoint to another: how far the transport itself goes.
pub struct RawBytes {
    send: SendStream,
    recv: RecvStream,
    _keep: Connections,
}

impl RawBytes {
    pub async fn connect() -> Result<Self> {
        let connections = connect(1).await?;
        let (send, recv) = stream(&connections.pairs[0].0, &connections.pairs[0].1).await?;
        Ok(Self { send, recv, _keep: connections })
    }

    pub fn split(self) -> (SendStream, RecvStream, Connections) {
        (self.send, self.recv, self._keep)
    }
}
