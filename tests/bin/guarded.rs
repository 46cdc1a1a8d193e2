//! A program whose stream asks for grants, for the process tests.

#![expect(clippy::unused_self, clippy::needless_pass_by_value, reason = "handlers have these forms")]

use mosaik::prelude::*;

/// What is offered.
#[mosaik::stream(name = "offers", produce = "seller", consume = "buyer")]
pub struct Offer(u32);

/// Makes offers.
#[mosaik::node]
pub struct Seller {
    offers: Producer<Offer>,
}

#[mosaik::handlers]
impl Seller {
    #[every("50ms", emit = offers)]
    fn offer(&self) -> Offer {
        Offer(7)
    }
}

/// Prints offers.
#[mosaik::node]
pub struct Buyer {
    offers: Consumer<Offer>,
}

#[mosaik::handlers]
impl Buyer {
    #[on(offers)]
    fn take(&mut self, offer: Offer) {
        println!("offered {}", offer.0);
    }
}

/// The program.
#[mosaik::app(name = "guarded", roles = [Seller, Buyer])]
pub struct Guarded;

fn main() -> std::process::ExitCode {
    Guarded::main()
}
