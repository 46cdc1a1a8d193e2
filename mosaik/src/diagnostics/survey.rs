//! [`Survey`]: finds the nodes of a network from a bootstrap peer on and asks them. Of many, a few at a time; one that
//! gives no answer is reported as such.

use futures::{StreamExt, stream};
use iroh::EndpointAddr;

use super::{
    client::{AskError, Client, Session},
    compare::{self, Explained},
    explain::{End, explain_peer},
    report::{GroupReport, NodeReport, PeerReport, StoreReport, StreamReport},
};
use crate::{
    discovery::{self, Bootstrap},
    groups::{GroupKey, LeaderPreference, OperateError, Transferred},
    primitives::PeerId,
};

/// Nodes that are asked at once.
const AT_ONCE: usize = 8;
/// Nodes that are asked for one answer; [`Survey::streams`] and its like leave further ones out.
pub const MAX_ASKED: usize = 1024;
/// The fewest digits that name a peer.
const MIN_DIGITS: usize = 4;

/// Asks the nodes of a network, beginning with a bootstrap peer. Peers are named by their id, by its first digits (at
/// least 4) if the bootstrap peer knows just one that begins so, or as `id@host:port`.
///
/// All of its questions are safe to cancel.
#[derive(Debug)]
pub struct Survey {
    client: Client,
    bootstrap: Vec<Bootstrap>,
}

/// A node and what it answered.
pub type Answered<T> = (PeerId, Result<T, AskError>);

/// Why a question could not be put, or was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// No bootstrap peer was given.
    #[error("there is no bootstrap peer to begin with")]
    NoBootstrap,
    /// Nobody is called that.
    #[error("`{0}` is no peer: expected 64 hex digits, the first {MIN_DIGITS} or more of them, or id@host:port")]
    NotAPeer(String),
    /// The bootstrap peer knows nobody whose id begins so.
    #[error("not discovered: the bootstrap peer {by:?} knows no peer {digits}..")]
    NotDiscovered {
        /// The first digits.
        digits: String,
        /// The bootstrap peer.
        by: PeerId,
    },
    /// There are several whose ids begin so.
    #[error("`{digits}` may be {one} or {other}")]
    Ambiguous {
        /// The first digits.
        digits: String,
        /// One of them.
        one: PeerId,
        /// Another one.
        other: PeerId,
    },
    /// A node gave no answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// None of the nodes that were asked is a member of the group.
    #[error("no member of the group of the machine `{machine}` and this key was found")]
    NoMember {
        /// The machine's name.
        machine: String,
    },
    /// Leadership was not handed over.
    #[error("{peer} did not have leadership handed over: {error}")]
    Transfer {
        /// The member that was asked.
        peer: PeerId,
        /// Why not.
        error: OperateError,
    },
    /// A member did not take its preference.
    #[error("{peer} did not take the preference: {error}")]
    Prefer {
        /// The member.
        peer: PeerId,
        /// Why not.
        error: OperateError,
    },
    /// A member did not seal its group.
    #[error("{peer} did not seal the group: {error}")]
    Seal {
        /// Who.
        peer: PeerId,
        /// Why.
        error: OperateError,
    },
    /// A host name cannot be resolved.
    #[error(transparent)]
    Resolve(#[from] discovery::Error),
}

/// A node, where it is and whether the bootstrap peer knows it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) id: PeerId,
    pub(super) addr: EndpointAddr,
    pub(super) known: bool,
}

/// The bootstrap peer and whom it knows.
pub(super) struct Known {
    addr: EndpointAddr,
    pub(super) node: NodeReport,
    peers: Vec<PeerReport>,
}

impl Known {
    /// Every node, the bootstrap peer first, up to the limit.
    pub(super) fn places(&self) -> Vec<Place> {
        let first = Place { id: self.node.id, addr: self.addr.clone(), known: true };
        let peers = self.peers.iter().map(|peer| Place { id: peer.id, addr: peer.addr(), known: true });
        std::iter::once(first).chain(peers).take(MAX_ASKED).collect()
    }
}

impl Survey {
    /// Asks with this client; of several bootstrap peers the first one that answers is taken.
    #[must_use]
    pub fn new(client: Client, bootstrap: impl IntoIterator<Item = Bootstrap>) -> Self {
        Self { client, bootstrap: bootstrap.into_iter().collect() }
    }

    /// Ends its client; see [`Client::close`].
    pub async fn close(&self) {
        self.client.close().await;
    }

    /// The bootstrap peer and the peers that it knows, in the order of their ids.
    ///
    /// # Errors
    /// When no bootstrap peer answers.
    pub async fn peers(&self) -> Result<(NodeReport, Vec<PeerReport>), SurveyError> {
        let known = self.look().await?;
        Ok((known.node, known.peers))
    }

    /// Who a node is; without a name, the bootstrap peer.
    ///
    /// # Errors
    /// When there is no such peer, or it gives no answer; so for all that follow.
    pub async fn node(&self, peer: Option<&str>) -> Result<NodeReport, SurveyError> {
        let known = self.look().await?;
        match peer {
            Some(peer) => Ok(self.client.node(&self.find(&known, peer).await?.addr).await?),
            None => Ok(known.node),
        }
    }

    /// The streams of a node, or of every node, the bootstrap peer first.
    ///
    /// # Errors
    /// See [`node`](Self::node); of every node, when no bootstrap peer answers.
    pub async fn streams(&self, peer: Option<&str>) -> Result<Vec<Answered<Vec<StreamReport>>>, SurveyError> {
        let asked = self.chosen(peer).await?.into_iter();
        let asked = asked.map(|place| async move { (place.id, self.client.streams(&place.addr).await) });
        Ok(stream::iter(asked).buffered(AT_ONCE).collect().await)
    }

    /// The groups of a node, or of every node, the bootstrap peer first.
    ///
    /// # Errors
    /// See [`streams`](Self::streams).
    pub async fn groups(&self, peer: Option<&str>) -> Result<Vec<Answered<Vec<GroupReport>>>, SurveyError> {
        let asked = self.chosen(peer).await?.into_iter();
        let asked = asked.map(|place| async move { (place.id, self.client.groups(&place.addr).await) });
        Ok(stream::iter(asked).buffered(AT_ONCE).collect().await)
    }

    /// The stores of a node, or of every node, the bootstrap peer first.
    ///
    /// # Errors
    /// See [`streams`](Self::streams).
    pub async fn stores(&self, peer: Option<&str>) -> Result<Vec<Answered<Vec<StoreReport>>>, SurveyError> {
        let asked = self.chosen(peer).await?.into_iter();
        let asked = asked.map(|place| async move { (place.id, self.client.stores(&place.addr).await) });
        Ok(stream::iter(asked).buffered(AT_ONCE).collect().await)
    }

    /// Seals the group of this key and machine for the machine's next version, by way of a member: that which is named, or the
    /// first that is found. Returns that member and the index of the seal.
    ///
    /// # Errors
    /// When no bootstrap peer answers, there is no member, or it could not seal the group within 10 s.
    pub async fn seal(&self, key: &GroupKey, machine: &str, peer: Option<&str>) -> Result<(PeerId, u64), SurveyError> {
        let place = self.member(key, machine, self.chosen(peer).await?).await?;
        let (peer, sealed) = (place.id, self.client.seal(&place.addr, key, machine).await);
        Ok((peer, sealed.map_err(|error| SurveyError::Seal { peer, error })?))
    }

    /// Has leadership of the group of this key and machine handed to `to`. `peer` names the member to ask; without it the first
    /// that is found.
    ///
    /// # Errors
    /// When no bootstrap peer answers, there is no member, or leadership was not handed over within 10 s.
    pub async fn transfer(
        &self,
        key: &GroupKey,
        machine: &str,
        to: &str,
        peer: Option<&str>,
    ) -> Result<Transferred, SurveyError> {
        let known = self.look().await?;
        let leader = self.find(&known, to).await?.id;
        let places = match peer {
            Some(peer) => vec![self.find(&known, peer).await?],
            None => known.places(),
        };
        let place = self.member(key, machine, places).await?;
        let transferred = self.client.transfer(&place.addr, key, machine, leader).await;
        transferred.map_err(|error| SurveyError::Transfer { peer: place.id, error })
    }

    /// Sets how much a member of the group of this key and machine is to lead, until it ends. Returns which one that is.
    ///
    /// # Errors
    /// When no bootstrap peer answers, or `member` names nobody or no member of the group.
    pub async fn prefer(
        &self,
        key: &GroupKey,
        machine: &str,
        member: &str,
        preference: LeaderPreference,
    ) -> Result<PeerId, SurveyError> {
        let known = self.look().await?;
        let place = self.find(&known, member).await?;
        let preferred = self.client.prefer(&place.addr, key, machine, preference).await;
        preferred.map(|()| place.id).map_err(|error| SurveyError::Prefer { peer: place.id, error })
    }

    /// The first of these nodes that is a member of the group, and online.
    async fn member(&self, key: &GroupKey, machine: &str, places: Vec<Place>) -> Result<Place, SurveyError> {
        let group = key.group_id(machine);
        for place in places {
            // Nodes that give no answer are no members for this purpose.
            let groups = self.client.groups(&place.addr).await.unwrap_or_default();
            if groups.iter().any(|report| report.group == group && report.online) {
                return Ok(place);
            }
        }
        Err(SurveyError::NoMember { machine: machine.to_owned() })
    }

    /// A link to a node, as for [`Session::ping`].
    ///
    /// # Errors
    /// See [`node`](Self::node).
    pub async fn session(&self, peer: &str) -> Result<Session, SurveyError> {
        let known = self.look().await?;
        Ok(self.client.session(&self.find(&known, peer).await?.addr).await?)
    }

    /// What is in the way between a node and the others of a stream, group or store, or just one other. `target` is the name
    /// of a stream, a store or a group's machine, or an id; `stream:..`, `store:..` and `group:..` say which.
    ///
    /// # Errors
    /// When no bootstrap peer answers, or `peer` or `with` name nobody. That the node itself gives no answer is an explanation.
    pub async fn explain(&self, peer: &str, target: &str, with: Option<&str>) -> Result<Explained, SurveyError> {
        let known = match self.look().await {
            Ok(known) => known,
            Err(SurveyError::Ask(error @ (AskError::OtherNetwork { peer, .. } | AskError::Refused { peer, .. }))) => {
                return Ok(Explained { peer, with: None, explanation: explain_peer(peer, peer, true, Err(&error)) });
            }
            Err(error) => return Err(error),
        };
        let place = self.find(&known, peer).await?;
        let subject = self.end(&place).await;
        let others = match with {
            Some(with) => vec![self.find(&known, with).await?],
            None => known.places(),
        };
        // Nobody else is asked when the node itself is the problem.
        let reached = compare::reach(&place, &known.node, subject.as_ref().err());
        let Ok(subject) = subject else { return Ok(Explained { peer: place.id, with: None, explanation: reached }) };
        if reached.fault().is_some() {
            return Ok(Explained { peer: place.id, with: None, explanation: reached });
        }
        let others: Vec<_> = others.into_iter().filter(|other| other.id != place.id).collect();
        let others = self.ends(&others).await;
        Ok(compare::all(&subject, &others, &known.node, target, with.is_some(), &reached))
    }

    /// The first bootstrap peer that answers and whom it knows; or the failure of the last one.
    async fn look(&self) -> Result<Known, SurveyError> {
        let mut failed = SurveyError::NoBootstrap;
        for bootstrap in &self.bootstrap {
            match self.ask_bootstrap(bootstrap).await {
                Ok(known) => return Ok(known),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn ask_bootstrap(&self, bootstrap: &Bootstrap) -> Result<Known, SurveyError> {
        let addr = self.client.resolve(bootstrap.clone()).await?;
        let mut session = self.client.session(&addr).await?;
        let (node, peers) = (session.node().await?, session.peers().await?);
        Ok(Known { addr, node, peers })
    }

    /// The node that somebody means.
    async fn find(&self, known: &Known, text: &str) -> Result<Place, SurveyError> {
        if let Ok(named) = text.parse::<Bootstrap>() {
            let id = named.id();
            let mut addr = self.client.resolve(named).await?;
            let there = known.places().into_iter().find(|place| place.id == id);
            let is_known = there.is_some();
            addr.addrs.extend(there.into_iter().flat_map(|place| place.addr.addrs));
            return Ok(Place { id, addr, known: is_known });
        }
        let digits = text.to_ascii_lowercase();
        if digits.len() < MIN_DIGITS || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(SurveyError::NotAPeer(text.to_owned()));
        }
        let mut fit = known.places().into_iter().filter(|place| place.id.to_string().starts_with(&digits));
        match (fit.next(), fit.next()) {
            (Some(place), None) => Ok(place),
            (None, _) => Err(SurveyError::NotDiscovered { digits, by: known.node.id }),
            (Some(one), Some(other)) => Err(SurveyError::Ambiguous { digits, one: one.id, other: other.id }),
        }
    }

    async fn chosen(&self, peer: Option<&str>) -> Result<Vec<Place>, SurveyError> {
        let known = self.look().await?;
        Ok(match peer {
            Some(peer) => vec![self.find(&known, peer).await?],
            None => known.places(),
        })
    }

    /// Everything about a node that an explanation may need.
    async fn end(&self, place: &Place) -> Result<End, AskError> {
        let mut session = self.client.session(&place.addr).await?;
        let node = session.node().await?;
        let (peers, streams) = (session.peers().await?, session.streams().await?);
        let (groups, stores) = (session.groups().await?, session.stores().await?);
        Ok(End::new(node.id, peers, streams, groups, stores).with_refusals(node.refusals))
    }

    async fn ends(&self, places: &[Place]) -> Vec<(Place, Result<End, AskError>)> {
        let asked = places.iter().map(|place| async move { (place.clone(), self.end(place).await) });
        stream::iter(asked).buffered(AT_ONCE).collect().await
    }
}
