//! What a stranger can do to the protocol of diagnostics: more links, more questions and more silence than it allows.

use iroh::endpoint::ReadError;
use mosaik::network::{CloseCode, Family};
use tokio::time::Instant;

use super::{Attacker, Scene, code_of, frame, preamble, refusal, soon};

const ALPN: &str = Family::DIAGNOSTICS.alpn();
/// `Ask(Ping)`, `Ask(Node)`: two variant numbers.
const PING: [u8; 2] = [0, 0];
const NODE: [u8; 2] = [0, 1];
/// Links of one peer, and of all peers, that are served at once.
const MAX_LINKS_PER_PEER: usize = 4;
const MAX_LINKS: usize = 16;

fn asking(scene: &Scene, questions: &[[u8; 2]]) -> Vec<u8> {
    let questions: Vec<u8> = questions.iter().flat_map(|question| frame(question)).collect();
    [preamble(scene.network, "report/8"), questions].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_links_than_are_served() {
    let scene = Scene::new("hostile: diagnostic links").await;
    let mut held = Vec::new();
    for key in 1..=8 {
        let attacker = Attacker::new(key).await;
        for link in 0..=MAX_LINKS_PER_PEER {
            let (connection, send, mut recv) = attacker.say(&scene, ALPN, &asking(&scene, &[PING])).await;
            let full = link == MAX_LINKS_PER_PEER || held.len() >= MAX_LINKS;
            // The answer is there, or the refusal is.
            match soon(recv.read_chunk(64)).await {
                Ok(Some(_)) if !full => held.push((attacker.0.clone(), connection, send, recv)),
                Ok(_) => panic!("link {link} of attacker {key} is served beside {}", held.len()),
                Err(ReadError::Reset(code)) if full => assert_eq!(code_of(code.into_inner()), CloseCode::NoCapacity),
                Err(error) => panic!("link {link} of attacker {key}: {error}"),
            }
        }
    }
    assert_eq!(held.len(), MAX_LINKS);
    scene.assert_unharmed().await;
    // A link that says no more is closed, and its place is free again.
    let (_, _, _, recv) = &mut held[0];
    assert_eq!(refusal(recv).await, CloseCode::Timeout);
    drop(held);
    let report = scene.honest.diagnostics().client().node(&scene.addr()).await.expect("answers again");
    assert_eq!(report.id, scene.victim.local().id());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_questions_than_are_answered() {
    let scene = Scene::new("hostile: diagnostic questions").await;
    let attacker = Attacker::new(1).await;
    let (_connection, mut send, mut recv) = attacker.say(&scene, ALPN, &asking(&scene, &[])).await;
    let flood: Vec<u8> = std::iter::repeat_n(frame(&NODE), 1500).flatten().collect();
    let begun = Instant::now();
    let writing = tokio::spawn(async move {
        // The node stops reading before the end.
        let _ = send.write_all(&flood).await;
        send
    });
    let code = refusal(&mut recv).await;
    assert_eq!(code, CloseCode::NoCapacity, "after {:?}", begun.elapsed());
    drop(soon(writing).await);
    scene.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes() {
    let scene = Scene::new("hostile: diagnostic silence").await;
    let attacker = Attacker::new(1).await;
    // An answer instead of a question, and a question that is too long.
    let wrong = [preamble(scene.network, "report/8"), frame(&[1, 0])].concat();
    let (_one, _send, mut recv) = attacker.say(&scene, ALPN, &wrong).await;
    assert_eq!(refusal(&mut recv).await, CloseCode::Undecodable);
    let long = [preamble(scene.network, "report/8"), frame(&[0; 129])].concat();
    let (_two, _send, mut recv) = attacker.say(&scene, ALPN, &long).await;
    assert_eq!(refusal(&mut recv).await, CloseCode::TooLarge);
    // Questions whose answers are not read: others are answered meanwhile, and the link ends in time.
    let (_three, _send, mut unread) = attacker.say(&scene, ALPN, &asking(&scene, &[NODE; 64])).await;
    let report = scene.honest.diagnostics().client().node(&scene.addr()).await.expect("answers");
    assert_eq!(report.id, scene.victim.local().id());
    scene.assert_unharmed().await;
    assert_eq!(refusal(&mut unread).await, CloseCode::Timeout);
}
