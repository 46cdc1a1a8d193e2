//! `#[derive(StateMachine)]`.

use mosaik::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize, StateMachine)]
#[mosaik::group(key = env("KEY"))]
struct NoCommand(u64);

#[derive(Default, Clone, Serialize, Deserialize, StateMachine)]
#[state_machine(output = u64, comand = u64)]
#[mosaik::group(key = env("KEY"))]
struct Misspelt(u64);

#[derive(Default, Clone, Serialize, Deserialize, StateMachine)]
#[state_machine(command = u64, query = u8)]
#[mosaik::group(key = env("KEY"))]
struct NoAnswer(u64);

#[derive(Default, Clone, Serialize, Deserialize, StateMachine)]
#[state_machine(command = u64)]
#[mosaik::group(key = env("KEY"))]
struct NoMethod(u64);

#[derive(Default, Clone, Serialize, Deserialize, StateMachine)]
#[state_machine(command = u64)]
struct NoGroup(u64);

impl NoGroup {
    fn on_command(&mut self, _: u64, _: &ApplyContext) {}
}

fn main() {}
