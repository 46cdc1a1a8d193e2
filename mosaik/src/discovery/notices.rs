//! What discovery tells an operator: warnings in the log, few of each kind a minute.

use std::time::Duration;

use iroh::{EndpointAddr, TransportAddr};
use tokio::time::Instant;

use super::core::Notice;
use crate::primitives::throttle::Throttle;

/// Tells notices, within a rate.
#[derive(Debug, Default)]
pub(super) struct Notices {
    throttle: Throttle<Kind>,
    /// The moment from which the throttle counts.
    origin: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Rival,
    Twins,
    LeftOut,
    Full,
    Contacts,
}

impl Notices {
    pub(super) fn tell(&mut self, notice: Notice, now: Instant) {
        self.tick(now);
        let kind = match &notice {
            Notice::Rival { .. } => Kind::Rival,
            Notice::Twins { .. } => Kind::Twins,
            Notice::LeftOut { .. } => Kind::LeftOut,
            Notice::Full { .. } => Kind::Full,
            Notice::Contacts { .. } => Kind::Contacts,
        };
        let origin = *self.origin.get_or_insert(now);
        if self.throttle.admits(kind, now.saturating_duration_since(origin)) {
            log(notice);
        }
    }

    /// Tells what was held back for a minute.
    pub(super) fn tick(&mut self, now: Instant) {
        let Some(origin) = self.origin else { return };
        for (kind, count) in self.throttle.due(now.saturating_duration_since(origin)) {
            tracing::warn!(?kind, count, "more warnings of this kind in the last minute");
        }
    }

    /// When to tick.
    pub(super) fn next(&self) -> Option<Instant> {
        let next: Duration = self.throttle.next()?;
        self.origin.map(|origin| origin + next)
    }
}

fn log(notice: Notice) {
    match notice {
        Notice::Rival { here, there } => {
            let (here, there) = (places(&here), there.as_ref().map_or_else(|| "an unknown address".to_owned(), places));
            tracing::warn!(
                here,
                there,
                "another node uses this node's key, and each outbids what the other says of itself; stop one of them, or \
                 give it a key of its own"
            );
        }
        Notice::Twins { peer, one, other } => {
            let (one, other) = (places(&one), places(&other));
            tracing::warn!(%peer, one, other, "two nodes use the key of this peer and outbid each other; stop one of them");
        }
        Notice::LeftOut { listed, left_out } => {
            let left_out: Vec<String> = left_out.iter().map(place).collect();
            tracing::warn!(
                listed,
                left_out = left_out.join(" "),
                "this node has more addresses than it can announce; peers do not hear of the others"
            );
        }
        Notice::Full { max, refused } => {
            tracing::warn!(
                max,
                refused,
                "the catalog is full: peers are refused until one departs; see `with_max_peers`"
            );
        }
        Notice::Contacts { peer, max } => {
            tracing::warn!(%peer, max, "too many peers to contact at one time; this one is not");
        }
    }
}

/// Where a node is, in one line.
fn places(addr: &EndpointAddr) -> String {
    let places: Vec<String> = addr.addrs.iter().map(place).collect();
    places.join(" ")
}

fn place(addr: &TransportAddr) -> String {
    match addr {
        TransportAddr::Ip(socket) => socket.to_string(),
        TransportAddr::Relay(url) => url.to_string(),
        other => format!("{other:?}"),
    }
}
