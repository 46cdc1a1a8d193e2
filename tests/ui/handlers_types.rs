//! Types of items and results, which the compiler checks with advice from the traits.

use mosaik::prelude::*;

#[mosaik::stream]
struct Reading;

#[mosaik::stream]
struct Other;

#[mosaik::node]
struct Relay {
    readings: Consumer<Reading>,
    averages: Producer<Reading>,
}

struct NoText;

#[mosaik::handlers]
impl Relay {
    #[on(readings)]
    fn wrong_item(&mut self, _item: Other) {}

    #[every("1s")]
    fn returns_for_nobody(&self) -> Reading {
        Reading
    }

    #[every("1s", emit = averages)]
    async fn wrong_emit(&self) -> Other {
        Other
    }

    #[start]
    fn silent_error(&self) -> Result<(), NoText> {
        Ok(())
    }
}

fn main() {}
