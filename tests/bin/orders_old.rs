//! The first version of a program.

#[path = "orders.rs"]
mod program;

mod types {
    use mosaik::prelude::*;

    /// An order.
    #[mosaik::stream(name = "orders", evolve = "append")]
    #[derive(Debug)]
    pub struct Order {
        pub id: u64,
        pub kind: Kind,
    }

    /// How it is filled.
    #[derive(Debug, Serialize, Deserialize)]
    pub enum Kind {
        Limit { cents: u64 },
        Market,
    }

    pub fn order(id: u64) -> Order {
        Order { id, kind: if id.is_multiple_of(2) { Kind::Market } else { Kind::Limit { cents: id } } }
    }
}

fn main() -> std::process::ExitCode {
    program::Orders::main()
}
