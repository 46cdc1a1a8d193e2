//! Arguments and results have one order; the key is a key, the size a number, the machine a machine.

use mosaik::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct Ledger(u64);

#[mosaik::state_machine]
impl Ledger {
    #[command]
    fn shuffled(&mut self, _given: std::collections::HashMap<u8, u8>) -> Vec<std::collections::HashSet<u8>> {
        Vec::new()
    }

    #[command]
    #[mosaik(nondeterministic = "only looked up by key")]
    fn excused(&mut self, _given: std::collections::HashMap<u8, u8>) {}
}

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = 5, size = "a".len())]
struct Numbered(u64);

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env(VARIABLE), size = SIZE, initial = 7)]
struct Constant(u64);

const SIZE: u32 = 3;

fn main() {}
