//! The bytes of what discovery sends and keeps.

use super::{
    announce::{Gossip, Packets},
    book::{self, Remembered},
    core::sync,
    entry::{Body, SignedEntry},
    renewals, revocations, session, tickets,
};
use crate::{network::Protocol, primitives::fixtures::Fixture};

#[test]
fn messages_are_as_they_were() {
    Fixture::new(Gossip::NAME).postcard::<Packets>().check();
    Fixture::new(session::Sync::NAME).postcard::<sync::Message>().check();
    Fixture::new(session::Pull::NAME).postcard::<session::PullMessage>().check();
    Fixture::new(tickets::Tickets::NAME).postcard::<tickets::Message>().check();
    Fixture::new(revocations::Exchange::NAME).postcard::<revocations::Message>().check();
    #[cfg(feature = "attest")]
    Fixture::new(super::attesting::Attesting::NAME).postcard::<super::attesting::Message>().check();
    Fixture::new(renewals::Renewals::NAME).postcard::<renewals::Message>().check();
    // They travel within the messages of several protocols.
    Fixture::new("entry-body/1").postcard::<Body>().postcard::<SignedEntry>().check();
}

#[test]
fn the_book_of_peers_is_as_it_was() {
    Fixture::new("known-peers/2").bytes("magic", book::MAGIC).postcard::<Vec<Remembered>>().check();
}
