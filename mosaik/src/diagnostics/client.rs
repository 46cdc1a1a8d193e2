//! [`Client`]: asks nodes for their reports.

use std::time::Duration;

use iroh::{EndpointAddr, SecretKey};
use tokio::time::{Instant, timeout};

use super::{
    report::{GroupReport, NodeReport, PeerReport, StoreReport, StreamReport},
    wire::{Answer, Asking, Message, Page, Question},
};
use crate::{
    discovery::{self, Bootstrap, Words},
    groups::{GroupKey, LeaderPreference, OperateError, Transferred, operate},
    network::{BuildError, CloseCode, Link, LinkError, Node, OpenError, bare_node, credentials},
    primitives::{NetworkId, PeerId, Schema, StreamId, fresh_bytes},
    trust::{
        Authority, AuthorityId, AuthorityList, Claims, Credentials, Invitation, JoinError, NetworkKey, Reason,
        RenewError, Revocation, Scope, Ticket, Trust,
    },
};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Pages of one list.
const MAX_PAGES: usize = 1024;

/// Asks nodes of one network for their reports. It is no member of the network: it announces nothing, and nobody learns
/// of it but those it asks. Ends when dropped, unless it is that of a running node.
#[derive(Debug)]
pub struct Client {
    node: Node,
    owned: bool,
}

/// Why a node gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It cannot be reached.
    #[error("cannot reach {peer}: {reason}")]
    Unreachable {
        /// Who.
        peer: PeerId,
        /// What the transport said.
        reason: String,
    },
    /// It belongs to another network.
    #[error("{peer} is a node of another network than {network}")]
    OtherNetwork {
        /// Who.
        peer: PeerId,
        /// The network in which it was asked.
        network: NetworkId,
    },
    /// The two do not belong to one network; see [`Network::trust`](crate::Network::trust).
    #[error("{refusal}")]
    Refused {
        /// Who was asked.
        peer: PeerId,
        /// Who refused whom, and why.
        refusal: String,
    },
    /// It refused, as when it is asked too much, or the link failed.
    #[error("{peer} gave no answer: {reason}")]
    NoAnswer {
        /// Who.
        peer: PeerId,
        /// What the link said.
        reason: String,
    },
}

/// A link to one node for several questions; made by [`Client::session`].
#[derive(Debug)]
pub struct Session {
    link: Link<Asking>,
    network: NetworkId,
    trust: Trust,
}

impl Client {
    /// A client without a node of its own.
    ///
    /// # Errors
    /// When no socket can be bound.
    pub async fn new(network: impl Into<NetworkId>) -> Result<Self, BuildError> {
        Ok(Self { node: bare_node(network.into(), None, Credentials::Open).await?, owned: true })
    }

    /// A client for a secret network.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn with_network_key(network: impl Into<NetworkId>, key: NetworkKey) -> Result<Self, BuildError> {
        Ok(Self { node: bare_node(network.into(), None, Credentials::Secret(key)).await?, owned: true })
    }

    /// A client for a network of an authority, with the key for which the ticket is.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when the ticket is not for this key, not for this network, or not of one of these authorities.
    pub async fn with_ticket(
        network: impl Into<NetworkId>,
        authorities: impl IntoIterator<Item = AuthorityId>,
        secret_key: SecretKey,
        ticket: Ticket,
    ) -> Result<Self, BuildError> {
        let network = network.into();
        let trusted = authorities.into_iter().map(|authority| (authority, Scope::everything()));
        let credentials = credentials(network, None, trusted.collect(), Some(ticket))?;
        Ok(Self { node: bare_node(network, Some(secret_key), credentials).await?, owned: true })
    }

    /// A client for a network of an authority, by an invitation: a ticket for a fresh key is made from it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn join(invitation: &Invitation) -> Result<Self, BuildError> {
        let secret = SecretKey::from_bytes(&fresh_bytes());
        let member = invitation.accept(secret.public().into()).map_err(JoinError::from)?;
        let authorities = member.authorities().to_vec();
        Self::with_ticket(invitation.network(), authorities, secret, member.ticket().clone()).await
    }

    /// A client of the authority itself, to tell members of a revocation: it makes its own ticket, for ten minutes around the
    /// time that is given in seconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn of_authority(
        authority: &Authority,
        network: impl Into<NetworkId>,
        now: u64,
    ) -> Result<Self, BuildError> {
        let (network, secret) = (network.into(), SecretKey::from_bytes(&fresh_bytes()));
        let claims = Claims::new(now.saturating_sub(300), now.saturating_add(300));
        let ticket = authority.issue(network, secret.public().into(), claims).map_err(JoinError::from)?;
        Self::with_ticket(network, [authority.id()], secret, ticket).await
    }

    /// Tells a member of a revocation, which it passes on to all others. Resolves once the member has taken it in.
    ///
    /// # Errors
    /// When the node cannot be reached, is not of this network, or gives no answer within 10 s.
    pub async fn revoke(&self, to: &EndpointAddr, revocation: Revocation) -> Result<(), AskError> {
        self.tell(to, Words { revocations: vec![revocation], ..Words::default() }).await
    }

    /// Tells a member which authorities are trusted from now on, which it passes on to all others. Resolves once the member has taken
    /// it in.
    ///
    /// # Errors
    /// As [`revoke`](Self::revoke).
    pub async fn trust_authorities(&self, to: &EndpointAddr, list: AuthorityList) -> Result<(), AskError> {
        self.tell(to, Words { lists: vec![list], ..Words::default() }).await
    }

    async fn tell(&self, to: &EndpointAddr, words: Words) -> Result<(), AskError> {
        self.answered(to, discovery::tell_words(&self.node, to, words)).await
    }

    /// Asks a member to renew the ticket with which this client was made.
    ///
    /// # Errors
    /// When the node cannot be reached, is not of this network, gives no answer within 10 s, or does not renew it.
    pub async fn renew(&self, to: &EndpointAddr) -> Result<Ticket, AskError> {
        let peer = PeerId::from(to.id);
        let answer = self.answered(to, discovery::ask_renewal(&self.node, to)).await?;
        let renewed = answer.and_then(|ticket| self.node.trust().accept_renewed(&ticket));
        renewed.map_err(|error| AskError::NoAnswer { peer, reason: error.to_string() })?;
        self.node.trust().ticket().ok_or(AskError::NoAnswer { peer, reason: RenewError::NotATicket.to_string() })
    }

    async fn answered<T>(
        &self,
        to: &EndpointAddr,
        answer: impl Future<Output = Result<T, OpenError>>,
    ) -> Result<T, AskError> {
        let (peer, network) = (PeerId::from(to.id), self.network_id());
        match timeout(ANSWER, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(OpenError::Connect(error))) => Err(AskError::Unreachable { peer, reason: error.to_string() }),
            Ok(Err(OpenError::Link(error))) => Err(failed(peer, network, self.node.trust(), &error)),
            Err(_) => Err(AskError::NoAnswer { peer, reason: "it took too long".to_owned() }),
        }
    }

    pub(super) const fn of(node: Node) -> Self {
        Self { node, owned: false }
    }

    /// The network whose nodes it asks.
    #[must_use]
    pub fn network_id(&self) -> NetworkId {
        self.node.network_id()
    }

    /// Where a peer can be dialled that is named as for a bootstrap, a host name resolved.
    ///
    /// # Errors
    /// When a host name cannot be resolved.
    pub async fn resolve(&self, peer: Bootstrap) -> Result<EndpointAddr, discovery::Error> {
        peer.resolve().await
    }

    /// Opens a link for several questions.
    ///
    /// # Errors
    /// When the node cannot be reached within 3 s. That it belongs to another network shows with the first answer.
    pub async fn session(&self, to: &EndpointAddr) -> Result<Session, AskError> {
        let (peer, network) = (PeerId::from(to.id), self.network_id());
        let link = self.node.open::<Asking>(to).await.map_err(|error| match error {
            OpenError::Link(error) => failed(peer, network, self.node.trust(), &error),
            OpenError::Connect(error) => AskError::Unreachable { peer, reason: error.to_string() },
        })?;
        Ok(Session { link, network, trust: self.node.trust().clone() })
    }

    /// Who a node is.
    ///
    /// # Errors
    /// When it gives no answer within 10 s; so for all that follow.
    pub async fn node(&self, to: &EndpointAddr) -> Result<NodeReport, AskError> {
        self.session(to).await?.node().await
    }

    /// The peers that a node knows, in the order of their ids.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    pub async fn peers(&self, to: &EndpointAddr) -> Result<Vec<PeerReport>, AskError> {
        self.session(to).await?.peers().await
    }

    /// The streams of a node.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    pub async fn streams(&self, to: &EndpointAddr) -> Result<Vec<StreamReport>, AskError> {
        self.session(to).await?.streams().await
    }

    /// The groups of a node.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    pub async fn groups(&self, to: &EndpointAddr) -> Result<Vec<GroupReport>, AskError> {
        self.session(to).await?.groups().await
    }

    /// The shape of a stream's items as a node with an end of it has it; `None`: it has none, or the shape is too large to tell.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    pub async fn schema(&self, to: &EndpointAddr, stream: StreamId) -> Result<Option<Schema>, AskError> {
        self.session(to).await?.schema(stream).await
    }

    /// Seals the group of this key and machine, as [`Group::seal`](crate::groups::Group::seal) does at a member: `to` must be
    /// one. Resolves to the index of the seal once that member's snapshot is durable. The key does not travel.
    ///
    /// # Errors
    /// When the node cannot be reached, is no member, or the group could not be sealed within 10 s.
    pub async fn seal(&self, to: &EndpointAddr, key: &GroupKey, machine: &str) -> Result<u64, OperateError> {
        operate::seal(&self.node, to, key, machine).await
    }

    /// Has leadership of the group of this key and machine handed to the member `leader`, as
    /// [`Group::transfer`](crate::groups::Group::transfer) does at a member: `to` must be one. Resolves when that leads. The
    /// key does not travel.
    ///
    /// # Errors
    /// When the node cannot be reached, is no member, or leadership was not handed over within 10 s.
    pub async fn transfer(
        &self,
        to: &EndpointAddr,
        key: &GroupKey,
        machine: &str,
        leader: PeerId,
    ) -> Result<Transferred, OperateError> {
        operate::transfer(&self.node, to, key, machine, leader).await
    }

    /// Sets how much the member `to` of the group of this key and machine is to lead, until it ends, as
    /// [`Group::set_preference`](crate::groups::Group::set_preference) does there. The key does not travel.
    ///
    /// # Errors
    /// When the node cannot be reached or is no member.
    pub async fn prefer(
        &self,
        to: &EndpointAddr,
        key: &GroupKey,
        machine: &str,
        preference: LeaderPreference,
    ) -> Result<(), OperateError> {
        operate::prefer(&self.node, to, key, machine, preference).await
    }

    /// The stores of a node.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    pub async fn stores(&self, to: &EndpointAddr) -> Result<Vec<StoreReport>, AskError> {
        self.session(to).await?.stores().await
    }
}

impl Client {
    /// Ends a client without a node of its own: whom it has asked learns of it at once. One that is only dropped holds its
    /// places there until the connection has been silent for too long. Takes half a second at most.
    pub async fn close(&self) {
        if self.owned {
            self.node.close().await;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.owned {
            self.node.abandon();
        }
    }
}

/// Takes the expected answer out of a message.
macro_rules! expect {
    ($self:ident, $question:expr, $pattern:pat => $value:expr) => {
        match $self.ask($question).await? {
            $pattern => Ok($value),
            _ => Err($self.no_answer("an answer to another question")),
        }
    };
}

/// Asks for a list, page by page.
macro_rules! list {
    ($self:ident, $what:ident) => {{
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let skip = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let Page { items, more } = expect!($self, Question::$what { skip }, Answer::$what(page) => page)?;
            all.extend(items);
            if !more {
                return Ok(all);
            }
        }
        Err($self.no_answer("a list without an end"))
    }};
}

impl Session {
    /// Who is asked.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.link.peer()
    }

    /// How long a question and its answer take: a round trip, and the node's own work. NOT cancellation-safe; so for all
    /// that follow.
    ///
    /// # Errors
    /// See [`Client::node`].
    pub async fn ping(&mut self) -> Result<Duration, AskError> {
        let asked = Instant::now();
        expect!(self, Question::Ping, Answer::Pong => asked.elapsed())
    }

    /// See [`Client::node`].
    ///
    /// # Errors
    /// As there.
    pub async fn node(&mut self) -> Result<NodeReport, AskError> {
        expect!(self, Question::Node, Answer::Node(report) => *report)
    }

    /// See [`Client::peers`].
    ///
    /// # Errors
    /// As there.
    pub async fn peers(&mut self) -> Result<Vec<PeerReport>, AskError> {
        let mut all: Vec<PeerReport> = Vec::new();
        for _ in 0..MAX_PAGES {
            let after = all.last().map(|peer| peer.id);
            let Page { items, more } = expect!(self, Question::Peers { after }, Answer::Peers(page) => page)?;
            all.extend(items);
            if !more {
                return Ok(all);
            }
        }
        Err(self.no_answer("a list without an end"))
    }

    /// See [`Client::streams`].
    ///
    /// # Errors
    /// As there.
    pub async fn streams(&mut self) -> Result<Vec<StreamReport>, AskError> {
        list!(self, Streams)
    }

    /// See [`Client::groups`].
    ///
    /// # Errors
    /// As there.
    pub async fn groups(&mut self) -> Result<Vec<GroupReport>, AskError> {
        list!(self, Groups)
    }

    /// See [`Client::stores`].
    ///
    /// # Errors
    /// As there.
    pub async fn stores(&mut self) -> Result<Vec<StoreReport>, AskError> {
        list!(self, Stores)
    }

    /// See [`Client::schema`].
    ///
    /// # Errors
    /// As there.
    pub async fn schema(&mut self, stream: StreamId) -> Result<Option<Schema>, AskError> {
        let schema = expect!(self, Question::Schema { stream }, Answer::Schema(schema) => schema)?;
        match schema {
            Some(schema) if !schema.is_sound() => Err(self.no_answer("a shape that cannot be")),
            schema => Ok(schema),
        }
    }

    async fn ask(&mut self, question: Question) -> Result<Answer, AskError> {
        let (peer, network) = (self.link.peer(), self.network);
        let asking = async {
            self.link.send(&Message::Ask(question)).await?;
            self.link.recv().await
        };
        match timeout(ANSWER, asking).await {
            Ok(Ok(Some(Message::Answer(answer)))) => Ok(answer),
            Ok(Ok(Some(Message::Ask(_)))) => Err(self.no_answer("a question instead of an answer")),
            Ok(Ok(None)) => Err(self.no_answer("the link ended")),
            Ok(Err(error)) => Err(failed(peer, network, &self.trust, &error)),
            Err(_) => Err(self.no_answer("it took too long")),
        }
    }

    fn no_answer(&self, reason: &str) -> AskError {
        AskError::NoAnswer { peer: self.link.peer(), reason: reason.to_owned() }
    }
}

fn failed(peer: PeerId, network: NetworkId, trust: &Trust, error: &LinkError) -> AskError {
    match error {
        LinkError::Refused | LinkError::Closed(CloseCode::Refused | CloseCode::Revoked | CloseCode::Expired) => {
            let known = trust.refusals().into_iter().find(|refusal| refusal.peer == peer);
            let untold = || format!("refused by {peer:?}: {}", Reason::Untold { ours: trust.kind() });
            AskError::Refused { peer, refusal: known.map_or_else(untold, |refusal| refusal.to_string()) }
        }
        LinkError::Closed(CloseCode::DifferentNetwork) => AskError::OtherNetwork { peer, network },
        error => AskError::NoAnswer { peer, reason: error.to_string() },
    }
}
