//! Bonds on the whole stack: simulated networks, and real loopback for the speed.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    super::{build::Build, machine::NoOp, raft::NodeId, shapes::Shapes},
    *,
};
use crate::{
    Network, NetworkId,
    groups::raft::{Mark, Message, Position},
    testing::{Sim, SimNode, eventually},
    trust::Right,
};

const SOON: Duration = Duration::from_secs(20);

/// A member for tests: its bonds, and what they have brought.
struct Peer {
    network: Network,
    bonds: Bonds,
    seen: Arc<Mutex<Vec<Seen>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Up(Member),
    Down(Member),
    Message(Envelope),
    Call(Bytes),
}

#[derive(Clone)]
struct Spec {
    incarnation: u64,
    key: GroupKey,
    terms: Terms,
}

fn spec() -> Spec {
    let terms = Terms {
        size: 3,
        version: 1,
        build: Build::from_bits(3),
        settings: [0; 32],
        shapes: Shapes::of::<NoOp>(),
        label: None,
    };
    Spec { incarnation: 1, key: GroupKey::from_bytes([5; 32]), terms }
}

/// Of a member without a disk.
fn identity(key: GroupKey, terms: Terms, me: Member) -> Identity {
    let (marks, extent) = (Marks::default(), Extent::default());
    let needed = Needed::nothing(Right::Member);
    Identity { group: GroupId::from("group"), key, terms, needed, me, cluster: None, marks, extent }
}

fn member(peer: PeerId, incarnation: u64) -> Member {
    Member { node: NodeId::from_bytes(*peer.as_bytes()), incarnation }
}

impl Peer {
    /// Joins the group on a node; calls are echoed, those that say "drop" are dropped.
    fn join(network: Network, spec: Spec) -> Self {
        let Spec { incarnation, key, terms } = spec;
        let me = member(network.local().id(), incarnation);
        Self::with(network, identity(key, terms, me))
    }

    /// As `join`, with a disk that was started as often as said and is durable that far.
    fn durable(network: Network, (number, run): (u64, u64), (term, last): (u64, u64)) -> Self {
        let me = member(network.local().id(), 1);
        let marks = Marks { start: Start { number, run, term, last }, ..Marks::default() };
        let extent = Extent { term, last, verified: last, committed: last };
        Self::with(network, Identity { marks, extent, ..identity(spec().key, spec().terms, me) })
    }

    fn with(network: Network, identity: Identity) -> Self {
        let (bonds, mut events) = Bonds::join(network.groups().bonds(), network.node(), network.discovery(), identity);
        bonds.open();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, handle) = (seen.clone(), Arc::downgrade(&bonds.0));
        network.node().tasks().spawn("test-events", async move {
            while let Some(event) = events.recv().await {
                let seen = match event {
                    BondEvent::Up(member) => Seen::Up(member),
                    BondEvent::Down(member) => Seen::Down(member),
                    BondEvent::Message(envelope) => Seen::Message(envelope),
                    BondEvent::Call { request, reply, .. } => {
                        if request != "drop" {
                            reply.send(request.clone());
                        }
                        Seen::Call(request)
                    }
                };
                log.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
                handle.upgrade().map(Bonds).iter().for_each(|bonds| _ = bonds.flush(false));
            }
        });
        Self { network, bonds, seen }
    }

    async fn on(node: &SimNode, spec: Spec) -> Self {
        Self::join(node.builder("net").build().await.expect("starts"), spec)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn me(&self) -> Member {
        self.bonds.group().mesh().me()
    }

    fn bonded(&self) -> BTreeSet<Member> {
        self.bonds.peers().iter().map(|bond| bond.member).collect()
    }

    /// How often bonds came up.
    fn ups(&self) -> usize {
        self.seen().iter().filter(|seen| matches!(seen, Seen::Up(_))).count()
    }

    fn send(&self, envelope: Envelope) {
        self.bonds.send(envelope);
        self.bonds.flush(false);
    }

    fn call(&self, to: PeerId, request: Bytes) -> impl Future<Output = Result<Bytes, CallFailed>> + use<> {
        let answer = self.bonds.call(to, request);
        self.bonds.flush(false);
        answer
    }

    fn envelope(&self, to: Member, term: u64) -> Envelope {
        Envelope { from: self.me(), to, cluster: None, term, body: Message::VoteReply { granted: true } }
    }
}

/// Whether everyone is bonded to everyone else.
fn complete(peers: &[&Peer]) -> bool {
    let all: BTreeSet<_> = peers.iter().map(|peer| peer.me()).collect();
    peers.iter().all(|peer| {
        let mut expected = all.clone();
        expected.remove(&peer.me());
        peer.bonded() == expected
    })
}

fn nodes(sim: &Sim, count: usize) -> Vec<SimNode> {
    (0..count).map(|ix| sim.node(&format!("n{ix}"))).collect()
}

async fn mesh(nodes: &[SimNode]) -> Vec<Peer> {
    let mut peers = Vec::new();
    for node in nodes {
        peers.push(Peer::on(node, spec()).await);
    }
    peers
}

async fn assert_complete(peers: &[Peer]) {
    let refs: Vec<_> = peers.iter().collect();
    let bonded = || peers.iter().map(Peer::bonded).collect::<Vec<_>>();
    assert!(eventually(SOON, || complete(&refs)).await, "the mesh does not complete: {:?}", bonded());
}

#[test]
fn meshes_of_three_and_five_complete_within_a_second() {
    for (seed, size) in (0..20).map(|seed| (seed, if seed % 2 == 0 { 3 } else { 5 })) {
        Sim::run(seed, |sim| async move {
            let peers = mesh(&nodes(&sim, size)).await;
            let started = sim.elapsed();
            assert_complete(&peers).await;
            let took = sim.elapsed().saturating_sub(started);
            assert!(took < Duration::from_secs(1), "{took:?}");
            for peer in &peers {
                assert!(peer.ups() < 2 * size, "bonds flap: {:?}", peer.seen());
            }
        });
    }
}

#[test]
fn both_dial_at_once_and_one_bond_stays() {
    for seed in 0..20 {
        Sim::run(seed, |sim| async move {
            // No rule decides who dials first: both are told at the same time and wait for nothing.
            let peers = mesh(&nodes(&sim, 2)).await;
            for peer in &peers {
                peer.bonds.group().mesh().dial_at_once_for_tests();
            }
            assert_complete(&peers).await;
            let ids = || peers.iter().map(|peer| peer.bonds.group().mesh().bonds().map(|b| b.id).collect::<Vec<_>>());
            assert!(eventually(SOON, || ids().collect::<BTreeSet<_>>().len() == 1).await, "one link at both ends");
            let ups = peers.iter().map(Peer::ups).sum::<usize>();
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(ids().collect::<BTreeSet<_>>().len() == 1 && complete(&peers.iter().collect::<Vec<_>>()));
            let later = peers.iter().map(Peer::ups).sum::<usize>();
            assert!(later <= ups.max(4), "bonds flap: {ups} then {later}");
        });
    }
}

#[test]
fn messages_and_calls_arrive_in_order() {
    Sim::run(1, |sim| async move {
        let peers = mesh(&nodes(&sim, 2)).await;
        assert_complete(&peers).await;
        let [one, other] = &peers[..] else { panic!("two") };
        for term in 0..1000 {
            one.send(one.envelope(other.me(), term));
        }
        let answers = (0..100).map(|n| one.call(other.network.local().id(), Bytes::from(format!("call {n}"))));
        let answers = futures::future::join_all(answers).await;
        assert_eq!(answers[99], Ok(Bytes::from("call 99")));
        let dropped = one.call(other.network.local().id(), Bytes::from_static(b"drop")).await;
        assert_eq!(dropped, Err(CallFailed::Lost));
        let large = Bytes::from(vec![0; MAX_CALL + 1]);
        let refused = one.call(other.network.local().id(), large.clone()).await;
        assert_eq!(refused, Err(CallFailed::TooLarge { len: large.len(), limit: MAX_CALL }));
        let large = large.slice(1..);
        assert_eq!(one.call(other.network.local().id(), large.clone()).await, Ok(large), "the limit itself fits");
        assert_eq!(one.call(one.network.local().id(), Bytes::new()).await, Err(CallFailed::NotSent));
        let seen = other.seen();
        let terms = seen.iter().filter_map(|seen| if let Seen::Message(m) = seen { Some(m.term) } else { None });
        assert!(terms.eq(0..1000));
        let calls = seen.iter().filter_map(|seen| if let Seen::Call(c) = seen { Some(c.clone()) } else { None });
        assert!(calls.take(100).eq((0..100).map(|n| Bytes::from(format!("call {n}")))));
        let rtt = || one.bonds.peers()[0].rtt.is_some_and(|rtt| rtt >= Duration::from_millis(2));
        assert!(eventually(SOON, rtt).await);
        assert_eq!(one.bonds.dropped(), 0);
        // Not a member of this bond: another incarnation.
        one.send(one.envelope(member(other.network.local().id(), 9), 1));
        assert_eq!(one.bonds.dropped(), 1);
    });
}

#[test]
fn a_partition_is_noticed_and_heals() {
    for seed in 0..5 {
        Sim::run(seed, |sim| async move {
            let nodes = nodes(&sim, 3);
            let peers = mesh(&nodes).await;
            assert_complete(&peers).await;
            sim.partition(&nodes[..1], &nodes[1..]);
            let cut = sim.elapsed();
            let alone = || peers[0].bonded().is_empty() && peers[1].bonded().len() == 1 && peers[2].bonded().len() == 1;
            assert!(eventually(SOON, alone).await);
            let noticed = sim.elapsed().saturating_sub(cut);
            assert!(noticed < Duration::from_secs(4), "noticed after {noticed:?}");
            // Longer than discovery's lease.
            tokio::time::sleep(Duration::from_mins(1)).await;
            sim.heal();
            let healed = sim.elapsed();
            assert_complete(&peers).await;
            let took = sim.elapsed().saturating_sub(healed);
            assert!(took < Duration::from_secs(6), "healed after {took:?}");
        });
    }
}

#[test]
fn a_call_over_a_bond_that_is_lost_fails() {
    Sim::run(1, |sim| async move {
        let nodes = nodes(&sim, 2);
        let peers = mesh(&nodes).await;
        assert_complete(&peers).await;
        nodes[1].crash();
        let lost = peers[0].call(nodes[1].id(), Bytes::from_static(b"into the dark")).await;
        assert_eq!(lost, Err(CallFailed::Lost));
        assert_eq!(peers[0].call(nodes[1].id(), Bytes::new()).await, Err(CallFailed::NotSent));
        assert_eq!(peers[0].seen().last(), Some(&Seen::Down(member(nodes[1].id(), 1))));
    });
}

#[test]
fn a_member_that_crashed_returns_as_a_new_incarnation() {
    for seed in 0..5 {
        Sim::run(seed, |sim| async move {
            let nodes = nodes(&sim, 3);
            let mut peers = mesh(&nodes).await;
            assert_complete(&peers).await;
            nodes[2].crash();
            let back = sim.elapsed();
            peers[2] = Peer::on(&nodes[2], Spec { incarnation: 2, ..spec() }).await;
            assert_complete(&peers).await;
            let took = sim.elapsed().saturating_sub(back);
            // Its old bonds have not timed out yet: the new one replaces them.
            assert!(took < Duration::from_secs(2), "back after {took:?}");
            let id = nodes[2].id();
            let of_it: Vec<_> = peers[0]
                .seen()
                .into_iter()
                .filter(|seen| {
                    [1, 2].map(|life| member(id, life)).iter().any(|m| [Seen::Up(*m), Seen::Down(*m)].contains(seen))
                })
                .collect();
            assert_eq!(of_it, [Seen::Up(member(id, 1)), Seen::Down(member(id, 1)), Seen::Up(member(id, 2))]);
            // The earlier life is over.
            nodes[2].crash();
            peers[2] = Peer::on(&nodes[2], spec()).await;
            let refused = |peer: &Peer, by_peer| {
                peer.bonds.refusals().iter().any(|r| r.reason == Refusal::OldIncarnation && r.by_peer == by_peer)
            };
            assert!(eventually(SOON, || refused(&peers[0], false) && refused(&peers[2], true)).await);
        });
    }
}

#[test]
fn a_new_life_in_one_process_makes_its_bonds_anew() {
    Sim::run(1, |sim| async move {
        let nodes = nodes(&sim, 3);
        let peers = mesh(&nodes).await;
        assert_complete(&peers).await;
        peers[1].bonds.set_me(member(nodes[1].id(), 5), Start::default());
        assert_complete(&peers).await;
        assert!(peers[0].bonded().contains(&member(nodes[1].id(), 5)));
    });
}

#[test]
fn who_leaves_is_gone_at_once_and_may_return() {
    Sim::run(1, |sim| async move {
        let nodes = nodes(&sim, 3);
        let mut peers = mesh(&nodes).await;
        assert_complete(&peers).await;
        let left = sim.elapsed();
        peers[2].bonds.leave().await;
        assert!(eventually(SOON, || peers[0].bonded().len() == 1 && peers[1].bonded().len() == 1).await);
        assert!(sim.elapsed().saturating_sub(left) < Duration::from_millis(700));
        let network = peers[2].network.clone();
        tokio::time::sleep(Duration::from_secs(5)).await;
        peers[2] = Peer::join(network, spec());
        assert_complete(&peers).await;
    });
}

#[test]
fn a_wrong_key_is_refused_at_both_ends() {
    Sim::run(1, |sim| async move {
        let nodes = nodes(&sim, 2);
        let one = Peer::on(&nodes[0], spec()).await;
        let other = Peer::on(&nodes[1], Spec { key: GroupKey::from_bytes([6; 32]), ..spec() }).await;
        let refused = |peer: &Peer| peer.bonds.refusals().iter().any(|refused| refused.reason == Refusal::WrongKey);
        assert!(eventually(SOON, || refused(&one) && refused(&other)).await);
        assert!(one.bonded().is_empty() && other.bonded().is_empty() && one.ups() + other.ups() == 0);
    });
}

#[test]
fn another_size_is_refused_at_both_ends() {
    Sim::run(1, |sim| async move {
        let nodes = nodes(&sim, 2);
        let one = Peer::on(&nodes[0], spec()).await;
        let terms = Terms { size: 5, ..spec().terms };
        let other = Peer::on(&nodes[1], Spec { terms, ..spec() }).await;
        let said = |peer: &Peer| peer.bonds.refusals().first().map(|refused| refused.reason.to_string());
        assert!(eventually(SOON, || said(&one).is_some() && said(&other).is_some()).await);
        assert_eq!(said(&one).as_deref(), Some("incompatible size: 3 here, 5 there"));
        assert_eq!(said(&other).as_deref(), Some("incompatible size: 5 here, 3 there"));
        assert!(one.bonded().is_empty() && other.bonded().is_empty() && one.ups() + other.ups() == 0);
    });
}

#[test]
fn a_mesh_completes_when_discovery_is_slow() {
    Sim::run(3, |sim| async move {
        // Everyone knows the first node only; the others hear of each other from it, over its bonds.
        sim.rendezvous(false);
        let nodes = nodes(&sim, 5);
        let mut peers = Vec::new();
        for node in &nodes {
            let network = node.builder("net").with_bootstrap(nodes[0].addr()).build().await.expect("starts");
            peers.push(Peer::join(network, spec()));
        }
        let started = sim.elapsed();
        assert_complete(&peers).await;
        let took = sim.elapsed().saturating_sub(started);
        assert!(took < Duration::from_secs(2), "{took:?}");
    });
}

#[test]
fn a_worker_that_does_not_read_loses_nothing_and_no_task_is_left() {
    Sim::run(1, |sim| async move {
        let nodes = nodes(&sim, 2);
        let one = Peer::on(&nodes[0], spec()).await;
        let network = nodes[1].builder("net").build().await.expect("starts");
        let me = member(nodes[1].id(), 1);
        let Spec { key, terms, .. } = spec();
        let identity = identity(key, terms, me);
        let (bonds, mut events) = Bonds::join(network.groups().bonds(), network.node(), network.discovery(), identity);
        bonds.open();
        assert!(eventually(SOON, || one.bonded().len() == 1).await);
        let previous = Position { index: 1, term: 1, hash: crate::groups::raft::Digest::default() };
        let chunk = || Message::Chunk { snapshot: previous.hash, chunk: 0, data: Bytes::from(vec![0; 1 << 18]) };
        // More than the inbox and the link hold; the sender's queue is bounded, so it is sent at its pace.
        let mut sent = 0;
        for round in 0..400 {
            let before = one.bonds.dropped();
            one.send(Envelope { body: chunk(), ..one.envelope(me, round) });
            sent += u64::from(one.bonds.dropped() == before);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Longer than the limit of silence: nothing was read, and the bond is alive.
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(one.bonded().len(), 1);
        assert!(sent < 400, "memory is bounded");
        let mut got = 0;
        while got < sent {
            if let Some(BondEvent::Message(_)) = events.recv().await {
                got += 1;
            }
        }
        assert_eq!(one.ups(), 1);
        let probe = network.task_probe();
        drop((bonds, events));
        assert!(eventually(SOON, || !probe.names().iter().any(|name| name.starts_with("bond"))).await, "{probe:?}");
        assert!(eventually(SOON, || one.bonded().is_empty()).await);
    });
}

/// Not a figure to rely on (a debug build, a loaded machine): it shows that batching works at all. Run alone, in release,
/// it prints the throughput.
#[tokio::test(flavor = "multi_thread")]
async fn small_messages_over_loopback() {
    crate::testing::trace();
    let network = NetworkId::random();
    let start =
        async || Network::builder(network).with_listen(([127, 0, 0, 1], 0).into()).build().await.expect("starts");
    let (one, other) = (Peer::join(start().await, spec()), start().await);
    let Spec { key, terms, .. } = spec();
    let me = member(other.local().id(), 1);
    let identity = identity(key, terms, me);
    let (bonds, mut events) = Bonds::join(other.groups().bonds(), other.node(), other.discovery(), identity);
    bonds.open();
    assert!(eventually(SOON, || one.bonded().len() == 1).await);
    let count: u64 = if cfg!(debug_assertions) { 50_000 } else { 2_000_000 };
    let started = tokio::time::Instant::now();
    let sender = async {
        let mut term = 0;
        while term < count {
            let before = one.bonds.dropped();
            one.send(one.envelope(me, term));
            if one.bonds.dropped() == before {
                term += 1;
            } else {
                tokio::task::yield_now().await;
            }
        }
    };
    let receiver = async {
        let mut expected = 0;
        while expected < count {
            match events.recv().await {
                Some(BondEvent::Message(envelope)) => {
                    assert_eq!(envelope.term, expected);
                    expected += 1;
                }
                Some(_) => {}
                None => panic!("the bond ended"),
            }
        }
    };
    tokio::join!(sender, receiver);
    let took = started.elapsed();
    let rate = count as f64 / took.as_secs_f64();
    println!("{count} messages in {took:?}: {rate:.0} per second");
}

/// Whether a peer has seen the refusal, or said it.
fn refusal_seen(peer: &Peer, of: PeerId, reason: &Refusal, by_peer: bool) -> bool {
    peer.bonds.refusals().iter().any(|it| (it.peer, &it.reason, it.by_peer) == (of, reason, by_peer))
}

#[test]
fn an_older_copy_is_refused_by_name_and_a_restart_is_not() {
    Sim::run(1, |sim| async move {
        let nodes = nodes(&sim, 2);
        let start = async |node: &SimNode| node.restart("net").build().await.expect("starts");
        let witness = Peer::durable(start(&nodes[0]).await, (1, 1), (3, 10));
        let mut other = Peer::durable(start(&nodes[1]).await, (4, 40), (3, 10));
        assert!(eventually(SOON, || complete(&[&witness, &other])).await);
        // What it tells later counts as what it said first.
        other.bonds.set_extent(Extent { term: 3, last: 25, verified: 22, committed: 20 });
        let id = nodes[1].id();
        let node = NodeId::from_bytes(*id.as_bytes());
        let seen = || witness.bonds.group().mesh().marks().get(node).map(|mark| mark.committed);
        assert!(eventually(SOON, || seen() == Some(20)).await, "{:?}", seen());
        // Whether it is the number of the start, the term or the end that is less.
        for (number, run, term, last) in
            [(4, 41, 9, 90), (3, 30, 9, 90), (5, 50, 2, 90), (5, 50, 3, 21), (5, 50, 4, 19)]
        {
            nodes[1].crash();
            other = Peer::durable(start(&nodes[1]).await, (number, run), (term, last));
            let by_name = || {
                refusal_seen(&witness, id, &Refusal::OlderCopy, false)
                    && refusal_seen(&other, nodes[0].id(), &Refusal::OlderCopy, true)
            };
            assert!(eventually(SOON, by_name).await, "start {number}, term {term}, last {last}");
            assert!(other.bonded().is_empty());
        }
        nodes[1].crash();
        let returned = Peer::durable(start(&nodes[1]).await, (5, 50), (4, 20));
        assert!(eventually(SOON, || complete(&[&witness, &returned])).await);
    });
}

#[test]
fn what_one_member_has_witnessed_the_others_know() {
    Sim::run(2, |sim| async move {
        let nodes = nodes(&sim, 3);
        let start = async |node: &SimNode| node.restart("net").build().await.expect("starts");
        let first = Peer::durable(start(&nodes[0]).await, (1, 1), (3, 10));
        let third = Peer::durable(start(&nodes[2]).await, (7, 70), (3, 30));
        assert!(eventually(SOON, || complete(&[&first, &third])).await);
        nodes[2].crash();
        // It never met the third one.
        let second = Peer::durable(start(&nodes[1]).await, (1, 1), (3, 10));
        assert!(eventually(SOON, || complete(&[&first, &second])).await);
        let id = nodes[2].id();
        let known = || second.bonds.group().mesh().marks().get(NodeId::from_bytes(*id.as_bytes())).is_some();
        assert!(eventually(SOON, known).await);
        nodes[0].crash();
        let copy = Peer::durable(start(&nodes[2]).await, (7, 71), (3, 30));
        assert!(eventually(SOON, || refusal_seen(&second, id, &Refusal::OlderCopy, false)).await);
        // Whoever answers a dial holds a bond until it hears the verdict of the other side.
        assert!(eventually(SOON, || copy.bonded().is_empty()).await);
        let of = |it: &Member| it.node == NodeId::from_bytes(*id.as_bytes());
        assert!(!second.bonded().iter().any(of), "{:?}", second.bonded());
        let (marks, _) = second.bonds.marks(Start::default());
        assert!(marks.others.contains_key(&NodeId::from_bytes(*id.as_bytes())), "to be stored");
        assert!(!marks.others.contains_key(&second.me().node), "not its own");
    });
}

#[test]
fn of_two_processes_on_copies_of_one_storage_the_later_is_refused_and_both_are_told() {
    Sim::run(3, |sim| async move {
        let nodes = nodes(&sim, 2);
        let twin = sim.twin(&nodes[1], "twin");
        assert_eq!(twin.id(), nodes[1].id());
        let start =
            async |node: &SimNode| node.restart("net").with_bootstrap(nodes[0].addr()).build().await.expect("starts");
        let witness = Peer::durable(nodes[0].restart("net").build().await.expect("starts"), (1, 1), (3, 10));
        let original = Peer::durable(start(&nodes[1]).await, (4, 40), (3, 10));
        assert!(eventually(SOON, || complete(&[&witness, &original])).await);
        let copy = Peer::durable(start(&twin).await, (5, 50), (3, 10));
        let id = nodes[1].id();
        let told = || {
            refusal_seen(&witness, id, &Refusal::SecondStart, false)
                && refusal_seen(&copy, nodes[0].id(), &Refusal::SecondStart, true)
                && refusal_seen(&original, id, &Refusal::SecondStart, false)
        };
        assert!(eventually(SOON, told).await, "{:?} {:?}", copy.bonds.refusals(), original.bonds.refusals());
        assert!(copy.bonded().is_empty());
        assert_eq!(witness.ups(), 1, "the bond of the original was not touched: {:?}", witness.seen());
        // When the original is gone the copy is the member.
        nodes[1].crash();
        assert!(eventually(SOON, || copy.bonded().len() == 1).await);
    });
}

/// Entries that anybody can make: signed by keys of their own, with addresses at which nobody answers.
fn made_up(network: NetworkId, count: u16) -> Vec<crate::discovery::PeerEntry> {
    let entry = |n: u16| {
        let mut secret = [7; 32];
        secret[..2].copy_from_slice(&n.to_be_bytes());
        let secret = iroh::SecretKey::from_bytes(&secret);
        let [high, low] = n.to_be_bytes();
        let addr = iroh::EndpointAddr::from(secret.public()).with_ip_addr(([10, 250, high, low], 4433).into());
        let mut said = crate::discovery::LocalEntry::new(addr);
        said.groups.insert(GroupId::from("group"));
        let version = crate::discovery::Version { run_id: 1, seq: 0 };
        said.sign(version, network, &secret).expect("small")
    };
    (0..count).map(entry).collect()
}

#[test]
fn made_up_entries_keep_no_member_from_bonding() {
    for count in [300, 1000] {
        Sim::run(u64::from(count), |sim| async move {
            let nodes = nodes(&sim, 3);
            let made_up = made_up(NetworkId::from("net"), count);
            let mut peers = Vec::new();
            for node in &nodes {
                let network = node.restart("net").build().await.expect("starts");
                made_up
                    .iter()
                    .for_each(|entry| _ = network.discovery().offer(entry.id(), entry.signed()).expect("is valid"));
                peers.push(Peer::join(network, spec()));
            }
            let started = sim.elapsed();
            assert_complete(&peers).await;
            let took = sim.elapsed().saturating_sub(started);
            assert!(took < Duration::from_secs(10), "{count} made-up entries: {took:?}");
            let dialling = peers[0].bonds.group().mesh().dialling();
            assert!(dialling <= 64, "{dialling} dials at once");
            // A member that returns is met at once, too.
            nodes[2].crash();
            peers.pop();
            let network = nodes[2].restart("net").build().await.expect("starts");
            made_up.iter().for_each(|entry| _ = network.discovery().offer(entry.id(), entry.signed()));
            let back = sim.elapsed();
            peers.push(Peer::join(network, Spec { incarnation: 2, ..spec() }));
            assert_complete(&peers).await;
            let took = sim.elapsed().saturating_sub(back);
            assert!(took < Duration::from_secs(5), "back after {took:?}");
        });
    }
}

#[test]
fn members_that_a_stranger_hides_among_made_up_ones_bond_without_being_known() {
    Sim::run(5, |sim| async move {
        // Nobody is connected to anybody: only entries tell of the other one.
        sim.rendezvous(false);
        let nodes = nodes(&sim, 2);
        let mut networks = Vec::new();
        for node in &nodes {
            networks.push(node.restart("net").build().await.expect("starts"));
        }
        for (own, other) in [(0, 1), (1, 0)] {
            let entry = networks[other].discovery().me();
            for entry in made_up(NetworkId::from("net"), 300).iter().chain([&entry]) {
                networks[own].discovery().offer(entry.id(), entry.signed()).expect("is valid");
            }
        }
        let peers: Vec<_> = networks.into_iter().map(|network| Peer::join(network, spec())).collect();
        let entry = peers[1].network.discovery().signed_local();
        peers[0]
            .network
            .discovery()
            .offer(peers[1].network.local().id(), &entry)
            .expect("says that it is in the group");
        assert_complete(&peers).await;
    });
}

#[test]
fn a_mark_of_another_member_refuses_a_bond_that_was_made_before() {
    Sim::run(6, |sim| async move {
        let nodes = nodes(&sim, 2);
        let one = Peer::durable(nodes[0].restart("net").build().await.expect("starts"), (1, 1), (3, 10));
        let other = Peer::durable(nodes[1].restart("net").build().await.expect("starts"), (5, 50), (3, 10));
        assert!(eventually(SOON, || complete(&[&one, &other])).await);
        let node = NodeId::from_bytes(*nodes[1].id().as_bytes());
        let mark =
            |number, run, committed| Mark { committed, ..Mark::first(1, Start { number, run, term: 3, last: 10 }, 3) };
        for harmless in [mark(5, 50, 99), mark(4, 40, 10), mark(6, 60, 99)] {
            one.bonds.group().learn(&[(node, harmless)]);
            assert_eq!(one.bonded().len(), 1, "{harmless:?}");
        }
        one.bonds.group().learn(&[(node, mark(4, 40, 11))]);
        assert!(eventually(SOON, || refusal_seen(&other, nodes[0].id(), &Refusal::OlderCopy, true)).await);
        assert!(refusal_seen(&one, nodes[1].id(), &Refusal::OlderCopy, false));
    });
}

/// The refused one takes the link for its bond already when it is the one that was dialled.
#[test]
fn whoever_is_refused_hears_the_reason() {
    for seed in 1..=10 {
        Sim::run(seed, |sim| async move {
            let nodes = nodes(&sim, 2);
            let seen = Mark::first(1, Start { number: 5, run: 50, term: 3, last: 10 }, 3);
            let start = Start { number: 2, run: 2, ..Start::default() };
            let others = [(NodeId::from_bytes(*nodes[1].id().as_bytes()), seen)].into();
            let one = nodes[0].restart("net").build().await.expect("starts");
            let me = member(one.local().id(), 1);
            let marks = Marks { start, others };
            let one = Peer::with(one, Identity { marks, ..identity(spec().key, spec().terms, me) });
            let other = Peer::durable(nodes[1].restart("net").build().await.expect("starts"), (4, 40), (3, 10));
            assert!(eventually(SOON, || refusal_seen(&other, nodes[0].id(), &Refusal::OlderCopy, true)).await);
            tokio::time::sleep(Duration::from_secs(20)).await;
            let refusals = other.bonds.refusals();
            assert!(refusals.iter().all(|it| it.reason == Refusal::OlderCopy), "seed {seed}: {refusals:?}");
            assert!(one.bonded().is_empty());
        });
    }
}
