//! The accept side of the QUIC backend: which handshakes are begun, when, and how many at once.
//!
//! Handshakes run side by side and none can stall the others. They have a bound, so that dials which are begun and never
//! finished cost a bounded amount and leave room: above a watermark a dialler first has to prove that it receives at its
//! address (a Retry packet, RFC 9000 section 8.1.2, which keeps no state here), and no address may have more than half.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use iroh::{
    Endpoint,
    endpoint::{Connection, Incoming, IncomingAddr, LocalTransportAddr},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{IrohConnection, Reached, dial};
use crate::transport::lane::Lanes;

/// Addresses of this host that are known to be reached.
const MAX_REACHED: usize = 64;
/// Handshakes that may be under way at once. Further dials are not answered; a dialler repeats its first packet by itself.
const MAX_HANDSHAKES: usize = 256;
/// From so many handshakes on a dialler has to prove its address first.
const RETRY_FROM: usize = 64;
/// Handshakes from one address, loopback excepted: an attacker that has one leaves the other half to everybody else.
const MAX_PER_ADDRESS: usize = MAX_HANDSHAKES / 2;
/// Dials for another node that wait for their answer.
const MAX_ASTRAY: usize = 64;
/// How long a dial for another node waits for its answer: by then the node that is meant has answered, if it is at any of the
/// addresses where the dialler looks for it. Below every sensible idle time-out, after which a dial is gone.
const ANSWER_ASTRAY: Duration = Duration::from_millis(800);
/// An incoming handshake that takes longer is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is done with the first packet of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Its handshake begins.
    Begin,
    /// It is for another node: its handshake begins later, so that the dialler learns who is here.
    BeginLater,
    /// It has to come again with a proof of its address.
    Retry,
    /// It is not answered.
    Drop,
}

/// What is known of the first packet of a dial.
#[derive(Clone, Copy, Debug)]
struct Dial {
    /// Where it comes from; `None` through a relay, which has its own limits.
    from: Option<IpAddr>,
    /// Whether the dialler has proved that it receives there.
    proved: bool,
    /// Whether it names another node.
    astray: bool,
}

/// A connection, and the address of this host at which it came in.
type Done = (Connection, LocalTransportAddr);

/// Handshakes under way.
#[derive(Debug, Default)]
struct Load {
    running: usize,
    by_address: BTreeMap<IpAddr, usize>,
    astray: usize,
}

impl Load {
    fn verdict(&self, dial: Dial) -> Verdict {
        if dial.astray {
            let room = self.astray < MAX_ASTRAY && self.running < RETRY_FROM;
            return if room { Verdict::BeginLater } else { Verdict::Drop };
        }
        if self.running < RETRY_FROM {
            return Verdict::Begin;
        }
        if !dial.proved {
            return Verdict::Retry;
        }
        let of_address = dial.from.filter(|ip| !ip.is_loopback()).and_then(|ip| self.by_address.get(&ip));
        let crowded = of_address.is_some_and(|count| *count >= MAX_PER_ADDRESS);
        if crowded || self.running >= MAX_HANDSHAKES { Verdict::Drop } else { Verdict::Begin }
    }

    fn begin(&mut self, dial: Dial) {
        if dial.astray {
            self.astray += 1;
            return;
        }
        self.running += 1;
        if let Some(ip) = dial.from {
            *self.by_address.entry(ip).or_default() += 1;
        }
    }

    fn end(&mut self, dial: Dial) {
        if dial.astray {
            self.astray -= 1;
            return;
        }
        self.running -= 1;
        if let Some(ip) = dial.from
            && let Some(count) = self.by_address.get_mut(&ip)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&ip);
            }
        }
    }
}

/// Takes connections until the endpoint closes.
pub(super) async fn accept_loop(
    endpoint: Endpoint,
    sender: mpsc::Sender<IrohConnection>,
    reached: Reached,
    lanes: Option<Arc<Lanes>>,
) {
    let mut load = Load::default();
    let mut handshakes: FuturesUnordered<BoxFuture<'static, (Dial, Option<Done>)>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some((dial, done)) = handshakes.next() => {
                load.end(dial);
                let Some((connection, local)) = done else { continue };
                if let LocalTransportAddr::Ip(Some(ip)) = local {
                    let mut reached = reached.lock().unwrap_or_else(PoisonError::into_inner);
                    if reached.len() < MAX_REACHED {
                        reached.insert(ip.to_canonical());
                    }
                }
                if sender.send(IrohConnection::new(connection, lanes.as_ref())).await.is_err() {
                    return;
                }
            }
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                let dial = Dial {
                    from: source(&incoming),
                    proved: incoming.remote_addr_validated(),
                    astray: dial::is_for_another(&incoming, endpoint.id()),
                };
                match load.verdict(dial) {
                    Verdict::Begin => {
                        load.begin(dial);
                        handshakes.push(Box::pin(async move { (dial, handshake(incoming).await) }));
                    }
                    Verdict::BeginLater => {
                        load.begin(dial);
                        handshakes.push(Box::pin(async move {
                            sleep(ANSWER_ASTRAY).await;
                            (dial, handshake(incoming).await)
                        }));
                    }
                    Verdict::Retry => {
                        // It fails only for a dial that has proved its address.
                        if let Err(error) = incoming.retry() {
                            error.into_incoming().ignore();
                        }
                    }
                    Verdict::Drop => incoming.ignore(),
                }
            }
        }
    }
}

fn source(incoming: &Incoming) -> Option<IpAddr> {
    match incoming.remote_addr() {
        IncomingAddr::Ip(addr) => Some(addr.ip().to_canonical()),
        _ => None,
    }
}

async fn handshake(incoming: Incoming) -> Option<Done> {
    let local = incoming.local_addr();
    let Ok(accepting) = incoming.accept() else { return None };
    match timeout(HANDSHAKE_TIMEOUT, accepting).await {
        Ok(Ok(connection)) => Some((connection, local)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "incoming handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("incoming handshake timed out");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn dial(from: [u8; 4], proved: bool) -> Dial {
        Dial { from: Some(Ipv4Addr::from(from).into()), proved, astray: false }
    }

    /// Begins every dial of that kind that is let in; how many are.
    fn fill(load: &mut Load, dial: Dial) -> usize {
        let mut begun = 0;
        while load.verdict(dial) == Verdict::Begin {
            load.begin(dial);
            begun += 1;
        }
        begun
    }

    #[test]
    fn above_the_watermark_an_address_has_to_be_proved() {
        let mut load = Load::default();
        assert_eq!(fill(&mut load, dial([203, 0, 113, 1], false)), RETRY_FROM);
        assert_eq!(load.verdict(dial([203, 0, 113, 2], false)), Verdict::Retry);
        assert_eq!(load.verdict(dial([203, 0, 113, 2], true)), Verdict::Begin);
    }

    #[test]
    fn one_address_leaves_half_of_the_room_to_others() {
        let (attacker, honest) = (dial([203, 0, 113, 1], true), dial([203, 0, 113, 2], true));
        let mut load = Load::default();
        assert_eq!(fill(&mut load, attacker), MAX_PER_ADDRESS);
        assert_eq!(load.verdict(attacker), Verdict::Drop);
        assert_eq!(fill(&mut load, honest), MAX_HANDSHAKES - MAX_PER_ADDRESS);
        assert_eq!(load.verdict(honest), Verdict::Drop);
        for _ in 0..MAX_PER_ADDRESS {
            load.end(attacker);
        }
        assert_eq!((load.verdict(attacker), load.by_address.len()), (Verdict::Begin, 1));
        // Many nodes of one machine are no attack.
        assert_eq!(fill(&mut Load::default(), dial([127, 0, 0, 1], true)), MAX_HANDSHAKES);
    }

    #[test]
    fn dials_for_others_take_no_room_from_those_for_this_node() {
        let mut load = Load::default();
        let astray = Dial { astray: true, ..dial([203, 0, 113, 1], true) };
        for _ in 0..MAX_ASTRAY {
            assert_eq!(load.verdict(astray), Verdict::BeginLater);
            load.begin(astray);
        }
        assert_eq!(load.verdict(astray), Verdict::Drop);
        assert_eq!(load.verdict(dial([203, 0, 113, 2], false)), Verdict::Begin);
    }
}
