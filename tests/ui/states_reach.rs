//! States that cannot be reached or left, and commands of which nobody can tell where they lead.

use mosaik::prelude::*;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
enum Stage {
    #[default]
    Open,
    Part,
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

order!(Unreachable);
#[mosaik::state_machine(states = Stage { Open, Part, Filled, Cancelled }, state = stage, terminal = [Filled, Cancelled])]
impl Unreachable {
    #[transition(Open -> Filled)]
    fn fill(&mut self) {}

    // From a state that nothing leads to.
    #[transition(Part -> Cancelled)]
    fn cancel(&mut self) {}
}

order!(DeadEnd);
#[mosaik::state_machine(states = Stage { Open, Part, Filled, Cancelled }, state = stage, terminal = [Filled])]
impl DeadEnd {
    #[transition(Open -> Part)]
    #[transition(Part -> Filled)]
    fn fill(&mut self) {}

    #[transition(Open -> Cancelled)]
    fn cancel(&mut self) {}
}

order!(Terminal);
#[mosaik::state_machine(states = Stage { Open, Filled, Cancelled, Part }, state = stage, terminal = [Filled, Cancelled, Part])]
impl Terminal {
    #[transition(Open -> Part)]
    #[transition(Open | Filled -> Cancelled)]
    fn cancel(&mut self) {}
}

order!(Ambiguous);
#[mosaik::state_machine(states = Stage { Open, Part, Filled, Cancelled }, state = stage, terminal = [Filled, Cancelled])]
impl Ambiguous {
    #[transition(Placed: Open -> Part)]
    fn part(&mut self) {}

    #[transition(Placed: Open -> Filled, if = Self::enough)]
    fn fill(&mut self) {}

    #[transition(Part -> Filled, if = Self::enough)]
    #[transition(Part -> Cancelled, if = Self::enough)]
    fn end(&mut self) {}

    #[transition(Part -> Cancelled)]
    #[transition(Part -> Open)]
    fn stop(&mut self) {}

    fn enough(&self) -> bool {
        self.left == 0
    }
}

order!(Unlike);
#[mosaik::state_machine(states = Stage { Open, Part, Filled, Cancelled }, state = stage, terminal = [Filled, Cancelled])]
impl Unlike {
    #[transition(Placed: Open -> Part)]
    fn part(&mut self, quantity: u64) -> u64 {
        quantity
    }

    #[transition(Placed: Part -> Filled)]
    fn fill(&mut self) -> u64 {
        0
    }

    #[transition(Placed: Part -> Part, if = Self::enough)]
    fn more(&mut self, amount: u64) -> u64 {
        amount
    }

    #[transition(Stopped: Open -> Cancelled)]
    fn stop(&mut self) -> bool {
        true
    }

    #[transition(Stopped: Part -> Cancelled)]
    fn end(&mut self) -> u8 {
        1
    }

    #[transition(Stopped: Filled -> Cancelled)]
    fn last(&mut self) {}

    fn enough(&self, _amount: &u64) -> bool {
        true
    }
}

order!(Assigned);
#[mosaik::state_machine(states = Stage { Open, Filled, Cancelled, Part }, state = stage, terminal = [Filled, Cancelled, Part])]
impl Assigned {
    #[transition(Open -> Filled)]
    fn fill(&mut self) {
        if self.left == 0 {
            self.stage = Stage::Filled;
        }
    }

    #[transition(Open -> Cancelled)]
    #[transition(Stopped: Open -> Part)]
    fn cancel(&mut self) {}
}

order!(Named);
#[mosaik::state_machine(states = Stage { Open, Part, Filled, Cancelled }, state = stage, terminal = [Filled, Cancelled])]
impl Named {
    #[transition(Group: Open -> Part)]
    fn fill(&mut self) {}

    #[transition(Left: Part -> Filled)]
    #[transition(Super: Part -> Cancelled)]
    fn end(&mut self) {}

    #[query]
    fn left(&self) -> u64 {
        self.left
    }
}

order!(SameName);
#[mosaik::state_machine(states = Stage { Open, Part, Filled, Cancelled }, state = stage, terminal = [Filled, Cancelled])]
impl SameName {
    #[transition(Left: Open -> Part)]
    fn fill(&mut self) {}

    #[transition(Clone: Part -> Filled)]
    #[transition(Stopped: Part -> Cancelled)]
    fn end(&mut self) {}

    #[query]
    fn left(&self) -> u64 {
        self.left
    }
}

fn main() {}
