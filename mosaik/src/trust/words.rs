//! The words of authorities at a node: who is trusted for what, and what is taken back. Others hear of them through `discovery`.

use super::{
    authority::AuthorityId,
    gate::{Own, State, Trust},
    listed::{AuthorityList, ListError},
    refusal::Reason,
    revoke::{Revocation, RevocationError, Revoked},
    scope::Scope,
    ticket::Ticket,
};
use crate::primitives::{PeerId, watch};

impl State {
    /// What speaks against a ticket, its time and its holder apart.
    pub(super) fn against(&self, ticket: &Ticket) -> Option<Reason> {
        let authority = ticket.authority();
        let Some(scope) = self.own.as_ref().and_then(|own| own.scope_of(authority)) else {
            let ours = self.own.iter().flat_map(|own| own.trusted.iter().map(|(id, _)| *id)).collect();
            return Some(Reason::UnknownAuthority { ours, theirs: authority });
        };
        if let Some(what) = scope.lacks(ticket.claims()) {
            return Some(Reason::OutOfScope { authority, what });
        }
        self.revoked.of(ticket).map(|what| Reason::Revoked { what })
    }

    /// Whether a ticket counts, its time apart.
    pub(super) fn counts(&self, ticket: &Ticket) -> bool {
        self.against(ticket).is_none()
    }

    /// Whose word counts on what is taken back and who is trusted: who can give a part of the rights can take none from others.
    fn in_charge(&self) -> Vec<AuthorityId> {
        let trusted = self.own.iter().flat_map(|own| &own.trusted);
        trusted.filter(|(_, scope)| scope.is_everything()).map(|(authority, _)| *authority).collect()
    }
}

impl Trust {
    /// Takes in an authority's word that something is taken back: a ticket, an invitation with all that came of it, or a peer. It
    /// spreads to all members, is kept in the data directory, and ends the connections that it concerns, here at once. True when
    /// it was not known.
    ///
    /// # Errors
    /// When it is not of one of this network's authorities that are trusted without a scope, not for this network, wrongly signed,
    /// or one too many.
    pub fn revoke(&self, revocation: &Revocation) -> Result<bool, RevocationError> {
        let is_new = {
            let mut state = self.state();
            let (what, said_by) = revocation.verify(self.0.network, &state.in_charge())?;
            state.revoked.add(what, (said_by, revocation.clone()))?.then_some(what)
        };
        if let Some(what) = is_new {
            tracing::info!(%what, "revoked");
            self.0.word_changes.send_modify(|count| *count += 1);
        }
        Ok(is_new.is_some())
    }

    /// Everything that was taken back, as far as this node has heard.
    #[must_use]
    pub fn revoked(&self) -> Vec<Revoked> {
        self.state().revoked.list()
    }

    /// Takes in an authority's word on which authorities are trusted from now on. It spreads to all members and is kept in the data
    /// directory. A peer that holds a ticket of one that is still trusted keeps its connections; one that holds none loses
    /// them. True when it is newer than what was known.
    ///
    /// # Errors
    /// When it is not of an authority that this node trusts without a scope, not for this network, or wrongly signed.
    pub fn trust_authorities(&self, list: &AuthorityList) -> Result<bool, ListError> {
        let listed = list.verify(self.0.network)?;
        {
            let mut state = self.state();
            if state.lists.number() >= Some(listed.number) {
                return Ok(false);
            }
            let Some(own) = state.own.clone().filter(|_| state.in_charge().contains(&listed.signer)) else {
                return Err(ListError::UnknownAuthority { theirs: listed.signer });
            };
            state.lists.add(listed.number, list.clone());
            state.set_own(self.0.network, Own { trusted: listed.trusted, ..own });
            // What others took back counts no more than what they gave.
            let in_charge = state.in_charge();
            state.revoked.retain(&in_charge);
        }
        tracing::info!(authorities = ?self.authorities(), "other authorities are trusted");
        if let Some(own) = self.ticket().filter(|own| !self.state().counts(own)) {
            tracing::warn!(authority = ?own.authority(), "this node's own ticket counts no more: it needs another one");
        }
        self.0.word_changes.send_modify(|count| *count += 1);
        Ok(true)
    }

    /// The authorities that are trusted here, each with what it can give; none in networks without.
    #[must_use]
    pub fn authorities(&self) -> Vec<(AuthorityId, Scope)> {
        self.state().own.as_ref().map(|own| own.trusted.clone()).unwrap_or_default()
    }

    /// The authorities' words on who is trusted and what is taken back, and a digest of them.
    pub(crate) fn words(&self) -> (Vec<AuthorityList>, Vec<Revocation>, [u8; 32]) {
        let state = self.state();
        let digest = [state.lists.digest(), state.revoked.digest()].concat();
        (state.lists.all(), state.revoked.all(), *blake3::hash(&digest).as_bytes())
    }

    /// Changes when something was taken back, or others are trusted.
    pub(crate) fn word_changes(&self) -> watch::Receiver<u64> {
        self.0.word_changes.subscribe()
    }

    /// What takes a peer's tickets back, if something does; of this node itself, too.
    pub(crate) fn revocation_of(&self, peer: PeerId) -> Option<Revoked> {
        let state = self.state();
        let own = state.own.as_ref().map(|own| &own.ticket).filter(|own| own.subject() == peer);
        // One that was not taken back is enough.
        let mut what = None;
        for ticket in own.into_iter().chain(state.tickets.of(peer)) {
            what = Some(state.revoked.of(ticket)?);
        }
        what
    }

    /// Why a peer that was admitted may not stay, if so: none of its tickets counts any more.
    pub(crate) fn exclusion_of(&self, peer: PeerId) -> Option<Reason> {
        let state = self.state();
        let mut reason = None;
        for ticket in state.tickets.of(peer) {
            reason = Some(state.against(ticket)?);
        }
        reason
    }
}
