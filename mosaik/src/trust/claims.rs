//! [`Claims`], what a ticket grants and when, and [`Grants`], the same as others ask for it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::ticket::TicketError;
use crate::primitives::Tag;

/// The longest name of a role or a grant, in bytes.
pub const MAX_GRANT_NAME: usize = 64;
/// The most roles, and again grants, in one ticket.
pub const MAX_GRANTS: usize = 32;

/// What a ticket grants and when. Times are seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub(super) roles: BTreeSet<String>,
    pub(super) grants: BTreeSet<String>,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

impl Claims {
    /// Membership and nothing else, from one moment to another.
    #[must_use]
    pub const fn new(not_before: u64, not_after: u64) -> Self {
        Self { roles: BTreeSet::new(), grants: BTreeSet::new(), not_before, not_after }
    }

    /// Grants a role.
    #[must_use]
    pub fn with_role(mut self, role: impl Into<String>) -> Self {
        self.roles.insert(role.into());
        self
    }

    /// Grants a tag.
    #[must_use]
    pub fn with_grant(mut self, grant: impl Into<String>) -> Self {
        self.grants.insert(grant.into());
        self
    }

    /// The grants, in order.
    pub fn grants(&self) -> impl Iterator<Item = &str> {
        self.grants.iter().map(String::as_str)
    }

    /// The same with another window.
    pub(super) fn at(mut self, not_before: u64, not_after: u64) -> Self {
        (self.not_before, self.not_after) = (not_before, not_after);
        self
    }

    /// Whether everything here is in the wider one, too.
    pub(super) fn within(&self, wider: &Self) -> Result<(), TicketError> {
        let narrower = |holds, what| if holds { Ok(()) } else { Err(TicketError::Wider { what }) };
        narrower(self.roles.is_subset(&wider.roles), "roles")?;
        narrower(self.grants.is_subset(&wider.grants), "grants")?;
        narrower(self.not_before >= wider.not_before && self.not_after <= wider.not_after, "time")
    }

    pub(super) fn check(&self) -> Result<(), TicketError> {
        let names = || self.roles.iter().chain(&self.grants);
        if self.roles.len() > MAX_GRANTS || self.grants.len() > MAX_GRANTS {
            return Err(TicketError::Undecodable { why: "too many roles or grants" });
        }
        if names().any(|name| name.is_empty() || name.len() > MAX_GRANT_NAME) {
            return Err(TicketError::Undecodable { why: "a name of a role or grant is empty or too long" });
        }
        if self.not_before > self.not_after {
            return Err(TicketError::Undecodable { why: "it ends before it begins" });
        }
        Ok(())
    }
}

/// What an authority says of a peer: roles and tags that its ticket grants. Empty in networks without an authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    names: BTreeSet<String>,
    tags: BTreeSet<Tag>,
}

impl Grants {
    pub(super) fn of(claims: &Claims) -> Self {
        let names: BTreeSet<String> = claims.roles.union(&claims.grants).cloned().collect();
        let tags = names.iter().map(Tag::from).collect();
        Self { names, tags }
    }

    /// Whether a role or tag of that name is granted. Takes a [`Tag`], a `&str` or a `String`.
    pub fn contains(&self, name: impl Into<Tag>) -> bool {
        self.tags.contains(&name.into())
    }

    /// With more names.
    pub(super) fn and(mut self, names: impl IntoIterator<Item = String>) -> Self {
        for name in names {
            self.tags.insert(Tag::from(&name));
            self.names.insert(name);
        }
        self
    }

    /// The names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Whether nothing is granted beside membership.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}
