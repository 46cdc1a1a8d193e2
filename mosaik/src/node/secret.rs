//! `--secret` and `--network-key`: a key or the file that holds it. What looks like a key and is not quite one is refused rather than taken for
//! the name of a file that is then made with another key; and it is not printed, as it may be a key all the same.

use std::{ffi::OsStr, path::PathBuf};

use clap::{
    Arg, Command, Error,
    builder::TypedValueParser,
    error::{ErrorKind, Result},
};
use iroh::SecretKey;

use super::cli::flag;
use crate::{
    network::{SecretError, load_or_create_secret},
    primitives::parse_hex,
};

/// A key has this many hex digits.
const DIGITS: usize = 64;

/// The flag.
pub(super) fn secret() -> Arg {
    flag(
        "secret",
        "HEX|FILE",
        "The node's secret key: 64 hex digits, or a file that holds them and is created if missing \
         [default: kept in the data directory, else a fresh one]",
    )
    .hide_env_values(true)
    .value_parser(SecretParser)
}

/// A secret key as it was given.
#[derive(Clone, Debug)]
pub(super) enum Secret {
    Key(SecretKey),
    File(PathBuf),
}

impl Secret {
    /// Reads what was given. The error says what is wrong without its content.
    fn parse(text: &str) -> Result<Self, String> {
        let bare = text.trim();
        if let Some(bytes) = parse_hex(bare) {
            return Ok(Self::Key(SecretKey::from_bytes(&bytes)));
        }
        if bare.is_empty() {
            return Err(format!("a secret key has {DIGITS} hex digits, or else is in a file: this is nothing"));
        }
        if !looks_like_a_key(bare) {
            return Ok(Self::File(text.into()));
        }
        let digits = bare.chars().filter(char::is_ascii_hexdigit).count();
        let others = bare.chars().count() - digits;
        Err(format!(
            "a secret key has {DIGITS} hex digits, this has {digits} and {others} other characters; a file of such a name is \
             given with its directory, as in ./NAME"
        ))
    }

    pub(super) fn load(&self) -> Result<SecretKey, SecretError> {
        match self {
            Self::Key(key) => Ok(key.clone()),
            Self::File(path) => load_or_create_secret(path),
        }
    }
}

/// Half as long as a key or longer, and of hex digits but for a few slips: a digit too few, a letter O, a 0x, colons between
/// bytes. With a directory or an extension it is a path.
fn looks_like_a_key(text: &str) -> bool {
    let bare: Vec<_> = text.chars().filter(|c| *c != ':' && !c.is_whitespace()).collect();
    let digits = bare.iter().filter(|c| c.is_ascii_hexdigit()).count();
    bare.len() >= DIGITS / 2 && digits * 10 >= bare.len() * 9 && !text.contains(['/', '\\', '.'])
}

/// `--network-key`: the file of a network's key. A key in its place is refused, and not printed.
pub(super) fn network_key() -> Arg {
    flag(
        "network-key",
        "FILE",
        "The file with the key of a secret network, the same at all members: 64 hex digits [default: an open network]",
    )
    .value_parser(KeyFileParser)
}

/// The name of a file that holds a key.
#[derive(Clone)]
pub(super) struct KeyFileParser;

impl TypedValueParser for KeyFileParser {
    type Value = PathBuf;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<PathBuf> {
        let bare = value.to_str().map_or("a file", str::trim);
        if bare.is_empty() {
            return Err(refuse(command, arg, value, "the name of a file is expected, this is nothing"));
        }
        if looks_like_a_key(bare) {
            let why = "this looks like a key; the name of the file that holds it is expected, as in ./NAME";
            return Err(refuse(command, arg, value, why));
        }
        Ok(value.into())
    }
}

/// An error that does not show the value.
pub(super) fn refuse(command: &Command, arg: Option<&Arg>, value: &OsStr, why: &str) -> Error {
    let what = arg.map(ToString::to_string).unwrap_or_default();
    let variable = arg.and_then(Arg::get_env).filter(|name| std::env::var_os(name).as_deref() == Some(value));
    let from = variable.map(|name| format!(" (the environment variable {})", name.display())).unwrap_or_default();
    let mut command = command.clone();
    Error::raw(ErrorKind::ValueValidation, format!("{what}{from}: {why}\n")).format(&mut command)
}

/// clap's own parsers print the value that they refuse.
#[derive(Clone)]
pub(super) struct SecretParser;

impl TypedValueParser for SecretParser {
    type Value = Secret;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Secret> {
        let Some(text) = value.to_str() else { return Ok(Secret::File(value.into())) };
        Secret::parse(text).map_err(|why| refuse(command, arg, value, &why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_from_a_file() {
        let key = "0123456789abcdef".repeat(4);
        assert!(matches!(Secret::parse(&format!(" {key}\n")), Ok(Secret::Key(_))));
        assert!(matches!(Secret::parse(&key.to_uppercase()), Ok(Secret::Key(_))));
        for wrong in ["", " ", &key[1..], &key[..32], &format!("{key}00"), &format!("0x{key}"), &key.replace('0', "O")]
        {
            let error = Secret::parse(wrong).expect_err(wrong);
            assert!(error.contains("64 hex digits") && (wrong.len() < 8 || !error.contains(&wrong[..8])), "{error}");
        }
        let uuid = "123e4567-e89b-12d3-a456-426614174000";
        for file in
            ["key", "cafe", "node.key", &format!("./{}", &key[1..]), &format!("{key}.key"), uuid, "/run/secrets/key"]
        {
            assert!(matches!(Secret::parse(file), Ok(Secret::File(path)) if path.as_os_str() == file), "{file}");
        }
    }
}
