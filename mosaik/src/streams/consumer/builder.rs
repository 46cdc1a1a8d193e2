//! [`ConsumerBuilder`]: what a consumer is configured with.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;

use super::{
    Consumer,
    ahead::Ahead,
    preference::Preference,
    shared::{Items, Options, Shared},
    worker,
};
use crate::{
    discovery::PeerEntry,
    primitives::{
        Evolve, Format, PeerId, Schema, StreamId, StreamTerms, Streamed, Unnamed, codec::Codec, figures,
        schema::Readable,
    },
    streams::{
        Filter, Prefer, Registry,
        core::{filter, progress::Resume},
        error::ConsumeError,
        events::Events,
        protocol::Fingerprint,
    },
    trust::{Label, Needed, Right},
};

/// Configures a consumer; made by [`Streams::consumer`](super::super::Streams::consumer).
#[must_use = "a builder does nothing until built"]
pub struct ConsumerBuilder<T> {
    registry: Arc<Registry>,
    stream: Result<StreamId, Unnamed>,
    fingerprint: Option<Fingerprint>,
    declared: Option<Fingerprint>,
    format: Option<Format>,
    evolve: Evolve,
    /// The shape that both ends compare, and the same as a reader.
    compared: (&'static Schema, fn() -> Readable),
    prefer: Option<Prefer>,
    fanin: Option<usize>,
    standby: usize,
    filter: Option<Filter>,
    options: Options,
    datum: PhantomData<fn() -> T>,
}

impl<T: Streamed> ConsumerBuilder<T> {
    pub(in crate::streams) fn new(registry: Arc<Registry>) -> Self {
        let StreamTerms { produce, label, owner, .. } = StreamTerms::of::<T>();
        Self {
            registry,
            stream: T::stream_id(),
            fingerprint: None,
            declared: None,
            format: None,
            evolve: Evolve::Strict,
            compared: (Codec::<T::Item>::of().schema(), Readable::of::<T::Item>),
            prefer: None,
            fanin: None,
            standby: 0,
            filter: None,
            options: Options {
                produce: Needed::one_of(Right::Produce, produce.iter().copied()),
                label: label.map(Label::declared),
                subscribe_if: None,
                deadline: None,
                backoff: None,
                replay: true,
                begin: None,
                filter: None,
                replicated: false,
                owned: Some(owner.is_some()),
            },
            datum: PhantomData,
        }
    }

    /// Subscribes only to producers for which this holds. It is asked again when the catalog changes, and every second; a
    /// producer that no longer qualifies is left. Default: every producer of the stream.
    pub fn subscribe_if(mut self, predicate: impl Fn(&PeerEntry) -> bool + Send + Sync + 'static) -> Self {
        self.options.subscribe_if = Some(Box::new(predicate));
        self
    }

    /// Subscribes only to producers whose ticket grants one of these roles or grants, in a network of an authority; before
    /// [`subscribe_if`](Self::subscribe_if) is asked. It is looked at again when tickets change or run out: a producer that no longer has
    /// one is left, one that now has one is subscribed to. In an open or a secret network nobody holds a ticket and every
    /// member may produce. Default: what the type's declaration says, else everybody may.
    pub fn with_produce_grants(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.options.produce = Needed::one_of(Right::Produce, names);
        self
    }

    /// Takes only what has this label, of producers that declare the same. In a network of an authority this node's ticket needs the
    /// grant `clears:` and the label. Default: that of the type's declaration, else only
    /// what has no label.
    pub fn with_label(mut self, label: Label) -> Self {
        self.options.label = Some(label);
        self
    }

    /// With this right in the place of that of a stream, and without a label.
    pub(crate) fn granted(mut self, produce: Needed) -> Self {
        (self.options.produce, self.options.label) = (produce, None);
        self
    }

    /// How long a producer may be silent: one from which no item has come for so long is *late*, connected or not, until its
    /// next item. That is told by [`Event::Late`](crate::streams::Event::Late) and by
    /// [`is_late`](crate::streams::ChannelInfo::is_late) of its channel. The time starts when the producer becomes known.
    /// Default: nobody is late.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// The first and the longest delay between attempts to subscribe to a producer: none before the first attempt and after a
    /// subscription that lasted 5 s, then doubling from `first` to `longest`, each shortened at random by up to a half. At most a
    /// day. Default: 50 ms and 2 s.
    pub fn with_backoff(mut self, (first, longest): (Duration, Duration)) -> Self {
        self.options.backoff = Some((first, longest));
        self
    }

    /// Only items that are sent while this consumer is subscribed, not what producers keep for late joiners
    /// ([`ProducerBuilder::retain`](crate::streams::ProducerBuilder::retain)). Default: those first, if there are any.
    pub fn live_only(mut self) -> Self {
        self.options.replay = false;
        self
    }

    /// Which producers it takes first, with [`with_fanin`](Self::with_fanin); without that it takes one. Another producer takes the
    /// place of one at once when that is gone, refuses, is [late](Self::with_deadline) or sends nothing within 2 s of being taken;
    /// otherwise only when it was clearly better for 10 s, or became known in the consumer's first 10 s and is better or, by the
    /// order that spreads consumers, first. What a producer sends while another one is taken is not asked for, but it
    /// is a gap, or made up for from the producer's buffer, when that producer is taken again. Default: all producers.
    pub fn prefer(mut self, prefer: Prefer) -> Self {
        self.prefer = Some(prefer);
        self
    }

    /// Takes so many producers at once, at least one, as [`prefer`](Self::prefer) says; without a preference any, spread over the
    /// consumers. Default: all producers, or one with a preference.
    pub fn with_fanin(mut self, producers: usize) -> Self {
        self.fanin = Some(producers);
        self
    }

    /// Lets so many other producers *stand by*, the next best by [`prefer`](Self::prefer): they tell how far they are, by heads of a few
    /// bytes at most every 20 ms, and send no items. One of them takes the place of a producer that is gone, refuses or is
    /// [late](Self::with_deadline); of [replicated](Self::replicated) producers also of one that for a second, or for the deadline if that
    /// is less, lacks what the other one has. To its producer one that stands by is no subscriber: it counts neither for `online_when`
    /// nor for `with_max_consumers`. It takes one producer at once, unless [`with_fanin`](Self::with_fanin) says otherwise. Default: none.
    pub fn with_standby(mut self, producers: usize) -> Self {
        self.standby = producers;
        self
    }

    /// All producers of the stream publish the same sequence: item `n` of each of them is the same item, as when each applies the same
    /// log, and one that begins later [counts](crate::streams::ProducerBuilder::starting_at) from where it begins. Then items are handed
    /// on once and in order, whichever producer sends them, and another one goes on at the next item: what its buffer has of
    /// it is no gap. [`Origin`](crate::streams::Origin) tells who sent each. Default: producers are independent, and what one sends
    /// while another is taken is not asked for.
    pub fn replicated(mut self) -> Self {
        self.options.replicated = true;
        self
    }

    /// The stream is owned by a group ([`owned_by`](crate::streams::ProducerBuilder::owned_by)), all of whose members have the same items
    /// under the same numbers. So each item is handed on once and in order, whichever member brings it first, and when one is lost
    /// the others go on: it is a [replicated](Self::replicated) stream. [`Origin::fence`](crate::streams::Origin::fence) is an item's place in
    /// the group's log. Who brings items of an older term than were seen is left, told by
    /// [`DisconnectReason::Fenced`](crate::streams::DisconnectReason::Fenced). Default: what the type's declaration says, else nobody
    /// owns it.
    pub fn owned(mut self) -> Self {
        self.options.owned = Some(true);
        self
    }

    /// Takes items whether a group owns the stream or not, each as often as a member sends it.
    #[cfg(feature = "cli")]
    pub(crate) fn of_any_owner(mut self) -> Self {
        self.options.owned = None;
        self
    }

    /// Asks only for items whose key the filter admits. Producers judge it, so that the others cost nothing on the way; they are no
    /// gap. Items keep their numbers, and a gap that is told may count some that are filtered out among those that were missed.
    /// A producer without keys is not subscribed to: [`DisconnectReason::NotFiltered`](crate::streams::DisconnectReason::NotFiltered) tells.
    /// Default: every item.
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Goes on where an earlier life of this consumer was, with one producer.
    pub(crate) fn begin_at(mut self, producer: PeerId, epoch: u64, next: u64) -> Self {
        self.options.begin = Some((producer, Resume { epoch, next }));
        self
    }

    /// The stream's identity. Default: the serde container name of `T`.
    pub fn with_stream_id(mut self, stream: impl Into<StreamId>) -> Self {
        self.stream = Ok(stream.into());
        self
    }

    /// The fingerprint of what both ends must agree on, in the place of that of the type's shape.
    #[doc(hidden)]
    pub fn with_fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.fingerprint = Some(fingerprint);
        self
    }

    /// The type of which both ends compare the shape, if that is not the item's.
    pub(crate) fn comparing<C: DeserializeOwned + 'static>(mut self) -> Self {
        self.compared = (Codec::<C>::of().schema(), Readable::of::<C>);
        self
    }

    /// The fingerprint of the type's declaration, which counts where its shape cannot be looked into.
    #[doc(hidden)]
    pub fn with_declared(mut self, declared: Fingerprint) -> Self {
        self.declared = Some(declared);
        self
    }

    /// The format of the items, whatever the type allows; both ends must say the same. Default: postcard for what it carries,
    /// else `MessagePack`.
    pub fn with_codec(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// How the type may change from one program to the next; both ends must say the same. `Evolve::Append` implies
    /// `MessagePack`, whatever [`with_codec`](Self::with_codec) says. Default: not at all.
    pub fn with_evolve(mut self, evolve: Evolve) -> Self {
        self.evolve = evolve;
        self
    }

    /// Starts consuming.
    ///
    /// # Panics
    /// When the type has no name ([`Unnamed`]) and the stream was given none with [`with_stream_id`](Self::with_stream_id), or a
    /// [filter](Self::with_filter) is too large. See [`try_build`](Self::try_build) for a way that says so with an error.
    pub fn build(self) -> Consumer<T> {
        self.try_build().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts consuming.
    ///
    /// # Errors
    /// When the type has no name and the stream was given none, or the filter cannot be sent.
    pub fn try_build(self) -> Result<Consumer<T>, ConsumeError> {
        self.build_watched().map(|(consumer, _)| consumer)
    }

    /// Starts consuming, and hands out the events from the very first on.
    pub(crate) fn build_watched(self) -> Result<(Consumer<T>, Events), ConsumeError> {
        let Self {
            registry,
            stream,
            fingerprint,
            declared,
            format,
            evolve,
            compared,
            prefer,
            fanin,
            standby,
            filter,
            mut options,
            ..
        } = self;
        options.filter = filter.map(Filter::into_inner).transpose()?.as_ref().map(filter::Asked::from);
        let chooses = prefer.is_some() || fanin.is_some() || standby > 0;
        let preference =
            chooses.then(|| Preference::new(prefer.unwrap_or_else(Prefer::any), fanin.unwrap_or(1), standby));
        let stream = stream?;
        let format = evolve.format(format);
        let codec = Codec::<T::Item>::chosen(format);
        let fingerprint = fingerprint.or_else(|| codec.compared(declared, evolve));
        let (compared, readable) = compared;
        let readable = (evolve == Evolve::Append).then(readable);
        options.produce = options.produce.about(figures::label(stream.as_bytes(), stream));
        registry.node.asks_for([&options.produce]);
        registry.consumer_opened(stream, fingerprint);
        let items = Items { fingerprint, format, schema: codec.schema(), compared, readable, ahead: Ahead::new(codec) };
        let tasks = registry.node.tasks().clone();
        let shared = Arc::new(Shared::new(registry, stream, items, options));
        shared.registry.add_consumer(&shared);
        let events = shared.events.subscribe();
        tasks.spawn_essential("consumer", worker::run(shared.clone(), preference));
        Ok((Consumer::new(shared), events))
    }
}

impl<T> fmt::Debug for ConsumerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder").field("stream", &self.stream).finish_non_exhaustive()
    }
}
