//! [`Trust`]: what a node shows to prove that it belongs to its network, and how it judges what others show.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    authority::AuthorityId,
    claims::Grants,
    key::NetworkKey,
    proof::{Author, Channel, Ends, Proof, Said, Secret, TicketFault},
    refusal::{Reason, Refusal, Refusals, RefusedBy},
    revoke::{Revocation, RevocationError, Revocations, Revoked},
    ticket::{LEEWAY, Ticket, TicketDigest},
};
use crate::primitives::{NetworkId, PeerId, throttle::Throttle, watch};

/// Why a peer is not admitted, and what it is told if it is not a stranger.
type Rejected = Box<(Reason, Option<Proof>)>;

/// Authorities that a node may trust at one time.
pub(crate) const MAX_AUTHORITIES: usize = 8;
/// Tickets of peers that a node keeps: as many as it may know peers.
const MAX_TICKETS: usize = 1 << 16;

/// What keeps strangers out of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum NetworkKind {
    /// Nothing: whoever knows the network's id is in.
    Open,
    /// One key that all members share.
    Secret,
    /// Tickets of an authority.
    Authority,
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "an open network",
            Self::Secret => "a secret network",
            Self::Authority => "a network of an authority",
        })
    }
}

/// By what a node is a member.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    Open,
    Secret(NetworkKey),
    Authority { trusted: Vec<AuthorityId>, ticket: Ticket },
}

/// Who may be in the network of a node, and who was refused. Made by [`Network::trust`](crate::Network::trust); cheap to
/// clone, does not keep the network alive.
#[derive(Clone)]
pub struct Trust(Arc<Inner>);

struct Inner {
    network: NetworkId,
    credentials: Credentials,
    /// The wall clock of this node, microseconds since the Unix epoch.
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The first is the one that this node uses when it dials.
    secrets: Vec<Secret>,
    /// Counts the revocations that were heard of.
    news: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    refusals: Refusals,
    lines: Throttle<&'static str>,
    /// Those that were shown and found good, by their subject.
    tickets: BTreeMap<PeerId, Ticket>,
    revoked: Revocations,
}

impl Trust {
    pub(crate) fn new(
        network: NetworkId,
        credentials: Credentials,
        clock: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        let secrets = match &credentials {
            Credentials::Open => Vec::new(),
            Credentials::Secret(key) => vec![Secret::of_key(key, network)],
            Credentials::Authority { trusted, ticket } => {
                let own = ticket.authority();
                let others = trusted.iter().copied().filter(|authority| *authority != own);
                [own].into_iter().chain(others).map(|authority| Secret::of_authority(authority, network)).collect()
            }
        };
        Self(Arc::new(Inner {
            network,
            credentials,
            clock: Box::new(clock),
            secrets,
            news: watch::Sender::new(0),
            state: Mutex::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps strangers out of this network.
    #[must_use]
    pub fn kind(&self) -> NetworkKind {
        match self.0.credentials {
            Credentials::Open => NetworkKind::Open,
            Credentials::Secret(_) => NetworkKind::Secret,
            Credentials::Authority { .. } => NetworkKind::Authority,
        }
    }

    /// This node's ticket, in a network of an authority.
    #[must_use]
    pub fn ticket(&self) -> Option<Ticket> {
        match &self.0.credentials {
            Credentials::Authority { ticket, .. } => Some(ticket.clone()),
            _ => None,
        }
    }

    /// Who was refused and who refused this node, newest first; at most [`MAX_REFUSALS`](super::MAX_REFUSALS), repetitions
    /// counted in one.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refusal> {
        self.state().refusals.newest_first()
    }

    /// How often this node refused or was refused since it was started, by [the reason's name](super::Reason::name).
    #[must_use]
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.state().refusals.counts()
    }

    /// Takes in an authority's word that something is taken back: a ticket, an invitation with all that came of it, or a peer. It
    /// spreads to all members, is kept in the data directory, and ends the connections that it concerns, here at once. True when
    /// it was not known.
    ///
    /// # Errors
    /// When it is not of one of this network's authorities, not for this network, wrongly signed, or one too many.
    pub fn revoke(&self, revocation: &Revocation) -> Result<bool, RevocationError> {
        let trusted = match &self.0.credentials {
            Credentials::Authority { trusted, .. } => trusted.as_slice(),
            _ => &[],
        };
        let what = revocation.verify(self.0.network, trusted)?;
        let is_new = self.state().revoked.add(what, revocation.clone())?;
        if is_new {
            tracing::info!(%what, "revoked");
            self.0.news.send_modify(|news| *news += 1);
        }
        Ok(is_new)
    }

    /// Everything that was taken back, as far as this node has heard.
    #[must_use]
    pub fn revoked(&self) -> Vec<Revoked> {
        self.state().revoked.list()
    }

    /// The same with the authority's words, and a digest of it.
    pub(crate) fn revocations(&self) -> (Vec<Revocation>, [u8; 32]) {
        let state = self.state();
        (state.revoked.all(), state.revoked.digest())
    }

    pub(crate) fn revocations_digest(&self) -> [u8; 32] {
        self.state().revoked.digest()
    }

    /// Changes when something was taken back.
    pub(crate) fn revocation_changes(&self) -> watch::Receiver<u64> {
        self.0.news.subscribe()
    }

    /// What takes a peer's ticket back, if something does; of this node itself, too.
    pub(crate) fn revocation_of(&self, peer: PeerId) -> Option<Revoked> {
        let own = self.ticket().filter(|own| own.subject() == peer);
        let state = self.state();
        own.as_ref().or_else(|| state.tickets.get(&peer)).and_then(|ticket| state.revoked.of(ticket))
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.0.credentials, Credentials::Open)
    }

    /// What the authority says of a peer, by the ticket that stands in its entry.
    pub(crate) fn grants(&self, peer: PeerId, ticket: Option<TicketDigest>) -> Grants {
        let now = (self.0.clock)() / 1_000_000;
        let known = self.state().tickets.get(&peer).cloned();
        let own = self.ticket().filter(|own| own.subject() == peer);
        let known = [own, known].into_iter().flatten().find(|known| Some(known.digest()) == ticket);
        let revoked = |known: &Ticket| self.state().revoked.of(known).is_some();
        let valid = known.filter(|known| in_time(known, now, None).is_ok() && !revoked(known));
        valid.map(|known| known.grants().clone()).unwrap_or_default()
    }

    /// Notes a refusal; with a line on the log, of each reason a few in a minute. `now`: microseconds since the Unix epoch.
    pub(crate) fn note(&self, peer: PeerId, by: RefusedBy, reason: Reason, now: u64) {
        let (mut state, at) = (self.state(), Duration::from_micros(now));
        let name = reason.name();
        let refusal = Refusal { peer, by, reason: reason.clone(), at: now, times: 1 };
        let is_new = state.refusals.add(peer, by, reason, now);
        for (name, held) in state.lines.due(at) {
            tracing::warn!(reason = name, "{held} more refusals in the last minute");
        }
        if is_new && state.lines.admits(name, at) {
            drop(state);
            tracing::warn!("{refusal}");
        }
    }

    /// The key under which this node's own dials prove themselves; `None` in an open network.
    pub(crate) fn dialling(&self, ends: &Ends) -> Option<Channel> {
        self.0.secrets.first().map(|secret| Channel::new(secret, ends))
    }

    /// What this node says of itself.
    pub(crate) fn member(&self, now: u64) -> Said {
        let ticket = self.ticket().map_or_else(Vec::new, |ticket| ticket.as_bytes().to_vec());
        Said::Member { now, ticket }
    }

    /// Judges the proof of a peer that has dialled: the key of the connection and the answer if it is admitted, and otherwise why not, with
    /// what it is to be told if it is not a stranger. `now`: seconds since the Unix epoch.
    pub(crate) fn judge_dialler(&self, ends: &Ends, proof: &Proof, now: u64) -> Result<(Channel, Proof), Rejected> {
        for secret in &self.0.secrets {
            let channel = Channel::new(secret, ends);
            let Some(said) = channel.verify(Author::Dialler, proof) else { continue };
            return match self.judge(ends.dialler, said, now) {
                Ok(()) => match channel.prove(Author::Acceptor, &self.member(now)) {
                    Some(proof) => Ok((channel, proof)),
                    None => Err(Box::new((Reason::NoProof { what: "this node's own is too long" }, None))),
                },
                Err(reason) => {
                    let told =
                        told(&reason).and_then(|why| channel.prove(Author::Acceptor, &Said::Refused { now, why }));
                    Err(Box::new((reason, told)))
                }
            };
        }
        Err(Box::new((Reason::NotProved { ours: self.kind() }, None)))
    }

    /// Judges the answer of a peer that this node has dialled, and says who refuses whom.
    pub(crate) fn judge_acceptor(
        &self,
        channel: &Channel,
        ends: &Ends,
        proof: &Proof,
        now: u64,
    ) -> Result<(), (RefusedBy, Reason)> {
        match channel.verify(Author::Acceptor, proof) {
            None => Err((RefusedBy::Us, Reason::NotProved { ours: self.kind() })),
            Some(Said::Refused { now: theirs, why }) => Err((RefusedBy::Them, heard(why, theirs, now))),
            Some(said) => self.judge(ends.acceptor, said, now).map_err(|reason| (RefusedBy::Us, reason)),
        }
    }

    /// Judges what a peer says that has proved the network's secret.
    fn judge(&self, peer: PeerId, said: Said, now: u64) -> Result<(), Reason> {
        let Said::Member { now: theirs, ticket } = said else {
            return Err(Reason::NoProof { what: "a refusal instead of a proof" });
        };
        if !matches!(self.0.credentials, Credentials::Authority { .. }) {
            return Ok(());
        }
        let ticket = self.check(peer, &ticket)?;
        if let Some(what) = self.state().revoked.of(&ticket) {
            return Err(Reason::Revoked { what });
        }
        in_time(&ticket, now, Some(theirs))?;
        self.keep(ticket);
        Ok(())
    }

    /// Everything about a ticket but the time.
    fn check(&self, peer: PeerId, ticket: &[u8]) -> Result<Ticket, Reason> {
        let ticket = Ticket::from_bytes(ticket)?;
        let trusted = match &self.0.credentials {
            Credentials::Authority { trusted, .. } => trusted.as_slice(),
            _ => &[],
        };
        if !trusted.contains(&ticket.authority()) {
            return Err(Reason::UnknownAuthority { ours: trusted.to_vec(), theirs: ticket.authority() });
        }
        if ticket.network() != self.0.network {
            return Err(Reason::TicketOfOtherNetwork { ours: self.0.network, theirs: ticket.network() });
        }
        if ticket.subject() != peer {
            return Err(Reason::NotTheSubject { subject: ticket.subject() });
        }
        Ok(ticket)
    }

    fn keep(&self, ticket: Ticket) {
        let (mut state, peer) = (self.state(), ticket.subject());
        if state.tickets.len() < MAX_TICKETS || state.tickets.contains_key(&peer) {
            state.tickets.insert(peer, ticket);
        }
    }

    /// Takes in a peer's ticket that somebody gave. It grants what it grants while it holds.
    pub(crate) fn learn(&self, peer: PeerId, ticket: &[u8]) -> Result<(), Reason> {
        self.check(peer, ticket).map(|ticket| self.keep(ticket))
    }

    /// Whether a peer's ticket is known.
    pub(crate) fn has(&self, peer: PeerId, ticket: TicketDigest) -> bool {
        self.state().tickets.get(&peer).is_some_and(|known| known.digest() == ticket)
    }

    /// A peer's ticket, or this node's own, to give out.
    pub(crate) fn ticket_of(&self, peer: PeerId, ticket: TicketDigest) -> Option<Vec<u8>> {
        let known = self.state().tickets.get(&peer).cloned();
        let known =
            [known, self.ticket()].into_iter().flatten().find(|it| (it.subject(), it.digest()) == (peer, ticket));
        known.map(|known| known.as_bytes().to_vec())
    }
}

/// Whether a ticket holds now, give or take the leeway.
fn in_time(ticket: &Ticket, now: u64, theirs: Option<u64>) -> Result<(), Reason> {
    let (not_before, not_after, leeway) = (ticket.not_before(), ticket.not_after(), LEEWAY.as_secs());
    if now > not_after.saturating_add(leeway) {
        return Err(Reason::Expired { not_after, now, theirs });
    }
    if now.saturating_add(leeway) < not_before {
        return Err(Reason::NotYetValid { not_before, now, theirs });
    }
    Ok(())
}

/// What the holder of a ticket is told of it.
fn told(reason: &Reason) -> Option<TicketFault> {
    match reason {
        Reason::Expired { not_after, .. } => Some(TicketFault::Expired(*not_after)),
        Reason::NotYetValid { not_before, .. } => Some(TicketFault::NotYetValid(*not_before)),
        Reason::Revoked { what } => Some(TicketFault::Revoked(*what)),
        _ => None,
    }
}

/// What the holder understands: `now` is the time at the node that refused, `ours` here.
fn heard(why: TicketFault, now: u64, ours: u64) -> Reason {
    match why {
        TicketFault::Expired(not_after) => Reason::Expired { not_after, now, theirs: Some(ours) },
        TicketFault::NotYetValid(not_before) => Reason::NotYetValid { not_before, now, theirs: Some(ours) },
        TicketFault::Revoked(what) => Reason::Revoked { what },
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("kind", &self.kind()).field("network", &self.0.network).finish_non_exhaustive()
    }
}
