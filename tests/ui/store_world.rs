//! What `fold` must not look at, and how it says that it may.

use std::{
    collections::{HashMap, HashSet},
    time::{Instant, SystemTime},
};

use mosaik::prelude::*;

#[derive(Clone, Default, Serialize, Deserialize)]
struct State(u64);

#[mosaik::store]
impl State {
    fn fold(&mut self, delta: u64) {
        if SystemTime::now().elapsed().is_ok() {
            self.0 = std::env::vars().count() as u64 + delta;
        }
        let seen: HashSet<u64> = [delta].into();
        self.indirectly(&seen);
        self.excused();
    }

    fn indirectly(&mut self, seen: &HashSet<u64>) {
        let counted = HashMap::from([(seen.len(), Uuid::new_v4())]);
        self.0 += counted.len() as u64;
    }

    #[mosaik(nondeterministic = "is only logged")]
    fn excused(&self) {
        println!("{:?}", Instant::now());
    }

    // Nobody folds with it.
    fn age(&self) -> SystemTime {
        SystemTime::now()
    }
}

struct Uuid;

impl Uuid {
    fn new_v4() -> u64 {
        0
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Excused(u64);

#[mosaik::store]
impl Excused {
    #[mosaik(nondeterministic = "is only logged")]
    fn fold(&mut self, delta: u64) {
        println!("{:?}", Instant::now());
        self.0 += delta;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct WithoutReason(u64);

#[mosaik::store]
impl WithoutReason {
    #[mosaik(nondeterministic = " ")]
    fn fold(&mut self, delta: u64) {
        println!("{:?}", Instant::now());
        self.0 += delta;
    }
}

fn main() {}
