//! Evidence among members: who has some lists `attest/1` in its entry, and each node that verifies that kind asks for it, over a
//! connection that proves whose it is. What it proves counts as grants, as long as it is fresh; `trust` decides what that is.
//!
//! Evidence is made anew after some hours and asked for again as often, both with jitter, so that several attempts may fail before
//! it is too old. Who shows some is told which check it did not pass. With evidence come the digests of what its author has of the word of
//! vendors on machines (collateral); a few pieces of that which are not known are taken along each time, so that it spreads.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use iroh::EndpointAddr;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout};

use super::shared::Shared;
use crate::{
    network::{CloseCode, Family, Incoming, Link, LinkError, OpenError, Protocol},
    primitives::PeerId,
    trust::{
        Reason, RefusedBy,
        attest::{AttestError, CollateralDigest, MAX_AGE, MAX_COLLATERAL, MAX_COLLATERALS, MAX_EVIDENCE, Shown},
    },
};

/// How long one question may take, with its answer and the verdict on it.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Peers that are asked at once.
const AT_ONCE: usize = 16;
/// When evidence is made anew, and asked for again: a third of the time for which it counts, or up to a quarter less.
const REFRESH: Duration = Duration::from_hours(8);
/// The pause after an attempt in vain, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_mins(5);

/// Pieces of collateral that are taken along with one piece of evidence.
const PIECES: usize = 4;
/// How long before the word of its vendor is too old a node begins to warn, each time it makes evidence: long enough to get another.
const WARNED: Duration = Duration::from_hours(10 * 24);

/// `attest/2`: one question, one answer, questions for collateral, one verdict.
pub(super) struct Attesting;

impl Protocol for Attesting {
    type Message = Message;
    const FAMILY: Family = Family::DISCOVERY;
    const NAME: &'static str = "attest/2";
    const MAX_FRAME: usize = if MAX_EVIDENCE > MAX_COLLATERAL { MAX_EVIDENCE } else { MAX_COLLATERAL } + 1024;
}

/// A message of `attest/2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    Ask,
    /// What who is asked has.
    Shown {
        /// Its newest evidence; none if it could make none.
        evidence: Option<Shown>,
        /// What it has of the word of the vendor of that kind.
        collateral: Vec<CollateralDigest>,
    },
    /// A question for a piece of that.
    Give(CollateralDigest),
    /// The piece; nothing if it is not there any more.
    Given(Vec<u8>),
    /// Which check it did not pass, if any.
    Judged(Option<AttestError>),
}

/// When to try again.
struct Due {
    at: Instant,
    pause: Duration,
}

impl Due {
    fn now() -> Self {
        Self { at: Instant::now(), pause: FIRST_PAUSE }
    }

    fn done(&mut self, good: bool, rng: &mut SmallRng) {
        let wait = if good { REFRESH.mul_f64(rng.random_range(0.75..1.0)) } else { self.pause };
        self.pause = if good { FIRST_PAUSE } else { (self.pause * 2).min(LAST_PAUSE) };
        self.at = Instant::now() + wait;
    }
}

fn seconds(shared: &Shared) -> u64 {
    shared.node.transport().wall_clock() / 1_000_000
}

/// Makes this node's own evidence, until the node ends.
pub(super) async fn make(shared: Arc<Shared>) {
    let mut rng = SmallRng::from_seed(shared.node.transport().random_seed());
    let mut due = Due::now();
    loop {
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            () = sleep_until(due.at) => {}
        }
        let (trust, now) = (shared.node.trust().clone(), seconds(&shared));
        let me = shared.node.id();
        let Some(made) = shared.node.tasks().blocking(move || trust.make_evidence(me, now)).await else { return };
        match &made {
            Err(error) => tracing::warn!(%error, "this node has no evidence that others would accept"),
            Ok(()) => warn_of_end(&shared, me, now),
        }
        due.done(made.is_ok(), &mut rng);
        shared.look_again();
    }
}

/// Says when the vendor's word on this machine is about to be too old for others.
fn warn_of_end(shared: &Shared, me: PeerId, now: u64) {
    let left = shared.node.trust().attestable_until(me).map(|until| until.saturating_sub(now));
    if let Some(left) = left.filter(|left| *left < WARNED.as_secs()) {
        let hours = left / 3_600;
        tracing::warn!(
            hours,
            "the vendor's word on this machine is about to be too old: then nobody accepts its evidence"
        );
    }
}

/// Asks those who have evidence for it, until the node ends.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut rng = SmallRng::from_seed(shared.node.transport().random_seed());
    let mut catalog = shared.watch();
    let mut peers: BTreeMap<PeerId, Due> = BTreeMap::new();
    loop {
        let known = catalog.borrow_and_update().clone();
        let shows = |peer: PeerId| known.get(peer).is_some_and(|entry| entry.protocols().contains(Attesting::NAME));
        peers.retain(|peer, _| shows(*peer));
        for entry in known.peers().filter(|entry| entry.id() != shared.node.id() && shows(entry.id())) {
            peers.entry(entry.id()).or_insert_with(Due::now);
        }
        let now = Instant::now();
        let asked: Vec<_> =
            peers.iter().filter(|(_, due)| due.at <= now).map(|(peer, _)| *peer).take(AT_ONCE).collect();
        let more = asked.len() == AT_ONCE;
        let attempts = asked.into_iter().filter_map(|peer| {
            let addr = known.get(peer)?.addr().clone();
            let shared = &shared;
            Some(async move { (peer, attempt(shared, peer, &addr).await) })
        });
        let done = tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            done = join_all(attempts) => done,
        };
        for (peer, good) in done {
            if let Some(due) = peers.get_mut(&peer) {
                due.done(good, &mut rng);
            }
        }
        if more {
            continue;
        }
        let next = peers.values().map(|due| due.at).min();
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            changed = catalog.changed() => if changed.is_err() { return },
            () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {}
        }
    }
}

/// Whether a peer's evidence was taken in.
async fn attempt(shared: &Arc<Shared>, peer: PeerId, addr: &EndpointAddr) -> bool {
    let why = match timeout(EXCHANGE_TIMEOUT, ask(shared, peer, addr)).await {
        Ok(Ok(Ok(()))) => {
            shared.look_again();
            return true;
        }
        Ok(Ok(Err(error))) => {
            let trust = shared.node.trust();
            trust.note(peer, RefusedBy::Us, Reason::Attestation(error.clone()), shared.node.transport().wall_clock());
            error.to_string()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it does not answer".to_owned(),
    };
    tracing::debug!(?peer, why, "no evidence");
    let left = shared.node.trust().attested_until(peer).map(|until| until.saturating_sub(seconds(shared)));
    if left.is_some_and(|left| left > 0 && left < MAX_AGE.as_secs() / 3) {
        tracing::warn!(?peer, left, why, "the evidence of a peer is about to be too old");
    }
    false
}

async fn ask(shared: &Arc<Shared>, peer: PeerId, addr: &EndpointAddr) -> Result<Result<(), AttestError>, OpenError> {
    let mut link = shared.node.open::<Attesting>(addr).await?;
    link.send(&Message::Ask).await?;
    let judged = match link.recv().await? {
        Some(Message::Shown { evidence: Some(shown), collateral }) => {
            take_along(shared, &mut link, &shown.kind, collateral).await?;
            let (trust, now) = (shared.node.trust().clone(), seconds(shared));
            let judged = shared.node.tasks().blocking(move || trust.attest(peer, &shown, now)).await;
            judged.unwrap_or(Err(AttestError::NotShown))
        }
        _ => Err(AttestError::NotShown),
    };
    link.send(&Message::Judged(judged.clone().err())).await?;
    link.finish();
    Ok(judged)
}

/// Asks for pieces of collateral that are not known here. What is not what was asked for is nothing.
async fn take_along(
    shared: &Arc<Shared>,
    link: &mut Link<Attesting>,
    kind: &str,
    told: Vec<CollateralDigest>,
) -> Result<(), OpenError> {
    let trust = shared.node.trust();
    let Some(known) = trust.known_collateral(kind) else { return Ok(()) };
    let unknown = told.into_iter().take(MAX_COLLATERALS).filter(|digest| !known.contains(digest));
    for digest in unknown.take(PIECES) {
        link.send(&Message::Give(digest)).await?;
        let Some(Message::Given(piece)) = link.recv().await? else { return Ok(()) };
        if *blake3::hash(&piece).as_bytes() == digest
            && let Err(error) = trust.take_collateral(kind, &piece)
        {
            tracing::debug!(%error, kind, "collateral of a peer is none");
        }
    }
    Ok(())
}

/// Answers one question.
pub(super) async fn serve(shared: Arc<Shared>, incoming: Incoming) {
    let peer = incoming.peer();
    let mut link = incoming.link::<Attesting>();
    let Some(place) = shared.serving[5].enter(peer) else { return link.close(CloseCode::NoCapacity) };
    let answered = timeout(EXCHANGE_TIMEOUT, async {
        let Some(Message::Ask) = link.recv().await? else { return Ok::<_, LinkError>(None) };
        place.spoke();
        let (evidence, pieces) = (shared.node.trust().evidence(), shared.node.trust().collateral());
        link.send(&Message::Shown { evidence, collateral: pieces.keys().copied().collect() }).await?;
        for _ in 0..=PIECES {
            match link.recv().await? {
                Some(Message::Give(digest)) => {
                    let piece = pieces.get(&digest).map_or_else(Vec::new, |piece| piece.to_vec());
                    link.send(&Message::Given(piece)).await?;
                }
                Some(Message::Judged(error)) => return Ok(error),
                _ => return Ok(None),
            }
        }
        Ok(None)
    });
    let end = tokio::select! {
        biased;
        () = shared.cancel.cancelled() => return,
        () = place.displaced() => return link.close(CloseCode::NoCapacity),
        answered = answered => answered,
    };
    match end {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(error))) => {
            let (trust, now) = (shared.node.trust(), shared.node.transport().wall_clock());
            trust.note(peer, RefusedBy::Them, Reason::Attestation(error.heard()), now);
        }
        Ok(Err(error)) => tracing::debug!(?peer, %error, "a question for evidence failed"),
        Err(_) => link.close(CloseCode::Timeout),
    }
}
