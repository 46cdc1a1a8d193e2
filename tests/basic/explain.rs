//! `explain`: each fault is planted on a simulated network, and the first line of the explanation must name it.

use std::time::Duration;

use mosaik::{
    builtin::NoOp,
    diagnostics::{Explained, Fault, Survey},
    discovery::Bootstrap,
    groups::Group,
    prelude::*,
    primitives::Evolve,
    testing::{Sim, SimDisk, SimNode},
};
use tokio::time::{Instant, sleep};

const NETWORK: &str = "explained";
const STREAM: &str = "prices";

/// A network with a beacon and somebody who asks it.
struct Scene {
    sim: Sim,
    beacon: Network,
    operator: Network,
}

impl Scene {
    async fn new(sim: Sim) -> Self {
        sim.rendezvous(false);
        let beacon = sim.node("beacon").builder(NETWORK).build().await.unwrap();
        let at = beacon.local().addr();
        let operator = sim.node("operator").builder(NETWORK).with_bootstrap(at).build().await.unwrap();
        Self { sim, beacon, operator }
    }

    async fn node(&self, name: &str) -> Network {
        self.sim.node(name).builder(NETWORK).with_bootstrap(self.beacon.local().addr()).build().await.unwrap()
    }

    async fn tagged(&self, name: &str, tag: &str) -> Network {
        let builder = self.sim.node(name).builder(NETWORK).with_bootstrap(self.beacon.local().addr());
        builder.with_tags([tag]).build().await.unwrap()
    }

    fn sim_node(&self, name: &str) -> SimNode {
        self.sim.node(name)
    }

    /// The first line, once the explanation is that fault (`None`: nothing is in the way).
    async fn first_line(&self, peer: &Network, target: &str, fault: Option<Fault>) -> String {
        let client = self.operator.diagnostics().client();
        let survey = Survey::new(client, [Bootstrap::from(self.beacon.local().addr())]);
        let peer = Bootstrap::from(peer.local().addr()).to_string();
        let until = Instant::now() + Duration::from_mins(3);
        loop {
            let answer = survey.explain(&peer, target, None).await;
            let found = answer.as_ref().ok().map(|Explained { explanation, .. }| explanation);
            if let Some(explanation) = found.filter(|it| it.fault() == fault) {
                let line = explanation.to_string().lines().next().unwrap().to_owned();
                let name = fault.map_or_else(|| "ok".to_owned(), |fault| fault.to_string());
                assert!(line.starts_with(&format!("{name}: ")), "{line}");
                return line;
            }
            assert!(Instant::now() < until, "expected {fault:?}, found {answer:#?}");
            sleep(Duration::from_millis(500)).await;
        }
    }
}

fn short(network: &Network) -> String {
    format!("{:?}", network.local().id())
}

fn produces(network: &Network) -> Producer<u64> {
    network.streams().producer().with_stream_id(STREAM).build().unwrap()
}

fn consumes(network: &Network) -> Consumer<u64> {
    network.streams().consumer().with_stream_id(STREAM).build()
}

fn has_all(line: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| line.contains(part)), "{line}\nshould say {parts:?}");
}

#[test]
fn nothing_in_the_way_of_a_stream() {
    Sim::run(1, |sim| async move {
        let scene = Scene::new(sim).await;
        let (p, c) = (scene.node("p").await, scene.node("c").await);
        let (_producer, _consumer) = (produces(&p), consumes(&c));
        scene.first_line(&c, STREAM, None).await;
        scene.first_line(&p, STREAM, None).await;
        let line = scene.first_line(&p, "stream:trades", Some(Fault::NotInvolved)).await;
        has_all(&line, &[&short(&p), "neither produces nor consumes"]);
    });
}

#[test]
fn a_node_that_is_not_discovered() {
    Sim::run(2, |sim| async move {
        let scene = Scene::new(sim).await;
        let lonely = scene.sim_node("lonely").builder(NETWORK).build().await.unwrap();
        let c = scene.node("c").await;
        let (_producer, _consumer) = (produces(&lonely), consumes(&c));
        let line = scene.first_line(&lonely, STREAM, Some(Fault::NotDiscovered)).await;
        has_all(&line, &[&short(&lonely), "it runs, but has not met the others"]);
        let line = scene.first_line(&c, STREAM, Some(Fault::NotInvolved)).await;
        has_all(&line, &["nobody that", "produces prices"]);
        // One that nobody can ask either.
        let cut = scene.sim_node("operator");
        scene.sim.partition(&[cut, scene.sim_node("beacon")], &[scene.sim_node("lonely")]);
        let line = scene.first_line(&lonely, STREAM, Some(Fault::NotDiscovered)).await;
        has_all(&line, &["nobody has heard of it"]);
    });
}

#[test]
fn a_node_of_another_network() {
    Sim::run(3, |sim| async move {
        let scene = Scene::new(sim).await;
        let other = scene.sim_node("other").builder("elsewhere").build().await.unwrap();
        let _producer = produces(&other);
        let line = scene.first_line(&other, STREAM, Some(Fault::OtherNetwork)).await;
        has_all(&line, &[&short(&other), "belongs to another network"]);
    });
}

#[test]
fn a_tag_is_missing() {
    Sim::run(4, |sim| async move {
        let scene = Scene::new(sim).await;
        let (p, c) = (scene.tagged("p", "eu").await, scene.node("c").await);
        let producer = p.streams().producer::<u64>().with_stream_id(STREAM);
        let _producer = producer.accept_if(|peer| peer.tags().contains("vip")).build().unwrap();
        let _consumer = consumes(&c);
        let line = scene.first_line(&c, STREAM, Some(Fault::TagMissing)).await;
        has_all(&line, &[&short(&c), "has no tag \"vip\"", "accept_if", &short(&p)]);
        // The same from the other side: a consumer that looks for a tag of the producer.
        let d = scene.tagged("d", "vip").await;
        let consumer = d.streams().consumer::<u64>().with_stream_id(STREAM);
        let _picky = consumer.subscribe_if(|peer| peer.tags().contains("us")).build();
        let line = scene.first_line(&d, STREAM, Some(Fault::TagMissing)).await;
        has_all(&line, &[&short(&p), "has no tag \"us\"", "subscribe_if", &short(&d)]);
    });
}

#[test]
fn a_predicate_refuses() {
    Sim::run(5, |sim| async move {
        let scene = Scene::new(sim).await;
        let (p, c) = (scene.node("p").await, scene.node("c").await);
        let never = c.local().id();
        let producer = p.streams().producer::<u64>().with_stream_id(STREAM);
        let _producer = producer.accept_if(move |peer| peer.id() != never).build().unwrap();
        let _consumer = consumes(&c);
        let line = scene.first_line(&c, STREAM, Some(Fault::PredicateRefused)).await;
        has_all(&line, &["accept_if", &short(&p), &short(&c), "no tag"]);
    });
}

#[test]
fn a_producer_is_at_capacity() {
    Sim::run(6, |sim| async move {
        let scene = Scene::new(sim).await;
        let (p, c, d) = (scene.node("p").await, scene.node("c").await, scene.node("d").await);
        let producer = p.streams().producer::<u64>().with_stream_id(STREAM).with_max_consumers(1).build().unwrap();
        let _first = consumes(&c);
        producer.when().subscribed().await;
        let _second = consumes(&d);
        let line = scene.first_line(&d, STREAM, Some(Fault::AtCapacity)).await;
        has_all(&line, &[&short(&p), "takes 1 consumers", &short(&d), "waits for a place"]);
        scene.first_line(&c, STREAM, None).await;
    });
}

#[test]
fn schemas_differ() {
    Sim::run(7, |sim| async move {
        let scene = Scene::new(sim).await;
        let (p, c) = (scene.node("p").await, scene.node("c").await);
        let producer = p.streams().producer::<u64>().with_stream_id(STREAM);
        let _producer = producer.with_fingerprint([1; 32]).build().unwrap();
        let _consumer = c.streams().consumer::<u64>().with_stream_id(STREAM).with_fingerprint([2; 32]).build();
        let line = scene.first_line(&c, STREAM, Some(Fault::SchemaDiffers)).await;
        has_all(&line, &["0101010101010101", "0202020202020202", "same source"]);
    });
}

#[test]
fn what_differs_in_a_schema_is_told_by_its_path() {
    mod one {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub struct Quote {
            pub bid: u64,
        }
    }
    mod other {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub struct Quote {
            pub bid: i64,
        }
    }
    for evolve in [Evolve::Strict, Evolve::Append] {
        Sim::run(8, |sim| async move {
            let scene = Scene::new(sim).await;
            let (p, c) = (scene.node("p").await, scene.node("c").await);
            let producer = p.streams().producer::<one::Quote>().with_stream_id(STREAM).with_evolve(evolve);
            let _producer = producer.build().unwrap();
            let _consumer = c.streams().consumer::<other::Quote>().with_stream_id(STREAM).with_evolve(evolve).build();
            let line = scene.first_line(&c, STREAM, Some(Fault::SchemaDiffers)).await;
            has_all(&line, &["Quote.bid: i64 here", "Quote.bid: u64 there", "same source"]);
        });
    }
}

async fn joins(network: &Network, key: &str, size: u32) -> Group<NoOp> {
    let group = network.groups().with_key(GroupKey::from_secret(key)).with_state_machine(NoOp);
    let group = if size > 0 { group.with_size(size) } else { group };
    group.join().await.unwrap()
}

#[test]
fn another_key_of_a_group() {
    Sim::run(8, |sim| async move {
        let scene = Scene::new(sim).await;
        let (a, b, c) = (scene.node("a").await, scene.node("b").await, scene.node("c").await);
        let (_one, _two) = (joins(&a, "right", 0).await, joins(&b, "right", 0).await);
        let _three = joins(&c, "wrong", 0).await;
        let line = scene.first_line(&c, "mosaik.noop", Some(Fault::WrongGroupKey)).await;
        has_all(&line, &[&short(&c), "with different keys"]);
        scene.first_line(&a, "mosaik.noop", None).await;
    });
}

#[test]
fn another_size_of_a_group() {
    Sim::run(9, |sim| async move {
        let scene = Scene::new(sim).await;
        let (a, b) = (scene.node("a").await, scene.node("b").await);
        let (_one, _two) = (joins(&a, "key", 3).await, joins(&b, "key", 5).await);
        let line = scene.first_line(&a, "mosaik.noop", Some(Fault::OtherSize)).await;
        has_all(&line, &[&short(&a), "declares 3", &short(&b), "5"]);
    });
}

#[test]
fn a_group_without_a_quorum() {
    Sim::run(10, |sim| async move {
        let scene = Scene::new(sim).await;
        let (a, b, c) = (scene.node("a").await, scene.node("b").await, scene.node("c").await);
        let members = [joins(&a, "key", 3).await, joins(&b, "key", 3).await, joins(&c, "key", 3).await];
        members[0].when().leader_elected().await;
        scene.first_line(&a, "mosaik.noop", None).await;
        scene.sim_node("b").crash();
        scene.sim_node("c").crash();
        let line = scene.first_line(&a, "mosaik.noop", Some(Fault::NoQuorum)).await;
        has_all(&line, &[&short(&a)]);
    });
}

/// A copied data directory: the original, the copy and who refuses it all name it, and so does what `mosaik groups` prints.
#[test]
fn a_copy_of_a_members_storage() {
    Sim::run(12, |sim| async move {
        let scene = Scene::new(sim.clone()).await;
        let names = ["a", "b", "c"];
        let mut nodes = Vec::new();
        let mut members = Vec::new();
        let disk = SimDisk::new();
        for name in names {
            let node = scene.node(name).await;
            let storage = if name == "b" { disk.clone() } else { SimDisk::new() };
            members.push(joins_with(&node, storage).await);
            nodes.push(node);
        }
        members[1].when().leader_elected().await;
        let at = scene.beacon.local().addr();
        let twin = sim.twin(&scene.sim_node("b"), "twin").builder(NETWORK).with_bootstrap(at).build().await.unwrap();
        let copy = joins_with(&twin, disk.copied()).await;
        let until = Instant::now() + Duration::from_mins(1);
        while !(members[1].status().is_copied() && copy.status().to_string().contains("another start of this member")) {
            assert!(Instant::now() < until, "{}; {}", members[1].status(), copy.status());
            sleep(Duration::from_millis(100)).await;
        }
        let printed = |network: &Network| network.diagnostics().groups()[0].to_string();
        has_all(&printed(&nodes[1]), &["WARNING: another process runs on a copy of its storage and is refused"]);
        has_all(&printed(&twin), &["NOT ONLINE: refused", "two processes use copies of one data directory"]);
        has_all(&printed(&nodes[0]), &["another start of this member's storage is running", &short(&nodes[1])]);
        let line = scene.first_line(&nodes[1], "mosaik.noop", Some(Fault::Copied)).await;
        has_all(&line, &[&short(&nodes[1]), "give it a directory of its own"]);
    });
}

async fn joins_with(network: &Network, disk: SimDisk) -> Group<NoOp> {
    let group = network.groups().with_key(GroupKey::from_secret("key")).with_state_machine(NoOp);
    group.with_size(3).with_storage(disk).join().await.unwrap()
}

#[test]
fn two_clusters_of_one_key() {
    Sim::run(11, |sim| async move {
        let scene = Scene::new(sim).await;
        let (a, b) = (scene.node("a").await, scene.node("b").await);
        let apart = ([scene.sim_node("a")], [scene.sim_node("b")]);
        scene.sim.partition(&apart.0, &apart.1);
        let (one, two) = (joins(&a, "key", 0).await, joins(&b, "key", 0).await);
        for group in [&one, &two] {
            group.when().leader_elected().await;
            group.execute((), Consistency::Strong).await.unwrap();
        }
        scene.sim.heal();
        let line = scene.first_line(&a, "mosaik.noop", Some(Fault::SplitGenesis)).await;
        has_all(&line, &["stopped"]);
    });
}

/// A view, in two versions of its source.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
struct Total<const VERSION: u32>(u64);

impl<const VERSION: u32> mosaik::stores::View for Total<VERSION> {
    type Delta = u64;
    const NAME: &'static str = "total";
    const VERSION: u32 = VERSION;

    fn fold(&mut self, delta: u64) {
        self.0 += delta;
    }
}

const STORE: &str = "turnover";

#[test]
fn nothing_in_the_way_of_a_store() {
    Sim::run(21, |sim| async move {
        let scene = Scene::new(sim).await;
        let (p, r) = (scene.node("p").await, scene.node("r").await);
        let primary = p.stores().primary::<Total<1>>(STORE).build().unwrap();
        let line = scene.first_line(&p, STORE, Some(Fault::NotInvolved)).await;
        has_all(&line, &["nobody that", "has a replica of turnover"]);
        let replica = r.stores().replica::<Total<1>>(STORE).build();
        let position = primary.apply(5).await.unwrap();
        replica.when().reaches(position).await.unwrap();
        scene.first_line(&r, STORE, None).await;
        scene.first_line(&p, "store:turnover", None).await;
        let line = scene.first_line(&r, "store:nothing", Some(Fault::NotInvolved)).await;
        has_all(&line, &[&short(&r), "neither is the primary of nor has a replica of"]);
        // Deltas are no stream that anybody asked for.
        assert!(p.diagnostics().streams().is_empty() && r.diagnostics().streams().is_empty());
    });
}

#[test]
fn what_is_in_the_way_of_a_store() {
    Sim::run(22, |sim| async move {
        let scene = Scene::new(sim).await;
        let (p, r) = (scene.node("p").await, scene.node("r").await);
        let alone = r.stores().replica::<Total<1>>(STORE).build();
        let line = scene.first_line(&r, STORE, Some(Fault::NotInvolved)).await;
        has_all(&line, &["nobody that", "is the primary of turnover"]);
        drop(alone);
        let primary = p.stores().primary::<Total<1>>(STORE);
        let _primary = primary.accept_if(|peer| peer.tags().contains("reader")).build().unwrap();
        let other = r.stores().replica::<Total<2>>(STORE).build();
        let line = scene.first_line(&r, STORE, Some(Fault::SchemaDiffers)).await;
        has_all(&line, &["turnover is a total (version 1) at", "(version 2)"]);
        drop(other);
        let replica = r.stores().replica::<Total<1>>(STORE).build();
        let line = scene.first_line(&r, STORE, Some(Fault::TagMissing)).await;
        has_all(&line, &[&short(&r), "has no tag \"reader\"", "accept_if"]);
        r.discovery().add_tags(["reader"]);
        replica.when().synced().await.unwrap();
        scene.first_line(&r, STORE, None).await;
        let q = scene.node("q").await;
        let _second = q.stores().primary::<Total<1>>(STORE).build().unwrap();
        let line = scene.first_line(&r, STORE, Some(Fault::TwoPrimaries)).await;
        has_all(&line, &[&short(&r), "sees 2 primaries of turnover", "it follows", &short(&p)]);
    });
}

/// Of two producers one is taken and one stands by; each explanation says why.
#[test]
fn why_a_producer_is_taken_and_another_one_is_not() {
    Sim::run(77, |sim| async move {
        let scene = Scene::new(sim).await;
        let (gold, plain) = (scene.tagged("gold", "gold").await, scene.node("plain").await);
        let c = scene.node("c").await;
        let _producers = (produces(&gold), produces(&plain));
        let builder = c.streams().consumer::<u64>().with_stream_id(STREAM).prefer(Prefer::tag("gold")).with_standby(1);
        let consumer = builder.build();
        let survey = Survey::new(scene.operator.diagnostics().client(), [Bootstrap::from(scene.beacon.local().addr())]);
        let at = |network: &Network| Bootstrap::from(network.local().addr()).to_string();
        let said = async |producer: &Network, wanted: &[&str]| {
            let until = Instant::now() + Duration::from_mins(1);
            loop {
                let answer = survey.explain(&at(&c), STREAM, Some(&at(producer))).await;
                let text = answer.as_ref().map(|it| it.explanation.to_string()).unwrap_or_default();
                if wanted.iter().all(|part| text.contains(part)) {
                    assert_eq!(answer.unwrap().explanation.fault(), None);
                    return;
                }
                assert!(Instant::now() < until, "{answer:?} should say {wanted:?}");
                sleep(Duration::from_millis(500)).await;
            }
        };
        said(&gold, &["items flow, as the consumer takes", "it is before", &short(&plain), "the tag"]).await;
        said(&plain, &["stands by", "it is behind", &short(&gold), "the tag"]).await;
        drop(consumer);
    });
}
