//! [`Prefer`]: which producers a consumer would rather have, in the order of its criteria.

use std::{fmt, sync::Arc};

use super::{
    consumer::Standing,
    core::choice::{Candidate, Value},
};
use crate::{
    discovery::PeerEntry,
    primitives::{PeerId, Tag, Tags, names},
};

/// Tags that begin so say where a node is: `zone=eu-west`.
pub const ZONE: &str = "zone=";

/// Which producers a consumer takes first, when it takes only [some](super::ConsumerBuilder::with_fanin). The first criterion that
/// tells a clear difference decides; producers that none tells apart are spread over the consumers.
///
/// ```
/// use mosaik::streams::Prefer;
///
/// let prefer = Prefer::zone().then(Prefer::latency());
/// assert_eq!(format!("{prefer:?}"), "Prefer(zone, latency)");
/// ```
#[derive(Clone)]
pub struct Prefer(Vec<Criterion>);

#[derive(Clone)]
enum Criterion {
    Latency,
    Zone,
    Tag(Tag),
    Custom(Arc<dyn Fn(&PeerEntry) -> i64 + Send + Sync>),
}

impl Prefer {
    /// The shortest round trip. A difference of less than 20 % or less than 3 ms is none; a producer whose round trip is not known
    /// yet comes last, and is measured.
    #[must_use]
    pub fn latency() -> Self {
        Self(vec![Criterion::Latency])
    }

    /// Those that announce a zone of this node: a tag that begins with `zone=`.
    #[must_use]
    pub fn zone() -> Self {
        Self(vec![Criterion::Zone])
    }

    /// Those that announce this tag.
    #[must_use]
    pub fn tag(tag: impl Into<Tag>) -> Self {
        Self(vec![Criterion::Tag(tag.into())])
    }

    /// The highest of these ranks. The function is asked often and must not block; one that panics gives the lowest rank.
    #[must_use]
    pub fn by(rank: impl Fn(&PeerEntry) -> i64 + Send + Sync + 'static) -> Self {
        Self(vec![Criterion::Custom(Arc::new(rank))])
    }

    /// No criterion: all are equal.
    pub(super) const fn any() -> Self {
        Self(Vec::new())
    }

    /// Where this one tells no difference, the other one decides.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether round trips count.
    pub(super) fn measures(&self) -> bool {
        self.0.iter().any(|criterion| matches!(criterion, Criterion::Latency))
    }

    /// What a criterion is called.
    pub(super) fn criterion(&self, at: usize) -> String {
        match self.0.get(at) {
            Some(Criterion::Latency) => "latency".to_owned(),
            Some(Criterion::Zone) => "zone".to_owned(),
            Some(Criterion::Tag(tag)) => format!("the tag {tag:?}"),
            Some(Criterion::Custom(_)) | None => "rank".to_owned(),
        }
    }

    /// What is to be said of a producer to a consumer on the node `me`, which announces `ours`.
    pub(super) fn candidate(
        &self,
        me: PeerId,
        ours: &Tags,
        entry: &PeerEntry,
        standing: Standing,
    ) -> Candidate<PeerId> {
        let Standing { flows, heads, fails } = standing;
        let value = |criterion: &Criterion| match criterion {
            Criterion::Latency => Value::Latency(entry.rtt()),
            Criterion::Zone => {
                let is_zone = |tag: &Tag| names::of(tag.as_bytes()).is_some_and(|name| name.starts_with(ZONE));
                Value::Rank(ours.iter().any(|tag| is_zone(tag) && entry.tags().contains(*tag)).into())
            }
            Criterion::Tag(tag) => Value::Rank(entry.tags().contains(*tag).into()),
            Criterion::Custom(rank) => {
                let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rank(entry)));
                Value::Rank(asked.unwrap_or_else(|_| {
                    tracing::error!(peer = ?entry.id(), "a preference of a stream panicked; it counts as the lowest rank");
                    i64::MIN
                }))
            }
        };
        let values = self.0.iter().map(value).collect();
        Candidate { peer: entry.id(), values, lot: lot(me, entry.id()), flows, heads, fails }
    }
}

impl fmt::Debug for Prefer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple("Prefer");
        for criterion in &self.0 {
            match criterion {
                Criterion::Latency => tuple.field(&format_args!("latency")),
                Criterion::Zone => tuple.field(&format_args!("zone")),
                Criterion::Tag(tag) => tuple.field(tag),
                Criterion::Custom(_) => tuple.field(&format_args!("by")),
            };
        }
        tuple.finish()
    }
}

/// Rendezvous hashing: each consumer has an order of its own over all producers, and one that comes or goes moves nobody else.
fn lot(consumer: PeerId, producer: PeerId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(consumer.as_bytes()).update(producer.as_bytes());
    let mut lot = [0; 8];
    lot.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(lot)
}
