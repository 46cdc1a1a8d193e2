//! A store is not a stream: no handler is called for it, and none emits to it.

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
    quotes: Primary<Prices>,
}

#[mosaik::handlers]
impl Desk {
    #[on(prices)]
    fn look(&mut self, prices: u64) {
        let _ = prices;
    }

    #[every("1s", emit = quotes)]
    fn quote(&mut self) -> u64 {
        1
    }
}

fn main() {}
