//! [`Right`]: what a declaration asks a grant for, who has it, and [`MissingGrant`], which both ends are told.
//!
//! A declaration names the roles and grants of which a peer needs one. In a network of an authority the peer's ticket decides, at both
//! ends, each time it is asked. In the other kinds there are no tickets and every member may do everything; see
//! `docs/src/decisions.md`. A node that asks everybody for evidence does so in every kind. Pure but for the tickets and the evidence that
//! [`Trust`] knows.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::{
    Label, NetworkKind, Reason, RefusedBy, Trust,
    claims::{MAX_GRANT_NAME, MAX_GRANTS},
    ticket::TicketDigest,
};
use crate::primitives::PeerId;

/// What somebody needs a grant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Right {
    /// To send items of a stream.
    Produce,
    /// To receive items of a stream.
    Consume,
    /// To be the primary of a store.
    Primary,
    /// To have a replica of a store.
    Replica,
    /// To be a member of a group.
    Member,
    /// To call a group without being a member.
    Call,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Produce => "produce the stream",
            Self::Consume => "consume the stream",
            Self::Primary => "be the primary of the store",
            Self::Replica => "have a replica of the store",
            Self::Member => "be a member of the group",
            Self::Call => "call the group",
        })
    }
}

/// A peer's ticket grants nothing of what a declaration asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error(
    "grant missing to {right} {of}: has {}, needs {}",
    names(have, "nothing", " and "),
    names(need, "nothing", " or ")
)]
#[non_exhaustive]
pub struct MissingGrant {
    /// What it may not do.
    pub right: Right,
    /// With which stream, store or group.
    pub of: String,
    /// The roles and grants that its ticket has; none when the ticket has expired, was revoked or is not known.
    pub have: Vec<String>,
    /// The roles and grants of which it needs one.
    pub need: Vec<String>,
}

impl MissingGrant {
    /// One of which nothing else is known.
    pub(crate) const fn untold(right: Right) -> Self {
        Self { right, of: String::new(), have: Vec::new(), need: Vec::new() }
    }

    /// What the other end said of this one, in the limits of a ticket.
    pub(crate) fn heard(mut self) -> Self {
        for list in [&mut self.have, &mut self.need] {
            list.truncate(2 * MAX_GRANTS);
            list.iter_mut().for_each(|name| cut(name, MAX_GRANT_NAME));
        }
        cut(&mut self.of, 4 * MAX_GRANT_NAME);
        self
    }
}

fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
}

fn names(names: &[String], none: &str, between: &str) -> String {
    if names.is_empty() { none.to_owned() } else { names.join(between) }
}

/// The roles and grants of which a peer needs one for something, with none, everybody may; and the grant that clears a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needed {
    right: Right,
    /// Of what, for people.
    of: String,
    any: BTreeSet<String>,
    /// The label of that, which must be cleared besides.
    label: Option<Label>,
}

/// What is known of a peer's right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// It has it, or everybody has.
    Granted,
    /// Its ticket has not come yet.
    Unknown,
    /// It does not have it.
    Missing(MissingGrant),
}

impl Needed {
    pub(crate) const fn nothing(right: Right) -> Self {
        Self { right, of: String::new(), any: BTreeSet::new(), label: None }
    }

    pub(crate) fn one_of(right: Right, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { any: names.into_iter().map(Into::into).collect(), ..Self::nothing(right) }
    }

    /// For this stream, store or group, unless that was said.
    pub(crate) fn about(mut self, of: impl Into<String>) -> Self {
        if self.of.is_empty() {
            self.of = of.into();
        }
        self
    }

    /// Of what has this label.
    pub(crate) fn clearing(mut self, label: Option<&Label>) -> Self {
        self.label = label.cloned();
        self
    }

    pub(crate) fn of(&self) -> &str {
        &self.of
    }

    fn is_nothing(&self) -> bool {
        !self.names_grants() && self.label.is_none()
    }

    /// Whether anything is asked for here, by the declaration or of everybody.
    pub(crate) fn asks(&self, trust: &Trust) -> bool {
        !self.is_nothing() || trust.demands_evidence()
    }

    /// Whether a declaration names grants, beside a label.
    pub(crate) fn names_grants(&self) -> bool {
        !self.any.is_empty()
    }

    /// Whether a peer has the right; `ticket` is what its entry names.
    pub(crate) fn held(&self, trust: &Trust, peer: PeerId, ticket: Option<TicketDigest>) -> Held {
        let by_ticket = !self.is_nothing() && trust.kind() == NetworkKind::Authority;
        let evidence = trust.demanded(peer);
        if !by_ticket && evidence.is_empty() {
            return Held::Granted;
        }
        let granted: BTreeSet<String> = match trust.standing(peer, ticket) {
            Some(ticket) => ticket.grants().iter().map(str::to_owned).chain(trust.attested(peer)).collect(),
            None if !by_ticket => trust.attested(peer).into_iter().collect(),
            None if trust.knows_ticket_of(peer) => BTreeSet::new(),
            None => return Held::Unknown,
        };
        let unmet = self.unmet(by_ticket, &evidence, &granted);
        if unmet.is_empty() { Held::Granted } else { Held::Missing(self.missing(granted, unmet)) }
    }

    /// What a peer lacks. One whose ticket has not come has nothing; of who is connected it has.
    pub(crate) fn lacks(&self, trust: &Trust, peer: PeerId, ticket: Option<TicketDigest>) -> Option<MissingGrant> {
        match self.held(trust, peer, ticket) {
            Held::Granted => None,
            Held::Unknown => {
                let have = BTreeSet::new();
                let unmet = self.unmet(true, &trust.demanded(peer), &have);
                Some(self.missing(have, unmet))
            }
            Held::Missing(missing) => Some(missing),
        }
    }

    /// What this node lacks that somebody else says lacks something: its own grants, and what its own declaration asks for.
    pub(crate) fn refused(&self, trust: &Trust) -> MissingGrant {
        let own = trust.ticket();
        let attested = own.iter().flat_map(|ticket| trust.attested(ticket.subject()));
        let own = own.iter().flat_map(|ticket| ticket.grants().iter()).map(str::to_owned);
        let have = own.chain(attested).collect();
        let unmet = self.unmet(true, &[], &have);
        // Somebody else says so, who may know less.
        let any = || self.any.iter().cloned().chain(trust.verified_kinds()).collect();
        let need = if unmet.is_empty() { any() } else { unmet };
        self.missing(have, need)
    }

    /// What a peer with these grants needs one of; nothing when it has the right. `evidence`: of what it needs one whatever is declared.
    fn unmet(&self, by_ticket: bool, evidence: &[String], have: &BTreeSet<String>) -> Vec<String> {
        let clears = self.label.as_ref().map(Label::grant).filter(|clears| by_ticket && !have.contains(clears));
        match clears {
            Some(clears) => vec![clears],
            None if !evidence.is_empty() && !evidence.iter().any(|name| have.contains(name)) => evidence.to_vec(),
            None if by_ticket && !self.any.is_empty() && have.is_disjoint(&self.any) => {
                self.any.iter().cloned().collect()
            }
            None => Vec::new(),
        }
    }

    fn missing(&self, have: BTreeSet<String>, need: Vec<String>) -> MissingGrant {
        MissingGrant { right: self.right, of: self.of.clone(), have: have.into_iter().collect(), need }
    }
}

impl Trust {
    /// Notes that somebody lacks a grant. `now`: microseconds since the Unix epoch.
    pub(crate) fn note_missing(&self, peer: PeerId, by: RefusedBy, missing: MissingGrant, now: u64) {
        self.note(peer, by, Reason::GrantMissing(missing), now);
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::{
        super::{Authority, Claims, Clocks, Credentials, LEEWAY, Own, Scope, Ticket},
        *,
    };

    const NOW: u64 = 1_000_000;

    fn id(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).public().into()
    }

    fn authority() -> Authority {
        Authority::from_bytes(&[99; 32])
    }

    fn ticket(n: u8, until: u64, grants: &[&str]) -> Ticket {
        let claims = grants.iter().fold(Claims::new(0, until), |claims, grant| claims.with_grant(*grant));
        authority().issue("n", id(n), claims).expect("is in order")
    }

    fn trust() -> Trust {
        let trusted = vec![(authority().id(), Scope::everything())];
        let own = Own { trusted, ticket: ticket(1, NOW, &["a"]), issuer: None };
        Trust::new("n".into(), Credentials::Authority(Box::new(own)), clocks())
    }

    fn clocks() -> Clocks {
        Clocks { wall: Box::new(|| NOW * 1_000_000), steady: Box::new(|| NOW * 1_000_000) }
    }

    fn learn(trust: &Trust, ticket: &Ticket) {
        trust.learn(ticket.subject(), ticket.as_bytes(), ticket.digest()).expect("is one of this network");
    }

    fn needed() -> Needed {
        Needed::one_of(Right::Consume, ["relay", "builder"]).about("bids")
    }

    #[test]
    fn one_of_the_names_is_enough_and_what_lacks_is_said() {
        let trust = trust();
        let look = |n: u8, ticket: &Ticket| needed().held(&trust, id(n), Some(ticket.digest()));
        let relay = ticket(2, NOW, &["eu", "relay"]);
        assert_eq!(look(2, &relay), Held::Unknown);
        learn(&trust, &relay);
        assert_eq!(look(2, &relay), Held::Granted);
        let other = ticket(3, NOW, &["eu", "us"]);
        learn(&trust, &other);
        let Held::Missing(missing) = look(3, &other) else { panic!("it has no right") };
        let text = missing.to_string();
        assert_eq!(text, "grant missing to consume the stream bids: has eu and us, needs builder or relay");
        assert_eq!(Needed::nothing(Right::Consume).held(&trust, id(9), None), Held::Granted);
        let own = Needed::one_of(Right::Produce, ["a"]);
        assert_eq!(own.held(&trust, id(1), trust.ticket().map(|own| own.digest())), Held::Granted);
    }

    #[test]
    fn a_label_is_cleared_besides() {
        let trust = trust();
        let labelled = |needed: Needed| needed.clearing(Some(&Label::declared("private")));
        let look = |needed: &Needed, ticket: &Ticket| needed.held(&trust, ticket.subject(), Some(ticket.digest()));
        let (relay, clear) = (ticket(2, NOW, &["relay"]), ticket(3, NOW, &["clears:private"]));
        let both = ticket(4, NOW, &["clears:private", "relay"]);
        [&relay, &clear, &both].into_iter().for_each(|ticket| learn(&trust, ticket));
        let needed = labelled(needed());
        let need = |held| match held {
            Held::Missing(MissingGrant { need, .. }) => need.join(" or "),
            other => panic!("{other:?}"),
        };
        assert_eq!(need(look(&needed, &relay)), "clears:private");
        assert_eq!(need(look(&needed, &clear)), "builder or relay");
        assert_eq!(look(&needed, &both), Held::Granted);
        let alone = labelled(Needed::nothing(Right::Consume));
        assert_eq!((look(&alone, &clear), need(look(&alone, &relay))), (Held::Granted, "clears:private".to_owned()));
        assert!(alone.asks(&trust) && !alone.names_grants());
    }

    #[test]
    fn a_ticket_grants_while_it_holds_and_until_the_next_one_is_known() {
        let trust = trust();
        let (old, new) = (ticket(2, NOW, &["relay"]), ticket(2, NOW + 9, &["eu"]));
        learn(&trust, &old);
        let look = |ticket: &Ticket| needed().held(&trust, id(2), Some(ticket.digest()));
        assert_eq!(look(&new), Held::Granted, "the one that is known holds still");
        learn(&trust, &new);
        assert!(matches!(look(&new), Held::Missing(MissingGrant { have, .. }) if have == ["eu"]));
        let over = ticket(3, NOW - LEEWAY.as_secs() - 1, &["relay"]);
        learn(&trust, &over);
        let look = needed().held(&trust, id(3), Some(over.digest()));
        assert!(matches!(look, Held::Missing(MissingGrant { have, .. }) if have.is_empty()));
    }

    #[test]
    fn where_there_are_no_tickets_everybody_may() {
        let open = Trust::new("n".into(), Credentials::Open, clocks());
        assert_eq!(needed().held(&open, id(2), None), Held::Granted);
    }

    #[test]
    fn what_is_heard_is_bounded() {
        let long = || vec!["\u{e9}".repeat(90); 500];
        let missing = MissingGrant { right: Right::Call, of: "x".repeat(9_000), have: long(), need: long() }.heard();
        assert!(missing.have.len() <= 2 * MAX_GRANTS && missing.need.iter().all(|name| name.len() <= MAX_GRANT_NAME));
        assert!(missing.to_string().len() < 16_000, "{}", missing.to_string().len());
    }
}
