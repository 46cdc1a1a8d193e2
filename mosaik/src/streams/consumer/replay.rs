//! Reading the replay that a subscription begins with: what the producer keeps for late joiners.
//!
//! It comes on a stream of its own. The live items that arrive meanwhile wait in the [`Intake`](super::reader::Intake) and are
//! handed on behind it. As many bytes of them may wait as were replayed so far, so that a live flow which is slower than the
//! replay never waits, however long that is; what waits is bounded by what the producer keeps.

use futures::FutureExt;
use tokio::{
    task::coop,
    time::{sleep_until, timeout},
};

use super::{
    reader::{End, NOTE, READ, Reader, interrupted, lost, stopped},
    subscription::Task,
};
use crate::{
    discovery::PeerEntry,
    network::{CloseCode, RawLink},
    streams::{
        core::frames::{Frame, FrameReader},
        events::{DisconnectReason, Event},
        limits::{HANDSHAKE, HELD},
        protocol::{Replay, ReplayMessage},
    },
};

impl Task {
    /// Asks for the replay and hands it on to its end, and then what has arrived of the live flow.
    pub(super) async fn replay(
        &mut self,
        reader: &mut Reader,
        entry: &PeerEntry,
        epoch: u64,
        ticket: u64,
    ) -> Result<(), End> {
        let mut link = self.ask(entry, ticket).await?;
        let result = self.read_replay(reader, &mut link, epoch).await;
        let code = if result.is_ok() { CloseCode::Normal } else { CloseCode::NotAllowed };
        link.send.reset(code.code());
        link.recv.stop(code.code());
        result?;
        while let Some(frame) = reader.intake.frames.next_frame().map_err(malformed)? {
            self.take_frame(frame, epoch)?;
            if !self.channel.has_room() {
                reader.wait_for_room(&self.shared, &self.channel, &mut self.wanted).await?;
            }
        }
        Ok(())
    }

    async fn ask(&mut self, entry: &PeerEntry, ticket: u64) -> Result<RawLink, End> {
        let (shared, stream) = (&self.shared, self.shared.stream);
        let opening = async {
            let mut link = shared.registry.node.open::<Replay>(entry.addr()).await?;
            link.send(&ReplayMessage::Ask { stream, ticket }).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(link.into_raw())
        };
        tokio::select! {
            biased;
            end = interrupted(shared, &self.channel, &mut self.wanted) => Err(end),
            opened = timeout(HANDSHAKE, opening) => match opened {
                Ok(Ok(link)) => Ok(link),
                Ok(Err(error)) => Err(DisconnectReason::Lost(error.to_string()).into()),
                Err(_) => Err(DisconnectReason::Lost("no stream for the replay".into()).into()),
            },
        }
    }

    async fn read_replay(&mut self, reader: &mut Reader, link: &mut RawLink, epoch: u64) -> Result<(), End> {
        let mut frames = FrameReader::default();
        let (mut items, mut bytes) = (0, 0);
        loop {
            while let Some(frame) = frames.next_frame().map_err(malformed)? {
                match frame {
                    Frame::Items { first, count, data } => {
                        let step = self.progress.replayed(first, u64::from(count)).map_err(malformed)?;
                        items += u64::from(count) - step.skip;
                        self.take_items(first, u64::from(count), &data, step, epoch)?;
                        if !self.channel.has_room() {
                            reader.wait_for_room(&self.shared, &self.channel, &mut self.wanted).await?;
                        }
                    }
                    Frame::End { next, .. } => {
                        let missed = self.progress.replay_ended(next).map_err(malformed)?;
                        self.missed(missed);
                        let producer = self.channel.peer;
                        tracing::debug!(peer = ?producer, stream = ?self.shared.stream, items, next, "replayed");
                        self.shared.events.send(Event::Replayed { producer, items, next });
                        return Ok(());
                    }
                    Frame::Filtered { next } if self.shared.filter.is_some() => {
                        self.progress.filtered(next).map_err(malformed)?;
                    }
                    Frame::Mark { .. } | Frame::Filtered { .. } => return Err(malformed("a mark in a replay")),
                }
            }
            if reader.noted.0.elapsed() >= NOTE {
                // The producer must not take either stream for a stalled one.
                if reader.note(&self.channel) {
                    let _ = link.send.write_all(&[1]).now_or_never();
                }
            }
            tokio::select! {
                biased;
                end = interrupted(&self.shared, &self.channel, &mut self.wanted) => return Err(end),
                chunk = reader.link.recv.read_chunk(READ), if reader.intake.waits(HELD.max(bytes)) => reader.intake.hold(chunk),
                code = stopped(&mut reader.link.send), if !reader.orderly => reader.stopped(code)?,
                chunk = link.recv.read_chunk(READ) => match chunk {
                    Ok(Some(chunk)) => {
                        bytes += chunk.len();
                        frames.push(&chunk);
                    }
                    Ok(None) => return Err(DisconnectReason::Lost("the replay ended without a word".into()).into()),
                    Err(error) => return Err(lost(error)),
                },
                () = sleep_until(reader.noted.0 + NOTE) => {}
            }
            coop::consume_budget().await;
        }
    }
}

fn malformed(error: impl std::fmt::Display) -> End {
    DisconnectReason::Undecodable(error.to_string()).into()
}
