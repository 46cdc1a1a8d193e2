//! A role that sends on a stream of a group is a member of it, and the group has the stream's label.

use mosaik::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("LEDGER_KEY"))]
pub struct Ledger(u64);

#[mosaik::state_machine]
impl Ledger {
    #[command]
    fn add(&mut self, by: u64) {
        self.0 += by;
    }
}

#[mosaik::stream(owner = Ledger)]
struct Tick(u64);

#[mosaik::node]
struct Front {
    ledger: Client<Ledger>,
    ticks: Producer<Tick>,
}

#[mosaik::handlers]
impl Front {}

#[mosaik::app(roles = [Front])]
struct App;

#[mosaik::stream(name = "secrets", owner = Ledger, label = "private")]
struct Secret(u64);

#[mosaik::node(clears = ["private"])]
struct Keeper {
    ledger: Replica<Ledger>,
    secrets: Producer<Secret>,
}

#[mosaik::handlers]
impl Keeper {}

#[mosaik::app(roles = [Keeper])]
struct Labelled;

#[derive(Default, Clone, Serialize, Deserialize)]
struct Stock(u64);

#[mosaik::store(owner = Ledger)]
impl Stock {
    fn fold(&mut self, by: u64) {
        self.0 += by;
    }
}

#[mosaik::node]
struct Clerk {
    stock: mosaik::stores::Primary<Stock>,
}

#[mosaik::handlers]
impl Clerk {}

#[mosaik::app(roles = [Clerk])]
struct Shop;

fn main() {}
