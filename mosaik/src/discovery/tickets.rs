//! Tickets by their digest: a network of an authority has them beside the entries, so that a node knows what a peer is granted
//! before it dials it. Entries carry only the digest; whoever has the ticket gives it out, and everybody verifies it.
//!
//! Most tickets come by themselves, as the proof of a connection. The others are fetched here: from neighbours, or else from
//! their holder, whose proof brings it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout};

use super::{entry::PeerEntry, shared::Shared};
use crate::{
    network::{CloseCode, Family, Incoming, OpenError, Protocol},
    primitives::PeerId,
    trust::{MAX_TICKET, TicketDigest},
};

/// How long one question may take, with its answer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Tickets that are asked for between two looks at the catalog.
const AT_ONCE: usize = 64;
/// Peers that are asked for one ticket before its holder is.
const NEIGHBOURS: usize = 2;
/// The pause before a ticket that nobody had is asked for again, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_mins(1);

/// `ticket/1`: one question, one answer.
pub(super) struct Tickets;

impl Protocol for Tickets {
    type Message = Message;
    const FAMILY: Family = Family::DISCOVERY;
    const NAME: &'static str = "ticket/1";
    const MAX_FRAME: usize = MAX_TICKET + 16;
}

/// A message of `ticket/1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    Ask {
        peer: PeerId,
        ticket: TicketDigest,
    },
    /// The encoded ticket; empty when it is not here.
    Answer(Vec<u8>),
}

/// What was asked for in vain.
struct Missed {
    ticket: TicketDigest,
    pause: Duration,
    again: Instant,
}

/// Fetches what is missing, until the node ends.
pub(super) async fn fetch(shared: Arc<Shared>) {
    let mut catalog = shared.watch();
    let mut missed: BTreeMap<PeerId, Missed> = BTreeMap::new();
    loop {
        let now = Instant::now();
        let known = catalog.borrow_and_update().clone();
        missed.retain(|peer, missed| known.get(peer).and_then(PeerEntry::ticket) == Some(missed.ticket));
        let waits = |peer: &PeerEntry, ticket| {
            missed.get(&peer.id()).is_some_and(|missed| missed.ticket == ticket && missed.again > now)
        };
        let wanted = known.peers().filter_map(|peer| {
            let ticket = peer.ticket()?;
            (!shared.node.trust().has(peer.id(), ticket) && !waits(peer, ticket)).then(|| (peer.clone(), ticket))
        });
        let wanted: Vec<_> = wanted.take(AT_ONCE).collect();
        let more = wanted.len() == AT_ONCE;
        for (peer, ticket) in wanted {
            let found = tokio::select! {
                biased;
                () = shared.cancel.cancelled() => return,
                found = find(&shared, &peer, ticket) => found,
            };
            if found {
                missed.remove(&peer.id());
                shared.look_again();
                continue;
            }
            let pause = missed.get(&peer.id()).map_or(FIRST_PAUSE, |missed| (missed.pause * 2).min(LAST_PAUSE));
            missed.insert(peer.id(), Missed { ticket, pause, again: Instant::now() + pause });
        }
        if more {
            continue;
        }
        let next = missed.values().map(|missed| missed.again).min();
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            changed = catalog.changed() => if changed.is_err() { return },
            () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {}
        }
    }
}

/// Asks neighbours for a ticket, then its holder.
async fn find(shared: &Arc<Shared>, peer: &PeerEntry, ticket: TicketDigest) -> bool {
    let neighbours = shared.connected().filter(|it| it.id() != peer.id());
    let asked: Vec<_> = neighbours.take(NEIGHBOURS).chain([peer.clone()]).collect();
    for neighbour in asked {
        match timeout(EXCHANGE_TIMEOUT, ask(shared, &neighbour, peer.id(), ticket)).await {
            Ok(Ok(Some(bytes))) => {
                if let Err(reason) = shared.node.trust().learn(peer.id(), &bytes, ticket) {
                    tracing::debug!(from = ?neighbour.id(), of = ?peer.id(), %reason, "a ticket is not one");
                }
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(from = ?neighbour.id(), %error, "no ticket"),
            Err(_) => tracing::debug!(from = ?neighbour.id(), "no ticket in time"),
        }
        if shared.node.trust().has(peer.id(), ticket) {
            return true;
        }
    }
    false
}

async fn ask(
    shared: &Arc<Shared>,
    from: &PeerEntry,
    peer: PeerId,
    ticket: TicketDigest,
) -> Result<Option<Vec<u8>>, OpenError> {
    let mut link = shared.node.open::<Tickets>(from.addr()).await?;
    link.send(&Message::Ask { peer, ticket }).await?;
    link.finish();
    Ok(match link.recv().await? {
        Some(Message::Answer(bytes)) if !bytes.is_empty() => Some(bytes),
        _ => None,
    })
}

/// Answers one question.
pub(super) async fn serve(shared: Arc<Shared>, incoming: Incoming) {
    let peer = incoming.peer();
    let mut link = incoming.link::<Tickets>();
    let Some(place) = shared.serving[2].enter(peer) else { return link.close(CloseCode::NoCapacity) };
    let answered = timeout(EXCHANGE_TIMEOUT, async {
        match link.recv().await? {
            Some(Message::Ask { peer, ticket }) => {
                place.spoke();
                let bytes = shared.node.trust().ticket_of(peer, ticket).unwrap_or_default();
                link.send(&Message::Answer(bytes)).await?;
                link.finish();
                // Who closes first drops what is on its way.
                link.recv().await.map(drop)
            }
            _ => Ok(()),
        }
    });
    let end = tokio::select! {
        biased;
        () = shared.cancel.cancelled() => return,
        () = place.displaced() => return link.close(CloseCode::NoCapacity),
        answered = answered => answered,
    };
    match end {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(?peer, %error, "a question for a ticket failed"),
        Err(_) => link.close(CloseCode::Timeout),
    }
}
