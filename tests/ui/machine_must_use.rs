//! The generated client: a query that is built and dropped, and a command that is not awaited, do nothing.
#![deny(unused_must_use)]

use mosaik::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
pub struct Ledger(u64);

#[mosaik::state_machine]
impl Ledger {
    #[command]
    fn add(&mut self, amount: u64) -> u64 {
        self.0 += amount;
        self.0
    }

    #[query]
    fn total(&self) -> u64 {
        self.0
    }
}

pub async fn bare(ledger: &Replica<Ledger>) -> Result<u64, CallError> {
    ledger.total();
    ledger.add(5);
    ledger.total().weak().await
}

fn main() {}
