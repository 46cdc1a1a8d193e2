//! The signatures of commands and queries.

use mosaik::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct Ledger {
    total: u64,
}

#[mosaik::state_machine]
impl Ledger {
    #[command]
    async fn waits(&mut self) {}

    #[command]
    fn only_looks(&self) -> u64 {
        self.total
    }

    #[command]
    fn nothing() {}

    #[command]
    fn consumes(self) {}

    #[command]
    fn generic<T>(&mut self, _value: T) {}

    #[command]
    fn hidden(&mut self) -> impl Iterator<Item = u64> {
        std::iter::once(self.total)
    }

    #[command]
    fn lends(&mut self) -> &u64 {
        &self.total
    }

    #[command]
    fn lends_inside(&mut self) -> Option<&u64> {
        Some(&self.total)
    }

    #[command]
    fn changes(&mut self, total: &mut u64) {
        *total = self.total;
    }

    #[command]
    fn borrows_inside(&mut self, _names: Vec<&str>) {}

    #[command]
    fn takes_apart(&mut self, (a, b): (u64, u64)) {
        self.total = a + b;
    }

    #[command]
    fn takes_any(&mut self, _any: impl Into<u64>) {}

    #[command]
    unsafe fn dangerous(&mut self) {}

    #[command]
    #[cfg(unix)]
    fn sometimes(&mut self) {}

    #[command]
    fn group(&mut self) {}

    #[query]
    fn writes(&mut self) -> u64 {
        self.total += 1;
        self.total
    }

    #[query]
    fn unbound() -> u64 {
        1
    }

    #[query]
    async fn asks(&self) {}

    #[query]
    fn clone(&self) -> u64 {
        self.total
    }

    #[query]
    fn when(&self, _ctx: &ApplyContext) -> u64 {
        self.total
    }

    #[query]
    fn long(&self, name: &'static str) -> usize {
        name.len()
    }
}

fn main() {}
