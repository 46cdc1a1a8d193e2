//! The tickets of peers, as far as a node knows them: of each peer the last two, so that one which is being replaced counts until
//! it ends. Pure.

use std::collections::BTreeMap;

use super::ticket::{Ticket, TicketDigest};
use crate::primitives::PeerId;

/// Peers of which tickets are kept: as many as a node may know.
const MAX_PEERS: usize = 1 << 16;

/// By their subject.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<PeerId, Of>);

#[derive(Debug)]
struct Of {
    newest: Ticket,
    before: Option<Ticket>,
}

impl Known {
    /// Adds one that was found good; false when it is known.
    pub(super) fn keep(&mut self, ticket: Ticket) -> bool {
        let (peer, has_room) = (ticket.subject(), self.0.len() < MAX_PEERS);
        let Some(of) = self.0.get_mut(&peer) else {
            if has_room {
                self.0.insert(peer, Of { newest: ticket, before: None });
            }
            return has_room;
        };
        if of.newest == ticket || of.before.as_ref() == Some(&ticket) {
            return false;
        }
        of.before = Some(std::mem::replace(&mut of.newest, ticket));
        true
    }

    /// Those of a peer, the newest first.
    pub(super) fn of(&self, peer: PeerId) -> impl Iterator<Item = &Ticket> {
        self.0.get(&peer).into_iter().flat_map(|of| std::iter::once(&of.newest).chain(&of.before))
    }

    pub(super) fn find(&self, peer: PeerId, digest: TicketDigest) -> Option<&Ticket> {
        self.of(peer).find(|ticket| ticket.digest() == digest)
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::{
        super::{Authority, Claims},
        *,
    };

    #[test]
    fn of_each_peer_the_last_two_are_known() {
        let peer = PeerId::from(SecretKey::from_bytes(&[1; 32]).public());
        let issue =
            |until| Authority::from_bytes(&[9; 32]).issue("n", peer, Claims::new(1, until)).expect("is in order");
        let (one, two, three) = (issue(10), issue(20), issue(30));
        let mut known = Known::default();
        assert!(known.keep(one.clone()) && known.keep(two.clone()));
        assert!(!known.keep(one.clone()), "what was shown before is not the newest again");
        assert_eq!(known.of(peer).collect::<Vec<_>>(), [&two, &one]);
        assert!(known.keep(three.clone()));
        assert_eq!((known.find(peer, one.digest()), known.find(peer, two.digest())), (None, Some(&two)));
        assert_eq!(known.of(peer).next(), Some(&three));
    }
}
