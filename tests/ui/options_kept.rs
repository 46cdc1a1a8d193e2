//! What a field says that a producer keeps and a store begins with.

use mosaik::prelude::*;

#[mosaik::stream]
struct Reading(u64);

#[derive(Clone, Default, Serialize, Deserialize)]
struct Total(u64);

#[mosaik::store]
impl Total {
    fn fold(&mut self, by: u64) {
        self.0 += by;
    }
}

#[mosaik::node]
struct Values {
    #[mosaik(retain = lst(3))]
    misspelt: Producer<Reading>,
    #[mosaik(retain = last(0))]
    nothing: Producer<Reading>,
    #[mosaik(retain = 100)]
    number: Producer<Reading>,
    #[mosaik(retain = window("64MB", "30s"))]
    unit: Producer<Reading>,
    #[mosaik(key = "0")]
    text: Producer<Reading>,
    #[mosaik(retain)]
    no_value: Producer<Reading>,
    #[mosaik(state)]
    no_state: Primary<Total>,
}

#[mosaik::node]
struct Ends {
    #[mosaik(retain = last(3))]
    a: Consumer<Reading>,
    #[mosaik(key = |reading| reading.0)]
    b: Consumer<Reading>,
    #[mosaik(state = Total(1))]
    c: Producer<Reading>,
    #[mosaik(state = Total(1))]
    d: StoreReplica<Total>,
    #[mosaik(retain = last(3))]
    e: Primary<Total>,
}

#[mosaik::node]
struct Types {
    #[mosaik(state = 1)]
    total: Primary<Total>,
    #[mosaik(retain = keyframe(|reading| reading.0))]
    readings: Producer<Reading>,
}

fn main() {}
