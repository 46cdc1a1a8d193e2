//! Strangers that would be members of a group: without the key, with a wrong one, with a proof of another connection, with
//! garbage, and in great numbers. The group goes on, and its members stay bonded.

use std::time::Duration;

use iroh::endpoint::{Connection, RecvStream, SendStream};
use mosaik::{
    Network, PeerId,
    groups::{Consistency, Group, GroupKey, Refusal},
    network::{CloseCode, Family},
    testing::eventually,
};

use super::{Attacker, Scene, frame, node, preamble, refusal, soon};

const ALPN: &str = Family::GROUPS.alpn();
const PROTOCOL: &str = "bond/9";
/// Handshakes that a node serves at once.
const MAX_PENDING: usize = 128;

/// A machine that counts.
#[derive(Default)]
struct Counter(u64);

impl mosaik::groups::StateMachine for Counter {
    type Command = u64;
    type Output = u64;
    type Query = ();
    type QueryResult = u64;
    const NAME: &'static str = "counter";

    fn apply(&mut self, by: u64, _: &mosaik::groups::ApplyContext) -> u64 {
        self.0 += by;
        self.0
    }

    fn query(&self, (): ()) -> u64 {
        self.0
    }
}

/// The victim and its honest peer with a group of two.
struct Two {
    scene: Scene,
    key: GroupKey,
    victim: Group<Counter>,
    honest: Group<Counter>,
}

impl Two {
    async fn new(name: &str) -> Self {
        let scene = Scene::new(name).await;
        let key = GroupKey::from_secret(name);
        let (victim, honest) = tokio::join!(join(&scene.victim, &key), join(&scene.honest, &key));
        soon(victim.execute(1, Consistency::Strong)).await.expect("executes");
        Self { scene, key, victim, honest }
    }

    fn group(&self) -> [u8; 32] {
        *self.key.group_id("counter").as_bytes()
    }

    /// The group still works, over the bond that it had before.
    async fn assert_unharmed(&self) {
        for group in [&self.victim, &self.honest] {
            soon(group.execute(1, Consistency::Strong)).await.expect("executes");
            assert_eq!(group.bonds().len(), 1);
        }
    }
}

async fn join(network: &Network, key: &GroupKey) -> Group<Counter> {
    let builder = network.groups().with_key(key.clone()).with_state_machine(Counter::default());
    builder.with_size(2).join().await.expect("joins")
}

/// Who was refused, and why.
fn refusals(group: &Group<Counter>) -> Vec<(PeerId, Refusal)> {
    group.refusals().into_iter().map(|refused| (refused.peer, refused.reason)).collect()
}

/// The hello of a stranger, as the book describes it.
fn hello(group: [u8; 32]) -> Vec<u8> {
    let cluster: Option<[u8; 32]> = None;
    let (start, extent) = ([1u64, 5, 0, 0], [0u64; 4]);
    let hello = (0u8, group, 1u64, cluster, start, extent, [7u8; 32], 99u64, 1u64, 0u64);
    frame(&postcard::to_allocvec(&hello).expect("encodes"))
}

/// The dialler's proof.
fn proof(proof: [u8; 32]) -> Vec<u8> {
    frame(&postcard::to_allocvec(&(1u8, proof)).expect("encodes"))
}

/// Opens a stream of bonds and says that.
async fn say(attacker: &Attacker, two: &Two, bytes: &[u8]) -> (Connection, SendStream, RecvStream) {
    let bytes = [&preamble(two.scene.network, PROTOCOL), bytes].concat();
    attacker.say(&two.scene, ALPN, &bytes).await
}

/// Reads one frame.
async fn answer(recv: &mut RecvStream) -> Vec<u8> {
    let mut header = [0; 4];
    soon(recv.read_exact(&mut header)).await.expect("an answer");
    let mut body = vec![0; u32::from_le_bytes(header) as usize];
    soon(recv.read_exact(&mut body)).await.expect("all of it");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_without_the_key() {
    let two = Two::new("hostile: no key").await;
    let attacker = Attacker::new(1).await;
    let (_connection, _send, mut recv) = say(&attacker, &two, &hello([3; 32])).await;
    assert_eq!(refusal(&mut recv).await, CloseCode::GroupNotFound);

    let (_connection, mut send, mut recv) = say(&attacker, &two, &hello(two.group())).await;
    let theirs = answer(&mut recv).await;
    // A hello and no more: incarnation, nonce and numbers. The terms of the group are not among it.
    assert_eq!(theirs[0], 0);
    assert_eq!(theirs[1..33], two.group());
    soon(send.write_all(&proof([9; 32]))).await.expect("writes");
    assert_eq!(refusal(&mut recv).await, CloseCode::WrongKey);
    // The operator of the victim sees it.
    let stranger = PeerId::from(attacker.key().public());
    let seen = || refusals(&two.victim).contains(&(stranger, Refusal::WrongKey));
    assert!(eventually(Duration::from_secs(5), seen).await);
    two.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_without_the_key_seals_no_group() {
    let two = Two::new("hostile: seal").await;
    let attacker = Attacker::new(1).await;
    for (group, code) in [([3; 32], CloseCode::GroupNotFound), (two.group(), CloseCode::WrongKey)] {
        let request = postcard::to_allocvec(&(0u8, group, 0u8, [9u8; 32])).expect("encodes");
        let bytes = [preamble(two.scene.network, "operate/2"), frame(&request)].concat();
        let (_connection, _send, mut recv) = attacker.say(&two.scene, ALPN, &bytes).await;
        assert_eq!(refusal(&mut recv).await, code);
    }
    let bytes = [preamble(two.scene.network, "operate/2"), frame(&[1, 7])].concat();
    let (_connection, _send, mut recv) = attacker.say(&two.scene, ALPN, &bytes).await;
    assert_eq!(refusal(&mut recv).await, CloseCode::Undecodable);
    two.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_without_the_key_calls_no_group() {
    let two = Two::new("hostile: call").await;
    let attacker = Attacker::new(1).await;
    for (group, code) in [([3; 32], CloseCode::GroupNotFound), (two.group(), CloseCode::WrongKey)] {
        let greeting = postcard::to_allocvec(&(0u8, group, (0u32, [0u8; 32]), [9u8; 32])).expect("encodes");
        let bytes = [preamble(two.scene.network, "call/1"), frame(&greeting)].concat();
        let (_connection, _send, mut recv) = attacker.say(&two.scene, ALPN, &bytes).await;
        assert_eq!(refusal(&mut recv).await, code);
    }
    for (garbage, code) in [(vec![1; 33], CloseCode::Undecodable), (vec![0; 4096], CloseCode::TooLarge)] {
        let bytes = [preamble(two.scene.network, "call/1"), frame(&garbage)].concat();
        let (_connection, _send, mut recv) = attacker.say(&two.scene, ALPN, &bytes).await;
        assert_eq!(refusal(&mut recv).await, code);
    }
    two.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_out_of_turn_and_garbage() {
    let two = Two::new("hostile: bond garbage").await;
    let attacker = Attacker::new(1).await;
    let group = two.group();
    for bytes in [proof([9; 32]), frame(&[200; 50]), frame(&[]), [hello(group), hello(group)].concat()] {
        let (_connection, _send, mut recv) = say(&attacker, &two, &bytes).await;
        let code = refusal(&mut recv).await;
        assert_eq!(code, CloseCode::Undecodable);
    }
    for huge in [(32 << 10) + 1, u32::MAX] {
        for before in [vec![], hello(group)] {
            let (_connection, _send, mut recv) =
                say(&attacker, &two, &[before, huge.to_le_bytes().to_vec()].concat()).await;
            let code = refusal(&mut recv).await;
            assert!([CloseCode::TooLarge, CloseCode::Undecodable].contains(&code), "{code:?}");
        }
    }
    two.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_within_the_handshake() {
    let two = Two::new("hostile: bond silence").await;
    let attacker = Attacker::new(1).await;
    let (_connection, _send, mut at_once) = say(&attacker, &two, &[]).await;
    let (_connection, _send, mut half_open) = say(&attacker, &two, &hello(two.group())).await;
    two.assert_unharmed().await;
    assert_eq!(refusal(&mut at_once).await, CloseCode::Timeout);
    assert_eq!(refusal(&mut half_open).await, CloseCode::Normal);
    two.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_handshakes_that_do_not_go_on() {
    let two = Two::new("hostile: many bonds").await;
    let mut attackers = Vec::new();
    for key in 0..50 {
        let attacker = Attacker::new(key).await;
        let connection = attacker.connect(&two.scene, ALPN).await;
        attackers.push((attacker, connection));
    }
    let start = [preamble(two.scene.network, PROTOCOL), hello(two.group())].concat();
    let mut streams = Vec::new();
    for _ in 0..20 {
        for (_, connection) in &attackers {
            let (mut send, recv) = soon(connection.open_bi()).await.expect("opens");
            soon(send.write_all(&start)).await.expect("writes");
            streams.push((send, recv));
        }
    }
    let tasks = || two.scene.victim.task_probe().names().iter().filter(|name| **name == "bond-greet").count();
    assert!(eventually(Duration::from_secs(5), || tasks() <= MAX_PENDING).await, "{} handshakes are served", tasks());
    two.assert_unharmed().await;
    assert!(eventually(Duration::from_secs(8), || tasks() == 0).await, "{} handshakes are still there", tasks());
    // A member that comes now is let in.
    let late = node(two.scene.network).await;
    let late_group = join(&late, &two.key).await;
    assert!(eventually(Duration::from_secs(10), || late_group.bonds().len() == 2).await);
    late.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_another_size_is_told_why() {
    let two = Two::new("hostile: other size").await;
    let network = node(two.scene.network).await;
    let builder = network.groups().with_key(two.key.clone()).with_state_machine(Counter::default());
    let other = builder.with_size(3).join().await.expect("joins");
    let differs =
        |ours: &str, theirs: &str| Refusal::Incompatible { what: "size", ours: ours.into(), theirs: theirs.into() };
    let (one, another) = (two.scene.victim.local().id(), network.local().id());
    let both = || {
        refusals(&other).contains(&(one, differs("3", "2")))
            && refusals(&two.victim).contains(&(another, differs("2", "3")))
    };
    assert!(eventually(Duration::from_secs(10), both).await, "{:?} {:?}", other.refusals(), two.victim.refusals());
    two.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_hello_on_another_connection() {
    let two = Two::new("hostile: replay").await;
    let attacker = Attacker::new(1).await;
    // What a stranger has heard on one connection it says on another one, to the same member.
    let (_connection, _send, mut recv) = say(&attacker, &two, &hello(two.group())).await;
    let heard = answer(&mut recv).await;
    let (_connection, mut send, mut recv) = say(&attacker, &two, &frame(&heard)).await;
    answer(&mut recv).await;
    soon(send.write_all(&proof([0; 32]))).await.expect("writes");
    assert_eq!(refusal(&mut recv).await, CloseCode::WrongKey);
    two.assert_unharmed().await;
}
