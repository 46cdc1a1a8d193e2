//! Where the attributes go, and what else they find there.

use mosaik::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct Ledger {
    total: u64,
}

trait Deposit {
    fn deposit(&mut self);
}

#[mosaik::state_machine]
impl Deposit for Ledger {
    fn deposit(&mut self) {
        self.total += 1;
    }
}

#[mosaik::state_machine]
impl Ledger {
    #[command]
    fn add(&mut self, amount: u64) {
        self.total += amount;
    }

    #[command]
    #[query]
    fn both(&mut self) {}

    #[comand]
    fn misspelt(&mut self) {}

    #[command]
    const LIMIT: u64 = 5;

    #[command]
    fn set_total(&mut self, total: u64) {
        self.total = total;
    }

    #[command]
    fn set__total(&mut self, total: u64) {
        self.total = total;
    }
}

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct Idle;

#[mosaik::state_machine]
impl Idle {
    #[query]
    fn only(&self) -> u64 {
        1
    }
}

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct Generic<T>(T);

#[mosaik::state_machine]
impl<T> Generic<T> {
    #[command]
    fn set(&mut self, value: T) {
        self.0 = value;
    }
}

#[mosaik::state_machine]
struct NoImpl;

#[mosaik::group(key = env("KEY"))]
fn no_struct() {}

#[mosaik::group(key = env("KEY"))]
union Bits {
    _a: u8,
}

fn main() {}
