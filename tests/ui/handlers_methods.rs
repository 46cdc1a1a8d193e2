//! The signatures of handlers.

use mosaik::prelude::*;

#[mosaik::stream]
struct Reading;

#[mosaik::node]
struct Display {
    a: Consumer<Reading>,
    b: Consumer<Reading>,
    c: Consumer<Reading>,
    d: Consumer<Reading>,
    e: Consumer<Reading>,
    f: Consumer<Reading>,
}

#[mosaik::handlers]
impl Display {
    #[on(a)]
    fn no_self(_item: Reading) {}

    #[on(b)]
    fn no_item(&mut self) {}

    #[on(c)]
    fn borrowed(&mut self, _item: &Reading, _from: &PeerId) {}

    #[on(d)]
    fn too_much(&mut self, _item: Reading, _from: PeerId, _at: u64) {}

    #[on(e)]
    fn generic<T>(&mut self, _item: T) {}

    #[on(f)]
    unsafe fn dangerous(&mut self, _item: Reading) {}

    #[start]
    fn consuming(self) {}

    #[stop]
    fn with_argument(&mut self, _reason: String) {}
}

fn main() {}
