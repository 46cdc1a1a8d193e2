//! The two tasks of a bond: one reads its link, one writes it.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    BondEvent,
    bond::{Bond, CallFailed},
    claims::Claim,
    group::Group,
    handshake::Refusal,
    wire::{self, Frame, MAX_GOSSIP, Received, WireError},
};
use crate::{
    discovery::EntryError,
    groups::raft::Envelope,
    network::{CloseCode, LinkError, RawLink},
    transport::{ReadError, RecvStream, SendStream},
};

/// How often each side says that it is there.
pub(super) const PING_EVERY: Duration = Duration::from_millis(500);
/// A bond that hears nothing for so long is over. The transport mostly sees it before (2.5 s).
pub(super) const SILENCE: Duration = Duration::from_secs(3);
/// How long the last frames may take when this side leaves.
const FAREWELL: Duration = Duration::from_millis(300);
/// How much is taken from the transport at once, in bytes.
const READ_CHUNK: usize = 256 << 10;
/// A message from this size on takes its share of the memory for what waits for the worker.
const WEIGHTY: usize = 1 << 10;

/// Serves an admitted link to its end.
pub(super) async fn run(group: Arc<Group>, bond: Arc<Bond>, link: RawLink, former: Option<Arc<Bond>>) {
    let ended = bond.ended.clone().drop_guard();
    if let Some(former) = former {
        former.close(CloseCode::Duplicate);
        former.ended.cancelled().await;
    }
    tracing::debug!(group = ?group.id, peer = ?bond.peer, member = ?bond.member, dialled = bond.dialled, "bond up");
    let RawLink { send, recv, buffered, connection: _connection, in_use: _in_use } = link;
    let told = group.tell(BondEvent::Up(bond.member), 0, &bond).await;
    introduce(&group, &bond);
    group.node.tasks().spawn("bond-write", write(group.clone(), bond.clone(), send));
    let mut reader = Reader { group: group.clone(), bond: bond.clone(), recv, buffer: BytesMut::from(&buffered[..]) };
    let end = reader.run().await;
    let code = bond.code();
    reader.recv.stop(code.code());
    tracing::debug!(group = ?group.id, peer = ?bond.peer, ?end, "bond down");
    group.lost(&bond, &end);
    bond.end_calls();
    if told {
        group.tell_down(bond.member).await;
    }
    drop(ended);
}

/// How a bond ended.
#[derive(Debug)]
pub(super) enum End {
    /// This side ended it.
    Closed,
    /// The other side has left of its own accord.
    Goodbye,
    /// The other side refused it after all.
    Refused(Refusal),
    /// The other side, or the network, ended it.
    Lost,
}

/// Tells the other member whom this one is bonded to, so that a mesh completes without waiting for discovery.
fn introduce(group: &Group, bond: &Bond) {
    let catalog = group.discovery.catalog();
    let others = group.mesh().bonds().map(|other| other.peer).filter(|peer| *peer != bond.peer).collect::<Vec<_>>();
    let known = others.iter().filter_map(|peer| Some(catalog.get(peer)?.signed().clone()));
    let entries: Vec<_> = std::iter::once(group.discovery.signed_local()).chain(known).take(MAX_GOSSIP).collect();
    if bond.queue.push(Frame::Gossip(entries)).is_err() {
        tracing::debug!(peer = ?bond.peer, "no room to introduce the other members");
    }
}

async fn write(group: Arc<Group>, bond: Arc<Bond>, mut send: SendStream) {
    let mut frames = Vec::new();
    let mut told = None;
    let mut cancelled = pin!(bond.cancel.cancelled());
    let mut ping = pin!(sleep_until(bond.since));
    loop {
        let due = tokio::select! {
            biased;
            () = &mut cancelled => break,
            () = bond.queue.batch(&mut frames) => Instant::now() >= ping.deadline(),
            () = &mut ping => true,
        };
        if due {
            frames.insert(0, Frame::Ping { at: bond.clock() });
            frames.extend(group.marks_since(&mut told));
            ping.as_mut().reset(Instant::now() + PING_EVERY);
        }
        if frames.is_empty() {
            // The queue is closed.
            break;
        }
        let leaving = matches!(frames[..], [.., Frame::Goodbye]) || frames.iter().any(|f| matches!(f, Frame::Goodbye));
        let mut batch = [encode(&bond, &mut frames)];
        let written = tokio::select! {
            biased;
            () = &mut cancelled => break,
            written = send.write_all_chunks(&mut batch) => written,
        };
        if let Err(error) = written {
            tracing::trace!(peer = ?bond.peer, %error, "bond cannot be written");
            // The reader finds out why.
            break;
        }
        if leaving {
            send.finish();
            // Whatever comes of it, the bond is over.
            let _ = timeout(FAREWELL, send.stopped()).await;
            bond.close(CloseCode::ShuttingDown);
            return;
        }
    }
    send.reset(bond.code().code());
}

/// Frames as one buffer; those that are too large are left out.
fn encode(bond: &Bond, frames: &mut Vec<Frame>) -> Bytes {
    let mut buffer = Vec::with_capacity(4096);
    for frame in frames.drain(..) {
        let Err(error) = wire::encode(&frame, &mut buffer) else { continue };
        tracing::warn!(peer = ?bond.peer, %error, "a message of a group cannot be sent");
        match frame {
            Frame::Call { id, .. } | Frame::Ask { id, .. } => bond.answered(id, Err(CallFailed::NotSent)),
            Frame::Reply { id, .. } => _ = wire::encode(&Frame::Dropped { id }, &mut buffer),
            _ => {}
        }
    }
    buffer.into()
}

struct Reader {
    group: Arc<Group>,
    bond: Arc<Bond>,
    recv: RecvStream,
    buffer: BytesMut,
}

impl Reader {
    async fn run(&mut self) -> End {
        let bond = self.bond.clone();
        tokio::select! {
            biased;
            () = bond.cancel.cancelled() => End::Closed,
            end = self.read() => {
                bond.close(CloseCode::Normal);
                end
            }
        }
    }

    async fn read(&mut self) -> End {
        let mut silence = pin!(sleep_until(Instant::now() + SILENCE));
        let mut heard = Instant::now();
        loop {
            loop {
                let len = match wire::frame_len(&self.buffer) {
                    Ok(Some(len)) if self.buffer.len() >= len => len,
                    Ok(_) => break,
                    Err(error) => return self.offended(error),
                };
                let received = wire::decode(&self.buffer[..len]);
                self.buffer.advance(len);
                match received {
                    Ok(Received::Goodbye) => return End::Goodbye,
                    Ok(received) => self.take(received, len).await,
                    Err(error) => return self.offended(error),
                }
            }
            let read = tokio::select! {
                biased;
                read = self.recv.read_chunk(READ_CHUNK) => read,
                () = &mut silence => {
                    if heard.elapsed() >= SILENCE {
                        self.bond.close(CloseCode::Timeout);
                        return End::Lost;
                    }
                    silence.as_mut().reset(heard + SILENCE);
                    continue;
                }
            };
            heard = Instant::now();
            match read {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => return End::Lost,
                Err(error) => return lost(error),
            }
        }
    }

    fn offended(&self, error: WireError) -> End {
        tracing::warn!(peer = ?self.bond.peer, %error, "a member sends what is no message; its bond is closed");
        self.bond.close(match error {
            WireError::TooLarge { .. } => CloseCode::TooLarge,
            WireError::Undecodable => CloseCode::Undecodable,
        });
        End::Lost
    }

    async fn take(&self, received: Received, len: usize) {
        let bond = &self.bond;
        let event = match received {
            Received::Raft { cluster, term, body } => {
                BondEvent::Message(Envelope { from: bond.member, to: bond.me, cluster, term, body })
            }
            Received::Call { id, body } => match bond.serve(id) {
                Some(reply) => BondEvent::Call { from: bond.peer, request: body, reply },
                None => return,
            },
            Received::Reply { id, body } => return bond.answered(id, Ok(body)),
            Received::Dropped { id } => return bond.answered(id, Err(CallFailed::Lost)),
            Received::Ask { id, claim } => return self.judge(id, claim),
            Received::Ping { at } => return self.answer_ping(at),
            Received::Pong { at } => return bond.pong(at),
            Received::Gossip(entries) => return self.meet(&entries),
            Received::Marks(marks) => return self.group.learn(&marks),
            Received::Copied => return self.group.copied(bond.peer),
            Received::Goodbye => return,
        };
        self.group.tell(event, if len >= WEIGHTY { len } else { 0 }, bond).await;
    }

    /// The answer may wait for a sign of life of another member.
    fn judge(&self, id: u64, claim: Claim) {
        let group = self.group.clone();
        if let Some(reply) = self.bond.serve(id) {
            self.group.node.tasks().spawn("bond-judge", async move {
                tokio::select! {
                    biased;
                    () = group.cancel.cancelled() => {}
                    () = group.judge(claim, reply) => {}
                }
            });
        }
    }

    fn answer_ping(&self, at: u64) {
        if self.bond.queue.push(Frame::Pong { at }).is_err() {
            tracing::trace!(peer = ?self.bond.peer, "no room for an answer to a ping");
        }
    }

    /// Members that the other one knows: discovery verifies their entries, and then they are dialled as any.
    fn meet(&self, entries: &[crate::discovery::SignedEntry]) {
        for entry in entries {
            match self.group.discovery.introduce(self.bond.peer, entry) {
                Ok(_) | Err(EntryError::Stale { .. } | EntryError::Own) => {}
                Err(error) => tracing::debug!(peer = ?self.bond.peer, %error, "a member's entry is not accepted"),
            }
        }
    }
}

fn lost(error: ReadError) -> End {
    match LinkError::from(error) {
        LinkError::Closed(code) => Refusal::from_code(code).map_or(End::Lost, End::Refused),
        _ => End::Lost,
    }
}
