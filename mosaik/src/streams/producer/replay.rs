//! The replay of what is kept, to one late joiner: on a stream of its own, paced, so that the live flow is not held up.
//!
//! The consumer opens it with the ticket of its subscription. It lives no longer than that.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    session::{closed, noted},
    shared::{Shared, Signal},
};
use crate::{
    network::{CloseCode, Link, RawLink},
    primitives::{PeerId, watch},
    streams::{
        Registry,
        core::{SubId, frames, retain},
        limits::{DRAIN, HANDSHAKE},
        protocol::{Replay, ReplayMessage},
    },
    transport::{RecvStream, SendStream},
};

/// The most bytes for one write, unless it is one larger item. Larger ones are in the way of live items for longer.
const PIECE: usize = 8 << 10;

/// Serves a replay link that a consumer opened, to its end.
pub(in crate::streams) async fn serve(registry: Arc<Registry>, mut link: Link<Replay>) {
    let peer = link.peer();
    let (stream, ticket) = match timeout(HANDSHAKE, link.recv()).await {
        Ok(Ok(Some(ReplayMessage::Ask { stream, ticket }))) => (stream, ticket),
        Ok(Ok(None)) => return link.close(CloseCode::Normal),
        Ok(Err(error)) => {
            tracing::debug!(?peer, %error, "replay request failed");
            return;
        }
        Err(_) => return link.close(CloseCode::Timeout),
    };
    let Some(shared) = registry.find(stream) else { return link.close(CloseCode::StreamNotFound) };
    drop(registry);
    let Some(taken) = shared.take_replay(peer, ticket) else { return link.close(CloseCode::NotAllowed) };
    let RawLink { send, recv, connection: _connection, in_use: _in_use, .. } = link.into_raw();
    let signal = taken.signal;
    let mut writer = Writer { shared, id: ticket, signal, send, notes: Some(recv), at: Instant::now() };
    let code = writer.run(taken.replay, taken.cut).await;
    tracing::debug!(?peer, ?stream, %code, "replay over");
    if code != CloseCode::Normal {
        writer.send.reset(code.code());
    }
}

/// What a subscription is to be replayed.
pub(super) struct Ticket {
    replay: retain::Replay,
    cut: u64,
    signal: watch::Receiver<Signal>,
}

impl Shared {
    /// The replay of a subscription of this peer, once.
    fn take_replay(&self, peer: PeerId, ticket: SubId) -> Option<Ticket> {
        let mut state = self.state();
        let sub = state.subs.get_mut(&ticket).filter(|sub| sub.entry.id() == peer)?;
        let replay = sub.replay.take()?;
        let Signal::Serve { next: cut, .. } = *sub.signal.borrow() else { return None };
        Some(Ticket { replay, cut, signal: sub.signal.subscribe() })
    }

    /// When so many bytes of a replay may be written: replays share a pace, and the egress limit with the live flow.
    fn pace_replay(&self, bytes: usize) -> Option<Instant> {
        let now = self.now();
        let at = self.state().replay_pace.reserve(bytes, now);
        let at = (at > now).then(|| self.at(at));
        at.max(self.reserve(bytes))
    }
}

struct Writer {
    shared: Arc<Shared>,
    id: SubId,
    signal: watch::Receiver<Signal>,
    send: SendStream,
    /// On which the consumer says that its user is reading, until it ends.
    notes: Option<RecvStream>,
    /// When the next piece may be written.
    at: Instant,
}

impl Writer {
    /// Writes all of it; `Normal` if it got there.
    async fn run(&mut self, mut replay: retain::Replay, cut: u64) -> CloseCode {
        let max = PIECE.min(self.shared.slice());
        while let Some(mut piece) = replay.piece(max) {
            let bytes = piece.iter().map(Bytes::len).sum();
            if let Some(at) = self.shared.pace_replay(bytes) {
                self.at = at;
            }
            if let Err(code) = self.write(&mut piece).await {
                return code;
            }
        }
        if let Err(code) = self.write(&mut [frames::end(CloseCode::Normal.code(), cut)]).await {
            return code;
        }
        self.send.finish();
        tokio::select! {
            biased;
            _ = self.send.stopped() => {}
            _ = closed(&mut self.signal) => {}
            () = sleep_until(Instant::now() + DRAIN) => {}
        }
        CloseCode::Normal
    }

    /// Writes a piece when its time has come, unless the subscription ends or its consumer stalls.
    async fn write(&mut self, piece: &mut [Bytes]) -> Result<(), CloseCode> {
        tokio::select! {
            biased;
            code = closed(&mut self.signal) => return Err(code),
            _ = self.send.stopped() => return Err(CloseCode::TooSlow),
            () = sleep_until(self.at) => {}
        }
        let stall: Option<Duration> = self.shared.stall_limit();
        let mut quiet_since = Instant::now();
        let write = self.send.write_all_chunks(piece);
        tokio::pin!(write);
        loop {
            tokio::select! {
                biased;
                written = &mut write => return written.map_err(|_| CloseCode::NotAllowed),
                code = closed(&mut self.signal) => return Err(code),
                reading = noted(&mut self.notes) => if reading {
                    quiet_since = Instant::now();
                },
                () = sleep_until(quiet_since + stall.unwrap_or_default()), if stall.is_some() => {
                    self.shared.expel(self.id, CloseCode::TooSlow);
                    return Err(CloseCode::TooSlow);
                }
            }
        }
    }
}
