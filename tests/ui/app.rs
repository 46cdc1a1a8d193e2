//! `#[mosaik::app]`.

#[mosaik::node]
struct Sensor {}

#[mosaik::handlers]
impl Sensor {}

#[mosaik::node]
struct NoHandlers {}

struct NotARole;

#[mosaik::app(name = "Bad Name", roles = [Sensor, Sensor], tags = ["a"])]
struct Mistakes;

#[mosaik::app(roles = [Sensor, NotARole])]
struct Foreign;

#[mosaik::app(roles = [NoHandlers])]
struct Unhandled;

#[mosaik::app(roles = [Sensr])]
struct Misspelt;

#[mosaik::app(name = "none")]
struct NoRoles;

#[mosaik::app(roles = Sensor)]
struct NoList;

#[mosaik::app(roles = [Sensor])]
struct NotUnit {
    field: u8,
}

fn main() {}
