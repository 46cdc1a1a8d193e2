//! The errors of the attributes, as the compiler shows them: `tests/ui/*.rs` against `*.stderr`.
//!
//! `TRYBUILD=overwrite cargo test --test basic ui` writes the expectations anew; read the difference before committing.

#[test]
fn errors_are_reported_together_and_on_the_spot() {
    trybuild::TestCases::new().compile_fail("ui/*.rs");
}
