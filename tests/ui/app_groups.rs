//! Two machines under one name would not understand each other.

use mosaik::prelude::*;

mod ours {
    use mosaik::prelude::*;

    #[derive(Default, Clone, Serialize, Deserialize)]
    #[mosaik::group(name = "ledger", key = env("KEY"))]
    pub struct Ledger(u64);

    #[mosaik::state_machine]
    impl Ledger {
        #[command]
        fn add(&mut self, amount: u64) {
            self.0 += amount;
        }
    }
}

mod theirs {
    use mosaik::prelude::*;

    #[derive(Default, Clone, Serialize, Deserialize)]
    #[mosaik::group(name = "ledger", key = env("KEY"))]
    pub struct Ledger(u32);

    #[mosaik::state_machine]
    impl Ledger {
        #[command]
        fn add(&mut self, amount: u32) {
            self.0 += amount;
        }
    }
}

#[mosaik::node]
struct First {
    ledger: Replica<ours::Ledger>,
}

#[mosaik::handlers]
impl First {}

#[mosaik::node]
struct Second {
    ledger: Replica<theirs::Ledger>,
}

#[mosaik::handlers]
impl Second {}

#[mosaik::app(name = "banks", roles = [First, Second])]
struct Banks;

fn main() {}
