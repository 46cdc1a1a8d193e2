//! The bytes on disk.

use super::format::{self, FileHeader, Kind, VERSION};
use crate::{
    groups::raft::{Entry, Founding, HardState, MachineId, Marks, Sessions, Snapshot, Write},
    primitives::fixtures::{Fixture, samples},
};

fn put(write: &Write) -> Vec<u8> {
    let mut bytes = Vec::new();
    format::put(&mut bytes, write).expect("encodes");
    bytes
}

#[test]
fn records_are_as_they_were() {
    let snapshot = |snapshot: &Snapshot, keep| put(&Write::Snapshot { snapshot: snapshot.clone(), keep });
    let mut group = Vec::new();
    format::begin(&mut group);
    group.extend(put(&Write::Replace(samples::<Entry>())));
    format::finish(&mut group, 3, 512, Kind::Writes, 5);
    Fixture::new(format!("group-log/{VERSION}"))
        .bytes("header", FileHeader { number: 3, oldest: 2, sequence: 5, fresh: true }.encode())
        .each(|hard: &HardState| put(&Write::Hard(hard.clone())))
        .each(|founding: &Founding| put(&Write::Founding(founding.clone())))
        .each(|machine: &MachineId| put(&Write::Machine(machine.clone())))
        .each(|marks: &Marks| put(&Write::Marks(marks.clone())))
        .each(|entry: &Entry| put(&Write::Replace(vec![entry.clone()])))
        .each(|it: &Snapshot| snapshot(it, true))
        .each(|it: &Snapshot| snapshot(it, false))
        // It stands before the machine's own bytes in a snapshot.
        .postcard::<Sessions>()
        .bytes("group", group)
        .bytes("marker", format::marker(3, 1024, 6))
        .check();
}
