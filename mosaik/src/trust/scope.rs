//! [`Scope`]: what an authority can give, or who renews tickets in its name. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    claims::{Claims, MAX_GRANT_NAME, MAX_GRANTS},
    ticket::TicketError,
};

/// The roles and grants that tickets of an authority may have. Membership alone is always in it.
///
/// ```
/// use mosaik::trust::Scope;
///
/// let guests = Scope::nothing().with_role("display").with_grant("eu");
/// assert_ne!(guests, Scope::everything());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope(Option<Names>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Names {
    roles: BTreeSet<String>,
    grants: BTreeSet<String>,
}

impl Scope {
    /// Every role and every grant.
    #[must_use]
    pub const fn everything() -> Self {
        Self(None)
    }

    /// Membership and nothing else.
    #[must_use]
    pub fn nothing() -> Self {
        Self(Some(Names::default()))
    }

    /// A role more; of no effect on [`everything`](Self::everything).
    #[must_use]
    pub fn with_role(mut self, role: impl Into<String>) -> Self {
        if let Some(names) = &mut self.0 {
            names.roles.insert(role.into());
        }
        self
    }

    /// A grant more; of no effect on [`everything`](Self::everything).
    #[must_use]
    pub fn with_grant(mut self, grant: impl Into<String>) -> Self {
        if let Some(names) = &mut self.0 {
            names.grants.insert(grant.into());
        }
        self
    }

    /// Whether it has no limit.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.0.is_none()
    }

    /// The first role or grant of these claims that is not in the scope.
    pub(super) fn lacks(&self, claims: &Claims) -> Option<String> {
        let names = self.0.as_ref()?;
        let role = claims.roles.difference(&names.roles).next().map(|role| format!("role {role}"));
        role.or_else(|| claims.grants.difference(&names.grants).next().map(|grant| format!("grant {grant}")))
    }

    pub(super) fn check(&self) -> Result<(), TicketError> {
        let Some(Names { roles, grants }) = &self.0 else { return Ok(()) };
        if roles.len() > MAX_GRANTS || grants.len() > MAX_GRANTS {
            return Err(TicketError::Undecodable { why: "a scope has too many roles or grants" });
        }
        if roles.iter().chain(grants).any(|name| name.is_empty() || name.len() > MAX_GRANT_NAME) {
            return Err(TicketError::Undecodable { why: "a name in a scope is empty or too long" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_what_it_names_and_membership() {
        let claims = || Claims::new(1, 2).with_role("relay").with_grant("eu");
        let scope = Scope::nothing().with_role("relay").with_grant("eu").with_grant("us");
        assert_eq!((scope.lacks(&claims()), scope.lacks(&Claims::new(1, 2))), (None, None));
        assert_eq!(scope.lacks(&claims().with_role("builder")).as_deref(), Some("role builder"));
        assert_eq!(Scope::nothing().with_role("relay").lacks(&claims()).as_deref(), Some("grant eu"));
        assert_eq!(Scope::everything().with_role("x").lacks(&claims()), None, "no limit stays none");
        assert!(Scope::nothing().with_grant("").check().is_err() && scope.check().is_ok());
    }
}
