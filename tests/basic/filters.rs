//! Consumers with a filter: they get the items whose key it admits, which costs them what these cost, and are told of no gap for the
//! others. The core of it is simulated in `tests/flow`.

use std::{ops::Range, time::Duration};

use mosaik::{
    Network, NetworkId,
    node::{ArgValues, Role, Setup},
    prelude::*,
    streams::{ConsumeError, DisconnectReason, Event, FilterError, FilterRefusal, WaitReason},
    testing::{Sim, SimNode, eventually},
};
use serde::{Deserialize, Serialize};

use crate::streams::soon;

const NETWORK: NetworkId = NetworkId::from_name("filters");
const SOON: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trade {
    symbol: String,
    number: u32,
    body: Vec<u8>,
}

async fn start(node: &SimNode) -> Network {
    node.builder(NETWORK).build().await.unwrap()
}

fn by_number(network: &Network) -> mosaik::streams::ProducerBuilder<Trade> {
    network.streams().producer::<Trade>().with_key(|trade| trade.number % 100)
}

async fn send(producer: &Producer<Trade>, numbers: Range<u32>, size: usize) {
    for number in numbers {
        let symbol = format!("{}.{}", if number % 2 == 0 { "eu" } else { "us" }, number % 100);
        soon("send", producer.send(Trade { symbol, number, body: vec![7; size] })).await.unwrap();
    }
}

/// Of a hundred keys one: one in a hundred items, and no more than one in fifty bytes.
#[test]
fn a_consumer_of_one_percent_of_the_keys_costs_at_most_two_percent_of_the_bytes() {
    for (seed, size) in [(80, 20), (81, 1000)] {
        Sim::run(seed, |sim| async move {
            let (from, all, some) = (sim.node("from"), sim.node("all"), sim.node("some"));
            let (net, all_net, some_net) = (start(&from).await, start(&all).await, start(&some).await);
            let producer = by_number(&net).online_when(|c| c.minimum_of(2)).build().unwrap();
            let mut everything = all_net.streams().consumer::<Trade>().build();
            let mut seven = some_net.streams().consumer::<Trade>().with_filter(Filter::key_in([7])).build();
            soon("both", producer.when().subscribed().minimum_of(2)).await;
            let before = [&all, &some].map(|node| node.traffic().received);
            let sending = send(&producer, 0..20_000, size);
            let reading = async {
                for _ in 0..20_000 {
                    soon("item", everything.recv()).await.unwrap();
                }
            };
            let filtered = async {
                for n in 0..200 {
                    let (trade, origin) = soon("item", seven.recv_from()).await.unwrap();
                    assert_eq!((trade.number, origin.seq), (n * 100 + 7, u64::from(n) * 100 + 7));
                }
            };
            tokio::join!(sending, reading, filtered);
            let [whole, part] =
                [(&all, before[0]), (&some, before[1])].map(|(node, before)| node.traffic().received - before);
            assert!(part * 50 <= whole, "{part} of {whole} bytes are {} per mille", part * 1000 / whole);
            assert_eq!((seven.stats().gaps(), seven.stats().datums()), (0, 200));
            let sent = |peer| producer.consumers().find(|it| it.peer().id() == peer).map(|it| it.stats().bytes());
            let [whole, part] = [&all_net, &some_net].map(|net| sent(net.local().id()).unwrap());
            assert!(part * 50 <= whole, "{part} of {whole} bytes at the producer");
        });
    }
}

/// What was sent while the connection was lost comes from the ring, late joiners are replayed what they are for, and the end of a
/// stretch that was filtered out is known.
#[test]
fn coming_back_and_coming_late_are_filtered_too() {
    Sim::run(82, |sim| async move {
        let (from, to) = (sim.node("from"), sim.node("to"));
        let (net, there) = (start(&from).await, start(&to).await);
        let builder = net.streams().producer::<Trade>().with_key(|trade| (trade.symbol[..2].to_owned(), trade.number));
        let producer = builder.online_when(|c| c.minimum_of(0)).retain(Retain::last(50)).build().unwrap();
        send(&producer, 0..100, 10).await;
        let mut european = there.streams().consumer::<Trade>().with_filter(Filter::key_prefix(("eu",))).build();
        let mut events = european.events();
        let mut numbers = Vec::new();
        while numbers.last() != Some(&98) {
            numbers.push(soon("item", european.recv()).await.unwrap().number);
        }
        assert_eq!(numbers, (50..100).step_by(2).collect::<Vec<_>>());
        sim.partition(std::slice::from_ref(&from), std::slice::from_ref(&to));
        soon("lost", european.when().unsubscribed()).await;
        soon("lost", producer.when().unsubscribed()).await;
        send(&producer, 100..150, 10).await;
        sim.heal();
        soon("back", european.when().subscribed()).await;
        send(&producer, 150..161, 10).await;
        while numbers.last() != Some(&160) {
            numbers.push(soon("item", european.recv()).await.unwrap().number);
        }
        assert_eq!(numbers, (50..161).step_by(2).collect::<Vec<_>>());
        assert_eq!(european.stats().gaps(), 0);
        let range = there.streams().consumer::<Trade>().live_only();
        let mut range = range.with_filter(Filter::key_range(("us".to_owned(), 170)..("us".to_owned(), 180))).build();
        soon("two", producer.when().subscribed().minimum_of(2)).await;
        send(&producer, 161..200, 10).await;
        for number in [171, 173, 175, 177, 179] {
            assert_eq!(soon("item", range.recv()).await.unwrap().number, number);
        }
        assert_eq!(range.stats().gaps(), 0);
        drop(range);
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(5), events.recv()).await {
            assert!(!matches!(event, Event::Gap { .. }), "{event:?}");
        }
    });
}

/// A consumer that lags loses items of its own, and is told so; a filter that excludes what was lost costs it nothing.
#[test]
fn what_a_filtered_consumer_loses_is_a_gap() {
    Sim::run(83, |sim| async move {
        let (net, there) = (start(&sim.node("from")).await, start(&sim.node("to")).await);
        let builder = by_number(&net).on_lag(OnLag::DropOldest).with_buffer(Buffer::items(1000));
        let producer = builder.build().unwrap();
        let mut slow = there.streams().consumer::<Trade>().with_filter(Filter::key_range(..50)).build();
        soon("subscribed", producer.when().subscribed()).await;
        send(&producer, 0..5_000, 2_000).await;
        let mut last = 0;
        while last != 4_949 {
            let (trade, _) = soon("item", slow.recv_from()).await.unwrap();
            assert!(trade.number % 100 < 50);
            last = trade.number;
        }
        let stats = slow.stats();
        assert!(stats.gaps() > 0 && stats.datums() < 2_500, "{stats:?}");
        assert!(stats.datums() + stats.drops() >= 2_500, "{stats:?}");
    });
}

/// A producer without keys, or with keys of another sort, says so; the consumer is served when that is no longer so.
#[test]
fn a_producer_that_cannot_judge_refuses() {
    Sim::run(84, |sim| async move {
        let (net, there) = (start(&sim.node("from")).await, start(&sim.node("to")).await);
        let builder = net.streams().producer::<Trade>().online_when(|c| c.minimum_of(0));
        let keyless = builder.build().unwrap();
        let mut seven = there.streams().consumer::<Trade>().with_filter(Filter::key_in(["seven"])).build();
        let mut events = seven.events();
        let refused = async |events: &mut mosaik::streams::Events| loop {
            match events.recv().await.unwrap() {
                Event::Disconnected { reason: DisconnectReason::NotFiltered(why), .. } => return why,
                Event::Waiting { reason: WaitReason::NotAllowed, .. } => panic!("no predicate"),
                _ => {}
            }
        };
        assert_eq!(soon("refused", refused(&mut events)).await, FilterRefusal::NoKey);
        assert_eq!(keyless.consumers().count(), 0);
        drop(keyless);
        let numbered = by_number(&net).online_when(|c| c.minimum_of(0)).build().unwrap();
        send(&numbered, 0..3, 1).await;
        let other = async { while refused(&mut events).await != FilterRefusal::OtherKeys {} };
        tokio::time::timeout(Duration::from_mins(5), other).await.expect("keys are numbers there");
        drop(numbered);
        let builder = net.streams().producer::<Trade>().with_key(|trade| trade.symbol.clone());
        let named = builder.build().unwrap();
        let trade = Trade { symbol: "seven".into(), number: 7, body: Vec::new() };
        tokio::time::timeout(Duration::from_mins(5), named.send(trade.clone())).await.expect("in time").unwrap();
        assert_eq!(soon("item", seven.recv()).await, Some(trade));
    });
}

#[test]
fn a_filter_that_is_too_large_is_an_error_of_the_builder() {
    Sim::run(85, |sim| async move {
        let net = start(&sim.node("here")).await;
        let built = net.streams().consumer::<Trade>().with_filter(Filter::key_in(0..5_000)).try_build();
        assert_eq!(built.err(), Some(ConsumeError::Filter(FilterError::TooMany { keys: 5_000 })));
    });
}

#[mosaik::stream(name = "declared-trades", key = |trade| trade.market.clone())]
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    pub market: String,
    pub number: u32,
}

#[mosaik::node]
struct Reader {
    /// The markets to read.
    #[mosaik(arg)]
    market: Vec<String>,
    #[mosaik(filter = key in market)]
    some: Consumer<Declared>,
    #[mosaik(filter = key prefix "eu.")]
    european: Consumer<Declared>,
    #[mosaik(filter = key range "a".."f", live_only)]
    first: Consumer<Declared>,
}

#[mosaik::handlers]
impl Reader {}

#[test]
fn a_field_declares_its_filter() {
    Sim::run(86, |sim| async move {
        let (net, there) = (start(&sim.node("from")).await, start(&sim.node("to")).await);
        let producer = Declared::producer(&net).online_when(|c| c.minimum_of(3)).build().unwrap();
        let flags = ["--market", "us.x", "--market", "eu.y"];
        let values = ArgValues::parse(&Reader::ROLE, flags).expect("fits");
        let mut reader = Reader::open(&mut Setup::new(&there, &values)).await.expect("opens");
        let markets = ["us.x", "us.y", "eu.x", "eu.y"];
        for (number, market) in (0..).zip(markets) {
            soon("send", producer.send(Declared { market: market.into(), number })).await.unwrap();
        }
        let all = async |consumer: &mut Consumer<Declared>| {
            let mut seen = Vec::new();
            while seen.len() < 2 {
                seen.push(soon("item", consumer.recv()).await.unwrap().number);
            }
            seen
        };
        assert_eq!(all(&mut reader.some).await, [0, 3]);
        assert_eq!(all(&mut reader.european).await, [2, 3]);
        assert_eq!(all(&mut reader.first).await, [2, 3]);
        assert!(eventually(SOON, || reader.some.stats().gaps() == 0).await);
        let options: Vec<_> = Reader::ROLE.endpoints.iter().map(|end| end.options[0].value).collect();
        assert_eq!(options, ["key in market", "key prefix eu.", "key range \"a\".. \"f\""]);
        let too_many: Vec<String> = (0..2_000).flat_map(|n| ["--market".to_owned(), n.to_string()]).collect();
        let values = ArgValues::parse(&Reader::ROLE, too_many).expect("fits");
        let error = Reader::open(&mut Setup::new(&there, &values)).await.err().expect("too many keys");
        assert!(error.to_string().contains("2000 keys"), "{error}");
    });
}
