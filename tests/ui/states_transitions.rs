//! Transitions that cannot be read, and methods that cannot have one.

use mosaik::prelude::*;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
enum Stage {
    #[default]
    Open,
    Filled,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct Order {
    stage: Stage,
    left: u64,
}

#[mosaik::state_machine(states = Stage { Open, Filled }, state = stage, terminal = [Filled])]
impl Order {
    #[transition]
    fn empty(&mut self) {}

    #[transition(Open)]
    fn nowhere(&mut self) {}

    #[transition(Open -> )]
    fn half(&mut self) {}

    #[transition(-> Filled)]
    fn from_nowhere(&mut self) {}

    #[transition(Open -> Filled | Open)]
    fn two_ends(&mut self) {}

    #[transition(Open => Filled)]
    fn fat(&mut self) {}

    #[transition("Open" -> Filled)]
    fn quoted(&mut self) {}

    #[transition(Stage::Open -> Filled)]
    fn path(&mut self) {}

    #[transition(Open -> Filled, when = Self::enough)]
    fn unknown_key(&mut self) {}

    #[transition(Open -> Filled, iff = Self::enough)]
    fn misspelt_key(&mut self) {}

    #[transition(Open -> Filled, if)]
    fn no_condition(&mut self) {}

    #[transition(Open -> Filled, if = self.left == 0)]
    fn expression(&mut self) {}

    #[transition(Open -> Filled, if = |order| order.left == 0)]
    fn closure(&mut self) {}

    #[transition(Open -> Filled, if = Self::enough, if = Self::enough)]
    fn twice(&mut self) {}

    #[transition(Open -> Filled, emit = orders)]
    fn of_handlers(&mut self) {}

    #[transition(Self: Open -> Filled)]
    fn no_name(&mut self) {}

    #[transitoin(Open -> Filled)]
    fn misspelt(&mut self) {}

    #[command]
    #[transition(Open -> Filled)]
    fn command_too(&mut self) {}

    #[query]
    #[transition(Open -> Filled)]
    fn query_too(&self) {}

    #[transition(Open -> Filled)]
    const HERE: u8 = 1;

    fn enough(&self) -> bool {
        self.left == 0
    }
}

fn main() {}
