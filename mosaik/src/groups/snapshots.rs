//! [`Snapshots`]: how a machine becomes bytes and back, how its bytes are read back before anything relies on them, and how
//! the state of an earlier version becomes that of this one. Pure; the apply worker and `join` are the only callers.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// A machine's state, taken at one point, that is yet to be encoded. Runs outside of the apply worker.
pub type Encode = Box<dyn FnOnce() -> Result<Bytes, SnapshotError> + Send>;

/// How often the same bytes are read before an encoding that differs is taken for one that always differs in the same way.
/// Two entries of a map in random order are in the same order that often by chance in one of 30,000 tries.
const TRIES: usize = 16;

/// A machine could not be turned into bytes, or not be read back from them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SnapshotError(String);

impl SnapshotError {
    /// An error with a text for the operator.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<postcard::Error> for SnapshotError {
    fn from(error: postcard::Error) -> Self {
        Self(error.to_string())
    }
}

/// What was found when an encoding was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadBack {
    /// It encodes to the same bytes again.
    Equal,
    /// The same state encodes to the same bytes in another order each time, as a map in random order does.
    Varies,
}

/// How a machine becomes bytes and back.
///
/// A snapshot lets the log go and brings a member that is far behind up to date. It is held in memory whole. Before the log
/// goes, a snapshot is read back and encoded again; one that differs is not taken, the log stays, and the group's status says
/// why.
pub struct Snapshots<M> {
    codec: Option<Codec<M>>,
    migrations: Vec<Migration<M>>,
}

struct Codec<M> {
    capture: fn(&M) -> Encode,
    restore: fn(&[u8]) -> Result<M, SnapshotError>,
}

type Up<M> = Arc<dyn Fn(&[u8]) -> Result<M, SnapshotError> + Send + Sync>;

/// Reads the state of an earlier version.
struct Migration<M> {
    from: u32,
    up: Up<M>,
}

impl<M> Clone for Codec<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Codec<M> {}

impl<M> Clone for Migration<M> {
    fn clone(&self) -> Self {
        Self { from: self.from, up: self.up.clone() }
    }
}

impl<M> Clone for Snapshots<M> {
    fn clone(&self) -> Self {
        Self { codec: self.codec, migrations: self.migrations.clone() }
    }
}

impl<M> fmt::Debug for Snapshots<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.codec.is_some() { "Snapshots(yes)" } else { "Snapshots(none)" })
    }
}

impl<M> Snapshots<M> {
    /// No snapshots: the log is kept for ever.
    #[must_use]
    pub const fn none() -> Self {
        Self { codec: None, migrations: Vec::new() }
    }

    /// Encodes the machine with postcard, between two commands. Applying waits for as long as that takes, some 10 ms for
    /// each 10 MB; elections and replication do not wait. For machines that are cheap to clone, [`cloned`](Self::cloned)
    /// does not hold applying up.
    #[must_use]
    pub fn serde() -> Self
    where
        M: Serialize + DeserializeOwned,
    {
        Self::with(
            |machine| {
                let bytes = postcard::to_allocvec(machine).map(Bytes::from);
                Box::new(move || Ok(bytes?))
            },
            |bytes| Ok(postcard::from_bytes(bytes)?),
        )
    }

    /// Clones the machine between two commands and encodes the clone with postcard while applying goes on.
    #[must_use]
    pub fn cloned() -> Self
    where
        M: Serialize + DeserializeOwned + Clone + Send + 'static,
    {
        Self::with(
            |machine| {
                let machine = machine.clone();
                Box::new(move || Ok(postcard::to_allocvec(&machine)?.into()))
            },
            |bytes| Ok(postcard::from_bytes(bytes)?),
        )
    }

    /// By hand: `capture` runs between two commands and should be quick; what it returns does the encoding and runs beside
    /// the applying of further commands. `restore` must take what it made, byte for byte.
    #[must_use]
    pub const fn with(capture: fn(&M) -> Encode, restore: fn(&[u8]) -> Result<M, SnapshotError>) -> Self {
        Self { codec: Some(Codec { capture, restore }), migrations: Vec::new() }
    }

    /// Takes over from version `version` of the machine: `up` makes this version's state of what that version had when its
    /// group was [sealed](super::Group::seal). `Old` must be encoded as that version did, with postcard if it used
    /// [`serde`](Self::serde) or [`cloned`](Self::cloned). May be called once for each earlier version.
    #[must_use]
    pub fn migrate_from<Old: DeserializeOwned + 'static>(self, version: u32, up: fn(Old) -> M) -> Self
    where
        M: 'static,
    {
        self.migrate_with(version, move |bytes| Ok(up(postcard::from_bytes(bytes)?)))
    }

    /// As [`migrate_from`](Self::migrate_from), from the bytes of the earlier version's snapshot.
    #[must_use]
    pub fn migrate_with(
        mut self,
        version: u32,
        up: impl Fn(&[u8]) -> Result<M, SnapshotError> + Send + Sync + 'static,
    ) -> Self {
        self.migrations.push(Migration { from: version, up: Arc::new(up) });
        self
    }

    /// Whether there are any.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.codec.is_some()
    }

    /// Takes the machine's state.
    pub(crate) fn capture(&self, machine: &M) -> Option<Encode> {
        self.codec.map(|codec| (codec.capture)(machine))
    }

    pub(crate) fn restore(&self, bytes: &[u8]) -> Result<M, SnapshotError> {
        (self.codec()?.restore)(bytes)
    }

    /// Whether the state of that version can be taken over.
    pub(crate) fn migrates_from(&self, version: u32) -> bool {
        self.migrations.iter().any(|migration| migration.from == version)
    }

    /// The state of an earlier version, as this one's.
    pub(crate) fn migrate(&self, version: u32, bytes: &[u8]) -> Result<M, SnapshotError> {
        let migration = self.migrations.iter().find(|migration| migration.from == version);
        let none = || SnapshotError::new(format!("no migration from version {version}"));
        (migration.ok_or_else(none)?.up)(bytes)
    }

    /// The encoding of the machine, at once.
    pub(crate) fn encode(&self, machine: &M) -> Result<Bytes, SnapshotError> {
        (self.codec()?.capture)(machine)()
    }

    /// Reads an encoding back and encodes what it finds: nothing may be lost by it.
    pub(crate) fn read_back(&self, bytes: &[u8]) -> Result<ReadBack, SnapshotError> {
        let again =
            || self.restore(bytes).map_err(|error| unreadable(&error)).and_then(|machine| self.encode(&machine));
        let first = again()?;
        if *first == *bytes {
            return Ok(ReadBack::Equal);
        }
        let tally = tally(bytes);
        for tried in 1.. {
            let next = again()?;
            if self::tally(&next) != tally || self::tally(&first) != tally || (tried == TRIES && next == first) {
                break;
            }
            if next != first {
                return Ok(ReadBack::Varies);
            }
        }
        let at = first.iter().zip(bytes).take_while(|(one, other)| one == other).count();
        let (was, is) = (bytes.len(), first.len());
        Err(SnapshotError(format!(
            "read back and encoded again it differs: {was} bytes became {is}, the first difference is at byte {at}"
        )))
    }

    fn codec(&self) -> Result<&Codec<M>, SnapshotError> {
        self.codec.as_ref().ok_or_else(|| SnapshotError::new("this machine has no snapshots"))
    }
}

fn unreadable(error: &SnapshotError) -> SnapshotError {
    SnapshotError(format!("it cannot be read back: {error}"))
}

/// How often each byte occurs: what encodings of one state in different orders have in common.
fn tally(bytes: &[u8]) -> [u64; 256] {
    let mut tally = [0; 256];
    bytes.iter().for_each(|byte| tally[usize::from(*byte)] += 1);
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Serialize, serde::Deserialize)]
    struct Sum(u64);

    #[test]
    fn both_kinds_of_serde_snapshots_read_back_what_they_wrote() {
        for snapshots in [Snapshots::serde(), Snapshots::cloned()] {
            let bytes = snapshots.capture(&Sum(77)).unwrap()().unwrap();
            assert_eq!(snapshots.restore(&bytes).unwrap().0, 77);
            assert_eq!(snapshots.read_back(&bytes), Ok(ReadBack::Equal));
            assert!(snapshots.restore(&[0xFF; 11]).is_err());
        }
        assert!(Snapshots::<Sum>::none().capture(&Sum(1)).is_none());
    }

    #[test]
    fn what_is_lost_or_changed_by_reading_back_is_noticed() {
        #[derive(Serialize, serde::Deserialize)]
        struct Left {
            one: u32,
            #[serde(skip_serializing_if = "Option::is_none", default)]
            maybe: Option<u32>,
            two: u32,
        }
        let snapshots = Snapshots::<Left>::serde();
        let bytes = snapshots.encode(&Left { one: 1, maybe: None, two: 2 }).unwrap();
        assert!(snapshots.read_back(&bytes).is_err(), "a field is missing");

        // The same bytes in another order, but always the same other order.
        let swapped = Snapshots::<(u8, u8)>::with(
            |pair| {
                let bytes = Bytes::copy_from_slice(&[pair.0, pair.1]);
                Box::new(move || Ok(bytes))
            },
            |bytes| Ok((bytes[1], bytes[0])),
        );
        let error = swapped.read_back(&[1, 2]).unwrap_err().to_string();
        assert!(error.contains("at byte 0"), "{error}");
        assert_eq!(swapped.read_back(&[2, 2]), Ok(ReadBack::Equal));
    }

    #[test]
    #[expect(clippy::disallowed_types, reason = "a map in random order is what it is about")]
    fn a_map_in_random_order_is_told_from_a_loss() {
        type Map = std::collections::HashMap<u32, u32>;
        let snapshots = Snapshots::<Map>::serde();
        for entries in [3, 100] {
            let bytes = snapshots.encode(&(0..entries).map(|n| (n, n * 7)).collect()).unwrap();
            // By chance it may be the same order.
            let seen: Vec<_> = (0..40).map(|_| snapshots.read_back(&bytes).unwrap()).collect();
            assert!(seen.contains(&ReadBack::Varies), "{seen:?}");
        }
        let lossy = Snapshots::<Map>::with(
            |map| {
                let bytes = postcard::to_allocvec(map).map(Bytes::from);
                Box::new(move || Ok(bytes?))
            },
            |bytes| {
                let mut map: Map = postcard::from_bytes(bytes)?;
                map.remove(&1);
                Ok(map)
            },
        );
        let bytes = lossy.encode(&(0..9).map(|n| (n, n)).collect()).unwrap();
        assert!(lossy.read_back(&bytes).is_err());
    }

    #[test]
    fn an_earlier_version_is_taken_over_by_its_own_function() {
        let snapshots = Snapshots::<Sum>::serde().migrate_from(1, |old: u8| Sum(u64::from(old) * 10));
        assert_eq!(snapshots.migrate(1, &[7]).unwrap().0, 70);
        assert!(snapshots.migrates_from(1) && !snapshots.migrates_from(0));
        assert!(snapshots.migrate(0, &[7]).is_err());
    }
}
