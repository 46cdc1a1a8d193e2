//! The bytes of questions and answers.

use super::wire::{Answering, Message};
use crate::{network::Protocol, primitives::fixtures::Fixture};

#[test]
fn messages_are_as_they_were() {
    Fixture::new(Answering::NAME).postcard::<Message>().check();
}
