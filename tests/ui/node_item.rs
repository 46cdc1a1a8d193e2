//! What `#[mosaik::node]` stands on: a concrete struct with named fields.

#[mosaik::node]
enum Kind {
    A,
}

#[mosaik::node]
struct Tuple(u8);

#[mosaik::node]
struct Generic<T: Send + 'static> {
    #[mosaik(default)]
    state: Option<T>,
}

#[mosaik::handlers]
impl<T: Send + 'static> Generic<T> {
    #[start]
    fn begin(&self) {}
}

fn main() {}
