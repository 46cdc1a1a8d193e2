//! The producing side of a stream: the [`Producer`] handle.
//!
//! A handle encodes items and appends them to the one log of its stream ([`shared`]); one session per subscriber writes
//! them out ([`session`]), and one worker keeps admission and the lag policy going ([`worker`]).

mod builder;
mod encode;
mod replay;
mod sending;
mod session;
mod shared;
mod subscribers;
#[cfg(test)]
mod tests;
mod waits;
mod worker;

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::Sink;
use tokio::task::coop;

pub use self::builder::ProducerBuilder;
use self::encode::Scratch;
pub(super) use self::encode::item_format;
pub(super) use self::{
    replay::serve as serve_replay,
    session::serve,
    shared::{Predicate, Shared},
    subscribers::ask,
    waits::Waiting,
};
use super::{
    Registry,
    conditions::When,
    core::{
        frames::{ITEM_HEADER, split_item},
        retain::Label,
    },
    error::{SendError, SendErrorKind, TrySendError},
    owner::Committed,
    producer::shared::Push,
    stats::{ChannelInfo, Stats},
};
use crate::{
    network::CloseCode,
    primitives::{
        Datum, Format, StreamId, Streamed,
        codec::{Codec, DecodeError, Untyped},
    },
};

/// Sends items of one stream to every subscriber. Cheap to clone; the stream closes when the last clone is dropped.
///
/// It is a `futures::Sink`, with [`send`](Self::send) and [`try_send`](Self::try_send) of its own that need no `&mut`.
/// Items go out without a flush.
///
/// ```
/// use mosaik::{Network, NetworkId};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network_id = NetworkId::random();
/// let (here, there) = (Network::new(network_id).await?, Network::new(network_id).await?);
/// let prices = here.streams().produce::<u64>();
/// let mut seen = there.streams().consume::<u64>();
///
/// prices.send(42).await?; // waits until there is a consumer
/// assert_eq!(seen.recv().await, Some(42));
/// # Ok(())
/// # }
/// ```
pub struct Producer<T> {
    handle: Arc<Handle>,
    codec: Untyped,
    stream: PhantomData<fn(T)>,
    /// This handle's place among those that wait, for the `Sink` methods.
    waiting: Option<u64>,
}

/// An item as it will be sent.
#[derive(Debug)]
pub(crate) struct Encoded<T> {
    framed: Vec<u8>,
    label: Label,
    codec: Codec<T>,
}

impl<T: Datum> Encoded<T> {
    /// The item's bytes behind a byte that tells their format.
    pub(crate) fn marked(&self) -> Vec<u8> {
        let (format, payload) = self.parts();
        let mut marked = Vec::with_capacity(1 + payload.len());
        marked.push(format.byte());
        marked.extend_from_slice(payload);
        marked
    }

    /// The item as it is sent.
    pub(crate) fn framed(&self) -> &[u8] {
        &self.framed
    }

    /// The item once more.
    pub(crate) fn decode(&self) -> Result<T, DecodeError> {
        let (format, payload) = self.parts();
        self.codec.decode(format, payload)
    }

    fn parts(&self) -> (Format, &[u8]) {
        (item_format(&self.framed), split_item(&self.framed).map_or(&[], |(payload, _)| payload))
    }
}

/// What all clones share; its end is the end of the stream.
pub(crate) struct Handle {
    pub(super) shared: Arc<Shared>,
    registry: Arc<Registry>,
}

impl Handle {
    fn close(&self) {
        self.shared.close(CloseCode::Normal);
        self.registry.producer_closed(&self.shared);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T: Streamed> Producer<T> {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        let codec = Codec::<T::Item>::chosen(handle.shared.config.format).into();
        Self { handle, codec, stream: PhantomData, waiting: None }
    }

    #[inline]
    const fn codec(&self) -> Codec<T::Item> {
        self.codec.typed()
    }

    /// As [`with_undelivered`](ProducerBuilder::with_undelivered), unless that was set.
    pub(crate) fn set_undelivered(&self, items: tokio::sync::mpsc::Sender<T::Item>) {
        let config = &self.handle.shared.config;
        // Set already: by who built the producer, and then that one gets them.
        let _ = config.undelivered.set(builder::returning(config.stream, config.format, items));
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Sends an item. Waits while the stream is offline, and for room as the [`OnLag`](super::OnLag) policy says; resolves when
    /// the item is in every subscriber's queue, which is before it is on the wire. Cancellation-safe: when it has not
    /// resolved, nothing was sent. Items of one handle keep their order.
    ///
    /// # Errors
    /// When the stream is closed, or the item cannot be encoded or is larger than 16 MiB; the error hands it back.
    pub fn send(&self, item: T::Item) -> impl Future<Output = Result<(), SendError<T::Item>>> + Send + use<'_, T> {
        Sending { shared: &self.handle.shared, codec: self.codec(), item: Some(item), encoded: None, waiting: None }
    }

    /// Encodes an item, for [`send_encoded`](Self::send_encoded) of the same producer.
    pub(crate) fn encode(&self, item: &T::Item) -> Result<Encoded<T::Item>, SendErrorKind> {
        let mut scratch = Scratch::take();
        scratch.encode(self.codec(), item)?;
        Ok(Encoded { framed: scratch.keep(), label: self.shared().label_of(item), codec: self.codec() })
    }

    /// As [`send`](Self::send), of what was encoded before. Fails only when the stream is closed.
    pub(crate) fn send_encoded(
        &self,
        item: Encoded<T::Item>,
    ) -> impl Future<Output = Result<(), SendError<T::Item>>> + Send + use<'_, T> {
        let encoded = Some((item.framed, item.label));
        Sending { shared: &self.handle.shared, codec: self.codec(), item: None, encoded, waiting: None }
    }

    /// Sends an item if that needs no waiting.
    ///
    /// # Errors
    /// As [`send`](Self::send), and when the stream is offline or there is no room; the error hands the item back.
    pub fn try_send(&self, item: T::Item) -> Result<(), TrySendError<T::Item>> {
        let mut scratch = Scratch::take();
        if let Err(kind) = scratch.encode(self.codec(), &item) {
            return Err(TrySendError::new(kind, Some(item)));
        }
        let mut label = self.shared().label_of(&item);
        let kind = match self.shared().push(scratch.framed(), &mut label, None) {
            Push::Sent => return Ok(()),
            Push::Full => SendErrorKind::Full,
            Push::Offline => SendErrorKind::Offline,
            other => refused(other, scratch.framed().len()),
        };
        Err(TrySendError::new(kind, Some(item)))
    }

    /// Resolves when it is known what became of everything that was sent before on a stream that a
    /// [group owns](ProducerBuilder::owned_by), to counts of all that this producer has sent. Of other streams nothing is counted.
    /// Cancellation-safe.
    pub async fn committed(&self) -> Committed {
        match self.shared().config.owner.get() {
            Some(owner) => owner.committed().await,
            None => Committed::default(),
        }
    }

    /// Whether the online condition holds.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.shared().topology().borrow().online
    }

    /// Futures that wait for subscribers.
    pub fn when(&self) -> When {
        When::new(self.shared().topology())
    }

    /// The subscribers that are served now, in the order in which they came.
    pub fn consumers(&self) -> impl Iterator<Item = ChannelInfo> + use<T> {
        self.shared().consumers().into_iter()
    }

    /// Figures of the stream: what was sent, and what reached no one.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// The stream's id.
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        self.shared().config.stream
    }

    /// Ends the stream for all handles, as dropping the last of them does.
    pub(crate) fn close(&self) {
        self.handle.close();
    }

    /// The number of this run of the stream: a later one has a greater one.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared().epoch()
    }

    /// An epoch after the present one and that one.
    pub(crate) fn epoch_after(&self, epoch: u64) -> u64 {
        self.handle.registry.epoch_after(epoch.max(self.epoch()))
    }

    /// Begins a new run, as if the producer had started anew: items count from 0 again, nothing of the old run is kept, and
    /// subscribers are closed, so that they come back to the new one.
    pub(crate) fn begin_anew(&self, epoch: u64) {
        self.shared().begin_anew(epoch);
    }
}

impl<T> Clone for Producer<T> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), codec: self.codec, stream: PhantomData, waiting: None }
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        forget(&self.handle.shared, &mut self.waiting);
    }
}

/// A sender waits no longer, if it did.
#[inline]
fn forget(shared: &Shared, waiting: &mut Option<u64>) {
    if let Some(key) = waiting.take() {
        shared.forget_sender(key);
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.shared.fmt(f)
    }
}

impl<T: Streamed> Sink<T::Item> for Producer<T> {
    type Error = SendError<T::Item>;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T::Item>>> {
        let coop = ready!(coop::poll_proceed(cx));
        let Self { handle, waiting, .. } = &mut *self;
        match handle.shared.poll_room((waiting, cx)) {
            Push::Sent => {
                coop.made_progress();
                forget(&handle.shared, waiting);
                Poll::Ready(Ok(()))
            }
            Push::Full | Push::Offline => Poll::Pending,
            other => Poll::Ready(Err(SendError::new(refused(other, 0), None))),
        }
    }

    fn start_send(self: Pin<&mut Self>, item: T::Item) -> Result<(), SendError<T::Item>> {
        let mut scratch = Scratch::take();
        if let Err(kind) = scratch.encode(self.codec(), &item) {
            return Err(SendError::new(kind, Some(item)));
        }
        match self.shared().push_reserved(scratch.framed(), &mut self.shared().label_of(&item)) {
            Push::Sent => Ok(()),
            other => Err(SendError::new(refused(other, scratch.framed().len()), Some(item))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), SendError<T::Item>>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), SendError<T::Item>>> {
        Poll::Ready(Ok(()))
    }
}

/// The future of [`Producer::send`].
struct Sending<'a, T> {
    shared: &'a Shared,
    codec: Codec<T>,
    item: Option<T>,
    /// The item as bytes, and its label, once it has had to wait.
    encoded: Option<(Vec<u8>, Label)>,
    waiting: Option<u64>,
}

impl<T> Unpin for Sending<'_, T> {}

impl<T: Datum> Future for Sending<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let coop = ready!(coop::poll_proceed(cx));
        let Self { shared, codec, item, encoded, waiting } = &mut *self;
        let mut size = 0;
        let push = if let Some((framed, label)) = encoded {
            shared.push(framed, label, Some((waiting, cx)))
        } else {
            let Some(datum) = item.as_ref() else { return Poll::Pending };
            let mut scratch = Scratch::take();
            if let Err(kind) = scratch.encode(*codec, datum) {
                return Poll::Ready(Err(SendError::new(kind, item.take())));
            }
            let mut label = shared.label_of(datum);
            size = scratch.framed().len();
            let push = shared.push(scratch.framed(), &mut label, Some((waiting, cx)));
            if matches!(push, Push::Full | Push::Offline) {
                *encoded = Some((scratch.keep(), label));
            }
            push
        };
        match push {
            Push::Sent => {
                coop.made_progress();
                *item = None;
                forget(shared, waiting);
                Poll::Ready(Ok(()))
            }
            Push::Full | Push::Offline => Poll::Pending,
            other => Poll::Ready(Err(SendError::new(refused(other, size), item.take()))),
        }
    }
}

/// Why an item of so many bytes, framed, will never be sent.
const fn refused(push: Push, framed: usize) -> SendErrorKind {
    match push {
        Push::NotLeader => SendErrorKind::NotLeader,
        Push::TooLarge => SendErrorKind::TooLargeForGroup { size: framed.saturating_sub(ITEM_HEADER) },
        Push::Sent | Push::Full | Push::Offline | Push::Closed => SendErrorKind::Closed,
    }
}

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        forget(self.shared, &mut self.waiting);
    }
}
