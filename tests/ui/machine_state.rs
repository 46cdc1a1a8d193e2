//! The fields of a machine.

use std::collections::{HashMap, HashSet, hash_map};

use mosaik::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct Ledger {
    balances: HashMap<String, u64>,
    closed: Vec<Option<std::collections::HashSet<String>>>,
    #[mosaik(nondeterministic = "only looked up by key")]
    cache: HashMap<String, u64>,
    #[mosaik]
    excused: u64,
    #[mosaik(nondeterministc = "misspelt")]
    misspelt: HashSet<u64>,
}

#[mosaik::state_machine]
impl Ledger {
    #[command]
    fn clear(&mut self) {
        self.balances.clear();
        self.closed.clear();
        self.cache.clear();
        self.misspelt.clear();
        self.excused = 0;
    }
}

#[derive(Default)]
#[mosaik::group(key = env("KEY"))]
struct Tuple(hash_map::HashMap<u8, u8>, #[mosaik(nondeterministic = "never read")] HashSet<u8>);

#[mosaik::group(key = env("KEY"))]
enum State {
    Idle(HashSet<u8>),
    Busy {
        #[mosaik(nondeterministic = "never read")]
        with: HashSet<u8>,
    },
}

impl Default for State {
    fn default() -> Self {
        let _ = Self::Busy { with: HashSet::new() };
        Self::Idle(HashSet::new())
    }
}

fn main() {
    let _ = (Tuple::default().0, Tuple::default().1, State::default());
}
