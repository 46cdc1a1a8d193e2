//! Options of endpoints that are functions, and fields that those take.

use mosaik::prelude::*;

#[mosaik::stream]
struct Reading;

#[mosaik::node]
struct Wrong {
    #[mosaik(arg, default = 1)]
    zone: u32,
    #[mosaik(accept_if = true)]
    no_function: Producer<Reading>,
    #[mosaik(accept_if = |peer, zone| true)]
    two_arguments: Producer<Reading>,
    #[mosaik(accept_if = Self::may_read(zones))]
    misspelt: Producer<Reading>,
    #[mosaik(accept_if = Self::may_read(nothing_like_it))]
    unknown: Producer<Reading>,
    #[mosaik(accept_if = Self::may_read(no_function))]
    endpoint: Producer<Reading>,
    #[mosaik(accept_if = Self::may_read(zone + 1))]
    expression: Producer<Reading>,
    #[mosaik(undelivered = |item| ())]
    closure: Producer<Reading>,
    #[mosaik(only_if = zone > 1)]
    comparison: Option<Producer<Reading>>,
    #[mosaik(only_if = Self::wanted(zon))]
    misspelt_condition: Option<Producer<Reading>>,
    maybe: Option<Producer<Reading>>,
    #[mosaik(arg, max_consumers = 4)]
    flag: u32,
    #[mosaik(default, only_if = zone)]
    state: u32,
    #[mosaik(accept_if = Self::may_read, name = "x")]
    other_attribute: Producer<Reading>,
}

#[mosaik::node]
struct Types {
    #[mosaik(arg, default = 1)]
    zone: u32,
    #[mosaik(accept_if = Self::no_bool)]
    readings: Producer<Reading>,
    #[mosaik(subscribe_if = Self::takes_text(zone))]
    from: Consumer<Reading>,
    #[mosaik(only_if = zone)]
    maybe: Option<Consumer<Reading>>,
    #[mosaik(undelivered = Self::nowhere)]
    returned: Producer<Reading>,
}

impl Types {
    fn no_bool(_: &PeerEntry) -> u8 {
        1
    }

    fn takes_text(_: &str, _: &PeerEntry) -> bool {
        true
    }
}

fn main() {}
