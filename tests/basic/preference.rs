//! A consumer that prefers: which producers it takes, when it moves, and that many consumers spread.

use std::{collections::BTreeMap, time::Duration};

use mosaik::{
    Network, NetworkId, PeerId,
    streams::{Consumer, Event, Prefer, Producer},
    testing::{LinkQuality, Sim},
};
use tokio::time::Instant;

use super::streams::{Data1, soon};

const NETWORK: NetworkId = NetworkId::from_name("preference");
const LIMIT: Duration = Duration::from_mins(2);

async fn producer(sim: &Sim, name: &str, tags: &[&str]) -> (Network, Producer<Data1>) {
    let network = sim.node(name).restart(NETWORK).with_tags(tags.iter().copied()).build().await.unwrap();
    let builder = network.streams().producer::<Data1>().online_when(|c| c.minimum_of(0));
    let producer = builder.build().unwrap();
    (network, producer)
}

fn taken(consumer: &Consumer<Data1>) -> Vec<PeerId> {
    consumer.producers().map(|channel| channel.peer().id()).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The nearest of three, the next one when that dies, and back only after it has been there for a while.
#[test]
fn the_nearest_producer_is_taken_and_replaced_when_it_dies() {
    Sim::run(70, |sim| async move {
        let here = sim.node("consumer");
        for (name, millis) in [("near", 2), ("middle", 20), ("far", 60)] {
            sim.link(&here, &sim.node(name), LinkQuality::lan().with_latency(Duration::from_millis(millis)));
        }
        let (near, sent) = producer(&sim, "near", &[]).await;
        let (middle, other) = producer(&sim, "middle", &[]).await;
        let (far, _third) = producer(&sim, "far", &[]).await;
        let network = here.builder(NETWORK).build().await.unwrap();
        let builder = network.streams().consumer::<Data1>().prefer(Prefer::latency());
        let mut consumer = builder.build();
        let mut events = consumer.events();
        let near_id = near.local().id();
        until("the nearest is taken", || taken(&consumer) == [near_id]).await;
        soon("send", sent.send(Data1(1))).await.unwrap();
        assert_eq!(soon("item", consumer.recv()).await, Some(Data1(1)));
        until("nobody else sends", || other.consumers().count() == 0).await;
        let rtts: BTreeMap<PeerId, _> = consumer.candidates().map(|it| (it.peer().id(), it.peer().rtt())).collect();
        assert!(rtts[&near_id].is_some_and(|rtt| rtt < Duration::from_millis(10)), "{rtts:?}");

        let began = Instant::now();
        sim.node("near").crash();
        drop((near, sent));
        let middle_id = middle.local().id();
        until("the next one is taken", || taken(&consumer) == [middle_id]).await;
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        soon("send", other.send(Data1(2))).await.unwrap();
        assert_eq!(soon("item", consumer.recv()).await, Some(Data1(2)));
        let switched = async {
            loop {
                if let Some(Event::Switched { from, to }) = events.recv().await
                    && to == middle_id
                {
                    return from;
                }
            }
        };
        assert_eq!(soon("told", switched).await, near_id);

        let (back, _sent) = producer(&sim, "near", &[]).await;
        let returned = Instant::now();
        until("it is taken again", || taken(&consumer) == [near_id]).await;
        assert!(returned.elapsed() >= Duration::from_secs(10), "not at once: {:?}", returned.elapsed());
        for network in [back, middle, far, network] {
            network.shutdown().await;
        }
    });
}

/// Two of four, those in the zone of the consumer; a producer with a tag before others; and a rank of one's own.
#[test]
fn zones_tags_and_ranks_decide_in_their_order() {
    Sim::run(71, |sim| async move {
        let mut all = Vec::new();
        let tagged: [(&str, &[&str]); 4] =
            [("a", &["zone=eu"]), ("b", &["zone=us", "gold"]), ("c", &["zone=eu", "gold"]), ("d", &["zone=us"])];
        for (name, tags) in tagged {
            all.push(producer(&sim, name, tags).await);
        }
        let id = |n: usize| all[n].0.local().id();
        let network = sim.node("consumer").builder(NETWORK).with_tags(["zone=eu"]).build().await.unwrap();
        let consume = || network.streams().consumer::<Data1>();
        let sorted = |mut of: Vec<PeerId>| {
            of.sort_unstable();
            of
        };
        let zone = consume().prefer(Prefer::zone()).with_fanin(2).build();
        until("both of the zone", || sorted(taken(&zone)) == sorted(vec![id(0), id(2)])).await;
        let gold = consume().prefer(Prefer::tag("gold").then(Prefer::zone())).build();
        until("gold in the zone", || taken(&gold) == [id(2)]).await;
        let wanted = id(3);
        let own = consume().prefer(Prefer::by(move |peer| (peer.id() == wanted).into())).build();
        until("its own rank", || taken(&own) == [wanted]).await;
        let three = consume().with_fanin(3).build();
        until("any three", || taken(&three).len() == 3).await;
        let every = consume().build();
        until("all, without a preference", || taken(&every).len() == 4).await;
        // Nobody moves: half a minute later all is as it was.
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(sorted(taken(&zone)), sorted(vec![id(0), id(2)]));
        assert_eq!((taken(&gold), taken(&own)), (vec![id(2)], vec![wanted]));
        assert_eq!(taken(&three).len(), 3);
        network.shutdown().await;
    });
}

/// Of many consumers none piles on one of equal producers.
#[test]
fn consumers_of_equal_producers_spread() {
    Sim::run(72, |sim| async move {
        let mut producers = Vec::new();
        for n in 0..4 {
            producers.push(producer(&sim, &format!("p{n}"), &[]).await);
        }
        let mut consumers = Vec::new();
        for n in 0..40 {
            let network = sim.node(&format!("c{n}")).builder(NETWORK).build().await.unwrap();
            let consumer = network.streams().consumer::<Data1>().with_fanin(1).build();
            consumers.push((network, consumer));
        }
        let counts = || -> Vec<usize> { producers.iter().map(|(_, producer)| producer.consumers().count()).collect() };
        until("everybody has one, and none has more than its share", || {
            let counts = counts();
            consumers.iter().all(|(_, consumer)| taken(consumer).len() == 1)
                && counts.iter().sum::<usize>() == 40
                && counts.iter().all(|count| (3..=18).contains(count))
        })
        .await;
        // While producers become known, consumers still move.
        tokio::time::sleep(Duration::from_secs(15)).await;
        let before = counts();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(counts(), before, "and nobody moves any more");
    });
}
