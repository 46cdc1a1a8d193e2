//! Who is on a producer's lists and who is off them, what a close tells whom, and what is counted.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    shared::{Asked, Next, Shared, Signal},
    *,
};
use crate::{
    Network, NetworkId,
    discovery::PeerEntry,
    network::CloseCode,
    primitives::watch,
    streams::{
        OnLag,
        core::{SubId, admission::WaitReason},
        limits::{Buffer, MAX_WAITING},
    },
    testing::{Sim, SimNode, eventually},
};

const STREAM: &str = "lists";

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(Duration::from_mins(1), future).await.unwrap_or_else(|_| panic!("{what}: not within a minute"))
}

async fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(eventually(Duration::from_mins(1), holds).await, "{what}: not within a minute");
}

/// A node that produces, another one, and its entry as the first one knows it.
async fn two(sim: &Sim) -> (Network, SimNode, Network, PeerEntry) {
    let id = NetworkId::from("lists");
    let (a, b) = (sim.node("a"), sim.node("b"));
    let (na, nb) = (a.builder(id).build().await.unwrap(), b.builder(id).build().await.unwrap());
    until("known", || na.discovery().catalog().get(b.id()).is_some()).await;
    let entry = na.discovery().catalog().get(b.id()).unwrap().clone();
    (na, b, nb, entry)
}

fn asked(consumer: u64) -> Asked {
    Asked { consumer, resume: None, replay: false, filter: None, replicated: false, heads: false }
}

fn served(signal: &watch::Receiver<Signal>) -> bool {
    matches!(*signal.borrow(), Signal::Serve { .. })
}

/// How many are served: as conditions see it, as handles see it, as the log sees it; and how many there are at all.
fn lists(shared: &Shared) -> [usize; 4] {
    let peers = shared.topology().borrow().peers.len();
    let state = shared.state();
    let (log, all) = (state.log.subscribers(), state.subs.len());
    drop(state);
    [peers, shared.consumers().len(), log, all]
}

/// Who comes back is on the lists once, and who has gone not at all.
#[test]
fn a_subscription_that_is_over_leaves_no_ghost() {
    Sim::run(1, |sim| async move {
        let (na, b, nb, entry) = two(&sim).await;
        let producer = na.streams().producer::<u64>().with_stream_id(STREAM).with_max_consumers(1).build().unwrap();
        let shared = producer.handle.shared.clone();
        let (first, told) = shared.request(entry.clone(), asked(7), None).unwrap();
        // The same consumer again: its old subscription is dead, whatever the network thinks.
        let (second, now) = shared.request(entry.clone(), asked(7), None).unwrap();
        assert_eq!((*told.borrow(), served(&now)), (Signal::Close(CloseCode::Normal), true));
        assert_eq!(lists(&shared), [1; 4]);
        shared.leave(first); // the old session notices late
        assert_eq!((lists(&shared), served(&now)), ([1; 4], true));
        shared.leave(second);
        assert_eq!(lists(&shared), [0; 4]);
        assert!(!shared.topology().borrow().online);

        // Its place is free. What is of an earlier run of the peer is dead as well.
        let (_, told) = shared.request(entry.clone(), asked(8), None).unwrap();
        assert!(served(&told));
        drop(nb);
        let _nb = b.restart(NetworkId::from("lists")).build().await.unwrap();
        let newer = || {
            let catalog = na.discovery().catalog();
            catalog.get(b.id()).filter(|known| known.version().run_id > entry.version().run_id).cloned()
        };
        until("its next run", || newer().is_some()).await;
        let (third, now) = shared.request(newer().unwrap(), asked(9), None).unwrap();
        assert_eq!((*told.borrow(), served(&now)), (Signal::Close(CloseCode::Normal), true));
        assert_eq!(lists(&shared), [1; 4]);
        shared.expel(third, CloseCode::TooSlow);
        assert_eq!((*now.borrow(), lists(&shared)), (Signal::Close(CloseCode::TooSlow), [0; 4]));
    });
}

/// One that was served, comes back, and is refused has ended all the same.
#[test]
fn who_comes_back_and_is_refused_leaves_no_ghost() {
    Sim::run(2, |sim| async move {
        let (na, _b, _nb, entry) = two(&sim).await;
        let producer = na.streams().producer::<u64>().with_stream_id(STREAM).with_max_consumers(1).build().unwrap();
        let shared = producer.handle.shared.clone();
        let (_, told) = shared.request(entry.clone(), asked(0), None).unwrap();
        let waiting: Vec<_> =
            (1..=MAX_WAITING as u64).map(|which| shared.request(entry.clone(), asked(which), None).unwrap()).collect();
        assert!(waiting.iter().all(|(_, told)| *told.borrow() == Signal::Wait(WaitReason::NoCapacity)));
        assert_eq!(lists(&shared), [1, 1, 1, 1 + MAX_WAITING]);
        let refused = shared.request(entry, asked(0), Some(WaitReason::NotAllowed)).map(|(id, _)| id);
        assert_eq!((refused, *told.borrow()), (Err(CloseCode::NoCapacity), Signal::Close(CloseCode::Normal)));
        assert_eq!(lists(&shared), [0, 0, 0, MAX_WAITING]);
        // Its place goes to who has waited longest.
        until("admitted", || served(&waiting[0].1)).await;
        assert_eq!(lists(&shared), [1, 1, 1, MAX_WAITING]);
    });
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn next(shared: &Shared, id: SubId, waker: &Waker) -> Option<Next> {
    shared.poll_next(id, usize::MAX, &Context::from_waker(waker))
}

/// Who waits for admission is told at once, who is served gets what is queued, and nobody goes on waiting.
#[test]
fn a_close_reaches_everybody() {
    Sim::run(3, |sim| async move {
        let (na, _b, _nb, entry) = two(&sim).await;
        let builder = na.streams().producer::<u64>().with_stream_id(STREAM).with_max_consumers(1);
        let builder = builder.on_lag(OnLag::Block(Duration::from_hours(1))).with_buffer(Buffer::items(3));
        let producer = builder.build().unwrap();
        let shared = producer.handle.shared.clone();
        let (first, one) = shared.request(entry.clone(), asked(1), None).unwrap();
        let (second, two) = shared.request(entry.clone(), asked(2), None).unwrap();
        assert_eq!(*two.borrow(), Signal::Wait(WaitReason::NoCapacity));
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(woken.clone());
        assert!(next(&shared, first, &waker).is_none());
        for value in 0..3 {
            soon("sent", producer.send(value)).await.unwrap();
        }
        assert_eq!(woken.0.load(SeqCst), 1, "there is something to write");
        let mut waiting = pin!(producer.send(3));
        let pending = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
        assert!(pending, "there is no room");
        let idle = Arc::<Woken>::default();
        let parked = Waker::from(idle.clone());
        let Some(Next::Items(taken)) = next(&shared, first, &waker) else { panic!("items") };
        assert_eq!(taken.items, 3);
        assert!(next(&shared, first, &parked).is_none());

        shared.close(CloseCode::ShuttingDown);
        assert_eq!(*two.borrow(), Signal::Close(CloseCode::ShuttingDown), "it would wait for nothing");
        assert!(served(&one), "it is to have the rest");
        assert_eq!((lists(&shared), idle.0.load(SeqCst)), ([1; 4], 1));
        assert!(soon("the sender", waiting).await.is_err());
        assert!(matches!(next(&shared, first, &waker), Some(Next::End(CloseCode::ShuttingDown, 3))));
        let late = shared.request(entry, asked(3), None).map(|(id, _)| id);
        assert_eq!(late, Err(CloseCode::ShuttingDown));
        let mut drained = pin!(shared.drained());
        assert!(poll_fn(|cx| Poll::Ready(drained.as_mut().poll(cx).is_pending())).await);
        shared.leave(second);
        shared.leave(first);
        soon("drained", drained).await;
        assert_eq!(lists(&shared), [0; 4]);
    });
}

/// What one sent, the network took, and the other handed out is one number; and so are the bytes.
#[test]
fn items_and_bytes_are_counted_once() {
    Sim::run(4, |sim| async move {
        let (na, _b, nb, _) = two(&sim).await;
        let builder = na.streams().producer::<Vec<u8>>().with_stream_id(STREAM).online_when(|c| c.minimum_of(0));
        let producer = builder.build().unwrap();
        for _ in 0..3 {
            soon("sent", producer.send(vec![1; 10])).await.unwrap();
        }
        let unheard = producer.stats();
        assert_eq!((unheard.datums(), unheard.drops()), (3, 3), "nobody was there");
        let consumers = [(); 2].map(|()| nb.streams().consumer::<Vec<u8>>().with_stream_id(STREAM).live_only().build());
        soon("subscribed", producer.when().subscribed().minimum_of(2)).await;
        let sizes = [1, 10, 1000, 70_000, 300_000, 5].repeat(10);
        let sending = async {
            for size in &sizes {
                soon("sent", producer.send(vec![7; *size])).await.unwrap();
            }
        };
        let receiving = consumers.map(|mut consumer| {
            let sizes = &sizes;
            async move {
                for size in sizes {
                    assert_eq!(soon("received", consumer.recv()).await.map(|item| item.len()), Some(*size));
                }
                (consumer.stats().datums(), consumer.stats().bytes(), consumer)
            }
        });
        let ((), heard) = futures::join!(sending, futures::future::join_all(receiving));
        let idle = || producer.consumers().all(|channel| channel.stats().queue() == (0, 0));
        until("written", idle).await;
        let (items, bytes) = (sizes.len() as u64, producer.stats().bytes() - unheard.bytes());
        assert_eq!((producer.stats().datums() - 3, producer.stats().drops()), (items, 3));
        assert!(bytes > sizes.iter().sum::<usize>() as u64, "framing included");
        let written: Vec<_> = producer.consumers().map(|it| (it.stats().datums(), it.stats().bytes())).collect();
        assert_eq!(written, [(items, bytes); 2]);
        assert!(heard.iter().all(|(of, size, _)| (*of, *size) == (items, bytes)), "{bytes}: {heard:?}");
    });
}
