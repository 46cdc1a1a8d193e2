//! The fields that handlers name: they exist, and have the right direction.

use mosaik::prelude::*;

#[mosaik::stream]
struct Reading;

type Readings = Consumer<Reading>;

#[mosaik::node]
struct Relay {
    readings: Readings,
    averages: Producer<Reading>,
    #[mosaik(default)]
    count: u64,
}

#[mosaik::handlers]
impl Relay {
    #[on(reading)]
    fn misspelt(&mut self, _item: Reading) {}

    #[on(averages)]
    fn producing(&mut self, _item: Reading) {}

    #[on(count)]
    fn no_endpoint(&mut self, _item: Reading) {}

    #[every("1s", emit = readings)]
    fn consuming(&self) -> Reading {
        Reading
    }

    #[every("1s", emit = avarages)]
    fn misspelt_emit(&self) -> Reading {
        Reading
    }
}

fn main() {}
