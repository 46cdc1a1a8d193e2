//! The program: `builder run pool`, `builder run intake`, `builder run watch`, see the library.

use std::process::ExitCode;

use builder::Builder;

fn main() -> ExitCode {
    Builder::main()
}
