//! Trust: who may be in a network. Decides before any subsystem sees a byte of a connection.
//!
//! There are three kinds of network: *open*, *secret* (one key, [`NetworkKey`]) and those of an *authority*, whose members hold
//! [`Ticket`]s. `proof` is what both ends of a connection say first, `ticket` what an authority signs, `scope` what it can give,
//! `listed` who is one, `invite` how a node gets its ticket, `license` and `renew` how it gets another one before that ends, `revoke`
//! how it is taken back, `words` what authorities have said here, `known` the tickets of others, `rights` what a declaration asks a grant
//! for, `label` what goes only to those that clear it, `attest` what runs where (with the feature of that name), `refusal` why somebody stays outside, and `gate` what a node decides with. Pure but for the files of keys: `network` moves
//! the bytes, and time comes in as an argument. The protocol is in `docs/src/trust.md`.

#[cfg(feature = "attest")]
pub mod attest;
mod authority;
mod claims;
#[cfg(test)]
mod fixtures;
mod gate;
mod invite;
mod key;
mod known;
mod label;
mod license;
mod listed;
pub(crate) mod proof;
mod refusal;
mod renew;
mod revoke;
mod rights;
mod scope;
mod ticket;
mod words;

pub use authority::{Authority, AuthorityId};
pub use claims::{Claims, Grants, MAX_GRANT_NAME, MAX_GRANTS};
pub use gate::{NetworkKind, Trust};
pub use invite::{Invitation, JoinError, MAX_BOOTSTRAP, MAX_INVITATION, Membership};
pub use key::{KeyFileError, NetworkKey};
pub use label::{Label, LabelError, MAX_LABEL};
pub(crate) use label::{is_label, told};
pub use license::{RENEWED_LIFE, Renewing};
pub use listed::{AuthorityList, ListError};
pub use refusal::{MAX_REFUSALS, Reason, Refusal, RefusedBy};
pub use renew::RenewError;
pub use revoke::{MAX_REVOCATIONS, Revocation, RevocationError, Revoked};
pub(crate) use rights::{Held, Needed};
pub use rights::{MissingGrant, Right};
pub use scope::Scope;
pub use ticket::{LEEWAY, MAX_NARROWED, MAX_TICKET, Ticket, TicketDigest, TicketError};

pub(crate) use gate::{Clocks, Credentials, MAX_AUTHORITIES, Own};
pub(crate) use license::Issuer;
