//! Two methods of one name are one error, the language's own.

use mosaik::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct Ledger {
    total: u64,
}

#[mosaik::state_machine]
impl Ledger {
    #[command]
    fn total(&mut self) -> u64 {
        self.total
    }

    #[query]
    fn total(&self) -> u64 {
        self.total
    }
}

fn main() {}
