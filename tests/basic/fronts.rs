//! Roles that call a group without being members, as declared fields.

use std::{collections::BTreeMap, time::Duration};

use mosaik::{
    groups::{MemberKind, Role as Standing},
    node::{ArgValues, Handlers, Link, Role, RoleHandle, Setup, Warning, spawn},
    prelude::*,
    testing::Sim,
};
use tokio::time::Instant;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(name = "stock", key = secret("a key for a test of front ends"), size = 2)]
pub struct Stock {
    items: BTreeMap<String, u64>,
}

#[mosaik::state_machine(version = 1)]
impl Stock {
    #[command]
    fn add(&mut self, item: String, count: u64) -> u64 {
        let items = self.items.entry(item).or_default();
        *items = items.saturating_add(count);
        *items
    }

    #[query]
    fn count(&self, item: &str) -> u64 {
        self.items.get(item).copied().unwrap_or_default()
    }
}

/// How many bolts a front end has counted.
#[derive(Debug, Clone, Copy, PartialEq)]
#[mosaik::stream(name = "counted")]
pub struct Counted(u64);

#[mosaik::node]
pub struct Keeper {
    stock: Replica<Stock>,
}

#[mosaik::handlers]
impl Keeper {}

#[mosaik::node]
pub struct Watcher {
    counted: Consumer<Counted>,
    #[mosaik(default)]
    seen: Vec<u64>,
}

#[mosaik::handlers]
impl Watcher {
    #[on(counted)]
    fn see(&mut self, Counted(count): Counted) {
        self.seen.push(count);
    }
}

/// Serves visitors.
#[mosaik::node]
pub struct Front {
    stock: Client<Stock>,
    counted: Producer<Counted>,
}

#[mosaik::handlers]
impl Front {
    #[every("1s", emit = counted)]
    async fn look(&self) -> Result<Counted, CallError> {
        self.stock.add("bolts".into(), 1).await?;
        Ok(Counted(self.stock.count("bolts").strong().await?))
    }
}

#[mosaik::app(name = "stock", roles = [Keeper, Watcher, Front])]
pub struct Shop;

async fn start<R: Handlers>(network: &Network) -> RoleHandle {
    let values = ArgValues::parse(&R::ROLE, [] as [&str; 0]).expect("no flags");
    spawn(network, R::open(&mut Setup::new(network, &values)).await.expect("the role opens"))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Two keepers and five front ends: the group has two members, whatever the front ends do.
#[test]
fn declared_front_ends_are_no_members() {
    Sim::run(80, |sim| async move {
        let id = NetworkId::from("stock");
        let mut keepers = Vec::new();
        for name in ["k0", "k1"] {
            let network = sim.node(name).builder(id).build().await.unwrap();
            keepers.push(Replica::<Stock>::join(&network).await.unwrap());
            std::mem::forget(network);
        }
        let watching = sim.node("w").builder(id).build().await.unwrap();
        let watcher = start::<Watcher>(&watching).await;
        let mut fronts = Vec::new();
        for n in 0..5 {
            let network = sim.node(&format!("f{n}")).builder(id).build().await.unwrap();
            fronts.push((start::<Front>(&network).await, network));
        }
        let members = || keepers[0].group().members();
        let kinds = |kind| members().iter().filter(|member| member.kind() == kind).count();
        until("both keepers vote", || kinds(MemberKind::Voter) == 2).await;
        let began = Instant::now();
        loop {
            let bolts = keepers[1].count("bolts").strong().await.unwrap();
            if bolts >= 15 {
                break;
            }
            assert!(began.elapsed() < Duration::from_mins(1), "the front ends have added {bolts}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(members().len(), 2, "a caller is no member");
        for n in 0..5 {
            sim.node(&format!("f{n}")).crash();
        }
        drop(fronts);
        let before = keepers[0].count("bolts").strong().await.unwrap();
        assert_eq!(keepers[0].add("bolts".into(), 1).await.unwrap(), before + 1, "nobody misses them");
        assert!(keepers.iter().any(|keeper| keeper.group().status().role() == Standing::Leader));
        drop(watcher);
        watching.shutdown().await;
    });
}

#[test]
fn the_graph_tells_members_from_callers() {
    let graph = Shop::GRAPH;
    let [stock] = &graph.groups()[..] else { panic!("one group") };
    assert_eq!((&stock.members[..], &stock.clients[..]), (&["keeper"][..], &["front"][..]));
    assert!(graph.warnings().is_empty(), "{:?}", graph.warnings());
    assert!(matches!(Front::ROLE.endpoints[0].link, Link::Client(machine) if machine.group.name == "stock"));
    let mermaid = graph.to_mermaid();
    assert!(mermaid.contains("    r0 <--> g0\n    r2 -.-> g0\n"), "{mermaid}");
    let dot = graph.to_dot();
    assert!(dot.contains("    r2 -> g0 [style=dashed];"), "{dot}");
    let json = graph.to_json();
    assert!(json.contains("\"members\":[\"keeper\"],\"clients\":[\"front\"]"), "{json}");
    assert!(json.contains("\"direction\":\"calls\",\"group\":\"stock\""), "{json}");
    assert!(graph.to_listing().contains("    calls     stock (Stock, 2 founders)"), "{}", graph.to_listing());
}

/// An app whose groups have callers and no members cannot work.
#[test]
fn a_group_without_members_is_warned_of() {
    #[mosaik::app(name = "callers", roles = [Front])]
    struct Callers;
    let warnings = Callers::GRAPH.warnings();
    let warned = Warning::NoMember { group: "stock", clients: vec!["front"] };
    assert!(warnings.contains(&warned), "{warnings:?}");
    assert_eq!(warned.to_string(), "group \"stock\" is called by front and nobody is a member of it");
    assert!(!Shop::GRAPH.warnings().contains(&warned));
}
