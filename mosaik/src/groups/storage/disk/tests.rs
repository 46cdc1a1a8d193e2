//! The bytes of the format: that they stay what they are, and that data cannot pass for empty space.

use bytes::Bytes;

use super::format::{self, FileHeader, Kind, SECTOR, Scan};
use crate::groups::raft::{
    ClusterId, Command, Digest, Entry, Founding, HardState, MachineId, Manifest, Mark, Marks, Member, Membership,
    NodeId, Payload, SessionId, Snapshot, Start, Write,
};

const HEADER: FileHeader = FileHeader { number: 3, oldest: 2, sequence: 40, fresh: false };

/// One write of each kind, fixed for ever.
fn writes() -> Vec<Write> {
    let member = Member { node: NodeId::from_bytes([1; 32]), incarnation: 77 };
    let cluster = ClusterId(Digest([2; 32]));
    let hard = HardState { cluster: Some(cluster), incarnation: 77, term: 300, voted: Some(member), commit: 5 };
    let founding = Founding { number: 6, refused: [(member, 9)].into(), ..Founding::default() };
    let body = Bytes::from_static(b"command");
    let command = Command { session: SessionId(1 << 100), opened: 7, sequence: 1, settled: 0, attempted: 39, body };
    let entries = vec![Entry::after(&Digest([4; 32]), 9, 3, (40, 1_700_000_000_001), Payload::Command(command))];
    let machine = MachineId { name: String::from("ledger"), version: 7, schema: Some(Digest([6; 32])), codec: 0 };
    let manifest = Manifest {
        position: entries[0].position(),
        time: 8,
        civil: 1_700_000_000_000,
        user: true,
        membership: Membership::founding(cluster, [member].into(), 1),
        adopted: vec![cluster],
        chunks: vec![Digest([5; 32])],
        machine: Some(machine.clone()),
        sealed: true,
    };
    let start = Start { number: 2, run: 3, term: 4, last: 5 };
    let mark = Mark { incarnation: 77, start, term: 4, verified: 6, committed: 5 };
    let snapshot = Snapshot { manifest, data: Bytes::from_static(b"state") };
    vec![
        Write::Hard(hard),
        Write::Founding(founding),
        Write::Machine(machine),
        Write::Marks(Marks {
            start: Start { number: 300, run: 1 << 50, term: 9, last: 10 },
            others: [(member.node, mark)].into(),
        }),
        Write::Replace(entries),
        Write::Snapshot { snapshot: snapshot.clone(), keep: true },
        Write::Snapshot { snapshot, keep: false },
    ]
}

fn segment(payload: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut group = Vec::new();
    format::begin(&mut group);
    payload(&mut group);
    format::finish(&mut group, HEADER.number, SECTOR as u64, Kind::Writes, HEADER.sequence);
    let mut segment = HEADER.encode().to_vec();
    segment.extend_from_slice(&group);
    segment
}

/// Whoever changes these bytes, be it by a change to a type that is stored, must give them a new version and, from the first
/// release on, go on reading the old one.
#[test]
fn the_format_is_what_it_was() {
    let mut bytes = segment(|group| writes().iter().for_each(|write| format::put(group, write).unwrap()));
    assert_eq!(
        blake3::hash(&bytes).to_hex().as_str(),
        "be0a27c6086bf5a30ddf2326d3d028bbf10c4922556bcebbbcc2b1a68d0415bd"
    );
    assert_eq!(FileHeader::decode(&bytes).unwrap(), (format::VERSION, HEADER));
    bytes.resize(bytes.len() + SECTOR, 0);
    let mut scan = Scan::new(&mut bytes, HEADER.number, HEADER.sequence);
    let mut payload = scan.next().unwrap().unwrap();
    let read: Vec<Write> = std::iter::from_fn(|| format::take(&mut payload)).collect();
    assert_eq!(read, writes());
    assert!(payload.is_empty());
}

#[test]
fn a_later_version_is_told_from_damage() {
    let mut header = HEADER.encode();
    header[8] += 1;
    assert_eq!(FileHeader::decode(&header).unwrap().0, format::VERSION + 1);
    header[8] -= 1;
    header[17] ^= 1;
    FileHeader::decode(&header).unwrap_err();
}

/// Data that is made to become zeros when masked gets another mask.
#[test]
fn no_data_passes_for_empty_space() {
    let zeros = segment(|group| group.resize(group.len() + 4 * SECTOR, 0));
    let masked = zeros[SECTOR + 56..][..4 * SECTOR].to_vec();
    let hostile = segment(|group| group.extend_from_slice(&masked));
    assert!(!hostile.chunks(SECTOR).any(|sector| sector.iter().all(|byte| *byte == 0)));
    let mut bytes = [hostile, vec![0; SECTOR]].concat();
    let mut scan = Scan::new(&mut bytes, HEADER.number, HEADER.sequence);
    assert_eq!(scan.next().unwrap().unwrap(), masked);
    assert_eq!(scan.next().unwrap(), None);
}
