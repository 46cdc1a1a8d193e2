//! [`MachineId`]: which state machine a log and its snapshots are of. Only told and compared here; what it is made of comes
//! from the layer above.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::types::Digest;

/// Which state machine wrote a storage or a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineId {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// The fingerprint of its commands, outputs and state.
    pub schema: Option<Digest>,
    /// How its values are encoded; 0: each behind a byte that says it.
    pub codec: u8,
}

impl MachineId {
    /// Whether what the other one wrote can be read as this one's. A schema that one side does not have is not compared.
    #[must_use]
    pub fn reads(&self, other: &Self) -> bool {
        let schema = match (self.schema, other.schema) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        schema && self.name == other.name && self.version == other.version && self.codec == other.codec
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "machine {:?} version {}", self.name, self.version)?;
        match self.schema {
            Some(schema) => write!(f, " with schema {schema:?}")?,
            None => f.write_str(" without a schema")?,
        }
        if self.codec == 0 { Ok(()) } else { write!(f, " in codec {}", self.codec) }
    }
}
