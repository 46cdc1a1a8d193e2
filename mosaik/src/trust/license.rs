//! [`License`]: an authority lets a key renew tickets in its name, and [`Issuer`], who holds such a key.
//!
//! A license gives no right to sign tickets: a renewed ticket is the former one with another window behind it, so that it cannot
//! grant what the authority has not granted. How far the window may reach is in the license. Pure.

use std::{fmt, time::Duration};

use iroh::{SecretKey, Signature};
use serde::{Deserialize, Serialize};

use super::{
    authority::{Authority, AuthorityId},
    claims::Claims,
    scope::Scope,
    ticket::{Ticket, TicketError, decode, encode},
};
use crate::primitives::{NetworkId, PeerId};

/// For how long a renewed ticket holds unless the authority says otherwise.
pub const RENEWED_LIFE: Duration = Duration::from_hours(30 * 24);

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"mosaik license 1:";

/// On what terms tickets may be renewed in an authority's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewing {
    until: u64,
    life: Duration,
    scope: Scope,
}

impl Renewing {
    /// Until a moment, seconds since the Unix epoch, beyond which no renewed ticket reaches. Tickets with whatever grants, for
    /// [`RENEWED_LIFE`].
    #[must_use]
    pub const fn until(until: u64) -> Self {
        Self { until, life: RENEWED_LIFE, scope: Scope::everything() }
    }

    /// For how long a renewed ticket holds; fractions of a second are left out.
    #[must_use]
    pub const fn with_life(mut self, life: Duration) -> Self {
        self.life = life;
        self
    }

    /// Only tickets whose roles and grants are in this scope.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }
}

/// A license as it travels: in a renewer's invitation, and in every ticket that was renewed by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct License {
    body: Vec<u8>,
    signature: Signature,
}

/// What an authority says. The network and the authority are signed, too, and stand in the ticket beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Licensed {
    version: u8,
    pub(super) key: PeerId,
    /// By which it is revoked: that of the invitation with which it was given.
    pub(super) serial: [u8; 16],
    scope: Scope,
    not_before: u64,
    pub(super) not_after: u64,
    /// The longest life of a renewed ticket, in seconds.
    life: u64,
}

impl License {
    /// The key of an invitation may renew tickets, too.
    pub(super) fn give(
        authority: &Authority,
        invitation: &Ticket,
        Renewing { until, life, scope }: Renewing,
    ) -> Result<Self, TicketError> {
        let body = encode(&Licensed {
            version: VERSION,
            key: invitation.subject(),
            serial: invitation.serial(),
            scope,
            not_before: invitation.not_before(),
            not_after: until,
            life: life.as_secs(),
        })?;
        let signature = authority.sign(&signed(invitation.network(), &body));
        Ok(Self { body, signature })
    }

    /// What it says, if the authority has said it of this network.
    pub(super) fn verify(&self, network: NetworkId, authority: AuthorityId) -> Result<Licensed, TicketError> {
        match self.body.first() {
            Some(&VERSION) => {}
            Some(&theirs) => return Err(TicketError::Version { theirs }),
            None => return Err(TicketError::Undecodable { why: "a license is empty" }),
        }
        let licensed: Licensed = decode(&self.body)?;
        licensed.scope.check()?;
        let verified = authority.verify(&signed(network, &self.body), &self.signature);
        verified.map_err(|_| TicketError::Undecodable { why: "its license was not signed by its authority" })?;
        Ok(licensed)
    }
}

fn signed(network: NetworkId, body: &[u8]) -> Vec<u8> {
    [DOMAIN, network.as_bytes(), body].concat()
}

impl Licensed {
    /// The claims with another window, if that is in the license.
    pub(super) fn allows(&self, claims: &Claims, not_before: u64, not_after: u64) -> Result<(), TicketError> {
        let within = not_before >= self.not_before && not_after <= self.not_after;
        if !within || not_after.saturating_sub(not_before) > self.life {
            return Err(TicketError::Wider { what: "time" });
        }
        if self.scope.lacks(claims).is_some() {
            return Err(TicketError::Wider { what: "roles or grants" });
        }
        Ok(())
    }

    /// The window of what is renewed now.
    pub(super) fn window(&self, now: u64) -> (u64, u64) {
        (now, now.saturating_add(self.life).min(self.not_after))
    }
}

/// A key and the license to renew tickets with it. `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct Issuer {
    pub(super) key: SecretKey,
    pub(super) license: License,
    pub(super) licensed: Licensed,
}

impl Issuer {
    pub(super) fn new(key: SecretKey, license: License, of: &Ticket) -> Result<Self, TicketError> {
        let licensed = license.verify(of.network(), of.authority())?;
        if licensed.key != key.public().into() {
            return Err(TicketError::Undecodable { why: "its license is for another key" });
        }
        Ok(Self { key, license, licensed })
    }

    /// Until when it may renew: seconds since the Unix epoch.
    pub(crate) const fn until(&self) -> u64 {
        self.licensed.not_after
    }
}

impl PartialEq for Issuer {
    fn eq(&self, other: &Self) -> bool {
        (&self.license, self.licensed.key) == (&other.license, other.licensed.key)
    }
}

impl Eq for Issuer {}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({:?}, hidden)", self.licensed.key)
    }
}
