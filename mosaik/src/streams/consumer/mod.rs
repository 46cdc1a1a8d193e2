//! The consuming side of a stream: the [`Consumer`] handle.
//!
//! One worker decides which producers to subscribe to ([`worker`]), one task per producer keeps the subscription and
//! reads it ([`subscription`]), and the handle decodes items from the batches that they queue ([`merge`]).

mod ahead;
mod builder;
mod channel;
mod merge;
mod preference;
mod reader;
mod replay;
mod shared;
mod subscription;
mod worker;

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, Stream};
use tokio::task::coop;

pub use self::builder::ConsumerBuilder;
use self::{
    ahead::{Decoded, Framed},
    channel::Channel,
    merge::Batch,
};
pub(super) use self::{channel::Standing, shared::Shared};
use super::{
    conditions::When,
    core::progress::{GapReason, Missed},
    events::{Event, Events},
    stats::{ChannelInfo, Stats},
};
use crate::primitives::{
    Fence, PeerId, StreamId, Streamed,
    codec::{Codec, DecodeError, Untyped},
};

/// Receives the items of one stream from every producer that qualifies. It is a `futures::Stream`; dropping it ends its
/// subscriptions.
///
/// Items of one producer come in order, each at most once; those of several are mixed as they arrive. What is missed is
/// told by [`events`](Self::events) and counted in [`stats`](Self::stats). A consumer that is not read holds up to 512 KiB per
/// producer (and one item more; what is written with MessagePack may be decoded by then), then the network's flow control holds the producer back.
///
/// ```no_run
/// # async fn example(network: &mosaik::Network) {
/// let mut prices = network.streams().consume::<u64>();
/// let mut events = prices.events();
/// loop {
///     tokio::select! {
///         biased;
///         Some(event) = events.recv() => println!("{event:?}"), // connections, gaps, refusals
///         item = prices.recv_from() => {
///             let Some((price, origin)) = item else { return }; // the network is shut down
///             println!("{price} is item {} of {}", origin.seq, origin.producer);
///         }
///     }
/// }
/// # }
/// ```
#[must_use = "a consumer subscribes as long as it lives"]
pub struct Consumer<T> {
    shared: Arc<Shared>,
    current: Option<Current>,
    codec: Untyped,
    stream: PhantomData<fn() -> T>,
}

/// The batch that is being decoded.
struct Current {
    channel: Arc<Channel>,
    epoch: u64,
    next: u64,
    data: Bytes,
    at: usize,
    /// The first of the items just before `next` that could not be decoded.
    undecodable: Option<u64>,
    /// Each item has its place in a log in front of it.
    owned: bool,
    /// Its items, if they were decoded ahead.
    decoded: Option<Decoded>,
}

/// Where an item comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// The producer.
    pub producer: PeerId,
    /// The producer's epoch: grows with each start of it.
    pub epoch: u64,
    /// The item's number within the epoch, counted from 0.
    pub seq: u64,
    /// Of a stream that a [group owns](ConsumerBuilder::owned): where the item is in the group's log, and in which term. It grows, or stays
    /// as it was, from item to item. The epoch then names the group's cluster.
    pub fence: Option<Fence>,
}

impl<T: Streamed> Consumer<T> {
    fn new(shared: Arc<Shared>) -> Self {
        let codec = Codec::<T::Item>::chosen(shared.items.format).into();
        Self { shared, current: None, codec, stream: PhantomData }
    }

    /// Another handle of this consumer. Both end with the first that is dropped; only one of them may receive.
    pub(crate) fn second(&self) -> Self {
        Self::new(self.shared.clone())
    }

    /// The next item; `None` when the network is shut down. Cancellation-safe.
    pub async fn recv(&mut self) -> Option<T::Item> {
        self.recv_from().await.map(|(item, _)| item)
    }

    /// The next item and where it comes from; `None` when the network is shut down. Cancellation-safe.
    pub async fn recv_from(&mut self) -> Option<(T::Item, Origin)> {
        std::future::poll_fn(|cx| self.poll_recv_from(cx)).await
    }

    /// The next item if one is there already.
    pub fn try_recv(&mut self) -> Option<T::Item> {
        self.recv().now_or_never().flatten()
    }

    /// The next item as it was sent, whatever its type, and where it comes from. Cancellation-safe.
    #[cfg(feature = "cli")]
    pub(crate) async fn recv_encoded(&mut self) -> Option<((crate::primitives::Format, Vec<u8>), Origin)> {
        std::future::poll_fn(|cx| self.poll_decoded(cx, |item, _| Ok((item.format, item.payload.to_vec())))).await
    }

    /// See [`recv_from`](Self::recv_from).
    pub fn poll_recv_from(&mut self, cx: &mut Context<'_>) -> Poll<Option<(T::Item, Origin)>> {
        let codec = self.codec.typed::<T::Item>();
        self.poll_decoded(cx, |item, decoded| match decoded.as_mut().and_then(Decoded::next) {
            Some(value) => Ok(value),
            None => codec.decode(item.format, item.payload),
        })
    }

    #[inline]
    fn poll_decoded<R>(
        &mut self,
        cx: &mut Context<'_>,
        decode: impl Fn(&Framed<'_>, &mut Option<Decoded>) -> Result<R, DecodeError>,
    ) -> Poll<Option<(R, Origin)>> {
        let coop = ready!(coop::poll_proceed(cx));
        loop {
            if let Some(current) = &mut self.current {
                match current.next(&decode) {
                    Some(Ok(item)) => {
                        current.tell_undecodable(&self.shared, item.1.seq);
                        coop.made_progress();
                        return Poll::Ready(Some(item));
                    }
                    Some(Err(error)) => {
                        current.fail(&self.shared, &error);
                        continue;
                    }
                    None => current.tell_undecodable(&self.shared, current.next),
                }
            }
            self.current = None;
            let Some(batch) = ready!(self.shared.merge.poll_pop(cx)) else { return Poll::Ready(None) };
            let Batch { channel, epoch, first: next, items: _, data, owned, decoded } = batch;
            self.current = Some(Current { channel, epoch, next, data, at: 0, undecodable: None, owned, decoded });
        }
    }

    /// Futures that wait for producers. A consumer is online while it has one.
    pub fn when(&self) -> When {
        When::new(self.shared.topology())
    }

    /// The producers from which items flow now.
    pub fn producers(&self) -> impl Iterator<Item = ChannelInfo> + use<T> {
        self.shared.channels().into_iter().filter(ChannelInfo::is_connected)
    }

    /// Every producer that qualifies, also those that are not connected yet or keep this consumer waiting.
    pub fn candidates(&self) -> impl Iterator<Item = ChannelInfo> + use<T> {
        self.shared.channels().into_iter()
    }

    /// Figures of all subscriptions together.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Connections, gaps and refusals from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.events.subscribe()
    }

    /// Sets the deadline, as [`with_deadline`](ConsumerBuilder::with_deadline) does.
    pub(crate) fn set_deadline(&self, deadline: Duration) {
        self.shared.set_deadline(deadline);
    }

    /// The stream's id.
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        self.shared.stream
    }
}

impl Current {
    /// Decodes the next item; `None` at the end of the batch.
    #[inline]
    fn next<R>(
        &mut self,
        decode: impl Fn(&Framed<'_>, &mut Option<Decoded>) -> Result<R, DecodeError>,
    ) -> Option<Result<(R, Origin), DecodeError>> {
        let item = Framed::first_of(&self.data[self.at..], self.owned)?;
        let (seq, bytes, fence) = (self.next, item.bytes, item.fence);
        self.at += bytes;
        self.next += 1;
        Some(decode(&item, &mut self.decoded).map(|item| {
            self.channel.delivered(bytes);
            (item, Origin { producer: self.channel.peer, epoch: self.epoch, seq, fence })
        }))
    }

    /// The item just before `next` could not be decoded.
    #[cold]
    fn fail(&mut self, shared: &Shared, error: &DecodeError) {
        let seq = self.next - 1;
        self.undecodable.get_or_insert(seq);
        let error = error.to_string();
        if shared.items.readable.is_some() {
            // The type may have grown: what is not known here is passed over.
            if self.channel.passes_over(&error) {
                let (producer, stream) = (self.channel.peer, shared.stream);
                tracing::warn!(peer = ?producer, ?stream, seq, error, "an item is not known here and passed over");
                shared.events.send(Event::Undecodable { producer, seq, error });
            }
            return;
        }
        if self.channel.fail(error.clone()) {
            let (peer, stream) = (self.channel.peer, shared.stream);
            tracing::warn!(?peer, ?stream, error, "undecodable item");
        }
    }

    /// Reports the items just before `to` that could not be decoded, if there are some.
    #[inline]
    fn tell_undecodable(&mut self, shared: &Shared, to: u64) {
        if let Some(from) = self.undecodable.take() {
            shared.missed(&self.channel, Missed { from, to, reason: GapReason::Undecodable });
        }
    }
}

impl<T: Streamed> Stream for Consumer<T> {
    type Item = T::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T::Item>> {
        self.poll_recv_from(cx).map(|next| next.map(|(item, _)| item))
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("stream", &self.shared.stream).finish_non_exhaustive()
    }
}
