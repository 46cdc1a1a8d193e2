//! The generated client: a query is not asked by calling its method.

use mosaik::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct Ledger(u64);

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

async fn bare(ledger: &Replica<Ledger>) -> Result<u64, CallError> {
    ledger.total().await?;
    ledger.add("5").await
}

fn main() {}
