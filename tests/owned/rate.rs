//! How fast an owned stream is: three members and a consumer in this process, over loopback and in memory, with two threads.
//! Measured with `cargo test --release -p mosaik-tests --test owned -- --ignored --nocapture rate`.

use std::time::{Duration, Instant};

use mosaik::{NetworkId, prelude::*, testing::eventually};

const SOON: Duration = Duration::from_mins(1);
/// Items of 32 bytes at full speed, and how often that is measured.
const ITEMS: u64 = 500_000;
const RUNS: usize = 5;
/// Items that are sent alone.
const ALONE: usize = 1001;

/// The middle one.
fn median<T: PartialOrd + Copy>(all: &mut [T]) -> T {
    all.sort_by(|a, b| a.partial_cmp(b).expect("is a number"));
    all[all.len() / 2]
}

/// From `send` to receipt when nothing else is on its way, the median.
async fn alone(producer: &Producer<[u8; 32]>, consumer: &mut Consumer<[u8; 32]>) -> Duration {
    let mut delays = Vec::new();
    for _ in 0..ALONE {
        let sent = Instant::now();
        producer.send([0; 32]).await.expect("is sent");
        consumer.recv().await.expect("runs");
        delays.push(sent.elapsed());
    }
    median(&mut delays)
}

/// Items per second, from the first `send` to the receipt of the last one.
async fn at_full_speed(producer: &Producer<[u8; 32]>, consumer: &mut Consumer<[u8; 32]>) -> f64 {
    let before = producer.committed().await;
    let (sender, started) = (producer.clone(), Instant::now());
    let sending = tokio::spawn(async move {
        for n in 0..ITEMS {
            sender.send([n.to_le_bytes()[0]; 32]).await.expect("it leads");
        }
        sender.committed().await
    });
    let mut first = None;
    for n in 0..ITEMS {
        let (_, origin) = consumer.recv_from().await.expect("runs");
        assert_eq!(origin.seq, *first.get_or_insert(origin.seq) + n, "no gap");
    }
    let rate = ITEMS as f64 / started.elapsed().as_secs_f64();
    assert_eq!(sending.await.expect("ends").committed, before.committed + ITEMS);
    rate
}

#[test]
#[ignore = "measures"]
fn the_rate_in_one_process() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
    runtime.block_on(async {
        let id = NetworkId::random();
        let node = || Network::builder(id).with_listen("127.0.0.1:0".parse().expect("an address")).build();
        let mut nodes = Vec::new();
        for _ in 0..4 {
            nodes.push(node().await.expect("starts"));
        }
        let (reader, nodes) = nodes.split_last().expect("four");
        let mut members = Vec::new();
        for network in nodes {
            let key = GroupKey::from_secret("a key for an owned stream");
            let group = network.groups().with_key(key).with_state_machine(NoOp).with_size(3).join().await;
            let group = group.expect("joins");
            let items = network.streams().producer::<[u8; 32]>().with_stream_id("items").owned_by(&group);
            members.push((network, group, items.build().expect("is new")));
        }
        let mut items = reader.streams().consumer::<[u8; 32]>().with_stream_id("items").owned().build();
        assert!(eventually(SOON, || items.producers().count() == 3).await);
        assert!(eventually(SOON, || members.iter().any(|(_, group, _)| group.fence().is_some())).await);
        let (_, _, leader) = members.iter().find(|(_, group, _)| group.fence().is_some()).expect("one leads");
        println!("one item alone: median {:?} from send to receipt", alone(leader, &mut items).await);
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            rates.push(at_full_speed(leader, &mut items).await);
        }
        println!("items per second: median {:.0} of {rates:.0?}", median(&mut rates.clone()));
        let plain = members[0].0.streams().producer::<[u8; 32]>().with_stream_id("plain").build().expect("is new");
        let mut items = reader.streams().consumer::<[u8; 32]>().with_stream_id("plain").build();
        assert!(eventually(SOON, || items.producers().count() == 1).await);
        println!("a stream without owner: one item alone: median {:?}", alone(&plain, &mut items).await);
    });
}
