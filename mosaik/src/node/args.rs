//! A role's flags: their declaration as clap arguments, and reading their values for the fields of the role.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{
    config::Config,
    decl::{ArgDecl, Occurs, RoleDecl},
    environment::{read_from, with_env, with_role_env},
    role::Setup,
};

/// The values that were given for a role's flags, as text.
#[derive(Clone, Debug)]
pub struct ArgValues(BTreeMap<&'static str, Vec<String>>);

/// A flag whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgError {
    /// It is missing and has no default.
    #[error("--{flag} is missing")]
    Missing {
        /// The flag without its dashes.
        flag: String,
    },
    /// Its value is not one of the field's type.
    #[error("--{flag} \"{value}\": {error}")]
    Invalid {
        /// The flag without its dashes.
        flag: String,
        /// What was given.
        value: String,
        /// What the type's parser said.
        error: String,
    },
    /// The command line does not fit the role's flags.
    #[error("{message}")]
    Usage {
        /// clap's explanation.
        message: String,
    },
}

impl ArgValues {
    /// Reads flags such as `["--id", "3"]` for a role; environment variables count as on the command line.
    ///
    /// # Errors
    /// When a flag is unknown, missing or malformed.
    pub fn parse<S: Into<std::ffi::OsString> + Clone>(
        role: &RoleDecl,
        flags: impl IntoIterator<Item = S>,
    ) -> Result<Self, ArgError> {
        let command = Command::new(role.name).no_binary_name(true).args(clap_args(role, &[]));
        let flags = flags.into_iter().map(Into::into).collect::<Vec<_>>();
        let matches = read_from(command, &flags, &Config::default())
            .map_err(|error| ArgError::Usage { message: error.to_string().trim_end().to_owned() })?;
        Ok(Self::collect(role, "", &matches))
    }

    /// What clap found for the role's flags.
    pub(super) fn collect(role: &RoleDecl, prefix: &str, matches: &ArgMatches) -> Self {
        let values = role.args.iter().filter_map(|arg| {
            let id = format!("{prefix}{}", arg.flag);
            let given: Vec<String> = match arg.occurs {
                Occurs::Switch => matches.get_flag(&id).then(|| String::from("true")).into_iter().collect(),
                _ => matches.get_many::<String>(&id)?.cloned().collect(),
            };
            (!given.is_empty()).then_some((arg.flag, given))
        });
        Self(values.collect())
    }

    fn read<T>(flag: &str, value: &str, read: Read<T>) -> Result<T, ArgError> {
        read(value).map_err(|error| ArgError::Invalid { flag: flag.into(), value: value.into(), error })
    }

    fn first(&self, flag: &str) -> Option<&str> {
        self.0.get(flag)?.first().map(String::as_str)
    }
}

/// The flags of a role that runs alone. `taken` are environment variables that mean something else.
pub(super) fn clap_args(role: &RoleDecl, taken: &[String]) -> Vec<Arg> {
    let arg = |decl| {
        let (arg, help) = clap_arg(decl, decl.flag.to_owned());
        with_role_env(arg, role.name, decl.flag, &help, taken)
    };
    role.args.iter().map(arg).collect()
}

/// The flags of a role among others, each preceded by the role's name.
pub(super) fn prefixed_args(role: &RoleDecl) -> Vec<Arg> {
    let arg = |decl: &ArgDecl| {
        let flag = format!("{}.{}", role.name, decl.flag);
        let (arg, help) = clap_arg(decl, flag.clone());
        with_env(arg.help(help), &flag)
    };
    role.args.iter().map(arg).collect()
}

/// The argument and its help.
fn clap_arg(decl: &ArgDecl, flag: String) -> (Arg, String) {
    let check = decl.check;
    let arg = Arg::new(flag.clone()).long(flag).value_name(decl.flag.to_uppercase().replace('-', "_"));
    let arg = if decl.occurs == Occurs::Switch {
        switch(arg)
    } else {
        arg.value_parser(move |text: &str| check(text).map(|()| text.to_owned())).allow_negative_numbers(true)
    };
    let mut help = decl.doc.to_owned();
    let arg = match decl.occurs {
        Occurs::Required => arg.required(true),
        Occurs::Many => arg.action(ArgAction::Append),
        Occurs::Default(text) => arg.default_value(text),
        Occurs::Computed(shown) => {
            let separator = if decl.doc.is_empty() { "" } else { " " };
            help = format!("{}{separator}[default: {shown}]", decl.doc);
            arg
        }
        Occurs::Optional | Occurs::Switch => arg,
    };
    (arg, help)
}

/// A flag without a value. As a variable it has one.
pub(super) fn switch(arg: Arg) -> Arg {
    arg.action(ArgAction::SetTrue).value_parser(parse_switch)
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "y" | "yes" | "t" | "true" | "on" => Ok(true),
        "" | "0" | "n" | "no" | "f" | "false" | "off" => Ok(false),
        _ => Err(String::from("a switch is 1, yes, on or true, or else 0, no, off or false")),
    }
}

/// A type that can be read from a flag: any `FromStr` type whose error can be shown.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from a flag",
    label = "not a type for `#[mosaik(arg)]`",
    note = "implement `FromStr` for it, with an error that is `Display`",
    note = "if it is not meant to be a flag: `#[mosaik(default)]` uses its type's default"
)]
pub trait ArgType: Sized {
    /// The value that a text stands for.
    ///
    /// # Errors
    /// What the type's parser says, as text.
    fn read(text: &str) -> Result<Self, String>;

    /// Whether a text stands for a value.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn check(text: &str) -> Result<(), String> {
        Self::read(text).map(drop)
    }
}

#[diagnostic::do_not_recommend]
impl<T: FromStr<Err: Display>> ArgType for T {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: T::Err| error.to_string())
    }
}

/// How one value of a flag is read.
type Read<T> = fn(&str) -> Result<T, String>;

#[doc(hidden)]
impl Setup<'_> {
    /// The value of a flag that must be there.
    pub fn single<T>(&self, flag: &'static str, read: Read<T>) -> Result<T, ArgError> {
        let value = self.values.first(flag).ok_or_else(|| ArgError::Missing { flag: flag.into() })?;
        ArgValues::read(flag, value, read)
    }

    /// The value of a flag, or what `default` computes.
    pub fn computed<T>(&self, flag: &'static str, read: Read<T>, default: fn() -> T) -> Result<T, ArgError> {
        self.optional(flag, read).map(|value| value.unwrap_or_else(default))
    }

    /// The value of a flag that may be absent.
    pub fn optional<T>(&self, flag: &'static str, read: Read<T>) -> Result<Option<T>, ArgError> {
        self.values.first(flag).map(|value| ArgValues::read(flag, value, read)).transpose()
    }

    /// All values of a flag.
    pub fn many<T>(&self, flag: &'static str, read: Read<T>) -> Result<Vec<T>, ArgError> {
        self.values.0.get(flag).into_iter().flatten().map(|value| ArgValues::read(flag, value, read)).collect()
    }

    /// Whether a flag was given.
    #[must_use]
    pub fn switch(&self, flag: &'static str) -> bool {
        self.values.first(flag).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: RoleDecl = RoleDecl {
        name: "sensor",
        ty: "Sensor",
        doc: "",
        tags: &[],
        clears: &[],
        attest: None,
        args: &[
            ArgDecl { flag: "id", doc: "Which.", occurs: Occurs::Computed("7"), check: u32::check },
            ArgDecl { flag: "offset", doc: "", occurs: Occurs::Required, check: i32::check },
            ArgDecl { flag: "peer", doc: "", occurs: Occurs::Many, check: String::check },
            ArgDecl { flag: "dry-run", doc: "", occurs: Occurs::Switch, check: bool::check },
        ],
        endpoints: &[],
    };

    #[test]
    fn reads_flags_of_every_kind() {
        let flags = ["--offset", "-3", "--peer", "a", "--peer=b", "--dry-run"];
        let values = ArgValues::parse(&ROLE, flags).map_err(|error| error.to_string());
        let values = values.as_ref().map(|values| &values.0);
        let want: BTreeMap<&str, Vec<String>> = BTreeMap::from([
            ("offset", vec!["-3".into()]),
            ("peer", vec!["a".into(), "b".into()]),
            ("dry-run", vec!["true".into()]),
        ]);
        assert_eq!(values, Ok(&want));
    }

    #[test]
    fn a_switch_as_a_variable_is_a_yes_or_a_no() {
        for yes in ["1", "yes", "on", "true", "True", " 1\n"] {
            assert_eq!(parse_switch(yes), Ok(true), "{yes:?}");
        }
        for no in ["", "0", "no", "off", "FALSE"] {
            assert_eq!(parse_switch(no), Ok(false), "{no:?}");
        }
        assert!(parse_switch("perhaps").is_err_and(|error| error.contains("yes")));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        for (flags, part) in [
            (vec!["--id", "x", "--offset", "1"], "invalid digit"),
            (vec![], "--offset"),
            (vec!["--ofset", "1"], "--offset"),
        ] {
            let error = ArgValues::parse(&ROLE, &flags).expect_err("must not fit").to_string();
            assert!(error.contains(part), "{flags:?}: {error}");
        }
    }
}
