//! [`Snapshots`]: how a machine becomes bytes and back, how its bytes are read back before anything relies on them, and how
//! the state of an earlier version becomes that of this one. Pure; the apply worker and `join` are the only callers.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use crate::primitives::codec::ReadBack;
use crate::primitives::{
    Schema,
    codec::{self, Codec, DecodeError},
};

/// A machine's state, taken at one point, that is yet to be encoded. Runs outside of the apply worker.
pub type Encode = Box<dyn FnOnce() -> Result<Bytes, SnapshotError> + Send>;

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

impl From<DecodeError> for SnapshotError {
    fn from(error: DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// How a machine becomes bytes and back.
///
/// A snapshot lets the log go and brings a member that is far behind up to date. It is held in memory whole. Before the log
/// goes, a snapshot is read back and encoded again; one that differs is not taken, the log stays, and the group's status says
/// why.
pub struct Snapshots<M> {
    functions: Option<Functions<M>>,
    migrations: Vec<Migration<M>>,
}

struct Functions<M> {
    capture: fn(&M) -> Encode,
    restore: fn(&[u8]) -> Result<M, SnapshotError>,
    /// The machine's shape and its fingerprint, if serde encodes it.
    shape: Option<fn() -> Shape>,
}

/// A fingerprint and what it is of.
type Shape = ([u8; 32], &'static Schema);

type Up<M> = Arc<dyn Fn(&[u8]) -> Result<M, SnapshotError> + Send + Sync>;

/// Reads the state of an earlier version.
struct Migration<M> {
    from: u32,
    up: Up<M>,
}

impl<M> Clone for Functions<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Functions<M> {}

impl<M> Clone for Migration<M> {
    fn clone(&self) -> Self {
        Self { from: self.from, up: self.up.clone() }
    }
}

impl<M> Clone for Snapshots<M> {
    fn clone(&self) -> Self {
        Self { functions: self.functions, migrations: self.migrations.clone() }
    }
}

impl<M> fmt::Debug for Snapshots<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.functions.is_some() { "Snapshots(yes)" } else { "Snapshots(none)" })
    }
}

impl<M> Snapshots<M> {
    /// No snapshots: the log is kept for ever.
    #[must_use]
    pub const fn none() -> Self {
        Self { functions: None, migrations: Vec::new() }
    }

    /// Encodes the machine between two commands, with postcard or `MessagePack` as its type asks for. Applying waits for as long as that takes, some 10 ms for
    /// each 10 MB; elections and replication do not wait. For machines that are cheap to clone, [`cloned`](Self::cloned)
    /// does not hold applying up.
    #[must_use]
    pub fn serde() -> Self
    where
        M: Serialize + DeserializeOwned + 'static,
    {
        Self::with(
            |machine| {
                let bytes = encoded(machine);
                Box::new(move || bytes)
            },
            |bytes| Ok(Codec::of().decode_marked(bytes)?),
        )
        .shaped()
    }

    /// Clones the machine between two commands and encodes the clone while applying goes on.
    #[must_use]
    pub fn cloned() -> Self
    where
        M: Serialize + DeserializeOwned + Clone + Send + 'static,
    {
        Self::with(
            |machine| {
                let machine = machine.clone();
                Box::new(move || encoded(&machine))
            },
            |bytes| Ok(Codec::of().decode_marked(bytes)?),
        )
        .shaped()
    }

    /// By hand: `capture` runs between two commands and should be quick; what it returns does the encoding and runs beside
    /// the applying of further commands. `restore` must take what it made, byte for byte.
    #[must_use]
    pub const fn with(capture: fn(&M) -> Encode, restore: fn(&[u8]) -> Result<M, SnapshotError>) -> Self {
        Self { functions: Some(Functions { capture, restore, shape: None }), migrations: Vec::new() }
    }

    /// Takes over from version `version` of the machine: `up` makes this version's state of what that version had when its
    /// group was [sealed](super::Group::seal). `Old` must have the shape that it had in that version, which used
    /// [`serde`](Self::serde) or [`cloned`](Self::cloned); what [`with`](Self::with) wrote is read by
    /// [`migrate_with`](Self::migrate_with). May be called once for each earlier version.
    #[must_use]
    pub fn migrate_from<Old: DeserializeOwned + 'static>(self, version: u32, up: fn(Old) -> M) -> Self
    where
        M: 'static,
    {
        self.migrate_with(version, move |bytes| Ok(up(Codec::of().decode_marked(bytes)?)))
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

    fn shaped(mut self) -> Self
    where
        M: DeserializeOwned + 'static,
    {
        if let Some(functions) = &mut self.functions {
            functions.shape = Some(|| (Codec::<M>::of().fingerprint(None), Codec::<M>::of().schema()));
        }
        self
    }

    /// The machine's shape and its fingerprint, if serde encodes it.
    pub(crate) fn shape(&self) -> Option<Shape> {
        self.functions?.shape.map(|shape| shape())
    }

    /// Whether there are any.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.functions.is_some()
    }

    /// Takes the machine's state.
    pub(crate) fn capture(&self, machine: &M) -> Option<Encode> {
        self.functions.map(|functions| (functions.capture)(machine))
    }

    pub(crate) fn restore(&self, bytes: &[u8]) -> Result<M, SnapshotError> {
        (self.functions()?.restore)(bytes)
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
        (self.functions()?.capture)(machine)()
    }

    /// Reads an encoding back and encodes what it finds: nothing may be lost by it.
    pub(crate) fn read_back(&self, bytes: &[u8]) -> Result<ReadBack, SnapshotError> {
        let again = || {
            let machine = self.restore(bytes).map_err(|error| (error.0, 0))?;
            self.encode(&machine).map(Vec::from).map_err(|error| (error.0, 0))
        };
        codec::compare(bytes, again).map_err(|differs| SnapshotError(differs.what))
    }

    fn functions(&self) -> Result<&Functions<M>, SnapshotError> {
        self.functions.as_ref().ok_or_else(|| SnapshotError::new("this machine has no snapshots"))
    }
}

fn encoded<M: Serialize + DeserializeOwned + 'static>(machine: &M) -> Result<Bytes, SnapshotError> {
    let mut bytes = Vec::new();
    Codec::of().write_marked(machine, &mut bytes).map_err(|error| SnapshotError(error.to_string()))?;
    Ok(bytes.into())
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
        assert_eq!(snapshots.read_back(&bytes), Ok(ReadBack::Equal), "a field that is left out is carried");

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
        assert_eq!(snapshots.migrate(1, &[0, 7]).unwrap().0, 70);
        assert!(snapshots.migrates_from(1) && !snapshots.migrates_from(0));
        assert!(snapshots.migrate(0, &[0, 7]).is_err());
    }
}
