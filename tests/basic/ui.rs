//! The errors of the attributes, as the compiler shows them: `tests/ui/*.rs` against `*.stderr`.
//!
//! `TRYBUILD=overwrite cargo test --test basic ui` writes the expectations anew; read the difference before committing.

use std::process::Command;

/// The compiler that the expectations were written with: others word and wrap the same errors differently.
const WRITTEN_WITH: &str = "rustc 1.95.";

#[test]
fn errors_are_reported_together_and_on_the_spot() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = String::from_utf8(Command::new(rustc).arg("--version").output().unwrap().stdout).unwrap();
    if version.starts_with(WRITTEN_WITH) {
        trybuild::TestCases::new().compile_fail("ui/*.rs");
    } else {
        eprintln!("skipped: the expectations are those of {WRITTEN_WITH}, this is {version}");
    }
}
