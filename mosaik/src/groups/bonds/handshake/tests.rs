//! Both sides against each other, and against what a stranger may say.

use proptest::prelude::*;

use super::*;
use crate::primitives::PeerId;

fn peer(seed: u8) -> PeerId {
    iroh::SecretKey::from_bytes(&[seed; 32]).public().into()
}

fn setup(role: Role, me: u8, other: u8, key: &GroupKey) -> Setup {
    let hello = Hello {
        group: GroupId::from("group"),
        incarnation: u64::from(me),
        cluster: None,
        nonce: [me; 32],
        session: u64::from(me) + 100,
        dial: u64::from(role == Role::Dialler),
        gave_up: 0,
    };
    let terms = Terms { size: 3, version: 1, build: Build::from_bits(3), settings: [0; 32] };
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
    let cases: [(&str, Change); 4] = [
        ("size", |terms| terms.size = 5),
        ("machine version", |terms| terms.version = 2),
        ("build", |terms| terms.build = Build::from_bits(0)),
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
    let terms = Terms { size: 3, version: 1, build: Build::from_bits(3), settings: [0; 32] };
    let wrong = [Message::Proof([0; 32]), Message::Shown { proof: [0; 32], terms }, Message::Terms(terms)];
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
    for refusal in
        [Refusal::NotMember, Refusal::WrongKey, Refusal::OldIncarnation, Refusal::Unsupported, Refusal::Malformed]
    {
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
    fn hellos_are_covered_by_the_proofs(field in 0u8..6, number in 1u64..) {
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
