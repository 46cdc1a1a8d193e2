//! Declared types: fields of bytes, a forced codec, streams of types that are declared elsewhere.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use mosaik::{
    groups::{GroupKey, StateMachine},
    node::{ArgValues, Role, Setup, StreamType, spawn},
    prelude::*,
    primitives::{Format, Schema},
    streams::{Event, GapReason},
    testing::{Sim, eventually},
};

#[mosaik::stream(name = "blobs")]
#[derive(Clone, Debug, Default, PartialEq)]
struct Blob {
    data: Vec<u8>,
    more: Option<Vec<u8>>,
    #[serde(skip)]
    cache: Vec<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<Vec<u8>>,
    numbers: Vec<u16>,
}

/// The same on the wire, written by hand.
mod by_hand {
    use super::*;

    #[derive(Deserialize)]
    #[serde(rename = "blobs")]
    #[expect(dead_code, reason = "only its shape counts")]
    pub struct Blob {
        data: Bytes,
        more: Option<Bytes>,
        left_out: Option<Bytes>,
        numbers: Vec<u16>,
    }
}

#[mosaik::stream(name = "shapes", codec = "messagepack")]
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Line(u8, Vec<u8>),
    Point { x: i32 },
}

/// A type of another crate, as far as this one knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Foreign(u64, String);

#[mosaik::stream(name = "transactions", of = Foreign, key = |item| item.0, retain = last_per_key(1), codec = "postcard")]
struct Transactions;

#[mosaik::group(name = "files", key = GroupKey::from_bytes([3; 32]))]
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Files {
    last: Vec<u8>,
}

#[mosaik::state_machine]
impl Files {
    #[command]
    fn put(&mut self, owned: Vec<u8>, borrowed: &[u8], maybe: Option<Vec<u8>>) -> Vec<u8> {
        self.last = owned;
        self.last.extend([borrowed, &maybe.unwrap_or_default()].concat());
        self.last.clone()
    }

    #[query]
    fn last(&self) -> Vec<u8> {
        self.last.clone()
    }
}

#[mosaik::node]
struct Wallet {
    transactions: Producer<Transactions>,
    #[mosaik(default)]
    spent: u64,
}

#[mosaik::handlers]
impl Wallet {
    #[every("50ms", emit = transactions)]
    fn spend(&mut self) -> Foreign {
        self.spent += 1;
        Foreign(self.spent, "spent".into())
    }
}

#[mosaik::node]
struct Auditor {
    transactions: Consumer<Transactions>,
    #[mosaik(default)]
    seen: Option<tokio::sync::mpsc::Sender<Foreign>>,
}

#[mosaik::handlers]
impl Auditor {
    #[on(transactions)]
    fn audit(&mut self, transaction: Foreign) {
        self.seen.as_ref().map(|seen| seen.try_send(transaction));
    }
}

#[test]
fn roles_have_streams_of_foreign_types() {
    Sim::run(9, |sim| async move {
        let (one, other) = two(&sim).await;
        let values = ArgValues::parse(&Auditor::ROLE, [""; 0]).unwrap();
        let mut auditor = Auditor::open(&mut Setup::new(&other, &values)).await.unwrap();
        let (seen, mut arrive) = tokio::sync::mpsc::channel(64);
        auditor.seen = Some(seen);
        let wallet = Wallet::open(&mut Setup::new(&one, &values)).await.unwrap();
        let _running = (spawn(&other, auditor), spawn(&one, wallet));
        assert_eq!(arrive.recv().await, Some(Foreign(1, "spent".into())));
    });
}

#[test]
fn fields_of_bytes_have_the_shape_of_bytes() {
    let (declared, by_hand) = (Schema::of::<Blob>(), Schema::of::<by_hand::Blob>());
    assert_eq!(declared.difference(&by_hand), None, "{declared:?} {by_hand:?}");
    let command = format!("{:?}", Schema::of::<<Files as StateMachine>::Command>());
    assert_eq!(command.matches("Bytes").count(), 3, "{command}");
    let output = format!("{:?}", Schema::of::<<Files as StateMachine>::Output>());
    assert_eq!(output.matches("Bytes").count(), 1, "{output}");
}

#[test]
fn declared_types_arrive_as_they_were() {
    Sim::run(3, |sim| async move {
        let (here, there) = (sim.node("here"), sim.node("there"));
        let one = here.builder("types").build().await.unwrap();
        let other = there.builder("types").with_bootstrap(here.addr()).build().await.unwrap();

        let (blobs, mut arrive) = (Blob::producer(&one).build().unwrap(), Blob::consumer(&other).build());
        let full = Blob { data: vec![1; 300], more: Some(vec![2, 255]), left_out: Some(vec![]), ..Blob::default() };
        for blob in [full, Blob { numbers: vec![1, 256], ..Blob::default() }] {
            blobs.send(blob.clone()).await.unwrap();
            assert_eq!(arrive.recv().await, Some(blob));
        }

        assert_eq!((Shape::CODEC, Blob::CODEC), (Some(Format::MessagePack), None));
        let (shapes, mut arrive) = (Shape::producer(&one).build().unwrap(), Shape::consumer(&other).build());
        for shape in [Shape::Line(7, vec![0, 128]), Shape::Point { x: -1 }] {
            shapes.send(shape.clone()).await.unwrap();
            assert_eq!(arrive.recv().await, Some(shape));
        }

        let transactions = Transactions::producer(&one).build().unwrap();
        let mut first = Transactions::consumer(&other).build();
        let (old, new) = (Foreign(1, "old".into()), Foreign(1, "new".into()));
        transactions.send(old.clone()).await.unwrap();
        assert_eq!(first.recv().await, Some(old));
        transactions.send(new.clone()).await.unwrap();
        assert_eq!(first.recv().await, Some(new.clone()));
        drop(first);
        let mut late =
            other.streams().consumer::<Foreign>().with_stream_id("transactions").with_codec(Format::Postcard).build();
        assert_eq!(late.recv().await, Some(new), "the last one of its key");

        let key = GroupKey::from_bytes([3; 32]);
        let files = one.groups().with_key(key).with_state_machine(Files::default()).join().await.unwrap();
        let put = FilesCommand::Put { owned: vec![1], borrowed: vec![2], maybe: Some(vec![3]) };
        let output = files.execute(put, Consistency::Strong).await.unwrap();
        assert!(matches!(output, FilesOutput::Put(all) if all == [1, 2, 3]));
        let answer = files.query(FilesQuery::Last {}, Consistency::Strong).await.unwrap().into_inner();
        assert!(matches!(answer, FilesAnswer::Last(all) if all == [1, 2, 3]));
    });
}

/// Two versions of one program's types.
mod old {
    use super::*;

    #[mosaik::stream(name = "orders", evolve = "append")]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Order {
        pub id: u64,
        pub kind: Kind,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub enum Kind {
        Limit { cents: u64 },
        Market,
    }
}

mod new {
    use super::*;

    #[mosaik::stream(name = "orders", evolve = "append")]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Order {
        #[serde(default)]
        pub venue: String,
        pub id: u64,
        pub kind: Kind,
        pub note: Option<Vec<u8>>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub enum Kind {
        Pegged(u32),
        Limit {
            cents: u64,
            #[serde(default)]
            hidden: bool,
        },
        Market,
    }
}

/// Versions that the old one cannot talk to.
mod wrong {
    pub mod changed {
        #[mosaik::stream(name = "orders", evolve = "append")]
        #[derive(Debug)]
        pub struct Order {
            pub id: u32,
            pub kind: super::super::old::Kind,
        }
    }

    pub mod more {
        #[mosaik::stream(name = "orders", evolve = "append")]
        #[derive(Debug)]
        pub struct Order {
            pub id: u64,
            pub kind: super::super::old::Kind,
            pub account: String,
        }
    }

    pub mod strict {
        #[mosaik::stream(name = "orders")]
        #[derive(Debug)]
        pub struct Order {
            pub id: u64,
            pub kind: super::super::old::Kind,
        }
    }
}

async fn two(sim: &Sim) -> (Network, Network) {
    let (here, there) = (sim.node("here"), sim.node("there"));
    let one = here.builder("grown").build().await.unwrap();
    let other = there.builder("grown").with_bootstrap(here.addr()).build().await.unwrap();
    (one, other)
}

#[test]
fn a_stream_grows_and_either_version_reads_the_other() {
    Sim::run(4, |sim| async move {
        let (one, other) = two(&sim).await;
        let producer = new::Order::producer(&one).build().unwrap();
        let mut reader = old::Order::consumer(&other).build();
        let mut events = reader.events();
        let order = |id, kind| new::Order { venue: "x".into(), id, kind, note: Some(vec![1]) };
        producer.send(order(1, new::Kind::Limit { cents: 5, hidden: true })).await.unwrap();
        assert_eq!(reader.recv().await, Some(old::Order { id: 1, kind: old::Kind::Limit { cents: 5 } }));
        // Two that the old one does not know: counted and told by name, once, and the stream goes on.
        for id in [2, 3] {
            producer.send(order(id, new::Kind::Pegged(7))).await.unwrap();
        }
        producer.send(order(4, new::Kind::Market)).await.unwrap();
        assert_eq!(reader.recv().await, Some(old::Order { id: 4, kind: old::Kind::Market }));
        assert_eq!((reader.stats().drops(), reader.producers().count()), (2, 1));
        let mut seen = Vec::new();
        while seen.last().is_none_or(|event| !matches!(event, Event::Gap { .. })) {
            seen.push(events.recv().await.unwrap());
        }
        let unknown: Vec<_> = seen
            .iter()
            .filter_map(|event| match event {
                Event::Undecodable { seq, error, .. } => Some((*seq, error.contains("Pegged"))),
                _ => None,
            })
            .collect();
        assert_eq!(unknown, [(1, true)]);
        assert!(matches!(seen.last(), Some(Event::Gap { from: 1, to: 3, reason: GapReason::Undecodable, .. })));
    });
    Sim::run(5, |sim| async move {
        let (one, other) = two(&sim).await;
        let producer = old::Order::producer(&one).build().unwrap();
        let mut reader = new::Order::consumer(&other).build();
        producer.send(old::Order { id: 1, kind: old::Kind::Limit { cents: 5 } }).await.unwrap();
        let kind = new::Kind::Limit { cents: 5, hidden: false };
        assert_eq!(reader.recv().await, Some(new::Order { venue: String::new(), id: 1, kind, note: None }));
    });
}

/// Positions would be read as other fields by who has fewer of them.
#[test]
fn what_grows_is_written_by_names_in_whatever_order_the_builder_hears_of_it() {
    Sim::run(6, |sim| async move {
        let (one, other) = two(&sim).await;
        let (back, mut returned) = tokio::sync::mpsc::channel(1);
        let builder = new::Order::producer(&one).online_when(|online| online.minimum_of(0)).with_undelivered(back);
        let producer = builder.with_codec(Format::Postcard).build().unwrap();
        let order = |id| new::Order { venue: "x".into(), id, kind: new::Kind::Market, note: None };
        producer.send(order(1)).await.unwrap();
        assert_eq!(returned.recv().await, Some(order(1)));
        let mut reader = old::Order::consumer(&other).with_codec(Format::Postcard).build();
        assert!(eventually(Duration::from_mins(1), || reader.producers().count() == 1).await);
        producer.send(order(2)).await.unwrap();
        let read = tokio::time::timeout(Duration::from_mins(1), reader.recv()).await;
        assert_eq!(read, Ok(Some(old::Order { id: 2, kind: old::Kind::Market })));
    });
}

#[test]
fn what_has_not_grown_but_changed_is_refused_by_its_path() {
    async fn refused<T: StreamType>(sim: &Sim) -> (String, String) {
        let (one, other) = two(sim).await;
        let _producer = old::Order::producer(&one).build().unwrap();
        let reader = mosaik::__private::consumer::<T>(&other).build();
        let mut events = reader.events();
        loop {
            if let Event::Incompatible { ours, theirs, .. } = events.recv().await.unwrap() {
                return (ours, theirs);
            }
        }
    }
    Sim::run(6, |sim| async move {
        let changed = refused::<wrong::changed::Order>(&sim).await;
        assert_eq!(changed, ("orders.id: u32".into(), "orders.id: u64".into()));
    });
    Sim::run(7, |sim| async move {
        let more = refused::<wrong::more::Order>(&sim).await;
        assert_eq!(more, ("orders.account: a field that has no default".into(), "orders.account: nothing".into()));
    });
    Sim::run(8, |sim| async move {
        let (ours, _) = refused::<wrong::strict::Order>(&sim).await;
        assert!(ours.contains("evolve"), "{ours}");
    });
}

/// How many of these were decoded.
static DECODED: AtomicU64 = AtomicU64::new(0);

/// What counts how often it is decoded.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Counted(u64);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "Counted")]
        struct Plain(u64);
        DECODED.fetch_add(1, Relaxed);
        Plain::deserialize(deserializer).map(|plain| Self(plain.0))
    }
}

#[mosaik::stream(name = "counted", of = Counted, codec = "messagepack")]
struct CountedStream;

/// Of a consumer that does not read, what came first is left to it, and the rest is decoded by then.
#[test]
fn a_slow_consumer_finds_its_items_decoded() {
    const ITEMS: u64 = 20_000;
    Sim::run(11, |sim| async move {
        let (one, other) = two(&sim).await;
        let (producer, mut consumer) =
            (CountedStream::producer(&one).build().unwrap(), CountedStream::consumer(&other).build());
        producer.when().subscribed().await;
        for n in 0..ITEMS {
            producer.send(Counted(n)).await.unwrap();
        }
        let arrived = || consumer.stats().queue().0 == ITEMS;
        assert!(eventually(Duration::from_secs(30), arrived).await, "{:?}", consumer.stats());
        let ahead = DECODED.load(Relaxed);
        assert!(ahead > ITEMS / 2 && ahead < ITEMS + 100, "{ahead} were decoded");
        for n in 0..ITEMS {
            assert_eq!(consumer.recv_from().await.map(|(item, origin)| (item, origin.seq)), Some((Counted(n), n)));
        }
        // Each once; some were read back by the sender.
        assert!(DECODED.load(Relaxed) < ITEMS + 100, "{} were decoded", DECODED.load(Relaxed));
        assert_eq!((consumer.stats().datums(), consumer.stats().queue().0), (ITEMS, 0));
    });
}
