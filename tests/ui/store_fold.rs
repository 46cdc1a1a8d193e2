//! The signature of `fold`.

use std::collections::HashMap;

use mosaik::prelude::*;

macro_rules! states {
    ($($name:ident),*) => { $(
        #[derive(Clone, Default, Serialize, Deserialize)]
        struct $name(u64);
    )* };
}

states!(Shared, Owned, Static, Several, Lent, Answers, Waits, Anything, Sometimes, Unsafe, Unordered, Empty);

#[mosaik::store]
impl Shared {
    fn fold(&self, _delta: u64) {}
}

#[mosaik::store]
impl Owned {
    fn fold(self, _delta: u64) {}
}

#[mosaik::store]
impl Static {
    fn fold(_delta: u64) {}
}

#[mosaik::store]
impl Several {
    fn fold(&mut self, _symbol: String, _cents: u64) {}
}

#[mosaik::store]
impl Lent {
    fn fold(&mut self, _delta: &str) {}
}

#[mosaik::store]
impl Answers {
    fn fold(&mut self, _delta: u64) -> Result<(), String> {
        Ok(())
    }
}

#[mosaik::store]
impl Waits {
    async fn fold(&mut self, _delta: u64) {}
}

#[mosaik::store]
impl Anything {
    fn fold<T: Datum>(&mut self, _delta: T) {}
}

#[mosaik::store]
impl Sometimes {
    #[cfg(unix)]
    fn fold(&mut self, _delta: u64) {}
}

#[mosaik::store]
impl Unsafe {
    unsafe fn fold(&mut self, _delta: u64) {}
}

#[mosaik::store]
impl Unordered {
    fn fold(&mut self, _delta: HashMap<String, u64>) {}
}

#[mosaik::store]
impl Empty {
    fn fold(&mut self) {}
}

#[mosaik::node]
struct Ends {
    answers: Primary<Answers>,
    several: StoreReplica<Several>,
}

fn main() {}
