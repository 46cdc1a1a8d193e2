//! Fixtures: the bytes of every message and record, so that none changes without a new version. They lie in `mosaik/fixtures`, a
//! file for each version of a format; the book lists them (`docs/src/protocols.md`).
//!
//! A new version: raise it in the code, remove the file of the old one, and run the tests with `MOSAIK_FIXTURES=write`, which
//! writes what is missing and never replaces anything.

use std::{
    any::type_name,
    fmt::{Debug, Write as _},
    fs,
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

pub(crate) use super::schema::samples;

/// The bytes of one version of a format.
pub(crate) struct Fixture {
    name: String,
    lines: String,
}

impl Fixture {
    /// Of the format and version, such as `sync/2`.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), lines: String::new() }
    }

    /// Adds bytes of ours.
    pub(crate) fn bytes(mut self, what: &str, bytes: impl AsRef<[u8]>) -> Self {
        let _ = write!(self.lines, "{what} ");
        for byte in bytes.as_ref() {
            let _ = write!(self.lines, "{byte:02x}");
        }
        self.lines.push('\n');
        self
    }

    /// Adds samples in which every variant of every enum of the type occurs.
    pub(crate) fn each<T: DeserializeOwned + Debug>(self, mut encode: impl FnMut(&T) -> Vec<u8>) -> Self {
        let samples = samples::<T>();
        assert!(!samples.is_empty(), "no {} can be made up", type_name::<T>());
        samples.iter().fold(self, |fixture, sample| {
            let debug = format!("{sample:?}");
            let end = debug.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(debug.len());
            fixture.bytes(&debug[..end], encode(sample))
        })
    }

    /// As [`each`](Self::each), as the messages of links and most records are encoded.
    pub(crate) fn postcard<T: Serialize + DeserializeOwned + Debug>(self) -> Self {
        self.each(|sample: &T| postcard::to_allocvec(sample).expect("encodes"))
    }

    /// The same of a type that does not show itself.
    pub(crate) fn hidden<T: Serialize + DeserializeOwned>(self, what: &str) -> Self {
        let samples = samples::<T>();
        assert!(!samples.is_empty(), "no {} can be made up", type_name::<T>());
        let encoded = |sample| postcard::to_allocvec(sample).expect("encodes");
        samples.iter().fold(self, |fixture, sample| fixture.bytes(what, encoded(sample)))
    }

    /// Compares all of it with what was kept.
    pub(crate) fn check(self) {
        let Self { name, lines } = self;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name.replace('/', "-") + ".txt");
        match fs::read_to_string(&path) {
            Ok(kept) => {
                let differs = kept.lines().zip(lines.lines()).find(|(kept, now)| kept != now);
                let at = differs.map_or_else(|| "their number".to_owned(), |(kept, now)| format!("\n{kept}\n{now}"));
                assert!(kept == lines, "the bytes of {name} have changed: raise its version, see {}; {at}", file!());
            }
            Err(_) if std::env::var_os("MOSAIK_FIXTURES").is_some_and(|it| it == "write") => {
                fs::write(&path, lines).expect("the fixture is written");
            }
            Err(error) => panic!("{}: {error}; see {}", path.display(), file!()),
        }
    }
}
