//! Grants on declarations: values that no ticket can hold, and keys in the wrong place.

use mosaik::prelude::*;

#[mosaik::stream(name = "bids", produce = [], consume = "")]
struct Nobody(u64);

#[mosaik::stream(produce = builder, consume = ["relay", 5])]
struct NoText(u64);

#[mosaik::stream(produce = ["a", "b", "a"], consume = "relay,builder")]
struct Twice(u64);

#[mosaik::stream(produce = "a name that is longer than what a ticket holds, which are 64 bytes ")]
struct Spaces(u64);

#[mosaik::stream(produce = "a-name-that-is-longer-than-what-a-ticket-holds-for-one-role-or-grant")]
struct Long(u64);

#[mosaik::stream(consumes = "relay", primary = "builder", member = "builder")]
struct Elsewhere(u64);

#[derive(Clone, Default, Serialize, Deserialize)]
struct Book(u64);

#[mosaik::store(name = "book", primary = ["\n"], replicas = "relay", call = "relay")]
impl Book {
    fn fold(&mut self, bid: u64) {
        self.0 = bid;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"), member, call = ["", "relay"], produce = "builder")]
struct Pool(u64);

#[mosaik::state_machine(member = "builder")]
impl Pool {
    #[command]
    fn add(&mut self, bid: u64) {
        self.0 += bid;
    }
}

#[mosaik::node(produce = "builder")]
struct Role {
    #[mosaik(consume = "relay")]
    bids: Consumer<Twice>,
}

fn main() {}
