//! Streams under every fault that the simulator knows, drawn from the seed: what the promise of streams says must hold
//! in each run, the network must recover by itself once the faults are over, and no task may be left at the end.
//!
//! `CHAOS_SEEDS=1000 cargo test --test basic chaos` runs more seeds than the few of every day, `CHAOS_SEED=17` one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use mosaik::{
    Network, NetworkId, PeerId,
    streams::{Event, Origin},
    testing::{LinkQuality, Sim, SimNode, Trace, eventually},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

const NET: NetworkId = NetworkId::from_name("chaos");
/// How long faults go on.
const CHAOS: Duration = Duration::from_mins(2);
/// How long the network may take to be whole again afterwards.
const RECOVERY: Duration = Duration::from_secs(30);
const PRODUCERS: usize = 2;
const CONSUMERS: usize = 3;

/// The n-th item of one life of a producer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Item {
    producer: usize,
    life: u32,
    n: u64,
}

/// What one life of a consumer saw.
#[derive(Default)]
struct Seen {
    items: Vec<(Origin, Item)>,
    events: Vec<Event>,
}

/// One machine and what runs on it.
struct Machine {
    node: SimNode,
    index: usize,
    life: u32,
    network: Option<Network>,
    /// Of a consumer, one for each life.
    seen: Vec<Arc<Mutex<Seen>>>,
}

impl Machine {
    /// Starts the machine's next life: the first ones produce, the others consume. All know the first two.
    async fn start(&mut self, sim: &Sim) {
        self.life += 1;
        let mut builder = self.node.restart(NET);
        for other in ["m0", "m1"].into_iter().filter(|name| *name != self.node.name()) {
            builder = builder.with_bootstrap(sim.node(other).addr());
        }
        let network = builder.build().await.expect("starts");
        if self.index < PRODUCERS {
            self.node.spawn("produce", produce(network.clone(), self.index, self.life));
        } else {
            let seen = Arc::new(Mutex::new(Seen::default()));
            self.seen.push(seen.clone());
            self.node.spawn("consume", consume(network.clone(), seen));
        }
        self.network = Some(network);
    }

    fn received(&self) -> BTreeSet<(usize, u32)> {
        let seen = self.seen.last().map(|seen| seen.lock().unwrap());
        seen.iter().flat_map(|seen| &seen.items).map(|(_, item)| (item.producer, item.life)).collect()
    }
}

async fn produce(network: Network, producer: usize, life: u32) {
    let stream = network.streams().produce::<Item>();
    drop(network);
    for n in 0.. {
        if stream.send(Item { producer, life, n }).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(n % 30)).await;
    }
}

async fn consume(network: Network, seen: Arc<Mutex<Seen>>) {
    let mut stream = network.streams().consume::<Item>();
    drop(network);
    let mut events = stream.events();
    loop {
        tokio::select! {
            biased;
            Some(event) = events.next() => seen.lock().unwrap().events.push(event),
            item = stream.recv_from() => match item {
                Some((item, origin)) => seen.lock().unwrap().items.push((origin, item)),
                None => return,
            },
        }
    }
}

/// One fault, and how long until the next.
async fn fault(sim: &Sim, machines: &mut [Machine], rng: &mut SmallRng) {
    let nodes: Vec<_> = machines.iter().map(|machine| machine.node.clone()).collect();
    let (one, other) = (rng.random_range(0..nodes.len()), rng.random_range(0..nodes.len()));
    match rng.random_range(0..10) {
        0 => nodes[one].crash(),
        1 | 2 if !nodes[one].is_running() => machines[one].start(sim).await,
        3 => {
            // In an orderly way.
            if let Some(network) = machines[one].network.take().filter(|_| nodes[one].is_running()) {
                network.shutdown().await;
            }
        }
        4 => nodes[one].pause(),
        5 => nodes.iter().for_each(SimNode::resume),
        6 => sim.partition(&nodes[..one], &nodes[one..]),
        7 => sim.cut(&nodes[one], &nodes[other]),
        8 => sim.link(&nodes[one], &nodes[other], quality(rng)),
        9 => nodes[one].skew(f64::from(rng.random_range(-100..100))),
        _ => sim.heal(),
    }
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..4000))).await;
}

fn quality(rng: &mut SmallRng) -> LinkQuality {
    LinkQuality::wan()
        .with_latency(Duration::from_millis(rng.random_range(0..200)))
        .with_jitter(Duration::from_millis(rng.random_range(0..100)))
        .with_loss(f64::from(rng.random_range(0..20)) / 100.0)
}

/// A whole run. Panics when a promise is broken.
fn chaos(seed: u64) -> Trace {
    Sim::run(seed, |sim| async move {
        sim.rendezvous(false);
        let mut machines = Vec::new();
        for index in 0..PRODUCERS + CONSUMERS {
            let node = sim.node(&format!("m{index}"));
            let mut machine = Machine { node, index, life: 0, network: None, seen: Vec::new() };
            machine.start(&sim).await;
            machines.push(machine);
        }
        let mut rng = SmallRng::seed_from_u64(seed);
        while sim.elapsed() < CHAOS {
            fault(&sim, &mut machines, &mut rng).await;
        }
        recover(&sim, &mut machines).await;
        for machine in &machines {
            for seen in &machine.seen {
                let seen = seen.lock().unwrap();
                check(&seen).unwrap_or_else(|broken| panic!("{:?}: {broken}\n{:#?}", machine.node, seen.events));
            }
        }
        let trace = sim.trace();
        for machine in machines {
            let network = machine.network.expect("it runs");
            let probe = network.task_probe();
            network.shutdown().await;
            assert_eq!(probe.names(), Vec::<&str>::new());
        }
        trace
    })
}

/// The faults are over: every consumer must hear the present life of every producer again.
async fn recover(sim: &Sim, machines: &mut [Machine]) {
    sim.heal();
    for machine in machines.iter_mut() {
        machine.node.resume();
        if machine.network.is_none() || !machine.node.is_running() {
            machine.start(sim).await;
        }
    }
    let lives: BTreeSet<_> = machines[..PRODUCERS].iter().map(|machine| (machine.index, machine.life)).collect();
    let deaf = || machines[PRODUCERS..].iter().find(|machine| !machine.received().is_superset(&lives));
    assert!(
        eventually(RECOVERY, || deaf().is_none()).await,
        "{:?} does not hear all of {lives:?}",
        deaf().unwrap().node
    );
    // And goes on to hear them.
    let so_far: Vec<_> = machines[PRODUCERS..].iter().map(count).collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    for (machine, before) in machines[PRODUCERS..].iter().zip(so_far) {
        assert!(count(machine) > before + 100, "{:?} hears no more", machine.node);
    }
}

fn count(machine: &Machine) -> usize {
    machine.seen.last().map_or(0, |seen| seen.lock().unwrap().items.len())
}

/// The promise: items of one producer come in order, each at most once, and what is missing is told as a gap.
fn check(seen: &Seen) -> Result<(), String> {
    let mut last: BTreeMap<(PeerId, u64), u64> = BTreeMap::new();
    let mut told: BTreeMap<(PeerId, u64), Vec<(u64, u64)>> = BTreeMap::new();
    let mut epochs: BTreeMap<PeerId, u64> = BTreeMap::new();
    let mut first: BTreeMap<(PeerId, u64), u64> = BTreeMap::new();
    for event in &seen.events {
        match event {
            Event::Connected { producer, epoch, next, .. } => {
                // Usually a higher one, but a clock that went back between two lives makes it a lower one.
                epochs.insert(*producer, *epoch);
                first.entry((*producer, *epoch)).or_insert(*next);
            }
            Event::Gap { producer, from, to, .. } => {
                let epoch = epochs.get(producer).copied().unwrap_or_default();
                told.entry((*producer, epoch)).or_default().push((*from, *to));
            }
            Event::Lost { events } => return Err(format!("{events} events were lost")),
            _ => {}
        }
    }
    for (origin, item) in &seen.items {
        let key = (origin.producer, origin.epoch);
        if item.n != origin.seq {
            return Err(format!("{item:?} came as number {}", origin.seq));
        }
        let expected = match last.insert(key, origin.seq) {
            Some(last) => last + 1,
            None => first.get(&key).copied().unwrap_or_default(),
        };
        if origin.seq < expected {
            return Err(format!("{item:?} came after number {expected} was due"));
        }
        let missing = origin.seq - expected;
        let told: u64 =
            told.get(&key).into_iter().flatten().map(|(from, to)| overlap((expected, origin.seq), (*from, *to))).sum();
        if missing != told {
            return Err(format!("{missing} items before {item:?} are missing, {told} were told of"));
        }
    }
    Ok(())
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> u64 {
    a.1.min(b.1).saturating_sub(a.0.max(b.0))
}

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("CHAOS_SEED"), number("CHAOS_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(4)).collect(),
    }
}

#[test]
fn streams_keep_their_promise_under_faults() {
    for seed in seeds() {
        chaos(seed);
    }
}

#[test]
fn chaos_is_reproducible() {
    let trace = chaos(1);
    assert!(trace.events > 10_000, "{trace:?}");
    assert_eq!(trace, chaos(1));
}
