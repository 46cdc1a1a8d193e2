//! The bytes of what authorities sign and what nodes keep of it.

use super::{
    invite::{self, Invited, Kept, More, Renews},
    license::{License, Licensed},
    listed::{self, AuthorityList, Listed},
    revoke::{self, Body, Revocation},
    ticket::{self, Link, Renewed, Signed, VERSION},
};
use crate::primitives::fixtures::Fixture;

#[test]
fn signed_texts_are_as_they_were() {
    Fixture::new(format!("ticket-text/{VERSION}"))
        .bytes("prefix", ticket::PREFIX)
        .postcard::<Link>()
        .postcard::<Signed>()
        .postcard::<Renewed>()
        .check();
    Fixture::new("license/1").postcard::<License>().postcard::<Licensed>().check();
    Fixture::new("authorities/1")
        .bytes("prefix", listed::PREFIX)
        .postcard::<AuthorityList>()
        .postcard::<Listed>()
        .check();
    Fixture::new("revocation/1")
        .bytes("prefix", revoke::PREFIX)
        .postcard::<Revocation>()
        .hidden::<Body>("Body")
        .check();
    // They hold keys and do not show themselves.
    Fixture::new("invitation/1")
        .bytes("prefix", invite::PREFIX)
        .hidden::<Invited>("Invited")
        .hidden::<More>("More")
        .bytes("kept-prefix", invite::KEPT_PREFIX)
        .hidden::<Kept>("Kept")
        .hidden::<Renews>("Renews")
        .check();
}
