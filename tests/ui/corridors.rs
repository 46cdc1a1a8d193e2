//! Labels that reach who does not clear them, or are lost without a word: each error names the whole way.

use mosaik::prelude::*;

#[mosaik::stream(name = "bids", label = "private")]
struct Bid(u64);

#[mosaik::stream(name = "best", label = "private")]
struct Best(u64);

#[mosaik::stream(name = "bids")]
struct Unlabelled(u64);

#[mosaik::stream(name = "keys", label = "secret")]
struct Key(u64);

#[mosaik::stream(name = "sums")]
struct Sum(u64);

#[derive(Clone, Default, Serialize, Deserialize)]
struct Book(u64);

#[mosaik::store(name = "book", label = "private")]
impl Book {
    fn fold(&mut self, bid: u64) {
        self.0 = bid;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[mosaik::group(name = "pool", key = secret("sixteen letters."), label = "private")]
struct Pool(u64);

#[mosaik::state_machine]
impl Pool {
    #[command]
    fn add(&mut self, wei: u64) {
        self.0 += wei;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[mosaik::group(name = "open", key = secret("sixteen letters."))]
struct Open(u64);

#[mosaik::state_machine]
impl Open {
    #[command]
    fn add(&mut self, wei: u64) {
        self.0 += wei;
    }
}

#[mosaik::node]
struct Builder {
    bids: Producer<Bid>,
    book: Primary<Book>,
}

#[mosaik::node(clears = ["private"])]
struct Relay {
    bids: Consumer<Bid>,
    best: Producer<Best>,
}

#[mosaik::node]
struct Display {
    best: Consumer<Best>,
}

#[mosaik::node]
struct Reader {
    book: StoreReplica<Book>,
}

#[mosaik::node]
struct Caller {
    pool: Client<Pool>,
}

#[mosaik::node(clears = "private")]
struct Adder {
    best: Consumer<Best>,
    sums: Producer<Sum>,
}

#[mosaik::node]
struct Shop {
    sums: Consumer<Sum>,
}

#[mosaik::node(clears = "private")]
struct Voter {
    bids: Consumer<Bid>,
    open: Replica<Open>,
}

#[mosaik::node(clears = ["private", "secret"])]
struct Mixer {
    keys: Consumer<Key>,
    best: Producer<Best>,
}

#[mosaik::node(clears = "private")]
struct Wrong {
    #[mosaik(declassify = "nothing is sent here")]
    bids: Consumer<Bid>,
}

#[mosaik::node]
struct Loose {
    bids: Consumer<Unlabelled>,
}

#[mosaik::node(clears = "private")]
struct Careful {
    best: Consumer<Best>,
    #[mosaik(declassify = "only sums")]
    sums: Producer<Sum>,
}

macro_rules! without_handlers {
    ($($role:ident)*) => { $(
        #[mosaik::handlers]
        impl $role {}
    )* };
}

without_handlers!(Builder Relay Display Reader Caller Adder Shop Voter Mixer Wrong Loose Careful);

#[mosaik::app(roles = [Builder, Relay, Display])]
struct NotCleared;

#[mosaik::app(roles = [Builder, Reader])]
struct StoreNotCleared;

#[mosaik::app(roles = [Caller])]
struct GroupNotCleared;

#[mosaik::app(roles = [Builder, Relay, Adder, Shop])]
struct PassedOn;

#[mosaik::app(roles = [Builder, Voter])]
struct PassedToAGroup;

#[mosaik::app(roles = [Mixer])]
struct AnotherLabel;

#[mosaik::app(roles = [Wrong])]
struct SendsNothing;

#[mosaik::app(roles = [Builder, Loose])]
struct TwoLabels;

#[mosaik::app(roles = [Builder, Relay, Careful, Shop])]
struct Sound;

mosaik::assert_no_path!(Sound: Shop => Builder);
mosaik::assert_no_path!(Sound: Builder => Shop);
mosaik::assert_no_path!(Sound: Builder => Display);

fn main() {}
