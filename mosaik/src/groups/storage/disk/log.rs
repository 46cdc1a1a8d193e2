//! The log over its segments: appends groups, begins new segments, drops old ones. Runs on the writer's thread.

use std::sync::Arc;

use super::{
    super::StorageError,
    files::{Dir, Segment},
    format::{self, FileHeader, Kind, SECTOR},
};
use crate::groups::raft::{Founding, HardState, Index, MachineId, Marks, Write};

/// A segment that is longer than this, bytes, gets a successor.
const SEGMENT: u64 = 64 << 20;
/// A buffer that is larger than this, bytes, is not kept for the next group.
const KEPT_BUFFER: usize = 16 << 20;

/// What is where, and what may go.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// Number of each segment and the highest index that lies in it, ascending; the last one is written to.
    pub segments: Vec<(u64, Index)>,
    /// The segment of the snapshot, and the index that it stands for.
    pub snapshot: Option<(u64, Index)>,
    pub hard: HardState,
    pub founding: Founding,
    pub machine: Option<MachineId>,
    pub marks: Marks,
    /// The last index of the log.
    pub last: Index,
}

impl Ledger {
    /// Takes note of a write to the last segment.
    pub fn note(&mut self, write: &Write) {
        let Some(current) = self.segments.last_mut() else { return };
        match write {
            Write::Hard(hard) => self.hard = hard.clone(),
            Write::Founding(founding) => self.founding = founding.clone(),
            Write::Machine(machine) => self.machine = Some(machine.clone()),
            Write::Marks(marks) => self.marks = marks.clone(),
            Write::Replace(entries) => {
                let Some(last) = entries.last() else { return };
                current.1 = current.1.max(last.index);
                self.last = last.index;
            }
            Write::Snapshot { snapshot, keep } => {
                let index = snapshot.manifest.position.index;
                self.snapshot = Some((current.0, index));
                if !keep {
                    self.segments.iter_mut().for_each(|segment| segment.1 = 0);
                    self.last = index;
                }
            }
        }
    }

    /// The first segment that is still needed: the one with the snapshot, or with an entry after it.
    pub fn oldest(&self) -> u64 {
        let needed = |segment: &&(u64, Index)| {
            self.snapshot.is_none_or(|(number, index)| segment.0 >= number || segment.1 > index)
        };
        self.segments.iter().find(needed).map_or(0, |segment| segment.0)
    }

    /// Whether the write can follow what is there.
    fn allows(&self, write: &Write) -> bool {
        let base = self.snapshot.map_or(0, |(_, index)| index);
        match write {
            Write::Replace(entries) => {
                entries.first().is_none_or(|first| (base + 1..=self.last + 1).contains(&first.index))
            }
            Write::Snapshot { snapshot, keep: true } => (base..=self.last).contains(&snapshot.manifest.position.index),
            _ => true,
        }
    }
}

/// The log, open for writing.
#[derive(Debug)]
pub(super) struct Log {
    pub dir: Arc<Dir>,
    pub ledger: Ledger,
    pub segment: Segment,
    /// The sequence number of the next group.
    pub sequence: u64,
    /// Whether nothing after the last group says yet that it is durable.
    pub unproven: bool,
    pub buffer: Vec<u8>,
}

impl Log {
    /// Begins a log in a new segment that makes all before it void.
    pub fn begin(dir: Arc<Dir>, number: u64) -> Result<Self, StorageError> {
        let mut ledger = Ledger::default();
        ledger.segments.push((number, 0));
        let mut buffer = Vec::new();
        encode(&mut buffer, &state(&ledger))?;
        format::finish(&mut buffer, number, SECTOR as u64, Kind::Writes, 1);
        let header = FileHeader { number, oldest: number, sequence: 1, fresh: true };
        let segment = dir.create(header, &buffer)?;
        Ok(Self { dir, ledger, segment, sequence: 2, unproven: true, buffer })
    }

    /// Makes the writes durable as one group. After an error nothing more may be written.
    pub fn append(&mut self, writes: &[Write]) -> Result<(), StorageError> {
        if writes.is_empty() {
            return Ok(());
        }
        let snapshots = writes.iter().any(|write| matches!(write, Write::Snapshot { .. }));
        if snapshots || self.segment.at > SEGMENT {
            self.rotate(if snapshots { writes } else { &[] })?;
        }
        for write in writes {
            if !self.ledger.allows(write) {
                return Err(StorageError::Misuse(format!("a write leaves a hole after entry {}", self.ledger.last)));
            }
            self.ledger.note(write);
        }
        encode(&mut self.buffer, writes)?;
        self.put(Kind::Writes)?;
        self.segment.sync()?;
        if self.buffer.capacity() > KEPT_BUFFER {
            self.buffer = Vec::new();
        }
        self.unproven = true;
        if snapshots { self.collect() } else { Ok(()) }
    }

    /// Says that the last group is durable, for when no other group will soon do so. Need not be durable itself.
    pub fn mark(&mut self) -> Result<(), StorageError> {
        if !self.unproven {
            return Ok(());
        }
        format::begin(&mut self.buffer);
        self.put(Kind::Marker)?;
        self.unproven = false;
        Ok(())
    }

    /// Writes the group in the buffer.
    fn put(&mut self, kind: Kind) -> Result<(), StorageError> {
        let Self { buffer, segment, .. } = self;
        format::finish(buffer, segment.number, segment.at, kind, self.sequence);
        if kind == Kind::Writes {
            segment.reserve(buffer.len())?;
        }
        segment.write(buffer)?;
        self.sequence += 1;
        Ok(())
    }

    /// Goes on in a new segment, which begins with the small state and then takes `next`.
    fn rotate(&mut self, next: &[Write]) -> Result<(), StorageError> {
        let number = self.segment.number + 1;
        self.ledger.segments.push((number, 0));
        let mut after = self.ledger.clone();
        next.iter().for_each(|write| after.note(write));
        let header = FileHeader { number, oldest: after.oldest(), sequence: self.sequence + 1, fresh: false };
        encode(&mut self.buffer, &state(&self.ledger))?;
        format::finish(&mut self.buffer, number, SECTOR as u64, Kind::Writes, header.sequence);
        let segment = self.dir.create(header, &self.buffer)?;
        // Only now does the old one end. If this is as far as it gets, the new one is found to be empty and removed.
        format::begin(&mut self.buffer);
        self.put(Kind::Seal)?;
        self.segment.sync()?;
        self.segment = segment;
        self.sequence += 1;
        tracing::debug!(segment = number, oldest = header.oldest, "began a segment");
        Ok(())
    }

    /// Removes segments that nothing needs any more.
    pub fn collect(&mut self) -> Result<(), StorageError> {
        let oldest = self.ledger.oldest();
        let unneeded = self.ledger.segments.partition_point(|segment| segment.0 < oldest);
        for (number, _) in self.ledger.segments.drain(..unneeded) {
            self.dir.remove(number)?;
        }
        if unneeded > 0 { self.dir.sync() } else { Ok(()) }
    }
}

/// What every segment begins with, so that the ones before it can go.
fn state(ledger: &Ledger) -> Vec<Write> {
    let machine = ledger.machine.clone().map(Write::Machine);
    let small = [
        Write::Hard(ledger.hard.clone()),
        Write::Founding(ledger.founding.clone()),
        Write::Marks(ledger.marks.clone()),
    ];
    machine.into_iter().chain(small).collect()
}

fn encode(buffer: &mut Vec<u8>, writes: &[Write]) -> Result<(), StorageError> {
    format::begin(buffer);
    writes.iter().try_for_each(|write| format::put(buffer, write)).map_err(|error| StorageError::Other(Arc::new(error)))
}
