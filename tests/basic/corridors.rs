//! Labels: what is declared with one is compared at both ends, and in a network of an authority only who has the grant that clears it
//! receives anything. What the compiler proves of an app is in `ui/corridors.rs`; here is an app that it lets pass.

use std::time::Duration;

use futures::StreamExt;
use mosaik::{
    Authority, Network, NetworkId,
    builtin::NoOp,
    groups::{Group, GroupKey},
    node::{App, Warning},
    prelude::*,
    streams::Event,
    testing::{Sim, SimNode, eventually},
    trust::{Claims, Label, MissingGrant, Reason, RefusedBy, Right},
};
use serde::{Deserialize, Serialize};

use super::streams::{event, soon};

const NET: NetworkId = NetworkId::from_name("corridors tests");
/// When a simulation begins, seconds since the Unix epoch.
const BEGIN: u64 = 1_767_225_600;
const SOON: Duration = Duration::from_secs(20);

/// What only some may see.
#[mosaik::stream(name = "corridors.bids", label = "private")]
struct Bid(u64);

/// The same of who does not know better.
#[mosaik::stream(name = "corridors.bids")]
struct Unlabelled(u64);

/// What everybody may see of it.
#[mosaik::stream(name = "corridors.sums")]
struct Sum(u64);

#[derive(Clone, Default, Serialize, Deserialize)]
struct Book(u64);

#[mosaik::store(name = "corridors.book", label = "private")]
impl Book {
    fn fold(&mut self, bid: u64) {
        self.0 += bid;
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[mosaik::group(name = "corridors.pool", key = secret("a key for these tests"), label = "private")]
struct Pool(u64);

#[mosaik::state_machine]
impl Pool {
    #[command]
    fn add(&mut self, wei: u64) -> u64 {
        self.0 += wei;
        self.0
    }
}

#[mosaik::node]
struct Bidder {
    bids: Producer<Bid>,
    book: Primary<Book>,
}

#[mosaik::handlers]
impl Bidder {}

/// Passes on what is no secret any more.
#[mosaik::node(clears = "private")]
struct Matcher {
    bids: Consumer<Bid>,
    book: StoreReplica<Book>,
    pool: Replica<Pool>,
    #[mosaik(declassify = "only sums", max_consumers = 8)]
    sums: Producer<Sum>,
}

#[mosaik::handlers]
impl Matcher {}

#[mosaik::node]
struct Screen {
    sums: Consumer<Sum>,
}

#[mosaik::handlers]
impl Screen {}

#[mosaik::app(name = "corridors", roles = [Bidder, Matcher, Screen])]
struct Sound;

mosaik::assert_no_path!(Sound: Screen => Matcher);
mosaik::assert_no_path!(Sound: Matcher => Bidder);

/// A field that declassifies where there is nothing.
#[mosaik::node]
struct Idle {
    #[mosaik(declassify = "no reason")]
    sums: Producer<Sum>,
}

#[mosaik::handlers]
impl Idle {}

#[mosaik::app(name = "idle", roles = [Idle, Screen])]
struct Useless;

#[test]
fn the_report_names_who_has_a_label_and_what_is_declassified_for_what_reason() {
    let report = Sound::GRAPH.corridors();
    let want = "label private\n  group corridors.pool: matcher\n  store corridors.book: bidder -> matcher\n  stream corridors.bids: \
                bidder -> matcher\ndeclassified by matcher.sums: stream corridors.sums to screen\n  only sums\n";
    assert_eq!(report, want);
    assert!(Sound::GRAPH.warnings().is_empty(), "{:?}", Sound::GRAPH.warnings());
    let json: serde_json::Value = serde_json::from_str(&Sound::GRAPH.to_json()).unwrap();
    assert_eq!((&json["streams"][0]["label"], &json["streams"][1]["label"]), (&"private".into(), &().into()));
    assert_eq!((&json["roles"][1]["clears"][0], &json["stores"][0]["label"]), (&"private".into(), &"private".into()));
    let listing = Sound::GRAPH.to_listing();
    assert!(listing.contains("    clears    private\n"), "{listing}");
    assert!(listing.contains("consumes  corridors.bids (Bid), labelled private\n"), "{listing}");
    assert!(listing.contains("(Sum) [declassify = only sums, max_consumers = 8]\n"), "{listing}");

    let useless = Useless::GRAPH;
    assert_eq!(useless.corridors(), "declassified by idle.sums: stream corridors.sums to screen\n  no reason\n");
    let warning = Warning::Declassify { role: "idle", field: "sums" };
    assert!(useless.warnings().contains(&warning), "{:?}", useless.warnings());
}

fn incompatible(event: &Event) -> Option<[String; 3]> {
    match event {
        Event::Incompatible { what, ours, theirs, .. } => Some([what, ours, theirs].map(Clone::clone)),
        _ => None,
    }
}

/// Also in an open network, where nobody holds a grant: programs that are declared differently refuse each other.
#[test]
fn ends_with_different_labels_refuse_each_other_and_say_which() {
    Sim::run(1, |sim| async move {
        let [a, b] = ["a", "b"].map(|name| sim.node(name));
        let (a, b) = (a.builder(NET).build().await.unwrap(), b.builder(NET).build().await.unwrap());
        let producer = Bid::producer(&a).build().unwrap();
        let (mut same, unaware) = (Bid::consumer(&b).build(), Unlabelled::consumer(&b).build());
        let said = event(&mut unaware.events(), incompatible).await;
        assert_eq!(said, ["label", "no label", "private"]);
        soon("a subscription", producer.when().subscribed()).await;
        producer.send(Bid(1)).await.unwrap();
        assert_eq!(same.next().await.map(|bid| bid.0), Some(1));
        assert_eq!((producer.consumers().count(), unaware.producers().count()), (1, 0));
    });
}

fn label() -> Label {
    Label::declared("private")
}

#[test]
fn stores_and_groups_compare_labels_too() {
    Sim::run(2, |sim| async move {
        let [a, b] = ["a", "b"].map(|name| sim.node(name));
        let (a, b) = (a.builder(NET).build().await.unwrap(), b.builder(NET).build().await.unwrap());
        let primary = Book::primary(&a).build().unwrap();
        let position = primary.apply(7).await.unwrap();
        let (same, other) = (Book::replica(&b).build(), b.stores().replica::<Book>("corridors.book").build());
        soon("the delta", same.when().reaches(position)).await.unwrap();
        assert_eq!((same.read().0, other.read().0), (7, 0));

        let key = GroupKey::from_bytes([7; 32]);
        let group = |net: &Network| net.groups().with_key(key.clone()).with_state_machine(NoOp);
        let first = group(&a).with_label(label()).join().await.unwrap();
        let second = group(&b).join().await.unwrap();
        let says = |group: &Group<NoOp>, what: &str| group.refusals().iter().any(|it| it.reason.to_string() == what);
        let both = || {
            says(&first, "incompatible label: private here, no label there")
                && says(&second, "incompatible label: no label here, private there")
        };
        assert!(eventually(SOON, both).await, "{:?} {:?}", first.refusals(), second.refusals());
        let client = b.groups().client::<NoOp>(&key).with_timeout(Duration::from_secs(3));
        let aware = b.groups().client_with_label::<NoOp>(&key, [""; 0], [""; 0], Some(&label()));
        soon("a link", aware.connected()).await;
        assert_eq!(aware.members(), [a.local().id()]);
        let in_the_way = || client.unreached().iter().any(|(_, why)| why.contains("or its group another label"));
        assert!(eventually(SOON, in_the_way).await, "{:?}", client.unreached());
    });
}

fn authority() -> Authority {
    Authority::from_bytes(&[1; 32])
}

async fn join(node: &SimNode, grants: &[&str]) -> Network {
    let claims = Claims::new(BEGIN, BEGIN + 86_400);
    let claims = grants.iter().fold(claims, |claims, grant| claims.with_grant(*grant));
    let ticket = authority().issue(NET, node.id(), claims).unwrap();
    node.builder(NET).with_authority(authority().id()).with_ticket(ticket).build().await.unwrap()
}

/// What a node says of a right that another one lacks.
fn missing(node: &Network, peer: &Network, right: Right) -> Option<(RefusedBy, MissingGrant)> {
    let refusals = node.trust().refusals().into_iter().filter(|refusal| refusal.peer == peer.local().id());
    refusals.map(|refusal| (refusal.by, refusal.reason)).find_map(|(by, reason)| match reason {
        Reason::GrantMissing(missing) if missing.right == right => Some((by, missing)),
        _ => None,
    })
}

#[test]
fn who_has_no_grant_that_clears_the_label_receives_nothing() {
    Sim::run(3, |sim| async move {
        let [bidder, clear, unclear] = ["bidder", "clear", "unclear"].map(|name| sim.node(name));
        // Who sends is the origin and needs no grant.
        let (bidder, clear) = (join(&bidder, &[]).await, join(&clear, &["clears:private"]).await);
        let unclear = join(&unclear, &["clears:secret"]).await;
        let (producer, primary) = (Bid::producer(&bidder).build().unwrap(), Book::primary(&bidder).build().unwrap());
        let refused = async |at: &Network, right| {
            let both = || missing(at, &unclear, right).is_some() && missing(&unclear, at, right).is_some();
            assert!(eventually(SOON, both).await, "{right:?}: {:?}", at.trust().refusals());
            let (have, need) = (vec!["clears:secret".to_owned()], vec!["clears:private".to_owned()]);
            let (by, said) = missing(at, &unclear, right).unwrap();
            assert_eq!((by, said.have, &said.need), (RefusedBy::Us, have, &need));
            assert_eq!(missing(&unclear, at, right).unwrap().1.need, need);
        };
        let (mut bids, nothing) = (Bid::consumer(&clear).build(), Bid::consumer(&unclear).build());
        refused(&bidder, Right::Consume).await;
        producer.send(Bid(1)).await.unwrap();
        assert_eq!(bids.next().await.map(|bid| bid.0), Some(1));

        let (book, blank) = (Book::replica(&clear).build(), Book::replica(&unclear).build());
        refused(&bidder, Right::Replica).await;
        let position = primary.apply(7).await.unwrap();
        soon("the delta", book.when().reaches(position)).await.unwrap();

        let key = GroupKey::from_bytes([7; 32]);
        let group = |net: &Network| net.groups().with_key(key.clone()).with_state_machine(NoOp).with_label(label());
        let (member, outside) = (group(&clear).join().await.unwrap(), group(&unclear).join().await.unwrap());
        refused(&clear, Right::Member).await;
        drop(outside);
        let caller = unclear.groups().client_with_label::<NoOp>(&key, [""; 0], [""; 0], Some(&label()));
        refused(&clear, Right::Call).await;
        assert_eq!((producer.consumers().count(), primary.replicas().count(), member.bonds().len()), (1, 1, 0));
        assert_eq!((nothing.producers().count(), blank.read().0, caller.members().len()), (0, 0, 0));
    });
}
