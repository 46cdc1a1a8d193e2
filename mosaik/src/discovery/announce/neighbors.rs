//! Links of the overlay: for each peer at most one outgoing stream with its own bounded queue and writer task, and
//! one incoming stream with its own reader task. A slow peer fills its own queue and is dropped; nobody waits for it.
//!
//! Renewals of leases are most of the traffic and never urgent: they are collected per link for a moment, so that a
//! network of a thousand nodes costs each link a few frames per second and not hundreds. Everything else goes at
//! once and takes along what was collected before it, so the order is kept.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use iroh::EndpointAddr;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{catalog::Catalog, config::Config, stats::Counters},
    BATCH_BYTES, Gossip, Packets,
    pace::LinkPace,
};
use crate::{
    network::{CloseCode, Incoming, Node},
    primitives::{PeerId, watch},
};

/// A link that is not needed is kept for so long: peers often become neighbours again, and one stream keeps the order.
const LINGER: Duration = Duration::from_secs(5);
/// How long to wait for the address of a peer that was only named so far.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);
/// Frames that readers have taken and the worker has not; beyond it the streams' flow control holds.
const INBOX: usize = 256;
/// Messages in one frame. The shortest that are collected have 190 bytes, so an honest peer's frame has fewer.
const MAX_PACKETS: usize = 1024;
/// Links to peers at one time. An overlay has a few neighbours and talks to some more while it takes shape; a neighbour can name any
/// number of peers that are to be talked to.
const MAX_OUTGOING: usize = 512;
/// How long messages that are not urgent are collected.
const COLLECT: Duration = Duration::from_millis(200);

/// What link tasks tell the worker.
#[derive(Debug)]
pub(in super::super) enum FromLink {
    /// A peer opened a stream.
    Opened { peer: PeerId, link: u64, stop: CancellationToken },
    /// Messages came.
    Packets { peer: PeerId, link: u64, packets: Packets },
    /// The stream to a peer ended; `lost` unless it was released and lingered out.
    Closed { peer: PeerId, link: u64, lost: bool },
}

/// The links of the local node.
pub(in super::super) struct Neighbors {
    node: Node,
    cancel: CancellationToken,
    catalog: watch::Receiver<Catalog>,
    counters: Arc<Counters>,
    queue: usize,
    outgoing: BTreeMap<PeerId, Outgoing>,
    incoming: BTreeMap<PeerId, (u64, CancellationToken)>,
    /// When the links that have collected something are to be flushed.
    flush_at: Option<Instant>,
    inbox: mpsc::Sender<FromLink>,
    next_link: Arc<AtomicU64>,
    /// Writers hold a clone; when all are gone, everything queued was delivered or given up.
    writers: (mpsc::Sender<()>, mpsc::Receiver<()>),
}

struct Outgoing {
    link: u64,
    queue: mpsc::Sender<Packets>,
    collected: Packets,
    collected_bytes: usize,
    stop: CancellationToken,
    released: watch::Sender<bool>,
}

/// Makes the reader tasks for incoming streams.
pub(in super::super) struct Door {
    node: Node,
    cancel: CancellationToken,
    counters: Arc<Counters>,
    catalog: watch::Receiver<Catalog>,
    renew_every: Duration,
    inbox: mpsc::Sender<FromLink>,
    next_link: Arc<AtomicU64>,
}

impl Neighbors {
    pub(in super::super) fn new(
        node: Node,
        cancel: CancellationToken,
        catalog: watch::Receiver<Catalog>,
        counters: Arc<Counters>,
        config: &Config,
    ) -> (Self, Door, mpsc::Receiver<FromLink>) {
        let (inbox, receiver) = mpsc::channel(INBOX);
        let next_link = Arc::new(AtomicU64::new(0));
        let door = Door {
            node: node.clone(),
            cancel: cancel.clone(),
            counters: counters.clone(),
            catalog: catalog.clone(),
            renew_every: config.renew_every,
            inbox: inbox.clone(),
            next_link: next_link.clone(),
        };
        let neighbors = Self {
            node,
            cancel,
            catalog,
            counters,
            queue: config.neighbor_queue,
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            flush_at: None,
            inbox,
            next_link,
            writers: mpsc::channel(1),
        };
        (neighbors, door, receiver)
    }

    /// Queues a message for a peer. False when its queue is full: then its link was dropped; or when there are too many links.
    pub(in super::super) fn send(&mut self, to: PeerId, packet: Bytes, urgent: bool) -> bool {
        // A writer that has ended is replaced; its notice is on the way and will not count.
        if self.outgoing.get(&to).is_none_or(|out| out.queue.is_closed()) {
            if self.outgoing.len() >= MAX_OUTGOING && !self.outgoing.contains_key(&to) {
                tracing::debug!(peer = ?to, max = MAX_OUTGOING, "too many gossip links; none is opened");
                return false;
            }
            self.open(to);
        }
        let Some(out) = self.outgoing.get_mut(&to) else { return false };
        out.released.send_if_modified(std::mem::take);
        out.collected_bytes += packet.len();
        out.collected.0.push(packet);
        if !urgent && out.collected_bytes < BATCH_BYTES {
            self.flush_at.get_or_insert_with(|| Instant::now() + COLLECT);
            return true;
        }
        self.flush_link(to)
    }

    /// When [`Self::flush_collected`] is due.
    pub(in super::super) const fn flush_at(&self) -> Option<Instant> {
        self.flush_at
    }

    /// Sends what was collected for long enough; the peers whose queues were full and whose links were dropped.
    pub(in super::super) fn flush_collected(&mut self, now: Instant) -> Vec<PeerId> {
        if self.flush_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.flush_at = None;
        let waiting: Vec<PeerId> =
            self.outgoing.iter().filter(|(_, out)| !out.collected.0.is_empty()).map(|(peer, _)| *peer).collect();
        waiting.into_iter().filter(|peer| !self.flush_link(*peer)).collect()
    }

    fn flush_link(&mut self, to: PeerId) -> bool {
        let Some(out) = self.outgoing.get_mut(&to) else { return true };
        out.collected_bytes = 0;
        match out.queue.try_send(std::mem::take(&mut out.collected)) {
            // When the writer has ended, its notice is on the way.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::debug!(peer = ?to, "a neighbour's queue is full; dropping the link");
                self.drop_outgoing(to);
                false
            }
        }
    }

    fn open(&mut self, to: PeerId) {
        let link = self.next_link.fetch_add(1, Ordering::Relaxed);
        let (queue, receiver) = mpsc::channel(self.queue);
        let (released, is_released) = watch::channel(false);
        let stop = self.cancel.child_token();
        let writer = Writer {
            node: self.node.clone(),
            peer: to,
            catalog: self.catalog.clone(),
            counters: self.counters.clone(),
            queue: receiver,
            released: is_released,
            _alive: self.writers.0.clone(),
        };
        let (collected, stop_writer) = (Packets::default(), stop.clone());
        self.outgoing.insert(to, Outgoing { link, queue, collected, collected_bytes: 0, stop, released });
        let inbox = self.inbox.clone();
        self.node.tasks().spawn("gossip-out", async move {
            let lost = tokio::select! {
                biased;
                () = stop_writer.cancelled() => return,
                lost = writer.run() => lost,
            };
            // The worker is gone only when the node is.
            let _ = inbox.send(FromLink::Closed { peer: to, link, lost }).await;
        });
    }

    /// The link to a peer is not needed any more; it closes unless it is used again soon.
    pub(in super::super) fn release(&self, peer: PeerId) {
        if let Some(out) = self.outgoing.get(&peer) {
            out.released.send_replace(true);
        }
    }

    /// A peer opened a stream. True when it had one open already: it has forgotten that, and with it the neighbourhood.
    pub(in super::super) fn opened(&mut self, peer: PeerId, link: u64, stop: CancellationToken) -> bool {
        match self.incoming.insert(peer, (link, stop)) {
            Some((_, old)) => {
                old.cancel();
                self.drop_outgoing(peer);
                true
            }
            None => false,
        }
    }

    /// A link has ended. True when it was the current one of its direction, and, for one that the peer had opened, was
    /// lost rather than finished: the other direction is then given up, too.
    pub(in super::super) fn closed(&mut self, peer: PeerId, link: u64, lost: bool) -> bool {
        if self.is_current(peer, link) {
            self.incoming.remove(&peer);
            if lost {
                self.drop_outgoing(peer);
            }
            return lost;
        }
        if self.outgoing.get(&peer).is_some_and(|out| out.link == link) {
            self.outgoing.remove(&peer);
            return true;
        }
        false
    }

    /// Whether messages of this link count: not when a newer one took its place.
    pub(in super::super) fn is_current(&self, peer: PeerId, link: u64) -> bool {
        self.incoming.get(&peer).is_some_and(|(current, _)| *current == link)
    }

    /// Closes a peer's stream to this node, because of what it sent.
    pub(in super::super) fn refuse(&mut self, peer: PeerId) {
        if let Some((_, stop)) = self.incoming.remove(&peer) {
            stop.cancel();
        }
    }

    fn drop_outgoing(&mut self, peer: PeerId) {
        if let Some(out) = self.outgoing.remove(&peer) {
            out.stop.cancel();
        }
    }

    /// Ends every outgoing link after what is queued. Resolves when the peers have taken it; bound it from outside.
    pub(in super::super) async fn finish(mut self) {
        let peers: Vec<PeerId> = self.outgoing.keys().copied().collect();
        peers.into_iter().for_each(|peer| _ = self.flush_link(peer));
        self.outgoing.clear();
        drop(self.writers.0);
        let none = self.writers.1.recv().await;
        debug_assert!(none.is_none());
    }
}

/// A writer task's belongings.
struct Writer {
    node: Node,
    peer: PeerId,
    catalog: watch::Receiver<Catalog>,
    counters: Arc<Counters>,
    queue: mpsc::Receiver<Packets>,
    released: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

impl Writer {
    /// Writes until the link fails (true), or it was released and lingered out (false).
    async fn run(mut self) -> bool {
        let Some(addr) = self.address().await else { return true };
        let link = match self.node.open::<Gossip>(&addr).await {
            Ok(link) => link,
            Err(error) => {
                tracing::debug!(peer = ?self.peer, %error, "no gossip link");
                return true;
            }
        };
        let (mut sender, mut receiver) = link.split();
        let lost = loop {
            let linger = async {
                // An error says that the worker has dropped this link; then the queue ends, too.
                while self.released.wait_for(|released| *released).await.is_ok() {
                    if timeout(LINGER, self.released.wait_for(|released| !*released)).await.is_err() {
                        return;
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                packets = self.queue.recv() => {
                    let Some(packets) = packets else { break false };
                    packets.0.iter().for_each(|packet| self.counters.gossip.sent(packet.len()));
                    if sender.send(&packets).await.is_err() {
                        return true;
                    }
                }
                // The peer says nothing in this direction: whatever comes, it has stopped reading.
                _ = receiver.recv() => break true,
                () = linger => break false,
            }
        };
        sender.finish();
        if !lost {
            // It ends when the peer's reader has taken everything.
            let _ = timeout(LINGER, receiver.recv()).await;
        }
        lost
    }

    /// Where the peer is: in the catalog, or it is connected, or its entry is being fetched.
    async fn address(&mut self) -> Option<EndpointAddr> {
        let known = |catalog: &Catalog| catalog.get(self.peer).map(|entry| entry.addr().clone());
        if let Some(addr) = known(&self.catalog.borrow()) {
            return Some(addr);
        }
        if self.node.is_connected(self.peer) {
            return Some(self.peer.into());
        }
        let found = timeout(ADDRESS_TIMEOUT, self.catalog.wait_for(|catalog| catalog.contains(self.peer))).await;
        found.ok()?.ok().as_deref().and_then(known)
    }
}

impl Door {
    /// Takes in a stream that a peer opened.
    pub(in super::super) fn enter(&self, incoming: Incoming) {
        let (inbox, counters, catalog) = (self.inbox.clone(), self.counters.clone(), self.catalog.clone());
        let mut pace = LinkPace::new(self.renew_every, Instant::now());
        let peer = incoming.peer();
        let id = self.next_link.fetch_add(1, Ordering::Relaxed);
        let stop = self.cancel.child_token();
        self.node.tasks().spawn("gossip-in", async move {
            let mut link = incoming.link::<Gossip>();
            if inbox.send(FromLink::Opened { peer, link: id, stop: stop.clone() }).await.is_err() {
                return;
            }
            let lost = loop {
                let received = tokio::select! {
                    biased;
                    () = stop.cancelled() => {
                        link.close(CloseCode::NotAllowed);
                        return;
                    }
                    received = link.recv() => received,
                };
                match received {
                    Ok(Some(packets)) if packets.0.len() > MAX_PACKETS => {
                        tracing::debug!(
                            ?peer,
                            count = packets.0.len(),
                            "gossip link refused: too many messages in a frame"
                        );
                        link.close(CloseCode::TooLarge);
                        break true;
                    }
                    Ok(Some(packets)) => {
                        packets.0.iter().for_each(|packet| counters.gossip.received(packet.len()));
                        let peers = catalog.borrow().len();
                        let pause = pace.pause(packets.0.len(), peers, Instant::now());
                        if inbox.send(FromLink::Packets { peer, link: id, packets }).await.is_err() {
                            return;
                        }
                        if !pause.is_zero() {
                            tracing::debug!(
                                ?peer,
                                ?pause,
                                "a neighbour sends more than it may; reading it more slowly"
                            );
                            tokio::select! {
                                biased;
                                () = stop.cancelled() => {
                                    link.close(CloseCode::NotAllowed);
                                    return;
                                }
                                () = sleep(pause) => {}
                            }
                        }
                    }
                    Ok(None) => break false,
                    Err(error) => {
                        tracing::trace!(?peer, %error, "gossip stream ended");
                        break true;
                    }
                }
            };
            // The worker is gone only when the node is.
            let _ = inbox.send(FromLink::Closed { peer, link: id, lost }).await;
        });
    }
}
