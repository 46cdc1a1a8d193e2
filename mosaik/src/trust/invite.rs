//! [`Invitation`]: one string by which a node joins a network of an authority, and [`Membership`], what it keeps of it.
//!
//! An invitation holds a key of its own, to which the authority has given a ticket; with that key the joining node signs a ticket
//! for itself. Nobody has to be online for it, and who finds the string can join for as long as its ticket holds. With a license
//! beside the ticket the same key may renew tickets of others, for as long as that license says.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use data_encoding::BASE64URL_NOPAD;
use iroh::SecretKey;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    authority::{Authority, AuthorityId},
    claims::Claims,
    gate::MAX_AUTHORITIES,
    license::{Issuer, License, Renewing},
    ticket::{Ticket, TicketError},
};
use crate::primitives::{NetworkId, PeerId, fresh_bytes, private};

/// The longest invitation, in bytes before it is written as text.
pub const MAX_INVITATION: usize = 4096;
/// The most bootstrap addresses in an invitation.
pub const MAX_BOOTSTRAP: usize = 16;

/// In front of an invitation.
pub(super) const PREFIX: &str = "mosaik1";
/// In front of a membership in its file.
pub(super) const KEPT_PREFIX: &str = "mosaikm1";
/// The file in the data directory.
const FILE: &str = "membership";

/// Why a text is no invitation, or a membership cannot be kept. Never shows the text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// It is not in the form of an invitation.
    #[error("this is no invitation: {why}")]
    NotAnInvitation {
        /// What is wrong.
        why: &'static str,
    },
    /// Its ticket is none.
    #[error("the invitation's ticket: {0}")]
    Ticket(#[from] TicketError),
    /// The file of a membership cannot be read or written.
    #[error("the membership file {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// The file of a membership does not hold one.
    #[error("the membership file {} does not hold a membership; remove it and join again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// One string that holds a network's id, its authority, where to begin, and the right to join for a while. Whoever has it
/// can join: it is worth its life. `Debug` does not show it.
#[derive(Clone)]
pub struct Invitation {
    key: SecretKey,
    ticket: Ticket,
    bootstrap: Vec<String>,
    issuer: Option<Issuer>,
    /// Other authorities that the network trusts.
    others: Vec<AuthorityId>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Invited {
    key: [u8; 32],
    ticket: Vec<u8>,
    bootstrap: Vec<String>,
}

/// Behind what every invitation has, in some.
#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct More {
    license: Option<License>,
    others: Vec<AuthorityId>,
}

impl Authority {
    /// An invitation for whoever has it. `bootstrap` are peers as `id@host:port`; none for the first node.
    ///
    /// # Errors
    /// When the claims are over a limit, or there are too many bootstrap addresses.
    pub fn invite(
        &self,
        network: impl Into<NetworkId>,
        claims: Claims,
        bootstrap: impl IntoIterator<Item = String>,
    ) -> Result<Invitation, JoinError> {
        self.invitation(network.into(), claims, bootstrap, None)
    }

    /// An invitation for a node that renews tickets: those of others, when they ask, and its own. Whoever has it can do so until
    /// the end of the terms, and not only until the claims end.
    ///
    /// # Errors
    /// As [`invite`](Self::invite), and when the scope is over a limit.
    pub fn invite_renewer(
        &self,
        network: impl Into<NetworkId>,
        claims: Claims,
        bootstrap: impl IntoIterator<Item = String>,
        terms: Renewing,
    ) -> Result<Invitation, JoinError> {
        self.invitation(network.into(), claims, bootstrap, Some(terms))
    }

    fn invitation(
        &self,
        network: NetworkId,
        claims: Claims,
        bootstrap: impl IntoIterator<Item = String>,
        terms: Option<Renewing>,
    ) -> Result<Invitation, JoinError> {
        let key = SecretKey::from_bytes(&fresh_bytes());
        let ticket = self.issue(network, key.public().into(), claims)?;
        let license = terms.map(|terms| License::give(self, &ticket, terms)).transpose()?;
        let issuer = license.map(|license| Issuer::new(key.clone(), license, &ticket)).transpose()?;
        let invitation =
            Invitation { key, ticket, bootstrap: bootstrap.into_iter().collect(), issuer, others: Vec::new() };
        // Through its own reader, so that what was made can be used.
        invitation.to_string().parse()
    }
}

impl Invitation {
    /// The network that it is for.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.ticket.network()
    }

    /// The authority that has signed it.
    #[must_use]
    pub fn authority(&self) -> AuthorityId {
        self.ticket.authority()
    }

    /// The same for a network that trusts other authorities, too, whose members the node is to know as such from the start. At most
    /// seven; further ones, and its own, are left out.
    #[must_use]
    pub fn with_authorities(mut self, others: impl IntoIterator<Item = AuthorityId>) -> Self {
        for other in others {
            let is_new = other != self.authority() && !self.others.contains(&other);
            if is_new && self.others.len() + 1 < MAX_AUTHORITIES {
                self.others.push(other);
            }
        }
        self
    }

    /// What it grants, and until when.
    #[must_use]
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Peers to begin with.
    #[must_use]
    pub fn bootstrap(&self) -> &[String] {
        &self.bootstrap
    }

    /// Until when who joins by it may renew tickets, in seconds since the Unix epoch; `None` when it may not.
    #[must_use]
    pub fn renews_until(&self) -> Option<u64> {
        self.issuer.as_ref().map(Issuer::until)
    }

    /// The membership of a node: a ticket for its key, with all that the invitation grants and no longer than that.
    ///
    /// # Errors
    /// When the ticket becomes too long.
    pub fn accept(&self, node: PeerId) -> Result<Membership, TicketError> {
        let ticket = self.ticket.narrow(&self.key, node, self.ticket.claims().clone())?;
        let (bootstrap, issuer) = (self.bootstrap.clone(), self.issuer.clone());
        let authorities = [self.authority()].into_iter().chain(self.others.iter().copied()).collect();
        Ok(Membership { authorities, ticket, bootstrap, issuer })
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation({:?} of {:?}, hidden)", self.network(), self.authority())
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, ticket) = (self.key.to_bytes(), self.ticket.as_bytes().to_vec());
        let invited = Invited { key, ticket, bootstrap: self.bootstrap.clone() };
        let license = self.issuer.as_ref().map(|issuer| issuer.license.clone());
        let more = Some(More { license, others: self.others.clone() }).filter(|more| *more != More::default());
        f.write_str(&to_text(PREFIX, &invited, more.as_ref()).ok_or(fmt::Error)?)
    }
}

impl FromStr for Invitation {
    type Err = JoinError;

    fn from_str(text: &str) -> Result<Self, JoinError> {
        let invited = from_text::<Invited, More>(PREFIX, text.trim());
        let (Invited { key, ticket, bootstrap }, more) = invited.map_err(|why| JoinError::NotAnInvitation { why })?;
        if bootstrap.len() > MAX_BOOTSTRAP {
            return Err(JoinError::NotAnInvitation { why: "it has too many bootstrap addresses" });
        }
        let (key, ticket) = (SecretKey::from_bytes(&key), Ticket::from_bytes(&ticket)?);
        if ticket.subject() != key.public().into() {
            return Err(JoinError::NotAnInvitation { why: "its ticket is for another key" });
        }
        let More { license, others } = more.unwrap_or_default();
        let issuer = license.map(|license| Issuer::new(key.clone(), license, &ticket)).transpose()?;
        Ok(Self { key, ticket, bootstrap, issuer, others: Vec::new() }.with_authorities(others))
    }
}

/// What a node keeps of having joined: its ticket, whom it trusts, where it began, and with what it renews tickets, if it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub(crate) authorities: Vec<AuthorityId>,
    pub(crate) ticket: Ticket,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) issuer: Option<Issuer>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    authorities: Vec<AuthorityId>,
    ticket: Vec<u8>,
    bootstrap: Vec<String>,
}

/// Behind what every member keeps, by a member that renews tickets.
#[derive(Serialize, Deserialize)]
pub(super) struct Renews {
    key: [u8; 32],
    license: License,
}

impl Membership {
    /// The node's ticket.
    #[must_use]
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// The authorities that it trusts.
    #[must_use]
    pub fn authorities(&self) -> &[AuthorityId] {
        &self.authorities
    }

    /// The one kept in a data directory, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn in_dir(dir: impl AsRef<Path>) -> Result<Option<Self>, JoinError> {
        let path = dir.as_ref().join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(JoinError::Malformed { path }),
            Err(error) => return Err(JoinError::Io { path, error }),
        };
        let read = || {
            let kept = from_text::<Kept, Renews>(KEPT_PREFIX, text.trim());
            let (Kept { authorities, ticket, bootstrap }, renews) = kept.ok()?;
            let ticket = Ticket::from_bytes(&ticket).ok()?;
            let issuer = |renews: Renews| Issuer::new(SecretKey::from_bytes(&renews.key), renews.license, &ticket);
            let issuer = renews.map(issuer).transpose().ok()?;
            authorities.contains(&ticket.authority()).then_some(Self { authorities, ticket, bootstrap, issuer })
        };
        read().map(Some).ok_or(JoinError::Malformed { path })
    }

    /// Keeps it in a data directory, in place of the one that may be there.
    pub(crate) fn keep(&self, dir: &Path) -> Result<(), JoinError> {
        let path = dir.join(FILE);
        let (authorities, ticket) = (self.authorities.clone(), self.ticket.as_bytes().to_vec());
        let kept = Kept { authorities, ticket, bootstrap: self.bootstrap.clone() };
        let renews = self.issuer.as_ref();
        let renews = renews.map(|it| Renews { key: it.key.to_bytes(), license: it.license.clone() });
        let text = to_text(KEPT_PREFIX, &kept, renews.as_ref()).unwrap_or_default();
        let written = private::create_dir(dir).and_then(|()| private::replace(&path, format!("{text}\n").as_bytes()));
        written.map_err(|error| JoinError::Io { path, error })
    }
}

/// The value, and behind it one that not everybody has.
fn to_text<T: Serialize, U: Serialize>(prefix: &str, value: &T, more: Option<&U>) -> Option<String> {
    let bytes = postcard::to_allocvec(value).ok()?;
    let bytes = more.map_or(Ok(bytes.clone()), |more| postcard::to_extend(more, bytes)).ok()?;
    Some(format!("{prefix}{}", BASE64URL_NOPAD.encode(&bytes)))
}

fn from_text<T: DeserializeOwned, U: DeserializeOwned>(
    prefix: &'static str,
    text: &str,
) -> Result<(T, Option<U>), &'static str> {
    let encoded = text.strip_prefix(prefix).ok_or("it does not begin as one does")?;
    if encoded.len() > MAX_INVITATION.div_ceil(3) * 4 {
        return Err("it is too long");
    }
    let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| "characters are missing or wrong")?;
    let damaged = |_| "it is cut short or damaged";
    let (value, rest) = postcard::take_from_bytes(&bytes).map_err(damaged)?;
    if rest.is_empty() {
        return Ok((value, None));
    }
    match postcard::take_from_bytes(rest).map_err(damaged)? {
        (more, []) => Ok((value, Some(more))),
        _ => Err("it is cut short or damaged"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn invitation() -> Invitation {
        let claims = Claims::new(1_000, 2_000).with_role("builder").with_grant("eu");
        let bootstrap = ["id@127.0.0.1:7000".to_owned()];
        Authority::from_bytes(&[1; 32]).invite("n", claims, bootstrap).expect("is in order")
    }

    #[test]
    fn who_has_the_string_gets_a_ticket_of_its_own() {
        let text = invitation().to_string();
        assert!(text.starts_with("mosaik1") && !text.contains(char::is_whitespace), "{text}");
        let read: Invitation = format!("  {text}\n").parse().expect("is one");
        assert_eq!((read.network(), read.bootstrap()), ("n".into(), &["id@127.0.0.1:7000".to_owned()][..]));
        let node = PeerId::from(SecretKey::from_bytes(&[2; 32]).public());
        let membership = read.accept(node).expect("is in order");
        let ticket = membership.ticket();
        assert_eq!((ticket.subject(), ticket.not_after()), (node, 2_000));
        assert!(ticket.grants().contains("builder") && ticket.grants().contains("eu"));
        assert_eq!(membership.authorities(), [Authority::from_bytes(&[1; 32]).id()]);
        assert!(!format!("{read:?}").contains("mosaik1"));
    }

    #[test]
    fn a_membership_is_kept_and_what_is_none_is_said_to_be() {
        let dir = tempfile::tempdir().expect("is made");
        assert!(matches!(Membership::in_dir(dir.path()), Ok(None)));
        let node = PeerId::from(SecretKey::from_bytes(&[2; 32]).public());
        let membership = invitation().accept(node).expect("is in order");
        membership.keep(dir.path()).expect("is written");
        membership.keep(dir.path()).expect("is written again");
        assert_eq!(Membership::in_dir(dir.path()).expect("is read").as_ref(), Some(&membership));
        fs::write(dir.path().join(FILE), "nonsense").expect("is written");
        let error = Membership::in_dir(dir.path()).expect_err("is none").to_string();
        assert!(error.contains("membership") && !error.contains("nonsense"), "{error}");
    }

    #[test]
    fn an_invitation_names_the_other_authorities() {
        let of = |n| Authority::from_bytes(&[n; 32]).id();
        let text = invitation().with_authorities([of(1), of(2), of(2), of(3)]).to_string();
        let read: Invitation = text.parse().expect("is one");
        let node = PeerId::from(SecretKey::from_bytes(&[2; 32]).public());
        assert_eq!(read.accept(node).expect("is in order").authorities(), [of(1), of(2), of(3)]);
        let many = invitation().with_authorities((2..20).map(of));
        assert_eq!(many.accept(node).expect("is in order").authorities().len(), MAX_AUTHORITIES);
    }

    #[test]
    fn a_renewer_keeps_what_it_renews_with() {
        let terms = Renewing::until(9_000).with_life(Duration::from_secs(500));
        let claims = Claims::new(1_000, 2_000).with_role("builder");
        let invitation = Authority::from_bytes(&[1; 32]).invite_renewer("n", claims, [], terms).expect("is in order");
        let read: Invitation = invitation.to_string().parse().expect("is one");
        assert_eq!((read.renews_until(), super::tests::invitation().renews_until()), (Some(9_000), None));
        let node = PeerId::from(SecretKey::from_bytes(&[2; 32]).public());
        let membership = read.accept(node).expect("is in order");
        let dir = tempfile::tempdir().expect("is made");
        membership.keep(dir.path()).expect("is written");
        let kept = Membership::in_dir(dir.path()).expect("is read").expect("is there");
        assert_eq!(kept, membership);
        assert!(kept.issuer.is_some_and(|issuer| issuer.key.public() == read.key.public()));
        // Another key with the same license renews nothing.
        let license = read.issuer.as_ref().expect("has one").license.clone();
        let other = Issuer::new(SecretKey::from_bytes(&[7; 32]), license, read.ticket());
        assert!(other.is_err());
    }

    proptest! {
        #[test]
        fn made_up_text_is_no_invitation(text in "(mosaik1)?[ -~]{0,300}") {
            prop_assert!(text.parse::<Invitation>().is_err());
        }

        #[test]
        fn a_changed_character_is_noticed_or_changes_no_right(at: prop::sample::Index, to in "[A-Za-z0-9_-]") {
            let text = invitation().to_string();
            let at = PREFIX.len() + at.index(text.len() - PREFIX.len());
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            // The bootstrap addresses are not signed: who can change the string can as well make no use of it.
            if let Ok(read) = changed.parse::<Invitation>() {
                prop_assert_eq!(read.ticket().claims(), &Claims::new(1_000, 2_000).with_role("builder").with_grant("eu"));
            }
        }
    }
}
