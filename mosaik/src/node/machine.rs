//! Declared groups and machines: their declarations as constant data, the traits that the attributes implement, and where
//! a group's key comes from.

use std::{
    env::{self, VarError},
    ffi::OsString,
};

use super::{
    decl::Schema,
    states::{StatesDecl, TimeOuts},
};
use crate::groups::{GroupKey, GroupKeyError, MIN_GROUP_SECRET, StateMachine};

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
    /// The roles and grants of which a member's ticket needs one; with none, whoever has the key may be a member.
    pub member: &'static [&'static str],
    /// The same of who calls it without being a member.
    pub call: &'static [&'static str],
    /// Only roles that clear it are members of the group or call it.
    pub label: Option<&'static str>,
}

/// Where the key of a declared group comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDecl {
    /// The environment variable of this name, or the file that the one with `_FILE` behind it names.
    Env(&'static str),
    /// The file of this name.
    File(&'static str),
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
    /// Its states, if it declares them.
    pub states: Option<StatesDecl>,
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

    /// How its time-outs are asked for, if it has states with time-outs.
    #[doc(hidden)]
    #[must_use]
    fn time_outs() -> Option<TimeOuts<Self>> {
        None
    }

    /// The client of a group of this machine.
    fn client(handle: GroupHandle<Self>) -> Self::Client;
}

/// A group's key is not where its declaration says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The environment variable is not set, or empty, and neither is the one that names a file.
    #[error(
        "the environment variable {variable} is not set: it holds the key of the group \"{group}\", the same at all members, \
         or {variable}_FILE names the file with it"
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
         {MIN_GROUP_SECRET} bytes, best random ones, the same at all members"
    )]
    Weak {
        /// The group's name.
        group: &'static str,
        /// The variable.
        variable: &'static str,
        /// How many it holds, white space at its ends not counted.
        bytes: usize,
    },
    /// The file with the key cannot be used.
    #[error("the key of the group \"{group}\": {error}")]
    File {
        /// The group's name.
        group: &'static str,
        /// Which file, and what is wrong with it.
        error: GroupKeyError,
    },
}

/// Behind the name of a variable for a key: the variable that names a file with the key.
const FILE_SUFFIX: &str = "_FILE";

/// The key in an environment variable, or else in the file that the variable of that name with `_FILE` behind it names; without the
/// white space at its ends. What is set to nothing counts as not set.
///
/// # Errors
/// When neither is set, the key is not text or shorter than 16 bytes, or the file cannot be read.
pub fn key_from_env(group: &'static str, variable: &'static str) -> Result<GroupKey, KeyError> {
    let found = find_key(&env::var(variable), env::var_os(format!("{variable}{FILE_SUFFIX}")));
    match (found, made_up(variable)) {
        (Err(NoKey::Missing), Some(made_up)) => Ok(made_up),
        (found, _) => found.map_err(|why| why.of(group, variable)),
    }
}

/// The key in a file.
///
/// # Errors
/// As [`GroupKey::from_file`].
pub fn key_from_file(group: &'static str, path: &'static str) -> Result<GroupKey, KeyError> {
    GroupKey::from_file(path).map_err(|error| KeyError::File { group, error })
}

/// Why the environment gives no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    Missing,
    NotUnicode,
    /// It has so many bytes.
    Weak(usize),
    File(GroupKeyError),
}

impl NoKey {
    const fn of_variable(value: &VarError) -> Self {
        match value {
            VarError::NotPresent => Self::Missing,
            VarError::NotUnicode(_) => Self::NotUnicode,
        }
    }

    fn of(self, group: &'static str, variable: &'static str) -> KeyError {
        match self {
            Self::Missing => KeyError::Missing { group, variable },
            Self::NotUnicode => KeyError::NotUnicode { group, variable },
            Self::Weak(bytes) => KeyError::Weak { group, variable, bytes },
            Self::File(error) => KeyError::File { group, error },
        }
    }
}

/// The key in a variable's value, or in the file that another one names.
pub(super) fn find_key(value: &Result<String, VarError>, file: Option<OsString>) -> Result<GroupKey, NoKey> {
    match value.as_deref().map(str::trim) {
        Ok("") | Err(VarError::NotPresent) => match file.filter(|file| !file.is_empty()) {
            Some(file) => GroupKey::from_file(file).map_err(NoKey::File),
            None => Err(NoKey::Missing),
        },
        Ok(secret) => GroupKey::checked(secret).map_err(NoKey::Weak),
        Err(error) => Err(NoKey::of_variable(error)),
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
        let read = |value: &str| find_key(&Ok(value.to_owned()), None);
        let secret = "sixteen letters.";
        assert_eq!(read(secret), Ok(GroupKey::from_secret(secret)));
        assert_eq!(read(&format!("\t {secret} \r\n")), read(secret));
        assert_eq!(read(&format!(" {} \n", &secret[1..])), Err(NoKey::Weak(15)));
        assert_eq!(read(" \n"), Err(NoKey::Missing));
        let weak = NoKey::Weak(15).of("ledger", "LEDGER_KEY").to_string();
        assert!(weak.contains("LEDGER_KEY") && weak.contains("15 bytes"), "{weak}");
    }

    #[test]
    fn a_variable_comes_before_the_file_that_another_one_names() {
        let dir = tempfile::tempdir().expect("is made");
        let path = dir.path().join("ledger.key");
        std::fs::write(&path, "the key in the file\n").expect("is written");
        let (file, none) = (|| Some(path.clone().into_os_string()), || Err(VarError::NotPresent));
        let in_file = Ok(GroupKey::from_secret("the key in the file"));
        assert_eq!(find_key(&none(), file()), in_file);
        assert_eq!(find_key(&Ok(" ".into()), file()), in_file);
        let given = "the key of the variable";
        assert_eq!(find_key(&Ok(given.into()), file()), Ok(GroupKey::from_secret(given)));
        assert_eq!(find_key(&Ok("short".into()), file()), Err(NoKey::Weak(5)));
        assert_eq!(find_key(&none(), Some(OsString::new())), Err(NoKey::Missing));
        let missing =
            find_key(&none(), Some(dir.path().join("none").into_os_string())).map_err(|why| why.of("ledger", "K"));
        let missing = missing.expect_err("there is no such file").to_string();
        assert!(missing.contains("none") && missing.contains("\"ledger\""), "{missing}");
    }
}
