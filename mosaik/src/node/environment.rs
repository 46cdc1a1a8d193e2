//! Flags as environment variables: `--data-dir` is `MOSAIK_DATA_DIR`, and the flag `--id` of the role `sensor` is
//! `MOSAIK_SENSOR_ID`, or else `MOSAIK_ID`. A variable that is set to nothing counts as not set. What is wrong with a value
//! is said with the variable that it comes from: orchestrators set variables that nobody has written.

use std::ffi::OsString;

use clap::{
    Arg, ArgMatches, Command, Error,
    error::{ContextKind, ContextValue},
};

use super::{
    config::{Config, ConfigError},
    output,
    process::{LAST_WORDS, say},
};

/// The exit status of a wrong command line, as clap has it.
const USAGE: i32 = 2;

/// Gives a flag its environment variable.
pub(super) fn with_env(arg: Arg, flag: &str) -> Arg {
    let name = name(flag);
    if is_empty(&name) { arg } else { arg.env(name) }
}

/// Gives a flag of a role the variable of its own, and without that the one that all roles with such a flag share. `taken`
/// are variables that mean something else.
pub(super) fn with_role_env(arg: Arg, role: &str, flag: &str, help: &str, taken: &[String]) -> Arg {
    let (own, shared) = (name(&format!("{role}-{flag}")), name(flag));
    if taken.contains(&own) {
        return with_env(arg, flag);
    }
    let separator = if help.is_empty() { "" } else { " " };
    let arg = arg.hide_env(true).help(format!("{help}{separator}[env: {shared}, or before it {own}]"));
    if is_set(&own) {
        arg.env(own)
    } else if is_set(&shared) {
        arg.env(shared)
    } else {
        arg
    }
}

/// The variable of a flag.
pub(super) fn name(flag: &str) -> String {
    let name: String =
        flag.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("MOSAIK_{name}")
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn is_empty(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value.is_empty())
}

/// Reads the command line of this process; a wrong one ends it with status 2, help and version with 0. Only the operator's
/// command has no file of flags.
#[cfg(feature = "cli")]
pub(super) fn read(command: Command) -> ArgMatches {
    let args = std::env::args_os().collect::<Vec<_>>();
    read_from(command, &args, &Config::default()).unwrap_or_else(|error| error.exit())
}

/// The same over the file that the command line names.
pub(super) fn read_with_file(command: impl FnOnce(&Config) -> Result<Command, ConfigError>) -> (ArgMatches, Config) {
    let args = std::env::args_os().collect::<Vec<_>>();
    let read = Config::named(&args).and_then(|config| Ok((command(&config)?, config)));
    let (command, config) = read.unwrap_or_else(|error| {
        say(format_args!("error: {error}"));
        output::flush(LAST_WORDS);
        std::process::exit(USAGE)
    });
    (read_from(command, &args, &config).unwrap_or_else(|error| error.exit()), config)
}

/// The same of these arguments.
pub(super) fn read_from(command: Command, args: &[OsString], config: &Config) -> Result<ArgMatches, Error> {
    let flags = all_flags(&command);
    command.try_get_matches_from(args).map_err(|mut error| {
        if let Some(tip) = tip(&error, &flags, args, config) {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
        error
    })
}

/// A flag that has a variable.
struct Flag {
    long: String,
    variable: String,
    /// The variable that goes before it, if that is another.
    own: Option<String>,
}

/// The flags of a command and its subcommands.
fn all_flags(command: &Command) -> Vec<Flag> {
    let of = |arg: &Arg| {
        let (long, variable) = (arg.get_long()?.to_owned(), arg.get_env()?.to_str()?.to_owned());
        // Only flags of roles show their variables themselves, and their command is named like the role.
        let own = arg.is_hide_env_set().then(|| name(&format!("{}-{long}", command.get_name())));
        Some(Flag { own: own.filter(|own| *own != variable), long, variable })
    };
    let mut flags: Vec<_> = command.get_arguments().filter_map(of).collect();
    flags.extend(command.get_subcommands().flat_map(all_flags));
    flags
}

/// What to say about a value that is wrong and not on the command line.
fn tip(error: &Error, flags: &[Flag], args: &[OsString], config: &Config) -> Option<String> {
    let text = |kind| match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        _ => None,
    };
    let (arg, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let long = arg.strip_prefix("--")?.split([' ', '=']).next()?;
    if on_command_line(args, long) {
        return None;
    }
    let holds = |flag: &&Flag| {
        let content = std::env::var(&flag.variable).unwrap_or_default();
        flag.long == long && (content == *value || content.split(',').any(|part| part == value))
    };
    flags.iter().find(holds).map(Flag::tip).or_else(|| {
        let role = args.iter().skip_while(|arg| *arg != "run" && *arg != "config").nth(1);
        let (role, flag) =
            long.split_once('.').unwrap_or((role.and_then(|role| role.to_str()).unwrap_or_default(), long));
        config.origin(role, flag).map(|origin| format!("the value is that of {origin}"))
    })
}

fn on_command_line(args: &[OsString], long: &str) -> bool {
    args.iter().any(|arg| {
        let rest = arg.to_str().and_then(|arg| arg.strip_prefix("--")?.strip_prefix(long));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

impl Flag {
    /// Where a value comes from, and how to get rid of it.
    fn tip(&self) -> String {
        let Self { long, variable, own } = self;
        let own = own.as_ref().map(|own| format!(" or {own}")).unwrap_or_default();
        format!(
            "the value is that of the environment variable {variable}, which an orchestrator may have set: give --{long}{own}, \
             or set {variable} to nothing"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_told_from_longer_ones() {
        let args: Vec<OsString> = ["app", "--id", "3", "--port=4", "--listener", "x"].map(OsString::from).to_vec();
        let given = |long| on_command_line(&args, long);
        assert!(given("id") && given("port") && given("listener"));
        assert!(!given("listen") && !given("i"));
    }
}
