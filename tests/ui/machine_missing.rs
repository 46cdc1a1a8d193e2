//! A machine has both attributes, a default, and a role holds nothing else in a `Replica`.

use mosaik::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize)]
struct NoGroup(u64);

#[mosaik::state_machine]
impl NoGroup {
    #[command]
    fn add(&mut self, amount: u64) {
        self.0 += amount;
    }
}

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct NoMachine(u64);

#[mosaik::group(key = env("KEY"))]
struct NoDefault(u64);

#[mosaik::state_machine]
impl NoDefault {
    #[command]
    fn add(&mut self, amount: u64) {
        self.0 += amount;
    }
}

#[mosaik::node]
struct Bank {
    ledger: Replica<NoMachine>,
    #[mosaik(default)]
    seen: u64,
}

fn main() {}
