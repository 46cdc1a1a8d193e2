//! The meaning of writes, and the volatile storage.

use std::task::{Context, Poll, Waker};

use super::*;
use crate::groups::raft::{ClusterId, Digest, Entry, HardState, Manifest, Membership, Payload, Position, Snapshot};

fn chain(from: Position, term: u64, count: u64) -> Vec<Entry> {
    let mut hash = from.hash;
    let entries = (1..=count).map(|n| {
        let entry = Entry::after(&hash, from.index + n, term, (n, n), Payload::Noop);
        hash = entry.hash;
        entry
    });
    entries.collect()
}

fn snapshot(position: Position) -> Snapshot {
    let manifest = Manifest {
        position,
        time: 1,
        civil: 2,
        user: false,
        membership: Membership::founding(ClusterId(Digest::default()), [].into(), 0),
        adopted: Vec::new(),
        chunks: Vec::new(),
        machine: None,
        sealed: false,
    };
    Snapshot { manifest, data: bytes::Bytes::from_static(b"state") }
}

fn start() -> Position {
    Position { index: 0, term: 0, hash: Digest::default() }
}

#[test]
fn writes_replace_a_tail_and_snapshots_a_head() {
    let mut stored = Stored::default();
    let old = chain(start(), 1, 10);
    apply(&mut stored, Write::Replace(old.clone())).unwrap();
    let new = chain(old[4].position(), 2, 3);
    apply(&mut stored, Write::Replace(new.clone())).unwrap();
    assert_eq!(stored.entries, [&old[..5], &new[..]].concat());
    check(&stored).unwrap();

    apply(&mut stored, Write::Snapshot { snapshot: snapshot(old[2].position()), keep: true }).unwrap();
    assert_eq!(stored.entries.first().map(|entry| entry.index), Some(4));
    check(&stored).unwrap();
    let at = Position { index: 90, term: 3, hash: Digest([7; 32]) };
    apply(&mut stored, Write::Snapshot { snapshot: snapshot(at), keep: false }).unwrap();
    assert!(stored.entries.is_empty());
    apply(&mut stored, Write::Replace(chain(at, 3, 2))).unwrap();
    check(&stored).unwrap();
}

#[test]
fn contradictions_are_refused_and_change_nothing() {
    let mut stored = Stored::default();
    let log = chain(start(), 1, 4);
    apply(&mut stored, Write::Replace(log.clone())).unwrap();
    apply(&mut stored, Write::Snapshot { snapshot: snapshot(log[1].position()), keep: true }).unwrap();
    let before = stored.clone();
    let hole = chain(Position { index: 6, ..start() }, 1, 1);
    apply(&mut stored, Write::Replace(hole)).unwrap_err();
    apply(&mut stored, Write::Replace(log[..2].to_vec())).unwrap_err();
    let beyond = Position { index: 5, ..start() };
    apply(&mut stored, Write::Snapshot { snapshot: snapshot(beyond), keep: true }).unwrap_err();
    assert_eq!(stored, before);
    stored.entries[1].hash = Digest([1; 32]);
    assert_eq!(check(&stored).unwrap_err().to_string(), "entry 4 does not follow entry 3");
}

#[test]
fn memory_completes_at_once_and_forgets() {
    let mut cx = Context::from_waker(Waker::noop());
    let mut storage = InMemory::default();
    assert_eq!(storage.load().unwrap(), Stored::default());
    assert!(storage.poll_durable(&mut cx).is_pending());
    storage.submit(1, vec![Write::Hard(HardState::default())]);
    storage.submit(2, Vec::new());
    assert!(matches!(storage.poll_durable(&mut cx), Poll::Ready(Ok(2))));
    assert!(storage.poll_durable(&mut cx).is_pending());
    storage.wipe().unwrap();
    storage.submit(1, Vec::new());
    assert!(matches!(storage.poll_durable(&mut cx), Poll::Ready(Ok(1))));
}
