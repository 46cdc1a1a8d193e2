//! Batches for tests of storages: random, but such as a consensus core could submit, with the image they amount to.

use bytes::Bytes;

use super::apply;
use crate::groups::raft::{
    ClusterId, Command, Digest, Entry, Founding, HardState, MachineId, Manifest, Mark, Marks, Member, Membership,
    NodeId, Payload, Position, SessionId, Snapshot, Start, Stored, Write,
};

/// Makes batches, the same for the same seed.
#[derive(Clone, Debug)]
pub struct StorageScript {
    state: u64,
    image: Stored,
    largest: usize,
}

impl StorageScript {
    /// Begins at a blank storage.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed, image: Stored::default(), largest: 300 }
    }

    /// Goes on from what a storage gave back.
    #[must_use]
    pub fn resume(seed: u64, stored: Stored) -> Self {
        Self { image: stored, ..Self::new(seed) }
    }

    /// Commands of up to so many bytes; 300 unless said otherwise.
    #[must_use]
    pub const fn with_commands_up_to(mut self, bytes: usize) -> Self {
        self.largest = bytes;
        self
    }

    /// What a storage must hold once every batch so far is durable.
    pub const fn image(&self) -> &Stored {
        &self.image
    }

    /// A number below `limit`, by SplitMix64 (Steele, Lea, Flood 2014).
    pub fn random(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit.max(1)
    }

    /// The next batch: mostly entries that are appended, sometimes any other write or nothing at all.
    pub fn batch(&mut self) -> Vec<Write> {
        let mut batch = Vec::new();
        for _ in 0..self.random(3) + u64::from(self.image.entries.is_empty()) {
            let write = match self.random(20) {
                0..3 => self.hard(),
                3 if self.random(2) == 0 => Write::Machine(self.machine()),
                3 => self.founding(),
                4 if !self.image.entries.is_empty() => self.compact(),
                5 if self.random(4) == 0 => self.install(),
                6..9 => self.truncate(),
                9 => self.marks(),
                _ => self.append(),
            };
            self.carry_out(&write);
            batch.push(write);
        }
        batch
    }

    /// A batch that appends so many commands of so many bytes each.
    pub fn commands(&mut self, count: u64, bytes: usize) -> Vec<Write> {
        let (last, term) = (self.last(), self.image.hard.term.max(self.last().term));
        let write = Write::Replace(self.entries(last, term, count, Some(bytes)));
        self.carry_out(&write);
        vec![write]
    }

    fn carry_out(&mut self, write: &Write) {
        let done = apply(&mut self.image, write.clone());
        assert!(done.is_ok(), "a script makes valid writes: {done:?}");
    }

    fn base(&self) -> Position {
        self.image.snapshot.as_ref().map_or_else(start, |snapshot| snapshot.manifest.position)
    }

    fn last(&self) -> Position {
        self.image.entries.last().map_or_else(|| self.base(), Entry::position)
    }

    fn member(&mut self) -> Member {
        let byte = u8::try_from(self.random(5)).unwrap_or_default();
        Member { node: NodeId::from_bytes([byte; 32]), incarnation: self.random(1000) }
    }

    fn hard(&mut self) -> Write {
        let voted = Some(self.member());
        let cluster = Some(ClusterId(Digest([7; 32])));
        let term = self.image.hard.term.max(self.last().term) + self.random(3);
        Write::Hard(HardState { cluster, incarnation: 1 + self.random(9), term, voted, commit: self.base().index })
    }

    fn machine(&mut self) -> MachineId {
        let version = u32::try_from(self.random(9)).unwrap_or_default();
        MachineId { name: String::from("script"), version, schema: Some(Digest([9; 32])), codec: 0 }
    }

    fn founding(&mut self) -> Write {
        let (number, refused) = (self.random(1000), (self.member(), self.random(50)));
        Write::Founding(Founding { number, refused: [refused].into(), ..Founding::default() })
    }

    fn marks(&mut self) -> Write {
        let (number, run) = (1 + self.random(9), self.random(u64::MAX));
        let start = Start { number, run, term: self.random(9), last: self.random(99) };
        let of = self.member();
        let mark = Mark { verified: self.random(99), ..Mark::first(of.incarnation, start, self.random(9)) };
        Write::Marks(Marks { start, others: [(of.node, mark)].into() })
    }

    fn append(&mut self) -> Write {
        let (last, count) = (self.last(), 1 + self.random(8));
        let term = self.image.hard.term.max(last.term);
        Write::Replace(self.entries(last, term, count, None))
    }

    fn truncate(&mut self) -> Write {
        let kept = self.random(self.image.entries.len() as u64 + 1);
        let at = usize::try_from(kept).unwrap_or(0).checked_sub(1).and_then(|at| self.image.entries.get(at));
        let from = at.map_or_else(|| self.base(), Entry::position);
        let (term, count) = (self.image.hard.term.max(self.last().term) + 1, 1 + self.random(4));
        Write::Replace(self.entries(from, term, count, None))
    }

    fn compact(&mut self) -> Write {
        let at = self.random(self.image.entries.len() as u64);
        let entry = usize::try_from(at).ok().and_then(|at| self.image.entries.get(at));
        let position = entry.map_or_else(|| self.base(), Entry::position);
        Write::Snapshot { snapshot: self.snapshot(position), keep: true }
    }

    fn install(&mut self) -> Write {
        let last = self.last();
        let hash = Digest([u8::try_from(self.random(256)).unwrap_or(0); 32]);
        let position = Position { index: last.index + 1 + self.random(99), term: last.term + 1, hash };
        Write::Snapshot { snapshot: self.snapshot(position), keep: false }
    }

    fn snapshot(&mut self, position: Position) -> Snapshot {
        let data = self.bytes(None);
        let membership = Membership::founding(ClusterId(Digest([7; 32])), [self.member()].into(), 3);
        let chunks = vec![Digest(*blake3::hash(&data).as_bytes())];
        let (time, user, adopted) = (self.random(1 << 40), true, Vec::new());
        let civil = self.random(1 << 40);
        let (machine, sealed) = (Some(self.machine()), self.random(2) == 0);
        let manifest = Manifest { position, time, civil, user, membership, adopted, chunks, machine, sealed };
        Snapshot { manifest, data }
    }

    /// Random bytes or, as often, zeros: a format must not take data for empty space.
    fn bytes(&mut self, len: Option<usize>) -> Bytes {
        let len = len.unwrap_or_else(|| usize::try_from(self.random(self.largest as u64 + 1)).unwrap_or(0));
        let zeros = self.random(2) == 0;
        let byte = |_| if zeros { 0 } else { u8::try_from(self.random(256)).unwrap_or(0) };
        (0..len).map(byte).collect()
    }

    fn entries(&mut self, after: Position, term: u64, count: u64, len: Option<usize>) -> Vec<Entry> {
        let mut hash = after.hash;
        let mut entries = Vec::new();
        for index in after.index + 1..=after.index + count {
            let payload = match self.random(10) {
                0 if len.is_none() => Payload::Noop,
                1 if len.is_none() => Payload::Open(SessionId(u128::from(index) << 70)),
                _ => Payload::Command(Command {
                    session: SessionId(u128::from(self.random(u64::MAX))),
                    opened: index / 2,
                    sequence: index,
                    settled: 0,
                    attempted: self.random(1 << 40),
                    body: self.bytes(len),
                }),
            };
            let entry = Entry::after(&hash, index, term, (index, index), payload);
            hash = entry.hash;
            entries.push(entry);
        }
        entries
    }
}

fn start() -> Position {
    Position { index: 0, term: 0, hash: Digest::default() }
}
