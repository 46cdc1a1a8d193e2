//! Lines on stderr for peers that come, go or return: one each, until there are too many of a kind in a minute; then one a minute.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use futures::StreamExt;
use tokio::time::{Instant, sleep_until};

use super::process::say;
use crate::{
    discovery::{Event, Events, PeerEntry},
    primitives::{PeerId, throttle::Throttle},
};

/// How many peers are remembered to call them returned rather than discovered.
const REMEMBERED: usize = 65_536;

/// Prints events until the network ends, each line behind `prefix`.
pub(super) async fn tell(mut events: Events, prefix: String) {
    let begun = Instant::now();
    let mut peers = Peers::default();
    loop {
        let next = peers.throttle.next().map(|at| begun + at);
        let event = tokio::select! {
            biased;
            () = async { sleep_until(next.unwrap_or(begun)).await }, if next.is_some() => None,
            event = events.next() => match event {
                Some(event) => Some(event),
                None => break,
            },
        };
        for line in peers.lines(event.as_ref(), begun.elapsed()) {
            say(format_args!("{prefix}{line}"));
        }
    }
    for (kind, count) in peers.throttle.rest() {
        say(format_args!("{prefix}{}", summary(kind, count)));
    }
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Discovered,
    Returned,
    Departed,
    Missed,
}

/// The line that stands for all that were not printed.
fn summary(kind: Kind, count: u32) -> String {
    match kind {
        Kind::Discovered => format!("{count} more peers discovered within a minute"),
        Kind::Returned => format!("{count} more peers returned within a minute"),
        Kind::Departed => format!("{count} more peers departed within a minute"),
        Kind::Missed => format!("events about peers were missed {count} more times within a minute"),
    }
}

#[derive(Default)]
struct Peers {
    /// The run of each peer that was ever seen: a peer that is seen again, or in another run, has returned.
    runs: BTreeMap<PeerId, u64>,
    throttle: Throttle<Kind>,
}

impl Peers {
    /// What to print at a moment, because of an event if there is one.
    fn lines(&mut self, event: Option<&Event>, now: Duration) -> Vec<String> {
        let mut lines: Vec<String> =
            self.throttle.due(now).into_iter().map(|(kind, count)| summary(kind, count)).collect();
        if let Some((kind, line)) = event.and_then(|event| self.line(event))
            && self.throttle.admits(kind, now)
        {
            lines.push(line);
        }
        lines
    }

    fn line(&mut self, event: &Event) -> Option<(Kind, String)> {
        match event {
            Event::PeerDiscovered(entry) if self.seen(entry) == Seen::New => {
                Some((Kind::Discovered, format!("peer discovered {}", entry.id())))
            }
            Event::PeerDiscovered(entry) => Some((Kind::Returned, format!("peer returned {}", entry.id()))),
            // It was back before anybody had missed it.
            Event::PeerUpdated(entry) => {
                (self.seen(entry) == Seen::OtherRun).then(|| (Kind::Returned, format!("peer returned {}", entry.id())))
            }
            Event::PeerDeparted(peer) => {
                Some((Kind::Departed, format!("peer departed {} ({})", peer.id(), peer.reason())))
            }
            Event::Lagged(missed) => Some((Kind::Missed, format!("{missed} events about peers were missed"))),
        }
    }

    fn seen(&mut self, entry: &PeerEntry) -> Seen {
        let (run, room) = (entry.version().run_id, self.runs.len() < REMEMBERED);
        match self.runs.entry(entry.id()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_events_is_a_few_lines_and_then_one_a_minute() {
        let mut peers = Peers::default();
        let mut printed = Vec::new();
        for second in 0..180u64 {
            for _ in 0..50 {
                printed.extend(peers.lines(Some(&Event::Lagged(1)), Duration::from_secs(second)));
            }
        }
        printed.extend(peers.lines(None, Duration::from_mins(3)));
        assert_eq!(printed.iter().filter(|line| line.ends_with("peers were missed")).count(), 20);
        assert_eq!(
            printed[20..],
            [
                "events about peers were missed 2980 more times within a minute",
                "events about peers were missed 3000 more times within a minute",
                "events about peers were missed 3000 more times within a minute",
            ]
        );
    }
}
