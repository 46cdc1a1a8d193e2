//! The agreement on a lane: right after a connection is admitted, its dialler asks on it whether the peer can be reached without
//! packets, and tells where it listens itself. Whoever has no lane does not know the protocol, and everything stays on QUIC.
//!
//! Only streams and bonds have a lane, and only peers whose address is one of this host are asked: nobody else learns where a
//! socket is. What is done with the answer is the transport's business.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    close::CloseCode,
    link::{Family, Link, LinkError, Protocol},
    node::Node,
    pool::Entry,
    router::Acceptors,
};
use crate::transport::{Connection, LaneOffer};

/// How long the dialler of a connection waits for the answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How long the first streams of a connection that a peer has dialled wait for its question: it comes at once, or, of an older
/// version, never.
const QUESTION: Duration = Duration::from_millis(250);

/// Name and version of the protocol.
pub(super) const NAME: &str = "lane/1";

/// Where this end listens.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    /// The path of a Unix socket; `None` where there is only memory to share.
    socket: Option<String>,
}

macro_rules! lane_of {
    ($name:ident, $family:ident) => {
        #[derive(Debug)]
        struct $name;

        impl Protocol for $name {
            type Message = Offer;
            const FAMILY: Family = Family::$family;
            const NAME: &'static str = NAME;
            const MAX_FRAME: usize = 1 << 10;
        }
    };
}

lane_of!(OfStreams, STREAMS);
lane_of!(OfGroups, GROUPS);

/// Answers peers that ask.
pub(super) fn serve(node: &Node, acceptors: &mut Acceptors) {
    serve_one::<OfStreams>(node, acceptors);
    serve_one::<OfGroups>(node, acceptors);
}

fn serve_one<P: Protocol<Message = Offer>>(node: &Node, acceptors: &mut Acceptors) {
    let node = node.clone();
    acceptors.accept::<P>(move |incoming| {
        node.tasks().spawn("lane-answer", answer(node.clone(), incoming.link::<P>()));
    });
}

/// Begins the agreement at this end of a connection that was admitted.
pub(super) fn begin(node: &Node, entry: &Arc<Entry>) {
    let Some(lane) = entry.connection.lane() else { return };
    match entry.family {
        Family::STREAMS | Family::GROUPS if !is_of_this_host(node, &entry.connection) => lane.settle(None),
        Family::STREAMS if entry.outgoing => {
            node.tasks().spawn("lane-ask", ask::<OfStreams>(node.clone(), entry.clone()));
        }
        Family::GROUPS if entry.outgoing => {
            node.tasks().spawn("lane-ask", ask::<OfGroups>(node.clone(), entry.clone()));
        }
        _ => {}
    }
}

/// Waits until it is known whether there is a lane, where there may be one: streams live long.
pub(super) async fn settled(node: &Node, entry: &Entry) {
    let Some(lane) = entry.connection.lane() else { return };
    if entry.family.has_lane() && is_of_this_host(node, &entry.connection) {
        // Without an answer in time there is none for what is opened now.
        let _ = timeout(if entry.outgoing { ANSWER } else { QUESTION }, lane.settled()).await;
    }
}

/// Whether the peer is at an address of this host.
fn is_of_this_host(node: &Node, connection: &Connection) -> bool {
    connection.socket().is_some_and(|socket| {
        let ip = socket.ip().to_canonical();
        ip.is_loopback() || node.addr().ip_addrs().any(|own| own.ip().to_canonical() == ip)
    })
}

async fn ask<P: Protocol<Message = Offer>>(node: Node, entry: Arc<Entry>) {
    let asked = async {
        let Some(LaneOffer { socket }) = entry.connection.offer_lane() else { return Ok(None) };
        let mut link: Link<P> = node.link_on(&entry).await?;
        link.send(&Offer { socket }).await?;
        link.finish();
        link.recv().await
    };
    let answer = timeout(ANSWER, asked).await.unwrap_or(Err(LinkError::Stalled));
    if let Err(error) = &answer {
        tracing::debug!(peer = ?entry.connection.peer(), family = entry.family.alpn(), %error, "no lane");
    }
    if let Some(lane) = entry.connection.lane() {
        lane.settle(answer.ok().flatten().map(|Offer { socket }| LaneOffer { socket }));
    }
}

async fn answer<P: Protocol<Message = Offer>>(node: Node, mut link: Link<P>) {
    let asked = timeout(ANSWER, link.recv()).await;
    let connection = link.connection();
    let offer = if is_of_this_host(&node, connection) { connection.offer_lane() } else { None };
    let (Ok(Ok(Some(Offer { socket: theirs }))), Some(LaneOffer { socket }), Some(lane)) =
        (asked, offer, connection.lane().cloned())
    else {
        return link.close(CloseCode::UnsupportedProtocol);
    };
    lane.settle(Some(LaneOffer { socket: theirs }));
    if let Err(error) = link.send(&Offer { socket }).await {
        tracing::debug!(peer = ?link.peer(), %error, "the answer about a lane was not heard");
    }
    link.finish();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::fixtures::Fixture;

    #[test]
    fn offers_are_as_they_were() {
        Fixture::new("lane/1").postcard::<Offer>().check();
    }
}
