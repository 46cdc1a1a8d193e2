//! Bad bytes on a stream: garbage, frames that are too long, and frames that never end.

use mosaik::{NetworkId, network::CloseCode};

use super::{ALPNS, Attacker, PROTOCOLS, Scene, frame, preamble, refusal, stop};

/// Bytes that look random and are the same each time.
fn garbage(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_instead_of_a_preamble() {
    let scene = Scene::new("hostile: garbage preamble").await;
    let attacker = Attacker::new(1).await;
    for alpn in ALPNS {
        for seed in 0..20 {
            // A valid length, so that the garbage is looked at.
            let bytes = frame(&garbage(seed, 1 + usize::from(seed) * 10));
            let (_connection, _send, mut recv) = attacker.say(&scene, alpn, &bytes).await;
            let code = refusal(&mut recv).await;
            let refused = [CloseCode::Undecodable, CloseCode::DifferentNetwork];
            assert!(refused.contains(&code), "{alpn} answers {code:?}");
        }
    }
    scene.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_instead_of_a_message() {
    let scene = Scene::new("hostile: garbage message").await;
    let attacker = Attacker::new(1).await;
    for (alpn, protocol) in PROTOCOLS {
        for seed in 0..10 {
            let bytes = [preamble(scene.network, protocol), frame(&garbage(seed, 100))].concat();
            let (_connection, _send, mut recv) = attacker.say(&scene, alpn, &bytes).await;
            let code = refusal(&mut recv).await;
            let refused = [CloseCode::Undecodable, CloseCode::UnsupportedProtocol, CloseCode::NotAllowed];
            assert!(refused.contains(&code), "{protocol} answers {code:?}");
        }
    }
    scene.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_over_long_frame() {
    let scene = Scene::new("hostile: over-long frame").await;
    let attacker = Attacker::new(1).await;
    let endless = u32::MAX.to_le_bytes();
    for alpn in ALPNS {
        let (_connection, mut send, mut recv) = attacker.say(&scene, alpn, &endless).await;
        assert_eq!(stop(&mut send).await, CloseCode::TooLarge, "{alpn}");
        assert_eq!(refusal(&mut recv).await, CloseCode::TooLarge, "{alpn}");
    }
    for (alpn, protocol) in PROTOCOLS {
        let bytes = [preamble(scene.network, protocol), endless.to_vec()].concat();
        let (_connection, mut send, _recv) = attacker.say(&scene, alpn, &bytes).await;
        let code = stop(&mut send).await;
        assert!([CloseCode::TooLarge, CloseCode::UnsupportedProtocol].contains(&code), "{protocol} answers {code:?}");
    }
    scene.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_frame_then_silence() {
    let scene = Scene::new("hostile: half a frame").await;
    let attacker = Attacker::new(1).await;
    let mut waiting = tokio::task::JoinSet::new();
    let mut halves: Vec<_> = ALPNS.map(|alpn| (alpn, "preamble", frame(&[0; 100])[..50].to_vec())).into();
    for (alpn, protocol) in PROTOCOLS {
        halves.push((alpn, protocol, [preamble(scene.network, protocol), frame(&[0; 100])[..50].to_vec()].concat()));
    }
    for (alpn, what, bytes) in halves {
        let (connection, send, mut recv) = attacker.say(&scene, alpn, &bytes).await;
        waiting.spawn(async move {
            let code = refusal(&mut recv).await;
            drop((connection, send));
            (what, code)
        });
    }
    scene.assert_unharmed().await;
    for (what, code) in waiting.join_all().await {
        assert!([CloseCode::Timeout, CloseCode::UnsupportedProtocol].contains(&code), "{what} answers {code:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_another_network() {
    let scene = Scene::new("hostile: wrong network").await;
    let attacker = Attacker::new(1).await;
    for (alpn, protocol) in PROTOCOLS {
        let bytes = preamble(NetworkId::from("another"), protocol);
        let (_connection, _send, mut recv) = attacker.say(&scene, alpn, &bytes).await;
        assert_eq!(refusal(&mut recv).await, CloseCode::DifferentNetwork, "{protocol}");
    }
    scene.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_of_another_version() {
    let scene = Scene::new("hostile: unknown protocol").await;
    let attacker = Attacker::new(1).await;
    for (alpn, protocol) in ALPNS.map(|alpn| (alpn, "sync/999")) {
        let (_connection, _send, mut recv) = attacker.say(&scene, alpn, &preamble(scene.network, protocol)).await;
        assert_eq!(refusal(&mut recv).await, CloseCode::UnsupportedProtocol);
    }
    let connect = attacker.0.connect(scene.addr(), b"mosaik/discovery/999").await;
    assert!(connect.is_err(), "an unknown family must be refused");
    scene.assert_unharmed().await;
}
