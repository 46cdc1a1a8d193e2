//! Who is subscribed, and how many streams there may be: limits that are named, dead subscriptions that make room, and counts
//! that agree at both ends.

use std::time::Duration;

use mosaik::{
    Network, NetworkId,
    network::CloseCode,
    streams::{Buffer, ChannelState, Consumer, DisconnectReason, Event, Events, OnLag, Producer, WaitReason},
    testing::{LinkQuality, Sim, eventually},
};
use tokio::time::Instant;

use super::streams::{Data1, event, soon};

const NETWORK: NetworkId = NetworkId::from_name("subscribers");
const LONG: Duration = Duration::from_mins(1);

fn closed(event: &Event) -> Option<CloseCode> {
    match event {
        Event::Disconnected { reason: DisconnectReason::Closed(code), .. } => Some(*code),
        _ => None,
    }
}

fn waiting(event: &Event) -> Option<WaitReason> {
    match event {
        Event::Waiting { reason, .. } => Some(*reason),
        _ => None,
    }
}

/// As many streams from one node to another, each with an item on its way.
async fn many_streams(from: &Network, to: &Network, streams: u64) {
    let name = |i| format!("stream {i}");
    let ends: Vec<(Producer<Data1>, Consumer<Data1>)> = (0..streams)
        .map(|i| {
            let producer = from.streams().producer().with_stream_id(name(i)).build().unwrap();
            (producer, to.streams().consumer().with_stream_id(name(i)).build())
        })
        .collect();
    let deadline = Instant::now() + LONG;
    for (i, (producer, mut consumer)) in (0..).zip(ends) {
        let exchange = async {
            producer.send(Data1(i)).await.unwrap();
            assert_eq!(consumer.recv().await, Some(Data1(i)));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::time::timeout(left, exchange).await.unwrap_or_else(|_| panic!("stream {i} of {streams} is not served"));
        // Both ends stay, so that all are open at once.
        std::mem::forget((producer, consumer));
    }
}

#[test]
fn three_hundred_streams_between_two_nodes_all_connect() {
    Sim::run(4, |sim| async move {
        let build = |name| sim.node(name).builder(NETWORK).build();
        let (a, b) = (build("a").await.unwrap(), build("b").await.unwrap());
        many_streams(&a, &b, 300).await;
        a.shutdown().await;
        b.shutdown().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_streams_between_two_real_nodes_all_connect() {
    let build =
        || Network::builder(NetworkId::from("many streams")).with_listen("127.0.0.1:0".parse().unwrap()).build();
    let (a, b) = (build().await.unwrap(), build().await.unwrap());
    many_streams(&a, &b, 300).await;
    a.shutdown().await;
    b.shutdown().await;
}

/// A connection carries 4,096 streams. The next subscription is told so, and is made once there is room.
#[test]
fn a_subscription_over_the_limit_of_a_connection_is_told_the_limit() {
    const LIMIT: usize = 4096;
    Sim::run(5, |sim| async move {
        let build = |name| sim.node(name).builder(NETWORK).build();
        let (a, b) = (build("a").await.unwrap(), build("b").await.unwrap());
        let producer = a.streams().produce::<Data1>();
        let mut consumers: Vec<Consumer<Data1>> = (0..LIMIT).map(|_| b.streams().consume()).collect();
        soon("as many as there may be", producer.when().subscribed().minimum_of(LIMIT)).await;
        let late = b.streams().consume::<Data1>();
        let mut events = late.events();
        let reason = event(&mut events, |event| match event {
            Event::Disconnected { reason, .. } => Some(reason.to_string()),
            _ => None,
        });
        let reason = reason.await;
        assert!(reason.contains("4096"), "{reason}");
        // Credits for streams come back in lots.
        consumers.truncate(LIMIT / 2);
        soon("room", late.when().subscribed()).await;
    });
}

#[test]
fn a_stream_that_the_entry_cannot_list_is_refused_with_the_limit() {
    const LIMIT: u64 = 512;
    Sim::run(6, |sim| async move {
        let node = sim.node("a").builder(NETWORK).build().await.unwrap();
        let build = |i: u64| node.streams().producer::<Data1>().with_stream_id(format!("stream {i}")).build();
        let mut producers: Vec<_> = (0..LIMIT).map(|i| build(i).unwrap()).collect();
        for _ in 0..2 {
            let error = build(LIMIT).expect_err("it cannot be announced, so nobody would ever find it");
            let text = error.to_string();
            assert!(text.contains("512") && text.contains("produced streams"), "{text}");
            assert!(error.into_existing().is_none());
        }
        producers.pop();
        build(LIMIT).expect("there is room now");
    });
}

/// A peer whose machine was reset comes back before anybody has noticed that it was gone: its dead subscription must not keep the
/// one place from it.
#[test]
fn a_consumer_that_was_started_anew_is_not_kept_out_by_its_ghost() {
    Sim::run(7, |sim| async move {
        let (a, b) = (sim.node("a"), sim.node("b"));
        let na = a.builder(NETWORK).build().await.unwrap();
        let nb = b.builder(NETWORK).build().await.unwrap();
        let producer = na.streams().producer::<Data1>().with_max_consumers(1).build().unwrap();
        let consumer = nb.streams().consume::<Data1>();
        soon("subscription", consumer.when().subscribed()).await;
        let first = producer.consumers().next().unwrap().peer().version().run_id;
        b.crash();
        let nb = b.restart(NETWORK).build().await.unwrap();
        let consumer = nb.streams().consume::<Data1>();
        let mut events = consumer.events();
        soon("subscription", consumer.when().subscribed()).await;
        assert_eq!(event_now(&mut events, waiting), None, "it waited for its own place");
        let served: Vec<_> = producer.consumers().map(|info| info.peer().version().run_id).collect();
        assert!(served.len() == 1 && served[0] > first, "{served:?} after {first}");
    });
}

/// The same consumer loses a connection that its producer still believes in.
#[test]
fn a_consumer_that_reconnects_replaces_its_own_ghost() {
    Sim::run(8, |sim| async move {
        let (a, b) = (sim.node("a"), sim.node("b"));
        let na = a.builder(NETWORK).build().await.unwrap();
        let nb = b.builder(NETWORK).build().await.unwrap();
        let producer = na.streams().producer::<Data1>().with_max_consumers(1).build().unwrap();
        let consumer = nb.streams().consume::<Data1>();
        let mut events = consumer.events();
        soon("subscription", consumer.when().subscribed()).await;
        // The producer goes on hearing the consumer, so it keeps the connection for longer.
        sim.cut(&a, &b);
        soon("offline", consumer.when().offline()).await;
        assert_eq!(producer.consumers().count(), 1, "the producer has noticed, too: nothing is shown");
        sim.mend(&a, &b);
        let end = |event: &Event| match event {
            Event::Connected { .. } => Some(None),
            Event::Waiting { reason, .. } => Some(Some(*reason)),
            _ => None,
        };
        // The first subscription, before the cut.
        assert_eq!(event(&mut events, end).await, None);
        assert_eq!(event(&mut events, end).await, None, "it waited for its own place");
        assert_eq!(producer.consumers().count(), 1);
    });
}

/// The first event there is already that `pick` takes.
fn event_now<T>(events: &mut Events, mut pick: impl FnMut(&Event) -> Option<T>) -> Option<T> {
    use futures::{FutureExt, StreamExt};
    loop {
        let event = events.next().now_or_never()??;
        if let Some(picked) = pick(&event) {
            return Some(picked);
        }
    }
}

#[test]
fn who_waits_for_a_place_is_told_at_once_when_the_stream_closes() {
    for shutdown in [false, true] {
        Sim::run(9, |sim| async move {
            let build = |name| sim.node(name).builder(NETWORK).build();
            let (a, b, c) = (build("a").await.unwrap(), build("b").await.unwrap(), build("c").await.unwrap());
            let producer = a.streams().producer::<Data1>().with_max_consumers(1).build().unwrap();
            let first = b.streams().consume::<Data1>();
            soon("subscription", first.when().subscribed()).await;
            let second = c.streams().consume::<Data1>();
            let mut events = second.events();
            assert_eq!(event(&mut events, waiting).await, WaitReason::NoCapacity);
            let began = Instant::now();
            let code = if shutdown {
                a.shutdown().await;
                CloseCode::ShuttingDown
            } else {
                drop(producer);
                CloseCode::Normal
            };
            assert_eq!(event(&mut events, closed).await, code);
            assert!(
                began.elapsed() < Duration::from_millis(400),
                "after {:?}: it was left to time out",
                began.elapsed()
            );
        });
    }
}

/// What a producer says that it wrote to one subscriber is what that one says it got, to the item and the byte.
#[test]
fn both_ends_count_the_same_items() {
    Sim::run(10, |sim| async move {
        let (a, b, c) = (sim.node("a"), sim.node("b"), sim.node("c"));
        let na = a.builder(NETWORK).build().await.unwrap();
        let (nb, nc) = (b.builder(NETWORK).build().await.unwrap(), c.builder(NETWORK).build().await.unwrap());
        let producer = na.streams().producer::<Vec<u8>>().online_when(|it| it.minimum_of(0)).build().unwrap();
        for _ in 0..3 {
            producer.send(vec![0; 10]).await.unwrap();
        }
        assert_eq!((producer.stats().datums(), producer.stats().drops()), (3, 3), "sent to nobody");
        let mut one = nb.streams().consume::<Vec<u8>>();
        let mut two = nc.streams().consume::<Vec<u8>>();
        soon("both", producer.when().subscribed().minimum_of(2)).await;
        // Small ones that share a chunk, ones of several writes, and a batch of several chunks.
        let sizes: Vec<usize> = (0..4000).map(|i| if i % 500 == 0 { 200_000 } else { i % 300 }).collect();
        let before = producer.stats().bytes();
        let sending = async {
            for size in &sizes {
                producer.send(vec![1; *size]).await.unwrap();
            }
        };
        let (mut from_one, mut from_two) = (0, 0);
        tokio::join!(
            sending,
            async {
                for size in &sizes {
                    assert_eq!(one.recv().await.map(|item| item.len()), Some(*size));
                    from_one += 1;
                }
            },
            async {
                for size in &sizes {
                    assert_eq!(two.recv().await.map(|item| item.len()), Some(*size));
                    from_two += 1;
                }
            }
        );
        let sent = sizes.len() as u64;
        let bytes = producer.stats().bytes() - before;
        assert_eq!(
            (from_one, from_two, producer.stats().datums(), producer.stats().drops()),
            (sent, sent, sent + 3, 3)
        );
        let settled = || producer.consumers().all(|info| info.stats().datums() == sent);
        assert!(
            eventually(LONG, settled).await,
            "{:?}",
            producer.consumers().map(|it| *it.stats()).collect::<Vec<_>>()
        );
        for info in producer.consumers() {
            let stats = info.stats();
            assert_eq!((stats.bytes(), stats.queue(), info.state()), (bytes, (0, 0), ChannelState::Connected));
            let high = stats.high_water();
            assert!(high.0 > 0 && high.0 <= sent && high.1 > 0 && high.1 <= bytes, "{high:?}");
        }
        for consumer in [&one, &two] {
            let stats = consumer.stats();
            assert_eq!((stats.datums(), stats.bytes(), stats.gaps(), stats.queue()), (sent, bytes, 0, (0, 0)));
            let channel = consumer.producers().next().unwrap();
            assert_eq!((channel.stats().datums(), channel.stats().bytes()), (sent, bytes));
        }
        // The counts outlive the producer.
        drop(producer);
        soon("offline", one.when().offline()).await;
        assert_eq!((one.stats().datums(), one.stats().bytes()), (sent, bytes));
    });
}

/// One that takes an item only every 400 ms, where 500 ms are granted, slows neither its producer nor the others for long.
#[test]
fn one_that_drips_does_not_slow_a_blocking_producer_for_ever() {
    Sim::run(11, |sim| async move {
        sim.default_link(LinkQuality::lan());
        let (a, b, slow_node) = (sim.node("a"), sim.node("b"), sim.node("c"));
        let (a, b) = (a.builder(NETWORK).build().await.unwrap(), b.builder(NETWORK).build().await.unwrap());
        let c = slow_node.builder(NETWORK).build().await.unwrap();
        let producer = a.streams().producer::<Vec<u8>>();
        let producer = producer.with_buffer(Buffer::items(8)).on_lag(OnLag::Block(Duration::from_millis(500)));
        let producer = producer.build().unwrap();
        let mut fast = b.streams().consume::<Vec<u8>>();
        let mut slow = c.streams().consume::<Vec<u8>>();
        let mut events = slow.events();
        soon("both", producer.when().subscribed().minimum_of(2)).await;
        slow_node.spawn("drips", async move {
            while slow.recv().await.is_some() {
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
        });
        const ITEMS: u64 = 100;
        let began = Instant::now();
        let sending = async {
            for _ in 0..ITEMS {
                producer.send(vec![0; 1 << 20]).await.unwrap();
            }
        };
        let reading = async {
            for _ in 0..ITEMS {
                fast.recv().await.unwrap();
            }
        };
        soon("all of it", async { tokio::join!(sending, reading) }).await;
        assert_eq!(event(&mut events, closed).await, CloseCode::TooSlow);
        assert_eq!(fast.stats().gaps(), 0);
        assert!(producer.stats().waits() > 0 && producer.stats().too_slow() > 0, "{:?}", producer.stats());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(15), "{ITEMS} items took {took:?}: one per 400 ms");
    });
}
