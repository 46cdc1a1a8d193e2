//! What the compiler says of a state, a delta or a field of a role that does not fit.

use mosaik::prelude::*;

#[derive(Default, Serialize, Deserialize)]
struct NotClone(u64);

#[mosaik::store]
impl NotClone {
    fn fold(&mut self, delta: u64) {
        self.0 = delta;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Prices(u64);

struct NoDatum;

#[mosaik::store]
impl Prices {
    fn fold(&mut self, _delta: NoDatum) {
        self.0 += 1;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct ByHand(u64);

impl View for ByHand {
    type Delta = u64;
    const NAME: &'static str = "by hand";

    fn fold(&mut self, delta: u64) {
        self.0 = delta;
    }
}

#[mosaik::node]
struct Fields {
    by_hand: StoreReplica<ByHand>,
}

fn main() {}
