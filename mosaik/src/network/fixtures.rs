//! The bytes with which every stream begins.

use super::link::Preamble;
use crate::{
    primitives::fixtures::Fixture,
    trust::proof::{Proof, Said},
};

#[test]
fn the_preamble_and_the_proof_are_as_they_were() {
    Fixture::new("preamble/1").postcard::<Preamble>().check();
    Fixture::new("proof/1").postcard::<Proof>().postcard::<Said>().check();
}
