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
    known::Known,
    license::Issuer,
    listed::Lists,
    proof::{Author, Channel, Ends, Proof, Said, Secret, TicketFault},
    refusal::{Reason, Refusal, Refusals, RefusedBy},
    revoke::Revocations,
    scope::Scope,
    ticket::{LEEWAY, Ticket, TicketDigest},
};
use crate::primitives::{NetworkId, PeerId, throttle::Throttle, watch};

/// Why a peer is not admitted, and what it is told if it is not a stranger.
type Rejected = Box<(Reason, Option<Proof>)>;

/// Authorities that a node may trust at one time.
pub(crate) const MAX_AUTHORITIES: usize = 8;

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
    Authority(Box<Own>),
}

/// By what a node is in a network of an authority.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    /// Whose tickets count, and for what.
    pub(crate) trusted: Vec<(AuthorityId, Scope)>,
    pub(crate) ticket: Ticket,
    /// With what it renews tickets, if it may.
    pub(crate) issuer: Option<Issuer>,
}

impl Own {
    pub(super) fn scope_of(&self, authority: AuthorityId) -> Option<&Scope> {
        self.trusted.iter().find(|(trusted, _)| *trusted == authority).map(|(_, scope)| scope)
    }

    /// Under which connections are proved; the first is the one of this node's own dials.
    fn secrets(&self, network: NetworkId) -> Vec<Secret> {
        let own = self.ticket.authority();
        let others = self.trusted.iter().map(|(authority, _)| *authority).filter(|authority| *authority != own);
        [own].into_iter().chain(others).map(|authority| Secret::of_authority(authority, network)).collect()
    }
}

/// The clocks of a node, in microseconds since the Unix epoch.
pub(crate) struct Clocks {
    /// The wall clock, which is set now and then.
    pub(crate) wall: Box<dyn Fn() -> u64 + Send + Sync>,
    /// What the wall clock said when the node began, and the time that has passed since.
    pub(crate) steady: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// Who may be in the network of a node, and who was refused. Made by [`Network::trust`](crate::Network::trust); cheap to
/// clone, does not keep the network alive.
#[derive(Clone)]
pub struct Trust(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) network: NetworkId,
    kind: NetworkKind,
    clocks: Clocks,
    /// Counts the words of authorities that were heard of.
    pub(super) word_changes: watch::Sender<u64>,
    /// Counts how often this node's own ticket was replaced.
    pub(super) ticket_changes: watch::Sender<u64>,
    state: Mutex<State>,
}

pub(super) struct State {
    refusals: Refusals,
    lines: Throttle<&'static str>,
    /// Those that were shown and found good.
    pub(super) tickets: Known,
    pub(super) revoked: Revocations,
    pub(super) lists: Lists,
    /// In a network of an authority.
    pub(super) own: Option<Own>,
    /// The first is the one that this node uses when it dials.
    pub(super) secrets: Vec<Secret>,
    #[cfg(feature = "attest")]
    pub(super) attest: super::attest::Held,
}

impl State {
    /// Puts what this node is a member by in place of what it was.
    pub(super) fn set_own(&mut self, network: NetworkId, own: Own) {
        self.secrets = own.secrets(network);
        self.own = Some(own);
    }
}

impl Trust {
    pub(crate) fn new(network: NetworkId, credentials: Credentials, clocks: Clocks) -> Self {
        let (kind, secrets, own) = match credentials {
            Credentials::Open => (NetworkKind::Open, Vec::new(), None),
            Credentials::Secret(key) => (NetworkKind::Secret, vec![Secret::of_key(&key, network)], None),
            Credentials::Authority(own) => (NetworkKind::Authority, own.secrets(network), Some(*own)),
        };
        let state = State {
            refusals: Refusals::default(),
            lines: Throttle::default(),
            tickets: Known::default(),
            revoked: Revocations::default(),
            lists: Lists::default(),
            own,
            secrets,
            #[cfg(feature = "attest")]
            attest: super::attest::Held::default(),
        };
        let (word_changes, ticket_changes) = (watch::Sender::new(0), watch::Sender::new(0));
        Self(Arc::new(Inner { network, kind, clocks, word_changes, ticket_changes, state: Mutex::new(state) }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wall clock, in seconds since the Unix epoch.
    pub(super) fn now(&self) -> u64 {
        (self.0.clocks.wall)() / 1_000_000
    }

    /// What it would be if nobody had set it since the node began.
    pub(super) fn steady_now(&self) -> u64 {
        (self.0.clocks.steady)() / 1_000_000
    }

    /// What keeps strangers out of this network.
    #[must_use]
    pub fn kind(&self) -> NetworkKind {
        self.0.kind
    }

    /// This node's ticket, in a network of an authority: the last one, if it was renewed.
    #[must_use]
    pub fn ticket(&self) -> Option<Ticket> {
        self.state().own.as_ref().map(|own| own.ticket.clone())
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

    pub(crate) fn is_open(&self) -> bool {
        self.0.kind == NetworkKind::Open
    }

    /// What the authority says of a peer, by the ticket that stands in its entry or, until that is known, by the one that it had
    /// before. That this node's wall clock is set takes nothing from anybody.
    pub(crate) fn grants(&self, peer: PeerId, ticket: Option<TicketDigest>) -> Grants {
        let standing = ticket.and_then(|_| self.standing(peer, ticket));
        match standing {
            Some(ticket) => ticket.grants().clone().and(self.attested(peer)),
            None if self.0.kind == NetworkKind::Authority => Grants::default(),
            None => Grants::default().and(self.attested(peer)),
        }
    }

    /// The ticket of a peer by which it has grants now; `named` is the one that stands in its entry.
    pub(super) fn standing(&self, peer: PeerId, named: Option<TicketDigest>) -> Option<Ticket> {
        let clocks = [self.now(), self.steady_now()];
        let state = self.state();
        let holds =
            |ticket: &&Ticket| state.counts(ticket) && clocks.into_iter().any(|now| in_time(ticket, now, None).is_ok());
        let own = state.own.as_ref().map(|own| &own.ticket).filter(|own| own.subject() == peer);
        let named = named.and_then(|named| state.tickets.find(peer, named)).filter(holds);
        own.filter(holds).or(named).or_else(|| state.tickets.of(peer).find(holds)).cloned()
    }

    /// Whether a ticket of the peer is known, of whatever worth.
    pub(super) fn knows_ticket_of(&self, peer: PeerId) -> bool {
        let state = self.state();
        state.tickets.of(peer).next().is_some() || state.own.as_ref().is_some_and(|own| own.ticket.subject() == peer)
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
        self.state().secrets.first().map(|secret| Channel::new(secret, ends))
    }

    /// What this node says of itself.
    pub(crate) fn member(&self, now: u64) -> Said {
        let ticket = self.ticket().map_or_else(Vec::new, |ticket| ticket.as_bytes().to_vec());
        Said::Member { now, ticket }
    }

    /// Judges the proof of a peer that has dialled: the key of the connection and the answer if it is admitted, and otherwise why not, with
    /// what it is to be told if it is not a stranger. `now`: seconds since the Unix epoch.
    pub(crate) fn judge_dialler(&self, ends: &Ends, proof: &Proof, now: u64) -> Result<(Channel, Proof), Rejected> {
        let secrets = self.state().secrets.clone();
        for secret in &secrets {
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
        if self.0.kind != NetworkKind::Authority {
            return Ok(());
        }
        let ticket = self.check(peer, &ticket)?;
        self.in_force(&ticket, now, Some(theirs))?;
        self.state().tickets.keep(ticket);
        Ok(())
    }

    /// Everything about a ticket but whether it is in force.
    pub(super) fn check(&self, peer: PeerId, ticket: &[u8]) -> Result<Ticket, Reason> {
        let ticket = Ticket::from_bytes(ticket)?;
        let against = self.state().against(&ticket);
        if let Some(reason @ Reason::UnknownAuthority { .. }) = against {
            return Err(reason);
        }
        if ticket.network() != self.0.network {
            return Err(Reason::TicketOfOtherNetwork { ours: self.0.network, theirs: ticket.network() });
        }
        if ticket.subject() != peer {
            return Err(Reason::NotTheSubject { subject: ticket.subject() });
        }
        match against {
            Some(reason @ Reason::OutOfScope { .. }) => Err(reason),
            _ => Ok(ticket),
        }
    }

    /// Whether a ticket that was checked holds now and was not taken back.
    pub(super) fn in_force(&self, ticket: &Ticket, now: u64, theirs: Option<u64>) -> Result<(), Reason> {
        if let Some(what) = self.state().revoked.of(ticket) {
            return Err(Reason::Revoked { what });
        }
        in_time(ticket, now, theirs)
    }

    /// Takes in a peer's ticket that somebody gave, if it is the one that was asked for. It grants what it grants while it holds.
    pub(crate) fn learn(&self, peer: PeerId, ticket: &[u8], asked: TicketDigest) -> Result<(), Reason> {
        let ticket = self.check(peer, ticket)?;
        if ticket.digest() == asked {
            self.state().tickets.keep(ticket);
        }
        Ok(())
    }

    /// Whether a peer's ticket is known.
    pub(crate) fn has(&self, peer: PeerId, ticket: TicketDigest) -> bool {
        self.state().tickets.find(peer, ticket).is_some()
    }

    /// A peer's ticket, or this node's own, to give out.
    pub(crate) fn ticket_of(&self, peer: PeerId, ticket: TicketDigest) -> Option<Vec<u8>> {
        let state = self.state();
        let own = state.own.as_ref().map(|own| &own.ticket);
        let own = own.filter(|own| (own.subject(), own.digest()) == (peer, ticket));
        own.or_else(|| state.tickets.find(peer, ticket)).map(|ticket| ticket.as_bytes().to_vec())
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
        Reason::OutOfScope { authority, what } => Some(TicketFault::OutOfScope(*authority, what.clone())),
        _ => None,
    }
}

/// What the holder understands: `now` is the time at the node that refused, `ours` here.
fn heard(why: TicketFault, now: u64, ours: u64) -> Reason {
    match why {
        TicketFault::Expired(not_after) => Reason::Expired { not_after, now, theirs: Some(ours) },
        TicketFault::NotYetValid(not_before) => Reason::NotYetValid { not_before, now, theirs: Some(ours) },
        TicketFault::Revoked(what) => Reason::Revoked { what },
        TicketFault::OutOfScope(authority, what) => Reason::OutOfScope { authority, what },
    }
}

/// What there is of evidence without the feature: none is made, verified or asked for.
#[cfg(not(feature = "attest"))]
#[expect(clippy::unused_self, reason = "the same as with evidence")]
impl Trust {
    pub(super) const fn attested(&self, _: PeerId) -> Vec<String> {
        Vec::new()
    }

    pub(crate) const fn demands_evidence(&self) -> bool {
        false
    }

    pub(crate) const fn waives_evidence(&self) -> bool {
        false
    }

    pub(crate) const fn verifies_evidence(&self) -> bool {
        false
    }

    pub(super) const fn demanded(&self, _: PeerId) -> Vec<String> {
        Vec::new()
    }

    pub(super) const fn verified_kinds(&self) -> Vec<String> {
        Vec::new()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("kind", &self.kind()).field("network", &self.0.network).finish_non_exhaustive()
    }
}
