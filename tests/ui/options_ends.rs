//! Options at the wrong end.

use mosaik::prelude::*;

#[mosaik::stream]
struct Reading;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(name = "tally", key = secret("a key that is long enough"))]
struct Tally(u64);

#[mosaik::state_machine]
impl Tally {
    #[command]
    fn add(&mut self, by: u64) -> u64 {
        self.0 += by;
        self.0
    }
}

#[mosaik::node]
struct Ends {
    #[mosaik(max_consumers = 4)]
    a: Consumer<Reading>,
    #[mosaik(accept_if = |_| true)]
    b: Consumer<Reading>,
    #[mosaik(online_when = "1")]
    c: Consumer<Reading>,
    #[mosaik(egress = "1MiB/s")]
    d: Consumer<Reading>,
    #[mosaik(buffer = "1MiB")]
    e: Consumer<Reading>,
    #[mosaik(on_lag = conflate)]
    f: Consumer<Reading>,
    #[mosaik(replay = "1MiB")]
    g: Consumer<Reading>,
    #[mosaik(lifespan = "1s")]
    h: Consumer<Reading>,
    #[mosaik(subscribe_if = |_| true)]
    i: Producer<Reading>,
    #[mosaik(deadline = "1s")]
    j: Producer<Reading>,
    #[mosaik(backoff = "1s..2s")]
    k: Producer<Reading>,
    #[mosaik(live_only)]
    l: Producer<Reading>,
    #[mosaik(role = observer)]
    m: Producer<Reading>,
    #[mosaik(timing = lan)]
    n: Consumer<Reading>,
    #[mosaik(log_limit = "1MiB")]
    o: Consumer<Reading>,
    #[mosaik(max_consumers = 1)]
    p: Replica<Tally>,
    #[mosaik(replay_pace = "1MiB/s")]
    q: Replica<Tally>,
    #[mosaik(max_consumers = 1)]
    r: u32,
    #[mosaik(arg)]
    on: bool,
    #[mosaik(only_if = on)]
    s: Producer<Reading>,
    #[mosaik(prefer = latency)]
    t: Producer<Reading>,
    #[mosaik(fanin = 1)]
    u: Producer<Reading>,
}

fn main() {}
