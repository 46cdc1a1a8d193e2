//! The bytes of a segment: a header sector, then groups, each padded to whole sectors. Pure.
//!
//! A group is what one `fdatasync` makes durable. All that recovery decides rests on four rules:
//!
//! * a group is written only after the one before it is durable, so whatever follows a group *proves* that it is;
//! * when there is nothing more to write, a marker follows, which proves the same; it becomes durable with the next group, so after
//!   a loss of power the last marker may be missing although that group is there;
//! * the file has its length, zeroed, before a group is written into it, so a crash never shortens it;
//! * no sector of a group is all zeros, so a sector that never reached the disk can be told from one that is damaged.
//!
//! Sectors are assumed to be written whole or not at all; groups share none, so none that is durable is written again.

use std::ops::Range;

use serde::{Serialize, de::DeserializeOwned};

use crate::groups::raft::Write;

/// What a disk writes at once, bytes.
pub(super) const SECTOR: usize = 512;
/// The version of all this.
pub(super) const VERSION: u32 = 6;

const FILE_MAGIC: [u8; 8] = *b"mosaikSL";
const GROUP_MAGIC: [u8; 4] = *b"mSg\xB7";
/// Magic 4, kind 1, mask 1, unused 2, sequence 8, length 8, digest of the payload 16, digest of all that 16.
const HEADER: usize = 56;
/// Fills the last sector of a group; anything but zero.
const PADDING: u8 = 0xA5;

/// The first sector of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// The segment's number; consecutive.
    pub number: u64,
    /// The first segment that must still be there.
    pub oldest: u64,
    /// The sequence number of its first group.
    pub sequence: u64,
    /// Everything in segments before it is void.
    pub fresh: bool,
}

/// What a group is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Carries writes.
    Writes = 1,
    /// Says that the group before it is durable.
    Marker = 2,
    /// Says that the log goes on in the next segment.
    Seal = 3,
}

/// Something that is not as it was written; becomes `StorageError::Damaged`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub offset: u64,
    pub expected: String,
    pub found: String,
}

impl Damage {
    pub fn new(offset: usize, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { offset: offset as u64, expected: expected.into(), found: found.into() }
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    out
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|it| it.try_into().ok()).map_or(0, u64::from_le_bytes)
}

static ZEROS: [u8; 4096] = [0; 4096];

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

impl FileHeader {
    pub fn encode(&self) -> [u8; SECTOR] {
        let mut out = [0; SECTOR];
        out[..8].copy_from_slice(&FILE_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12] = u8::from(self.fresh);
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..32].copy_from_slice(&self.oldest.to_le_bytes());
        out[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        let check = digest(&[&out[..40]]);
        out[40..56].copy_from_slice(&check);
        out
    }

    /// The header and the format version; of another version nothing else is looked at.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Self), Damage> {
        let Some(sector) = bytes.get(..SECTOR) else {
            return Err(Damage::new(0, format!("a header of {SECTOR} bytes"), format!("{} bytes", bytes.len())));
        };
        if sector[..8] != FILE_MAGIC {
            return Err(Damage::new(0, "the magic bytes of a segment", format!("{:02x?}", &sector[..8])));
        }
        let version = u32::from_le_bytes([sector[8], sector[9], sector[10], sector[11]]);
        let (number, oldest, sequence) = (number(sector, 16), number(sector, 24), number(sector, 32));
        let header = Self { number, oldest, sequence, fresh: sector[12] != 0 };
        if version == VERSION && header.encode() != sector {
            return Err(Damage::new(0, "the segment header that its digest stands for", "another one"));
        }
        Ok((version, header))
    }
}

/// Masks or unmasks: the position goes in, so that no data of a pattern becomes zeros.
fn mask(bytes: &mut [u8], variant: u8) {
    let mut word = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(2 * u64::from(variant) + 1);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let masked = number(chunk, 0) ^ word;
        chunk.copy_from_slice(&masked.to_le_bytes());
        word = word.wrapping_add(0xD1B5_4A32_D192_ED03);
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(word.to_le_bytes()) {
        *byte ^= key;
    }
}

fn header(segment: u64, at: u64, kind: u8, variant: u8, sequence: u64, len: u64, payload: [u8; 16]) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..4].copy_from_slice(&GROUP_MAGIC);
    (out[4], out[5]) = (kind, variant);
    out[8..16].copy_from_slice(&sequence.to_le_bytes());
    out[16..24].copy_from_slice(&len.to_le_bytes());
    out[24..40].copy_from_slice(&payload);
    let check = digest(&[&segment.to_le_bytes(), &at.to_le_bytes(), &out[..40]]);
    out[40..].copy_from_slice(&check);
    out
}

/// Begins a group in `out`, which the payload is then appended to.
pub(super) fn begin(out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER, 0);
}

/// Finishes the group that [`begin`] began, to be written at offset `at` of segment `segment`.
pub(super) fn finish(out: &mut Vec<u8>, segment: u64, at: u64, kind: Kind, sequence: u64) {
    let len = out.len() - HEADER;
    let payload = digest(&[&out[HEADER..]]);
    out.resize(out.len().next_multiple_of(SECTOR), PADDING);
    for variant in 0..=u8::MAX {
        mask(&mut out[HEADER..HEADER + len], variant);
        // One try is enough for all data that was not made to defeat it.
        if !out.chunks(SECTOR).skip(1).any(is_zero) {
            let head = header(segment, at, kind as u8, variant, sequence, len as u64, payload);
            out[..HEADER].copy_from_slice(&head);
            return;
        }
        mask(&mut out[HEADER..HEADER + len], variant);
    }
    unreachable!("256 different masks cannot all turn the same sector into zeros");
}

/// Reads one segment from front to end.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    bytes: &'a mut [u8],
    segment: u64,
    /// Where the next group begins, or would.
    pub at: usize,
    /// The sequence number of the next group.
    pub sequence: u64,
    /// Whether the log goes on in the next segment.
    pub sealed: bool,
    /// The last group, if nothing proves yet that it is durable, with the marker before it, if there is one.
    pub unproven: Option<Range<usize>>,
    /// A group that was being written when the power went begins at `at` and ends before this.
    pub torn: Option<usize>,
    /// Where a marker is missing, and its sequence number.
    pub hole: Option<(usize, u64)>,
    /// Where the marker just before `at` begins, if one is there.
    marker: Option<usize>,
}

struct Head {
    kind: u8,
    variant: u8,
    sequence: u64,
    len: usize,
    payload: [u8; 16],
}

impl<'a> Scan<'a> {
    /// Begins behind the header sector.
    pub fn new(bytes: &'a mut [u8], segment: u64, sequence: u64) -> Self {
        Self {
            bytes,
            segment,
            at: SECTOR,
            sequence,
            sealed: false,
            unproven: None,
            torn: None,
            hole: None,
            marker: None,
        }
    }

    /// The payload of the next group with writes; none at the end.
    pub fn next(&mut self) -> Result<Option<&[u8]>, Damage> {
        loop {
            let at = self.at;
            let Some(head) = self.head(at) else {
                if self.skip_marker() {
                    continue;
                }
                return self.end().map(|()| None);
            };
            let (start, end) = (at + HEADER, at.saturating_add(HEADER).saturating_add(head.len));
            let next = end.checked_next_multiple_of(SECTOR).unwrap_or(usize::MAX);
            if head.sequence != self.sequence {
                return Err(Damage::new(at, format!("group {}", self.sequence), format!("group {}", head.sequence)));
            }
            // One sector is always left free: a log that ends with its file was cut.
            if next.saturating_add(SECTOR) > self.bytes.len() {
                let found = format!("a file of {} bytes", self.bytes.len());
                return Err(Damage::new(at, format!("a group of {} bytes and room after it", next - at), found));
            }
            if head.kind != Kind::Marker as u8 && head.kind != Kind::Seal as u8 && head.kind != Kind::Writes as u8 {
                return Err(Damage::new(at + 4, "a kind of group", head.kind.to_string()));
            }
            mask(&mut self.bytes[start..end], head.variant);
            let good = digest(&[&self.bytes[start..end]]) == head.payload
                && self.bytes[end..next].iter().all(|byte| *byte == PADDING);
            if !good {
                mask(&mut self.bytes[start..end], head.variant);
                return self.broken(at, next).map(|()| None);
            }
            (self.at, self.sequence) = (next, self.sequence + 1);
            if head.kind == Kind::Writes as u8 {
                self.unproven = Some(self.marker.take().unwrap_or(at)..next);
                return Ok(Some(&self.bytes[start..end]));
            }
            (self.unproven, self.marker) = (None, Some(at));
            if head.kind == Kind::Seal as u8 {
                self.sealed = true;
                return self.end().map(|()| None);
            }
        }
    }

    /// The header at an offset, if there is a valid one.
    fn head(&self, at: usize) -> Option<Head> {
        let bytes = self.bytes.get(at..at + HEADER).filter(|bytes| bytes.starts_with(&GROUP_MAGIC))?;
        let mut payload = [0; 16];
        payload.copy_from_slice(&bytes[24..40]);
        let (kind, variant, sequence, len) = (bytes[4], bytes[5], number(bytes, 8), number(bytes, 16));
        let good = bytes == header(self.segment, at as u64, kind, variant, sequence, len, payload);
        let len = usize::try_from(len).ok().filter(|_| good)?;
        Some(Head { kind, variant, sequence, len, payload })
    }

    /// A marker becomes durable with the group behind it, and of the two the power may leave only the latter. True if one is
    /// missing here: then that group, behind which nothing was written yet, shows that there was one.
    fn skip_marker(&mut self) -> bool {
        let (at, after) = (self.at, self.at + SECTOR);
        let Some(head) = self.head(after) else { return false };
        let end = after.saturating_add(HEADER).saturating_add(head.len).checked_next_multiple_of(SECTOR);
        let rest = end.and_then(|end| self.bytes.get(end..)).unwrap_or_default();
        let is_next = head.sequence == self.sequence + 1 && head.kind != Kind::Marker as u8;
        if self.unproven.is_none() || !is_next || !is_zero(&self.bytes[at..after]) || !is_zero(rest) {
            return false;
        }
        self.hole = Some((at, self.sequence));
        (self.at, self.sequence, self.unproven) = (after, self.sequence + 1, None);
        true
    }

    /// No group begins here: fine if nothing was ever written from here on, or only part of one group.
    fn end(&mut self) -> Result<(), Damage> {
        let at = self.at;
        let Some(sector) = self.bytes.get(at..at + SECTOR) else {
            return Err(Damage::new(at, "room after the last group", format!("a file of {} bytes", self.bytes.len())));
        };
        if !is_zero(sector) {
            return Err(Damage::new(at, format!("the header of group {}, or zeros", self.sequence), "neither"));
        }
        if is_zero(&self.bytes[at..]) {
            return Ok(());
        }
        let last = self.bytes[at..].chunks(SECTOR).rposition(|sector| !is_zero(sector)).unwrap_or(0);
        self.cut(at, at + (last + 1) * SECTOR, "the header of a durable group")
    }

    /// A group with a good header and wrong content.
    fn broken(&mut self, at: usize, next: usize) -> Result<(), Damage> {
        if self.bytes[at..next].chunks(SECTOR).any(is_zero) {
            return self.cut(at, next, "the content of a durable group");
        }
        Err(Damage::new(at, format!("the content that the digest of group {} stands for", self.sequence), "another"))
    }

    /// Takes `at..end` for torn, unless something proves that the group at `at` was durable.
    fn cut(&mut self, at: usize, end: usize, expected: &str) -> Result<(), Damage> {
        let len = self.bytes.len();
        let later = (at + SECTOR..len).step_by(SECTOR).find(|later| self.head(*later).is_some());
        if let Some(later) = later {
            return Err(Damage::new(at, expected, format!("zeros, and a later group at {later}")));
        }
        if self.sealed {
            return Err(Damage::new(at, "nothing after the seal", "something"));
        }
        if end < len && !is_zero(&self.bytes[end..]) {
            return Err(Damage::new(end, "zeros after the last group", "something else"));
        }
        self.torn = Some(end);
        // Where a marker is missing the log goes on in its place.
        if let Some((hole, sequence)) = self.hole.take_if(|hole| hole.0 + SECTOR == at) {
            (self.at, self.sequence) = (hole, sequence);
        }
        Ok(())
    }
}

/// The marker at an offset of a segment.
pub(super) fn marker(segment: u64, at: u64, sequence: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    begin(&mut bytes);
    finish(&mut bytes, segment, at, Kind::Marker, sequence);
    bytes
}

const HARD: u8 = 1;
const FOUNDING: u8 = 2;
const REPLACE: u8 = 3;
const SNAPSHOT: u8 = 4;
const SNAPSHOT_ALONE: u8 = 5;
const MACHINE: u8 = 6;
const MARKS: u8 = 7;

/// Appends a write to the payload of a group.
pub(super) fn put(out: &mut Vec<u8>, write: &Write) -> Result<(), postcard::Error> {
    match write {
        Write::Hard(hard) => put_value(out, HARD, hard),
        Write::Founding(founding) => put_value(out, FOUNDING, founding),
        Write::Machine(machine) => put_value(out, MACHINE, machine),
        Write::Marks(marks) => put_value(out, MARKS, marks),
        Write::Replace(entries) => put_value(out, REPLACE, entries),
        Write::Snapshot { snapshot, keep: true } => put_value(out, SNAPSHOT, snapshot),
        Write::Snapshot { snapshot, keep: false } => put_value(out, SNAPSHOT_ALONE, snapshot),
    }
}

fn put_value<T: Serialize>(out: &mut Vec<u8>, tag: u8, value: &T) -> Result<(), postcard::Error> {
    let mut taken = std::mem::take(out);
    taken.push(tag);
    *out = postcard::to_extend(value, taken)?;
    Ok(())
}

/// Takes the next write off a payload; none if it is not one.
pub(super) fn take(payload: &mut &[u8]) -> Option<Write> {
    fn value<T: DeserializeOwned>(payload: &mut &[u8]) -> Option<T> {
        let (value, rest) = postcard::take_from_bytes(payload).ok()?;
        *payload = rest;
        Some(value)
    }
    let (tag, rest) = payload.split_first()?;
    *payload = rest;
    match *tag {
        HARD => value(payload).map(Write::Hard),
        FOUNDING => value(payload).map(Write::Founding),
        MACHINE => value(payload).map(Write::Machine),
        MARKS => value(payload).map(Write::Marks),
        REPLACE => value(payload).map(Write::Replace),
        SNAPSHOT => value(payload).map(|snapshot| Write::Snapshot { snapshot, keep: true }),
        SNAPSHOT_ALONE => value(payload).map(|snapshot| Write::Snapshot { snapshot, keep: false }),
        _ => None,
    }
}
