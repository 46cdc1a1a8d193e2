//! Time-outs of states.

use std::time::Duration;

use mosaik::prelude::*;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
enum Stage {
    #[default]
    Open,
    Expired,
}

macro_rules! order {
    ($name:ident) => {
        #[derive(Clone, Default, Serialize, Deserialize)]
        #[mosaik::group(key = env("KEY"))]
        struct $name {
            stage: Stage,
            entered: Duration,
        }
    };
}

order!(Periods);
#[mosaik::state_machine(states = Stage { Open, Expired }, state = stage, since = entered, terminal = [Expired])]
impl Periods {
    #[transition(Open -> Expired, after = "30")]
    fn no_unit(&mut self) {}

    #[transition(Open -> Expired, after = "0s")]
    fn at_once(&mut self) {}

    #[transition(Open -> Expired, after = "soon")]
    fn no_number(&mut self) {}

    #[transition(Open -> Expired, after = 30)]
    fn no_text(&mut self) {}

    #[transition(Open -> Expired, after = "30s")]
    fn with_arguments(&mut self, _why: String) {}
}

order!(NoSince);
#[mosaik::state_machine(states = Stage { Open, Expired }, state = stage, terminal = [Expired])]
impl NoSince {
    #[transition(Open -> Expired, after = "30s")]
    fn expire(&mut self) {}
}

fn main() {}
