//! Strangers at a closed network who know its id: whatever they ask for, they get one word, and they learn nothing from who
//! dials them either.

use std::time::{Duration, Instant};

use futures::StreamExt;
use iroh::{
    Endpoint, SecretKey,
    endpoint::{Connection, presets},
};
use mosaik::{
    Authority, Network, NetworkId, NetworkKey,
    discovery::Version,
    network::{CloseCode, Family, NetworkBuilder},
    testing::eventually,
    trust::{Claims, Reason},
};

use super::{
    ALPNS, Attacker, PROTOCOLS, Scene, closed,
    forgery::{Person, unasked},
    frame, knows, loopback, preamble, soon,
};

/// A builder of a member with a key of its own.
type Join = fn(NetworkId, u8) -> NetworkBuilder;

fn secret(network: NetworkId, n: u8) -> NetworkBuilder {
    let builder = Network::builder(network).with_listen(loopback()).with_secret_key(SecretKey::from_bytes(&[n; 32]));
    builder.with_network_key(NetworkKey::from_bytes([7; 32]))
}

fn authority(network: NetworkId, n: u8) -> NetworkBuilder {
    let (authority, key) = (Authority::from_bytes(&[8; 32]), SecretKey::from_bytes(&[n; 32]));
    let ticket =
        authority.issue(network, key.public().into(), Claims::new(0, u64::from(u32::MAX))).expect("is in order");
    let builder = Network::builder(network).with_listen(loopback()).with_secret_key(key);
    builder.with_authority(authority.id()).with_ticket(ticket)
}

const KINDS: [(&str, Join); 2] = [("secret", secret), ("authority", authority)];

async fn scene(name: &str, join: Join) -> Scene {
    let network = NetworkId::from(name);
    let victim = join(network, 1).build().await.expect("starts");
    let honest = join(network, 2).build().await.expect("starts");
    assert!(eventually(Duration::from_secs(5), || knows(&victim, &honest) && knows(&honest, &victim)).await);
    Scene { network, victim, honest }
}

/// What the node says before it ends the connection, and with which code it does.
async fn said_to_stranger(connection: &Connection, recv: &mut iroh::endpoint::RecvStream) -> (usize, CloseCode) {
    let (mut said, mut buffer) = (0, [0; 4096]);
    while let Ok(Some(read)) = soon(recv.read(&mut buffer)).await {
        said += read;
    }
    (said, closed(&soon(connection.closed()).await))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_knows_the_id_gets_no_byte_of_any_protocol() {
    for (kind, join) in KINDS {
        let scene = scene(&format!("hostile: closed, {kind}"), join).await;
        let attacker = Attacker::new(1).await;
        for (alpn, protocol) in PROTOCOLS {
            // A first message of whatever kind behind it: it is not even looked at.
            let bytes = [preamble(scene.network, protocol), frame(&[0; 100])].concat();
            let (connection, _send, mut recv) = attacker.say(&scene, alpn, &bytes).await;
            let said = said_to_stranger(&connection, &mut recv).await;
            assert_eq!(said, (0, CloseCode::Refused), "{kind} {protocol}");
        }
        // A proof that is made up, and one that is another connection's.
        for garbage in [vec![0; 34], [vec![0xAB; 32], vec![40], vec![1; 40]].concat(), vec![0xFF; 9]] {
            for alpn in ALPNS {
                let bytes = [preamble(scene.network, "proof/1"), frame(&garbage)].concat();
                let (connection, _send, mut recv) = attacker.say(&scene, alpn, &bytes).await;
                assert_eq!(said_to_stranger(&connection, &mut recv).await, (0, CloseCode::Refused), "{kind}");
            }
        }
        assert!(scene.victim.discovery().catalog().get(mosaik::PeerId::from(attacker.0.id())).is_none());
        assert_eq!(scene.victim.discovery().catalog().len(), 2);
        let reasons: Vec<_> = scene.victim.trust().refusals().into_iter().map(|refusal| refusal.reason).collect();
        assert!(reasons.iter().any(|reason| matches!(reason, Reason::WrongKind { .. })), "{reasons:?}");
        assert!(reasons.iter().any(|reason| matches!(reason, Reason::NotProved { .. })), "{reasons:?}");
        let newcomer = join(scene.network, 3).build().await.expect("starts");
        assert!(eventually(Duration::from_secs(5), || knows(&scene.victim, &newcomer)).await);
    }
}

/// Everything that a node says to whom it has dialled, until it ends the connection.
async fn heard(endpoint: &Endpoint) -> Vec<u8> {
    let incoming = soon(endpoint.accept()).await.expect("is dialled");
    let connection = soon(incoming.accept().expect("accepts")).await.expect("connects");
    let mut all = Vec::new();
    // The dialler gives up by itself when no proof comes.
    while let Ok((_send, mut recv)) = soon(connection.accept_bi()).await {
        let mut buffer = vec![0; 4096];
        while let Ok(Some(read)) =
            tokio::time::timeout(Duration::from_secs(1), recv.read(&mut buffer)).await.unwrap_or(Ok(None))
        {
            all.extend_from_slice(&buffer[..read]);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialled_stranger_learns_nothing() {
    for (kind, join) in KINDS {
        let network = NetworkId::from(format!("hostile: dialled, {kind}"));
        let key = SecretKey::from_bytes(&[9; 32]);
        let builder = Endpoint::builder(presets::Minimal).secret_key(key).clear_ip_transports();
        let alpns = ALPNS.map(|alpn| alpn.as_bytes().to_vec()).into();
        let stranger = builder.alpns(alpns).bind_addr(loopback()).expect("an address").bind().await.expect("binds");
        let at = *stranger.bound_sockets().first().expect("is bound");
        let addr = iroh::EndpointAddr::new(stranger.id()).with_ip_addr(at);
        let node = join(network, 1).with_tags(["tag"]).with_bootstrap(addr).build().await.expect("starts");
        let heard = heard(&stranger).await;
        assert!(heard.len() > 64, "{kind}: the proof and a sealed request, not {} bytes", heard.len());
        let says = |what: &[u8]| heard.windows(what.len()).any(|window| window == what);
        let me = node.local().id();
        for (what, bytes) in [
            ("the network's id", network.as_bytes().as_slice()),
            ("its own id, as in its hint or ticket", me.as_bytes()),
            ("the protocol", b"sync/2".as_slice()),
            ("the authority", Authority::from_bytes(&[8; 32]).id().as_bytes()),
        ] {
            assert!(!says(bytes), "{kind}: a stranger reads {what}");
        }
        assert!(eventually(Duration::from_secs(10), || !node.trust().refusals().is_empty()).await);
        assert_eq!(node.discovery().catalog().len(), 1);
    }
}

/// Three hundred streams that say nothing, on as many connections as a stranger likes, and ten thousand entries of peers that it has
/// made up: an honest newcomer is in at once.
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_strangers_keep_nobody_out() {
    for (kind, join) in KINDS {
        let scene = scene(&format!("hostile: floods, {kind}"), join).await;
        let attacker = Attacker::new(1).await;
        let mut held = Vec::new();
        for n in 0..6 {
            let connection = attacker.connect(&scene, ALPNS[n % ALPNS.len()]).await;
            for _ in 0..50 {
                let (mut send, recv) = soon(connection.open_bi()).await.expect("opens");
                // The connection may be closed meanwhile, which is the node's good right.
                let _ = send.write_all(&[0]).await;
                held.push((connection.clone(), send, recv));
            }
        }
        let made_up = (0..250).map(|n| Person::new(&format!("made up {n}"), scene.network));
        let records = made_up.map(|person| person.record(person.id(), Version { run_id: 5, seq: 0 }, "made up"));
        let bytes = unasked(scene.network, &attacker, records.collect());
        let flood = futures::stream::iter(0..40).map(async |_| {
            let connection = attacker.0.connect(scene.addr(), Family::DISCOVERY.alpn().as_bytes()).await.ok()?;
            let (mut send, _recv) = connection.open_bi().await.ok()?;
            // Most of it is never taken.
            let _ = send.write_all(&bytes).await;
            Some(soon(connection.closed()).await)
        });
        let newcomer = async {
            let begun = Instant::now();
            let newcomer = join(scene.network, 3).build().await.expect("starts");
            let met = || knows(&scene.victim, &newcomer) && knows(&newcomer, &scene.victim);
            assert!(eventually(Duration::from_secs(5), met).await, "{kind}: a newcomer is not let in");
            (begun.elapsed(), newcomer)
        };
        let flood = flood.buffer_unordered(8).collect::<Vec<_>>();
        let (flooded, (took, newcomer)) = tokio::join!(flood, newcomer);
        eprintln!("{kind}: a newcomer is in after {took:?}");
        assert!(took < Duration::from_secs(2), "{kind}: {took:?}");
        assert!(flooded.iter().flatten().count() > 0);
        assert_eq!(scene.victim.discovery().catalog().len(), 3, "and nobody else");
        newcomer.shutdown().await;
        drop(held);
    }
}
