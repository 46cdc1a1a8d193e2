//! Who may be in a network: secret networks and those of an authority, in virtual time and on loopback.

use std::time::Duration;

use futures::StreamExt;
use mosaik::{
    Authority, Network, NetworkId, NetworkKey, Ticket,
    diagnostics::{AskError, Client},
    network::{BuildError, NetworkBuilder, TrustError},
    testing::{LinkQuality, Sim, SimNode, eventually},
    trust::{Claims, LEEWAY, NetworkKind, Reason, RefusedBy, RevocationError, Revoked},
};

use super::streams::Data1;

const NET: NetworkId = NetworkId::from_name("trust tests");
/// When a simulation begins, seconds since the Unix epoch.
const BEGIN: u64 = 1_767_225_600;
const SOON: Duration = Duration::from_secs(20);

fn key(n: u8) -> NetworkKey {
    NetworkKey::from_bytes([n; 32])
}

fn authority(n: u8) -> Authority {
    Authority::from_bytes(&[n; 32])
}

/// A ticket for an hour from the beginning of a simulation.
fn ticket(node: &SimNode) -> Ticket {
    issue(node, BEGIN, BEGIN + 3_600)
}

fn issue(node: &SimNode, from: u64, until: u64) -> Ticket {
    authority(1).issue(NET, node.id(), Claims::new(from, until).with_role("sensor").with_grant("eu")).unwrap()
}

fn with_ticket(node: &SimNode, ticket: Ticket) -> NetworkBuilder {
    node.builder(NET).with_authority(authority(1).id()).with_ticket(ticket)
}

fn knows(one: &Network, other: &Network) -> bool {
    one.discovery().catalog().get(other.local().id()).is_some()
}

/// What a node says last about a peer: who refused whom, and why.
fn refused(node: &Network, peer: &Network) -> Option<(RefusedBy, Reason)> {
    let refusal = node.trust().refusals().into_iter().find(|refusal| refusal.peer == peer.local().id())?;
    Some((refusal.by, refusal.reason))
}

/// Both ends have refused or were refused, and neither knows the other.
async fn refused_by_both(one: &Network, other: &Network) -> [(RefusedBy, Reason); 2] {
    let both = || refused(one, other).is_some() && refused(other, one).is_some();
    assert!(eventually(SOON, both).await, "{:?} {:?}", one.trust().refusals(), other.trust().refusals());
    assert!(!knows(one, other) && !knows(other, one));
    [refused(one, other).unwrap(), refused(other, one).unwrap()]
}

/// An item from the first to the second.
async fn an_item_passes(from: &Network, to: &Network) {
    let (producer, mut consumer) = (from.streams().produce::<Data1>(), to.streams().consume::<Data1>());
    producer.when().subscribed().await;
    producer.send(Data1(7)).await.unwrap();
    assert_eq!(consumer.next().await, Some(Data1(7)));
}

#[test]
fn who_has_the_key_is_in_and_nobody_else() {
    Sim::run(1, |sim| async move {
        let [a, b, other, open] = ["a", "b", "other", "open"].map(|name| sim.node(name));
        let a = a.builder(NET).with_network_key(key(1)).build().await.unwrap();
        let b = b.builder(NET).with_network_key(key(1)).build().await.unwrap();
        an_item_passes(&a, &b).await;
        assert_eq!((a.trust().kind(), a.trust().refusals()), (NetworkKind::Secret, vec![]));

        let at_a = a.local().addr();
        let other = other.builder(NET).with_network_key(key(2)).with_bootstrap(at_a.clone()).build().await.unwrap();
        let [(_, of_a), (_, of_other)] = refused_by_both(&a, &other).await;
        let no_key = Reason::NotProved { ours: NetworkKind::Secret };
        let untold = Reason::Untold { ours: NetworkKind::Secret };
        assert!([&no_key, &untold].contains(&&of_a), "{of_a:?}");
        assert!([&no_key, &untold].contains(&&of_other), "{of_other:?}");

        let open = open.builder(NET).with_bootstrap(at_a).build().await.unwrap();
        let [(_, of_a), (_, of_open)] = refused_by_both(&a, &open).await;
        let kinds = Reason::WrongKind { ours: NetworkKind::Secret, theirs: Some(NetworkKind::Open) };
        assert!([&kinds, &untold].contains(&&of_a), "{of_a:?}");
        let kinds = Reason::WrongKind { ours: NetworkKind::Open, theirs: None };
        assert!([&kinds, &Reason::Untold { ours: NetworkKind::Open }].contains(&&of_open), "{of_open:?}");
        assert!(a.trust().refused().values().sum::<u64>() >= 2);
        assert!(knows(&a, &b) && knows(&b, &a));
    });
}

/// Who asks a closed network from an open one hears that it was refused, also where packets overtake each other: no stream ends
/// as if all was well before the connection does.
#[test]
fn a_refusal_is_heard_as_one() {
    for seed in 0..20 {
        Sim::run(seed, |sim| async move {
            sim.rendezvous(false);
            sim.default_link(LinkQuality::wan());
            let [closed, open] = ["closed", "open"].map(|name| sim.node(name));
            let closed = closed.builder(NET).with_network_key(key(1)).build().await.unwrap();
            let open = open.builder(NET).build().await.unwrap();
            let error = open.diagnostics().client().node(&closed.local().addr()).await.unwrap_err();
            assert!(matches!(error, AskError::Refused { .. }), "seed {seed}: {error}");
        });
    }
}

/// From the dial to the end of a first exchange, in virtual time.
fn first_exchange(seed: u64, join: impl Fn(&SimNode) -> NetworkBuilder + Send + 'static) -> [Duration; 2] {
    Sim::run(seed, |sim| async move {
        sim.rendezvous(false);
        sim.default_link(LinkQuality::lan().with_latency(Duration::from_millis(25)));
        let [a, b] = ["a", "b"].map(|name| sim.node(name));
        let (a, b) = (join(&a).build().await.unwrap(), join(&b).build().await.unwrap());
        let begun = sim.elapsed();
        b.discovery().sync_with(a.local().addr()).await.unwrap();
        let synced = sim.elapsed() - begun;
        let producer = a.streams().produce::<Data1>();
        assert!(eventually(SOON, || b.discovery().catalog().peers().any(|peer| !peer.produces().is_empty())).await);
        // The connection for streams is not there yet: this is its dial, its proof, and its first item.
        let begun = sim.elapsed();
        let mut consumer = b.streams().consume::<Data1>();
        producer.when().subscribed().await;
        producer.send(Data1(1)).await.unwrap();
        assert_eq!(consumer.next().await, Some(Data1(1)));
        [synced, sim.elapsed() - begun]
    })
}

/// The first catalog and the first item come after as many round trips as in an open network: on a link of 50 ms, none more.
#[test]
fn the_proof_costs_no_round_trip() {
    let open = first_exchange(5, |node| node.builder(NET));
    let secret = first_exchange(5, |node| node.builder(NET).with_network_key(key(1)));
    let authority = first_exchange(5, |node| with_ticket(node, ticket(node)));
    assert!(open[0] >= Duration::from_millis(100), "a dial and a question: {open:?}");
    for (closed, kind) in [(secret, "secret"), (authority, "authority")] {
        for (with, without) in closed.into_iter().zip(open) {
            assert!(with < without + Duration::from_millis(5), "{kind}: {with:?} instead of {without:?}");
        }
    }
}

#[test]
fn who_holds_a_ticket_is_in() {
    Sim::run(2, |sim| async move {
        let [a, b] = ["a", "b"].map(|name| sim.node(name));
        let (of_a, of_b) = (ticket(&a), ticket(&b));
        let (a, b) = (with_ticket(&a, of_a).build().await.unwrap(), with_ticket(&b, of_b).build().await.unwrap());
        an_item_passes(&a, &b).await;
        assert_eq!((a.trust().kind(), a.trust().refusals()), (NetworkKind::Authority, vec![]));
        let own = a.discovery().me().grants();
        assert!(own.contains("sensor") && own.contains("eu") && a.discovery().me().tags().is_empty());
    });
}

/// What a peer is granted is known from its entry on, before anybody has dialled it, and decides in predicates. A tag that a peer
/// gives itself is no grant.
#[test]
fn grants_are_known_of_peers_that_were_never_met() {
    Sim::run(6, |sim| async move {
        sim.rendezvous(false);
        let names = ["hub", "far", "near"];
        let [hub, far, near] = names.map(|name| sim.node(name));
        // The two know each other only through the hub, and cannot reach each other.
        sim.cut(&far, &near);
        sim.cut(&near, &far);
        let at_hub = hub.addr();
        let of_hub = ticket(&hub);
        let hub = with_ticket(&hub, of_hub).build().await.unwrap();
        let join = async |node: &SimNode| {
            let ticket = ticket(node);
            with_ticket(node, ticket).with_bootstrap(at_hub.clone()).with_tags(["us"]).build().await.unwrap()
        };
        let (far, near) = (join(&far).await, join(&near).await);
        let granted = || {
            let catalog = near.discovery().catalog();
            catalog.get(far.local().id()).is_some_and(|peer| peer.grants().contains("eu"))
        };
        assert!(eventually(SOON, granted).await);
        let catalog = near.discovery().catalog();
        let peer = catalog.get(far.local().id()).unwrap();
        assert!(!peer.grants().contains("us") && peer.tags().contains("us") && !peer.tags().contains("eu"));
        assert_eq!(peer.grants().iter().collect::<Vec<_>>(), ["eu", "sensor"]);

        let producer =
            hub.streams().producer::<Data1>().accept_if(|peer| peer.grants().contains("eu")).build().unwrap();
        let mut consumer =
            near.streams().consumer::<Data1>().subscribe_if(|peer| peer.grants().contains("sensor")).build();
        producer.send(Data1(3)).await.unwrap();
        assert_eq!(consumer.next().await, Some(Data1(3)));
        let refused =
            near.streams().producer::<Data1>().accept_if(|peer| peer.grants().contains("us")).build().unwrap();
        let other = hub.streams().consume::<Data1>();
        let waits = || refused.consumers().count() == 0 && other.producers().count() == 0;
        assert!(waits() && eventually(SOON, || knows(&hub, &near)).await && waits());
    });
}

#[test]
fn what_is_wrong_with_a_ticket_is_said_at_both_ends() {
    Sim::run(3, |sim| async move {
        sim.rendezvous(false);
        let names = ["a", "expired", "early", "foreign", "slow", "late"];
        let [a, expired, early, foreign, slow, late] = names.map(|name| sim.node(name));
        let of_a = ticket(&a);
        let a = with_ticket(&a, of_a).build().await.unwrap();
        let at_a = a.local().addr();
        let join = async |node: &SimNode, ticket| {
            with_ticket(node, ticket).with_bootstrap(at_a.clone()).build().await.unwrap()
        };

        let leeway = LEEWAY.as_secs();
        let node = join(&expired, issue(&expired, BEGIN - 1_000, BEGIN - leeway - 180)).await;
        let [(by_us, here), (by_them, there)] = refused_by_both(&a, &node).await;
        assert_eq!((by_us, by_them), (RefusedBy::Us, RefusedBy::Them));
        assert!(matches!(here, Reason::Expired { not_after, .. } if not_after == BEGIN - leeway - 180), "{here:?}");
        assert!(matches!(there, Reason::Expired { not_after, .. } if not_after == BEGIN - leeway - 180), "{there:?}");
        assert!(here.to_string().contains("expired 24"), "{here}");

        // A clock that is five minutes behind ours would find it valid: the reason tells of the clock, too.
        let ticket = issue(&early, BEGIN + 300, BEGIN + 3_600);
        early.skew(-300.0);
        let node = join(&early, ticket).await;
        let [(_, here), (_, there)] = refused_by_both(&a, &node).await;
        assert!(matches!(here, Reason::NotYetValid { .. }) && here.to_string().contains("behind"), "{here}");
        assert!(matches!(there, Reason::NotYetValid { .. }), "{there}");

        let unknown = authority(2);
        let ticket = unknown.issue(NET, foreign.id(), Claims::new(BEGIN, BEGIN + 3_600)).unwrap();
        let builder =
            foreign.builder(NET).with_authority(unknown.id()).with_ticket(ticket).with_bootstrap(at_a.clone());
        let node = builder.build().await.unwrap();
        let [(_, here), (_, there)] = refused_by_both(&a, &node).await;
        assert_eq!(here, Reason::NotProved { ours: NetworkKind::Authority });
        assert_eq!(there, Reason::Untold { ours: NetworkKind::Authority });

        // Less than the leeway beside the window, on either side, is nothing.
        for (node, from, until) in [(&slow, BEGIN - 500, BEGIN - 15), (&late, BEGIN + 45, BEGIN + 900)] {
            let node = join(node, issue(node, from, until)).await;
            assert!(eventually(SOON, || knows(&a, &node) && knows(&node, &a)).await, "{:?}", a.trust().refusals());
        }
    });
}

#[test]
fn what_does_not_fit_together_is_refused_at_the_start() {
    Sim::run(4, |sim| async move {
        let (a, b) = (sim.node("a"), sim.node("b"));
        let failed = async |builder: NetworkBuilder| match builder.build().await {
            Err(BuildError::Trust(error)) => error,
            other => panic!("{other:?}"),
        };
        let id = authority(1).id();
        assert_eq!(failed(a.builder(NET).with_authority(id)).await, TrustError::NoTicket);
        assert_eq!(failed(a.builder(NET).with_ticket(ticket(&a))).await, TrustError::NoAuthority);
        assert_eq!(failed(a.builder(NET).with_network_key(key(1)).with_authority(id)).await, TrustError::TwoKinds);
        assert_eq!(failed(with_ticket(&a, ticket(&a)).with_network_key(key(1))).await, TrustError::TwoKinds);
        let of_other = TrustError::TicketOfOther { subject: b.id(), node: a.id() };
        assert_eq!(failed(with_ticket(&a, ticket(&b))).await, of_other);
        let unknown = a.builder(NET).with_authority(authority(2).id()).with_ticket(ticket(&a));
        assert_eq!(failed(unknown).await, TrustError::UnknownAuthority { theirs: id });
        let elsewhere = authority(1).issue("elsewhere", a.id(), Claims::new(BEGIN, BEGIN + 1)).unwrap();
        let theirs = NetworkId::from("elsewhere");
        assert_eq!(failed(with_ticket(&a, elsewhere)).await, TrustError::TicketOfOtherNetwork { ours: NET, theirs });
    });
}

/// Everybody but the one whom it concerns goes on; who was cut off when it was said hears of it later.
#[test]
fn a_revoked_member_is_out_everywhere_within_seconds() {
    Sim::run(7, |sim| async move {
        sim.rendezvous(false);
        let machines: Vec<_> = (0..12).map(|n| sim.node(&format!("n{n}"))).collect();
        let mut nodes = Vec::new();
        for machine in &machines {
            let ticket = ticket(machine);
            let builder = with_ticket(machine, ticket).with_bootstrap(machines[0].addr());
            nodes.push(builder.build().await.unwrap());
        }
        let all = || nodes.iter().all(|node| node.discovery().catalog().len() == nodes.len());
        assert!(eventually(SOON, all).await);
        let out = nodes[5].clone();
        let (producer, mut consumer) = (out.streams().produce::<Data1>(), nodes[6].streams().consume::<Data1>());
        producer.when().subscribed().await;
        producer.send(Data1(1)).await.unwrap();
        assert_eq!(consumer.next().await, Some(Data1(1)));

        // One is away, and hears of it when it is back.
        let (away, others) = machines.split_last().unwrap();
        sim.partition(std::slice::from_ref(away), others);
        let what = Revoked::Peer(out.local().id());
        let said = authority(1).revoke(NET, what).unwrap();
        assert_eq!(nodes[0].trust().revoke(&said), Ok(true));
        assert_eq!(nodes[0].trust().revoke(&said), Ok(false), "said twice");
        let begun = sim.elapsed();
        // The one itself is only refused.
        let rest = || nodes[..11].iter().filter(|node| node.local().id() != out.local().id());
        let told = || rest().all(|node| node.trust().revoked() == [what]);
        assert!(eventually(SOON, told).await);
        assert!(sim.elapsed() - begun < Duration::from_secs(5), "{:?}", sim.elapsed() - begun);
        producer.when().unsubscribed().await;
        assert!(sim.elapsed() - begun < Duration::from_secs(5), "{:?}", sim.elapsed() - begun);
        assert!(nodes[11].trust().revoked().is_empty());
        sim.heal();
        assert!(eventually(Duration::from_mins(1), || nodes[11].trust().revoked() == [what]).await);

        // Both ends say why, it comes to nobody again, and nobody else has lost anybody.
        let reason = Some((RefusedBy::Us, Reason::Revoked { what }));
        assert!(eventually(SOON, || refused(&nodes[6], &out) == reason).await, "{:?}", nodes[6].trust().refusals());
        let says = |node: &Network| matches!(refused(&out, node), Some((_, Reason::Revoked { .. })));
        assert!(eventually(SOON, || nodes.iter().any(says)).await, "{:?}", out.trust().refusals());
        let gone = || nodes.iter().all(|node| node.local().id() == out.local().id() || !knows(node, &out));
        assert!(eventually(Duration::from_secs(90), gone).await);
        let rest = nodes.iter().filter(|node| node.local().id() != out.local().id());
        let complete = || rest.clone().all(|node| node.discovery().catalog().len() == nodes.len() - 1);
        assert!(eventually(SOON, complete).await);
        let strange = authority(2).revoke(NET, what).unwrap();
        let unknown = RevocationError::UnknownAuthority { theirs: authority(2).id() };
        assert_eq!(nodes[0].trust().revoke(&strange), Err(unknown));
    });
}

/// A revocation is for good: it outlives the process that heard of it.
#[tokio::test(flavor = "multi_thread")]
async fn revocations_are_kept_in_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let claims = Claims::new(0, u64::from(u32::MAX));
    let invitation = authority(1).invite(NET, claims, []).unwrap();
    let start = || {
        let builder = Network::builder("another").with_listen(([127, 0, 0, 1], 0).into()).with_data_dir(dir.path());
        builder.with_join(invitation.to_string()).build()
    };
    let node = start().await.unwrap();
    assert_eq!((node.network_id(), node.trust().kind()), (NET, NetworkKind::Authority));
    let what = Revoked::Serial([7; 16]);
    assert_eq!(node.trust().revoke(&authority(1).revoke(NET, what).unwrap()), Ok(true));
    let kept = dir.path().join("revocations");
    assert!(eventually(SOON, || std::fs::read_to_string(&kept).is_ok_and(|text| text.starts_with("mosaikr1"))).await);
    node.shutdown().await;
    let again = start().await.unwrap();
    assert_eq!((again.local().id(), again.trust().revoked()), (node.local().id(), vec![what]));
    again.shutdown().await;
}

/// On real connections, with an operator's client: it is in with the key, and is told why it is not without.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_needs_the_key() {
    let id = NetworkId::random();
    let node = || Network::builder(id).with_listen(([127, 0, 0, 1], 0).into()).with_network_key(key(1)).build();
    let (a, b) = (node().await.unwrap(), node().await.unwrap());
    an_item_passes(&a, &b).await;
    let addr = a.local().addr();
    let client = Client::with_network_key(id, key(1)).await.unwrap();
    let report = client.node(&addr).await.unwrap();
    assert_eq!((report.id, report.kind.as_str(), report.refusals.len()), (a.local().id(), "a secret network", 0));
    for client in [Client::new(id).await.unwrap(), Client::with_network_key(id, key(2)).await.unwrap()] {
        let error = client.node(&addr).await.expect_err("a stranger");
        assert!(matches!(&error, AskError::Refused { peer, .. } if *peer == a.local().id()), "{error}");
        assert!(error.to_string().contains("network"), "{error}");
    }
    let report = client.node(&addr).await.unwrap();
    let reasons: Vec<_> = report.refusals.iter().map(|refusal| refusal.reason.as_str()).collect();
    assert!(reasons.contains(&"wrong_kind") && reasons.contains(&"not_proved"), "{reasons:?}");
}
