//! What writes mean: their effect on an image of the storage, and what a valid image is. Pure.

use crate::groups::raft::{Digest, Stored, Write};

/// Why a write cannot follow what is stored, or why what is stored cannot be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Contradiction(String);

/// Carries out one write.
///
/// # Errors
/// When it would leave a hole in the log or reach below the snapshot; `stored` is then as before.
pub fn apply(stored: &mut Stored, write: Write) -> Result<(), Contradiction> {
    match write {
        Write::Hard(hard) => stored.hard = hard,
        Write::Founding(founding) => stored.founding = founding,
        Write::Machine(machine) => stored.machine = Some(machine),
        Write::Marks(marks) => stored.marks = marks,
        Write::Replace(entries) => {
            let Some(first) = entries.first().map(|entry| entry.index) else { return Ok(()) };
            let base = base(stored).0;
            let keep = first.checked_sub(base + 1).and_then(|keep| usize::try_from(keep).ok());
            let Some(keep) = keep.filter(|keep| *keep <= stored.entries.len()) else {
                let last = base + stored.entries.len() as u64;
                return Err(Contradiction(format!("entry {first} after a log from {} to {last}", base + 1)));
            };
            stored.entries.truncate(keep);
            stored.entries.extend(entries);
        }
        Write::Snapshot { snapshot, keep } => {
            let (base, index) = (base(stored).0, snapshot.manifest.position.index);
            let last = base + stored.entries.len() as u64;
            if keep && !(base..=last).contains(&index) {
                return Err(Contradiction(format!("snapshot {index} within a log from {} to {last}", base + 1)));
            }
            stored.entries.retain(|entry| keep && entry.index > index);
            stored.snapshot = Some(snapshot);
        }
    }
    Ok(())
}

/// Whether the entries are one unbroken chain from the snapshot, or from the beginning.
///
/// # Errors
/// When they are not: the index of the first entry that is wrong.
pub fn check(stored: &Stored) -> Result<(), Contradiction> {
    let (mut index, mut hash) = base(stored);
    let mut scratch = Vec::new();
    for entry in &stored.entries {
        index += 1;
        if entry.index != index || !entry.follows(&hash, &mut scratch) {
            return Err(Contradiction(format!("entry {} does not follow entry {}", entry.index, index - 1)));
        }
        hash = entry.hash;
    }
    Ok(())
}

fn base(stored: &Stored) -> (u64, Digest) {
    let position = stored.snapshot.as_ref().map(|snapshot| snapshot.manifest.position);
    position.map_or((0, Digest::default()), |position| (position.index, position.hash))
}
