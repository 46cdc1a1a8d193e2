//! Declared groups and machines: their declarations as constant data, the traits that the attributes implement, and where
//! a group's key comes from.

use std::env::{self, VarError};

use super::decl::Schema;
use crate::groups::{GroupKey, StateMachine};

use super::replica::GroupHandle;

/// A declared group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupDecl {
    /// The machine's name: with the key, the group's identity.
    pub name: &'static str,
    /// The identifier of the machine's Rust type.
    pub ty: &'static str,
    /// The type's doc comment.
    pub doc: &'static str,
    /// Where the key comes from.
    pub key: KeyDecl,
    /// How many members must agree before the group exists; nothing when a lone member may found it.
    pub size: Option<u32>,
}

/// Where the key of a declared group comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDecl {
    /// The environment variable of this name.
    Env(&'static str),
    /// A text in the program.
    Secret,
    /// An expression in the program.
    Value,
}

/// A command or a query of a declared machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodDecl {
    /// The method's name.
    pub name: &'static str,
    /// Its doc comment.
    pub doc: &'static str,
}

/// A declared machine with its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineDecl {
    /// The group.
    pub group: GroupDecl,
    /// The version that was declared.
    pub version: u32,
    /// The fingerprint of its commands and what they give back.
    pub schema: Option<[u8; 32]>,
    /// Its commands, in order; none for a machine over a command type of its own.
    pub commands: &'static [MethodDecl],
    /// Its queries, in order; none for a machine over a query type of its own.
    pub queries: &'static [MethodDecl],
}

impl MachineDecl {
    /// The fingerprint of its commands for people.
    #[must_use]
    pub fn fingerprint(&self) -> Option<String> {
        self.schema.map(|schema| Schema::from_bytes(schema).to_string())
    }
}

/// A struct declared as what a group replicates; implemented by `#[mosaik::group]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not declared as a group",
    label = "its struct lacks `#[mosaik::group]`",
    note = "put `#[mosaik::group(key = env(\"VARIABLE\"))]` on `struct {Self}`"
)]
pub trait GroupType: Sized {
    /// The declaration.
    const GROUP: GroupDecl;

    /// The group's key.
    ///
    /// # Errors
    /// When the environment does not have it.
    fn key() -> Result<GroupKey, KeyError>;

    /// The machine that a member begins with.
    fn initial() -> Self;
}

/// A machine that is declared with its group; implemented by `#[mosaik::state_machine]` and `#[derive(StateMachine)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a declared state machine",
    label = "not a machine that a `Replica` or a `Client` can hold",
    note = "a machine has `#[mosaik::group]` on its struct and `#[mosaik::state_machine]` on its inherent impl"
)]
pub trait Declared: StateMachine {
    /// Calls its commands and queries; what a `Replica` derefs to.
    type Client: Clone + Send + Sync + 'static;

    /// The declaration.
    const MACHINE: MachineDecl;

    /// The group's key.
    ///
    /// # Errors
    /// When the environment does not have it.
    fn key() -> Result<GroupKey, KeyError>;

    /// The machine that a member begins with.
    fn initial() -> Self;

    /// The client of a group of this machine.
    fn client(handle: GroupHandle<Self>) -> Self::Client;
}

/// A group's key is not where its declaration says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The environment variable is not set, or empty.
    #[error(
        "the environment variable {variable} is not set: it holds the key of the group \"{group}\", the same at all members"
    )]
    Missing {
        /// The group's name.
        group: &'static str,
        /// The variable.
        variable: &'static str,
    },
    /// The environment variable is not UTF-8.
    #[error("the environment variable {variable}, the key of the group \"{group}\", is not UTF-8")]
    NotUnicode {
        /// The group's name.
        group: &'static str,
        /// The variable.
        variable: &'static str,
    },
    /// The key in the environment variable is so short that it can be guessed.
    #[error(
        "the environment variable {variable}, the key of the group \"{group}\", holds {bytes} bytes: a key has at least \
         {MIN_SECRET} bytes, best random ones, the same at all members"
    )]
    Weak {
        /// The group's name.
        group: &'static str,
        /// The variable.
        variable: &'static str,
        /// How many it holds, white space at its ends not counted.
        bytes: usize,
    },
}

/// What a key from the environment has at least, in bytes.
const MIN_SECRET: usize = 16;

/// The key in an environment variable, without the white space at its ends. One that is set to nothing counts as not set.
///
/// # Errors
/// When it is not set, not text, or shorter than 16 bytes.
pub fn key_from_env(group: &'static str, variable: &'static str) -> Result<GroupKey, KeyError> {
    match (key(group, variable, &env::var(variable)), made_up(variable)) {
        (Err(KeyError::Missing { .. }), Some(made_up)) => Ok(made_up),
        (read, _) => read,
    }
}

/// Variables whose keys tests make up.
#[cfg(feature = "testing")]
static MADE_UP: std::sync::Mutex<std::collections::BTreeSet<&'static str>> =
    std::sync::Mutex::new(std::collections::BTreeSet::new());

/// From here on, a key that the environment variable should hold and does not follows from the variable's name.
#[cfg(feature = "testing")]
pub(crate) fn test_key(variable: &'static str) {
    MADE_UP.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(variable);
}

#[cfg(feature = "testing")]
fn made_up(variable: &'static str) -> Option<GroupKey> {
    let known = MADE_UP.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(variable);
    known.then(|| GroupKey::from_secret(format!("a key for tests in the place of {variable}")))
}

#[cfg(not(feature = "testing"))]
const fn made_up(_: &'static str) -> Option<GroupKey> {
    None
}

fn key(group: &'static str, variable: &'static str, value: &Result<String, VarError>) -> Result<GroupKey, KeyError> {
    match value.as_deref().map(str::trim) {
        Ok("") | Err(VarError::NotPresent) => Err(KeyError::Missing { group, variable }),
        Ok(secret) if secret.len() < MIN_SECRET => Err(KeyError::Weak { group, variable, bytes: secret.len() }),
        Ok(secret) => Ok(GroupKey::from_secret(secret)),
        Err(VarError::NotUnicode(_)) => Err(KeyError::NotUnicode { group, variable }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_names_the_variable_and_the_group() {
        let error = key_from_env("ledger", "MOSAIK_TEST_NO_SUCH_KEY").expect_err("is not set").to_string();
        assert!(error.contains("MOSAIK_TEST_NO_SUCH_KEY") && error.contains("\"ledger\""), "{error}");
    }

    #[test]
    fn a_key_is_trimmed_and_long_enough() {
        let read = |value: &str| key("ledger", "LEDGER_KEY", &Ok(value.to_owned()));
        let secret = "sixteen letters.";
        assert_eq!(read(secret), Ok(GroupKey::from_secret(secret)));
        assert_eq!(read(&format!("\t {secret} \r\n")), read(secret));
        let weak = KeyError::Weak { group: "ledger", variable: "LEDGER_KEY", bytes: 15 };
        assert_eq!(read(&format!(" {} \n", &secret[1..])), Err(weak));
        let missing = KeyError::Missing { group: "ledger", variable: "LEDGER_KEY" };
        assert_eq!(read(" \n"), Err(missing));
    }
}
