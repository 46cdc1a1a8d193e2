//! Diagnostics: what nodes report of themselves, to their own program and to a client from outside.

use std::time::Duration;

use mosaik::{
    builtin::NoOp,
    diagnostics::{AskError, Client, LinkState, StreamReport, Trouble},
    prelude::*,
    testing::eventually,
};
use tokio::time::timeout;

pub(super) const SOON: Duration = Duration::from_secs(20);

pub(super) async fn node(network: NetworkId, tags: &[&str]) -> Network {
    let builder = Network::builder(network).with_listen("127.0.0.1:0".parse().unwrap());
    builder.with_tags(tags.iter().copied()).build().await.unwrap()
}

/// Waits until all of them know each other.
pub(super) async fn acquainted(nodes: &[&Network]) {
    let all = || nodes.iter().all(|node| node.discovery().catalog().len() >= nodes.len());
    assert!(eventually(SOON, all).await, "they have not met");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_no_member_sees_nodes_and_peers() {
    let network = NetworkId::from("diagnostics: nodes");
    let (one, two) = (node(network, &["matcher", "eu"]).await, node(network, &[]).await);
    acquainted(&[&one, &two]).await;
    let client = Client::new(network).await.unwrap();
    let at = one.local().addr();

    let report = client.node(&at).await.unwrap();
    assert_eq!((report.id, report.network.id, report.peers), (one.local().id(), network, 1));
    assert_eq!(report.network.name.as_deref(), Some("diagnostics: nodes"));
    let mut tags: Vec<_> = report.tags.iter().map(ToString::to_string).collect();
    tags.sort();
    assert_eq!(tags, ["eu", "matcher"], "tags have their names");
    assert!(report.protocols.contains(&"sync/2".to_owned()));
    assert!(report.to_string().contains(&one.local().id().to_string()), "{report}");

    let peers = client.peers(&at).await.unwrap();
    let [peer] = &peers[..] else { panic!("{peers:?}") };
    assert_eq!(peer.id, two.local().id());
    assert!(peer.heard_ms <= peer.lease_ms && peer.lease_ms == 15_000, "{peer:?}");
    assert_eq!(peer.addr().addrs, two.local().addr().addrs);
    assert!(peer.connections.iter().any(|it| it.relayed == Some(false)), "{peer:?}");

    let mut session = client.session(&at).await.unwrap();
    for _ in 0..10 {
        assert!(session.ping().await.unwrap() < SOON);
    }
    assert_eq!(one.discovery().catalog().len(), 2, "nobody has heard of the client");
    assert_eq!(one.diagnostics().peers()[0].id, two.local().id(), "the program sees the same");

    let stranger = Client::new("another network").await.unwrap();
    assert!(matches!(stranger.node(&at).await, Err(AskError::OtherNetwork { .. })));
    two.shutdown().await;
    assert!(matches!(client.node(&two.local().addr()).await, Err(AskError::Unreachable { .. })));
    one.shutdown().await;
    assert_eq!(one.task_probe().names(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_show_both_ends_and_why_somebody_waits() {
    let network = NetworkId::from("diagnostics: streams");
    let (one, two, three) = (node(network, &[]).await, node(network, &["vip"]).await, node(network, &[]).await);
    let producer = one.streams().producer::<u64>().with_stream_id("prices").with_max_consumers(1);
    let producer = producer.accept_if(|peer| peer.tags().contains("vip")).build().unwrap();
    let mut served = two.streams().consumer::<u64>().with_stream_id("prices").build();
    let _refused = three.streams().consumer::<u64>().with_stream_id("prices").build();
    for item in 0..10 {
        producer.send(item).await.unwrap();
        assert_eq!(timeout(SOON, served.recv()).await.unwrap(), Some(item));
    }
    let client = Client::new(network).await.unwrap();
    let at = one.local().addr();
    let both = || matches!(&one.diagnostics().streams()[..], [StreamReport::Producer(it)] if it.subscribers.len() == 2);
    assert!(eventually(SOON, both).await, "{:?}", one.diagnostics().streams());
    let streams = client.streams(&at).await.unwrap();
    let [StreamReport::Producer(report)] = &streams[..] else { panic!("{streams:?}") };
    assert_eq!((report.stream.name.as_deref(), report.sent, report.max_consumers), (Some("prices"), 10, Some(1)));
    let of = |node: &Network| report.subscribers.iter().find(|it| it.peer == node.local().id()).unwrap();
    assert_eq!((of(&two).state, of(&two).items), (LinkState::Connected, 10));
    assert_eq!(of(&three).state, LinkState::NotAllowed);
    assert_eq!(of(&three).missing_tags[0].name.as_deref(), Some("vip"));
    assert!(report.to_string().contains("misses the tags vip"), "{report}");

    let streams = client.streams(&two.local().addr()).await.unwrap();
    let [StreamReport::Consumer(report)] = &streams[..] else { panic!("{streams:?}") };
    assert_eq!((report.received, report.missed, report.producers.len()), (10, 0, 1));

    // An end leaves a trace at both sides.
    two.discovery().remove_tags(["vip"]);
    let waits = || two.diagnostics().streams().iter().any(|it| it.to_string().contains("refused by the producer"));
    assert!(eventually(SOON, waits).await, "{:?}", two.diagnostics().streams());
    let shown = one.diagnostics().streams()[0].to_string();
    assert!(shown.contains("not allowed by a predicate"), "{shown}");
    let shown = two.diagnostics().streams()[0].to_string();
    assert!(shown.contains("last end: "), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_show_their_members_and_why_they_are_not_online() {
    let network = NetworkId::from("diagnostics: groups");
    let (one, two) = (node(network, &[]).await, node(network, &[]).await);
    acquainted(&[&one, &two]).await;
    let (key, lonely) = (GroupKey::random(), GroupKey::random());
    let group = one.groups().with_key(key.clone()).with_state_machine(NoOp).join().await.unwrap();
    let _second = two.groups().with_key(key).with_state_machine(NoOp).join().await.unwrap();
    let _waits = one.groups().with_key(lonely).with_state_machine(NoOp).with_size(3).join().await.unwrap();
    let client = Client::new(network).await.unwrap();
    let together = || {
        let groups = one.diagnostics().groups();
        groups.iter().any(|it| it.online && it.members.len() == 2 && !it.bonds.is_empty())
    };
    assert!(eventually(SOON, together).await, "{:?}", one.diagnostics().groups());
    let found = client.groups(&one.local().addr()).await.unwrap();
    assert_eq!(found.len(), 2);
    let report = found.iter().find(|it| it.group == group.id()).unwrap();
    assert!(report.online && report.has_quorum && report.leader.is_some() && report.size.is_none(), "{report}");
    assert_eq!((report.members.len(), report.bonds[0].peer), (2, two.local().id()));
    let report = found.iter().find(|it| it.group != group.id()).unwrap();
    assert_eq!((report.online, report.size), (false, Some(3)));
    assert_eq!(report.trouble, Some(Trouble::WaitingForFounders));
    assert!(report.to_string().contains("NOT ONLINE: waiting for 2 more founders"), "{report}");
}
