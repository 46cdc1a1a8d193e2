//! Handlers of a store: a replica gives its state, a primary nothing; no field of a store takes what is emitted.

use mosaik::prelude::*;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Prices(u64);

#[mosaik::store]
impl Prices {
    fn fold(&mut self, delta: u64) {
        self.0 = delta;
    }
}

#[mosaik::node]
struct Desk {
    prices: StoreReplica<Prices>,
    again: StoreReplica<Prices>,
    quotes: Primary<Prices>,
}

#[mosaik::handlers]
impl Desk {
    #[on(prices)]
    fn of_another_type(&mut self, _state: Prices) {}

    #[on(again)]
    fn from_nobody(&mut self, _state: Versioned<Prices>, _from: PeerId) {}

    #[on(prices.gap)]
    fn without_gaps(&mut self, _gap: Gap) {}

    #[on(quotes)]
    fn of_the_primary(&mut self, _state: Versioned<Prices>) {}

    #[every("1s", emit = quotes)]
    fn quote(&mut self) -> u64 {
        1
    }
}

fn main() {}
