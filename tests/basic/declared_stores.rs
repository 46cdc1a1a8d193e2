//! Stores that are declared: what the attribute expands to, roles at their ends, and their place in an app's graph.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use mosaik::{
    network::Network,
    node::{ArgValues, Direction, Handlers, Link, Role, RoleError, RoleHandle, Setup, StoreType, Warning, spawn},
    prelude::*,
    stores::{Position, StoreError},
    testing::{Sim, eventually},
};

const NETWORK: NetworkId = NetworkId::from_name("declared stores");
const SOON: Duration = Duration::from_secs(30);

/// The newest price of a thing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Quote {
    symbol: String,
    cents: u64,
}

#[derive(Clone, Default, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prices {
    newest: BTreeMap<String, u64>,
    quotes: u64,
}

/// What everything costs.
#[mosaik::store(name = "prices", version = 3)]
impl Prices {
    fn fold(&mut self, Quote { symbol, cents }: Quote) {
        self.quotes += 1;
        self.set(symbol, cents);
    }

    fn set(&mut self, symbol: String, cents: u64) {
        self.newest.insert(symbol, cents);
    }

    fn of(&self, symbol: &str) -> Option<u64> {
        self.newest.get(symbol).copied()
    }
}

#[mosaik::node(name = "market", tags = ["market"])]
pub struct Market {
    prices: Primary<Prices>,
    #[mosaik(default)]
    quoted: u64,
}

#[mosaik::handlers]
impl Market {
    #[start]
    async fn fill(&mut self) -> Result<(), StoreError> {
        for cents in 0..100 {
            self.prices.apply(Quote { symbol: format!("S{}", cents % 10), cents }).await?;
        }
        Ok(())
    }

    #[every("100ms")]
    async fn quote(&mut self) -> Result<(), StoreError> {
        self.quoted += 1;
        self.prices.apply(Quote { symbol: String::from("live"), cents: self.quoted }).await.map(drop)
    }
}

type Seen = Arc<Mutex<Option<Versioned<Prices>>>>;
type Follows = StoreReplica<Prices>;

#[mosaik::node(name = "desk")]
pub struct Desk {
    prices: Follows,
    #[mosaik(default)]
    seen: Seen,
    #[mosaik(default)]
    positions: Vec<Position>,
}

#[mosaik::handlers]
impl Desk {
    #[on(prices)]
    fn look(&mut self, prices: Versioned<Prices>) {
        assert!(prices.position() <= self.prices.read().position());
        self.positions.push(prices.position());
        *self.seen.lock().expect("no panic") = Some(prices);
    }

    #[stop]
    fn never_twice(&mut self) {
        assert!(self.positions.is_sorted_by(|before, after| before < after), "{:?}", self.positions);
    }
}

#[mosaik::app(name = "exchange", roles = [Market, Desk])]
pub struct Exchange;

async fn start<R: Handlers>(net: &Network, look: impl FnOnce(&R)) -> RoleHandle {
    let values = ArgValues::parse(&R::ROLE, [] as [&str; 0]).expect("no flags");
    let role = R::open(&mut Setup::new(net, &values)).await.expect("the role opens");
    look(&role);
    spawn(net, role)
}

#[test]
fn a_role_that_comes_late_sees_the_whole_state() {
    Sim::run(31, |sim| async move {
        let build = |name| sim.node(name).builder(NETWORK).build();
        let market = build("market").await.expect("a node");
        let running = start::<Market>(&market, |_| {}).await;
        assert!(eventually(SOON, || running.status().handled >= 20).await, "the market runs");

        let late = build("desk").await.expect("a node");
        let mut seen = Seen::default();
        let desk = start::<Desk>(&late, |role| seen = role.seen.clone()).await;
        let look = || seen.lock().expect("no panic").clone();
        assert!(eventually(SOON, || look().is_some_and(|prices| prices.of("live") > Some(30))).await, "live prices");
        let prices = look().expect("prices");
        assert_eq!(prices.quotes, prices.position().seq, "nothing is lost or folded twice");
        assert_eq!(prices.of("S7"), Some(97), "what was folded before it came");
        assert_eq!(prices.of("live"), Some(prices.quotes - 100));
        let calls = desk.status().handled;
        assert!(calls >= 2 && calls <= 1 + prices.position().seq, "{calls} calls: each for a state of its own");
        for (role, net) in [(desk, late), (running, market)] {
            role.stop().await.expect("stops");
            net.shutdown().await;
            assert_eq!((role.status().panics, role.status().errors), (0, 0));
        }
    });
}

#[test]
fn builders_and_fields_mean_one_store() {
    Sim::run(32, |sim| async move {
        let net = sim.node("a").builder(NETWORK).build().await.expect("a node");
        let prices = Prices::primary(&net).build().expect("builds");
        assert_eq!(prices.store_id(), StoreId::from("prices"));
        assert_eq!(Prices::replica(&net).build().store_id(), Prices::STORE.id);
        let values = ArgValues::parse(&Market::ROLE, [] as [&str; 0]).expect("no flags");
        let second = Market::open(&mut Setup::new(&net, &values)).await.err();
        assert!(
            matches!(
                second,
                Some(RoleError::Store { field: "prices", store: "prices", error: StoreError::Exists { .. } })
            ),
            "{second:?}"
        );
        net.shutdown().await;
    });
}

#[test]
fn the_declaration_is_data() {
    let store = Prices::STORE;
    assert_eq!((store.name, store.ty, store.delta, store.version), ("prices", "Prices", "Quote", 3));
    assert_eq!(store.doc, "What everything costs.");
    assert_eq!((<Prices as View>::NAME, <Prices as View>::VERSION), ("prices", 3));
    assert_eq!(<Prices as View>::SCHEMA, Some(*store.schema.as_bytes()));
    let [field] = Desk::ROLE.endpoints else { panic!("one endpoint") };
    assert!(matches!(field.link, Link::Store { direction: Direction::Consumes, store: its } if its == store));
}

mod graph {
    use mosaik::node::App as _;

    use super::*;

    #[mosaik::node(name = "second-market")]
    pub struct Second {
        prices: Primary<Prices>,
    }

    #[mosaik::handlers]
    impl Second {
        #[start]
        fn look(&self) {
            assert_eq!(self.prices.read().quotes, 0);
        }
    }

    #[mosaik::app(name = "two", roles = [Market, Desk, Second])]
    struct Two;

    #[mosaik::app(name = "unchanged", roles = [Desk])]
    struct Unchanged;

    #[mosaik::app(name = "unfollowed", roles = [Market])]
    struct Unfollowed;

    #[test]
    fn a_store_is_between_its_roles() {
        let graph = Exchange::GRAPH;
        let [used] = &graph.stores()[..] else { panic!("{:?}", graph.stores()) };
        assert_eq!(
            (used.store, &used.primaries[..], &used.replicas[..]),
            (Prices::STORE, &["market"][..], &["desk"][..])
        );
        assert_eq!(graph.warnings(), []);
    }

    #[test]
    fn every_format_has_it() {
        let graph = Exchange::GRAPH;
        assert_eq!(
            graph.to_mermaid(),
            "flowchart LR\n    r0[\"market\"]\n    r1[\"desk\"]\n    k0{{\"prices\"}}\n    r0 --> k0\n    k0 --> r1\n"
        );
        assert_eq!(
            graph.to_dot(),
            "digraph \"exchange\" {\n    rankdir=LR;\n    r0 [shape=box, label=\"market\"];\n    r1 [shape=box, \
             label=\"desk\"];\n    k0 [shape=hexagon, label=\"prices\"];\n    r0 -> k0;\n    k0 -> r1;\n}\n"
        );
        let json: serde_json::Value = serde_json::from_str(&graph.to_json()).expect("JSON");
        let store = &json["stores"][0];
        assert_eq!(
            (&store["name"], &store["type"], &store["delta"]),
            (&"prices".into(), &"Prices".into(), &"Quote".into())
        );
        assert_eq!((&store["primaries"][0], &store["replicas"][0]), (&"market".into(), &"desk".into()));
        assert_eq!(store["version"], 3);
        assert_eq!(json["roles"][1]["endpoints"][0]["direction"], "follows");
        let listing = graph.to_listing();
        assert!(listing.contains("market\n    tags      market\n    changes   prices (Prices)\n"), "{listing}");
        assert!(listing.contains("desk\n    follows   prices (Prices)\n"), "{listing}");
    }

    #[test]
    fn what_is_probably_not_meant_is_said() {
        let only = |graph: mosaik::node::Graph| graph.warnings().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(Unchanged::GRAPH.warnings(), [Warning::NoPrimary { store: "prices", replicas: vec!["desk"] }]);
        assert_eq!(only(Unchanged::GRAPH), ["store \"prices\" is followed by desk and changed by nobody"]);
        assert_eq!(only(Unfollowed::GRAPH), ["store \"prices\" is changed by market and followed by nobody"]);
        let primaries = vec!["market", "second-market"];
        assert_eq!(Two::GRAPH.warnings(), [Warning::Primaries { store: "prices", primaries }]);
    }
}

mod other {
    use super::*;

    #[derive(Clone, Default, Serialize, Deserialize)]
    pub struct Sum(u64);

    #[mosaik::store(name = "prices", version = 3)]
    impl Sum {
        #[mosaik(nondeterministic = "every process has a number")]
        fn fold(&mut self, delta: (u64, u64)) {
            self.0 += delta.0 * delta.1 * u64::from(std::process::id() > 0);
        }
    }

    #[test]
    fn ends_with_another_delta_refuse_each_other() {
        Sim::run(33, |sim| async move {
            let build = |name| sim.node(name).builder(NETWORK).build();
            let (here, there) = (build("a").await.expect("a"), build("b").await.expect("b"));
            let primary = Prices::primary(&here).build().expect("builds");
            let same = Prices::replica(&there).build();
            let other = Sum::replica(&there).build();
            let position = primary.apply(Quote { symbol: String::from("a"), cents: 1 }).await.expect("applied");
            tokio::time::timeout(SOON, same.when().reaches(position)).await.expect("soon").expect("reached");
            assert_eq!((other.state(), other.read().0), (ReplicaState::Alone, 0));
            for net in [here, there] {
                net.shutdown().await;
            }
        });
    }
}
