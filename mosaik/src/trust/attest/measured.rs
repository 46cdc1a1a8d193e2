//! [`Measurements`]: what may run in an environment, by name. Written down in a file, such as `measurements.toml`:
//!
//! ```toml
//! [builder-3]
//! mrtd = "5b3c.."
//! rtmr1 = "00ff.."
//! ```

use std::{collections::BTreeMap, fs, path::Path};

use data_encoding::HEXLOWER_PERMISSIVE;

use super::AttestError;
use crate::trust::MAX_GRANT_NAME;

/// What comes before a name in the grant that it becomes.
pub(super) const MEASURED: &str = "measured:";
/// The most names in one file.
const MAX_NAMES: usize = 256;
/// The longest file in bytes.
const MAX_FILE: u64 = 1 << 20;
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
}

impl Measurements {
    /// Reads a file of at most 1 MiB.
    ///
    /// # Errors
    /// When it cannot be read, or as [`parse`](Self::parse).
    pub fn from_file(file: impl AsRef<Path>) -> Result<Self, MeasurementsError> {
        let file = file.as_ref();
        let failed = |error: &dyn std::fmt::Display| MeasurementsError::Read {
            file: file.display().to_string(),
            error: error.to_string(),
        };
        if fs::metadata(file).map_err(|error| failed(&error))?.len() > MAX_FILE {
            return Err(failed(&"it is longer than 1 MiB"));
        }
        Self::parse(&fs::read_to_string(file).map_err(|error| failed(&error))?)
    }

    /// Reads what stands in such a file.
    ///
    /// # Errors
    /// When it is no table of names, a name is no part of a grant, a value is no hex, or a name has no register.
    pub fn parse(text: &str) -> Result<Self, MeasurementsError> {
        let malformed = |why: String| MeasurementsError::Malformed { why };
        let table: BTreeMap<String, BTreeMap<String, String>> =
            toml::from_str(text).map_err(|error| malformed(error.to_string()))?;
        if table.len() > MAX_NAMES {
            return Err(malformed(format!("{} names, at most {MAX_NAMES} are read", table.len())));
        }
        let mut all = Self::default();
        for (name, registers) in table {
            let mut read = Vec::new();
            for (register, hex) in registers {
                let value = HEXLOWER_PERMISSIVE.decode(hex.as_bytes());
                let value = value.map_err(|_| malformed(format!("{name}.{register} is not in hex")))?;
                read.push((register, value));
            }
            all = all.with(&name, read)?;
        }
        Ok(all)
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
        let malformed = |why: String| Err(MeasurementsError::Malformed { why });
        if name.is_empty() || name.trim() != name || name.contains(',') || MEASURED.len() + name.len() > MAX_GRANT_NAME
        {
            let max = MAX_GRANT_NAME - MEASURED.len();
            return malformed(format!("{name:?} is no name: 1 to {max} bytes, no comma, no white space at its ends"));
        }
        let registers: BTreeMap<String, Vec<u8>> =
            registers.into_iter().map(|(register, value)| (register.into(), value.into())).collect();
        if registers.is_empty() {
            return malformed(format!("{name} names no register, so that it would be anything"));
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
            ("x = 5", "invalid type"),
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
