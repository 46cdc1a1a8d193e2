//! Options of endpoints with values that cannot be meant.

use mosaik::prelude::*;

#[mosaik::stream]
struct Reading;

#[mosaik::node]
struct Rates {
    #[mosaik(egress = "8MiB")]
    no_time: Producer<Reading>,
    #[mosaik(egress = "8MB/s")]
    wrong_unit: Producer<Reading>,
    #[mosaik(egress = 8)]
    no_text: Producer<Reading>,
    #[mosaik(replay_pace = "fast")]
    no_number: Producer<Reading>,
    #[mosaik(egress)]
    no_value: Producer<Reading>,
    #[mosaik(egress = "0B/s")]
    nothing: Producer<Reading>,
}

#[mosaik::node]
struct Buffers {
    #[mosaik(buffer = "1024")]
    no_unit: Producer<Reading>,
    #[mosaik(buffer = "0 items")]
    no_room: Producer<Reading>,
    #[mosaik(buffer = "4MiB, 8MiB")]
    twice: Producer<Reading>,
    #[mosaik(buffer = "many items")]
    no_number: Producer<Reading>,
    #[mosaik(replay = 4096)]
    no_text: Producer<Reading>,
}

#[mosaik::node]
struct Times {
    #[mosaik(deadline = "5")]
    no_unit: Consumer<Reading>,
    #[mosaik(deadline = "5 sec")]
    wrong_unit: Consumer<Reading>,
    #[mosaik(lifespan = 5)]
    no_text: Producer<Reading>,
    #[mosaik(lifespan = "0s")]
    never: Producer<Reading>,
    #[mosaik(backoff = "50ms")]
    no_range: Consumer<Reading>,
    #[mosaik(backoff = "2s..50ms")]
    wrong_way: Consumer<Reading>,
    #[mosaik(backoff = "50..2s")]
    half_unit: Consumer<Reading>,
}

#[mosaik::node]
struct Conditions {
    #[mosaik(online_when = "some")]
    no_number: Producer<Reading>,
    #[mosaik(online_when = "2 having tag eu")]
    other_word: Producer<Reading>,
    #[mosaik(online_when = "2 with eu")]
    no_tag: Producer<Reading>,
    #[mosaik(online_when = "2 with tags eu fast")]
    no_comma: Producer<Reading>,
    #[mosaik(online_when = "2 with tags eu, eu")]
    twice: Producer<Reading>,
    #[mosaik(online_when = "0 with tag eu")]
    nobody: Producer<Reading>,
    #[mosaik(online_when = 2)]
    no_text: Producer<Reading>,
}

#[mosaik::node]
struct Policies {
    #[mosaik(on_lag = drop_oldes)]
    misspelt: Producer<Reading>,
    #[mosaik(on_lag = DropOldest)]
    camel: Producer<Reading>,
    #[mosaik(on_lag = wait)]
    unknown: Producer<Reading>,
    #[mosaik(on_lag = block)]
    no_time: Producer<Reading>,
    #[mosaik(on_lag = block(500))]
    no_text: Producer<Reading>,
    #[mosaik(on_lag = block("500"))]
    no_unit: Producer<Reading>,
    #[mosaik(on_lag = conflate("1s"))]
    takes_nothing: Producer<Reading>,
    #[mosaik(on_lag = "drop_oldest")]
    quoted: Producer<Reading>,
}

#[mosaik::node]
struct Counts {
    #[mosaik(max_consumers = 0)]
    nobody: Producer<Reading>,
    #[mosaik(max_consumers = "4")]
    quoted: Producer<Reading>,
    #[mosaik(max_consumers = -1)]
    negative: Producer<Reading>,
    #[mosaik(max_consumers = 4, max_consumers = 5)]
    twice: Producer<Reading>,
    #[mosaik(max_consumer = 4)]
    misspelt: Producer<Reading>,
    #[mosaik(live_only = true)]
    flag: Consumer<Reading>,
}

#[mosaik::node]
struct Members {
    #[mosaik(role = leader)]
    unknown: Producer<Reading>,
    #[mosaik(role = observr)]
    misspelt: Producer<Reading>,
    #[mosaik(timing = wan)]
    no_preset: Producer<Reading>,
    #[mosaik(log_limit = "64MB")]
    wrong_unit: Producer<Reading>,
}

#[mosaik::node]
struct Preferences {
    #[mosaik(prefer = latencies)]
    misspelt: Consumer<Reading>,
    #[mosaik(prefer = "latency")]
    quoted: Consumer<Reading>,
    #[mosaik(prefer = [])]
    none: Consumer<Reading>,
    #[mosaik(prefer = tag)]
    which_tag: Consumer<Reading>,
    #[mosaik(prefer = [zone("eu"), latency])]
    takes_nothing: Consumer<Reading>,
    #[mosaik(prefer = latency, fanin = 0)]
    of_nobody: Consumer<Reading>,
    #[mosaik(standby = 0)]
    none_stands_by: Consumer<Reading>,
    #[mosaik(standby = "1")]
    standby_quoted: Consumer<Reading>,
}

#[mosaik::node]
struct Filters {
    #[mosaik(filter = value in [1, 2])]
    of_what: Consumer<Reading>,
    #[mosaik(filter = key inn [1, 2])]
    misspelt: Consumer<Reading>,
    #[mosaik(filter = key matches "e.*")]
    unknown: Consumer<Reading>,
    #[mosaik(filter = key in)]
    no_keys: Consumer<Reading>,
    #[mosaik(filter = key range 5)]
    one_end: Consumer<Reading>,
    #[mosaik(filter = "key in [1]")]
    quoted: Consumer<Reading>,
    #[mosaik(filter)]
    nothing: Consumer<Reading>,
}

#[mosaik::node]
struct FilterFields {
    #[mosaik(filter = key in markets)]
    no_field: Consumer<Reading>,
}

#[mosaik::stream(replicated = 3)]
struct Replicated;

fn main() {}
