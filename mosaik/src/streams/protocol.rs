//! What a consumer and a producer say before items flow.
//!
//! The consumer opens a link and sends [`Message::Subscribe`]. The producer answers [`Message::Accepted`], after which
//! the stream carries batches ([`frames`](super::core::frames)); or [`Message::Waiting`] or [`Message::NotGranted`], keeping the
//! link open until it accepts; or [`Message::Refused`]. Either side ends a subscription by resetting and stopping the stream with a code.
//!
//! A consumer that stands by gets [`Message::Head`]s instead of batches, until it ends the link.
//!
//! A late joiner to whom something is to be replayed opens a second stream on the same connection with
//! [`ReplayMessage::Ask`], and gets it there, as batches too.

use serde::{Deserialize, Serialize};

use super::core::{
    admission::WaitReason,
    filter::{self, FilterRefusal},
    progress::Resume,
};
use crate::{
    discovery::SignedEntry,
    network::{Family, Protocol},
    primitives::{Difference, Schema, StreamId, schema::Readable},
    trust::MissingGrant,
};

/// A schema fingerprint; types that declare none have none.
pub(crate) type Fingerprint = [u8; 32];

/// The protocol of a subscription.
pub(crate) struct Subscription;

impl Protocol for Subscription {
    type Message = Message;
    const FAMILY: Family = Family::STREAMS;
    const NAME: &'static str = "subscribe/8";
    const MAX_FRAME: usize = 160 << 10; // an entry of at most 64 KiB, a schema of 56 KiB, a filter of 16 KiB and little else
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "messages are few, and none is kept")]
pub(crate) enum Message {
    /// The consumer's request. It brings its own entry, so that the producer can ask its predicate at once; and what it has
    /// of the producer's items, if it was subscribed before; and whether it wants what is kept for late joiners.
    Subscribe {
        stream: StreamId,
        fingerprint: Option<Fingerprint>,
        consumer: u64,
        resume: Option<Resume>,
        replay: bool,
        entry: SignedEntry,
        /// What the consumer can read, of a stream whose items may grow.
        readable: Option<Readable>,
        /// Which items it wants, if not all.
        filter: Option<filter::Asked>,
        /// The label that it declares.
        label: Option<String>,
        /// Several producers publish the same sequence, so what it has counts in whatever epoch.
        replicated: bool,
        /// It stands by: it gets heads, not items.
        heads: bool,
        /// Whether it takes the stream for one that a group owns; one that says nothing takes either.
        owned: Option<bool>,
    },
    /// Batches follow, from this sequence number on; `owned` says whether each item has its place in a log in front of it. With a ticket there is something before them to be asked for, within 5 s.
    Accepted { epoch: u64, next: u64, replay: Option<u64>, owned: bool },
    /// Not now; another answer follows on this link.
    Waiting { reason: WaitReason },
    /// No; the link ends. With what the producer declares, if that differs, unless it is too large: another label, or that it is
    /// owned by a group or is not, or else another schema.
    Refused { code: u32, fingerprint: Option<Fingerprint>, schema: Option<Schema>, label: Option<String>, owned: bool },
    /// The consumer's last word when schemas differ: its own, so that both ends can name the first difference.
    Schema(Schema),
    /// Not now, as the consumer's ticket lacks a grant; another answer follows on this link. What it has and needs.
    NotGranted(MissingGrant),
    /// No; the link ends. Items cannot be judged by the filter.
    NotFiltered(FilterRefusal),
    /// To who stands by: the number that comes next in this run of the producer, and a digest of the item before it if it is known.
    /// One for all items that came since the one before, at most every 20 ms; and every second without items.
    Head { epoch: u64, next: u64, digest: Option<u64> },
}

/// The protocol of a replay.
pub(crate) struct Replay;

impl Protocol for Replay {
    type Message = ReplayMessage;
    const FAMILY: Family = Family::STREAMS;
    const NAME: &'static str = "replay/1";
    const MAX_FRAME: usize = 1 << 10;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ReplayMessage {
    /// The consumer's request. The answer are batches and their end.
    Ask { stream: StreamId, ticket: u64 },
}

/// Whether two declared schemas may talk: a side that declares none matches anything.
pub(crate) fn compatible(ours: Option<Fingerprint>, theirs: Option<Fingerprint>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => true,
    }
}

/// Bytes of a schema beyond which it is not sent.
const MAX_SCHEMA: usize = 56 << 10;

/// A schema to be sent, or what a reader of it knows besides, if it is not too large.
pub(crate) fn sendable<S: Serialize + Clone>(schema: &S) -> Option<S> {
    let size = postcard::experimental::serialized_size(schema).unwrap_or(usize::MAX);
    (size <= MAX_SCHEMA).then(|| schema.clone())
}

/// The first difference, if the other side told a schema that can be read.
pub(crate) fn difference(ours: &Schema, theirs: Option<&Schema>) -> Option<Difference> {
    ours.difference(theirs.filter(|theirs| theirs.is_sound())?)
}

/// A fingerprint as people see it.
pub(crate) fn show(fingerprint: Option<Fingerprint>) -> String {
    fingerprint.map_or_else(|| "none".into(), |bytes| StreamId::from_bytes(bytes).to_string()[..16].to_owned())
}
