//! Where `#[mosaik::store]` goes, and what its impl must have.

use mosaik::prelude::*;

#[mosaik::store(name = "prices")]
struct OnTheStruct(u64);

#[derive(Clone, Default, Serialize, Deserialize)]
struct OnTheTrait(u64);

#[mosaik::store]
impl View for OnTheTrait {
    type Delta = u64;
    const NAME: &'static str = "x";

    fn fold(&mut self, delta: u64) {
        self.0 = delta;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Nothing(u64);

#[mosaik::store]
impl Nothing {
    fn change(&mut self, delta: u64) {
        self.0 = delta;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Misspelt(u64);

#[mosaik::store]
impl Misspelt {
    fn flod(&mut self, delta: u64) {
        self.0 = delta;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Generic<T>(T);

#[mosaik::store]
impl<T> Generic<T> {
    fn fold(&mut self, delta: T) {
        self.0 = delta;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Builders(u64);

#[mosaik::store]
impl Builders {
    fn primary(&self) -> u64 {
        self.0
    }

    fn fold(&mut self, delta: u64) {
        self.0 = delta;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Unfinished(u64);

// What can be read is still there for the others.
#[mosaik::store]
impl Unfinished {
    fn fold(&mut self, delta: u64) {
        self.
    }
}

#[mosaik::node]
struct Reader {
    nothing: StoreReplica<Nothing>,
    misspelt: StoreReplica<Misspelt>,
    unfinished: Primary<Unfinished>,
}

fn main() {}
