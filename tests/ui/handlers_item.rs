//! What `#[mosaik::handlers]` stands on: the inherent impl of a role.

#[mosaik::handlers]
struct NotAnImpl;

struct NotARole;

#[mosaik::handlers]
impl NotARole {
    #[start]
    fn begin(&self) {}
}

#[mosaik::node]
struct Role {}

trait Begins {
    fn begin(&self);
}

#[mosaik::handlers(crate = ::mosaik, name = "role")]
impl Begins for Role {
    #[start]
    fn begin(&self) {}
}

fn main() {}
