//! `new`: a crate to begin with, that builds, passes its test and runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgMatches, Command};

use super::super::process::Failure;

const MAIN: &str = include_str!("new/main.rs.txt");
const MANIFEST: &str = include_str!("new/Cargo.toml.txt");
const README: &str = include_str!("new/README.md.txt");
const UNIT: &str = include_str!("new/unit.service.txt");
const CI: &str = include_str!("new/run.txt");
/// Most characters of a name.
const MAX_NAME: usize = 64;

/// The command.
pub(super) fn new() -> Command {
    Command::new("new")
        .about("Make a crate to begin with: two roles, a test under simulated faults, a unit for systemd")
        .arg(
            Arg::new("path")
                .value_name("PATH")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("Where; must not exist. Its last part is the name of crate and app"),
        )
        .arg(Arg::new("mosaik").long("mosaik").value_name("DIR").value_parser(clap::value_parser!(PathBuf)).help(
            "The directory of the crate mosaik to depend on [default: where this command was built, else the registry]",
        ))
}

/// Makes it, and says what to do next.
pub(super) fn make(matches: &ArgMatches) -> Result<String, Failure> {
    let path = matches.get_one::<PathBuf>("path").ok_or("PATH is missing")?;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("PATH has no name at its end")?;
    check(name)?;
    let given = matches.get_one::<PathBuf>("mosaik");
    if let Some(dir) = given.filter(|dir| !is_mosaik(dir)) {
        return Err(format!("--mosaik {}: there is no crate mosaik", dir.display()).into());
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = match given {
        Some(dir) => Some(fs::canonicalize(dir)?),
        None => is_mosaik(built).then(|| built.to_owned()),
    };
    let fill = |text: &str| {
        let depend = |features: &str| match &source {
            Some(dir) => format!("{{ path = {:?}{features} }}", dir.display().to_string()),
            None => format!("{{ version = {:?}{features} }}", env!("CARGO_PKG_VERSION")),
        };
        text.replace("@MOSAIK@", &depend(""))
            .replace("@TESTING@", &depend(", features = [\"testing\"]"))
            .replace("@RUST@", env!("CARGO_PKG_RUST_VERSION"))
            .replace("@HOME@", env!("CARGO_PKG_REPOSITORY"))
            .replace("@NAME@", name)
            // The program is built here as it stands, so it has a name that is one.
            .replace("\"app-name\"", &format!("{name:?}"))
    };
    // Whatever is there already is not written over.
    fs::create_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for dir in ["src", "ci"] {
        fs::create_dir(path.join(dir))?;
    }
    let unit = format!("{name}@.service");
    let files = [
        ("Cargo.toml", MANIFEST),
        ("src/main.rs", MAIN),
        ("README.md", README),
        (&unit, UNIT),
        ("ci/run", CI),
        ("rustfmt.toml", "use_small_heuristics = \"Max\"\n"),
        (".gitignore", "/target\n"),
    ];
    for (file, text) in files {
        fs::write(path.join(file), fill(text))?;
    }
    executable(&path.join("ci/run"))?;
    Ok(format!("{} is made: cd {0} && cargo test && cargo run -- dev --for 5s\n", path.display()))
}

fn is_mosaik(dir: &Path) -> bool {
    fs::read_to_string(dir.join("Cargo.toml")).is_ok_and(|text| text.lines().any(|line| line == "name = \"mosaik\""))
}

/// What cargo takes as the name of a package, and the app as its own.
fn check(name: &str) -> Result<(), Failure> {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with('-');
    if !plain || !begins || name.len() > MAX_NAME {
        return Err(format!(
            "the name {name:?}: small letters, digits and dashes are expected, a letter first, {MAX_NAME} at most"
        )
        .into());
    }
    // Names that cargo or the compiler keep for themselves.
    if ["mosaik", "test", "core", "std", "alloc", "proc-macro", "fn", "mod", "use", "self", "super", "crate"]
        .contains(&name)
    {
        return Err(format!("the name {name:?} is taken by Rust or by mosaik itself").into());
    }
    Ok(())
}

#[cfg(unix)]
fn executable(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn executable(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_packages() {
        for fine in ["demo", "order-flow", "b2"] {
            assert!(check(fine).is_ok(), "{fine}");
        }
        for wrong in ["", "Demo", "2b", "a_b", "a b", "-a", "a-", "über", "test", "mosaik", &"a".repeat(65)] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
