//! Streams that miss nothing, on the whole stack: what a consumer is given and told when connections are lost, producers
//! start anew, and subscribers lag. The cores of it are simulated in `tests/flow`.

use std::time::Duration;

use mosaik::{
    NetworkId,
    streams::{Buffer, Consumer, Event, GapReason, OnLag},
    testing::Sim,
};

use crate::streams::{Data1, event, pair, soon};

/// In simulation: the connection is lost and made again, and the producer's ring bridges it: nothing is skipped, nothing
/// comes twice. Then more is sent than the ring has: what is gone is told, the rest comes.
#[test]
fn what_was_sent_while_the_connection_was_lost_comes_when_it_is_back() {
    Sim::run(12, |sim| async move {
        let id = NetworkId::from("resume");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (a.builder(id).build().await.unwrap(), b.builder(id).build().await.unwrap());
        let replay = Buffer::items(100).bytes(1 << 20);
        let always =
            na.streams().producer::<u64>().online_when(|c| c.minimum_of(0)).with_replay(replay).build().unwrap();
        let mut numbers = nb.streams().consume::<u64>();
        let mut events = numbers.events();
        soon("subscription", always.when().subscribed()).await;
        let mut next = 0;
        for missing in [50, 10_000] {
            always.send(next).await.unwrap();
            next += 1;
            while soon("item", numbers.recv()).await != Some(next - 1) {}
            sim.partition(std::slice::from_ref(&a), std::slice::from_ref(&b));
            soon("lost", numbers.when().unsubscribed()).await;
            soon("lost", always.when().unsubscribed()).await;
            let before = numbers.stats();
            for _ in 0..missing {
                always.send(next).await.unwrap();
                next += 1;
            }
            sim.heal();
            let mut seqs = Vec::new();
            while seqs.last() != Some(&(next - 1)) {
                let (item, origin) = soon("item", numbers.recv_from()).await.unwrap();
                assert_eq!(item, origin.seq);
                seqs.push(item);
            }
            assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "in order, without a hole");
            let (after, got) = (numbers.stats(), seqs.len() as u64);
            let told = (after.gaps() - before.gaps(), after.drops() - before.drops());
            if missing == 50 {
                assert_eq!((got, told), (50, (0, 0)));
            } else {
                assert!(got >= 100, "at least what the ring must have: {got}");
                assert_eq!(told, (1, missing - got));
                let gap = event(&mut events, |event| match event {
                    Event::Gap { to, reason, .. } => Some((*to, *reason)),
                    _ => None,
                });
                assert_eq!(gap.await, (seqs[0], GapReason::Reconnected));
            }
        }
    });
}

/// In simulation: a producer that sends before anybody is back from its last run, and a consumer that gets all of the new
/// run.
#[test]
fn a_restarted_producer_is_heard_from_its_first_item() {
    Sim::run(13, |sim| async move {
        let id = NetworkId::from("restart");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (a.builder(id).build().await.unwrap(), b.builder(id).build().await.unwrap());
        let (producer, mut consumer) = pair(&na, &nb).await;
        producer.send(Data1(100)).await.unwrap();
        assert_eq!(consumer.recv().await, Some(Data1(100)));
        a.crash();
        drop((producer, na));
        let na = a.restart(id).build().await.unwrap();
        let producer = na.streams().producer::<Data1>().online_when(|c| c.minimum_of(0)).build().unwrap();
        for i in 0..10 {
            producer.send(Data1(i)).await.unwrap();
        }
        for i in 0..10 {
            let (item, origin) = soon("item", consumer.recv_from()).await.unwrap();
            assert_eq!((item, origin.seq, origin.epoch), (Data1(i), i, producer.epoch()));
        }
        assert_eq!(consumer.stats().gaps(), 0);
    });
}

/// In simulation: consumers that stop reading and go on, under the policies that leave items out. Nobody is closed, the
/// sender never waits, and everything is either delivered or told.
#[test]
fn who_lags_behind_a_lossy_producer_is_told_what_it_missed() {
    Sim::run(14, |sim| async move {
        let id = NetworkId::from("lossy");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (a.builder(id).build().await.unwrap(), b.builder(id).build().await.unwrap());
        for policy in [OnLag::DropOldest, OnLag::Conflate] {
            let builder = na.streams().producer::<(u64, Vec<u8>)>().with_stream_id(format!("{policy:?}").as_str());
            let builder = builder.on_lag(policy).with_key(|item| item.0 % 7).with_buffer(Buffer::items(64));
            let producer = builder.build().unwrap();
            let consumer = nb.streams().consumer::<(u64, Vec<u8>)>().with_stream_id(format!("{policy:?}").as_str());
            let mut consumer = consumer.build();
            let mut events = consumer.events();
            soon("subscription", producer.when().subscribed()).await;
            const ITEMS: u64 = 2000;
            for i in 0..ITEMS {
                soon("send", producer.send((i, vec![0; 8 << 10]))).await.unwrap();
                if i % 100 == 0 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            let (mut got, mut last) = (Vec::new(), [0; 7]);
            while last != [1995, 1996, 1997, 1998, 1999, 1993, 1994] {
                let ((i, _), origin) = soon("item", consumer.recv_from()).await.unwrap();
                assert_eq!(i, origin.seq);
                assert!(got.last().is_none_or(|last| *last < i));
                last[usize::try_from(i % 7).unwrap()] = i;
                got.push(i);
            }
            let stats = consumer.stats();
            assert_eq!(stats.datums() + stats.drops(), ITEMS);
            assert!(stats.gaps() > 0 && stats.gaps() < 100);
            let reason = event(&mut events, |event| match event {
                Event::Gap { reason, .. } => Some(*reason),
                Event::Disconnected { .. } => panic!("it is closed"),
                _ => None,
            });
            let expected = if policy == OnLag::Conflate { GapReason::Conflated } else { GapReason::Dropped };
            assert_eq!(reason.await, expected);
        }
    });
}

/// In simulation: the newest items grow too old while the consumer does not read, and nothing follows them.
#[test]
fn the_loss_of_the_last_items_is_told_by_the_heartbeat() {
    Sim::run(15, |sim| async move {
        let id = NetworkId::from("tail");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (a.builder(id).build().await.unwrap(), b.builder(id).build().await.unwrap());
        let builder = na.streams().producer::<Vec<u8>>().on_lag(OnLag::DropOldest);
        let producer = builder.with_lifespan(Duration::from_secs(1)).build().unwrap();
        let mut consumer = nb.streams().consume::<Vec<u8>>();
        let mut events = consumer.events();
        soon("subscription", producer.when().subscribed()).await;
        for _ in 0..64 {
            producer.send(vec![0; 64 << 10]).await.unwrap(); // more than the network holds
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let told = async {
            loop {
                tokio::select! {
                    biased;
                    event = events.recv() => if let Some(Event::Gap { to, reason, .. }) = event { break (to, reason) },
                    _ = consumer.recv() => {}
                }
            }
        };
        assert_eq!(soon("gap", told).await, (64, GapReason::Expired));
        assert_eq!(consumer.stats().datums() + consumer.stats().drops(), 64);
    });
}

/// In simulation: a feed that stops without anything else being wrong.
#[test]
fn a_silent_producer_is_late() {
    Sim::run(16, |sim| async move {
        let id = NetworkId::from("late");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (a.builder(id).build().await.unwrap(), b.builder(id).build().await.unwrap());
        let producer = na.streams().produce::<Data1>();
        let mut consumer = nb.streams().consumer::<Data1>().with_deadline(Duration::from_secs(3)).build();
        let mut events = consumer.events();
        let late = |consumer: &Consumer<Data1>| consumer.producers().any(|producer| producer.is_late());
        for i in 0..5 {
            soon("send", producer.send(Data1(i))).await.unwrap();
            assert_eq!(consumer.recv().await, Some(Data1(i)));
            assert!(!late(&consumer));
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let silent = event(&mut events, |event| match event {
            Event::Late { silent, .. } => Some(*silent),
            Event::Disconnected { .. } => panic!("all is well but for the items"),
            _ => None,
        });
        let silent = silent.await;
        assert!(silent >= Duration::from_secs(3) && silent < Duration::from_millis(3100), "{silent:?}");
        assert!(late(&consumer));
        producer.send(Data1(9)).await.unwrap();
        assert_eq!(consumer.recv().await, Some(Data1(9)));
        assert!(!late(&consumer));
    });
}

/// Items that cannot be decoded cost themselves and the connection, and no other item.
#[test]
fn what_cannot_be_decoded_is_told_and_nothing_else_is_lost() {
    Sim::run(17, |sim| async move {
        let id = NetworkId::from("poison");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (a.builder(id).build().await.unwrap(), b.builder(id).build().await.unwrap());
        let producer = na.streams().producer::<Vec<u8>>().with_stream_id("mixed").build().unwrap();
        let mut consumer = nb.streams().consumer::<String>().with_stream_id("mixed").build();
        let mut events = consumer.events();
        for item in [&b"a"[..], b"b", &[0xFF], &[0xFE], b"c", b"d"] {
            soon("send", producer.send(item.to_vec())).await.unwrap();
        }
        for (text, seq) in [("a", 0), ("b", 1), ("c", 4), ("d", 5)] {
            let (item, origin) = soon("item", consumer.recv_from()).await.unwrap();
            assert_eq!((item.as_str(), origin.seq), (text, seq));
        }
        let gap = event(&mut events, |event| match event {
            Event::Gap { from, to, reason, .. } => Some((*from, *to, *reason)),
            _ => None,
        });
        assert_eq!(gap.await, (2, 4, GapReason::Undecodable));
        producer.send(b"e".to_vec()).await.unwrap();
        assert_eq!(soon("item", consumer.recv()).await.as_deref(), Some("e"));
        assert_eq!((consumer.stats().gaps(), consumer.stats().drops()), (1, 2));
    });
}
