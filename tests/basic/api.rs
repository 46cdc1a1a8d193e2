//! The public surface as users rely on it: the examples of the reference, and the bounds that they take for granted.

use std::time::Duration;

use mosaik::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Data1(u64);

/// Neither `Sync`, nor `Clone`, nor `Debug`: the least that a datum has to be.
#[derive(Serialize, Deserialize)]
struct Least(std::cell::Cell<u8>);

fn is_error<E: std::error::Error + Send + Sync + 'static>() {}
fn is_send_future<F: Future + Send>(_: &F) {}

#[tokio::test(flavor = "multi_thread")]
#[expect(unused_mut, reason = "as the reference writes it")]
async fn streams_example() -> anyhow::Result<()> {
    let network_id = NetworkId::random();
    let n0 = Network::new(network_id).await?;
    let n1 = Network::new(network_id).await?;
    let n2 = Network::new(network_id).await?;

    let mut p0 = n0.streams().produce::<Data1>();
    let mut c1 = n1.streams().consume::<Data1>();
    let mut c2 = n2.streams().consume::<Data1>();

    // await topology formation
    timeout(DEADLINE, p0.when().subscribed().minimum_of(2)).await?;

    p0.send(Data1(42)).await?;
    assert_eq!(timeout(DEADLINE, c1.next()).await?, Some(Data1(42)));
    assert_eq!(timeout(DEADLINE, c2.next()).await?, Some(Data1(42)));
    p0.send(Data1(43)).await?;
    assert_eq!(timeout(DEADLINE, c1.recv()).await?, Some(Data1(43)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn network_example() -> anyhow::Result<()> {
    let seed = [7; 32];
    let dir = tempfile::tempdir()?;
    let network_id = NetworkId::from("prod");
    let n0 = Network::new(network_id).await?;
    let n1 = Network::builder(network_id)
        .with_secret_key(SecretKey::from_bytes(&seed))
        .with_bootstrap(n0.local().addr())
        .with_bootstrap(n0.local().id())
        .with_bootstrap(format!("{}@127.0.0.1:9", n0.local().id()).as_str())
        .with_tags(["matcher", "eu"])
        .with_listen("127.0.0.1:0".parse()?)
        .with_data_dir(dir.path())
        .with_relays([])
        .with_discovery(mosaik::discovery::Config::builder())
        .build()
        .await?;
    assert_eq!(n1.local().id(), SecretKey::from_bytes(&seed).public().into());
    let mut events = n0.discovery().events();
    n0.discovery().sync_with(n1.local().addr()).await?;
    let entry = n0.discovery().catalog().get(n1.local().id()).cloned().expect("synced");
    assert!(entry.tags().contains("eu") && entry.tags().contains(Tag::from("matcher")));
    assert!(n0.discovery().catalog().peers().any(|peer| peer.id() == n1.local().id()));
    n1.discovery().add_tags(["leader"]);
    n1.discovery().remove_tags(["eu"]);
    let changed = async {
        loop {
            let catalog = n0.discovery().catalog();
            let tags = catalog.get(n1.local().id()).map(|entry| entry.tags().clone()).unwrap_or_default();
            if tags.contains("leader") && !tags.contains("eu") {
                break;
            }
            events.next().await;
        }
    };
    timeout(DEADLINE, changed).await?;
    timeout(DEADLINE, n1.shutdown()).await?;
    timeout(DEADLINE, async {
        while n0.discovery().catalog().get(n1.local().id()).is_some() {
            events.next().await;
        }
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_streams_example() -> anyhow::Result<()> {
    let network_id = NetworkId::random();
    let n0 = Network::builder(network_id).with_tags(["tag2"]).build().await?;
    let network = Network::builder(network_id).with_tags(["tag1", "t"]).build().await?;
    let producer = n0
        .streams()
        .producer::<Data1>()
        .accept_if(|peer| peer.tags().contains("tag1"))
        .online_when(|c| c.minimum_of(1).with_tags("t"))
        .with_max_consumers(4)
        .with_egress_limit(ByteRate::mib_per_sec(8))
        .with_stream_id("prices.eu")
        .with_buffer(Buffer::items(1024).bytes(1 << 20))
        .on_lag(OnLag::Block(Duration::from_secs(1)))
        .build()?;
    let second = n0.streams().producer::<Data1>().with_stream_id("prices.eu").build();
    assert!(second.is_err());
    let mut consumer = network
        .streams()
        .consumer::<Data1>()
        .subscribe_if(|peer| peer.tags().contains("tag2"))
        .with_stream_id("prices.eu")
        .build();
    timeout(DEADLINE, producer.when().online()).await?;
    timeout(DEADLINE, consumer.when().subscribed()).await?;
    timeout(DEADLINE, consumer.when().online()).await?;
    producer.send(Data1(1)).await?;
    assert_eq!(timeout(DEADLINE, consumer.recv()).await?, Some(Data1(1)));
    for channel in producer.consumers() {
        assert_eq!(channel.peer().id(), network.local().id());
        let _ = (channel.state(), channel.stats());
    }
    assert_eq!(consumer.producers().count(), 1);
    let stats = consumer.stats();
    let counts: [u64; 4] = [stats.datums(), stats.bytes(), stats.gaps(), stats.drops()];
    assert_eq!((counts[0], counts[2], counts[3]), (1, 0, 0));
    assert!(stats.uptime().is_some());
    let _events = consumer.events();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn least_datum_travels_and_errors_need_no_bounds() -> anyhow::Result<()> {
    let network_id = NetworkId::random();
    let (n0, n1) = (Network::new(network_id).await?, Network::new(network_id).await?);
    let producer = n0.streams().produce::<Least>();
    let mut consumer = n1.streams().consume::<Least>();
    let waiting = producer.when().subscribed();
    is_send_future(&waiting);
    drop(waiting);
    timeout(DEADLINE, producer.send(Least(std::cell::Cell::new(3)))).await??;
    assert_eq!(timeout(DEADLINE, consumer.next()).await?.map(|least| least.0.get()), Some(3));
    is_error::<mosaik::network::BuildError>();
    n0.shutdown().await;
    let refused = producer.send(Least(std::cell::Cell::new(4))).await;
    let error: anyhow::Error = refused.expect_err("the node is down").into();
    assert!(!error.to_string().is_empty());
    Ok(())
}

#[test]
fn peer_ids_print_as_documented() {
    let id: PeerId = SecretKey::from_bytes(&[1; 32]).public().into();
    assert_eq!(id.to_string().parse::<PeerId>().ok(), Some(id));
    assert!(format!("{id:?}").len() < 16 && id.to_string().len() == 64);
}

#[derive(Default, Serialize, Deserialize)]
struct Counter(i64);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Increment(i64);

impl StateMachine for Counter {
    type Command = Increment;
    type Output = i64;
    type Query = ();
    type QueryResult = i64;
    const NAME: &'static str = "counter";

    fn apply(&mut self, Increment(by): Increment, _: &ApplyContext) -> i64 {
        self.0 += by;
        self.0
    }

    fn query(&self, (): ()) -> i64 {
        self.0
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::serde()
    }
}

async fn join(network: &Network, group_key: GroupKey) -> anyhow::Result<Group<Counter>> {
    let counter = Counter::default();
    let group = network
        .groups()
        .with_key(group_key)
        .with_state_machine(counter)
        .with_storage(InMemory::default())
        .with_size(3)
        .with_role(MemberRole::Voter)
        .join()
        .await?;
    Ok(group)
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_example() -> anyhow::Result<()> {
    let (network_id, group_key) = (NetworkId::random(), GroupKey::random());
    let (mut networks, mut groups) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let network = Network::new(network_id).await?;
        groups.push(join(&network, group_key.clone()).await?);
        networks.push(network);
    }
    for group in &groups {
        timeout(DEADLINE, group.when().leader_elected()).await?;
        timeout(DEADLINE, group.when().is_online()).await?;
    }
    timeout(DEADLINE, groups[0].when().bonds().minimum_of(2)).await?;
    timeout(DEADLINE, groups[0].when().has_quorum()).await?;
    let (leader, follower) = if groups[0].is_leader() { (&groups[0], &groups[1]) } else { (&groups[1], &groups[0]) };

    let out = leader.execute(Increment(5), Consistency::Strong).await?;
    assert_eq!(out, 5);
    let outs = follower.execute_many([Increment(1), Increment(2)], Consistency::Weak).await?;
    assert_eq!(outs, [6, 8]);
    let fed = follower.feed(Increment(2)).await?;
    assert_eq!(fed.await?, 10);
    let answer = follower.query((), Consistency::Strong).await?;
    assert_eq!(*answer, 10);
    let index = answer.at();
    assert!(follower.committed() >= index && follower.log_position() >= follower.committed());
    assert_eq!(*leader.query_at_least((), index).await?, 10);
    timeout(DEADLINE, leader.when().committed().reaches(index)).await?;
    assert!(groups.iter().any(Group::is_leader) && leader.leader() == follower.leader());
    assert_eq!((leader.members().len(), leader.bonds().len()), (3, 2));
    assert_eq!(format!("{group_key:?}"), "GroupKey(hidden)");

    is_error::<CallError>();
    is_send_future(&leader.execute(Increment(1), Consistency::Weak));
    is_send_future(&leader.query((), Consistency::Strong));
    is_send_future(&leader.feed(Increment(1)));
    is_send_future(&leader.when().leader_changed());
    for network in networks {
        let tasks = network.task_probe();
        network.shutdown().await;
        assert_eq!(tasks.count(), 0, "{:?}", tasks.names());
    }
    Ok(())
}
