//! What is checked of the stores of an app, by constants.

use mosaik::prelude::*;

mod old {
    use super::*;

    #[derive(Clone, Default, Serialize, Deserialize)]
    pub struct Prices(u64);

    #[mosaik::store(name = "prices", version = 1)]
    impl Prices {
        fn fold(&mut self, delta: u64) {
            self.0 = delta;
        }
    }
}

mod new {
    use super::*;

    #[derive(Clone, Default, Serialize, Deserialize)]
    pub struct Prices(u64);

    #[mosaik::store(name = "prices", version = 2)]
    impl Prices {
        fn fold(&mut self, delta: u64) {
            self.0 = delta;
        }
    }
}

#[mosaik::node]
struct Market {
    prices: Primary<old::Prices>,
}

#[mosaik::handlers]
impl Market {}

#[mosaik::node]
struct Desk {
    prices: StoreReplica<new::Prices>,
}

#[mosaik::handlers]
impl Desk {}

#[mosaik::app(roles = [Market, Desk])]
struct Exchange;

fn main() {}
