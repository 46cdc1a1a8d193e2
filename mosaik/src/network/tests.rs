//! Links between two real nodes on loopback.

use std::time::Duration;

use iroh::EndpointAddr;
use tokio::{sync::mpsc, time::timeout};

use super::{handle::Network, link::*, node::Node, *};
use crate::primitives::NetworkId;

#[derive(Debug)]
struct Echo;

impl Protocol for Echo {
    type Message = String;
    const FAMILY: Family = Family::STREAMS;
    const NAME: &'static str = "echo/1";
    const MAX_FRAME: usize = 1024;
}

struct Unserved;

impl Protocol for Unserved {
    type Message = String;
    const FAMILY: Family = Family::STREAMS;
    const NAME: &'static str = "unserved/1";
}

async fn node(network: &str) -> Network {
    Network::builder(NetworkId::from(network)).with_listen(([127, 0, 0, 1], 0).into()).build().await.expect("binds")
}

fn serve_echo(node: &Node) -> mpsc::Receiver<Result<Option<String>, LinkError>> {
    let (sender, receiver) = mpsc::channel(16);
    let tasks = node.tasks().clone();
    let mut acceptors = Acceptors::default();
    acceptors.accept::<Echo>(move |incoming| {
        let sender = sender.clone();
        tasks.spawn("echo", async move {
            let mut link = incoming.link::<Echo>();
            loop {
                let received = link.recv().await;
                if let Ok(Some(text)) = &received {
                    link.send(text).await.expect("echoes");
                }
                let end = !matches!(received, Ok(Some(_)));
                sender.send(received).await.expect("the test listens");
                if end {
                    return;
                }
            }
        });
    });
    node.set_acceptors(acceptors);
    receiver
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_carries_messages_both_ways_and_ends_cleanly() {
    let (a, b) = (node("n").await, node("n").await);
    let mut seen = serve_echo(b.node());
    let mut link = soon(a.node().open::<Echo>(&b.local().addr())).await.expect("opens");
    soon(link.send(&"hello".into())).await.expect("sends");
    assert_eq!(soon(link.recv()).await, Ok(Some("hello".into())));
    assert!(a.node().is_connected(b.local().id()) && a.node().rtt(b.local().id()).is_some());
    link.finish();
    assert_eq!(soon(seen.recv()).await, Some(Ok(Some("hello".into()))));
    assert_eq!(soon(seen.recv()).await, Some(Ok(None)));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why() {
    let (a, b, other) = (node("n").await, node("n").await, node("other").await);
    let _seen = serve_echo(b.node());
    let mut link = soon(a.node().open::<Unserved>(&b.local().addr())).await.expect("opens");
    assert_eq!(soon(link.recv()).await, Err(LinkError::Closed(CloseCode::UnsupportedProtocol)));
    let mut link = soon(other.node().open::<Echo>(&b.local().addr())).await.expect("opens");
    assert_eq!(soon(link.recv()).await, Err(LinkError::Closed(CloseCode::DifferentNetwork)));
    let mut link = soon(a.node().open::<Echo>(&b.local().addr())).await.expect("opens");
    let long = "x".repeat(2000);
    assert!(matches!(soon(link.send(&long)).await, Err(LinkError::TooLarge { limit: 1024, .. })));
    link.close(CloseCode::TooSlow);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_and_drop_leave_no_task_and_no_socket() {
    for graceful in [true, false] {
        let (a, b) = (node("n").await, node("n").await);
        let _seen = serve_echo(b.node());
        let mut link = soon(a.node().open::<Echo>(&b.local().addr())).await.expect("opens");
        soon(link.send(&"x".into())).await.expect("sends");
        let (probe, addr) = (b.task_probe(), b.local().addr());
        assert!(probe.count() > 0);
        if graceful {
            soon(b.shutdown()).await;
            assert_eq!(probe.names(), Vec::<&str>::new());
        }
        drop(b);
        let socket = *addr.ip_addrs().next().expect("listens");
        let gone = async {
            while probe.count() > 0 || std::net::UdpSocket::bind(socket).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(gone).await;
        soon(a.shutdown()).await;
    }
}

/// The first dial goes to an address where nobody answers; the second knows better, and serves both.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_address_supersedes_a_stale_one() {
    let (a, b) = (node("n").await, node("n").await);
    let _seen = serve_echo(b.node());
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let stale = EndpointAddr::from(b.local().addr().id).with_ip_addr(deaf.local_addr().expect("bound"));
    let addr = b.local().addr();
    // Joined futures are polled in order: the stale dial is under way when the other begins.
    let (first, second) =
        soon(async { tokio::join!(a.node().open::<Echo>(&stale), a.node().open::<Echo>(&addr)) }).await;
    second.expect("opens");
    first.expect("the stale dial did not decide");
}

fn data_dir(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("mosaik-network-{name}-{}", std::process::id()))
}

/// One node per data directory; free again once the node has ended, even if a handle of it is still there.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_for_one_node_at_a_time() {
    let dir = data_dir("lock");
    let build =
        || Network::builder(NetworkId::random()).with_listen(([127, 0, 0, 1], 0).into()).with_data_dir(&dir).build();
    let first = build().await.expect("is free");
    let refused = build().await.expect_err("is in use");
    assert!(matches!(&refused, BuildError::DataDir(DataDirError::InUse { path }) if *path == dir), "{refused:?}");
    assert!(refused.to_string().contains(&dir.display().to_string()), "{refused}");
    first.shutdown().await;
    let second = build().await.expect("the first has ended");
    assert_eq!(first.local().id(), second.local().id());
    drop(second);
    build().await.expect("the second has ended").shutdown().await;
    std::fs::remove_dir_all(dir).expect("removes");
}

/// A node whose essential task panics ends, says why, and others see it go.
#[tokio::test(flavor = "multi_thread")]
async fn the_panic_of_an_essential_task_ends_the_node() {
    let (a, b) = (node("n").await, node("n").await);
    let _seen = serve_echo(b.node());
    let mut link = soon(a.node().open::<Echo>(&b.local().addr())).await.expect("opens");
    soon(link.send(&"hello".into())).await.expect("sends");
    soon(link.recv()).await.expect("is echoed");
    assert_eq!(b.failure(), None);
    b.node().tasks().spawn_essential("heart", async { panic!("expected by the test") });
    let failure = soon(b.failed()).await;
    assert_eq!(failure.to_string(), "the node ended because its task \"heart\" panicked: expected by the test");
    assert_eq!(b.failure(), Some(failure));
    soon(b.node().tasks().drained()).await;
    assert!(soon(link.recv()).await.is_err());
    soon(b.shutdown()).await;
    assert_eq!(a.failure(), None);
}

/// A connection that nobody uses makes room; one that is in use does not.
#[tokio::test(flavor = "multi_thread")]
async fn incoming_connections_have_a_total() {
    let quiet = || crate::discovery::Config::builder().with_rendezvous(false);
    let builder =
        || Network::builder(NetworkId::from("n")).with_listen(([127, 0, 0, 1], 0).into()).with_discovery(quiet());
    let server = builder().with_max_connections(2).build().await.expect("binds");
    let _seen = serve_echo(server.node());
    let peers = [(); 4].map(|()| builder().build());
    let [using, idle, new, late] = futures::future::join_all(peers).await.try_into().expect("four");
    let (using, idle, new, late) =
        (using.expect("binds"), idle.expect("binds"), new.expect("binds"), late.expect("binds"));
    let to = server.local().addr();
    let echo = async |from: &Network| {
        let mut link = from.node().open::<Echo>(&to).await.map_err(|error| error.to_string())?;
        link.send(&"x".into()).await.map_err(|error| error.to_string())?;
        link.recv().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(link)
    };
    let _used = soon(echo(&using)).await.expect("there is room");
    drop(soon(echo(&idle)).await.expect("there is room"));
    let unused = || server.node().pool().longest_unused().is_some();
    assert!(crate::testing::eventually(Duration::from_secs(10), unused).await);
    let _new = soon(echo(&new)).await.expect("that of the idle peer makes room");
    let gone = || !idle.node().is_connected(server.local().id());
    assert!(crate::testing::eventually(Duration::from_secs(10), gone).await);
    let fewer = || server.node().pool().incoming() == 2;
    assert!(crate::testing::eventually(Duration::from_secs(10), fewer).await);
    assert!(soon(echo(&late)).await.expect_err("there is none").contains("no capacity"));
    assert!(using.node().is_connected(server.local().id()) && new.node().is_connected(server.local().id()));
}

/// What does not end is aborted at the limit that was set.
#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_shutdown_is_a_setting() {
    let builder = Network::builder(NetworkId::random()).with_listen(([127, 0, 0, 1], 0).into());
    let stuck = builder.with_shutdown_limit(Duration::from_secs(4)).build().await.expect("binds");
    stuck.node().tasks().spawn("stuck", std::future::pending());
    let begun = tokio::time::Instant::now();
    soon(stuck.shutdown()).await;
    // The default is 1.5 s.
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
}
