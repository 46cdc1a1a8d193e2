//! The command `mosaik`: a beacon to leave running, and questions to the nodes of any network.

use std::process::ExitCode;

fn main() -> ExitCode {
    mosaik::__private::operator()
}
