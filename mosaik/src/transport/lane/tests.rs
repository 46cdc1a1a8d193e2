//! What strangers, broken peers and limits do to a lane: nothing beyond the stream at hand.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use futures::future::join_all;
use tempfile::TempDir;
use tokio::net::UnixStream;

use super::{
    hello::{Direction, HELLO, Hello, Side, TOKEN},
    listener::{read_exact, write_all},
    *,
};
use crate::{
    testing::eventually,
    transport::{
        Connection, ReadError, Transport,
        tests::{ALPN, agree, pattern, quic_node, read_all, soon, stream, write},
    },
};

/// Two nodes with a lane through sockets, and a connection between them.
struct Two {
    dir: TempDir,
    a: Transport,
    b: Transport,
    ab: Connection,
    ba: Connection,
}

impl Two {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let lanes = dir.path().join("lanes");
        let (a, b) = (node(&lanes, "a").await, node(&lanes, "b").await);
        let (ab, ba) = connect(&a, &b).await;
        Self { dir, a, b, ab, ba }
    }

    /// Where the second node listens.
    fn socket(&self) -> PathBuf {
        self.ba.offer_lane().and_then(|offer| offer.socket).expect("listens").into()
    }

    /// What carries the next stream from the first to the second.
    async fn next(&self) -> Lane {
        stream(&self.ab, &self.ba).await.0.1.lane()
    }

    /// A stream to the second node that is made by hand: what it reads, then what it writes.
    async fn by_hand(&self, number: u64) -> (UnixStream, UnixStream) {
        let key = self.ab.lane().expect("has a lane").key();
        let socket = self.socket();
        let one = async |direction| {
            let connected = UnixStream::connect(&socket).await.expect("connects");
            let hello = key.hello(Side::Dialler, direction, number);
            let answer = knock(&connected, &hello.encode()).await.expect("is answered");
            assert!(key.is_answer(&hello, answer));
            connected
        };
        (one(Direction::Forth).await, one(Direction::Back).await)
    }
}

async fn node(dir: &Path, name: &str) -> Transport {
    quic_node(name, Some(LaneConfig { dirs: vec![dir.into()], memory: false })).await
}

async fn connect(a: &Transport, b: &Transport) -> (Connection, Connection) {
    let to = b.addr();
    let (ab, ba) = tokio::join!(a.connect(&to, ALPN), b.accept());
    let (ab, ba) = (ab.expect("connects"), ba.expect("accepts"));
    agree(&ab, &ba);
    (ab, ba)
}

/// Says something and reads the answer; `None` when the socket is closed without one.
async fn knock(socket: &UnixStream, hello: &[u8]) -> Option<[u8; TOKEN]> {
    write_all(socket, hello).await.ok()?;
    let mut answer = [0; TOKEN];
    soon(read_exact(socket, &mut answer)).await.ok().map(|()| answer)
}

fn sockets(dir: &Path) -> usize {
    let files = fs::read_dir(dir).expect("a directory").map(|file| file.expect("a file").path());
    files.filter(|path| path.extension().is_some_and(|suffix| suffix == "lane")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_token_is_not_answered() {
    let two = Two::new().await;
    let key = two.ab.lane().expect("has a lane").key();
    let hello = key.hello(Side::Dialler, Direction::Forth, 1000).encode();
    let changed = |at: usize| {
        let mut bytes = hello;
        bytes[at] ^= 1;
        bytes
    };
    // Another connection, the other end, another direction, another number, another token, and no hello at all.
    for wrong in [changed(0), changed(16), changed(17), changed(18), changed(HELLO - 1), [0xff; HELLO]] {
        let socket = UnixStream::connect(two.socket()).await.expect("connects");
        assert_eq!(knock(&socket, &wrong).await, None);
    }
    let first = UnixStream::connect(two.socket()).await.expect("connects");
    let answer = knock(&first, &hello).await.expect("is answered");
    assert!(key.is_answer(&Hello::decode(&hello).expect("a hello"), answer));
    // A token counts once.
    let again = UnixStream::connect(two.socket()).await.expect("connects");
    assert_eq!(knock(&again, &hello).await, None);
    assert_eq!(two.next().await, Lane::Local);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_say_nothing_are_bounded_and_keep_nobody_out() {
    let two = Two::new().await;
    let socket = two.socket();
    let mut silent = Vec::new();
    for _ in 0..1000 {
        let connect = async || loop {
            match UnixStream::connect(&socket).await {
                Ok(connected) => break connected,
                // The queue of the kernel is full.
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            tokio::task::yield_now().await;
        };
        silent.push(soon(connect()).await);
    }
    assert_eq!(two.next().await, Lane::Local);
    let closed = join_all(silent.iter().map(|socket| knock(socket, b""))).await;
    assert!(closed.iter().all(Option::is_none));
    assert_eq!(two.next().await, Lane::Local);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_cut_within_a_frame_loses_its_stream_and_nothing_else() {
    let two = Two::new().await;
    let (_other, (_back, mut kept)) = stream(&two.ab, &two.ba).await;
    let (forth, back) = two.by_hand(1000).await;
    // A frame of 100 bytes, of which 50 come.
    write_all(&forth, &[&[100, 0, 0, 0][..], &[7; 50]].concat()).await.expect("writes");
    let (mut send, mut recv) = soon(two.ba.accept_bi()).await.expect("accepts");
    assert_eq!(soon(recv.read_chunk(1000)).await.expect("reads").map(|chunk| chunk.len()), Some(50));
    drop((forth, back));
    assert!(matches!(soon(recv.read_chunk(1000)).await, Err(ReadError::Lost(ConnectionLost::Other(_)))));
    assert!(matches!(soon(send.stopped()).await, Err(ConnectionLost::Other(_))));
    assert!(soon(write(&mut send, b"x")).await.is_err());
    // The connection, its other streams and its lane are well.
    assert_eq!(two.ba.close_reason(), None);
    assert!(timeout(Duration::from_millis(50), kept.read_chunk(1)).await.is_err());
    assert_eq!(two.next().await, Lane::Local);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_frame_ends_the_stream() {
    let two = Two::new().await;
    let (forth, _back) = two.by_hand(1000).await;
    write_all(&forth, &[1, 2, 3, 200, 5]).await.expect("writes");
    let (_send, mut recv) = soon(two.ba.accept_bi()).await.expect("accepts");
    assert!(matches!(soon(recv.read_chunk(1000)).await, Err(ReadError::Lost(ConnectionLost::Other(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_left_to_quic() {
    let two = Two::new().await;
    fs::remove_file(two.socket()).expect("removes");
    assert_eq!(two.next().await, Lane::Quic);
    // It is not tried again on this connection; in the other direction there is a lane all the same.
    assert_eq!(two.next().await, Lane::Quic);
    assert_eq!(stream(&two.ba, &two.ab).await.0.1.lane(), Lane::Local);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_sends_nobody_to_the_sockets_of_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let lanes = dir.path().join("lanes");
    let (a, b) = (node(&lanes, "a").await, node(&lanes, "b").await);
    let other = lanes.join("docker.sock");
    let listening = tokio::net::UnixListener::bind(&other).expect("binds");
    let named = lanes.join("0123456789abcdef0123456789abcdef.lane");
    fs::write(&named, "").expect("writes");
    for theirs in [other.clone(), named, "relative.lane".into()] {
        let to = b.addr();
        let (ab, ba) = tokio::join!(a.connect(&to, ALPN), b.accept());
        let (ab, ba) = (ab.expect("connects"), ba.expect("accepts"));
        assert!(ab.offer_lane().is_some());
        ab.lane().expect("has a lane").settle(Some(LaneOffer { socket: Some(theirs.to_str().expect("text").into()) }));
        assert_eq!(stream(&ab, &ba).await.0.1.lane(), Lane::Quic);
    }
    assert!(timeout(Duration::from_millis(50), listening.accept()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_the_kernel_has_no_room_for_comes_through() {
    let two = Two::new().await;
    for finished in [true, false] {
        let ((mut send, _recv), (_back, mut recv)) = stream(&two.ab, &two.ba).await;
        let much = pattern(8 << 20);
        // More than the kernel takes, and then no more is written.
        assert!(timeout(Duration::from_millis(100), write(&mut send, &much)).await.is_err());
        if finished {
            send.finish();
        } else {
            send.reset(9);
        }
        drop(send);
        let mut received = Vec::new();
        let end = loop {
            match soon(recv.read_chunk(usize::MAX)).await {
                Ok(Some(chunk)) => received.extend_from_slice(&chunk),
                end => break end,
            }
        };
        assert_eq!(end, if finished { Ok(None) } else { Err(ReadError::Reset { code: 9 }) });
        assert!(!received.is_empty() && received == much[..received.len()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_file_goes_with_its_node_and_that_of_a_dead_one_with_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let lanes = dir.path().join("lanes");
    let dead = |name: &str| {
        // The listener ends and leaves its file, as in a process that is killed.
        drop(std::os::unix::net::UnixListener::bind(lanes.join(name).with_extension("lane")).expect("binds"));
    };
    std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(&lanes).expect("creates");
    dead("0123456789abcdef0123456789abcdef");
    let a = node(&lanes, "a").await;
    assert_eq!(sockets(&lanes), 1);
    let b = node(&lanes, "b").await;
    assert_eq!(sockets(&lanes), 2, "that of a living one stays");
    a.close().await;
    assert!(eventually(Duration::from_secs(5), || sockets(&lanes) == 1).await);
    b.tasks().abort_all();
    assert!(eventually(Duration::from_secs(5), || sockets(&lanes) == 0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_open_to_others_has_no_lane() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("sets");
    let a = node(dir.path(), "a").await;
    let b = node(dir.path(), "b").await;
    assert_eq!(sockets(dir.path()), 0);
    let (ab, ba) = connect(&a, &b).await;
    assert_eq!(stream(&ab, &ba).await.0.1.lane(), Lane::Quic);
}

#[test]
fn two_thousand_streams_are_open_at_once() {
    alone("two_thousand_streams", 9000);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above, in a process of its own"]
async fn two_thousand_streams() {
    let two = Two::new().await;
    let mut open = Vec::new();
    for i in 0..2000_u32 {
        let ((mut send, recv), (back, mut request)) = stream(&two.ab, &two.ba).await;
        assert_eq!(recv.lane(), Lane::Local);
        soon(write(&mut send, &i.to_le_bytes())).await.expect("writes");
        assert_eq!(soon(request.read_chunk(4)).await.expect("reads").as_deref(), Some(&i.to_le_bytes()[..]));
        open.push((send, recv, back, request));
    }
    for (mut send, _, _, mut request) in open {
        send.finish();
        assert_eq!(read_all(&mut request).await.expect("reads"), b"");
    }
}

/// In a process of its own, whose descriptors can be counted and limited: what the test of that name says.
fn alone(test: &str, limit: u32) -> String {
    let this = std::env::current_exe().expect("a path");
    let run = format!("ulimit -n {limit}; exec \"$0\" --exact transport::lane::tests::{test} --ignored --nocapture");
    let output = Command::new("sh").args(["-c", &run]).arg(this).output().expect("runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn without_descriptors_streams_go_over_quic_with_one_warning() {
    let said = alone("descriptors_run_out", 100);
    assert_eq!(said.matches("no descriptors are left").count(), 2, "one of each node: {said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above, with a limit of descriptors"]
async fn descriptors_run_out() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let two = Two::new().await;
    let mut open = Vec::new();
    for from_a in [true, false].into_iter().cycle().take(80) {
        let (from, to) = if from_a { (&two.ab, &two.ba) } else { (&two.ba, &two.ab) };
        open.push(stream(from, to).await);
    }
    let lanes: Vec<_> = open.iter().map(|((_, recv), _)| recv.lane()).collect();
    assert!(lanes.contains(&Lane::Local) && lanes.contains(&Lane::Quic), "{lanes:?}");
    // With descriptors there is a lane again.
    drop(open);
    soon(async { while two.next().await != Lane::Local {} }).await;
}

#[cfg(target_os = "linux")]
#[test]
fn no_descriptor_is_left_over() {
    alone("descriptors_are_given_back", 400);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above, in a process of its own"]
async fn descriptors_are_given_back() {
    let two = Two::new().await;
    let count = || fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let before = count();
    for round in 0..20 {
        let (ab, ba) = connect(&two.a, &two.b).await;
        for _ in 0..100 {
            let ((mut send, mut recv), (mut back, mut request)) = stream(&ab, &ba).await;
            assert_eq!(recv.lane(), Lane::Local, "round {round}");
            send.finish();
            assert_eq!(read_all(&mut request).await.expect("reads"), b"");
            back.finish();
            assert_eq!(read_all(&mut recv).await.expect("reads"), b"");
        }
        // Some end with their connection.
        let _open = (stream(&ab, &ba).await, stream(&ba, &ab).await);
        ab.close(0);
        soon(ba.closed()).await;
    }
    assert!(eventually(Duration::from_secs(10), || count() <= before + 8).await, "{before} and now {}", count());
    assert_eq!(sockets(&two.dir.path().join("lanes")), 2);
}
