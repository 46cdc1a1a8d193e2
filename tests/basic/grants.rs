//! Grants on declarations, in networks of an authority: who may produce and consume a stream, be the primary of a store or have a
//! replica of it, be a member of a group or call it. Both ends enforce it, and both say what is missing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use mosaik::{
    Authority, Network, NetworkId, Ticket,
    builtin::NoOp,
    diagnostics::{Fault, Survey},
    discovery::Bootstrap,
    groups::{Group, GroupKey},
    network::CloseCode,
    node::{Declared, StoreType, StreamType},
    prelude::*,
    stores::{ReplicaState, View},
    streams::{ChannelState, Consumer, DisconnectReason, Event, Producer, WaitReason},
    testing::{Sim, SimNode, eventually},
    trust::{Claims, MissingGrant, Reason, RefusedBy, Right},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::streams::{Data1, event, soon};

const NET: NetworkId = NetworkId::from_name("grants tests");
/// When a simulation begins, seconds since the Unix epoch.
const BEGIN: u64 = 1_767_225_600;
const SOON: Duration = Duration::from_secs(20);
const STREAM: &str = "bids";

fn authority() -> Authority {
    Authority::from_bytes(&[1; 32])
}

fn ticket(node: &SimNode, grants: &[&str]) -> Ticket {
    let claims = Claims::new(BEGIN, BEGIN + 86_400);
    let claims = grants.iter().fold(claims, |claims, grant| claims.with_grant(*grant));
    authority().issue(NET, node.id(), claims).unwrap()
}

/// A node with a ticket of these grants.
async fn join(node: &SimNode, grants: &[&str]) -> Network {
    let builder = node.builder(NET).with_authority(authority().id()).with_ticket(ticket(node, grants));
    builder.build().await.unwrap()
}

fn produces(network: &Network) -> Producer<Data1> {
    let producer = network.streams().producer().with_stream_id(STREAM);
    producer.with_produce_grants(["builder"]).with_consume_grants(["relay", "builder"]).build().unwrap()
}

fn consumes(network: &Network) -> Consumer<Data1> {
    network.streams().consumer().with_stream_id(STREAM).with_produce_grants(["builder"]).build()
}

/// What a node says last about a peer that lacks a grant, and who refused.
fn missing(node: &Network, peer: &Network) -> Option<(RefusedBy, MissingGrant)> {
    let about = |refusal: &mosaik::trust::Refusal| refusal.peer == peer.local().id();
    node.trust().refusals().into_iter().filter(about).find_map(|refusal| match refusal.reason {
        Reason::GrantMissing(missing) => Some((refusal.by, missing)),
        _ => None,
    })
}

/// Both ends say that the second lacks the grant for this, and count it.
async fn both_say(one: &Network, other: &Network, right: Right, have: &[&str], need: &[&str]) {
    let says = || missing(one, other).is_some() && missing(other, one).is_some();
    assert!(eventually(SOON, says).await, "{:?} {:?}", one.trust().refusals(), other.trust().refusals());
    for (by, (said_by, missing)) in
        [(RefusedBy::Us, missing(one, other).unwrap()), (RefusedBy::Them, missing(other, one).unwrap())]
    {
        assert_eq!((said_by, missing.right), (by, right));
        assert_eq!((missing.have, missing.need), (texts(have), texts(need)));
    }
    for node in [one, other] {
        assert!(node.trust().refused()["grant_missing"] >= 1);
    }
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn not_granted(event: &Event) -> Option<(RefusedBy, MissingGrant)> {
    match event {
        Event::NotGranted { by, missing, .. } => Some((*by, missing.clone())),
        _ => None,
    }
}

fn disconnected(event: &Event) -> Option<DisconnectReason> {
    match event {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    }
}

#[test]
fn who_may_not_consume_gets_nothing_and_no_predicate_is_asked() {
    Sim::run(1, |sim| async move {
        let [builder, relay, stranger] = ["builder", "relay", "stranger"].map(|name| sim.node(name));
        let (builder, relay) = (join(&builder, &["builder"]).await, join(&relay, &["relay"]).await);
        let stranger = join(&stranger, &["eu"]).await;
        let (asked, id) = (Arc::new(AtomicBool::new(false)), stranger.local().id());
        let seen = asked.clone();
        let producer =
            builder.streams().producer::<Data1>().with_stream_id(STREAM).with_consume_grants(["relay", "builder"]);
        let producer = producer.accept_if(move |peer| {
            seen.fetch_or(peer.id() == id, Ordering::SeqCst);
            true
        });
        let producer = producer.build().unwrap();
        let (mut allowed, refused) = (consumes(&relay), consumes(&stranger));
        let mut events = refused.events();
        producer.send(Data1(1)).await.unwrap();
        assert_eq!(allowed.next().await, Some(Data1(1)));

        let (by, said) = event(&mut events, not_granted).await;
        assert_eq!((by, said.right, said.of.as_str()), (RefusedBy::Them, Right::Consume, STREAM));
        assert_eq!(said.to_string(), "grant missing to consume the stream bids: has eu, needs builder or relay");
        both_say(&builder, &stranger, Right::Consume, &["eu"], &["builder", "relay"]).await;
        let states: Vec<_> = refused.candidates().map(|it| it.state()).collect();
        assert_eq!(states, [ChannelState::Waiting(WaitReason::NotGranted)]);
        assert_eq!((producer.consumers().count(), asked.load(Ordering::SeqCst)), (1, false));
    });
}

#[test]
fn who_may_not_produce_is_not_subscribed_to_and_no_predicate_is_asked() {
    Sim::run(2, |sim| async move {
        let [builder, relay, stranger] = ["builder", "relay", "stranger"].map(|name| sim.node(name));
        let (builder, relay) = (join(&builder, &["builder"]).await, join(&relay, &["relay"]).await);
        let stranger = join(&stranger, &["eu"]).await;
        let (asked, id) = (Arc::new(AtomicBool::new(false)), stranger.local().id());
        let seen = asked.clone();
        let consumer = relay.streams().consumer::<Data1>().with_stream_id(STREAM).with_produce_grants(["builder"]);
        let mut consumer = consumer
            .subscribe_if(move |peer| {
                seen.fetch_or(peer.id() == id, Ordering::SeqCst);
                true
            })
            .build();
        let mut events = consumer.events();
        let (honest, forger) = (produces(&builder), produces(&stranger));
        let (by, said) = event(&mut events, not_granted).await;
        assert_eq!((by, said.right, said.have), (RefusedBy::Us, Right::Produce, texts(&["eu"])));
        honest.when().subscribed().await;
        honest.send(Data1(1)).await.unwrap();
        assert_eq!(consumer.next().await, Some(Data1(1)));
        assert_eq!((forger.consumers().count(), asked.load(Ordering::SeqCst)), (0, false));
        let (by, said) = missing(&relay, &stranger).unwrap();
        assert_eq!((by, said.right), (RefusedBy::Us, Right::Produce));
        // The one without the grant says so of itself, too.
        assert!(eventually(SOON, || missing(&stranger, &stranger).is_some()).await);
        assert!(missing(&builder, &builder).is_none());
    });
}

/// A grant goes with one ticket and comes with the next, at nodes that run on.
#[test]
fn a_subscription_ends_with_the_grant_of_its_consumer_and_comes_with_the_next() {
    Sim::run(3, |sim| async move {
        let [builder, machine] = ["builder", "relay"].map(|name| sim.node(name));
        let (builder, relay) = (join(&builder, &["builder"]).await, join(&machine, &["relay"]).await);
        let (producer, mut consumer) = (produces(&builder), consumes(&relay));
        let mut events = consumer.events();
        producer.when().subscribed().await;
        producer.send(Data1(1)).await.unwrap();
        assert_eq!(consumer.next().await, Some(Data1(1)));

        relay.trust().replace_ticket(&ticket(&machine, &["eu"])).unwrap();
        let reason = event(&mut events, disconnected).await;
        assert_eq!(reason, DisconnectReason::Closed(CloseCode::NotGranted));
        let (by, said) = event(&mut events, not_granted).await;
        assert_eq!((by, said.have, said.need), (RefusedBy::Them, texts(&["eu"]), texts(&["builder", "relay"])));
        assert_eq!(producer.consumers().count(), 0);
        both_say(&builder, &relay, Right::Consume, &["eu"], &["builder", "relay"]).await;

        relay.trust().replace_ticket(&ticket(&machine, &["eu", "relay"])).unwrap();
        soon("a subscription", producer.when().subscribed()).await;
        producer.send(Data1(2)).await.unwrap();
        assert_eq!(soon("an item", consumer.next()).await, Some(Data1(2)));
    });
}

#[test]
fn a_subscription_ends_with_the_grant_of_its_producer_and_comes_with_the_next() {
    Sim::run(4, |sim| async move {
        let [machine, relay] = ["builder", "relay"].map(|name| sim.node(name));
        let (builder, relay) = (join(&machine, &["builder"]).await, join(&relay, &["relay"]).await);
        let (producer, mut consumer) = (produces(&builder), consumes(&relay));
        let mut events = consumer.events();
        producer.when().subscribed().await;
        producer.send(Data1(1)).await.unwrap();
        assert_eq!(consumer.next().await, Some(Data1(1)));

        builder.trust().replace_ticket(&ticket(&machine, &["eu"])).unwrap();
        let said = event(&mut events, not_granted).await;
        assert_eq!((said.0, said.1.right, &said.1.have), (RefusedBy::Us, Right::Produce, &texts(&["eu"])));
        assert_eq!(event(&mut events, disconnected).await, DisconnectReason::NotGranted(said.1));
        soon("the end", producer.when().unsubscribed()).await;
        assert!(eventually(SOON, || missing(&builder, &builder).is_some()).await);

        builder.trust().replace_ticket(&ticket(&machine, &["builder"])).unwrap();
        soon("a subscription", producer.when().subscribed()).await;
        producer.send(Data1(2)).await.unwrap();
        assert_eq!(soon("an item", consumer.next()).await, Some(Data1(2)));
    });
}

/// A renewed ticket with the same grants is nothing that a subscription, a bond or a client notices.
#[test]
fn a_ticket_with_the_same_grants_ends_nothing() {
    Sim::run(11, |sim| async move {
        let [one, two] = ["one", "two"].map(|name| sim.node(name));
        let all = ["builder", "relay", "keeper", "front"];
        let (first, second) = (join(&one, &all).await, join(&two, &all).await);
        let (producer, consumer) = (produces(&first), consumes(&second));
        let (member, _other) = (member(&first).await, member(&second).await);
        assert!(eventually(SOON, || member.bonds().len() == 1 && consumer.producers().count() == 1).await);
        let mut events = consumer.events();
        for (node, machine) in [(&first, &one), (&second, &two)] {
            node.trust().replace_ticket(&ticket(machine, &all)).unwrap();
        }
        let renewed = |node: &Network, of: &Network| {
            let catalog = node.discovery().catalog();
            catalog.get(of.local().id()).and_then(|peer| peer.ticket()) == of.trust().ticket().map(|it| it.digest())
        };
        assert!(eventually(SOON, || renewed(&first, &second) && renewed(&second, &first)).await);
        sleep(Duration::from_secs(30)).await;
        assert!(events.next().now_or_never().is_none(), "no event");
        assert_eq!((producer.consumers().count(), member.bonds().len()), (1, 1));
        assert!(first.trust().refusals().is_empty() && second.trust().refusals().is_empty());
    });
}

/// In an open network nobody can hold a grant, and a trial goes on as without them.
#[test]
fn without_an_authority_everybody_may() {
    Sim::run(5, |sim| async move {
        let [a, b] = ["a", "b"].map(|name| sim.node(name));
        let (a, b) = (a.builder(NET).build().await.unwrap(), b.builder(NET).build().await.unwrap());
        let (producer, mut consumer) = (produces(&a), consumes(&b));
        producer.when().subscribed().await;
        producer.send(Data1(1)).await.unwrap();
        assert_eq!(consumer.next().await, Some(Data1(1)));
        assert!(a.trust().refusals().is_empty() && b.trust().refusals().is_empty());
    });
}

/// The total of what was added.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Total(u64);

impl View for Total {
    type Delta = u64;
    const NAME: &'static str = "total";

    fn fold(&mut self, delta: u64) {
        self.0 += delta;
    }
}

#[test]
fn a_store_has_no_primary_and_no_replica_without_the_grant() {
    Sim::run(6, |sim| async move {
        let names = ["owner", "reader", "forger", "stranger"];
        let [owner, reader, forger, stranger] = names.map(|name| sim.node(name));
        let (owner, reader) = (join(&owner, &["owner"]).await, join(&reader, &["reader"]).await);
        let (forger, stranger) = (join(&forger, &["reader"]).await, join(&stranger, &["eu"]).await);
        let primary = |net: &Network| {
            let primary = net.stores().primary::<Total>("total").with_primary_grants(["owner"]);
            primary.with_replica_grants(["reader"]).build().unwrap()
        };
        let replica = |net: &Network| net.stores().replica::<Total>("total").with_primary_grants(["owner"]).build();
        let forged = primary(&forger);
        forged.apply(1_000).await.unwrap();
        let (follows, refused) = (replica(&reader), replica(&stranger));
        assert!(eventually(SOON, || missing(&reader, &forger).is_some()).await);
        let (by, said) = missing(&reader, &forger).unwrap();
        assert_eq!((by, said.right, said.of.as_str()), (RefusedBy::Us, Right::Primary, "total"));
        assert_eq!((follows.state(), forged.replicas().count()), (ReplicaState::Alone, 0));

        let primary = primary(&owner);
        let position = primary.apply(7).await.unwrap();
        soon("the delta", follows.when().reaches(position)).await.unwrap();
        assert_eq!((follows.read().0, follows.stats().primaries), (7, 1));
        both_say(&owner, &stranger, Right::Replica, &["eu"], &["reader"]).await;
        assert_eq!((refused.state(), refused.read().0, primary.replicas().count()), (ReplicaState::Alone, 0, 1));
    });
}

/// A member of a group of two grants.
async fn member(network: &Network) -> Group<NoOp> {
    let group = network.groups().with_key(GroupKey::from_bytes([7; 32])).with_state_machine(NoOp);
    group.with_member_grants(["keeper"]).with_call_grants(["front"]).join().await.unwrap()
}

#[test]
fn a_group_has_no_member_and_no_caller_without_the_grant() {
    Sim::run(7, |sim| async move {
        let names = ["one", "two", "front", "stranger"];
        let [one, two, front, stranger] = names.map(|name| sim.node(name));
        let (one, two) = (join(&one, &["keeper"]).await, join(&two, &["keeper"]).await);
        let (front, stranger) = (join(&front, &["front"]).await, join(&stranger, &["eu"]).await);
        let (first, second) = (member(&one).await, member(&two).await);
        assert!(eventually(SOON, || first.members().len() == 2 && second.members().len() == 2).await);

        // It has the key, and that is not enough.
        let outside = member(&stranger).await;
        both_say(&one, &stranger, Right::Member, &["eu"], &["keeper"]).await;
        let refused = || outside.members().iter().all(|member| member.id() == stranger.local().id());
        assert!(refused() && first.members().len() == 2);

        let key = GroupKey::from_bytes([7; 32]);
        let client = |net: &Network| net.groups().client_with_grants::<NoOp>(&key, ["keeper"], ["front"]);
        let calls = client(&front);
        soon("a call", calls.execute(())).await.unwrap();
        // The one without the grant of a member is not called.
        assert!(eventually(SOON, || missing(&front, &stranger).is_some()).await);
        assert!(!calls.members().contains(&stranger.local().id()));
        drop(outside);

        let silent = client(&stranger).with_timeout(Duration::from_secs(3));
        assert!(silent.execute(()).await.is_err());
        let in_the_way = silent.unreached();
        assert!(in_the_way.iter().any(|(_, why)| why.contains("grant missing to call the group")), "{in_the_way:?}");
        assert!(silent.members().is_empty());
        let said = |it: &(RefusedBy, MissingGrant)| it.0 == RefusedBy::Us && it.1.right == Right::Call;
        let told = || [&one, &two].iter().any(|node| missing(node, &stranger).as_ref().is_some_and(said));
        assert!(eventually(SOON, told).await);
    });
}

/// Who loses the grant loses the bonds, and a client its link; a new ticket brings them back.
#[test]
fn bonds_and_links_of_clients_end_with_the_grant_and_come_with_the_next() {
    Sim::run(8, |sim| async move {
        let names = ["one", "two", "front", "third"];
        let [one, two, front, third] = names.map(|name| sim.node(name));
        let (one, two) = (join(&one, &["keeper"]).await, join(&two, &["keeper"]).await);
        let (caller, last) = (join(&front, &["front"]).await, join(&third, &["keeper"]).await);
        let (first, second, member) = (member(&one).await, member(&two).await, member(&last).await);
        let key = GroupKey::from_bytes([7; 32]);
        let client = caller.groups().client_with_grants::<NoOp>(&key, ["keeper"], ["front"]);
        client.connected().await;
        let bonds = |expected: [usize; 3]| [&first, &second, &member].map(|group| group.bonds().len()) == expected;
        assert!(eventually(SOON, || bonds([2, 2, 2]) && client.members().len() == 3).await);

        caller.trust().replace_ticket(&ticket(&front, &["eu"])).unwrap();
        last.trust().replace_ticket(&ticket(&third, &["eu"])).unwrap();
        assert!(eventually(SOON, || bonds([1, 1, 0]) && client.members().is_empty()).await);
        both_say(&one, &last, Right::Member, &["eu"], &["keeper"]).await;
        let says = |it: &(RefusedBy, MissingGrant)| it.0 == RefusedBy::Them && it.1.right == Right::Call;
        assert!(eventually(SOON, || missing(&caller, &two).as_ref().is_some_and(says)).await);

        caller.trust().replace_ticket(&ticket(&front, &["front"])).unwrap();
        last.trust().replace_ticket(&ticket(&third, &["keeper"])).unwrap();
        assert!(eventually(Duration::from_mins(1), || bonds([2, 2, 2]) && client.members().len() == 3).await);
        soon("a call", client.execute(())).await.unwrap();
    });
}

/// `explain` names the grant whichever end it is asked about.
#[test]
fn an_explanation_names_the_grant() {
    Sim::run(9, |sim| async move {
        let names = ["builder", "relay", "stranger", "operator"];
        let [builder, relay, stranger, operator] = names.map(|name| sim.node(name));
        let (builder, relay) = (join(&builder, &["builder"]).await, join(&relay, &["relay"]).await);
        let (stranger, operator) = (join(&stranger, &["eu"]).await, join(&operator, &[]).await);
        let _ends = (produces(&builder), consumes(&relay), consumes(&stranger));
        let explained = async |one: &Network, target: &str, other: &Network| {
            let survey = Survey::new(operator.diagnostics().client(), [Bootstrap::from(builder.local().addr())]);
            let until = Instant::now() + Duration::from_mins(1);
            let [one, other] = [one, other].map(|node| Bootstrap::from(node.local().addr()).to_string());
            loop {
                let answer = survey.explain(&one, target, Some(&other)).await;
                if let Ok(found) = answer.as_ref()
                    && found.explanation.fault() == Some(Fault::GrantMissing)
                {
                    return found.explanation.to_string();
                }
                assert!(Instant::now() < until, "{answer:#?}");
                sleep(Duration::from_millis(500)).await;
            }
        };
        for (one, other) in [(&builder, &stranger), (&stranger, &builder)] {
            let text = explained(one, STREAM, other).await;
            let says = "grant missing to consume the stream bids: has eu, needs builder or relay";
            assert!(text.starts_with("grant missing: ") && text.contains(says), "{text}");
        }
        let _forger = produces(&stranger);
        let text = explained(&stranger, STREAM, &relay).await;
        assert!(text.contains("grant missing to produce the stream bids: has eu, needs builder"), "{text}");

        let _members = (member(&builder).await, member(&stranger).await);
        let text = explained(&builder, "mosaik.noop", &stranger).await;
        assert!(text.contains("grant missing to be a member of the group"), "{text}");
    });
}

/// A bid.
#[mosaik::stream(name = "grants.bids", produce = "builder", consume = ["relay", "builder"])]
struct Bid(u64);

/// A list of bids.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Book(u64);

#[mosaik::store(name = "grants.book", primary = "builder", replica = ["relay"])]
impl Book {
    fn fold(&mut self, bid: u64) {
        self.0 += bid;
    }
}

/// A list that several keep.
#[derive(Clone, Default, Serialize, Deserialize)]
#[mosaik::group(name = "grants.ledger", key = secret("a key for tests of grants"), member = "keeper", call = ["relay"])]
struct Ledger(u64);

#[mosaik::state_machine]
impl Ledger {
    #[command]
    fn add(&mut self, bid: u64) -> u64 {
        self.0 += bid;
        self.0
    }
}

/// Sends bids.
#[mosaik::node]
struct Builder {
    bids: Producer<Bid>,
    book: Primary<Book>,
    ledger: Replica<Ledger>,
}

#[mosaik::handlers]
impl Builder {}

/// Takes them.
#[mosaik::node]
struct Relay {
    bids: Consumer<Bid>,
    book: StoreReplica<Book>,
    ledger: Client<Ledger>,
}

#[mosaik::handlers]
impl Relay {}

#[mosaik::app(name = "auction", roles = [Builder, Relay])]
struct Auction;

#[test]
fn declared_grants_are_data_and_count() {
    assert_eq!((Bid::STREAM.produce, Bid::STREAM.consume), (&["builder"][..], &["relay", "builder"][..]));
    assert_eq!((Book::STORE.primary, Book::STORE.replica), (&["builder"][..], &["relay"][..]));
    assert_eq!((Ledger::MACHINE.group.member, Ledger::MACHINE.group.call), (&["keeper"][..], &["relay"][..]));
    let graph = <Auction as mosaik::node::App>::GRAPH;
    let listing = graph.to_listing();
    for line in [
        "    produces  grants.bids (Bid), granted to builder\n",
        "    consumes  grants.bids (Bid), granted to relay or builder\n",
        "    changes   grants.book (Book), granted to builder\n",
        "    follows   grants.book (Book), granted to relay\n",
        "    member of grants.ledger (Ledger), granted to keeper\n",
        "    calls     grants.ledger (Ledger), granted to relay\n",
    ] {
        assert!(listing.contains(line), "{line}{listing}");
    }
    let json: serde_json::Value = serde_json::from_str(&graph.to_json()).unwrap();
    assert_eq!(json["streams"][0]["consume"], serde_json::json!(["relay", "builder"]));
    assert_eq!(json["stores"][0]["primary"], serde_json::json!(["builder"]));
    assert_eq!(json["groups"][0]["call"], serde_json::json!(["relay"]));

    Sim::run(10, |sim| async move {
        let [builder, relay, stranger] = ["builder", "relay", "stranger"].map(|name| sim.node(name));
        let builder = join(&builder, &["builder", "keeper"]).await;
        let (relay, stranger) = (join(&relay, &["relay"]).await, join(&stranger, &["eu"]).await);
        let (bids, mut taken, refused) =
            (Bid::producer(&builder).build().unwrap(), Bid::consumer(&relay).build(), Bid::consumer(&stranger).build());
        let mut events = refused.events();
        bids.when().subscribed().await;
        bids.send(Bid(1)).await.unwrap();
        assert_eq!(taken.next().await.map(|bid| bid.0), Some(1));
        assert_eq!(event(&mut events, not_granted).await.1.of, "grants.bids");

        let (book, follows) = (Book::primary(&builder).build().unwrap(), Book::replica(&relay).build());
        let _refused = Book::replica(&stranger).build();
        let position = book.apply(3).await.unwrap();
        soon("the delta", follows.when().reaches(position)).await.unwrap();
        let replica = |it: &(RefusedBy, MissingGrant)| it.1.right == Right::Replica;
        assert!(eventually(SOON, || missing(&builder, &stranger).as_ref().is_some_and(replica)).await);

        let _keeper = mosaik::node::Replica::<Ledger>::join(&builder).await.unwrap();
        let client = mosaik::node::Client::<Ledger>::open(&relay).unwrap();
        assert_eq!(soon("a call", client.add(4)).await.unwrap(), 4);
        let _refused = mosaik::node::Client::<Ledger>::open(&stranger).unwrap();
        let call = |it: &(RefusedBy, MissingGrant)| it.1.right == Right::Call;
        assert!(eventually(SOON, || missing(&builder, &stranger).as_ref().is_some_and(call)).await);
    });
}

/// `produce::<T>()` knows nothing but the type, and asks what its declaration asks.
#[test]
fn what_is_opened_by_its_type_alone_asks_for_its_grants() {
    Sim::run(12, |sim| async move {
        let [builder, relay, stranger] = ["builder", "relay", "stranger"].map(|name| sim.node(name));
        let (builder, relay) = (join(&builder, &["builder"]).await, join(&relay, &["relay"]).await);
        let stranger = join(&stranger, &["eu"]).await;
        let producer = builder.streams().produce::<Bid>();
        let (mut allowed, refused) = (relay.streams().consume::<Bid>(), stranger.streams().consume::<Bid>());
        let (_, said) = event(&mut refused.events(), not_granted).await;
        assert_eq!((said.right, said.need), (Right::Consume, texts(&["builder", "relay"])));
        let mut events = allowed.events();
        let forger = stranger.streams().producer::<Bid>().build().unwrap();
        let (_, said) = event(&mut events, not_granted).await;
        assert_eq!((said.right, said.need), (Right::Produce, texts(&["builder"])));
        soon("a subscription", producer.when().subscribed()).await;
        producer.send(Bid(1)).await.unwrap();
        assert_eq!(allowed.next().await.map(|bid| bid.0), Some(1));
        assert_eq!((producer.consumers().count(), forger.consumers().count()), (1, 0));
        // What is said by hand counts instead.
        let all = relay.streams().consumer::<Bid>().with_produce_grants([""; 0]).build();
        assert!(eventually(SOON, || all.producers().count() == 2).await);
    });
}
