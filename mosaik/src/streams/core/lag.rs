//! The lag policy: whether the next item may enter the log, and which subscriber must go because it cannot keep up.
//!
//! A queue is a cursor's distance from the head. It is *full* at its limit, *low* at or below half of it. With
//! [`OnLag::Disconnect`] an item enters unless somebody is full; then `send` waits. As long as everybody else still has
//! something to take, waiting costs nobody anything. From when somebody is *starving* (has taken and written everything) the
//! full ones hold it up, and are closed
//! * after [`GRACE`] without any progress: stalled, or close to it;
//! * after [`DRAG`] in which they were never low and somebody was close to starving all the time: slower than another.
//!
//! Why not at once: the queues of equals drift apart at random, by all that a queue holds, and whoever is ahead then starves for
//! a moment at a time; with a queue of a few items one is full and another empty whenever the second one's task ran first.
//! Whether the one ahead is faster or only ahead cannot be seen in the queues (the network buffers more behind them), only in
//! its staying ahead. So a stalled subscriber costs a fast one [`GRACE`] once, a slow one its pace for [`DRAG`].
//!
//! With [`OnLag::Block`] whoever is full holds up `send`, and has the policy's time for it: to make room at all, and to take half
//! of its queue. The second bounds the pace: one that makes room for a single item just before its time is up, again and again,
//! would otherwise slow its producer to one item per that time, for ever.

use std::{collections::BTreeMap, time::Duration};

use super::{SubId, cursor::Cursor, log::Position};
use crate::streams::limits::{Buffer, OnLag};

/// How long a full subscriber that makes no progress may hold up one that is starving.
pub(crate) const GRACE: Duration = Duration::from_millis(500);
/// The same for one that makes some progress.
const DRAG: Duration = Duration::from_secs(2);

/// How much a queue may hold before it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl From<Buffer> for Limit {
    fn from(Buffer { items, bytes }: Buffer) -> Self {
        Self { items: items as u64, bytes: bytes as u64 }
    }
}

/// How much a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Depth {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl Depth {
    /// The larger of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self { items: self.items.max(other.items), bytes: self.bytes.max(other.bytes) }
    }

    pub(crate) fn is_full(self, limit: Limit) -> bool {
        self.items >= limit.items || self.bytes >= limit.bytes
    }

    pub(crate) fn is_low(self, limit: Limit) -> bool {
        self.items <= limit.items / 2 && self.bytes <= limit.bytes / 2
    }

    /// Whether it is half of what a queue may hold, or more.
    fn is_half(self, limit: Limit) -> bool {
        self.items >= limit.items.div_ceil(2) || self.bytes >= limit.bytes.div_ceil(2)
    }

    fn is_nearly_empty(self, limit: Limit) -> bool {
        self.items <= limit.items / 8 && self.bytes <= limit.bytes / 8
    }
}

/// Whether an item may enter the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Yes,
    /// Not now. Ask again when a cursor moves, or at this time at the latest.
    Wait {
        check_at: Option<Duration>,
    },
}

/// One subscriber's standing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Standing {
    /// Since when it has held up others without any progress.
    stuck_since: Option<Duration>,
    /// Since when it has held up others, without having been low or all others having been well supplied since.
    /// With [`OnLag::Block`]: since when it has not taken half of its queue, having been full then.
    drag_since: Option<Duration>,
    /// Only with [`OnLag::Block`]: since when it has been full, and what it had written at `drag_since`.
    full_since: Option<Duration>,
    drag_from: Position,
}

impl Standing {
    /// The subscriber has written something.
    pub(crate) fn progress(&mut self, depth: Depth, limit: Limit) {
        self.stuck_since = None;
        if depth.is_low(limit) {
            self.drag_since = None;
        }
    }

    /// Since when it holds up a producer that blocks, if it is full.
    fn blocks_since(&mut self, full: bool, written: Position, limit: Limit, now: Duration) -> Option<Duration> {
        if !full {
            self.full_since = None;
            return None;
        }
        let keeps_up = written.since(self.drag_from).is_half(limit);
        let drag_since = self.drag_since.filter(|_| !keeps_up).unwrap_or_else(|| {
            self.drag_from = written;
            now
        });
        self.drag_since = Some(drag_since);
        Some(drag_since.min(*self.full_since.get_or_insert(now)))
    }
}

/// The state of the policy for one producer.
#[derive(Debug)]
pub(crate) struct Lag {
    policy: OnLag,
    limit: Limit,
}

impl Lag {
    pub(crate) fn new(policy: OnLag, limit: Limit) -> Self {
        Self { policy, limit }
    }

    pub(crate) fn limit(&self) -> Limit {
        self.limit
    }

    pub(crate) fn policy(&self) -> OnLag {
        self.policy
    }

    /// Decides for the cursors as they are now. To be called whenever a cursor has moved while a sender waits. Who must
    /// go is added to `expelled`, and is treated as gone already. Not for the policies that leave items out: with them there is
    /// always room.
    pub(crate) fn judge(
        &self,
        cursors: &mut BTreeMap<SubId, Cursor>,
        head: Position,
        now: Duration,
        expelled: &mut Vec<SubId>,
    ) -> Room {
        let starving = cursors.values().any(|cursor| cursor.is_idle(head));
        let is_nearly = |cursor: &Cursor| !cursor.catches_up() && cursor.depth(head).is_nearly_empty(self.limit);
        let nearly = starving || cursors.values().any(is_nearly);
        let mut room = Room::Yes;
        for (id, cursor) in cursors.iter_mut() {
            let depth = cursor.depth(head);
            let full = depth.is_full(self.limit);
            let written = cursor.written();
            let standing = &mut cursor.standing;
            let due = match self.policy {
                OnLag::Disconnect => {
                    if !nearly || depth.is_low(self.limit) {
                        standing.drag_since = None;
                    }
                    if full && starving {
                        let stuck_since = *standing.stuck_since.get_or_insert(now);
                        let drag_since = *standing.drag_since.get_or_insert(now);
                        Some((stuck_since + GRACE).min(drag_since + DRAG))
                    } else {
                        standing.stuck_since = None;
                        None
                    }
                }
                OnLag::Block(patience) => {
                    let since = standing.blocks_since(full, written, self.limit, now);
                    since.map(|since| since.saturating_add(patience))
                }
                OnLag::DropOldest | OnLag::Conflate => return Room::Yes,
            };
            match due {
                Some(due) if due <= now => expelled.push(*id),
                due if full => room = room.or_wait_until(due),
                _ => {}
            }
        }
        room
    }
}

impl Room {
    fn or_wait_until(self, at: Option<Duration>) -> Self {
        let known = match self {
            Self::Yes => None,
            Self::Wait { check_at } => check_at,
        };
        Self::Wait { check_at: known.into_iter().chain(at).min() }
    }
}
