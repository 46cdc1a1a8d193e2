//! The second version of a program: more fields, and a variant that the first one does not know.

#[path = "orders.rs"]
mod program;

mod types {
    use mosaik::prelude::*;

    /// An order.
    #[mosaik::stream(name = "orders", evolve = "append")]
    #[derive(Debug)]
    pub struct Order {
        #[serde(default)]
        pub venue: String,
        pub id: u64,
        pub kind: Kind,
        pub note: Option<String>,
    }

    /// How it is filled.
    #[derive(Debug, Serialize, Deserialize)]
    pub enum Kind {
        Pegged(u32),
        Limit {
            cents: u64,
            #[serde(default)]
            hidden: bool,
        },
        Market,
    }

    pub fn order(id: u64) -> Order {
        let kind = match id % 3 {
            0 => Kind::Pegged(7),
            1 => Kind::Market,
            _ => Kind::Limit { cents: id, hidden: true },
        };
        Order { venue: "x".into(), id, kind, note: Some("new".into()) }
    }
}

fn main() -> std::process::ExitCode {
    program::Orders::main()
}
