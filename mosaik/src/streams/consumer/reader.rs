//! Reading one subscription: bytes from the link become frames, and its end becomes an [`End`].
//!
//! What arrived is taken in passes, and the end of a stream may be in the same pass as the last items: it is told after them.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::time::{Instant, sleep_until};

use super::{channel::Channel, shared::Shared};
use crate::{
    discovery::PeerEntry,
    network::{CloseCode, RawLink},
    primitives::{Difference, watch},
    streams::{core::frames::FrameReader, events::DisconnectReason},
    transport::{ConnectionLost, ReadError, SendStream},
    trust::MissingGrant,
};

/// How much is read before it is handed on.
pub(super) const READ: usize = 128 << 10;
/// How often a producer is told that the user reads, if slowly.
pub(super) const NOTE: Duration = Duration::from_millis(500);

/// Whether there should be a subscription.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wanted {
    Yes(PeerEntry),
    /// Only of its heads, while others are preferred.
    Standby(PeerEntry),
    /// Not while others are preferred; an existing one ends.
    Spare(PeerEntry),
    /// Not a new one, as the producer is not there. An existing one goes on.
    Gone,
    /// Not a new one, and an existing one ends: the predicate says so, or the producer's ticket if that is what it lacks.
    No(Option<MissingGrant>),
}

/// Why an attempt is over.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End {
    /// The consumer is gone.
    Cancelled,
    /// No link, or none that lasted: nothing to tell the user.
    Unreachable,
    /// It stood by, and is taken now.
    Promoted,
    Disconnected(DisconnectReason),
    Incompatible {
        theirs: Option<[u8; 32]>,
        /// Where schemas differ, if the producer told its own.
        differs: Option<Difference>,
    },
    /// The producer declares this label, or none.
    Labelled(Option<String>),
    /// The producer declares that a group owns the stream, or that none does.
    Owned(bool),
}

impl From<DisconnectReason> for End {
    fn from(reason: DisconnectReason) -> Self {
        Self::Disconnected(reason)
    }
}

/// What came off the stream and was not handed on yet.
#[derive(Debug, Default)]
pub(super) struct Intake {
    pub(super) frames: FrameReader,
    /// How the stream ended, while what was read before is handed on.
    end: Option<End>,
    /// Bytes that wait for the end of a replay.
    held: usize,
}

impl Intake {
    /// Takes what is there already, up to [`READ`] bytes; `next` gives `None` when there is no more yet. The end of the
    /// stream is told at once only if nothing came before it, else by [`ended`](Self::ended).
    fn fill(&mut self, mut next: impl FnMut() -> Option<Result<Option<Bytes>, ReadError>>) -> Result<usize, End> {
        let mut read = 0;
        while read < READ {
            let Some(chunk) = next() else { break };
            match self.take(chunk) {
                Ok(taken) => read += taken,
                Err(end) if read == 0 => return Err(end),
                Err(end) => {
                    self.end = Some(end);
                    break;
                }
            }
        }
        Ok(read)
    }

    /// The end that [`fill`](Self::fill) kept back.
    fn ended(&mut self) -> Result<(), End> {
        self.end.take().map_or(Ok(()), Err)
    }

    /// Whether more is to be read while a replay is under way.
    pub(super) fn waits(&self, limit: usize) -> bool {
        self.end.is_none() && self.held < limit
    }

    /// Takes what is handed on after the replay; the end of the stream too.
    pub(super) fn hold(&mut self, chunk: Result<Option<Bytes>, ReadError>) {
        match self.take(chunk) {
            Ok(taken) => self.held += taken,
            Err(end) => self.end = Some(end),
        }
    }

    fn take(&mut self, chunk: Result<Option<Bytes>, ReadError>) -> Result<usize, End> {
        match chunk {
            Ok(Some(chunk)) => {
                self.frames.push(&chunk);
                Ok(chunk.len())
            }
            Ok(None) => Err(DisconnectReason::Lost("the stream ended without a word".into()).into()),
            Err(error) => Err(lost(error)),
        }
    }
}

/// What a read that failed means.
pub(super) fn lost(error: ReadError) -> End {
    match error {
        ReadError::Reset { code } | ReadError::Lost(ConnectionLost::ClosedByPeer { code }) => {
            DisconnectReason::Closed(code.into()).into()
        }
        ReadError::Lost(lost) => DisconnectReason::Lost(lost.to_string()).into(),
    }
}

pub(super) struct Reader {
    pub(super) link: RawLink,
    pub(super) intake: Intake,
    /// The producer has said that it is done, and what it wrote before can still be read.
    pub(super) orderly: bool,
    /// When the producer was last told that the user reads, and what had been read by then.
    pub(super) noted: (Instant, u64),
}

impl Reader {
    pub(super) fn new(mut link: RawLink) -> Self {
        let mut intake = Intake::default();
        intake.frames.push(&std::mem::take(&mut link.buffered));
        Self { link, intake, orderly: false, noted: (Instant::now(), 0) }
    }

    /// Reads what is there, at least something. The end of the stream is told only when there is nothing before it.
    pub(super) async fn read(
        &mut self,
        shared: &Shared,
        channel: &Channel,
        wanted: &mut watch::Receiver<Wanted>,
    ) -> Result<(), End> {
        self.intake.ended()?;
        if !channel.has_room() {
            self.wait_for_room(shared, channel, wanted).await?;
        }
        let recv = &mut self.link.recv;
        let mut read = self.intake.fill(|| recv.read_chunk(READ).now_or_never())?;
        while read == 0 {
            let chunk = tokio::select! {
                biased;
                chunk = self.link.recv.read_chunk(READ) => chunk,
                code = stopped(&mut self.link.send), if !self.orderly => {
                    self.stopped(code)?;
                    continue;
                }
                end = interrupted(shared, channel, wanted) => return Err(end),
            };
            read = self.intake.take(chunk)?;
        }
        Ok(())
    }

    /// The user does not read: waits, but not for a producer that has given up on us.
    pub(super) async fn wait_for_room(
        &mut self,
        shared: &Shared,
        channel: &Channel,
        wanted: &mut watch::Receiver<Wanted>,
    ) -> Result<(), End> {
        loop {
            tokio::select! {
                biased;
                () = channel.room() => return Ok(()),
                code = stopped(&mut self.link.send), if !self.orderly => self.stopped(code)?,
                end = interrupted(shared, channel, wanted) => return Err(end),
                () = sleep_until(self.noted.0 + NOTE) => {
                    self.note(channel);
                }
            }
        }
    }

    /// Tells the producer that the user reads, and returns whether it does. It may not notice otherwise, see `Writer::write`
    /// there.
    pub(super) fn note(&mut self, channel: &Channel) -> bool {
        let read = channel.read_so_far();
        let reads = read != self.noted.1;
        if reads {
            // One byte; if the window has no room for it, there are enough on their way.
            let _ = self.link.send.write_all(&[1]).now_or_never();
        }
        self.noted = (Instant::now(), read);
        reads
    }

    /// The producer stops our sending half as it ends a subscription, because that reaches us past what we have not read.
    pub(super) fn stopped(&mut self, code: Result<CloseCode, ConnectionLost>) -> Result<(), End> {
        match code {
            Ok(CloseCode::Normal | CloseCode::ShuttingDown) => {
                self.orderly = true;
                Ok(())
            }
            Ok(code) => Err(DisconnectReason::Closed(code).into()),
            Err(ConnectionLost::ClosedByPeer { code }) => Err(DisconnectReason::Closed(code.into()).into()),
            Err(lost) => Err(DisconnectReason::Lost(lost.to_string()).into()),
        }
    }
}

pub(super) async fn stopped(send: &mut SendStream) -> Result<CloseCode, ConnectionLost> {
    send.stopped().await.map(|code| code.map_or(CloseCode::Normal, CloseCode::from))
}

/// Resolves when this side ends the subscription.
pub(super) async fn interrupted(shared: &Shared, channel: &Channel, wanted: &mut watch::Receiver<Wanted>) -> End {
    let unwanted = async {
        let over = |wanted: &Wanted| match wanted {
            Wanted::No(_) | Wanted::Spare(_) => true,
            Wanted::Yes(_) => channel.stands_by(),
            Wanted::Standby(_) => !channel.stands_by(),
            Wanted::Gone => false,
        };
        match wanted.wait_for(over).await.map(|wanted| wanted.clone()) {
            Ok(Wanted::Yes(_)) => End::Promoted,
            Ok(Wanted::No(Some(missing))) => DisconnectReason::NotGranted(missing).into(),
            Ok(Wanted::No(None)) => DisconnectReason::NotAllowed.into(),
            Ok(_) => DisconnectReason::NotChosen.into(),
            Err(_) => std::future::pending().await, // the worker is gone, the token follows
        }
    };
    tokio::select! {
        biased;
        () = shared.cancel.cancelled() => End::Cancelled,
        error = channel.failure() => DisconnectReason::Undecodable(error).into(),
        end = unwanted => end,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::streams::core::frames::{self, Between, Frame};

    type Chunk = Option<Result<Option<Bytes>, ReadError>>;

    /// One item, and the orderly end of the subscription if `end`.
    fn wire(end: bool) -> Bytes {
        let mut wire = frames::batch_header(7, 1, 6, Between::Nothing).to_vec();
        wire.extend_from_slice(&[2, 0, 0, 0, 1, 2]);
        if end {
            wire.extend_from_slice(&frames::end(CloseCode::ShuttingDown.code(), 8));
        }
        wire.into()
    }

    fn pass(intake: &mut Intake, chunks: Vec<Chunk>) -> Result<usize, End> {
        let mut chunks = VecDeque::from(chunks);
        intake.fill(|| chunks.pop_front().flatten())
    }

    fn items(intake: &mut Intake) -> Vec<(u64, u32)> {
        let mut items = Vec::new();
        while let Ok(Some(frame)) = intake.frames.next_frame() {
            if let Frame::Items { first, count, .. } = frame {
                items.push((first, count));
            }
        }
        items
    }

    /// The last items and the end of the stream arrive before the task runs once.
    #[test]
    fn items_that_arrive_with_the_end_are_handed_on_before_it() {
        let reset = || Err(ReadError::Reset { code: CloseCode::Normal.code() });
        let lost = || Err(ReadError::Lost(ConnectionLost::TimedOut));
        for end in [Ok(None), reset(), lost()] {
            let mut intake = Intake::default();
            let wire = wire(end == Ok(None));
            let length = wire.len();
            assert_eq!(pass(&mut intake, vec![Some(Ok(Some(wire))), Some(end)]), Ok(length));
            assert_eq!(items(&mut intake), [(7, 1)]);
            assert!(matches!(intake.ended(), Err(End::Disconnected(_))), "and then the end is told");
        }
    }

    #[test]
    fn an_end_with_nothing_before_it_is_told_at_once() {
        let mut intake = Intake::default();
        assert_eq!(pass(&mut intake, vec![None]), Ok(0));
        let reset = Err(ReadError::Reset { code: CloseCode::TooSlow.code() });
        let told = End::Disconnected(DisconnectReason::Closed(CloseCode::TooSlow));
        assert_eq!(pass(&mut intake, vec![Some(reset)]), Err(told));
        assert_eq!(intake.ended(), Ok(()));
    }
}
