//! Enums of commands with a method each.

use mosaik::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct Stairs(u32);

impl Stairs {
    fn up(&mut self, by: u32) -> u32 {
        self.0 += by;
        self.0
    }

    fn wrong(&mut self) -> String {
        String::new()
    }

    fn stamp(&mut self) -> u32 {
        self.0
    }
}

#[derive(Serialize, Deserialize, StateMachine)]
#[state_machine(machine = Stairs, output = u32)]
enum Step {
    Up(u32),
    Down,
    Wrong,
    #[state_machine(context)]
    Stamp,
}

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct Ladder(u32);

#[derive(Serialize, Deserialize, StateMachine)]
#[state_machine(machine = Ladder, command = Rung, output = u32)]
enum Rung {
    Up,
}

#[derive(Serialize, Deserialize, StateMachine)]
#[state_machine(machine = Ladder)]
struct NoEnum {
    up: u32,
}

#[derive(Serialize, Deserialize, StateMachine)]
#[state_machine(machine = Ladder)]
enum Keys {
    #[state_machine(contxt)]
    Misspelt,
    #[state_machine(context = true)]
    Value,
    #[state_machine(version = 1)]
    Elsewhere,
    #[cfg(unix)]
    Sometimes,
    Super,
}

#[derive(Default, Clone, Serialize, Deserialize, StateMachine)]
#[state_machine(command = u32)]
#[mosaik::group(key = env("KEY"))]
enum Light {
    #[default]
    #[state_machine(context)]
    Red,
}

impl Light {
    fn on_command(&mut self, _: u32, _: &ApplyContext) {}
}

fn main() {}
