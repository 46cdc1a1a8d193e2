//! Handlers that run at the leader of a group alone.

use std::collections::BTreeMap;

use mosaik::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("LEDGER_KEY"))]
pub struct Ledger(BTreeMap<String, u64>);

#[mosaik::state_machine]
impl Ledger {
    #[command]
    fn add(&mut self, by: u64) {
        self.0.insert(String::new(), by);
    }
}

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("OTHER_KEY"))]
pub struct Other(u64);

#[mosaik::state_machine]
impl Other {
    #[command]
    fn add(&mut self, by: u64) {
        self.0 += by;
    }
}

#[mosaik::stream]
struct Reading;

struct Plain;

#[mosaik::node]
struct Keeper {
    ledger: Replica<Ledger>,
    readings: Consumer<Reading>,
}

#[mosaik::handlers]
impl Keeper {
    #[every("1s", once = Plain)]
    fn of_no_group(&self) {}

    #[every("1s", once = Other)]
    fn of_another_group(&self) {}

    #[every("1s", once = Ledger)]
    fn takes_a_number(&self, _term: u64) {}

    #[on(readings, once = Ledger)]
    fn takes_the_fence_first(&self, _fence: Fence, _item: Reading) {}
}

#[mosaik::node]
struct Front {
    ledger: Client<Ledger>,
    readings: Consumer<Reading>,
}

#[mosaik::handlers]
impl Front {
    #[every("1s", once = Ledger)]
    fn of_a_client(&self) {}
}

#[mosaik::node]
struct Misplaced {
    ledger: Replica<Ledger>,
    readings: Consumer<Reading>,
}

#[mosaik::handlers]
impl Misplaced {
    #[start(once = Ledger)]
    fn start(&self) {}

    #[stop(once = Ledger)]
    fn stop(&self) {}

    #[ready(once = Ledger)]
    fn ready(&self) -> bool {
        true
    }

    #[every("1s", onec = Ledger)]
    fn misspelt(&self) {}

    #[every("1s", once)]
    fn of_nothing(&self) {}

    #[every("1s", once = "ledger")]
    fn of_a_text(&self) {}

    #[every("1s", once = Ledger)]
    fn takes_two(&self, _fence: Fence, _more: Fence) {}

    #[on(readings, once = Ledger)]
    fn takes_four(&self, _item: Reading, _from: PeerId, _fence: Fence, _more: Fence) {}

    #[every("2s")]
    fn takes_a_fence_without(&self, _fence: Fence) {}
}

fn main() {}
