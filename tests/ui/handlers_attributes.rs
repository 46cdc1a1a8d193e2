//! The helper attributes of handlers.

use mosaik::prelude::*;

#[mosaik::stream]
struct Reading;

#[mosaik::node]
struct Display {
    a: Consumer<Reading>,
    b: Producer<Reading>,
}

#[mosaik::handlers]
impl Display {
    #[on(a)]
    fn first(&mut self, _item: Reading) {}

    #[on(a)]
    fn second(&mut self, _item: Reading) {}

    #[start]
    fn begin(&mut self) {}

    #[start]
    fn begin_again(&mut self) {}

    #[evry("1s")]
    fn misspelt(&mut self) {}

    #[on("a")]
    fn quoted(&mut self, _item: Reading) {}

    #[on]
    fn nothing(&mut self, _item: Reading) {}

    #[on(a, emit = b)]
    fn misplaced_emit(&mut self, _item: Reading) -> Reading {
        _item
    }

    #[start("1s")]
    fn misplaced_period(&mut self) {}

    #[every("1s", emmit = b)]
    fn misspelt_key(&mut self) -> Reading {
        Reading
    }

    #[every(emit = b)]
    fn no_period(&mut self) -> Reading {
        Reading
    }

    #[every("1s", emit = "b")]
    fn quoted_emit(&mut self) -> Reading {
        Reading
    }

    #[every("1s", emit = b)]
    fn returns_nothing(&mut self) {}

    #[stop]
    const NOT_A_METHOD: u8 = 0;
}

fn main() {}
