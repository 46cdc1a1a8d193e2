//! Labels and reasons that are none.

use mosaik::prelude::*;

#[mosaik::stream(label = "not, one")]
struct Comma(u64);

#[mosaik::stream(label = "", clears = "private")]
struct Empty(u64);

#[mosaik::stream(label = private)]
struct NoText(u64);

#[derive(Clone, Default, Serialize, Deserialize)]
struct Book(u64);

#[mosaik::store(label = "a-label-that-is-longer-than-what-a-ticket-holds-with-clears")]
impl Book {
    fn fold(&mut self, bid: u64) {
        self.0 = bid;
    }
}

#[mosaik::node(clears = [], label = "private")]
struct Nothing {}

#[mosaik::node(clears = ["private", "private", Self::LABEL])]
struct Twice {}

#[mosaik::node]
struct Reasons {
    #[mosaik(declassify)]
    none: Producer<Comma>,
    #[mosaik(declassify = " ")]
    blank: Producer<Comma>,
    #[mosaik(declassify = 5)]
    number: Producer<Comma>,
}

fn main() {}
