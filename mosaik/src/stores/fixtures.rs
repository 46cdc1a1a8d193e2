//! The bytes of what stores send and keep.

use super::{disk, protocol};
use crate::{network::Protocol, primitives::fixtures::Fixture};

#[test]
fn messages_and_records_are_as_they_were() {
    Fixture::new(protocol::Snapshot::NAME).postcard::<protocol::Message>().check();
    Fixture::new(format!("store/{}", disk::FORMAT)).postcard::<disk::Head>().postcard::<disk::Origin>().check();
}
