//! What handlers can say beyond their event.

use std::time::Duration;

use mosaik::prelude::*;

#[mosaik::stream]
struct Reading;

#[mosaik::node]
struct Display {
    a: Consumer<Reading>,
    b: Consumer<Reading>,
    #[mosaik(deadline = "5s")]
    c: Consumer<Reading>,
    out: Producer<Reading>,
}

#[mosaik::handlers]
impl Display {
    #[on(a, on_error = retry)]
    fn unknown_policy(&mut self, _item: Reading) {}

    #[on(b, on_error = restar)]
    fn misspelt_policy(&mut self, _item: Reading) {}

    #[on(a, a.gap)]
    fn two_things(&mut self, _item: Reading) {}

    #[on(a, a)]
    fn one_twice(&mut self, _item: Reading) {}

    #[on(a.connecte)]
    fn misspelt_event(&mut self, _producer: PeerId) {}

    #[on(a.connected)]
    fn too_many(&mut self, _producer: PeerId, _from: PeerId) {}

    #[on(a.disconnected)]
    fn too_few(&mut self) {}

    #[on(b, emit = out)]
    fn returns_nothing(&mut self, _item: Reading) {}

    #[start(on_error = stop)]
    fn start(&mut self) {}

    #[ready]
    fn changes(&mut self) -> bool {
        true
    }

    #[ready]
    async fn waits(&self) -> bool {
        true
    }

    #[ready]
    fn says_nothing(&self) {}

    #[ready(when = "always")]
    fn takes_keys(&self) -> bool {
        true
    }
}

#[mosaik::node]
struct Board {
    a: Consumer<Reading>,
    #[mosaik(deadline = "5s")]
    c: Consumer<Reading>,
    out: Producer<Reading>,
}

#[mosaik::handlers]
impl Board {
    #[on(a.late)]
    fn undeclared(&mut self, _silent: Duration) {}

    #[on(c.late, after = "1s")]
    fn declared_twice(&mut self, _silent: Duration) {}

    #[on(out.connected)]
    fn of_a_producer(&mut self, _producer: PeerId) {}

    #[on(a, emit = c)]
    fn emits_on_a_consumer(&mut self, item: Reading) -> Reading {
        item
    }

    #[on(c, emit = out)]
    fn emits_another_type(&mut self, _item: Reading) -> Vec<u8> {
        Vec::new()
    }

    #[ready]
    fn no_bool(&self) -> u8 {
        1
    }
}

fn main() {}
