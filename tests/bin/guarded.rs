//! A program whose stream asks for grants, for the process tests.

#![expect(clippy::unused_self, clippy::needless_pass_by_value, reason = "handlers have these forms")]

use mosaik::prelude::*;

/// What is offered.
#[mosaik::stream(name = "offers", produce = "seller", consume = "buyer")]
pub struct Offer(u32);

/// What is left of them, which only some may see.
#[mosaik::stream(name = "margins", label = "private")]
pub struct Margin(u32);

/// All of them together, which everybody may see.
#[mosaik::stream(name = "totals")]
pub struct Total(u32);

/// Makes offers.
#[mosaik::node]
pub struct Seller {
    offers: Producer<Offer>,
    margins: Producer<Margin>,
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
    totals: Consumer<Total>,
}

#[mosaik::handlers]
impl Buyer {
    #[on(offers)]
    fn take(&mut self, offer: Offer) {
        println!("offered {}", offer.0);
    }
}

/// Adds margins up.
#[mosaik::node(clears = "private")]
pub struct Auditor {
    margins: Consumer<Margin>,
    #[mosaik(declassify = "only sums")]
    totals: Producer<Total>,
}

#[mosaik::handlers]
impl Auditor {}

/// Runs where it is known what runs.
#[mosaik::node(attest = "measurements.toml")]
pub struct Vault {}

#[mosaik::handlers]
impl Vault {}

/// The program.
#[mosaik::app(name = "guarded", roles = [Seller, Buyer, Auditor, Vault])]
pub struct Guarded;

fn main() -> std::process::ExitCode {
    Guarded::main()
}
