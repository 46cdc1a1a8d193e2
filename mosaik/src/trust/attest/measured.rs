//! [`Measurements`]: what may run in an environment, by name. Written down in a file, such as `measurements.toml`:
//!
//! ```toml
//! [builder-3]
//! mrtd = "5b3c.."
//! rtmr1 = "00ff.."
//! ```

use std::{collections::BTreeMap, fs, path::Path};

use data_encoding::HEXLOWER_PERMISSIVE;
use toml::{Table, Value};

use super::AttestError;
use crate::trust::MAX_GRANT_NAME;

/// What comes before a name in the grant that it becomes.
pub(super) const MEASURED: &str = "measured:";
/// The most names in one file.
const MAX_NAMES: usize = 256;
/// The longest file in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Keys of such a file that are no names.
pub(super) const OF_POLICY: [&str; 2] = ["status", "grace_days"];
/// How many bytes of a register are told.
const TOLD: usize = 16;

/// Measurements that are accepted, each with a name. Evidence whose registers have all the values of one becomes the grant `measured:`
/// and its name; registers that are not named may have any value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measurements(BTreeMap<String, BTreeMap<String, Vec<u8>>>);

/// A file with measurements cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MeasurementsError {
    /// It cannot be read.
    #[error("cannot read the measurements in {file}: {error}")]
    Read {
        /// The file.
        file: String,
        /// Why not.
        error: String,
    },
    /// It is not what it should be.
    #[error("measurements: {why}")]
    Malformed {
        /// What is wrong, and where.
        why: String,
    },
    /// A file is not what it should be.
    #[error("{file}: {why}")]
    InFile {
        /// The file.
        file: String,
        /// What is wrong, and where.
        why: String,
    },
}

impl MeasurementsError {
    /// The same of what stands in a file.
    pub(super) fn of(self, file: &Path) -> Self {
        match self {
            Self::Malformed { why } => Self::InFile { file: file.display().to_string(), why },
            other => other,
        }
    }
}

/// The text of a file of at most 1 MiB.
pub(super) fn text_of(file: &Path) -> Result<String, MeasurementsError> {
    let failed = |error: &dyn std::fmt::Display| MeasurementsError::Read {
        file: file.display().to_string(),
        error: error.to_string(),
    };
    if fs::metadata(file).map_err(|error| failed(&error))?.len() > MAX_FILE {
        return Err(failed(&"it is longer than 1 MiB"));
    }
    fs::read_to_string(file).map_err(|error| failed(&error))
}

/// What stands in a file, before anything is made of it.
pub(super) fn table(text: &str) -> Result<Table, MeasurementsError> {
    toml::from_str(text).map_err(|error| malformed(error.to_string()))
}

pub(super) fn malformed(why: impl Into<String>) -> MeasurementsError {
    MeasurementsError::Malformed { why: why.into() }
}

impl Measurements {
    /// Reads a file of at most 1 MiB.
    ///
    /// # Errors
    /// When it cannot be read, or as [`parse`](Self::parse).
    pub fn from_file(file: impl AsRef<Path>) -> Result<Self, MeasurementsError> {
        let file = file.as_ref();
        Self::parse(&text_of(file)?).map_err(|error| error.of(file))
    }

    /// Reads what stands in such a file.
    ///
    /// # Errors
    /// When it is no table of names, a name is no part of a grant, a value is no hex, or a name has no register. Also when there is
    /// something of a [`Policy`](super::Policy) in it, which reads such a file whole.
    pub fn parse(text: &str) -> Result<Self, MeasurementsError> {
        let table = table(text)?;
        match OF_POLICY.iter().find(|key| table.contains_key(**key)) {
            Some(key) => Err(malformed(format!("`{key}` is part of a policy: read it with `Policy::from_file`"))),
            None => Self::named(table),
        }
    }

    /// Of a table of names alone.
    pub(super) fn named(table: Table) -> Result<Self, MeasurementsError> {
        if table.len() > MAX_NAMES {
            return Err(malformed(format!("{} names, at most {MAX_NAMES} are read", table.len())));
        }
        let mut all = Self::default();
        for (name, registers) in table {
            let Value::Table(registers) = registers else {
                return Err(malformed(format!("`{name}` is not a table of registers, as in [{name}]")));
            };
            let mut read = Vec::new();
            for (register, hex) in registers {
                let value = hex.as_str().and_then(|hex| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok());
                let value = value.ok_or_else(|| malformed(format!("{name}.{register} is not in hex")))?;
                read.push((register, value));
            }
            all = all.with(&name, read)?;
        }
        Ok(all)
    }

    /// The registers of the measurement of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
        self.0.get(name)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more.
    ///
    /// # Errors
    /// When the name is empty, has a comma or white space at its ends, or is longer than 55 bytes, or there is no register.
    pub fn with(
        mut self,
        name: &str,
        registers: impl IntoIterator<Item = (impl Into<String>, impl Into<Vec<u8>>)>,
    ) -> Result<Self, MeasurementsError> {
        if name.is_empty() || name.trim() != name || name.contains(',') || MEASURED.len() + name.len() > MAX_GRANT_NAME
        {
            let max = MAX_GRANT_NAME - MEASURED.len();
            let why = format!("{name:?} is no name: 1 to {max} bytes, no comma, no white space at its ends");
            return Err(malformed(why));
        }
        let registers: BTreeMap<String, Vec<u8>> =
            registers.into_iter().map(|(register, value)| (register.into(), value.into())).collect();
        if registers.is_empty() {
            return Err(malformed(format!("{name} names no register, so that it would be anything")));
        }
        self.0.insert(name.to_owned(), registers);
        Ok(self)
    }

    /// The names of all that fit; none are asked for when there are none.
    pub(super) fn fitting(&self, registers: &BTreeMap<String, Vec<u8>>) -> Result<Vec<&str>, AttestError> {
        let differs = |wanted: &BTreeMap<String, Vec<u8>>| {
            let others = wanted.iter().filter(|(register, value)| registers.get(*register) != Some(value));
            others.map(|(register, _)| register.clone()).collect::<Vec<_>>()
        };
        let fitting: Vec<_> =
            self.0.iter().filter(|(_, wanted)| differs(wanted).is_empty()).map(|(name, _)| name.as_str()).collect();
        let nearest = self.0.values().map(differs).min_by_key(Vec::len).and_then(|differs| differs.into_iter().next());
        match nearest.filter(|_| fitting.is_empty()) {
            None => Ok(fitting),
            Some(register) => Err(AttestError::Measurement { theirs: told(registers.get(&register)), register }),
        }
    }
}

fn told(value: Option<&Vec<u8>>) -> String {
    let Some(value) = value else { return String::from("missing") };
    let shown = HEXLOWER_PERMISSIVE.encode(value.get(..TOLD).unwrap_or(value));
    if value.len() > TOLD { shown + ".." } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(mrtd: u8) -> BTreeMap<String, Vec<u8>> {
        [("mrtd".to_owned(), vec![mrtd; 48]), ("rtmr0".to_owned(), vec![7; 48])].into()
    }

    #[test]
    fn what_fits_is_named_and_what_does_not_says_which_register() {
        let text =
            format!("[three]\nmrtd = \"{}\"\n[four]\nmrtd = \"{}\"\nrtmr0 = \"00\"", "03".repeat(48), "04".repeat(48));
        let known = Measurements::parse(&text).expect("is in order");
        assert_eq!(known.fitting(&registers(3)), Ok(vec!["three"]));
        let wrong = known.fitting(&registers(5));
        assert_eq!(wrong, Err(AttestError::Measurement { register: "mrtd".into(), theirs: "05".repeat(16) + ".." }));
        let mut off = registers(3);
        if let Some(byte) = off.get_mut("mrtd").and_then(|value| value.last_mut()) {
            *byte ^= 1;
        }
        assert!(known.fitting(&off).is_err(), "one bit");
        assert_eq!(Measurements::default().fitting(&registers(1)), Ok(vec![]));
        assert!(
            matches!(known.fitting(&BTreeMap::new()), Err(AttestError::Measurement { theirs, .. }) if theirs == "missing")
        );
    }

    #[test]
    fn a_file_says_what_is_wrong_with_it() {
        for (text, says) in [
            ("x = 5", "is not a table of registers"),
            ("[a]\nmrtd = \"xyz\"", "a.mrtd is not in hex"),
            ("[a]", "names no register"),
            ("[\" a\"]\nmrtd = \"00\"", "is no name"),
            ("[\"a,b\"]\nmrtd = \"00\"", "is no name"),
        ] {
            let error = Measurements::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{error}");
        }
        let missing = Measurements::from_file("/no/such/file.toml").expect_err("is not there").to_string();
        assert!(missing.contains("/no/such/file.toml"), "{missing}");
    }
}
