//! The gate of a closed network: the proofs with which a connection begins, before anything else is parsed or told.
//!
//! The dialler's first stream carries its proof; what it asks for in the same flight goes sealed on streams of its own, so
//! that no round trip is added and a stranger at the other end learns nothing. The acceptor reads that one stream, judges it,
//! answers with its own proof, and only then looks at the others. `crate::trust` judges; here are the bytes and the deadlines.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout};

use super::{
    close::CloseCode,
    link::{LinkError, MAX_PREAMBLE, Preamble, decode, encode_frame, read_frame, sealed_frame},
    node::Node,
    pool::Entry,
};
use crate::{
    primitives::watch,
    transport::{ConnectError, ConnectionLost, RecvStream, SendStream},
    trust::{
        NetworkKind, Reason, RefusedBy,
        proof::{Author, Channel, EXPORTER_LABEL, Ends, MAX_PROOF, Proof},
    },
};

/// The protocol of the first stream.
pub(super) const PROOF: &str = "proof/1";
/// How long either side waits for the other's proof.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// How long who was refused with a reason may take to read it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where a connection stands.
#[derive(Debug)]
pub(super) struct Gate {
    open: AtomicBool,
    state: watch::Sender<State>,
    /// Under which this node's words are sealed, or the peer's are read: set when proofs begin, never in an open network.
    channel: std::sync::OnceLock<Channel>,
    /// Frames that were sealed.
    sealed: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Passed,
    Refused,
}

impl Gate {
    /// Of an open network it is open from the start.
    pub(super) fn new(open: bool) -> Self {
        let state = watch::Sender::new(if open { State::Passed } else { State::Waiting });
        Self { open: AtomicBool::new(open), state, channel: std::sync::OnceLock::new(), sealed: AtomicU64::new(0) }
    }

    /// Whether both sides have proved themselves.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    fn set(&self, state: State) {
        self.open.store(state == State::Passed, Ordering::Release);
        self.state.send_replace(state);
    }

    /// Waits until the other side has proved itself. Cancellation-safe.
    pub(super) async fn passed(&self) -> Result<(), LinkError> {
        if self.is_open() {
            return Ok(());
        }
        let mut state = self.state.subscribe();
        match state.wait_for(|state| *state != State::Waiting).await {
            Ok(state) if *state == State::Passed => Ok(()),
            _ => Err(LinkError::Refused),
        }
    }

    /// Why a stream failed: that one of the two was refused explains how its connection ended.
    pub(super) fn explain(&self, error: impl Into<LinkError>) -> LinkError {
        if *self.state.borrow() == State::Refused { LinkError::Refused } else { error.into() }
    }

    /// A frame as it may go out now: sealed while the other side has proved nothing.
    pub(super) fn seal(&self, frame: Bytes) -> Bytes {
        match self.channel.get() {
            Some(channel) if !self.is_open() => {
                sealed_frame(&frame, self.sealed.fetch_add(1, Ordering::Relaxed), channel)
            }
            _ => frame,
        }
    }

    /// Under which a sealed frame of the peer is read, if it may send any.
    pub(super) fn channel(&self) -> Option<&Channel> {
        self.channel.get()
    }
}

/// What this node has said on a connection that it dialled; the answer is to be heard.
pub(super) struct Said {
    channel: Channel,
    ends: Ends,
    recv: RecvStream,
    _send: SendStream,
}

fn seconds(node: &Node) -> u64 {
    node.transport().wall_clock() / 1_000_000
}

fn ends(node: &Node, entry: &Entry) -> Option<Ends> {
    let exporter = entry.connection.exporter(EXPORTER_LABEL, b"")?;
    let (me, peer) = (node.id(), entry.connection.peer());
    let (dialler, acceptor) = if entry.outgoing { (me, peer) } else { (peer, me) };
    Some(Ends { exporter, dialler, acceptor })
}

/// Says the proof on a connection that this node dialled, as its first stream; nothing in an open network. It waits for nothing
/// of the other side.
pub(super) async fn say(node: &Node, entry: &Entry) -> Result<Option<Said>, ConnectError> {
    let trust = node.trust();
    if trust.is_open() {
        return Ok(None);
    }
    let lost = |what: &str| ConnectError::Other(format!("the connection ended before the proof: {what}"));
    let ends = ends(node, entry).ok_or_else(|| lost("no keying material"))?;
    let channel = trust.dialling(&ends).ok_or_else(|| lost("no secret"))?;
    let proof =
        channel.prove(Author::Dialler, &trust.member(seconds(node))).ok_or_else(|| lost("the proof is too long"))?;
    let said = async {
        let (mut send, recv) = entry.connection.open_bi().await.map_err(LinkError::from)?;
        let preamble = encode_frame(&Preamble { network: channel.mask(), protocol: PROOF.into() }, MAX_PREAMBLE)?;
        send.write_all_chunks(&mut [preamble, encode_frame(&proof, MAX_PROOF)?]).await.map_err(LinkError::from)?;
        send.finish();
        Ok::<_, LinkError>((send, recv))
    };
    let said = timeout(PROOF_TIMEOUT, said).await.map_err(|_| ConnectError::TimedOut)?;
    let (send, recv) = said.map_err(|error| lost(&error.to_string()))?;
    // Nobody else sets it: this is the beginning of the connection.
    let _ = entry.gate.channel.set(channel.clone());
    Ok(Some(Said { channel, ends, recv, _send: send }))
}

/// Brings a connection through the gate. Otherwise it is closed, who was refused and why is noted, and the code is returned.
pub(super) async fn pass(node: &Node, entry: &Arc<Entry>, said: Option<Said>) -> Result<(), ConnectionLost> {
    if entry.gate.is_open() {
        return Ok(());
    }
    // Let go behind the close: the end of the stream must not overtake the reason.
    let mut first = None;
    let judged = match said {
        Some(said) => hear(node, said).await,
        None => admit(node, entry, &mut first).await,
    };
    let Err((by, reason)) = judged else {
        // Nobody else sets it: a connection is judged once.
        let _ = entry.admitted.set((Instant::now(), seconds(node)));
        entry.gate.set(State::Passed);
        return Ok(());
    };
    let (connection, mut code) = (&entry.connection, CloseCode::Refused);
    // A connection that was lost, and not refused, is nobody's fault.
    let lost = connection.close_reason().filter(|lost| !is_refusal(lost));
    if lost.is_none() || by == RefusedBy::Us {
        if matches!(reason, Some(Reason::Revoked { .. })) {
            code = CloseCode::Revoked;
        }
        let reason = reason.unwrap_or(Reason::Untold { ours: node.trust().kind() });
        node.trust().note(connection.peer(), by, reason, node.transport().wall_clock());
    }
    entry.gate.set(State::Refused);
    connection.close(code.code());
    Err(connection.close_reason().unwrap_or(ConnectionLost::ClosedLocally))
}

/// Whether the peer ended the connection because it refuses this node.
pub(super) fn is_refusal(lost: &ConnectionLost) -> bool {
    let ConnectionLost::ClosedByPeer { code } = lost else { return false };
    matches!(
        CloseCode::from(*code),
        CloseCode::Refused
            | CloseCode::Revoked
            | CloseCode::Expired
            | CloseCode::DifferentNetwork
            | CloseCode::UnsupportedProtocol
    )
}

/// Who refused whom, and why if that is known.
type Refused = (RefusedBy, Option<Reason>);

fn no_proof(what: &'static str) -> Refused {
    (RefusedBy::Us, Some(Reason::NoProof { what }))
}

/// The answer to this node's proof.
async fn hear(node: &Node, mut said: Said) -> Result<(), Refused> {
    let mut buffer = BytesMut::new();
    let answer = timeout(PROOF_TIMEOUT, read_frame(&mut said.recv, &mut buffer, MAX_PROOF, None)).await;
    let proof: Proof = match answer {
        Err(_) => return Err(no_proof("silence")),
        Ok(Ok(Some(frame))) => decode(&frame).map_err(|_| no_proof("bytes that are none"))?,
        // The other side closed the connection or the stream, or speaks something else.
        Ok(Ok(None) | Err(LinkError::Closed(_) | LinkError::Lost(_))) => return Err((RefusedBy::Them, None)),
        Ok(Err(_)) => return Err(no_proof("bytes that are none")),
    };
    let judged = node.trust().judge_acceptor(&said.channel, &said.ends, &proof, seconds(node));
    judged.map_err(|(by, reason)| (by, Some(reason)))
}

/// Judges who has dialled by the first stream, which is left to the caller, and answers.
async fn admit(node: &Node, entry: &Arc<Entry>, first: &mut Option<(SendStream, RecvStream)>) -> Result<(), Refused> {
    let stages = async {
        let streams = entry.connection.accept_bi().await.map_err(|_| (RefusedBy::Them, None))?;
        let (send, recv) = first.insert(streams);
        let proof = first_words(node, recv).await?;
        let ends = ends(node, entry).ok_or((RefusedBy::Them, None))?;
        let (channel, proof) = match node.trust().judge_dialler(&ends, &proof, seconds(node)) {
            Ok(admitted) => admitted,
            Err(refused) => {
                let (reason, told) = *refused;
                if let Some(told) = told {
                    farewell(entry, send, &told).await;
                }
                return Err((RefusedBy::Us, Some(reason)));
            }
        };
        let frame = encode_frame(&proof, MAX_PROOF).map_err(|_| no_proof("this node's own is too long"))?;
        send.write_all_chunks(&mut [frame]).await.map_err(|_| (RefusedBy::Them, None))?;
        send.finish();
        let _ = entry.gate.channel.set(channel);
        Ok(())
    };
    timeout(PROOF_TIMEOUT, stages).await.unwrap_or(Err(no_proof("silence")))
}

/// The proof on the first stream of who has dialled. Of a preamble that is none of a proof only the network is looked at.
async fn first_words(node: &Node, recv: &mut RecvStream) -> Result<Proof, Refused> {
    let mut buffer = BytesMut::new();
    let frame = read_frame(recv, &mut buffer, MAX_PREAMBLE, None).await;
    let frame = frame.ok().flatten().ok_or_else(|| no_proof("bytes that are none"))?;
    let preamble: Preamble = decode(&frame).map_err(|_| no_proof("bytes that are none"))?;
    if preamble.protocol != PROOF {
        let (ours, theirs) = (node.network_id(), preamble.network);
        let kinds = Reason::WrongKind { ours: node.trust().kind(), theirs: Some(NetworkKind::Open) };
        let reason = if ours == theirs { kinds } else { Reason::OtherNetwork { ours, theirs } };
        return Err((RefusedBy::Us, Some(reason)));
    }
    let frame = read_frame(recv, &mut buffer, MAX_PROOF, None).await;
    let frame = frame.ok().flatten().ok_or_else(|| no_proof("bytes that are none"))?;
    decode(&frame).map_err(|_| no_proof("bytes that are none"))
}

/// Tells the holder of a ticket of the authority what is wrong with it, and gives it a moment to read that: who closes a connection
/// drops what is on its way.
async fn farewell(entry: &Entry, send: &mut SendStream, told: &Proof) {
    let Ok(frame) = encode_frame(told, MAX_PROOF) else { return };
    if send.write_all_chunks(&mut [frame]).await.is_ok() {
        send.finish();
        // It has asked for something already, which nobody looks at; it closes when it has read this, or its time is over.
        let closed = async { while entry.connection.accept_bi().await.is_ok() {} };
        let _ = timeout(FAREWELL, closed).await;
    }
}
