//! One subscription at its producer: handshake, waiting for admission, and writing.
//!
//! A session is one task. It owns the link; what it may write and when it must end it hears from [`Shared`].

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::shared::{Asked, Config, Next, Shared, Signal};
use crate::{
    discovery::{EntryError, PeerEntry, SignedEntry},
    network::{CloseCode, Link, RawLink},
    primitives::{Difference, Evolve, PeerId, figures, schema::Readable, watch},
    streams::{
        Registry,
        core::{
            SubId,
            admission::WaitReason,
            frames::{self, MAX_BATCH},
            log::take::Taken,
        },
        limits::{DRAIN, HANDSHAKE, HEADS, HEARTBEAT},
        owner::ownership,
        protocol::{Fingerprint, Message, Subscription, compatible, difference, sendable, show},
    },
    transport::{RecvStream, SendStream},
    trust::{Label, told},
};

/// The most bytes for one write: its end is what counts as progress of a subscriber.
const PIECE: usize = 64 << 10;
/// The same after a write that took long, so that a slow link is not taken for a stalled one.
const SMALL_PIECE: usize = 4 << 10;
const SLOW_WRITE: Duration = Duration::from_millis(250);
/// How many notes are read at once.
const NOTES: usize = 64;

/// Serves a link that a consumer opened, to its end.
pub(in crate::streams) async fn serve(registry: Arc<Registry>, mut link: Link<Subscription>) {
    let peer = link.peer();
    let request = timeout(HANDSHAKE, link.recv()).await;
    let (stream, fingerprint, entry, readable, label, owned, asked, wanted) = match request {
        Ok(Ok(Some(Message::Subscribe {
            stream,
            fingerprint,
            consumer,
            resume,
            replay,
            entry,
            readable,
            filter,
            label,
            replicated,
            heads,
            owned,
        }))) => {
            let asked = Asked { consumer, resume, replay, filter: None, replicated, heads };
            (stream, fingerprint, entry, readable, label, owned, asked, filter)
        }
        Ok(Ok(Some(_))) => return link.close(CloseCode::Undecodable),
        Ok(Ok(None)) => return link.close(CloseCode::Normal),
        Ok(Err(error)) => {
            tracing::debug!(?peer, %error, "subscription request failed");
            return;
        }
        Err(_) => return link.close(CloseCode::Timeout),
    };
    let Some(shared) = registry.find(stream) else { return refuse(link, CloseCode::StreamNotFound).await };
    drop(registry);
    if shared.config.label.as_ref().map(Label::as_str) != label.as_deref() {
        return refuse_label(link, &shared, label).await;
    }
    let ours = shared.config.fingerprint;
    if let Some(theirs) = owned.filter(|owned| *owned != shared.config.is_owned()) {
        return refuse_owner(link, &shared, theirs).await;
    }
    if !compatible(ours, fingerprint) {
        return refuse_schema(link, &shared, fingerprint, None).await;
    }
    if let Some(differs) = unreadable(&shared.config, fingerprint, readable.as_ref()) {
        return refuse_schema(link, &shared, fingerprint, Some(differs)).await;
    }
    let Some(entry) = known(&shared, peer, &entry) else { return refuse(link, CloseCode::UnknownPeer).await };
    let asked = match shared.filter(wanted.as_ref()) {
        Ok(filter) => Asked { filter, ..asked },
        Err(why) => {
            shared.refused(peer, CloseCode::NotFiltered);
            said(&mut link, &Message::NotFiltered(why)).await;
            return link.close(CloseCode::NotFiltered);
        }
    };
    let keeps_out = shared.keeps_out(&entry);
    match shared.request(entry, asked, keeps_out) {
        Ok((id, signal)) => run(Present { shared, id }, signal, link).await,
        Err(code) => {
            shared.refused(peer, code);
            refuse(link, code).await;
        }
    }
}

/// What keeps a consumer from reading the items of a stream that may grow. One that compares nothing takes what comes.
fn unreadable(config: &Config, theirs: Option<Fingerprint>, readable: Option<&Readable>) -> Option<Difference> {
    if config.evolve == Evolve::Strict || theirs.is_none() {
        return None;
    }
    let Some(readable) = readable.filter(|readable| readable.schema.is_sound()) else {
        let (path, ours, theirs) = ("shape".to_owned(), "compared".to_owned(), "too large to be told".to_owned());
        return Some(Difference { path, ours, theirs });
    };
    readable.unreadable(config.compared, true)
}

/// The consumer's entry: the one it brought, or a newer one that is known.
fn known(shared: &Shared, peer: PeerId, offered: &SignedEntry) -> Option<PeerEntry> {
    let entry = match shared.discovery.offer(peer, offered) {
        Ok(entry) => entry,
        Err(EntryError::Stale { .. }) => shared.discovery.catalog().get(peer)?.clone(),
        Err(error) => {
            tracing::debug!(?peer, %error, "the entry of a subscriber is not accepted");
            return None;
        }
    };
    debug_assert_eq!(entry.id(), peer, "discovery takes nobody else's");
    Some(entry)
}

async fn refuse(mut link: Link<Subscription>, code: CloseCode) {
    let refused = Message::Refused { code: code.code(), fingerprint: None, schema: None, label: None, owned: false };
    said(&mut link, &refused).await;
    link.close(code);
}

/// Says a last word. The consumer closes when it has read it, maybe after one of its own; a reset now would overtake ours.
async fn said(link: &mut Link<Subscription>, word: &Message) -> Option<Message> {
    link.send(word).await.ok()?;
    link.finish();
    timeout(DRAIN, link.recv()).await.ok()?.ok()?
}

/// Refuses a subscriber that declares another label.
async fn refuse_label(mut link: Link<Subscription>, shared: &Shared, theirs: Option<String>) {
    let (peer, code, config) = (link.peer(), CloseCode::Incompatible, &shared.config);
    shared.refused(peer, code);
    let label = config.label.as_ref().map(Label::to_string);
    let (ours, theirs) = (told(label.as_deref()).to_owned(), told(theirs.as_deref()));
    let stream = figures::label(config.stream.as_bytes(), config.stream);
    tracing::warn!(?peer, stream, ours, theirs, "subscriber declares another label; refused");
    let (code_sent, fingerprint, owned) = (code.code(), config.fingerprint, config.is_owned());
    said(&mut link, &Message::Refused { code: code_sent, fingerprint, schema: None, label, owned }).await;
    link.close(code);
}

/// Refuses a subscriber that says that a group owns the stream, or does not say so, other than this producer.
async fn refuse_owner(mut link: Link<Subscription>, shared: &Shared, theirs: bool) {
    let (peer, code, config) = (link.peer(), CloseCode::Incompatible, &shared.config);
    shared.refused(peer, code);
    let (ours, theirs) = (ownership(config.is_owned()), ownership(theirs));
    let stream = figures::label(config.stream.as_bytes(), config.stream);
    tracing::warn!(?peer, stream, ours, theirs, "subscriber declares another owner; refused");
    let (code_sent, fingerprint, owned) = (code.code(), config.fingerprint, config.is_owned());
    let label = config.label.as_ref().map(Label::to_string);
    said(&mut link, &Message::Refused { code: code_sent, fingerprint, schema: None, label, owned }).await;
    link.close(code);
}

/// Refuses a subscriber whose items have another shape, and says where they differ.
async fn refuse_schema(
    mut link: Link<Subscription>,
    shared: &Shared,
    theirs: Option<Fingerprint>,
    differs: Option<Difference>,
) {
    let (peer, code, config) = (link.peer(), CloseCode::Incompatible, &shared.config);
    shared.refused(peer, code);
    let (fingerprint, schema) = (config.fingerprint, sendable(config.compared));
    let label = config.label.as_ref().map(Label::to_string);
    let owned = config.is_owned();
    let answer = said(&mut link, &Message::Refused { code: code.code(), fingerprint, schema, label, owned }).await;
    link.close(code);
    let differs = differs.or_else(|| match answer {
        Some(Message::Schema(theirs)) => difference(config.compared, Some(&theirs)),
        _ => None,
    });
    let differs = differs.map_or_else(|| "where is not known".to_owned(), |differs| differs.to_string());
    let (stream, ours, theirs) =
        (figures::label(config.stream.as_bytes(), config.stream), show(fingerprint), show(theirs));
    tracing::warn!(?peer, stream, ours, theirs, differs, "subscriber declares another schema; refused");
}

/// Takes the subscription off the producer's lists however the session ends.
struct Present {
    shared: Arc<Shared>,
    id: SubId,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.shared.leave(self.id);
    }
}

async fn run(present: Present, mut signal: watch::Receiver<Signal>, mut link: Link<Subscription>) {
    let peer = link.peer();
    let stream = present.shared.config.stream;
    loop {
        let now = *signal.borrow_and_update();
        let message = match now {
            Signal::Wait(reason) => {
                tracing::debug!(?peer, ?stream, ?reason, "subscriber waits");
                let missing = (reason == WaitReason::NotGranted).then(|| present.shared.tells_missing(present.id));
                missing.flatten().map_or(Message::Waiting { reason }, Message::NotGranted)
            }
            Signal::Serve { epoch, next, replay } => {
                let owned = present.shared.config.is_owned();
                Message::Accepted { epoch, next, replay: replay.then_some(present.id), owned }
            }
            Signal::Close(code) => return link.close(code),
        };
        if let Err(error) = link.send(&message).await {
            tracing::debug!(?peer, ?stream, %error, "subscriber lost before it was served");
            return;
        }
        if let Signal::Serve { .. } = now {
            break;
        }
        tokio::select! {
            biased;
            changed = signal.changed() => if changed.is_err() { return link.close(CloseCode::Normal) },
            // Nothing is expected: it is the end, one way or the other.
            _ = link.recv() => return link.close(CloseCode::Normal),
        }
    }
    tracing::debug!(?peer, ?stream, "subscriber admitted");
    if present.shared.is_standby(present.id) {
        let code = tell_heads(&present, &mut signal, &mut link).await;
        tracing::debug!(?peer, ?stream, %code, "who stood by is gone");
        return link.close(code);
    }
    let RawLink { send, recv, connection: _connection, in_use: _in_use, .. } = link.into_raw();
    present.shared.carried(present.id, recv.lane());
    let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut writer = Writer { present, signal, send, notes: Some(recv), piece: PIECE, beat, busy: false };
    let code = writer.run().await;
    tracing::debug!(?peer, ?stream, %code, "subscriber gone");
    writer.send.reset(code.code());
    if let Some(mut notes) = writer.notes {
        notes.stop(code.code());
    }
}

/// Tells heads to who stands by, until its subscription ends: one for all items since the one before.
async fn tell_heads(
    present: &Present,
    signal: &mut watch::Receiver<Signal>,
    link: &mut Link<Subscription>,
) -> CloseCode {
    let (shared, id) = (&present.shared, present.id);
    let mut told = None;
    loop {
        let next = poll_fn(|cx| shared.poll_head(id, told, cx).map_or(Poll::Pending, Poll::Ready));
        let next = tokio::select! {
            biased;
            code = closed(signal) => return code,
            next = timeout(HEARTBEAT, next) => next.ok(),
            // Nothing is expected: it is the end, one way or the other.
            _ = link.recv() => return CloseCode::Normal,
        };
        let (epoch, next, digest) = match next {
            Some(Next::End(code, _)) => return code,
            Some(Next::Head(epoch, next, digest)) => (epoch, next, digest),
            // Nothing new: that it is there.
            _ => match shared.poll_head(id, None, &Context::from_waker(Waker::noop())) {
                Some(Next::Head(epoch, next, digest)) => (epoch, next, digest),
                _ => return CloseCode::Normal,
            },
        };
        told = Some(next);
        if let Err(error) = link.send(&Message::Head { epoch, next, digest }).await {
            tracing::debug!(peer = ?link.peer(), %error, "who stands by is lost");
            return CloseCode::Normal;
        }
        tokio::select! {
            biased;
            code = closed(signal) => return code,
            () = sleep_until(Instant::now() + HEADS) => {}
        }
    }
}

struct Writer {
    present: Present,
    signal: watch::Receiver<Signal>,
    send: SendStream,
    /// On which the consumer says that its user is reading, until it ends.
    notes: Option<RecvStream>,
    /// The most bytes for the next write.
    piece: usize,
    /// One for all waits: a timer for each would cost every single item one.
    beat: Interval,
    /// Whether items were written since the last beat.
    busy: bool,
}

impl Writer {
    /// Writes until the subscription ends; why it does.
    async fn run(&mut self) -> CloseCode {
        loop {
            let next = match self.next().await {
                Ok(next) => next,
                Err(code) => return code,
            };
            let result = match next {
                Next::Items(taken) => {
                    self.busy = true;
                    self.write_batch(taken).await
                }
                Next::Heartbeat(before, next) => self.write(&mut [frames::mark(before, next)]).await,
                Next::End(code, next) => Err(self.finish(code, next).await),
                // That is for those that stand by.
                Next::Head(..) => Ok(()),
            };
            if let Err(code) = result {
                return code;
            }
        }
    }

    /// What to write next. While there is something, nothing else is looked at: a write finds out by itself.
    async fn next(&mut self) -> Result<Next, CloseCode> {
        let (shared, id) = (&self.present.shared, self.present.id);
        let next = poll_fn(|cx| shared.poll_next(id, MAX_BATCH, cx).map_or(Poll::Pending, Poll::Ready));
        let idle = async {
            loop {
                self.beat.tick().await;
                if !std::mem::take(&mut self.busy) {
                    break;
                }
            }
        };
        tokio::select! {
            biased;
            next = next => Ok(next),
            code = closed(&mut self.signal) => Err(code),
            _ = self.send.stopped() => Err(CloseCode::Normal),
            () = idle => shared.heartbeat(id).map(|(before, next)| Next::Heartbeat(before, next)).ok_or(CloseCode::Normal),
        }
    }

    async fn write_batch(&mut self, taken: Taken) -> Result<(), CloseCode> {
        let (mut header, mut items) = (taken.header(), taken.items);
        let mut chunks = VecDeque::from(taken.chunks);
        let slice = self.present.shared.slice();
        while !chunks.is_empty() {
            let (bytes, mut piece) = cut(&mut chunks, self.piece.min(slice), header.take());
            if let Some(at) = self.present.shared.reserve(bytes) {
                self.pause(at).await?;
            }
            self.write(&mut piece).await?;
            let done = if chunks.is_empty() { std::mem::take(&mut items) } else { 0 };
            self.present.shared.wrote(self.present.id, bytes, done);
        }
        Ok(())
    }

    /// Writes a piece, unless the subscription ends or its consumer stalls: nothing of the piece gets through, and no note
    /// comes either. (The network's flow control lets go in large steps, which a slow consumer takes long for.)
    async fn write(&mut self, piece: &mut [Bytes]) -> Result<(), CloseCode> {
        let started = Instant::now();
        let shared = &self.present.shared;
        let stall = shared.stall_limit();
        let mut quiet_since = started;
        let write = self.send.write_all_chunks(piece);
        tokio::pin!(write);
        let written = loop {
            tokio::select! {
                biased;
                written = &mut write => break written.map_err(|_| CloseCode::Normal),
                code = closed(&mut self.signal) => break Err(code),
                reading = noted(&mut self.notes) => if reading {
                    quiet_since = Instant::now();
                },
                () = sleep_until(quiet_since + stall.unwrap_or_default()), if stall.is_some() => {
                    shared.expel(self.present.id, CloseCode::TooSlow);
                    break Err(CloseCode::TooSlow);
                }
            }
        };
        self.piece = if started.elapsed() > SLOW_WRITE { SMALL_PIECE } else { PIECE };
        written
    }

    /// Waits for the egress limit.
    async fn pause(&mut self, until: Instant) -> Result<(), CloseCode> {
        tokio::select! {
            biased;
            code = closed(&mut self.signal) => Err(code),
            _ = self.send.stopped() => Err(CloseCode::Normal),
            () = sleep_until(until) => Ok(()),
        }
    }

    /// Says that nothing follows and waits until the consumer has read it all.
    async fn finish(&mut self, code: CloseCode, next: u64) -> CloseCode {
        if let Err(code) = self.write(&mut [frames::end(code.code(), next)]).await {
            return code;
        }
        self.send.finish();
        tokio::select! {
            biased;
            _ = self.send.stopped() => {}
            _ = closed(&mut self.signal) => {}
            () = sleep_until(Instant::now() + DRAIN) => {}
        }
        code
    }
}

/// Resolves when the consumer says that its user is reading; false when it will not say so any more.
pub(super) async fn noted(notes: &mut Option<RecvStream>) -> bool {
    let Some(stream) = notes else { return std::future::pending().await };
    let reading = matches!(stream.read_chunk(NOTES).await, Ok(Some(_)));
    if !reading {
        *notes = None;
    }
    reading
}

/// Resolves when the session must end.
pub(super) async fn closed(signal: &mut watch::Receiver<Signal>) -> CloseCode {
    match signal.wait_for(|signal| matches!(signal, Signal::Close(_))).await.map(|signal| *signal) {
        Ok(Signal::Close(code)) => code,
        _ => CloseCode::Normal,
    }
}

/// Cuts up to `max` bytes off the front; how many, and the chunks of them behind `header`.
fn cut(chunks: &mut VecDeque<Bytes>, max: usize, header: Option<Bytes>) -> (usize, Vec<Bytes>) {
    let mut piece: Vec<Bytes> = header.into_iter().collect();
    let mut bytes = 0;
    while let Some(mut chunk) = chunks.pop_front() {
        if bytes + chunk.len() > max {
            let part = max - bytes;
            if part > 0 {
                piece.push(chunk.split_to(part));
            }
            chunks.push_front(chunk);
            bytes = max;
            break;
        }
        bytes += chunk.len();
        piece.push(chunk);
    }
    (bytes, piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_every_byte_once() {
        let whole: Vec<u8> = (0..=255).collect();
        let mut chunks: VecDeque<Bytes> = whole.chunks(100).map(Bytes::copy_from_slice).collect();
        let mut seen = Vec::new();
        let mut header = Some(Bytes::from_static(b"header"));
        while !chunks.is_empty() {
            let (bytes, piece) = cut(&mut chunks, 64, header.take());
            assert!(bytes <= 64);
            piece.iter().for_each(|chunk| seen.extend_from_slice(chunk));
        }
        assert_eq!(seen, [b"header", &whole[..]].concat());
    }
}
