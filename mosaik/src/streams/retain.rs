//! [`Retain`]: what a producer keeps for consumers that come late. Plain configuration; `core::retain` carries it out.

use std::{fmt, time::Duration};

use super::{
    core::retain::{Keep, Retention},
    limits::Buffer,
};

/// Most bytes and items that are kept by default.
const BYTES: usize = 16 << 20;
const ITEMS: usize = 65_536;

/// Says of an item whether it is a key frame.
pub(super) type Opens<T> = Box<dyn Fn(&T) -> bool + Send + Sync>;

/// What a producer keeps of the items that it has sent, for consumers that come late; given to
/// [`ProducerBuilder::retain`](super::ProducerBuilder::retain).
///
/// Whatever is chosen, at most 16 MiB and 65,536 items are kept, or what [`within`](Self::within) says.
///
/// ```
/// use std::time::Duration;
/// use mosaik::streams::{Buffer, Retain};
///
/// let last = Retain::<u64>::last(100);
/// let per_key = Retain::<u64>::last_per_key(1).within(Buffer::items(10_000));
/// let frames = Retain::<u64>::keyframe(|number| number % 60 == 0);
/// let window = Retain::<u64>::window(64 << 20, Duration::from_secs(30));
/// ```
#[must_use = "give it to `ProducerBuilder::retain`"]
pub struct Retain<T> {
    pub(super) keep: Keep,
    pub(super) limit: Buffer,
    pub(super) max_age: Option<Duration>,
    pub(super) opens: Option<Opens<T>>,
}

impl<T> Retain<T> {
    fn new(keep: Keep) -> Self {
        Self { keep, limit: Buffer { items: ITEMS, bytes: BYTES }, max_age: None, opens: None }
    }

    /// The newest so many items (at least one).
    pub fn last(items: usize) -> Self {
        let mut retain = Self::new(Keep::Newest);
        retain.limit.items = items.max(1);
        retain
    }

    /// Of each key of [`with_key`](super::ProducerBuilder::with_key) the newest so many items (at least one). When all keys
    /// together are over the limit, the oldest items go first. Without keys all items have the same.
    pub fn last_per_key(items: usize) -> Self {
        Self::new(Keep::PerKey(items.max(1) as u64))
    }

    /// The last item that is a key frame and everything after it, so that a late joiner begins with what stands on its own and
    /// lacks nothing since. `is_keyframe` is called for every item that is sent. When what follows a key frame is over the
    /// limit, nothing is kept until the next one, and a warning is logged.
    pub fn keyframe(is_keyframe: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        Self { opens: Some(Box::new(is_keyframe)), ..Self::new(Keep::KeyFrame) }
    }

    /// The newest items up to so many encoded bytes (at least one), and no older than `age`.
    pub fn window(bytes: usize, age: Duration) -> Self {
        let mut retain = Self::new(Keep::Newest);
        (retain.limit.bytes, retain.limit.items, retain.max_age) = (bytes.max(1), usize::MAX, Some(age));
        retain
    }

    /// The most that is kept. For [`last`](Self::last) the smaller number of items counts, for [`window`](Self::window) the
    /// smaller number of bytes.
    pub fn within(mut self, limit: Buffer) -> Self {
        match (self.keep, self.max_age) {
            (Keep::Newest, None) => self.limit = Buffer { items: self.limit.items.min(limit.items), ..limit },
            (Keep::Newest, Some(_)) => self.limit = Buffer { bytes: self.limit.bytes.min(limit.bytes), ..limit },
            _ => self.limit = limit,
        }
        self
    }

    /// As the core takes it: nothing outlives the stream's lifespan.
    pub(super) fn retention(&self, lifespan: Option<Duration>) -> Retention {
        let max_age = self.max_age.into_iter().chain(lifespan).min();
        Retention { keep: self.keep, limit: self.limit.into(), max_age }
    }
}

impl<T> fmt::Debug for Retain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retain")
            .field("keep", &self.keep)
            .field("limit", &self.limit)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}
