//! What is checked on the whole of an app, by constants.

use mosaik::prelude::*;

mod old {
    #[mosaik::stream(name = "readings")]
    pub struct Reading {
        pub celsius: f32,
    }
}

mod new {
    #[mosaik::stream(name = "readings")]
    pub struct Reading {
        pub celsius: f64,
    }
}

#[mosaik::node(name = "sensor")]
struct A {
    readings: Producer<old::Reading>,
}

#[mosaik::handlers]
impl A {}

#[mosaik::node(name = "sensor")]
struct B {}

#[mosaik::handlers]
impl B {}

#[mosaik::node]
struct C {
    readings: Consumer<new::Reading>,
}

#[mosaik::handlers]
impl C {}

#[mosaik::app(roles = [A, B])]
struct SameName;

#[mosaik::app(roles = [A, C])]
struct TwoShapes;

fn main() {}
