//! What all backends promise, checked by the same test bodies on each: QUIC on real loopback, its lane of one host through
//! sockets and through memory, and the simulator in virtual time. This is what makes simulated runs believable.

#![expect(clippy::unchecked_time_subtraction, reason = "an underflow fails the test")]

use std::{net::SocketAddr, time::Duration};

use tokio::time::{Instant, timeout};

use super::{sim::Net, *};
use crate::testing::eventually;

pub(super) const ALPN: &[u8] = b"test/1";
const OTHER_ALPN: &[u8] = b"test/2";

/// Where the nodes of a test live.
enum Backend {
    Iroh,
    /// With a directory for sockets.
    #[cfg(unix)]
    Local(tempfile::TempDir),
    Memory,
    Sim(std::sync::Arc<Net>),
}

impl Backend {
    async fn node(&self, name: &str) -> Transport {
        match self {
            Self::Iroh => quic_node(name, None).await,
            #[cfg(unix)]
            Self::Local(dir) => {
                quic_node(name, Some(LaneConfig { dirs: vec![dir.path().join("lanes")], memory: false })).await
            }
            Self::Memory => quic_node(name, Some(LaneConfig { dirs: Vec::new(), memory: true })).await,
            Self::Sim(net) => Transport::Sim(sim::SimTransport::start(net, net.node(name), None, vec![ALPN.to_vec()])),
        }
    }

    /// Two nodes and a connection from the first to the second.
    async fn pair(&self) -> (Transport, Transport, Connection, Connection) {
        let (a, b) = (self.node("a").await, self.node("b").await);
        let to = b.addr();
        let (dialled, accepted) = tokio::join!(a.connect(&to, ALPN), b.accept());
        let (ab, ba) = (dialled.expect("connects"), accepted.expect("accepts"));
        agree(&ab, &ba);
        (a, b, ab, ba)
    }

    /// What carries its streams.
    fn lane(&self) -> Lane {
        match self {
            #[cfg(unix)]
            Self::Local(_) => Lane::Local,
            Self::Memory => Lane::Memory,
            Self::Iroh | Self::Sim(_) => Lane::Quic,
        }
    }
}

pub(super) async fn quic_node(name: &str, lane: Option<LaneConfig>) -> Transport {
    let secret_key = ::iroh::SecretKey::from_bytes(blake3::hash(name.as_bytes()).as_bytes());
    let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let config = IrohConfig { lane, ..IrohConfig::new(secret_key, listen, vec![ALPN.to_vec()]) };
    Transport::Iroh(IrohTransport::bind(config).await.expect("binds"))
}

/// The two ends of a connection agree on their lane, as the network layer has them do.
pub(super) fn agree(ab: &Connection, ba: &Connection) {
    let (a, b) = (ab.offer_lane(), ba.offer_lane());
    ab.lane().into_iter().for_each(|lane| lane.settle(b.clone()));
    ba.lane().into_iter().for_each(|lane| lane.settle(a.clone()));
}

macro_rules! on_all_backends {
    ($($test:ident),* ; not with sockets: $($other:ident),*) => {
        mod on_iroh {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(super::Backend::Iroh).await })*
            $(#[tokio::test(flavor = "multi_thread")] async fn $other() { super::$other(super::Backend::Iroh).await })*
        }
        #[cfg(unix)]
        mod on_local {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                super::$test(super::Backend::Local(tempfile::tempdir().expect("a directory"))).await;
            })*
        }
        mod on_memory {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(super::Backend::Memory).await })*
            $(#[tokio::test(flavor = "multi_thread")] async fn $other() { super::$other(super::Backend::Memory).await })*
        }
        mod on_sim {
            $(#[tokio::test(start_paused = true)] async fn $test() {
                super::$test(super::Backend::Sim(super::Net::new(1))).await;
            })*
            $(#[tokio::test(start_paused = true)] async fn $other() {
                super::$other(super::Backend::Sim(super::Net::new(1))).await;
            })*
        }
    };
}

on_all_backends!(
    streams_go_over_their_lane,
    a_connection_knows_both_ends,
    keying_material_is_shared_by_both_ends_of_one_connection,
    bytes_arrive_in_order_up_to_the_end,
    chunks_that_were_written_are_left_empty,
    stopped_resolves_when_a_finished_stream_was_delivered,
    a_reset_reaches_the_reader_with_its_code,
    a_stop_reaches_the_writer_with_its_code,
    a_dropped_sender_resets,
    a_dropped_receiver_stops,
    a_finished_stream_takes_no_more,
    a_close_reaches_the_peer_with_its_code,
    a_close_drops_what_was_not_delivered,
    what_arrived_before_a_close_can_still_be_read,
    the_last_handle_closes,
    a_stream_keeps_its_connection,
    a_writer_waits_for_a_slow_reader,
    a_stream_is_invisible_before_its_first_byte,
    streams_appear_in_the_order_of_opening,
    an_unknown_protocol_is_refused,
    nobody_at_the_address_times_out,
    another_key_at_the_address_fails,
    dials_that_cannot_work_fail_at_once,
    a_closed_transport_ends_everything,
    a_cancelled_read_loses_nothing;
    // It takes more descriptors than a process may have; who counts is the same for both lanes.
    not with sockets: the_stream_limit_holds_and_is_given_back
);

async fn streams_go_over_their_lane(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    for (from, to) in [(&ab, &ba), (&ba, &ab)] {
        let ((_, recv), (_, request)) = stream(from, to).await;
        assert_eq!((recv.lane(), request.lane()), (backend.lane(), backend.lane()));
    }
}

pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("in time")
}

pub(super) async fn write(stream: &mut SendStream, bytes: &[u8]) -> Result<(), WriteError> {
    stream.write_all_chunks(&mut [Bytes::copy_from_slice(bytes)]).await
}

/// Reads to the end.
pub(super) async fn read_all(recv: &mut RecvStream) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while let Some(chunk) = soon(recv.read_chunk(usize::MAX)).await? {
        assert!(!chunk.is_empty());
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// Opens a stream and says one byte on it, so that the peer sees it.
pub(super) async fn stream(from: &Connection, to: &Connection) -> ((SendStream, RecvStream), (SendStream, RecvStream)) {
    let mut opened = soon(from.open_bi()).await.expect("opens");
    soon(write(&mut opened.0, b"!")).await.expect("writes");
    let mut accepted = soon(to.accept_bi()).await.expect("accepts");
    assert_eq!(soon(accepted.1.read_chunk(1)).await, Ok(Some(Bytes::from_static(b"!"))));
    (opened, accepted)
}

/// Bytes that differ from place to place.
pub(super) fn pattern(length: usize) -> Bytes {
    (0..length).map(|i| u8::try_from(i % 251).expect("small")).collect()
}

async fn a_connection_knows_both_ends(backend: Backend) {
    let (a, b, ab, ba) = backend.pair().await;
    assert_eq!((ab.peer(), ba.peer()), (b.id(), a.id()));
    assert_eq!((ab.alpn(), ba.alpn()), (ALPN, ALPN));
    assert_ne!(ab.stable_id(), ba.stable_id());
    assert!(ab.rtt().is_some_and(|rtt| rtt > Duration::ZERO));
    assert_eq!(ab.close_reason(), None);
    // Either side may open streams, and both halves carry.
    for (from, to) in [(&ab, &ba), (&ba, &ab)] {
        let ((mut send, mut recv), (mut back, mut request)) = stream(from, to).await;
        soon(write(&mut send, b"ping")).await.expect("writes");
        send.finish();
        assert_eq!(read_all(&mut request).await.expect("reads"), b"ping");
        soon(write(&mut back, b"pong")).await.expect("writes");
        back.finish();
        assert_eq!(read_all(&mut recv).await.expect("reads"), b"pong");
    }
}

async fn keying_material_is_shared_by_both_ends_of_one_connection(backend: Backend) {
    let (a, b, ab, ba) = backend.pair().await;
    let to = b.addr();
    let (again, accepted) = tokio::join!(a.connect(&to, ALPN), b.accept());
    let (again, _accepted) = (again.expect("connects"), accepted.expect("accepts"));
    let material = ab.exporter(b"label", b"context").expect("is open");
    assert_eq!(ba.exporter(b"label", b"context"), Some(material));
    for other in [again.exporter(b"label", b"context"), ab.exporter(b"labe", b"lcontext"), ab.exporter(b"label", b"")] {
        assert_ne!(other.expect("is open"), material);
    }
}

async fn bytes_arrive_in_order_up_to_the_end(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    let sent = pattern(3 << 20);
    let expected = sent.clone();
    let write = async move {
        for (i, piece) in sent.chunks(100_003).enumerate() {
            if i % 2 == 0 {
                write(&mut send, piece).await.expect("writes");
            } else {
                let mut chunks: Vec<_> = piece.chunks(1 + i * 37).map(Bytes::copy_from_slice).collect();
                send.write_all_chunks(&mut chunks).await.expect("writes");
            }
        }
        send.finish();
        send
    };
    let (_send, received) = tokio::join!(soon(write), read_all(&mut recv));
    assert!(received.expect("reads") == expected);
    assert_eq!(soon(recv.read_chunk(1)).await, Ok(None));
}

async fn chunks_that_were_written_are_left_empty(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    let mut chunks = [pattern(10), Bytes::new(), pattern(20), pattern(5000), pattern(1)];
    soon(send.write_all_chunks(&mut chunks)).await.expect("writes");
    assert!(chunks.iter().all(Bytes::is_empty));
    send.finish();
    assert_eq!(read_all(&mut recv).await.expect("reads").len(), 5031);
}

async fn stopped_resolves_when_a_finished_stream_was_delivered(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    assert!(timeout(Duration::from_millis(100), send.stopped()).await.is_err());
    soon(write(&mut send, b"all")).await.expect("writes");
    send.finish();
    // Delivered to the peer's transport, which is not yet to say that its application has read it.
    assert_eq!(soon(send.stopped()).await, Ok(None));
    assert_eq!(read_all(&mut recv).await.expect("reads"), b"all");
}

async fn a_reset_reaches_the_reader_with_its_code(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    send.reset(77);
    send.reset(78);
    assert_eq!(soon(recv.read_chunk(10)).await, Err(ReadError::Reset { code: 77 }));
    assert_eq!(soon(write(&mut send, b"x")).await, Err(WriteError::Finished));
}

async fn a_stop_reaches_the_writer_with_its_code(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    recv.stop(99);
    recv.stop(98);
    assert_eq!(soon(send.stopped()).await, Ok(Some(99)));
    assert_eq!(soon(write(&mut send, b"x")).await, Err(WriteError::Stopped { code: 99 }));
    // A writer that waits for credit is woken, too.
    let ((mut send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    let much = pattern(8 << 20);
    let (written, ()) = tokio::join!(soon(write(&mut send, &much)), async {
        soon(recv.read_chunk(1000)).await.expect("reads");
        recv.stop(97);
    });
    assert_eq!(written, Err(WriteError::Stopped { code: 97 }));
}

async fn a_dropped_sender_resets(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    drop(send);
    assert_eq!(soon(recv.read_chunk(10)).await, Err(ReadError::Reset { code: 0 }));
    // Unless it was finished.
    let ((mut send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    soon(write(&mut send, b"end")).await.expect("writes");
    send.finish();
    drop(send);
    assert_eq!(read_all(&mut recv).await.expect("reads"), b"end");
}

async fn a_dropped_receiver_stops(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, _recv), (_back, recv)) = stream(&ab, &ba).await;
    drop(recv);
    assert_eq!(soon(send.stopped()).await, Ok(Some(0)));
}

async fn a_finished_stream_takes_no_more(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    send.finish();
    send.finish();
    assert_eq!(soon(write(&mut send, b"x")).await, Err(WriteError::Finished));
    assert_eq!(read_all(&mut recv).await.expect("reads"), b"");
}

async fn a_close_reaches_the_peer_with_its_code(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, mut recv), (mut back, mut request)) = stream(&ab, &ba).await;
    let (accepting, reading) = (ba.accept_bi(), request.read_chunk(10));
    ab.close(1234);
    ab.close(1235);
    let peer = ConnectionLost::ClosedByPeer { code: 1234 };
    assert_eq!(soon(accepting).await.err(), Some(peer.clone()));
    assert_eq!(soon(reading).await, Err(ReadError::Lost(peer.clone())));
    assert_eq!(soon(ba.closed()).await, peer);
    assert_eq!(ba.close_reason(), Some(peer.clone()));
    assert_eq!(soon(write(&mut back, b"x")).await, Err(WriteError::Lost(peer.clone())));
    assert_eq!(soon(back.stopped()).await, Err(peer.clone()));
    assert_eq!(soon(ba.open_bi()).await.err(), Some(peer.clone()));
    // Closing it here as well does not hide why it ended.
    ba.close(1236);
    assert_eq!(ba.close_reason(), Some(peer.clone()));
    assert_eq!(soon(write(&mut back, b"x")).await, Err(WriteError::Lost(peer)));
    let local = ConnectionLost::ClosedLocally;
    assert_eq!(soon(ab.closed()).await, local);
    assert_eq!(soon(recv.read_chunk(10)).await, Err(ReadError::Lost(local.clone())));
    assert_eq!(soon(write(&mut send, b"x")).await, Err(WriteError::Lost(local.clone())));
    assert_eq!(soon(ab.open_bi()).await.err(), Some(local));
}

/// What is not delivered is more than fits on the way, so that no scheduling of the two sides can deliver it all.
async fn a_close_drops_what_was_not_delivered(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    let much = pattern(4 << 20);
    let (written, first) = tokio::join!(soon(write(&mut send, &much)), async {
        let first = soon(recv.read_chunk(1000)).await.expect("reads").expect("has begun").len();
        ab.close(5);
        first
    });
    assert_eq!(written, Err(WriteError::Lost(ConnectionLost::ClosedLocally)));
    let mut received = first;
    let end = loop {
        match soon(recv.read_chunk(usize::MAX)).await {
            Ok(Some(chunk)) => received += chunk.len(),
            end => break end,
        }
    };
    assert_eq!(end, Err(ReadError::Lost(ConnectionLost::ClosedByPeer { code: 5 })));
    assert!(received < much.len(), "{received}");
}

async fn what_arrived_before_a_close_can_still_be_read(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    soon(write(&mut send, b"last words")).await.expect("writes");
    send.finish();
    assert_eq!(soon(send.stopped()).await, Ok(None));
    ab.close(5);
    soon(ba.closed()).await;
    assert_eq!(read_all(&mut recv).await.expect("reads"), b"last words");
}

async fn the_last_handle_closes(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let clone = ab.clone();
    drop(ab);
    assert!(timeout(Duration::from_millis(200), ba.closed()).await.is_err());
    drop(clone);
    assert_eq!(soon(ba.closed()).await, ConnectionLost::ClosedByPeer { code: 0 });
}

async fn a_stream_keeps_its_connection(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, recv), (_back, mut request)) = stream(&ab, &ba).await;
    drop((ab, recv));
    soon(write(&mut send, b"x")).await.expect("writes");
    send.finish();
    assert_eq!(read_all(&mut request).await.expect("reads"), b"x");
    drop(send);
    assert_eq!(soon(ba.closed()).await, ConnectionLost::ClosedByPeer { code: 0 });
}

async fn a_writer_waits_for_a_slow_reader(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    let mut written = 0;
    let megabyte = vec![7; 1 << 20];
    while let Ok(outcome) = timeout(Duration::from_secs(1), write(&mut send, &megabyte)).await {
        outcome.expect("writes");
        written += 1;
        assert!(written < 40, "nothing holds the writer back");
    }
    // A part of the megabyte that was cancelled may have been written.
    let rest = async {
        soon(write(&mut send, &megabyte)).await.expect("writes");
        send.finish();
    };
    let (received, ()) = tokio::join!(read_all(&mut recv), rest);
    let received = received.expect("reads").len();
    assert!((written + 1..=written + 2).contains(&(received >> 20)), "{received} of {written} MiB");
}

async fn a_stream_is_invisible_before_its_first_byte(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let (mut send, _recv) = soon(ab.open_bi()).await.expect("opens");
    assert!(timeout(Duration::from_millis(200), ba.accept_bi()).await.is_err());
    soon(write(&mut send, b"x")).await.expect("writes");
    soon(ba.accept_bi()).await.expect("accepts");
}

async fn streams_appear_in_the_order_of_opening(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let (mut first, _r1) = soon(ab.open_bi()).await.expect("opens");
    let (mut second, _r2) = soon(ab.open_bi()).await.expect("opens");
    soon(write(&mut second, b"2")).await.expect("writes");
    second.finish();
    let (_s, mut one) = soon(ba.accept_bi()).await.expect("accepts");
    let (_s, mut two) = soon(ba.accept_bi()).await.expect("accepts");
    assert_eq!(read_all(&mut two).await.expect("reads"), b"2");
    soon(write(&mut first, b"1")).await.expect("writes");
    first.finish();
    assert_eq!(read_all(&mut one).await.expect("reads"), b"1");
}

async fn the_stream_limit_holds_and_is_given_back(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let mut open = Vec::new();
    for _ in 0..MAX_STREAMS {
        open.push(soon(ab.open_bi()).await.expect("opens"));
    }
    assert!(timeout(Duration::from_millis(200), ab.open_bi()).await.is_err());
    // Streams end in both directions; QUIC gives the credit back in lots.
    for (mut send, mut recv) in open.drain(..MAX_STREAMS as usize / 2) {
        soon(write(&mut send, b"x")).await.expect("writes");
        send.finish();
        let (mut back, mut request) = soon(ba.accept_bi()).await.expect("accepts");
        assert_eq!(read_all(&mut request).await.expect("reads"), b"x");
        back.finish();
        assert_eq!(read_all(&mut recv).await.expect("reads"), b"");
    }
    soon(ab.open_bi()).await.expect("opens");
}

async fn an_unknown_protocol_is_refused(backend: Backend) {
    let (a, b) = (backend.node("a").await, backend.node("b").await);
    assert_eq!(soon(a.connect(&b.addr(), OTHER_ALPN)).await.err(), Some(ConnectError::UnsupportedProtocol));
}

async fn nobody_at_the_address_times_out(backend: Backend) {
    let a = backend.node("a").await;
    let nobody = {
        let gone = backend.node("gone").await;
        gone.close().await;
        gone.addr()
    };
    let begun = Instant::now();
    assert_eq!(soon(a.connect(&nobody, ALPN)).await.err(), Some(ConnectError::TimedOut));
    assert!(begun.elapsed() <= CONNECT_TIMEOUT + Duration::from_millis(500));
}

async fn another_key_at_the_address_fails(backend: Backend) {
    let (a, b, c) = (backend.node("a").await, backend.node("b").await, backend.node("c").await);
    let mixed = EndpointAddr::from(c.id()).with_addrs(b.addr().addrs);
    let error = soon(a.connect(&mixed, ALPN)).await.expect_err("c is not there");
    assert!(matches!(error, ConnectError::AnotherPeer | ConnectError::TimedOut), "{error:?}");
}

async fn dials_that_cannot_work_fail_at_once(backend: Backend) {
    let (a, b) = (backend.node("a").await, backend.node("b").await);
    assert_eq!(soon(a.connect(&a.addr(), ALPN)).await.err(), Some(ConnectError::ToSelf));
    assert_eq!(soon(a.connect(&b.id().into(), ALPN)).await.err(), Some(ConnectError::NoAddress));
    a.close().await;
    assert_eq!(soon(a.connect(&b.addr(), ALPN)).await.err(), Some(ConnectError::Closed));
}

async fn a_closed_transport_ends_everything(backend: Backend) {
    let (a, _b, ab, ba) = backend.pair().await;
    let probe = a.tasks().probe();
    soon(a.close()).await;
    assert_eq!(soon(ba.closed()).await, ConnectionLost::ClosedByPeer { code: 0 });
    // QUIC's endpoint may be gone before it could say so to its own handles.
    assert!(matches!(soon(ab.closed()).await, ConnectionLost::ClosedLocally | ConnectionLost::Other(_)));
    assert!(soon(a.accept()).await.is_none());
    assert!(eventually(Duration::from_secs(1), || probe.count() == 0).await, "{:?}", probe.names());
}

async fn a_cancelled_read_loses_nothing(backend: Backend) {
    let (_a, _b, ab, ba) = backend.pair().await;
    let ((mut send, _recv), (_back, mut recv)) = stream(&ab, &ba).await;
    let mut received = 0;
    for _ in 0..20 {
        assert!(timeout(Duration::from_millis(1), recv.read_chunk(10)).await.is_err());
        soon(write(&mut send, &[1; 30])).await.expect("writes");
        while received % 30 < 29 {
            received += soon(recv.read_chunk(29 - received % 30)).await.expect("reads").expect("bytes").len();
        }
        received += soon(recv.read_chunk(1)).await.expect("reads").expect("a byte").len();
    }
    assert_eq!(received, 600);
}

/// A crash is noticed within the idle time-out. QUIC's peer runs on a runtime of its own, which is stopped.
mod crash {
    use super::*;

    async fn assert_lost(connection: &Connection, crashed: Instant) {
        assert_eq!(soon(connection.closed()).await, ConnectionLost::TimedOut);
        let after = crashed.elapsed();
        assert!(after >= IDLE_TIMEOUT - KEEP_ALIVE - Duration::from_millis(100), "{after:?}");
        assert!(after <= IDLE_TIMEOUT + Duration::from_secs(1), "{after:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn on_iroh() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runs");
        let a = Backend::Iroh.node("a").await;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "a runtime of its own is what can be stopped")]
        runtime.spawn(async move {
            let b = Backend::Iroh.node("b").await;
            sender.send(b.addr()).expect("the test waits");
            let _connection = b.accept().await;
            std::future::pending::<()>().await;
        });
        let connection = soon(a.connect(&soon(receiver).await.expect("binds"), ALPN)).await.expect("connects");
        runtime.shutdown_background();
        assert_lost(&connection, Instant::now()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn on_sim() {
        let net = Net::new(1);
        let (_a, _b, ab, ba) = Backend::Sim(net.clone()).pair().await;
        net.crash(net.node("b"));
        assert_lost(&ab, Instant::now()).await;
        assert!(matches!(ba.close_reason(), Some(ConnectionLost::Other(_))));
    }
}
