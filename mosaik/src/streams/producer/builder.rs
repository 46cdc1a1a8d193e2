//! [`ProducerBuilder`]: what a producer is configured with.

use std::{
    any::TypeId,
    fmt,
    marker::PhantomData,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use super::{
    Handle, Producer, Shared,
    encode::Scratch,
    shared::{Begin, Config, Opens},
    worker,
};
use crate::{
    discovery::PeerEntry,
    primitives::{Datum, Evolve, Format, StreamId, StreamTerms, Streamed, Unnamed, codec::Codec, figures},
    streams::{
        Registry, Slot,
        conditions::Conditions,
        core::key::Key,
        error::{BuildError, SendErrorKind},
        filter::key as key_of,
        limits::{Buffer, ByteRate, OnLag, REPLAY_PACE},
        owner::{Owned, Run},
        protocol::Fingerprint,
        retain::Retain,
    },
    transport::Tasks,
    trust::{Label, Needed, Right},
};

/// What is kept by default for consumers that come back.
const REPLAY: usize = 1 << 20;
/// The same of a stream that is owned: items and bytes, more than its owner keeps, with the place of each item.
const KEPT: (usize, usize) = (2 * 65_536, 8 << 20);

/// Makes the owner of a stream.
type MakeOwner = Box<dyn FnOnce(StreamId, Run, &Tasks) -> Owned + Send>;

/// Configures a producer; made by [`Streams::producer`](super::super::Streams::producer).
#[must_use = "a builder does nothing until built"]
pub struct ProducerBuilder<T: Streamed> {
    registry: Arc<Registry>,
    config: Config,
    unnamed: Option<Unnamed>,
    declared: Option<Fingerprint>,
    retain: Option<Retain<T::Item>>,
    undelivered: Option<mpsc::Sender<T::Item>>,
    /// The name of the group that owns the stream, as its type declares.
    declared_owner: Option<&'static str>,
    owner: Option<MakeOwner>,
    datum: PhantomData<fn(T)>,
}

impl<T: Streamed> ProducerBuilder<T> {
    pub(in crate::streams) fn new(registry: Arc<Registry>) -> Self {
        let named = T::stream_id();
        let StreamTerms { produce, consume, label, owner: declared_owner, .. } = StreamTerms::of::<T>();
        let config = Config {
            // One that has no name is not built.
            stream: named.unwrap_or(StreamId::from_bytes([0; 32])),
            fingerprint: None,
            format: None,
            evolve: Evolve::Strict,
            schema: Codec::<T::Item>::of().schema(),
            compared: Codec::<T::Item>::of().schema(),
            produce: Needed::one_of(Right::Produce, produce.iter().copied()),
            consume: Needed::one_of(Right::Consume, consume.iter().copied()),
            label: label.map(Label::declared),
            accept_if: None,
            online_when: Conditions::default(),
            max_consumers: usize::MAX,
            egress: None,
            buffer: Buffer::default(),
            on_lag: OnLag::default(),
            key: None,
            replay: Buffer::default().bytes(REPLAY),
            lifespan: None,
            retention: None,
            opens: None,
            replay_pace: REPLAY_PACE,
            undelivered: OnceLock::new(),
            begin: None,
            owner: OnceLock::new(),
        };
        Self {
            registry,
            config,
            unnamed: named.err(),
            declared: None,
            retain: None,
            undelivered: None,
            declared_owner,
            owner: None,
            datum: PhantomData,
        }
    }

    /// Serves only peers for which this holds. It is asked again when the peer's entry changes, and every second; a
    /// peer that no longer qualifies is disconnected with `NotAllowed`, one that now does is admitted. Called often and
    /// from any task: it should be quick. Default: everybody.
    pub fn accept_if(mut self, predicate: impl Fn(&PeerEntry) -> bool + Send + Sync + 'static) -> Self {
        self.config.accept_if = Some(Box::new(predicate));
        self
    }

    /// Serves only peers whose ticket grants one of these roles or grants, in a network of an authority; before
    /// [`accept_if`](Self::accept_if) is asked. It is looked at again when tickets change or run out: a peer that no longer has one is
    /// disconnected with `NotGranted`, one that now has one is admitted. In an open or a secret network nobody holds a ticket and
    /// every member may consume. Default: what the type's declaration says, else everybody may.
    pub fn with_consume_grants(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.consume = Needed::one_of(Right::Consume, names);
        self
    }

    /// The roles and grants of which this node's own ticket needs one: what consumers with the same declaration ask for. A producer
    /// that has none of them runs and is subscribed to by nobody; it says so in the log, in [`Trust::refusals`](crate::trust::Trust::refusals)
    /// and to `explain`. Default: what the type's declaration says, else everybody may produce.
    pub fn with_produce_grants(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.produce = Needed::one_of(Right::Produce, names);
        self
    }

    /// Serves only consumers that declare the same label, and in a network of an authority only peers whose ticket grants `clears:` and
    /// the label, besides what [`with_consume_grants`](Self::with_consume_grants) asks. Default: that of the type's
    /// declaration, else none, and only consumers without one.
    pub fn with_label(mut self, label: Label) -> Self {
        self.config.label = Some(label);
        self
    }

    /// With these rights in the place of those of a stream, and without a label.
    pub(crate) fn granted(mut self, produce: Needed, consume: Needed) -> Self {
        (self.config.produce, self.config.consume, self.config.label) = (produce, consume, None);
        self
    }

    /// When the stream is online; `send` waits until it is. Default: `minimum_of(1)`. With `minimum_of(0)` it is always
    /// online, and items that nobody is there for are kept only for consumers that come back (see
    /// [`with_replay`](Self::with_replay) and [`with_undelivered`](Self::with_undelivered)).
    pub fn online_when(mut self, conditions: impl FnOnce(Conditions) -> Conditions) -> Self {
        self.config.online_when = conditions(Conditions::default());
        self
    }

    /// Serves at most this many subscribers at a time; further ones wait until there is room. Default: no limit.
    pub fn with_max_consumers(mut self, max: usize) -> Self {
        self.config.max_consumers = max;
        self
    }

    /// Sends at most so many bytes per second to all subscribers together. Default: no limit.
    pub fn with_egress_limit(mut self, rate: ByteRate) -> Self {
        self.config.egress = Some(rate);
        self
    }

    /// The stream's identity. Default: the serde container name of `T`.
    pub fn with_stream_id(mut self, stream: impl Into<StreamId>) -> Self {
        self.config.stream = stream.into();
        self.unnamed = None;
        self
    }

    /// How far a subscriber may be behind. Default: 4 MiB or 65,536 items, whichever comes first.
    pub fn with_buffer(mut self, buffer: Buffer) -> Self {
        self.config.buffer = buffer;
        self
    }

    /// What happens when a subscriber cannot keep up. Default: [`OnLag::Disconnect`].
    pub fn on_lag(mut self, policy: OnLag) -> Self {
        self.config.on_lag = policy;
        self
    }

    /// What is kept of the newest items, for consumers that lose the connection and come back: they get what they missed as
    /// far as it is there, and are told of the rest by a gap. Kept are also items that were sent while nobody was
    /// subscribed. It is kept to within 64 KiB. Default: 1 MiB or 65,536 items, whichever is less; [`Buffer::none`]
    /// keeps nothing.
    pub fn with_replay(mut self, replay: Buffer) -> Self {
        self.config.replay = replay;
        self
    }

    /// What is kept for consumers that come late: one that subscribes for the first time gets it before the live items, as one
    /// ordered sequence without a hole or a repetition between the two, told by
    /// [`Event::Replayed`](crate::streams::Event::Replayed). A consumer that comes back gets of it what the ring
    /// ([`with_replay`](Self::with_replay)) no longer has. It is replayed on a stream of its own; while that takes, up to 8 MiB of
    /// live items wait at the consumer, or as many bytes as it was replayed so far, then the policy for lag applies. Default: nothing is kept.
    pub fn retain(mut self, retain: Retain<T::Item>) -> Self {
        self.retain = Some(retain);
        self
    }

    /// At what pace late joiners are replayed what is kept, all together, so that the live flow is not held up. Default: 16 MiB/s.
    pub fn with_replay_pace(mut self, rate: ByteRate) -> Self {
        self.config.replay_pace = rate;
        self
    }

    /// The key of an item, for [`OnLag::Conflate`], [`Retain::last_per_key`] and the [filters](crate::streams::Filter) of consumers: of
    /// several items of one key that wait, a subscriber that lags gets the last. Called for each item that is sent. Keys are compared by
    /// what they encode to (of more than 255 bytes, by the first 239 and a hash of 128 bits). Default: all items have the same key, and
    /// consumers with a filter are refused.
    pub fn with_key<K: Serialize>(mut self, key: impl Fn(&T::Item) -> K + Send + Sync + 'static) -> Self {
        self.config.key = Some(Box::new(move |item| {
            item.downcast_ref::<T::Item>().map_or_else(Key::default, |item| encoded(&key(item)))
        }));
        self
    }

    /// Items older than this are not sent any more, and subscribers are told so by a gap. Age counts from `send`, to
    /// within an eighth. Default: items do not age.
    pub fn with_lifespan(mut self, lifespan: Duration) -> Self {
        self.config.lifespan = Some(lifespan);
        self
    }

    /// Gets the items that reached no one: sent while online without a subscriber, or queued when the last subscriber
    /// went away before they were taken for it. What does not fit the channel is dropped, and counted as
    /// [`drops`](super::super::Stats::drops) like all of them. What was handed back is not kept for consumers that come back
    /// ([`with_replay`](Self::with_replay)), nor is what was sent before it. Default: nobody gets them.
    pub fn with_undelivered(mut self, items: mpsc::Sender<T::Item>) -> Self {
        self.undelivered = Some(items);
        self
    }

    /// Counts items from this number on, not from 0: for a producer of a [replicated](super::super::ConsumerBuilder::replicated)
    /// sequence, of which item `n` has the same number at every producer of it, whenever that began. Default: 0.
    pub fn starting_at(mut self, seq: u64) -> Self {
        let epoch = self.registry.next_epoch();
        self.config.begin = Some(Begin { epoch, first: seq, framed: Vec::new() });
        self
    }

    /// Goes on with a run that an earlier life of this producer has begun: its epoch, its last items, and the number of the
    /// first of these. Nothing else may have been sent under these numbers.
    pub(crate) fn begin_at(mut self, epoch: u64, first: u64, items: &[T::Item]) -> Result<Self, SendErrorKind> {
        let mut scratch = Scratch::take();
        let mut framed = Vec::with_capacity(items.len());
        let codec = Codec::<T::Item>::chosen(self.config.evolve.format(self.config.format));
        for item in items {
            scratch.encode(codec, item)?;
            framed.push(scratch.framed().clone());
        }
        self.config.begin = Some(Begin { epoch, first, framed });
        Ok(self)
    }

    /// The items are put in order elsewhere. The function makes the owner of this stream once its producer is there.
    pub(crate) fn with_owner(mut self, make: impl FnOnce(StreamId, Run, &Tasks) -> Owned + Send + 'static) -> Self {
        self.owner = Some(Box::new(make));
        self
    }

    /// The fingerprint of what both ends must agree on, in the place of that of the type's shape.
    #[doc(hidden)]
    pub fn with_fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.config.fingerprint = Some(fingerprint);
        self
    }

    /// The type of which both ends compare the shape, if that is not the item's.
    pub(crate) fn comparing<C: DeserializeOwned + 'static>(mut self) -> Self {
        self.config.compared = Codec::<C>::of().schema();
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
        self.config.format = Some(format);
        self
    }

    /// How the type may change from one program to the next; both ends must say the same. `Evolve::Append` implies
    /// `MessagePack`, whatever [`with_codec`](Self::with_codec) says. Default: not at all.
    pub fn with_evolve(mut self, evolve: Evolve) -> Self {
        self.config.evolve = evolve;
        self
    }

    /// Starts the stream and announces it.
    ///
    /// # Errors
    /// When the type has no name ([`Unnamed`]) and the stream was given none with [`with_stream_id`](Self::with_stream_id).
    /// When its declaration says that a group owns the stream, and [`owned_by`](Self::owned_by) does not.
    /// When this node already produces the stream; the error carries a handle to that producer. When the node's entry cannot
    /// list another stream: it lists 512 ([`MAX_STREAMS`](crate::discovery::MAX_STREAMS)), and 64 KiB in all.
    pub fn build(self) -> Result<Producer<T>, BuildError<T>> {
        let Self { registry, mut config, unnamed, declared, retain, undelivered, declared_owner, owner, .. } = self;
        if let Some(error) = unnamed {
            return Err(BuildError::Unnamed(error));
        }
        if let (Some(group), None) = (declared_owner, &owner)
            && registry.find(config.stream).is_none()
        {
            return Err(BuildError::NoOwner { stream: config.stream, group });
        }
        config.format = config.evolve.format(config.format);
        if let Some(items) = undelivered {
            config.undelivered = OnceLock::from(returning(config.stream, config.format, items));
        }
        let codec = Codec::<T::Item>::chosen(config.format);
        config.fingerprint = config.fingerprint.or_else(|| codec.compared(declared, config.evolve));
        if owner.is_some() {
            config.replay = Buffer::items(KEPT.0).bytes(KEPT.1);
            (config.retention, config.key, config.lifespan) = (None, None, None);
            // The log takes items also without consumers.
            config.online_when = Conditions::default().minimum_of(0);
            config.on_lag = OnLag::Disconnect;
        }
        let retain = retain.filter(|_| owner.is_none());
        if let Some(retain) = retain {
            config.retention = Some(retain.retention(config.lifespan));
            config.opens =
                retain.opens.map(|opens| -> Opens { Box::new(move |item| item.downcast_ref().is_some_and(&opens)) });
        }
        let (stream, fingerprint) = (config.stream, config.fingerprint);
        let label = figures::label(stream.as_bytes(), stream);
        (config.produce, config.consume) = (config.produce.about(&*label), config.consume.about(label));
        config.consume = config.consume.clearing(config.label.as_ref());
        registry.node.asks_for([&config.produce, &config.consume]);
        let epoch = config.begin.as_ref().map_or_else(|| registry.next_epoch(), |begin| begin.epoch);
        let shared = Shared::new(config, epoch, registry.node.clone(), registry.discovery.clone());
        if let Some(make) = owner {
            let owned = make(stream, Run(Arc::downgrade(&shared)), registry.node.tasks());
            // It is new, so nobody else has set it.
            let _ = shared.config.owner.set(owned);
        }
        let handle = Arc::new(Handle { shared: shared.clone(), registry: registry.clone() });
        *shared.handle.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::downgrade(&handle);
        let datum_name = std::any::type_name::<T::Item>(); // for error messages only
        let slot = Slot { shared: shared.clone(), datum: TypeId::of::<T::Item>(), datum_name };
        if let Err((existing, datum, other)) = registry.add_producer(stream, slot) {
            return Err(if datum == TypeId::of::<T::Item>() {
                BuildError::Exists { stream, existing: Producer::new(existing) }
            } else {
                BuildError::OtherType { stream, other }
            });
        }
        let listed = registry.discovery.try_update_local(|entry| entry.produces.insert(stream, fingerprint));
        // The end of the handle takes the producer off the list of this node again.
        listed.map_err(|error| BuildError::NotAnnounced { stream, error })?;
        registry.node.tasks().spawn_essential("producer", worker::run(shared));
        Ok(Producer::new(handle))
    }
}

impl<T: Streamed> fmt::Debug for ProducerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerBuilder").field("stream", &self.config.stream).finish_non_exhaustive()
    }
}

/// What decodes items that reached no one, for who wants them back.
pub(super) fn returning<T: Datum>(
    stream: StreamId,
    format: Option<Format>,
    items: mpsc::Sender<T>,
) -> super::shared::Undelivered {
    Box::new(move |written, payload| {
        let Ok(item) = Codec::<T>::chosen(format).decode(written, payload) else {
            tracing::error!(?stream, "an item cannot be read back from what it encodes to; it is lost");
            return;
        };
        if items.try_send(item).is_err() {
            tracing::trace!(?stream, "an undelivered item found no room");
        }
    })
}

/// The key as bytes.
fn encoded(key: &impl Serialize) -> Key {
    key_of(key).unwrap_or_else(|error| {
        tracing::error!(%error, "the key of an item cannot be encoded; all such items have the same");
        Key::default()
    })
}
