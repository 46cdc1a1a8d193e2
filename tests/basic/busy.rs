//! A handler that computes holds a worker of its runtime. Everything else of the process goes on: peers notice nothing.

use std::time::Duration;

use mosaik::{
    discovery,
    node::{ArgValues, Role, Setup, spawn},
    prelude::*,
    streams::Event,
    testing::trace,
};
use tokio::{runtime, time::Instant};

use super::streams::{Data1, soon};

/// Longer than the 2.5 s after which a peer that is not heard of is lost.
const COMPUTES: Duration = Duration::from_secs(4);

/// Computes for as long as that, again and again. What wakes it is a timer, so the worker that it then holds is the one that
/// looked after timers and sockets.
#[mosaik::node]
struct Busy {
    #[mosaik(default)]
    rounds: u64,
}

#[mosaik::handlers]
impl Busy {
    #[every("20ms")]
    async fn compute(&mut self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        std::thread::sleep(COMPUTES);
        self.rounds += 1;
    }
}

fn runtime() -> runtime::Runtime {
    runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn node(network: &str) -> Network {
    Network::builder(network).with_listen("127.0.0.1:0".parse().unwrap()).build().await.unwrap()
}

/// On real sockets and real threads: the two nodes share nothing but the machine.
#[test]
fn peers_do_not_notice_a_handler_that_computes() {
    trace();
    let network = NetworkId::random().to_string();
    let (busy, calm) = (runtime(), runtime());
    let there = busy.block_on(node(&network));
    let here = calm.block_on(node(&network));
    // What is sent comes from a task of the busy node's runtime, beside the handler.
    let node = there.clone();
    busy.spawn(async move {
        let ticks = node.streams().produce::<Data1>();
        drop(node);
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        for i in 0.. {
            tick.tick().await;
            if ticks.send(Data1(i)).await.is_err() {
                return;
            }
        }
    });
    let role = {
        let there = there.clone();
        busy.spawn(async move {
            let values = ArgValues::parse::<&str>(&Busy::ROLE, []).unwrap();
            spawn(&there, Busy::open(&mut Setup::new(&there, &values)).await.unwrap())
        })
    };
    let role = busy.block_on(role).unwrap();
    calm.block_on(async {
        let mut ticks = here.streams().consume::<Data1>();
        let (mut events, mut peers) = (ticks.events(), here.discovery().events());
        soon("the first tick", ticks.recv()).await.unwrap();
        let (began, mut longest, mut last) = (Instant::now(), Duration::ZERO, Instant::now());
        while began.elapsed() < 3 * COMPUTES || role.status().handled < 2 {
            tokio::select! {
                biased;
                Some(event) = events.recv() => {
                    assert!(!matches!(event, Event::Disconnected { .. }), "{event:?} after {:?}", began.elapsed());
                }
                Some(event) = peers.next() => {
                    assert!(!matches!(event, discovery::Event::PeerDeparted { .. }), "{event:?}");
                }
                tick = soon("a tick", ticks.recv()) => {
                    tick.unwrap();
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
            }
        }
        eprintln!("the longest silence was {longest:?}");
        assert!(longest < COMPUTES, "silent for {longest:?}: as long as the handler computes");
        assert_eq!(ticks.stats().gaps(), 0);
    });
    busy.block_on(there.shutdown());
    calm.block_on(here.shutdown());
    busy.shutdown_background();
}
