//! Sync sessions and entry requests: the IO around the core's answers. Signatures are verified here, outside the
//! core's lock. Who is served when many ask is decided in `serving`.

use std::{io, sync::Arc, time::Duration};

use iroh::{EndpointAddr, TransportAddr};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    core::{
        Input, Record, Sign, Target, Want,
        sync::{self, Forged, Message, WireRecord, WireSign, pages},
    },
    serving::Place,
    shared::Shared,
    stats::Meter,
};
use crate::{
    network::{CloseCode, Family, Incoming, Link, LinkError, OpenError, Protocol},
    primitives::PeerId,
};

/// How long a request may wait here for an entry that is on its way.
const HOLD: Duration = Duration::from_millis(250);
/// How long a served session may take to say the first thing.
const FIRST_MESSAGE: Duration = Duration::from_secs(5);
/// Messages in one session; a session of a full catalog takes fewer.
const MAX_MESSAGES: usize = 4096;
/// Addresses taken from one host name.
const MAX_RESOLVED: usize = 8;
/// A first attempt that failed within this time was probably made over a connection that was already dead.
const QUICK_FAILURE: Duration = Duration::from_millis(1500);

/// `sync/2`: see [`sync`].
pub(super) struct Sync;

impl Protocol for Sync {
    type Message = Message;
    const FAMILY: Family = Family::DISCOVERY;
    const NAME: &'static str = "sync/2";
    const MAX_FRAME: usize = sync::MAX_FRAME;
}

/// `entry/2`: one question, answered in pages.
pub(super) struct Pull;

impl Protocol for Pull {
    type Message = PullMessage;
    const FAMILY: Family = Family::DISCOVERY;
    const NAME: &'static str = "entry/2";
    const MAX_FRAME: usize = sync::MAX_FRAME;
}

/// A message of `entry/2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PullMessage {
    Ask(Vec<Want>),
    Answer(Vec<WireRecord>),
}

/// Why an exchange with a peer failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer cannot be reached.
    #[error("cannot reach {peer:?}: {reason}")]
    Unreachable {
        /// Who.
        peer: PeerId,
        /// What the transport said.
        reason: String,
    },
    /// A host name cannot be resolved.
    #[error("cannot resolve {host}: {error}")]
    Resolve {
        /// `host:port`.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// The link failed on the way; the peer's reason is in it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The peer sent something that is not what it claims to be, or out of turn.
    #[error("the peer sent {0}")]
    Protocol(String),
    /// The exchange took longer than `session_timeout`.
    #[error("the exchange took too long")]
    TimedOut,
    /// The local node is shut down.
    #[error("the local node is shut down")]
    ShutDown,
}

impl From<Forged> for Error {
    fn from(forged: Forged) -> Self {
        Self::Protocol(format!("{forged}"))
    }
}

/// A link that counts.
struct Counted<'a, P: Protocol> {
    link: Link<P>,
    meter: &'a Meter,
    left: usize,
}

impl<P: Protocol> Counted<'_, P> {
    async fn send(&mut self, message: &P::Message) -> Result<(), Error> {
        self.meter.sent(size(message));
        Ok(self.link.send(message).await?)
    }

    async fn recv(&mut self) -> Result<Option<P::Message>, Error> {
        self.left = self.left.checked_sub(1).ok_or_else(|| Error::Protocol("too many messages".into()))?;
        let message = self.link.recv().await?;
        if let Some(message) = &message {
            self.meter.received(size(message));
        }
        Ok(message)
    }

    async fn expect(&mut self) -> Result<P::Message, Error> {
        self.recv().await?.ok_or_else(|| Error::Protocol("an early end".into()))
    }
}

impl<P: Protocol> Counted<'_, P> {
    /// The first message of a served session: until it comes, the place may be given to others.
    async fn first(&mut self, place: &Place) -> Result<P::Message, Error> {
        let first = timeout(FIRST_MESSAGE, self.expect()).await.map_err(|_| Error::TimedOut)??;
        place.spoke();
        Ok(first)
    }
}

fn size(message: &impl Serialize) -> usize {
    postcard::experimental::serialized_size(message).unwrap_or(0)
}

fn out_of_turn() -> Error {
    Error::Protocol("a message out of turn".into())
}

/// Runs a whole session with a peer; afterwards both have merged what the other had. Cancellation-safe.
pub(super) async fn synchronize(shared: &Arc<Shared>, target: &Target) -> Result<(), Error> {
    let deadline = Instant::now() + shared.config.session_timeout;
    let addr = resolve(target).await?;
    let begun = Instant::now();
    let attempt = || async { timeout_at(deadline, initiate(shared, &addr)).await.map_err(|_| Error::TimedOut)? };
    match attempt().await {
        // The pool does not know yet that its connection is dead, or has just learned it: try once with a fresh one.
        Err(Error::Link(_)) if begun.elapsed() < QUICK_FAILURE => attempt().await,
        result => result,
    }
}

/// Makes sure of a connection to the target, for those who wait for one.
pub(super) async fn reach(shared: &Arc<Shared>, target: &Target) -> Result<(), Error> {
    let addr = resolve(target).await?;
    let reached = shared.node.reach(&addr, Sync::FAMILY).await;
    reached.map_err(|error| Error::Unreachable { peer: target.peer, reason: error.to_string() })
}

/// The addresses of a target, host names included.
pub(super) async fn resolve(target: &Target) -> Result<EndpointAddr, Error> {
    let mut addr = EndpointAddr::from_parts(target.peer.into(), target.addrs.iter().cloned());
    let mut failed = None;
    for host in &target.hosts {
        match tokio::net::lookup_host(host).await {
            Ok(found) => addr.addrs.extend(found.take(MAX_RESOLVED).map(TransportAddr::Ip)),
            Err(error) => failed = Some(Error::Resolve { host: host.clone(), error }),
        }
    }
    match failed {
        Some(error) if addr.addrs.is_empty() => Err(error),
        _ => Ok(addr),
    }
}

async fn initiate(shared: &Arc<Shared>, addr: &EndpointAddr) -> Result<(), Error> {
    let link = shared.node.open::<Sync>(addr).await.map_err(|error| match error {
        OpenError::Link(error) => Error::Link(error),
        error @ OpenError::Connect(_) => Error::Unreachable { peer: addr.id.into(), reason: error.to_string() },
    })?;
    let peer = link.peer();
    let mut link = Counted { link, meter: &shared.counters.sync, left: MAX_MESSAGES };
    let open = shared.with_quietly(|core, now| core.sync_open(now));
    link.send(&open).await?;
    match link.expect().await? {
        Message::Same { signs } => take_signs(shared, peer, &signs)?,
        Message::Buckets { signs, digests } => {
            take_signs(shared, peer, &signs)?;
            let offers = shared.with_quietly(|core, _| core.sync_offers(&digests));
            for offer in offers {
                link.send(&offer).await?;
                drop(offer);
                exchange(shared, &mut link, peer).await?;
            }
        }
        _ => return Err(out_of_turn()),
    }
    link.link.finish();
    // The responder ends its direction when it has merged everything.
    match link.recv().await? {
        None => Ok(()),
        Some(_) => Err(out_of_turn()),
    }
}

/// The initiator's part after one offer.
async fn exchange(shared: &Arc<Shared>, link: &mut Counted<'_, Sync>, peer: PeerId) -> Result<(), Error> {
    loop {
        let Message::Delta { records, signs, wants, more } = link.expect().await? else { return Err(out_of_turn()) };
        take_records(shared, &records)?;
        take_signs(shared, peer, &signs)?;
        if more {
            continue;
        }
        if !wants.is_empty() {
            for page in shared.with_quietly(|core, now| core.sync_records(&wants, now)) {
                link.send(&page).await?;
            }
            if link.expect().await? != Message::Merged {
                return Err(out_of_turn());
            }
        }
        return Ok(());
    }
}

/// Serves one incoming session.
pub(super) async fn serve_sync(shared: Arc<Shared>, incoming: Incoming) {
    let peer = incoming.peer();
    let link = incoming.link::<Sync>();
    let Some(place) = shared.serving[0].enter(peer) else {
        link.close(CloseCode::NoCapacity);
        return;
    };
    let mut link = Counted { link, meter: &shared.counters.sync, left: MAX_MESSAGES };
    let served = timeout(shared.config.session_timeout, respond(&shared, &mut link, &place, peer));
    let result = tokio::select! {
        biased;
        () = shared.cancel.cancelled() => return,
        () = place.displaced() => None,
        result = served => Some(result.unwrap_or(Err(Error::TimedOut))),
    };
    finish(link, peer, result);
}

/// Ends a served link: cleanly, or with the reason. Without a result its place was given to another.
fn finish<P: Protocol>(mut link: Counted<'_, P>, peer: PeerId, result: Option<Result<(), Error>>) {
    match result {
        None => {
            tracing::debug!(?peer, protocol = P::NAME, "a session made room for another");
            link.link.close(CloseCode::NoCapacity);
        }
        Some(Ok(())) => link.link.finish(),
        Some(Err(error)) => {
            tracing::debug!(?peer, protocol = P::NAME, %error, "exchange failed");
            match error {
                Error::Protocol(_) => link.link.close(CloseCode::Undecodable),
                Error::TimedOut => link.link.close(CloseCode::Timeout),
                // The link is closed already.
                _ => {}
            }
        }
    }
}

async fn respond(shared: &Arc<Shared>, link: &mut Counted<'_, Sync>, place: &Place, peer: PeerId) -> Result<(), Error> {
    let Message::Open { root, me, silent } = link.first(place).await? else { return Err(out_of_turn()) };
    let opener = me.verify(shared.node.network_id())?;
    if opener.hint.peer != peer {
        return Err(Error::Protocol("a sign of life of somebody else".into()));
    }
    shared.step(Input::Hint { sign: opener, from: peer });
    let greeting = shared.with_quietly(|core, now| core.sync_greet(root, &opener.hint, &silent, now));
    link.send(&greeting).await?;
    while let Some(message) = link.recv().await? {
        let Message::Offer { buckets, items, last: _ } = message else { return Err(out_of_turn()) };
        let deltas = shared.with_quietly(|core, now| core.sync_delta(&buckets, &items, now));
        let wanted = matches!(deltas.last(), Some(Message::Delta { wants, .. }) if !wants.is_empty());
        for delta in deltas {
            link.send(&delta).await?;
        }
        if wanted {
            take_pages(shared, link).await?;
            link.send(&Message::Merged).await?;
        }
    }
    Ok(())
}

/// The records that the initiator was asked for, to the last page.
async fn take_pages(shared: &Arc<Shared>, link: &mut Counted<'_, Sync>) -> Result<(), Error> {
    loop {
        let Message::Records { records, last } = link.expect().await? else { return Err(out_of_turn()) };
        take_records(shared, &records)?;
        if last {
            return Ok(());
        }
    }
}

fn take_records(shared: &Arc<Shared>, records: &[WireRecord]) -> Result<(), Error> {
    let network = shared.node.network_id();
    let verify = |record: &WireRecord| {
        let record = record.verify(network)?;
        Ok::<_, Forged>(Record { entry: record.entry.trusting(shared.node.trust()), ..record })
    };
    let records: Vec<Record> = records.iter().map(verify).collect::<Result<_, _>>()?;
    if !records.is_empty() {
        shared.step(Input::Records(records));
    }
    Ok(())
}

fn take_signs(shared: &Arc<Shared>, from: PeerId, signs: &[WireSign]) -> Result<(), Error> {
    let network = shared.node.network_id();
    let signs: Vec<Sign> = signs.iter().map(|sign| sign.verify(network)).collect::<Result<_, _>>()?;
    for sign in signs {
        shared.step(Input::Hint { sign, from });
    }
    Ok(())
}

/// Asks a peer for entries and merges the answers.
pub(super) async fn pull(shared: &Arc<Shared>, from: &EndpointAddr, wants: Vec<Want>) -> Result<(), Error> {
    let link = shared.node.open::<Pull>(from).await.map_err(|error| match error {
        OpenError::Link(error) => Error::Link(error),
        error @ OpenError::Connect(_) => Error::Unreachable { peer: from.id.into(), reason: error.to_string() },
    })?;
    let mut link = Counted { link, meter: &shared.counters.entry, left: MAX_MESSAGES };
    link.send(&PullMessage::Ask(wants)).await?;
    link.link.finish();
    while let Some(message) = link.recv().await? {
        let PullMessage::Answer(records) = message else { return Err(out_of_turn()) };
        take_records(shared, &records)?;
    }
    Ok(())
}

/// Serves one entry request.
pub(super) async fn serve_pull(shared: Arc<Shared>, incoming: Incoming) {
    let peer = incoming.peer();
    let link = incoming.link::<Pull>();
    let Some(place) = shared.serving[1].enter(peer) else {
        link.close(CloseCode::NoCapacity);
        return;
    };
    let mut link = Counted { link, meter: &shared.counters.entry, left: MAX_MESSAGES };
    let served = timeout(shared.config.session_timeout, answer(&shared, &mut link, &place, peer));
    let result = tokio::select! {
        biased;
        () = shared.cancel.cancelled() => return,
        () = place.displaced() => None,
        result = served => Some(result.unwrap_or(Err(Error::TimedOut))),
    };
    finish(link, peer, result);
}

/// Answers with what is here at once, and with what is on its way as it comes: a hint often overtakes its entry.
async fn answer(shared: &Arc<Shared>, link: &mut Counted<'_, Pull>, place: &Place, peer: PeerId) -> Result<(), Error> {
    let PullMessage::Ask(mut wants) = link.first(place).await? else { return Err(out_of_turn()) };
    let mut catalog = shared.watch();
    let deadline = Instant::now() + HOLD;
    loop {
        catalog.borrow_and_update();
        let (records, coming) = shared.with_quietly(|core, now| core.pull_answer(&wants, peer, now));
        for page in pages(records) {
            if !page.is_empty() {
                link.send(&PullMessage::Answer(page)).await?;
            }
        }
        wants = coming;
        if wants.is_empty() || !matches!(timeout_at(deadline, catalog.changed()).await, Ok(Ok(()))) {
            return Ok(());
        }
    }
}
