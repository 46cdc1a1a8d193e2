//! The bytes between a client of a group and a member.

use super::protocol::{Calling, Greeting, Request, Told};
use crate::{network::Protocol, primitives::fixtures::Fixture};

#[test]
fn messages_are_as_they_were() {
    Fixture::new(Calling::NAME).postcard::<Greeting>().postcard::<Request>().postcard::<Told>().check();
}
