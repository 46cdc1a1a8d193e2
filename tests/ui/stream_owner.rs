//! Streams that a group owns.

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

struct Plain;

#[mosaik::stream(owner = Plain)]
struct OfNoGroup(u64);

#[mosaik::stream(owner = "ledger")]
struct OfAText(u64);

#[mosaik::stream(owner = Ledger, retain = last(10))]
struct KeepsMore(u64);

#[mosaik::stream(owner = Ledger, replicated = true)]
struct Twice(u64);

#[mosaik::stream(owner = Ledger, key = |item| item.0)]
struct Keyed(u64);

#[mosaik::stream(ownr = Ledger)]
struct Misspelt(u64);

#[mosaik::stream(owner = Ledger)]
struct Tick(u64);

#[mosaik::node(owner = Ledger)]
struct Front {
    ticks: Producer<Tick>,
    #[mosaik(owner = Ledger)]
    others: Consumer<Tick>,
}

fn main() {}
