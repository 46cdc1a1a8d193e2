//! Periods of `#[every(..)]`.

#[mosaik::node]
struct Clock {}

#[mosaik::handlers]
impl Clock {
    #[every("")]
    fn empty(&self) {}

    #[every("10")]
    fn no_unit(&self) {}

    #[every("1 sec")]
    fn long_unit(&self) {}

    #[every("1.5s")]
    fn fraction(&self) {}

    #[every("1fortnight")]
    fn no_such_unit(&self) {}

    #[every("0s")]
    fn zero(&self) {}

    #[every("9999999999999h")]
    fn too_long(&self) {}

    #[every(1)]
    fn number(&self) {}
}

fn main() {}
