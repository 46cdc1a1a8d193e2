//! Names of states that are none, given twice, or in the wrong place.

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
            left: u64,
        }
    };
}

order!(Misspelt);
#[mosaik::state_machine(states = Stage { Open, Filled, Cancelled }, state = stage, terminal = [Filled, Canceled])]
impl Misspelt {
    #[transition(Open -> Filed)]
    fn fill(&mut self) {}

    #[transition(Opened -> Filled)]
    fn refill(&mut self) {}

    #[transition(Open | Rejected -> Cancelled)]
    fn cancel(&mut self) {}
}

order!(Twice);
#[mosaik::state_machine(states = Stage { Open, Filled, Open, Cancelled }, state = stage, terminal = [Filled, Cancelled, Filled])]
impl Twice {
    #[transition(Open | Open -> Filled)]
    fn fill(&mut self) {}

    #[transition(Filled -> Cancelled)]
    fn cancel(&mut self) {}
}

order!(NoField);
#[mosaik::state_machine(states = Stage { Open, Filled })]
impl NoField {
    #[transition(Open -> Filled)]
    fn fill(&mut self) {}
}

order!(NoStates);
#[mosaik::state_machine(state = stage, since = entered, terminal = [Filled])]
impl NoStates {
    #[command]
    fn fill(&mut self) {}
}

order!(NotDeclared);
#[mosaik::state_machine]
impl NotDeclared {
    #[transition(Open -> Filled)]
    fn fill(&mut self) {}
}

order!(NotAList);
#[mosaik::state_machine(states = [Open, Filled], state = stage)]
impl NotAList {
    #[transition(Open -> Filled)]
    fn fill(&mut self) {}
}

order!(Values);
#[mosaik::state_machine(states = Stage { Open: 1, Filled, .. }, state = stage, terminal = [Stage::Filled])]
impl Values {
    #[transition(Open -> Filled)]
    fn fill(&mut self) {}
}

order!(Nothing);
#[mosaik::state_machine(states = Stage {}, state = stage)]
impl Nothing {
    #[command]
    fn fill(&mut self) {}
}

order!(Still);
#[mosaik::state_machine(states = Stage { Open, Filled }, state = stage)]
impl Still {
    #[command]
    fn fill(&mut self) {}
}

order!(Quoted);
#[mosaik::state_machine(states = Stage { Open }, state = "stage")]
impl Quoted {
    #[transition(Open -> Open)]
    fn fill(&mut self) {}
}

fn main() {}
