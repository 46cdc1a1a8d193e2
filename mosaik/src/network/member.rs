//! By what a node is a member of its network: what the builder was given, made to fit together or refused before the node
//! starts. What is proved with it is the business of `gate`.

use std::path::Path;

use crate::{
    primitives::{NetworkId, PeerId},
    transport::Transport,
    trust::{AuthorityId, Credentials, Invitation, JoinError, MAX_AUTHORITIES, Membership, NetworkKey, Ticket, Trust},
};

/// Why a node could not prove that it belongs to its network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// A network has one kind: a key or an authority, not both.
    #[error("a network is secret or of an authority: with_network_key and with_authority exclude each other")]
    TwoKinds,
    /// A network of an authority needs a ticket of this node.
    #[error("a network of an authority admits nobody without a ticket: with_ticket is missing")]
    NoTicket,
    /// A ticket was given and no authority.
    #[error("a ticket counts in a network of its authority: with_authority is missing")]
    NoAuthority,
    /// More authorities than may be trusted at one time.
    #[error("{given} authorities are over the limit of {max}")]
    TooManyAuthorities {
        /// How many were given.
        given: usize,
        /// How many may be.
        max: usize,
    },
    /// The ticket's authority is none of the network's.
    #[error("the ticket is of authority {theirs:?}, which is not one of the network's")]
    UnknownAuthority {
        /// The ticket's authority.
        theirs: AuthorityId,
    },
    /// The ticket is for another network.
    #[error("the ticket is for network {theirs:?}, this node's is {ours:?}")]
    TicketOfOtherNetwork {
        /// This node's network.
        ours: NetworkId,
        /// The ticket's.
        theirs: NetworkId,
    },
    /// The ticket is for another peer.
    #[error("the ticket is for peer {subject:?}, this node is {node:?}")]
    TicketOfOther {
        /// For whom the ticket is.
        subject: PeerId,
        /// Who this node is.
        node: PeerId,
    },
}

/// By what a node is in its network, if what was given fits together.
pub(crate) fn credentials(
    ours: NetworkId,
    key: Option<NetworkKey>,
    trusted: Vec<AuthorityId>,
    ticket: Option<Ticket>,
) -> Result<Credentials, TrustError> {
    match (key, ticket) {
        (Some(_), ticket) if ticket.is_some() || !trusted.is_empty() => Err(TrustError::TwoKinds),
        (Some(key), _) => Ok(Credentials::Secret(key)),
        (None, None) if trusted.is_empty() => Ok(Credentials::Open),
        (None, None) => Err(TrustError::NoTicket),
        (None, Some(_)) if trusted.is_empty() => Err(TrustError::NoAuthority),
        (None, Some(_)) if trusted.len() > MAX_AUTHORITIES => {
            Err(TrustError::TooManyAuthorities { given: trusted.len(), max: MAX_AUTHORITIES })
        }
        (None, Some(ticket)) if !trusted.contains(&ticket.authority()) => {
            Err(TrustError::UnknownAuthority { theirs: ticket.authority() })
        }
        (None, Some(ticket)) if ticket.network() != ours => {
            Err(TrustError::TicketOfOtherNetwork { ours, theirs: ticket.network() })
        }
        (None, Some(ticket)) => Ok(Credentials::Authority { trusted, ticket }),
    }
}

/// The membership that a node is to have: by an invitation, or the one that it has kept, whichever holds longer. One that is new
/// is kept in the directory.
pub(super) fn member(
    invitation: Option<Invitation>,
    kept: Option<Membership>,
    node: PeerId,
    dir: Option<&Path>,
) -> Result<Option<Membership>, JoinError> {
    let Some(invitation) = invitation else { return Ok(kept) };
    let member = invitation.accept(node)?;
    let serves = |kept: &Membership| {
        let (kept, new) = (kept.ticket(), member.ticket());
        let same = (kept.network(), kept.authority(), kept.subject()) == (new.network(), new.authority(), node);
        same && kept.grants() == new.grants() && kept.not_after() >= new.not_after()
    };
    if let Some(kept) = kept.filter(serves) {
        return Ok(Some(kept));
    }
    if let Some(dir) = dir {
        member.keep(dir)?;
    }
    Ok(Some(member))
}

pub(super) fn trust(network: NetworkId, credentials: Credentials, transport: &Transport) -> Trust {
    let transport = transport.clone();
    Trust::new(network, credentials, move || transport.wall_clock())
}

/// A ticket is worth nothing to anybody but its subject.
pub(super) fn is_for(credentials: &Credentials, node: PeerId) -> Result<(), TrustError> {
    match credentials {
        Credentials::Authority { ticket, .. } if ticket.subject() != node => {
            Err(TrustError::TicketOfOther { subject: ticket.subject(), node })
        }
        _ => Ok(()),
    }
}
