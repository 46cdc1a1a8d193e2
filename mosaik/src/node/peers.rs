//! One line on stderr for every peer that comes, goes or returns.

use std::collections::{BTreeMap, btree_map::Entry};

use futures::StreamExt;

use super::process::say;
use crate::{
    discovery::{Event, Events, PeerEntry},
    primitives::PeerId,
};

/// How many peers are remembered to call them returned rather than discovered.
const REMEMBERED: usize = 65_536;

/// Prints events until the network ends, each line behind `prefix`.
pub(super) async fn tell(mut events: Events, prefix: String) {
    let mut peers = Peers::default();
    while let Some(event) = events.next().await {
        if let Some(line) = peers.line(&event) {
            say(format_args!("{prefix}{line}"));
        }
    }
}

/// The run of each peer that was ever seen: a peer that is seen again, or in another run, has returned.
#[derive(Default)]
struct Peers(BTreeMap<PeerId, u64>);

impl Peers {
    fn line(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::PeerDiscovered(entry) => {
                let word = if self.seen(entry) == Seen::New { "discovered" } else { "returned" };
                Some(format!("peer {word} {}", entry.id()))
            }
            // It was back before anybody had missed it.
            Event::PeerUpdated(entry) => {
                (self.seen(entry) == Seen::OtherRun).then(|| format!("peer returned {}", entry.id()))
            }
            Event::PeerDeparted(peer) => Some(format!("peer departed {} ({})", peer.id(), peer.reason())),
            Event::Lagged(missed) => Some(format!("{missed} events about peers were missed")),
        }
    }

    fn seen(&mut self, entry: &PeerEntry) -> Seen {
        let (run, room) = (entry.version().run_id, self.0.len() < REMEMBERED);
        match self.0.entry(entry.id()) {
            Entry::Occupied(mut known) if *known.get() != run => {
                known.insert(run);
                Seen::OtherRun
            }
            Entry::Occupied(_) => Seen::Again,
            Entry::Vacant(vacant) => {
                if room {
                    vacant.insert(run);
                }
                Seen::New
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Seen {
    New,
    Again,
    OtherRun,
}
