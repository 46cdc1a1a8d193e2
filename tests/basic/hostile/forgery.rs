//! Lies in well-formed messages of discovery: entries and hints that are not their owner's, or not their newest.

use std::time::Duration;

use iroh::{EndpointAddr, SecretKey, Signature, endpoint::RecvStream};
use mosaik::{
    Network, NetworkId, PeerId,
    discovery::{LocalEntry, StreamSet, Version},
    network::{CloseCode, Family},
    testing::eventually,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Attacker, Scene, frame, preamble, refusal, soon};

type Key = [u8; 32];

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sign {
    hint: Vec<u8>,
    age: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    body: Vec<u8>,
    signature: Signature,
    sign: Sign,
}

/// `sync/2`, as far as an attacker needs it; the order of the variants is the wire format.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    Open { root: u128, me: Sign, silent: Vec<Key> },
    Same { signs: Vec<Sign> },
    Buckets { signs: Vec<Sign>, digests: Vec<(u8, u128)> },
    Offer { buckets: Vec<u8>, items: Vec<(Key, Version)>, last: bool },
    Delta { records: Vec<Record>, signs: Vec<Sign>, wants: Vec<Key>, more: bool },
    Records { records: Vec<Record>, last: bool },
    Merged,
}

/// Somebody whose entries are made up here.
pub(super) struct Person {
    key: SecretKey,
    network: NetworkId,
}

impl Person {
    pub(super) fn new(name: &str, network: NetworkId) -> Self {
        Self { key: SecretKey::from_bytes(blake3::hash(name.as_bytes()).as_bytes()), network }
    }

    pub(super) fn id(&self) -> PeerId {
        self.key.public().into()
    }

    /// An entry about `subject` with a tag, signed by this person, and a hint for it.
    pub(super) fn record(&self, subject: PeerId, version: Version, tag: &str) -> Record {
        let addr = EndpointAddr::from(subject).with_ip_addr(([127, 0, 0, 1], 9).into());
        let said = LocalEntry {
            addr,
            tags: [tag].into_iter().collect(),
            ticket: None,
            produces: StreamSet::default(),
            consumes: StreamSet::default(),
            groups: Default::default(),
            stores: Default::default(),
            protocols: Default::default(),
        };
        let body = postcard::to_allocvec(&(version, said)).expect("encodes");
        let signature = self.sign(b"mosaik discovery entry 2:", &body);
        Record { sign: self.hint(subject, version, &body), signature, body }
    }

    fn hint(&self, subject: PeerId, version: Version, body: &[u8]) -> Sign {
        let digest = blake3::Hasher::new_derive_key("mosaik 2026 discovery entry digest 1").update(body).finalize();
        let mut hint = subject.as_bytes().to_vec();
        hint.extend(version.run_id.to_le_bytes());
        hint.extend(version.seq.to_le_bytes());
        hint.extend(digest.as_bytes());
        hint.extend(1u64.to_le_bytes());
        hint.extend(15_000u32.to_le_bytes());
        hint.push(0);
        let signature = self.sign(b"mosaik discovery hint 1:", &hint);
        hint.extend(signature.to_bytes());
        Sign { hint, age: 0 }
    }

    fn sign(&self, domain: &[u8], bytes: &[u8]) -> Signature {
        self.key.sign(&[domain, self.network.as_bytes(), bytes].concat())
    }
}

async fn receive<T: DeserializeOwned>(recv: &mut RecvStream) -> T {
    let mut header = [0; 4];
    soon(recv.read_exact(&mut header)).await.expect("a frame");
    let mut body = vec![0; u32::from_le_bytes(header) as usize];
    soon(recv.read_exact(&mut body)).await.expect("a whole frame");
    postcard::from_bytes(&body).expect("a message")
}

/// Syncs with the victim and gives it records; what the victim knows, and how it ended the stream.
async fn give(scene: &Scene, attacker: &Attacker, records: Vec<Record>) -> (Vec<Record>, CloseCode) {
    give_to(scene.network, scene.addr(), attacker, records).await
}

/// The same, with any node of that network.
pub(super) async fn give_to(
    network: NetworkId,
    addr: EndpointAddr,
    attacker: &Attacker,
    records: Vec<Record>,
) -> (Vec<Record>, CloseCode) {
    let version = Version { run_id: 1, seq: 0 };
    let own = Person { key: attacker.key(), network };
    let me = own.record(own.id(), version, "me").sign;
    let open = Message::Open { root: 0, me, silent: vec![] };
    let bytes = [preamble(network, "sync/2"), frame(&postcard::to_allocvec(&open).expect("encodes"))].concat();
    let connection = attacker.connect_to(addr, Family::DISCOVERY.alpn()).await;
    let (mut send, mut recv) = soon(connection.open_bi()).await.expect("opens");
    soon(send.write_all(&bytes)).await.expect("writes");
    let Message::Buckets { digests, .. } = receive(&mut recv).await else { panic!("no buckets") };
    // Claims to have versions that the victim must want, in every bucket.
    let newest = Version { run_id: u64::MAX - 1, seq: 0 };
    let mut items: Vec<_> = records.iter().map(|record| (subject(record), newest)).collect();
    items.sort_unstable();
    let mut buckets: Vec<_> = digests.iter().map(|(bucket, _)| *bucket).collect();
    buckets.extend(items.iter().map(|(key, _)| key[0]));
    buckets.sort_unstable();
    buckets.dedup();
    let offer = Message::Offer { buckets, items, last: true };
    soon(send.write_all(&frame(&postcard::to_allocvec(&offer).expect("encodes")))).await.expect("writes");
    let mut known = Vec::new();
    loop {
        let Message::Delta { records, more, .. } = receive(&mut recv).await else { panic!("no delta") };
        known.extend(records);
        if !more {
            break;
        }
    }
    let message = Message::Records { records, last: true };
    soon(send.write_all(&frame(&postcard::to_allocvec(&message).expect("encodes")))).await.expect("writes");
    send.finish().expect("open");
    (known, refusal(&mut recv).await)
}

/// All that an attacker says in a session in which it gives records, without listening.
pub(super) fn unasked(network: NetworkId, attacker: &Attacker, records: Vec<Record>) -> Vec<u8> {
    let own = Person { key: attacker.key(), network };
    let me = own.record(own.id(), Version { run_id: 1, seq: 0 }, "me").sign;
    let messages = [Message::Open { root: 0, me, silent: vec![] }, Message::Records { records, last: true }];
    let frames = messages.iter().map(|message| frame(&postcard::to_allocvec(message).expect("encodes")));
    [preamble(network, "sync/2")].into_iter().chain(frames).flatten().collect()
}

fn subject(record: &Record) -> Key {
    let (_, said): (Version, LocalEntry) = postcard::from_bytes(&record.body).expect("an entry");
    *PeerId::from(said.addr.id).as_bytes()
}

fn tagged(network: &Network, peer: PeerId, tag: &str) -> bool {
    network.discovery().catalog().get(peer).is_some_and(|entry| entry.tags().contains(tag))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_true_entry_of_a_stranger_is_taken() {
    // The control: what the attacker speaks is the protocol.
    let scene = Scene::new("hostile: control").await;
    let (attacker, person) = (Attacker::new(1).await, Person::new("person", scene.network));
    let record = person.record(person.id(), Version { run_id: 5, seq: 0 }, "true");
    let (known, code) = give(&scene, &attacker, vec![record]).await;
    assert_eq!(code, CloseCode::Normal);
    assert_eq!(known.len(), 2, "the victim and its honest peer");
    assert!(eventually(Duration::from_secs(3), || tagged(&scene.victim, person.id(), "true")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_forged_in_the_name_of_an_honest_peer() {
    let scene = Scene::new("hostile: forged entry").await;
    let (attacker, person) = (Attacker::new(1).await, Person::new("forger", scene.network));
    let honest = scene.honest.local().id();
    let newest = Version { run_id: u64::MAX - 1, seq: 0 };
    let forged = person.record(honest, newest, "forged");
    let (_, code) = give(&scene, &attacker, vec![forged]).await;
    assert_eq!(code, CloseCode::Undecodable);
    // Signed by its owner, but altered on the way.
    let (known, _) = give(&scene, &attacker, vec![]).await;
    let mut altered = known.into_iter().find(|record| subject(record) == *honest.as_bytes()).expect("known");
    let last = altered.body.len() - 1;
    altered.body[last] ^= 1;
    let altered = Record { body: altered.body, ..altered };
    // Signed by its owner, but for another network.
    let elsewhere = Person { network: NetworkId::from("elsewhere"), key: person.key.clone() };
    let foreign = elsewhere.record(person.id(), newest, "foreign");
    for lie in [altered, foreign] {
        let (_, code) = give(&scene, &attacker, vec![lie]).await;
        assert_eq!(code, CloseCode::Undecodable);
    }
    for network in [&scene.victim, &scene.honest] {
        assert!(!tagged(network, honest, "forged") && !tagged(network, person.id(), "foreign"));
    }
    scene.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_entry_of_an_honest_peer() {
    let scene = Scene::new("hostile: stale entry").await;
    let attacker = Attacker::new(1).await;
    let honest = scene.honest.local().id();
    let (known, _) = give(&scene, &attacker, vec![]).await;
    let old = known.into_iter().find(|record| subject(record) == *honest.as_bytes()).expect("known");
    scene.honest.discovery().add_tags(["new"]);
    assert!(eventually(Duration::from_secs(5), || tagged(&scene.victim, honest, "new")).await);
    // An honest node may have something old, so the replay is no offence; it just changes nothing.
    let (_, code) = give(&scene, &attacker, vec![old]).await;
    assert_eq!(code, CloseCode::Normal);
    assert!(tagged(&scene.victim, honest, "new"));
    scene.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_in_the_name_of_the_victim_itself() {
    let scene = Scene::new("hostile: own entry").await;
    let (attacker, person) = (Attacker::new(1).await, Person::new("impostor", scene.network));
    let victim = scene.victim.local().id();
    let before = scene.victim.discovery().me().version();
    let (_, code) =
        give(&scene, &attacker, vec![person.record(victim, Version { run_id: u64::MAX - 1, seq: 0 }, "forged")]).await;
    assert_eq!(code, CloseCode::Undecodable);
    assert_eq!(scene.victim.discovery().me().version(), before);
    scene.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_shows_the_entry_of_another_peer() {
    let scene = Scene::new("hostile: borrowed entry").await;
    let attacker = Attacker::new(1).await;
    let honest = scene.honest.local().id();
    scene.honest.discovery().add_tags(["vip"]);
    assert!(eventually(Duration::from_secs(5), || tagged(&scene.victim, honest, "vip")).await);
    let producer =
        scene.victim.streams().producer::<u32>().with_stream_id("x").accept_if(|peer| peer.tags().contains("vip"));
    let _producer = producer.build().expect("builds");
    let (known, _) = give(&scene, &attacker, vec![]).await;
    let Record { body, signature, .. } =
        known.into_iter().find(|record| subject(record) == *honest.as_bytes()).expect("known");
    // `Subscribe { stream, fingerprint, consumer, resume, replay, entry, readable, filter, label, replicated, heads, owned }`.
    let stream = mosaik::StreamId::from("x");
    let ask = (
        0u8,
        stream,
        None::<[u8; 32]>,
        7u64,
        None::<()>,
        false,
        (body, signature),
        None::<()>,
        None::<()>,
        None::<()>,
        false,
        false,
        None::<bool>,
    );
    let ask = frame(&postcard::to_allocvec(&ask).expect("encodes"));
    let bytes = [preamble(scene.network, "subscribe/8"), ask].concat();
    let (_connection, _send, mut recv) = attacker.say(&scene, Family::STREAMS.alpn(), &bytes).await;
    // `Refused { code, .. }` is the fourth answer.
    let (answer, code, _): (u8, u32, Option<[u8; 32]>) = receive(&mut recv).await;
    assert_eq!((answer, CloseCode::from(code)), (3, CloseCode::UnknownPeer));
    scene.assert_unharmed().await;
}
