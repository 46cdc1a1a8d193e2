//! Reads a directory of segments back: what is stored, and the log ready to be written on.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    ops::Range,
    path::Path,
    sync::Arc,
};

use super::{
    super::{StorageError, check},
    files::Dir,
    format::{self, Damage, FileHeader, SECTOR, Scan, VERSION},
    log::{Ledger, Log},
};
use crate::groups::raft::{Entry, Stored, Write};

impl Damage {
    fn at(self, path: &Path) -> StorageError {
        let Self { offset, expected, found } = self;
        StorageError::Damaged { path: path.to_owned(), offset, expected, found }
    }
}

/// What reading one segment left behind.
struct End {
    at: usize,
    sequence: u64,
    sealed: bool,
    torn: Option<usize>,
    unproven: Option<Range<usize>>,
    /// Where a marker is missing, and its sequence number.
    hole: Option<(usize, u64)>,
}

struct Replay {
    dir: Arc<Dir>,
    stored: Stored,
    ledger: Ledger,
}

/// Reads everything. A blank directory becomes an empty log.
pub(super) fn load(dir: &Arc<Dir>) -> Result<(Log, Stored), StorageError> {
    let mut headers = Vec::new();
    for number in dir.segments()? {
        headers.push(header(dir, number)?);
    }
    // What a wipe made void but had no time to remove.
    let begin = headers.iter().rposition(|header| header.fresh).unwrap_or(0);
    for header in headers.drain(..begin) {
        dir.remove(header.number)?;
    }
    let Some(first) = headers.first().copied() else {
        return Ok((Log::begin(Arc::clone(dir), 1)?, Stored::default()));
    };
    let mut replay = Replay { dir: Arc::clone(dir), stored: Stored::default(), ledger: Ledger::default() };
    let end = replay.segments(&headers)?;
    replay.verify(first, &headers)?;
    replay.ledger.last = replay.stored.entries.last().map_or_else(
        || replay.stored.snapshot.as_ref().map_or(0, |snapshot| snapshot.manifest.position.index),
        |entry| entry.index,
    );
    let Replay { stored, ledger, .. } = replay;
    Ok((settle(dir, ledger, &end)?, stored))
}

/// Makes durable what was found, and provably so.
fn settle(dir: &Arc<Dir>, ledger: Ledger, end: &End) -> Result<Log, StorageError> {
    let number = ledger.segments.last().map_or(1, |segment| segment.0);
    let path = dir.segment(number);
    if let Some(to) = end.torn {
        tracing::debug!(path = %path.display(), at = end.at, to, "dropped a group that was never durable");
    }
    let mut segment = dir.append(number, end.at, end.torn)?;
    if let Some(range) = &end.unproven {
        // After a failed `fdatasync` what we have read may be in memory only, and taken for written by the kernel:
        // only writing it again makes sure.
        let group = read(&path, range).map_err(|error| StorageError::io("read", &path, error))?;
        segment.write_at(range.start as u64, &group)?;
    }
    if let Some((at, sequence)) = end.hole {
        segment.write_at(at as u64, &format::marker(number, at as u64, sequence))?;
    }
    segment.sync()?;
    dir.sync()?;
    let unproven = end.unproven.is_some();
    let buffer = Vec::new();
    let mut log = Log { dir: Arc::clone(dir), ledger, segment, sequence: end.sequence, unproven, buffer };
    log.segment.reserve(0)?;
    log.mark()?;
    log.collect()?;
    Ok(log)
}

fn read(path: &Path, range: &Range<usize>) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.start as u64))?;
    let mut bytes = vec![0; range.len()];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn header(dir: &Dir, number: u64) -> Result<FileHeader, StorageError> {
    let path = dir.segment(number);
    let mut sector = Vec::with_capacity(SECTOR);
    let read = File::open(&path).and_then(|file| file.take(SECTOR as u64).read_to_end(&mut sector));
    read.map_err(|error| StorageError::io("read", &path, error))?;
    let (version, header) = FileHeader::decode(&sector).map_err(|damage| damage.at(&path))?;
    if version != VERSION {
        return Err(StorageError::Version { path, found: version, known: VERSION });
    }
    if header.number != number {
        let (expected, found) = (format!("segment {number}"), format!("segment {}", header.number));
        return Err(Damage::new(16, expected, found).at(&path));
    }
    Ok(header)
}

impl Replay {
    fn segments(&mut self, headers: &[FileHeader]) -> Result<End, StorageError> {
        let mut end: Option<End> = None;
        for (n, header) in headers.iter().enumerate() {
            let path = self.dir.segment(header.number);
            if let (Some(end), Some(before)) = (&end, n.checked_sub(1).map(|n| headers[n].number)) {
                if header.number != before + 1 {
                    return Err(Damage::new(0, format!("segment {} before it", header.number - 1), "none").at(&path));
                }
                if header.sequence != end.sequence {
                    let expected = format!("group {} to come first", end.sequence);
                    return Err(Damage::new(32, expected, format!("group {}", header.sequence)).at(&path));
                }
            }
            self.ledger.segments.push((header.number, 0));
            let mut here = self.segment(header)?;
            let last = n + 1 == headers.len();
            if here.sealed && last {
                let expected = format!("segment {} after this one", header.number + 1);
                return Err(Damage::new(here.at, expected, "none").at(&path));
            }
            if !here.sealed && !last {
                if self.discard_empty(headers, n + 1, &here)? {
                    return Ok(here);
                }
                // The numbers show that only the seal is missing, perhaps with the marker before it: their write failed, and
                // the next segment was begun.
                here.sequence = headers[n + 1].sequence;
            }
            end = Some(here);
        }
        end.ok_or_else(|| StorageError::Misuse("no segments".to_owned()))
    }

    /// A segment without a seal has a successor only if that was just created. Discards it if it holds nothing yet.
    fn discard_empty(&self, headers: &[FileHeader], next: usize, here: &End) -> Result<bool, StorageError> {
        let header = headers[next];
        let before = headers[next - 1].number;
        // A marker that became durable with the seal is missing as well.
        let marker = u64::from(here.unproven.is_some());
        let next_is = here.sequence + 1..=here.sequence + 1 + marker;
        if header.number != before + 1 || !next_is.contains(&header.sequence) || here.torn.is_some() {
            let damage = Damage::new(here.at, "a seal, for there is a next segment", "the end of the log");
            return Err(damage.at(&self.dir.segment(before)));
        }
        let path = self.dir.segment(header.number);
        let mut bytes = fs::read(&path).map_err(|error| StorageError::io("read", &path, error))?;
        let mut scan = Scan::new(&mut bytes, header.number, header.sequence);
        let mut groups = 0;
        while scan.next().map_err(|damage| damage.at(&path))?.is_some() {
            groups += 1;
        }
        let empty = groups == 1 && scan.torn.is_none() && !scan.sealed && next + 1 == headers.len();
        if empty {
            self.dir.remove(header.number)?;
        }
        Ok(empty)
    }

    fn segment(&mut self, header: &FileHeader) -> Result<End, StorageError> {
        let path = self.dir.segment(header.number);
        let mut bytes = fs::read(&path).map_err(|error| StorageError::io("read", &path, error))?;
        let mut scan = Scan::new(&mut bytes, header.number, header.sequence);
        loop {
            let at = scan.at;
            let Some(mut payload) = scan.next().map_err(|damage| damage.at(&path))? else { break };
            while !payload.is_empty() {
                let damage =
                    |found: String| Damage::new(at, "a write that can follow the ones before", found).at(&path);
                let write = format::take(&mut payload).ok_or_else(|| damage("something else".to_owned()))?;
                self.ledger.note(&write);
                self.apply(write).map_err(damage)?;
            }
        }
        let (sealed, torn) = (scan.sealed, scan.torn);
        let (unproven, hole) = (scan.unproven.take(), scan.hole);
        Ok(End { at: scan.at, sequence: scan.sequence, sealed, torn, unproven, hole })
    }

    /// As `apply` of the storages, but older segments may be gone, and with them what the first entries follow.
    fn apply(&mut self, write: Write) -> Result<(), String> {
        let entries = &mut self.stored.entries;
        match write {
            Write::Hard(hard) => self.stored.hard = hard,
            Write::Founding(founding) => self.stored.founding = founding,
            Write::Machine(machine) => self.stored.machine = Some(machine),
            Write::Marks(marks) => self.stored.marks = marks,
            Write::Replace(new) => {
                let Some(first) = new.first().map(|entry| entry.index) else { return Ok(()) };
                let begin = entries.first().map_or(first, |entry: &Entry| entry.index);
                let keep = usize::try_from(first.saturating_sub(begin)).unwrap_or(usize::MAX);
                if keep > entries.len() {
                    return Err(format!("entry {first} after {} entries from {begin}", entries.len()));
                }
                entries.truncate(keep);
                entries.extend(new);
            }
            Write::Snapshot { snapshot, keep } => {
                let index = snapshot.manifest.position.index;
                entries.retain(|entry| keep && entry.index > index);
                self.stored.snapshot = Some(snapshot);
            }
        }
        Ok(())
    }

    /// Whether all that is needed was there.
    fn verify(&self, first: FileHeader, headers: &[FileHeader]) -> Result<(), StorageError> {
        let path = self.dir.segment(first.number);
        let used = &headers[..self.ledger.segments.len()];
        let oldest = used.last().map_or(first.number, |header| header.oldest);
        let blind = !first.fresh && self.stored.snapshot.is_none();
        if first.number > oldest || blind {
            let expected = format!("segment {} before it", first.number - 1);
            return Err(Damage::new(0, expected, "none").at(&path));
        }
        check(&self.stored).map_err(|broken| Damage::new(0, "an unbroken chain", broken.to_string()).at(&path))
    }
}
