//! By what a node is a member of its network: what the builder was given, made to fit together or refused before the node
//! starts. What is proved with it is the business of `gate`.

use std::{path::Path, time::Duration};

use tokio::time::Instant;

use crate::{
    primitives::{NetworkId, PeerId},
    transport::Transport,
    trust::{
        AuthorityId, Clocks, Credentials, Invitation, Issuer, JoinError, MAX_AUTHORITIES, Membership, NetworkKey, Own,
        Scope, Ticket, Trust,
    },
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
    trusted: Vec<(AuthorityId, Scope)>,
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
        (None, Some(ticket)) if trusted.iter().all(|(authority, _)| *authority != ticket.authority()) => {
            Err(TrustError::UnknownAuthority { theirs: ticket.authority() })
        }
        (None, Some(ticket)) if ticket.network() != ours => {
            Err(TrustError::TicketOfOtherNetwork { ours, theirs: ticket.network() })
        }
        (None, Some(ticket)) => Ok(Credentials::Authority(Box::new(Own { trusted, ticket, issuer: None }))),
    }
}

/// The membership that a node is to have: by an invitation, or the one that it has kept, whichever holds longer; and of the two
/// licenses to renew tickets the one that does. One that is new is kept in the directory.
pub(super) fn member(
    invitation: Option<Invitation>,
    kept: Option<Membership>,
    node: PeerId,
    dir: Option<&Path>,
) -> Result<Option<Membership>, JoinError> {
    let Some(invitation) = invitation else { return Ok(kept) };
    let mut member = invitation.accept(node)?;
    let kept =
        kept.filter(|kept| (kept.ticket().network(), kept.ticket().subject()) == (member.ticket().network(), node));
    if let Some(kept) = kept.as_ref().filter(|kept| kept.ticket().authority() != member.ticket().authority()) {
        // Of another authority of the network: lists of those that are trusted go on from the former ones.
        let room = MAX_AUTHORITIES - member.authorities.len();
        let others = kept.authorities.iter().filter(|other| !member.authorities.contains(other));
        let others: Vec<_> = others.take(room).copied().collect();
        member.authorities.extend(others);
    } else if let Some(kept) = &kept {
        let (own, new) = (kept.ticket(), member.ticket());
        if own.grants() == new.grants() && own.not_after() >= new.not_after() {
            member = Membership { issuer: member.issuer, ..kept.clone() };
        }
        if kept.issuer.as_ref().map(Issuer::until) > member.issuer.as_ref().map(Issuer::until) {
            member.issuer.clone_from(&kept.issuer);
        }
    }
    if let Some(dir) = dir.filter(|_| kept.as_ref() != Some(&member)) {
        member.keep(dir)?;
    }
    Ok(Some(member))
}

/// By what a node is in its network that has joined it.
pub(super) fn of_membership(Membership { authorities, ticket, issuer, .. }: Membership) -> Credentials {
    let trusted = authorities.into_iter().map(|authority| (authority, Scope::everything())).collect();
    Credentials::Authority(Box::new(Own { trusted, ticket, issuer }))
}

pub(super) fn trust(network: NetworkId, credentials: Credentials, transport: &Transport) -> Trust {
    let (transport, began, begun) = (transport.clone(), transport.wall_clock(), Instant::now());
    let wall = Box::new(move || transport.wall_clock());
    let passed = move || u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    Trust::new(network, credentials, Clocks { wall, steady: Box::new(move || began.saturating_add(passed())) })
}

/// When a peer has to be gone that was admitted at a moment of both clocks and may stay until another one of the wall clock, in
/// seconds since the Unix epoch. What the wall clock says meanwhile does not matter.
pub(super) fn leave_at((at, wall): (Instant, u64), until: u64) -> Option<Instant> {
    at.checked_add(Duration::from_secs(until.saturating_sub(wall)))
}

/// A ticket is worth nothing to anybody but its subject.
pub(super) fn is_for(credentials: &Credentials, node: PeerId) -> Result<(), TrustError> {
    match credentials {
        Credentials::Authority(own) if own.ticket.subject() != node => {
            Err(TrustError::TicketOfOther { subject: own.ticket.subject(), node })
        }
        _ => Ok(()),
    }
}
