//! What only the compiler knows of states: variants, fields and conditions.

use std::time::Duration;

use mosaik::prelude::*;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
enum Stage {
    #[default]
    Open,
    Filled,
    Cancelled,
}

macro_rules! order {
    ($name:ident) => {
        #[derive(Clone, Default, Serialize, Deserialize)]
        #[mosaik::group(key = env("KEY"))]
        struct $name {
            stage: Stage,
            entered: Duration,
            left: u64,
        }
    };
}

order!(NotAll);
#[mosaik::state_machine(states = Stage { Open, Filled }, state = stage, terminal = [Filled])]
impl NotAll {
    #[transition(Open -> Filled)]
    fn fill(&mut self) {}
}

order!(NoVariant);
#[mosaik::state_machine(states = Stage { Open, Filled, Expired }, state = stage, terminal = [Filled, Expired])]
impl NoVariant {
    #[transition(Open -> Filled)]
    fn fill(&mut self) {}

    #[transition(Open -> Expired)]
    fn expire(&mut self) {}
}

order!(NoField);
#[mosaik::state_machine(states = Stage { Open, Filled, Cancelled }, state = phase, terminal = [Filled, Cancelled])]
impl NoField {
    #[transition(Open -> Filled, if = Self::enough)]
    #[transition(Open -> Cancelled)]
    fn fill(&mut self) {}

    fn enough(&self) -> bool {
        true
    }
}

order!(Conditions);
#[mosaik::state_machine(states = Stage { Open, Filled, Cancelled }, state = stage, terminal = [Filled, Cancelled])]
impl Conditions {
    #[transition(Open -> Filled, if = Self::counts)]
    #[transition(Open -> Cancelled, if = Self::missing)]
    fn fill(&mut self) {}

    #[transition(Open -> Open, if = Self::owned)]
    fn more(&mut self, _by: u64) {}

    fn counts(&self) -> u64 {
        self.left
    }

    fn owned(&self, by: u64) -> bool {
        by > 0
    }
}

order!(NotATime);
#[mosaik::state_machine(states = Stage { Open, Filled, Cancelled }, state = stage, since = left, terminal = [Filled, Cancelled])]
impl NotATime {
    #[transition(Open -> Filled)]
    fn fill(&mut self) {}

    #[transition(Open -> Cancelled)]
    fn cancel(&mut self) {}
}

fn main() {}
