//! The bytes of a bond.

use bytes::Bytes;

use super::{
    BondProtocol,
    claims::Claim,
    handshake,
    wire::{self, Frame},
};
use crate::{
    discovery::SignedEntry,
    groups::raft::{Entry, Envelope, Mark, Member, Message, NodeId, Start},
    network::Protocol,
    primitives::fixtures::{Fixture, samples},
};

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode(frame, &mut bytes).expect("encodes");
    bytes
}

fn member(n: u8) -> Member {
    Member { node: NodeId::from_bytes([n; 32]), incarnation: u64::from(n) }
}

#[test]
fn messages_are_as_they_were() {
    let raft = |body: &Message| {
        let (from, to) = (member(1), member(2));
        encoded(&Frame::Raft(Envelope { from, to, cluster: None, term: 3, body: body.clone() }))
    };
    let body = Bytes::from_static(b"body");
    let start = Start { number: 3, run: 4, term: 5, last: 6 };
    let claim = Claim { peer: iroh::SecretKey::from_bytes(&[1; 32]).public().into(), incarnation: 2, start };
    let frames = [
        ("Call", Frame::Call { id: 1, body: body.clone() }),
        ("Reply", Frame::Reply { id: 1, body }),
        ("Dropped", Frame::Dropped { id: 1 }),
        ("Ask", Frame::Ask { id: 1, claim }),
        ("Ping", Frame::Ping { at: 2 }),
        ("Pong", Frame::Pong { at: 2 }),
        ("Gossip", Frame::Gossip(samples::<SignedEntry>())),
        ("Marks", Frame::Marks(samples::<(NodeId, Mark)>())),
        ("Copied", Frame::Copied),
        ("Goodbye", Frame::Goodbye),
    ];
    let bond = Fixture::new(BondProtocol::NAME).postcard::<handshake::Message>().each(raft);
    let bond = frames.iter().fold(bond, |bond, (name, frame)| bond.bytes(name, encoded(frame)));
    // A run of entries, which travels in a form of its own.
    let run = samples::<Entry>();
    let mut entries = Vec::new();
    super::entries::encode(&run, &mut entries).expect("encodes");
    bond.bytes("entries", entries).check();
}
