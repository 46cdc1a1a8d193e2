//! Renewal: a ticket is exchanged for one that holds longer, by a member that has a license for it. The rights stay those that the
//! authority has given, and nothing is renewed that it has taken back. `discovery` asks and answers; here is what is decided.

use serde::{Deserialize, Serialize};

use super::{
    gate::Trust,
    license::Issuer,
    refusal::Reason,
    ticket::{LEEWAY, Ticket, TicketError},
};
use crate::primitives::{PeerId, watch};

/// Why a ticket is not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// The node that was asked renews no tickets.
    #[error("the node has no license to renew tickets: only who joined by `mosaik invite --renewer` has one")]
    NoLicense,
    /// The license is of another authority than the ticket, or was taken back.
    #[error("the license is not of the ticket's authority, or was taken back")]
    OtherLicense,
    /// The ticket is not one of this network, of one of its authorities, and of who asks.
    #[error("this is no ticket of this network for the peer that asks")]
    NotATicket,
    /// The ticket has run out, or does not hold yet.
    #[error("the ticket does not hold now: it can be renewed only while it does")]
    NotInTime,
    /// The ticket was taken back.
    #[error("the ticket was revoked")]
    Revoked,
    /// The ticket grants what the authority or the license does not cover.
    #[error("the ticket grants more than the license covers")]
    OutOfScope,
    /// A renewed ticket would hold no longer, such as when the license is about to end.
    #[error("a renewed ticket would hold no longer than this one")]
    NotLonger,
    /// A renewed ticket would be too long.
    #[error("the renewed ticket would have too many bytes: give it fewer or shorter names")]
    TooLarge,
}

impl From<Reason> for RenewError {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Expired { .. } | Reason::NotYetValid { .. } => Self::NotInTime,
            Reason::Revoked { .. } => Self::Revoked,
            Reason::OutOfScope { .. } => Self::OutOfScope,
            _ => Self::NotATicket,
        }
    }
}

impl Trust {
    /// Puts another ticket in place of this node's own one, from now on: on new connections, in its entry, and in the data
    /// directory where the node keeps its membership. Standing connections stay. Renewed tickets come by themselves.
    ///
    /// # Errors
    /// When the ticket is not one of this network, of one of its authorities, for this node, and in force.
    pub fn replace_ticket(&self, ticket: &Ticket) -> Result<(), Reason> {
        let me = self.ticket().map_or_else(|| ticket.subject(), |own| own.subject());
        let ticket = self.check(me, ticket.as_bytes())?;
        // By either clock of this node: that the wall clock is set wrongly is no reason to keep a ticket that ends.
        self.in_force(&ticket, self.now(), None).or_else(|_| self.in_force(&ticket, self.steady_now(), None))?;
        let mut state = self.state();
        if let Some(own) = state.own.clone() {
            state.set_own(self.0.network, super::Own { ticket, ..own });
            drop(state);
            self.0.ticket_changes.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Changes when this node's own ticket was replaced.
    pub(crate) fn ticket_changes(&self) -> watch::Receiver<u64> {
        self.0.ticket_changes.subscribe()
    }

    /// Whether this node may renew tickets.
    pub(crate) fn renews(&self) -> bool {
        self.issuer().is_some()
    }

    fn issuer(&self) -> Option<Issuer> {
        self.state().own.as_ref().and_then(|own| own.issuer.clone())
    }

    /// A peer's ticket, or this node's own, with a window that ends later.
    pub(crate) fn renew(&self, peer: PeerId, ticket: &[u8]) -> Result<Ticket, RenewError> {
        let (issuer, now) = (self.issuer().ok_or(RenewError::NoLicense)?, self.now());
        let ticket = self.check(peer, ticket)?;
        self.in_force(&ticket, now, None)?;
        let (not_before, not_after) = issuer.licensed.window(now);
        if not_after <= ticket.not_after() {
            return Err(RenewError::NotLonger);
        }
        let renewed = ticket.renew(&issuer, not_before, not_after).map_err(|error| match error {
            TicketError::TooLarge { .. } => RenewError::TooLarge,
            TicketError::Wider { what: "time" } => RenewError::NotLonger,
            TicketError::Wider { .. } => RenewError::OutOfScope,
            _ => RenewError::OtherLicense,
        })?;
        if self.state().revoked.of(&renewed).is_some() {
            return Err(RenewError::OtherLicense);
        }
        Ok(renewed)
    }

    /// Takes a renewed ticket for this node, which somebody gave.
    pub(crate) fn accept_renewed(&self, ticket: &[u8]) -> Result<(), RenewError> {
        let own = self.ticket().ok_or(RenewError::NotATicket)?;
        let ticket = self.check(own.subject(), ticket)?;
        if ticket.grants() != own.grants() {
            return Err(RenewError::NotATicket);
        }
        if ticket.not_after() <= own.not_after() {
            return Err(RenewError::NotLonger);
        }
        Ok(self.replace_ticket(&ticket)?)
    }

    /// Until when a peer may stay that was admitted: the end of the last of its tickets that count, with the leeway, in seconds since
    /// the Unix epoch. `None` where nobody has a ticket.
    pub(crate) fn holds_until(&self, peer: PeerId) -> Option<(u64, u64)> {
        let state = self.state();
        let until = state.tickets.of(peer).filter(|ticket| state.counts(ticket)).map(Ticket::not_after).max()?;
        Some((until, until.saturating_add(LEEWAY.as_secs() + 1)))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    use iroh::SecretKey;

    use super::{
        super::{Authority, Claims, Clocks, Credentials, Invitation, Own, Renewing, Revoked, Scope},
        *,
    };

    /// A node of a network whose clock is at 1,000 s.
    struct Node {
        id: PeerId,
        trust: Trust,
        clock: Arc<AtomicU64>,
    }

    fn authority() -> Authority {
        Authority::from_bytes(&[1; 32])
    }

    fn node(n: u8, invitation: &Invitation) -> Node {
        let id = PeerId::from(SecretKey::from_bytes(&[n; 32]).public());
        let member = invitation.accept(id).expect("is in order");
        let clock = Arc::new(AtomicU64::new(1_000));
        let read = clock.clone();
        let wall = Box::new(move || read.load(Ordering::Relaxed) * 1_000_000);
        let clocks = Clocks { wall, steady: Box::new(|| 1_000_000_000) };
        let trusted = vec![(authority().id(), Scope::everything())];
        let own = Own { trusted, ticket: member.ticket, issuer: member.issuer };
        Node { id, trust: Trust::new("n".into(), Credentials::Authority(Box::new(own)), clocks), clock }
    }

    fn claims() -> Claims {
        Claims::new(1_000, 1_600).with_role("sensor").with_grant("eu")
    }

    fn renewer(terms: Renewing) -> (Invitation, Node) {
        let invitation = authority().invite_renewer("n", claims(), [], terms).expect("is in order");
        let node = node(1, &invitation);
        (invitation, node)
    }

    fn terms() -> Renewing {
        Renewing::until(9_000).with_life(Duration::from_secs(2_000))
    }

    fn invited() -> (Invitation, Node) {
        let invitation = authority().invite("n", claims(), []).expect("is in order");
        let node = node(2, &invitation);
        (invitation, node)
    }

    fn ask(renewer: &Node, of: &Node) -> Result<Ticket, RenewError> {
        renewer.trust.renew(of.id, of.trust.ticket().expect("has one").as_bytes())
    }

    #[test]
    fn a_renewed_ticket_holds_longer_and_grants_the_same() {
        let ((_, renewer), (_, member)) = (renewer(terms()), invited());
        let first = member.trust.ticket().expect("has one");
        let renewed = ask(&renewer, &member).expect("is renewed");
        assert_eq!((renewed.not_before(), renewed.not_after(), renewed.is_renewed()), (1_000, 3_000, true));
        assert_eq!(
            (renewed.grants(), renewed.subject(), renewed.serial()),
            (first.grants(), member.id, first.serial())
        );
        assert_eq!(Ticket::from_bytes(renewed.as_bytes()).as_ref(), Ok(&renewed));
        let mut changes = member.trust.ticket_changes();
        changes.borrow_and_update();
        assert_eq!(member.trust.accept_renewed(renewed.as_bytes()), Ok(()));
        assert_eq!((member.trust.ticket(), *changes.borrow_and_update()), (Some(renewed.clone()), 1));
        assert_eq!(member.trust.accept_renewed(first.as_bytes()), Err(RenewError::NotLonger));
        assert_eq!(ask(&renewer, &member), Err(RenewError::NotLonger));

        // Again and again, at the same length, and never beyond the license.
        for (now, until) in [(2_500, 4_500), (4_400, 6_400), (6_300, 8_300), (8_200, 9_000)] {
            renewer.clock.store(now, Ordering::Relaxed);
            member.clock.store(now, Ordering::Relaxed);
            let again = ask(&renewer, &member).expect("is renewed");
            assert_eq!((again.not_after(), again.as_bytes().len()), (until, renewed.as_bytes().len()));
            assert_eq!(member.trust.accept_renewed(again.as_bytes()), Ok(()));
        }
        assert_eq!(ask(&renewer, &member), Err(RenewError::NotLonger));
        assert_eq!(ask(&member, &renewer), Err(RenewError::NoLicense));
    }

    #[test]
    fn what_must_not_be_renewed_is_not() {
        let (invitation, member) = invited();
        let revoke = |node: &Node, what| {
            let said = authority().revoke("n", what).expect("is encoded");
            assert_eq!(node.trust.revoke(&said), Ok(true));
        };
        for what in [
            Revoked::Peer(member.id),
            Revoked::Serial(invitation.ticket().serial()),
            Revoked::Serial(member.trust.ticket().expect("has one").serial()),
        ] {
            let (_, renewer) = renewer(terms());
            revoke(&renewer, what);
            assert_eq!(ask(&renewer, &member), Err(RenewError::Revoked), "{what}");
        }
        let (_, late) = renewer(terms());
        late.clock.store(1_661, Ordering::Relaxed);
        assert_eq!(ask(&late, &member), Err(RenewError::NotInTime), "a string is worth its life");
        let (_, other) = renewer(terms());
        let stolen = member.trust.ticket().expect("has one");
        assert_eq!(other.trust.renew(other.id, stolen.as_bytes()), Err(RenewError::NotATicket));
        let (_, narrow) = renewer(terms().with_scope(Scope::nothing().with_role("sensor")));
        assert_eq!(ask(&narrow, &member), Err(RenewError::OutOfScope));

        // A license goes with its invitation, and with it all that it was used for.
        let (of_renewer, renewer) = renewer(terms());
        let renewed = ask(&renewer, &member).expect("is renewed");
        let taken = Revoked::Serial(of_renewer.ticket().serial());
        assert!(taken.covers(&renewed) && !taken.covers(&member.trust.ticket().expect("has one")));
        revoke(&renewer, taken);
        assert_eq!(ask(&renewer, &member), Err(RenewError::OtherLicense));
    }

    #[test]
    fn nobody_but_a_licensed_key_renews_and_only_within_its_license() {
        let ((_, renewer), (_, member)) = (renewer(terms()), invited());
        let (issuer, ticket) = (renewer.trust.issuer().expect("has one"), member.trust.ticket().expect("has one"));
        let wider = |from, until| ticket.renew(&issuer, from, until);
        assert_eq!(wider(1_000, 3_001), Err(TicketError::Wider { what: "time" }), "longer than a life");
        assert_eq!(wider(8_000, 9_001), Err(TicketError::Wider { what: "time" }), "beyond the license");
        assert_eq!(wider(999, 1_001), Err(TicketError::Wider { what: "time" }), "before the license");
        let forged = Issuer { key: SecretKey::from_bytes(&[5; 32]), ..issuer.clone() };
        assert_eq!(ticket.renew(&forged, 1_000, 3_000), Err(TicketError::Signature { link: 2 }));
        // A renewal is for the ticket that it was made for, and stands behind it once.
        let bytes = ticket.renew(&issuer, 1_000, 3_000).expect("is renewed").as_bytes().to_vec();
        let foreign = authority().issue("n", member.id, claims()).expect("is in order");
        let other = foreign.renew(&issuer, 1_000, 3_000).expect("is renewed");
        assert_ne!(other.as_bytes(), bytes);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            assert!(Ticket::from_bytes(&changed).is_err(), "byte {at}");
        }
        // Who holds a renewed ticket narrows that one.
        let narrowed = other.narrow(&SecretKey::from_bytes(&[2; 32]), renewer.id, Claims::new(1_500, 2_900));
        let narrowed = narrowed.expect("is narrower");
        assert_eq!((narrowed.not_after(), narrowed.is_renewed(), narrowed.serials().len()), (2_900, false, 3));
    }
}
