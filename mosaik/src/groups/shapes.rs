//! [`Shapes`]: the types that members of a group exchange and keep, to be compared when two of them meet, and beside a storage.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::machine::StateMachine;
use crate::primitives::{Schema, codec::Codec, private};

/// The file beside a storage. It names differences and decides nothing: without it they are told without their place.
const FILE: &str = "shapes";
/// Bytes of the shapes beyond which only their fingerprint is told.
const MAX_TOLD: usize = 24 << 10;

/// The types of commands, outputs and state of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shapes {
    pub(crate) fingerprint: [u8; 32],
    /// To name a difference, unless they are too large.
    parts: Option<Parts>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Parts {
    commands: Schema,
    outputs: Schema,
    /// If serde encodes it.
    state: Option<Schema>,
}

impl Shapes {
    pub(crate) fn of<M: StateMachine>() -> Self {
        let (commands, outputs) = (Codec::<M::Command>::of(), Codec::<M::Output>::of());
        let state = M::snapshots().shape();
        let mut hasher = blake3::Hasher::new_derive_key("mosaik 1 schema of a machine");
        hasher.update(&commands.fingerprint(M::SCHEMA));
        hasher.update(&outputs.fingerprint(M::SCHEMA));
        hasher.update(&state.map(|(fingerprint, _)| fingerprint).unwrap_or_default());
        let state = state.map(|(_, schema)| schema.clone());
        let parts = Parts { commands: commands.schema().clone(), outputs: outputs.schema().clone(), state };
        let size = postcard::experimental::serialized_size(&parts).unwrap_or(usize::MAX);
        Self { fingerprint: *hasher.finalize().as_bytes(), parts: (size <= MAX_TOLD).then_some(parts) }
    }

    /// What this side and the other one have at the first place where they differ.
    pub(crate) fn difference(&self, theirs: &Self) -> Option<(String, String)> {
        if self.fingerprint == theirs.fingerprint {
            return None;
        }
        let parts = self.parts.as_ref().zip(theirs.parts.as_ref());
        let differs = parts.and_then(|(ours, theirs)| ours.difference(theirs));
        let short = |shapes: &Self| blake3::Hash::from_bytes(shapes.fingerprint).to_hex()[..8].to_owned();
        Some(differs.unwrap_or_else(|| (short(self), short(theirs))))
    }

    /// Those of the program that wrote a storage, if it left them there.
    pub(super) fn kept(dir: &Path) -> Option<Self> {
        postcard::from_bytes(&fs::read(dir.join(FILE)).ok()?).ok()
    }

    /// Leaves them beside a storage. Blocking. The storage is as good without them, so a failure is a warning.
    pub(super) fn keep_beside(&self, dir: &Path) {
        if let Err(error) = self.keep(dir) {
            tracing::warn!(dir = %dir.display(), %error, "the shapes of a machine are not kept beside its storage");
        }
    }

    fn keep(&self, dir: &Path) -> io::Result<()> {
        private::replace(&dir.join(FILE), &postcard::to_allocvec(self).map_err(io::Error::other)?)
    }
}

impl Parts {
    fn difference(&self, theirs: &Self) -> Option<(String, String)> {
        let states = self.state.as_ref().zip(theirs.state.as_ref());
        let pairs =
            [("command", Some((&self.commands, &theirs.commands))), ("output", Some((&self.outputs, &theirs.outputs)))];
        let mut pairs = pairs.into_iter().chain([("state", states)]);
        pairs.find_map(|(part, pair)| {
            let (ours, theirs) = pair?;
            let differs = theirs.is_sound().then(|| ours.difference(theirs))??;
            let path = |has: String| format!("{part} {}: {has}", differs.path);
            Some((path(differs.ours.clone()), path(differs.theirs.clone())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::{ApplyContext, Snapshots};

    #[derive(Clone, Default, Serialize, Deserialize)]
    struct Sum<T>(T);

    impl<T: crate::primitives::Datum + Clone + Default + Sync> StateMachine for Sum<T> {
        type Command = (u8, T);
        type Output = u8;
        type Query = ();
        type QueryResult = ();
        const NAME: &'static str = "sum";

        fn apply(&mut self, (_, by): (u8, T), _: &ApplyContext) -> u8 {
            self.0 = by;
            0
        }

        fn query(&self, (): ()) {}

        fn snapshots() -> Snapshots<Self> {
            Snapshots::serde()
        }
    }

    #[test]
    fn a_difference_is_told_with_its_path() {
        let (one, other) = (Shapes::of::<Sum<u64>>(), Shapes::of::<Sum<String>>());
        assert_eq!(one.difference(&one), None);
        let told = |path: &str| "command value.1: ".to_owned() + path;
        assert_eq!(one.difference(&other), Some((told("u64"), told("String"))));
        let untold = Shapes { parts: None, ..other };
        let (ours, theirs) = one.difference(&untold).unwrap();
        assert_eq!((ours.len(), theirs.len()), (8, 8), "fingerprints");
        assert_ne!(ours, theirs);
    }
}
