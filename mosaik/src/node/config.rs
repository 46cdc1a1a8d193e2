//! `--config`: a TOML file with values for flags. A flag on the command line goes before an environment variable, and that before
//! the file. At the top are flags of the node; in a table of a role's name are flags of that role, or of its node alone.
//!
//! Format: <https://toml.io/en/v1.1.0>.

use std::{ffi::OsString, fmt::Write as _, fs, io, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};
use toml::{Table, Value};

use super::environment;

/// The flag.
pub(super) const FLAG: &str = "config";

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}: {error}", path.display())]
    Malformed { path: PathBuf, error: Box<toml::de::Error> },
    #[error("{}: `{key}`: {what}", path.display())]
    Key { path: PathBuf, key: String, what: String },
}

/// The flag that names the file.
pub(super) fn config() -> Arg {
    let help = "A TOML file with values for flags that neither the command line nor a variable gives";
    super::cli::flag(FLAG, "FILE", help).value_parser(clap::value_parser!(PathBuf))
}

/// The values of a file; none without one.
#[derive(Debug, Default)]
pub(super) struct Config {
    path: PathBuf,
    table: Table,
}

impl Config {
    /// Reads the file that the command line or else the environment names.
    pub(super) fn named(args: &[OsString]) -> Result<Self, ConfigError> {
        let long = format!("--{FLAG}");
        let given = args.iter().zip(args.iter().skip(1).map(Some).chain([None])).find_map(|(arg, next)| {
            if arg.to_str() == Some(&long) {
                return next.cloned();
            }
            arg.to_str()?.strip_prefix(&long)?.strip_prefix('=').map(OsString::from)
        });
        let named = given.or_else(|| std::env::var_os(environment::name(FLAG)));
        match named.filter(|path| !path.is_empty()).map(PathBuf::from) {
            Some(path) => match fs::read_to_string(&path) {
                Ok(text) => Self::parse(path, &text),
                Err(error) => Err(ConfigError::Unreadable { path, error }),
            },
            None => Ok(Self::default()),
        }
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self, ConfigError> {
        match text.parse() {
            Ok(table) => Ok(Self { path, table }),
            Err(error) => Err(ConfigError::Malformed { path, error: Box::new(error) }),
        }
    }

    /// What the file says of a flag of a role, or without a role of the node. A key that is not there is none.
    fn value(&self, role: &str, flag: &str) -> Option<(String, &Value)> {
        let own = self.table.get(role).and_then(Value::as_table).and_then(|table| table.get(flag));
        let own = own.map(|value| (format!("{role}.{flag}"), value));
        own.or_else(|| self.table.get(flag).filter(|value| !value.is_table()).map(|value| (flag.to_owned(), value)))
    }

    /// What the file says of a flag, for those who ask where a value comes from.
    pub(super) fn origin(&self, role: &str, flag: &str) -> Option<String> {
        let (key, _) = self.value(role, flag)?;
        Some(format!("`{key}` in {}", self.path.display()))
    }

    /// Gives flags the values of the file as their defaults.
    pub(super) fn under(&self, role: &str, args: Vec<Arg>) -> Result<Vec<Arg>, ConfigError> {
        let give = |arg: Arg| {
            let Some((key, value)) = self.value(role, arg.get_id().as_str()) else { return Ok(arg) };
            self.give(arg, &key, value)
        };
        args.into_iter().map(give).collect()
    }

    /// The same where the flags of a role have its name before their own: a trial run takes what roles need, and not the network of
    /// a deployment.
    pub(super) fn under_prefixed(&self, role: &str, args: Vec<Arg>) -> Result<Vec<Arg>, ConfigError> {
        let own = self.table.get(role).and_then(Value::as_table);
        let give = |arg: Arg| {
            let flag = arg.get_id().as_str().strip_prefix(role).and_then(|rest| rest.strip_prefix('.'));
            match flag.and_then(|flag| own?.get(flag)) {
                Some(value) => {
                    let key = arg.get_id().to_string();
                    self.give(arg, &key, value)
                }
                None => Ok(arg),
            }
        };
        args.into_iter().map(give).collect()
    }

    fn give(&self, arg: Arg, key: &str, value: &Value) -> Result<Arg, ConfigError> {
        let fault = |what: &str| Err(self.fault(key, what));
        let many = matches!(arg.get_action(), ArgAction::Append);
        let values = match value {
            Value::Array(_) if !many => return fault("one value is expected, and this is a list"),
            Value::Array(values) => values.iter().map(text).collect(),
            value => text(value).map(|value| vec![value]),
        };
        let Some(values) = values else { return fault("a text, a number or a yes or no is expected") };
        Ok(if values.is_empty() { arg } else { arg.required(false).default_values(values) })
    }

    fn fault(&self, key: &str, what: impl Into<String>) -> ConfigError {
        ConfigError::Key { path: self.path.clone(), key: key.to_owned(), what: what.into() }
    }

    /// Refuses what nothing reads. `roles`: their names and flags.
    pub(super) fn check(&self, node: &[Arg], roles: &[(&str, Vec<&str>)]) -> Result<(), ConfigError> {
        let of_node: Vec<&str> = node.iter().map(|arg| arg.get_id().as_str()).filter(|flag| *flag != FLAG).collect();
        for (key, value) in &self.table {
            let Value::Table(own) = value else {
                if !of_node.contains(&key.as_str()) {
                    return Err(self.fault(key, unknown("flag of the node", key, &of_node)));
                }
                continue;
            };
            let Some((_, flags)) = roles.iter().find(|(role, _)| role == key) else {
                let names: Vec<&str> = roles.iter().map(|(role, _)| *role).collect();
                return Err(self.fault(key, unknown("role", key, &names)));
            };
            let known: Vec<&str> = flags.iter().chain(&of_node).copied().collect();
            if let Some((flag, _)) = own.iter().find(|(flag, _)| !known.contains(&flag.as_str())) {
                return Err(self.fault(&format!("{key}.{flag}"), unknown("flag", flag, &known)));
            }
        }
        Ok(())
    }
}

/// The flags of a role and what they are, as a file that would say the same, with where each value comes from.
pub(super) fn shown(role: &Command, matches: &ArgMatches, config: &Config) -> String {
    let name = role.get_name();
    let (mut of_node, mut own) = (String::new(), format!("\n[{name}]\n"));
    for arg in role.get_arguments().filter(|arg| ![FLAG, "help", "version"].contains(&arg.get_id().as_str())) {
        let flag = arg.get_id().as_str();
        let lines = if arg.get_help_heading().is_some() { &mut own } else { &mut of_node };
        let variable = arg.get_env().map(|name| name.display().to_string()).unwrap_or_default();
        let origin = match matches.value_source(flag) {
            Some(ValueSource::CommandLine) => "the command line".to_owned(),
            Some(ValueSource::EnvVariable) => variable,
            Some(_) => config.origin(name, flag).unwrap_or_else(|| "default".to_owned()),
            None => {
                let _ = writeln!(lines, "# {flag} is not set");
                continue;
            }
        };
        let mut values = matches.get_raw(flag).into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
        let value = match arg.get_action() {
            ArgAction::SetTrue => Value::Boolean(matches.get_flag(flag)),
            ArgAction::Append => Value::Array(values.map(Value::String).collect()),
            _ => Value::String(values.next_back().unwrap_or_default()),
        };
        let _ = if arg.is_hide_env_values_set() {
            writeln!(lines, "# {flag} is not shown; from {origin}")
        } else {
            writeln!(lines, "{flag} = {value}  # {origin}")
        };
    }
    of_node + &own
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let dashed = name.replace('_', "-");
    match known.iter().find(|it| **it == dashed || it.replace('-', "") == name.replace(['-', '_'], "")) {
        Some(meant) => format!("there is no such {what}; is it {meant}?"),
        None if known.is_empty() => format!("there is no such {what}"),
        None => format!("there is no such {what}; known are {}", known.join(", ")),
    }
}

/// A value as it stands on a command line.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Datetime(moment) => Some(moment.to_string()),
        Value::Array(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Config {
        Config::parse("app.toml".into(), text).expect("TOML")
    }

    fn args() -> Vec<Arg> {
        vec![
            Arg::new("listen").long("listen"),
            Arg::new("tag").long("tag").action(ArgAction::Append).value_delimiter(','),
            Arg::new("id").long("id").required(true),
            super::super::args::switch(Arg::new("dry-run").long("dry-run")),
        ]
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let config = parsed("listen = \"1\"\ntag = [\"a\", \"b\"]\n[sensor]\nid = 7\ndry-run = true\nlisten = \"2\"");
        let read = |role, line: &[&str]| {
            let command = Command::new("app").no_binary_name(true).args(config.under(role, args()).expect("fits"));
            command.try_get_matches_from(line)
        };
        let matches = read("sensor", &["--listen", "3"]).expect("parsed");
        assert_eq!(matches.get_one::<String>("listen").map(String::as_str), Some("3"));
        let matches = read("sensor", &[]).expect("parsed");
        assert_eq!(matches.get_one::<String>("listen").map(String::as_str), Some("2"), "that of the role");
        assert_eq!(matches.get_one::<String>("id").map(String::as_str), Some("7"));
        assert!(matches.get_flag("dry-run"));
        assert_eq!(
            matches.get_many::<String>("tag").map(|tags| tags.cloned().collect::<Vec<_>>().concat()).as_deref(),
            Some("ab")
        );
        assert!(read("display", &[]).is_err(), "its id is missing");
        assert_eq!(config.origin("sensor", "id").as_deref(), Some("`sensor.id` in app.toml"));
        assert_eq!(config.origin("display", "id"), None);
    }

    #[test]
    fn what_nothing_reads_is_refused_by_name() {
        for (text, part) in [
            ("listn = 1", "app.toml: `listn`: there is no such flag of the node"),
            ("dry_run = true", "is it dry-run?"),
            ("[display]\nid = 1", "`display`: there is no such role; known are sensor"),
            ("[sensor]\nids = 1", "`sensor.ids`"),
        ] {
            let error = parsed(text).check(&args(), &[("sensor", vec!["id"])]).expect_err("unknown").to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let list = parsed("listen = [\"1\", \"2\"]").under("", args()).expect_err("one value");
        assert_eq!(list.to_string(), "app.toml: `listen`: one value is expected, and this is a list");
        let malformed = Config::parse("app.toml".into(), "listen = ").expect_err("no TOML").to_string();
        assert!(malformed.contains("line 1"), "{malformed}");
    }
}
