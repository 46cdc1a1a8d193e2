//! Links between two real nodes on loopback.

use std::time::Duration;

use iroh::EndpointAddr;
use tokio::{sync::mpsc, time::timeout};

use super::{handle::Network, link::*, node::Node, *};
use crate::primitives::NetworkId;

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
