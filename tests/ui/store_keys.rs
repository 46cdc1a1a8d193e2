//! Keys of `#[mosaik::store]` and their values.

use mosaik::prelude::*;

#[derive(Clone, Default, Serialize, Deserialize)]
struct State(u64);

#[mosaik::store(nmae = "prices", retain = last(1), version = 1, version = 2)]
impl State {
    fn fold(&mut self, delta: u64) {
        self.0 = delta;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Versions(u64);

#[mosaik::store(name = " prices", version = "1")]
impl Versions {
    fn fold(&mut self, delta: u64) {
        self.0 = delta;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Grows(u64);

#[mosaik::store(evolve = "apend")]
impl Grows {
    fn fold(&mut self, delta: u64) {
        self.0 = delta;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Names(u64);

#[mosaik::store(name = prices, version = -1, delta = u64)]
impl Names {
    #[mosaik(nondeterministc = "no harm")]
    fn fold(&mut self, delta: u64) {
        self.0 = delta;
    }

    #[mosaik(nondeterministic = "a constant")]
    const ZERO: u64 = 0;
}

fn main() {}
