//! The fields of a role: endpoints by their type, everything else by `#[mosaik(..)]`.

use mosaik::prelude::*;

#[mosaik::stream]
struct Reading;

#[mosaik::node]
struct NotAnEndpoint {
    id: u32,
    readings: Producer<Reading>,
}

#[mosaik::node]
struct NotAStream {
    readings: Consumer<u64>,
}

#[mosaik::node]
struct Flags {
    #[mosaik(arg)]
    data_dir: String,
    #[mosaik(arg, default = 7)]
    maybe: Option<u8>,
    #[mosaik(args)]
    misspelt: u8,
    #[mosaik(arg, name = "x")]
    misplaced: u8,
    #[mosaik]
    unsaid: u8,
    #[mosaik(arg = 5)]
    value: u8,
    #[mosaik(arg)]
    #[mosaik(default)]
    twice: u8,
    #[mosaik(default)]
    borrowed: &'static str,
    #[cfg(unix)]
    #[mosaik(default)]
    conditional: u8,
}

#[mosaik::node]
struct WrongDefault {
    #[mosaik(arg, default = "seven")]
    text: u8,
    #[mosaik(arg, default = 1.5)]
    number: u8,
}

struct NoText;

#[mosaik::node]
struct NotReadable {
    #[mosaik(arg)]
    field: NoText,
}

fn main() {}
