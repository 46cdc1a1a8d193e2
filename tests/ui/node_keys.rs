//! The keys of `#[mosaik::node]`.

const NO_TAG: &str = "";

#[mosaik::node(tag = ["a"], roles = [Other], period = "1s")]
struct Keys {}

#[mosaik::node(tags = ["", "a,b", "c", "c", " d", 5, format!("e")])]
struct Tags {}

#[mosaik::node(tags = [NO_TAG])]
struct ConstantTag {}

#[mosaik::node(tags = "a")]
struct NoList {}

#[mosaik::node(name = "Order Book")]
struct Name {}

#[mosaik::node(name = "help")]
struct Help {}

fn main() {}
