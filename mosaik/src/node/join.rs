//! `--join`: one string, or a file that holds it, by which a node joins a network of an authority. It is a secret and is never
//! printed.

use std::ffi::OsStr;

use clap::{Arg, Command, builder::TypedValueParser, error::Result};

use super::{cli::flag, secret::refuse};
use crate::trust::Invitation;

/// The flag.
pub(super) fn join() -> Arg {
    flag(
        "join",
        "STRING|@FILE",
        "Join a network of an authority by this string of `mosaik invite`, or by the one in a file; with a data directory, \
         restarts need nothing",
    )
    .hide_env_values(true)
    .value_parser(JoinParser)
}

/// Reads an invitation.
#[derive(Clone)]
pub(super) struct JoinParser;

impl TypedValueParser for JoinParser {
    type Value = Invitation;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Invitation> {
        let refused = |why: String| refuse(command, arg, value, &why);
        let Some(text) = value.to_str() else { return Err(refused("this is not text".to_owned())) };
        let from_file = text.trim().strip_prefix('@').map(|file| {
            std::fs::read_to_string(file).map_err(|error| refused(format!("cannot read the file {file}: {error}")))
        });
        let text = from_file.transpose()?.unwrap_or_else(|| text.to_owned());
        text.parse().map_err(|error: crate::trust::JoinError| refused(error.to_string()))
    }
}
