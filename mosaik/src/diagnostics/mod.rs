//! Diagnostics: what a node can tell an operator about itself, over a read-only protocol that every node serves.
//!
//! `gather` makes reports ([`report`](self::NodeReport) types, plain data) of what the subsystems let be seen, `serve`
//! answers questions (`wire`) within bounds, [`Client`] asks them, [`Survey`] finds whom to ask,
//! and `explain` compares the reports of two nodes and names the first thing that is in the way between them. Nothing here changes
//! anything, and nobody below knows it; but [`Client::seal`] passes an operator's word on to the groups, which ask for the key.
//! The protocol: `docs/src/protocols.md`.

mod client;
mod compare;
mod display;
mod explain;
#[cfg(test)]
mod fixtures;
mod gather;
mod report;
mod serve;
mod survey;
mod wire;

use std::sync::Arc;

pub use self::{
    client::{AskError, Client, Session},
    compare::Explained,
    explain::{Check, End, Explanation, Fault, explain_group, explain_peer, explain_store, explain_stream},
    report::{
        AdmissionReport, BondReport, CandidateReport, ConnectionReport, ConsumerReport, EndingReport, GroupReport,
        LinkState, MemberReport, Named, NodeReport, OwnerReport, PeerReport, PrimaryReport, ProducerReport,
        RefusalKind, RefusalReport, RefusedProducer, ReplicaReport, StoreReport, StreamReport, SubscriberReport,
        SyncState, Trouble,
    },
    survey::{Answered, MAX_ASKED, Survey, SurveyError},
    wire::MAX_ANSWER,
};
use self::{gather::Sources, serve::Server};
use crate::{
    discovery::Discovery,
    groups::Groups,
    network::{Acceptors, Node},
    stores::Stores,
    streams::Streams,
};

/// What this node can tell about itself; made by [`Network::diagnostics`](crate::Network::diagnostics). Cheap to clone;
/// does not keep the network alive.
///
/// ```
/// use mosaik::{Network, NetworkId};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network_id = NetworkId::random();
/// let (here, there) = (Network::new(network_id).await?, Network::new(network_id).await?);
/// assert_eq!(here.diagnostics().node().id, here.local().id());
///
/// // The same from outside, as the command line does it.
/// let report = here.diagnostics().client().node(&there.local().addr()).await?;
/// assert_eq!(report.id, there.local().id());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Diagnostics(Arc<Server>);

impl Diagnostics {
    /// Registers the protocol.
    pub(crate) fn new(
        node: &Node,
        discovery: &Discovery,
        streams: &Streams,
        groups: &Groups,
        stores: &Stores,
        acceptors: &mut Acceptors,
    ) -> Self {
        let sources = Sources::new(node.clone(), discovery.clone(), streams.clone(), groups.clone(), stores.clone());
        Self(Server::open(sources, acceptors))
    }

    /// Who this node is.
    #[must_use]
    pub fn node(&self) -> NodeReport {
        self.0.sources().node()
    }

    /// The peers that it knows, in the order of their ids.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerReport> {
        self.0.sources().peers(None).collect()
    }

    /// Its producers and consumers. Their predicates are asked about their peers.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamReport> {
        self.0.sources().streams()
    }

    /// The members of groups that run on it.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupReport> {
        self.0.sources().groups()
    }

    /// The primaries and replicas of stores on it.
    #[must_use]
    pub fn stores(&self) -> Vec<StoreReport> {
        self.0.sources().stores()
    }

    /// Asks other nodes, over the connections of this one.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::of(self.0.sources().node_handle().clone())
    }
}
