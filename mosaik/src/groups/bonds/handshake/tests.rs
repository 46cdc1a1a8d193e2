//! Both sides against each other, and against what a stranger may say.

use proptest::prelude::*;

use super::*;
use crate::{groups::machine::NoOp, primitives::PeerId};

fn peer(seed: u8) -> PeerId {
    iroh::SecretKey::from_bytes(&[seed; 32]).public().into()
}

fn setup(role: Role, me: u8, other: u8, key: &GroupKey) -> Setup {
    let hello = Hello {
        group: GroupId::from("group"),
        incarnation: u64::from(me),
        cluster: None,
        start: Start { number: 1, run: u64::from(me), term: 1, last: 2 },
        extent: Extent { term: 1, last: 4, verified: 3, committed: 2 },
        nonce: [me; 32],
        session: u64::from(me) + 100,
        dial: u64::from(role == Role::Dialler),
        gave_up: 0,
    };
    let terms = Terms {
        size: 3,
        version: 1,
        build: Build::from_bits(3),
        settings: [0; 32],
        shapes: Shapes::of::<NoOp>(),
        label: None,
    };
    Setup { role, me: peer(me), peer: peer(other), exporter: [9; 32], key: key.clone(), terms, hello }
}

fn pair() -> (Setup, Setup) {
    let key = GroupKey::from_bytes([5; 32]);
    (setup(Role::Dialler, 1, 2, &key), setup(Role::Acceptor, 2, 1, &key))
}

/// What each side came to: the other one, or why not. `None`: it was waiting when the other side refused.
type End = Option<Result<(Proven, Result<(), Refusal>), Refusal>>;

/// Runs two sides against each other; also everything that each of them said.
fn run(dialler: Setup, acceptor: Setup) -> (End, End, Vec<Message>) {
    let mut sides = [Handshake::new(dialler), Handshake::new(acceptor)];
    let mut ends: [End; 2] = [None, None];
    let mut message = sides[0].hello();
    let mut said = vec![message.clone()];
    for turn in 0.. {
        let to = (turn + 1) % 2;
        match sides[to].on(message.clone()) {
            Ok(Step::Send(answer)) => message = answer,
            Ok(Step::Finish { proven, owed, agreed }) => {
                ends[to] = Some(Ok((proven, agreed)));
                let Some(owed) = owed else { break };
                message = owed;
            }
            Err(refusal) => {
                ends[to] = Some(Err(refusal));
                break;
            }
        }
        said.push(message.clone());
    }
    let [dialler, acceptor] = ends;
    (dialler, acceptor, said)
}

#[test]
fn two_members_of_one_group_agree_on_who_they_are() {
    let (dialler, acceptor) = pair();
    let (Some(Ok((one, Ok(())))), Some(Ok((other, Ok(())))), _) = run(dialler, acceptor) else {
        panic!("the handshake failed")
    };
    assert_eq!(one.id, other.id);
    assert_eq!((one.member.node, one.member.incarnation), (NodeId::from_bytes(*peer(2).as_bytes()), 2));
    assert_eq!((other.member.node, other.member.incarnation), (NodeId::from_bytes(*peer(1).as_bytes()), 1));
}

#[test]
fn terms_that_differ_are_named_at_both_ends() {
    type Change = fn(&mut Terms);
    let cases: [(&str, Change); 6] = [
        ("label", |terms| terms.label = Some("private".to_owned())),
        ("size", |terms| terms.size = 5),
        ("machine version", |terms| terms.version = 2),
        ("build", |terms| terms.build = Build::from_bits(0)),
        ("schema", |terms| terms.shapes.fingerprint = [1; 32]),
        ("consensus settings", |terms| terms.settings = [1; 32]),
    ];
    for (name, change) in cases {
        let (dialler, mut acceptor) = pair();
        change(&mut acceptor.terms);
        let (one, other, _) = run(dialler, acceptor);
        let (Some(Ok((_, Err(one)))), Some(Ok((_, Err(other))))) = (one, other) else {
            panic!("no refusal for {name}")
        };
        let Refusal::Incompatible { what, ours, theirs } = one else { panic!("{one}") };
        assert_eq!(what, name);
        assert_eq!(other, Refusal::Incompatible { what, ours: theirs, theirs: ours });
    }
}

#[test]
fn a_stranger_hears_neither_a_proof_nor_terms() {
    let (mut dialler, acceptor) = pair();
    dialler.key = GroupKey::from_bytes([6; 32]);
    let (_, refused, said) = run(dialler, acceptor);
    assert_eq!(refused, Some(Err(Refusal::WrongKey)));
    assert!(matches!(said[..], [Message::Hello(_), Message::Hello(_), Message::Proof(_)]), "{said:?}");
}

#[test]
fn a_stranger_that_is_dialled_hears_no_terms() {
    let (dialler, mut acceptor) = pair();
    acceptor.key = GroupKey::from_bytes([6; 32]);
    let mut side = Handshake::new(dialler);
    // It does not care about the proof, and gives one that it has heard.
    let Ok(Step::Send(Message::Proof(heard))) = side.on(Message::Hello(acceptor.hello.clone())) else {
        panic!("no proof")
    };
    for proof in [heard, [0; 32]] {
        let (dialler, acceptor) = pair();
        let mut side = Handshake::new(dialler);
        let _ = side.on(Message::Hello(acceptor.hello));
        assert_eq!(side.on(Message::Shown { proof, terms: acceptor.terms }), Err(Refusal::WrongKey), "reflection");
    }
}

#[test]
fn nothing_but_the_next_message_is_taken() {
    let terms = Terms {
        size: 3,
        version: 1,
        build: Build::from_bits(3),
        settings: [0; 32],
        shapes: Shapes::of::<NoOp>(),
        label: None,
    };
    let wrong =
        [Message::Proof([0; 32]), Message::Shown { proof: [0; 32], terms: terms.clone() }, Message::Terms(terms)];
    for message in wrong {
        for side in [pair().0, pair().1] {
            let mut side = Handshake::new(side);
            assert_eq!(side.on(message.clone()), Err(Refusal::Malformed));
            // And it stays refused.
            let hello = side.hello();
            assert_eq!(side.on(hello), Err(Refusal::Malformed));
        }
    }
}

#[test]
fn refusals_survive_the_wire() {
    for refusal in [
        Refusal::NotMember,
        Refusal::WrongKey,
        Refusal::OldIncarnation,
        Refusal::OlderCopy,
        Refusal::SecondStart,
        Refusal::Unsupported,
        Refusal::Malformed,
    ] {
        assert_eq!(Refusal::from_code(refusal.code().code().into()), Some(refusal));
    }
}

/// Everything that a proof covers, changed one at a time at one side only.
fn tampered(which: u8, bit: u8, setup: &mut Setup) {
    let flip = |bytes: &mut [u8; 32]| bytes[usize::from(bit % 32)] ^= 1 << (bit / 32);
    match which {
        0 => flip(&mut setup.exporter),
        1 => {
            let mut key = *setup.key.as_bytes();
            flip(&mut key);
            setup.key = GroupKey::from_bytes(key);
        }
        2 => setup.me = peer(77),
        _ => setup.peer = peer(77),
    }
}

proptest! {
    /// A side that differs in anything that is not said aloud does not get through.
    #[test]
    fn whatever_differs_is_refused(which in 0u8..4, bit in 0u8..=255, at_dialler: bool) {
        let (mut dialler, mut acceptor) = pair();
        tampered(which, bit, if at_dialler { &mut dialler } else { &mut acceptor });
        let (one, other, _) = run(dialler, acceptor);
        prop_assert_eq!(one, None);
        prop_assert_eq!(other, Some(Err(Refusal::WrongKey)));
    }

    /// What was said in one handshake is worth nothing in another one: other nonce, or other connection.
    #[test]
    fn a_replayed_proof_is_refused(nonce: [u8; 32], exporter: [u8; 32]) {
        let (dialler, acceptor) = pair();
        prop_assume!(nonce != acceptor.hello.nonce && exporter != acceptor.exporter);
        let (_, _, said) = run(dialler, acceptor.clone());
        for change in [0, 1] {
            let mut acceptor = acceptor.clone();
            if change == 0 { acceptor.hello.nonce = nonce } else { acceptor.exporter = exporter }
            let mut victim = Handshake::new(acceptor);
            let mut replies = said.iter().step_by(2).map(|message| victim.on(message.clone()));
            let greeted = matches!(replies.next(), Some(Ok(Step::Send(Message::Hello(_)))));
            prop_assert!(greeted);
            prop_assert_eq!(replies.next(), Some(Err(Refusal::WrongKey)));
        }
    }

    /// A hello that was changed on its way (which TLS prevents) breaks the proofs.
    #[test]
    fn hellos_are_covered_by_the_proofs(field in 0u8..14, number in 1u64..) {
        let (dialler, acceptor) = pair();
        let mut victim = Handshake::new(acceptor.clone());
        let mut honest = Handshake::new(dialler.clone());
        let mut hello = dialler.hello.clone();
        match field {
            0 => hello.incarnation = hello.incarnation.wrapping_add(number),
            1 => hello.session = hello.session.wrapping_add(number),
            2 => hello.dial = hello.dial.wrapping_add(number),
            3 => hello.gave_up = hello.gave_up.wrapping_add(number),
            4 => hello.nonce[0] ^= 1,
            5 => hello.start.number = hello.start.number.wrapping_add(number),
            6 => hello.start.run = hello.start.run.wrapping_add(number),
            7 => hello.extent.term = hello.extent.term.wrapping_add(number),
            8 => hello.extent.last = hello.extent.last.wrapping_add(number),
            9 => hello.extent.verified = hello.extent.verified.wrapping_add(number),
            11 => hello.start.term = hello.start.term.wrapping_add(number),
            12 => hello.start.last = hello.start.last.wrapping_add(number),
            10 => hello.extent.committed = hello.extent.committed.wrapping_add(number),
            _ => hello.cluster = Some(ClusterId(crate::groups::raft::Digest([1; 32]))),
        }
        let Ok(Step::Send(theirs)) = victim.on(Message::Hello(hello)) else { panic!("no hello") };
        let Ok(Step::Send(proof)) = honest.on(theirs) else { panic!("no proof") };
        prop_assert_eq!(victim.on(proof), Err(Refusal::WrongKey));
    }

    /// Garbage never panics and never gets through.
    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = postcard::from_bytes::<Message>(&bytes) {
            let mut victim = Handshake::new(pair().1);
            if let Ok(Step::Send(_)) = victim.on(message.clone()) {
                let finished = matches!(victim.on(message), Ok(Step::Finish { .. }));
                prop_assert!(!finished);
            }
        }
    }
}

/// The second test case of RFC 4231 has a short key; HMAC pads it with zeros, as is done here.
#[test]
fn the_code_of_proofs_is_hmac() {
    let mut key = [0; 32];
    key[..4].copy_from_slice(b"Jefe");
    let code = mac(&key, b"what do ya want for nothing?");
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(blake3::Hash::from_bytes(code).to_hex().as_str(), expected);
}

/// The code that a peer closes a link with becomes the refusal that it stands for, and nothing else does.
#[test]
fn each_refusal_has_its_own_code() {
    let (what, ours, theirs) = ("size", String::new(), String::new());
    let all = [
        (Refusal::NotMember, CloseCode::GroupNotFound),
        (Refusal::WrongKey, CloseCode::WrongKey),
        (Refusal::Incompatible { what, ours, theirs }, CloseCode::Incompatible),
        (Refusal::OldIncarnation, CloseCode::OldIncarnation),
        (Refusal::OlderCopy, CloseCode::OlderCopy),
        (Refusal::SecondStart, CloseCode::SecondStart),
        (Refusal::NotGranted(MissingGrant::untold(Right::Member)), CloseCode::NotGranted),
        (Refusal::Unsupported, CloseCode::UnsupportedProtocol),
        (Refusal::Malformed, CloseCode::Undecodable),
    ];
    for (refusal, code) in all {
        assert_eq!(refusal.code(), code);
    }
    let codes = (0..64).map(CloseCode::from).filter(|code| Refusal::from_code(*code).is_some()).count();
    assert_eq!(codes, 8, "only these eight codes of a peer are refusals");
    assert_eq!(Refusal::from_code(CloseCode::Incompatible), None, "found out from the terms, never from a code");
}

#[test]
fn what_differs_is_shown_as_each_side_declares_it() {
    let terms = Terms {
        size: 0,
        version: 1,
        build: Build::from_bits(3),
        settings: [0; 32],
        shapes: Shapes::of::<NoOp>(),
        label: None,
    };
    let said = |theirs: Terms| terms.check(&theirs).expect_err("they differ").to_string();
    assert_eq!(terms.check(&terms), Ok(()));
    assert_eq!(said(Terms { size: 3, ..terms.clone() }), "incompatible size: undeclared here, 3 there");
    assert_eq!(said(Terms { version: 2, ..terms.clone() }), "incompatible machine version: 1 here, 2 there");
    let settings = said(Terms { settings: [1; 32], ..terms.clone() });
    let digest = |byte| blake3::Hash::from_bytes([byte; 32]).to_hex()[..8].to_owned();
    assert_eq!(settings, format!("incompatible consensus settings: {} here, {} there", digest(0), digest(1)));
    let first = said(Terms { size: 3, version: 2, settings: [1; 32], ..terms.clone() });
    assert!(first.contains("size"), "the first difference is named: {first}");
}

/// Another group is refused before anything else is looked at, at either side.
#[test]
fn a_hello_of_another_group_is_refused() {
    let (dialler, acceptor) = pair();
    for (own, other) in [(dialler.clone(), acceptor.clone()), (acceptor, dialler)] {
        let mut side = Handshake::new(own);
        let hello = Hello { group: GroupId::from("another"), ..other.hello };
        assert_eq!(side.on(Message::Hello(hello)), Err(Refusal::NotMember));
    }
}

/// Who the other side is can be asked between its proof and its terms, and is what it said and proved.
#[test]
fn the_other_side_is_known_once_it_has_proved_the_key() {
    let (dialler, acceptor) = pair();
    let (mut one, mut other) = (Handshake::new(dialler.clone()), Handshake::new(acceptor.clone()));
    assert_eq!(one.hello(), Message::Hello(dialler.hello.clone()));
    let Ok(Step::Send(hello)) = other.on(one.hello()) else { panic!("no hello") };
    assert_eq!((one.proven(), other.proven()), (None, None), "nothing is proved yet");
    let Ok(Step::Send(proof)) = one.on(hello) else { panic!("no proof") };
    let Ok(Step::Send(shown)) = other.on(proof) else { panic!("not shown") };
    let proven = other.proven().expect("proved").clone();
    assert_eq!((&proven.hello, proven.member.incarnation), (&dialler.hello, 1));
    assert_eq!(proven.member.node, NodeId::from_bytes(*peer(1).as_bytes()));
    assert_ne!(proven.id, 0, "0 stands for no bond");
    let Ok(Step::Finish { proven: mine, owed: Some(terms), agreed: Ok(()) }) = one.on(shown) else {
        panic!("not finished")
    };
    assert_eq!((mine.id, &mine.hello), (proven.id, &acceptor.hello));
    assert_eq!(other.on(terms), Ok(Step::Finish { proven, owed: None, agreed: Ok(()) }));
    // Another exchange of the same two is another bond.
    let mut again = dialler;
    again.hello.nonce = [9; 32];
    let (Some(Ok((second, _))), ..) = run(again, acceptor) else { panic!("failed") };
    assert_ne!(second.id, mine.id);
}

/// One bit of a proof, anywhere, at either side.
#[test]
fn a_proof_is_compared_to_its_last_bit() {
    for bit in 0..256 {
        let (dialler, acceptor) = pair();
        let (mut one, mut other) = (Handshake::new(dialler), Handshake::new(acceptor));
        let Ok(Step::Send(hello)) = other.on(one.hello()) else { panic!("no hello") };
        let Ok(Step::Send(Message::Proof(mut proof))) = one.on(hello) else { panic!("no proof") };
        if bit % 2 == 0 {
            proof[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(other.on(Message::Proof(proof)), Err(Refusal::WrongKey));
        } else {
            let Ok(Step::Send(Message::Shown { mut proof, terms })) = other.on(Message::Proof(proof)) else {
                panic!("not shown")
            };
            proof[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(one.on(Message::Shown { proof, terms }), Err(Refusal::WrongKey));
        }
    }
}

/// The bytes that both sides hash, so that two builds of one version of the protocol understand each other.
#[test]
fn the_transcript_is_as_the_book_says() {
    let (mut dialler, mut acceptor) = pair();
    acceptor.hello.cluster = Some(ClusterId(crate::groups::raft::Digest([3; 32])));
    dialler.hello.gave_up = 77;
    let one = Handshake::new(dialler.clone()).transcript(&acceptor.hello);
    let other = Handshake::new(acceptor.clone()).transcript(&dialler.hello);
    assert_eq!(one, other);
    let mut expected = vec![9; 32];
    for (id, hello, cluster) in [(peer(1), &dialler.hello, [0; 33]), (peer(2), &acceptor.hello, [3; 33])] {
        expected.extend_from_slice(id.as_bytes());
        expected.extend_from_slice(hello.group.as_bytes());
        expected.extend_from_slice(&hello.nonce);
        expected.extend_from_slice(&cluster[..32]);
        expected.push(u8::from(hello.cluster.is_some()));
        let (start, extent) = (hello.start, hello.extent);
        let begun = [hello.incarnation, start.number, start.run, start.term, start.last];
        let durable = [extent.term, extent.last, extent.verified];
        for number in
            begun.into_iter().chain(durable).chain([extent.committed, hello.session, hello.dial, hello.gave_up])
        {
            expected.extend_from_slice(&number.to_le_bytes());
        }
    }
    assert_eq!(one, expected);
}
