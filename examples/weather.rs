//! Sensors that report the temperature and displays that show it.
//!
//! `cargo run --example weather -- dev` runs both in one process; `-- --help` shows the rest.
#![cfg_attr(rustfmt, rustfmt::skip)]
#![allow(missing_docs, clippy::unused_self, clippy::needless_pass_by_value, reason = "as short as it can be said")]

use mosaik::prelude::*;

/// One temperature sample.
#[mosaik::stream(name = "readings")]
pub struct Reading { pub sensor: u32, pub celsius: f32 }

#[mosaik::node(tags = ["sensor"])]
pub struct Sensor { #[mosaik(arg, default = 7)] id: u32, readings: Producer<Reading> }

#[mosaik::handlers]
impl Sensor {
    #[every("1s", emit = readings)]
    fn sample(&self) -> Reading { Reading { sensor: self.id, celsius: 21.5 } }
}

#[mosaik::node(tags = ["display"])]
pub struct Display { readings: Consumer<Reading> }

#[mosaik::handlers]
impl Display {
    #[on(readings)]
    fn show(&mut self, r: Reading, from: PeerId) { println!("{from}: {} = {} C", r.sensor, r.celsius) }
}

#[mosaik::app(name = "weather", roles = [Sensor, Display])]
pub struct Weather;

fn main() -> std::process::ExitCode { Weather::main() }
