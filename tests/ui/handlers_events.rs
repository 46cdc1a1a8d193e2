//! The events of a consumer field.

use std::time::Duration;

use mosaik::prelude::*;

#[mosaik::stream]
struct Reading;

#[mosaik::node]
struct Display {
    a: Consumer<Reading>,
}

#[mosaik::handlers]
impl Display {
    #[on(a.gap)]
    fn sound(&mut self, _gap: Gap, _from: PeerId) {}

    #[on(a.gap)]
    fn twice(&mut self, _gap: Gap) {}

    #[on(a.gaps)]
    fn misspelt(&mut self, _gap: Gap) {}

    #[on(a.colour)]
    fn unknown(&mut self) {}

    #[on(a.late)]
    fn no_deadline(&mut self, _silent: Duration) {}

    #[on(a.late, after = "soon")]
    fn no_period(&mut self, _silent: Duration) {}

    #[on(a, after = "1s")]
    fn misplaced_after(&mut self, _item: Reading) {}
}

#[mosaik::node]
struct Board {
    a: Consumer<Reading>,
}

#[mosaik::handlers]
impl Board {
    #[on(a.gap)]
    fn wrong_type(&mut self, _gap: Reading) {}

    #[on(a.late, after = "1s")]
    fn no_parameter(&mut self) {}
}

fn main() {}
