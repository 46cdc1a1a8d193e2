//! Renewal among members: a ticket is exchanged, before it ends, for one that holds longer. Members that may renew tickets list
//! `renew/1` in their entries; one of them is asked, over the connection that there is. `trust` decides what is renewed.
//!
//! A first ticket is exchanged as soon as somebody is met who can, a renewed one after two thirds of its life, both with jitter.
//! The new one is shown on new connections, its digest stands in the node's entry, and it is kept in the data directory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use iroh::EndpointAddr;
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout};

use super::{entry::PeerEntry, shared::Shared};
use crate::{
    network::{CloseCode, Family, Incoming, Node, OpenError, Protocol},
    primitives::watch,
    trust::{AuthorityId, JoinError, MAX_TICKET, Membership, RenewError, Ticket},
};

/// How long one question may take, with its answer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Members that are asked in one attempt.
const ASKED: usize = 3;
/// The longest wait before a first ticket is exchanged, so that nodes that start together do not ask together.
const FIRST_JITTER: Duration = Duration::from_secs(2);
/// The pause after an attempt in vain, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_mins(5);
/// The longest sleep: the machine's clock that is never set may stand still while the machine does.
const LOOK_EVERY: Duration = Duration::from_hours(1);

/// `renew/1`: one question, one answer.
pub(super) struct Renewals;

impl Protocol for Renewals {
    type Message = Message;
    const FAMILY: Family = Family::DISCOVERY;
    const NAME: &'static str = "renew/1";
    const MAX_FRAME: usize = MAX_TICKET + 16;
}

/// A message of `renew/1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// The ticket of who asks.
    Ask(Vec<u8>),
    /// The renewed one.
    Renewed(Vec<u8>),
    /// Why there is none.
    Not(RenewError),
}

/// When the present ticket is to be exchanged, by both clocks: whichever comes first.
struct Due {
    at: Instant,
    wall: u64,
    pause: Duration,
    /// Whether the operator was told that nobody renews it.
    told: bool,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Renewed,
    /// Nobody is known who could.
    Nobody,
    /// Those that were asked did not answer, or refused.
    Refused,
    /// It holds as long as a renewed one would.
    NotLonger,
}

/// Renews this node's own ticket and publishes whichever it has, until the node ends.
pub(super) fn run(shared: Arc<Shared>, dir: Option<PathBuf>) -> impl Future<Output = ()> {
    let changes = shared.node.trust().ticket_changes();
    let rng = SmallRng::from_seed(shared.node.transport().random_seed());
    renew(shared, dir, changes, rng)
}

async fn renew(shared: Arc<Shared>, dir: Option<PathBuf>, mut changes: watch::Receiver<u64>, mut rng: SmallRng) {
    let mut catalog = shared.watch();
    let Some(mut due) = due(&shared, &mut rng) else { return };
    loop {
        let now = Instant::now();
        let is_due = due.at <= now || due.wall <= seconds(&shared);
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                changes.borrow_and_update();
                publish(&shared, dir.clone()).await;
                let Some(next) = self::due(&shared, &mut rng) else { return };
                due = next;
            }
            () = sleep_until(due.at.min(now + LOOK_EVERY)), if !is_due => {}
            outcome = attempt(&shared, &mut rng), if is_due => {
                // Also after a success: `changes` tells of the new ticket then, and the next attempt is set by it.
                postpone(&shared, &mut due, &mut rng, outcome);
                if outcome == Outcome::Nobody {
                    tokio::select! {
                        biased;
                        () = shared.cancel.cancelled() => return,
                        changed = catalog.changed() => if changed.is_err() { return },
                        () = sleep_until(due.at) => {}
                    }
                    catalog.borrow_and_update();
                    due.at = due.at.min(Instant::now() + FIRST_PAUSE);
                }
            }
        }
    }
}

fn seconds(shared: &Shared) -> u64 {
    shared.node.transport().wall_clock() / 1_000_000
}

/// When the present ticket is to be exchanged.
fn due(shared: &Shared, rng: &mut SmallRng) -> Option<Due> {
    let (ticket, now) = (shared.node.trust().ticket()?, seconds(shared));
    let wait = if ticket.is_renewed() {
        until_late(&ticket, now, rng)
    } else {
        FIRST_JITTER.min(life(&ticket) / 8).mul_f64(rng.random_range(0.0..1.0))
    };
    let wall = now.saturating_add(wait.as_secs().max(1));
    Some(Due { at: Instant::now() + wait, wall, pause: FIRST_PAUSE, told: false })
}

fn life(ticket: &Ticket) -> Duration {
    Duration::from_secs(ticket.not_after().saturating_sub(ticket.not_before()))
}

/// The time to two thirds of a ticket's life, or up to a twelfth of it less; at most a year.
fn until_late(ticket: &Ticket, now: u64, rng: &mut SmallRng) -> Duration {
    let share = life(ticket).mul_f64(rng.random_range(7.0 / 12.0..8.0 / 12.0));
    let late = ticket.not_before().saturating_add(share.as_secs());
    Duration::from_secs(late.saturating_sub(now)).min(Duration::from_hours(24 * 365))
}

/// The next attempt, unless there is a new ticket by then.
fn postpone(shared: &Shared, due: &mut Due, rng: &mut SmallRng, outcome: Outcome) {
    let Some(ticket) = shared.node.trust().ticket() else { return };
    let (now, mut wait) = (seconds(shared), due.pause.mul_f64(rng.random_range(0.5..1.5)));
    if outcome == Outcome::NotLonger {
        wait = wait.max(until_late(&ticket, now, rng));
    }
    (due.at, due.wall) = (Instant::now() + wait, now.saturating_add(wait.as_secs().max(1)));
    due.pause = (due.pause * 2).min(LAST_PAUSE);
    let left = Duration::from_secs(ticket.not_after().saturating_sub(now));
    if left < life(&ticket) / 6 && !std::mem::replace(&mut due.told, true) {
        tracing::warn!(?left, "this node's ticket is about to end and nobody has renewed it");
    }
}

/// Exchanges the ticket.
async fn attempt(shared: &Arc<Shared>, rng: &mut SmallRng) -> Outcome {
    let trust = shared.node.trust();
    let Some(own) = trust.ticket() else { return Outcome::Nobody };
    let catalog = shared.catalog();
    let mut able: Vec<PeerEntry> =
        catalog.peers().filter(|peer| peer.protocols().contains(Renewals::NAME)).cloned().collect();
    able.shuffle(rng);
    able.sort_by_key(|peer| !shared.node.is_connected(peer.id()));
    let mut outcome = if able.is_empty() { Outcome::Nobody } else { Outcome::Refused };
    let mut take = |answer: Result<Vec<u8>, RenewError>, from| {
        match answer.and_then(|ticket| trust.accept_renewed(&ticket)) {
            Ok(()) => outcome = Outcome::Renewed,
            Err(RenewError::NotLonger) => outcome = Outcome::NotLonger,
            Err(error) => tracing::debug!(?from, %error, "the ticket was not renewed"),
        }
        matches!(outcome, Outcome::Renewed | Outcome::NotLonger)
    };
    if trust.renews() {
        let renewed = trust.renew(own.subject(), own.as_bytes());
        if take(renewed.map(|ticket| ticket.as_bytes().to_vec()), own.subject()) {
            return outcome;
        }
    }
    for peer in able.iter().take(ASKED) {
        match timeout(EXCHANGE_TIMEOUT, ask(&shared.node, peer.addr())).await {
            Ok(Ok(answer)) => {
                if take(answer, peer.id()) {
                    return outcome;
                }
            }
            Ok(Err(error)) => tracing::debug!(peer = ?peer.id(), %error, "the ticket was not renewed"),
            Err(_) => tracing::debug!(peer = ?peer.id(), "the ticket was not renewed in time"),
        }
    }
    outcome
}

/// Asks a member to renew this node's ticket.
pub(crate) async fn ask(node: &Node, to: &EndpointAddr) -> Result<Result<Vec<u8>, RenewError>, OpenError> {
    let own = node.trust().ticket().map_or_else(Vec::new, |ticket| ticket.as_bytes().to_vec());
    let mut link = node.open::<Renewals>(to).await?;
    link.send(&Message::Ask(own)).await?;
    link.finish();
    Ok(match link.recv().await? {
        Some(Message::Renewed(ticket)) => Ok(ticket),
        Some(Message::Not(error)) => Err(error),
        Some(Message::Ask(_)) | None => Err(RenewError::NoLicense),
    })
}

/// Says which ticket this node has now: in its entry, and in its data directory.
async fn publish(shared: &Shared, dir: Option<PathBuf>) {
    let Some(ticket) = shared.node.trust().ticket() else { return };
    let digest = ticket.digest();
    if let Err(error) = shared.with(|core, now| core.try_update_local(|said| said.ticket = Some(digest), now)) {
        tracing::warn!(%error, "the node's own entry cannot name its ticket");
    }
    tracing::debug!(?ticket, until = ticket.not_after(), "this node has another ticket");
    let Some(dir) = dir else { return };
    // Those of a scope are in the list that is kept beside it.
    let authorities = shared.node.trust().authorities().into_iter();
    let authorities = authorities.filter(|(id, scope)| scope.is_everything() || *id == ticket.authority());
    let authorities = authorities.map(|(id, _)| id).collect();
    let keep = move || keep(&dir, ticket, authorities).map_err(|error| error.to_string());
    if let Some(Err(error)) = shared.node.tasks().blocking(keep).await {
        tracing::warn!(
            error,
            "cannot keep the renewed ticket; after a restart it is renewed again, while the kept one holds"
        );
    }
}

/// In the membership that is there. A node that was given its ticket by its program has none.
fn keep(dir: &Path, ticket: Ticket, authorities: Vec<AuthorityId>) -> Result<(), JoinError> {
    let kept = Membership::in_dir(dir)?.filter(|kept| kept.ticket().subject() == ticket.subject());
    match kept.filter(|kept| kept.ticket().network() == ticket.network()) {
        Some(kept) => Membership { authorities, ticket, ..kept }.keep(dir),
        None => Ok(()),
    }
}

/// Answers one question.
pub(super) async fn serve(shared: Arc<Shared>, incoming: Incoming) {
    let peer = incoming.peer();
    let mut link = incoming.link::<Renewals>();
    let Some(place) = shared.serving[4].enter(peer) else { return link.close(CloseCode::NoCapacity) };
    let answered = timeout(EXCHANGE_TIMEOUT, async {
        match link.recv().await? {
            Some(Message::Ask(ticket)) => {
                place.spoke();
                let answer = match shared.node.trust().renew(peer, &ticket) {
                    Ok(renewed) => Message::Renewed(renewed.as_bytes().to_vec()),
                    Err(error) => Message::Not(error),
                };
                tracing::debug!(?peer, ?answer, "asked to renew a ticket");
                link.send(&answer).await?;
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
        Ok(Err(error)) => tracing::debug!(?peer, %error, "a question for a renewal failed"),
        Err(_) => link.close(CloseCode::Timeout),
    }
}
