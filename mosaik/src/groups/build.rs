//! [`Build`]: how this program was built, as far as that decides what a command does. An overflow that panics at one member
//! and wraps at another makes two states of one; so members of unlike builds refuse each other.

use std::{
    cell::Cell,
    fmt,
    hint::black_box,
    panic::{self, PanicHookInfo},
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Serialize};

/// What of a build members compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Build(u8);

const OVERFLOW_CHECKS: u8 = 1;
const DEBUG_ASSERTIONS: u8 = 2;
const ABORTS: u8 = 4;

impl Build {
    /// That of this program.
    pub(crate) fn of_this() -> Self {
        let flag = |set: bool, bit| if set { bit } else { 0 };
        Self(
            flag(overflow_checks(), OVERFLOW_CHECKS)
                | flag(cfg!(debug_assertions), DEBUG_ASSERTIONS)
                | flag(cfg!(panic = "abort"), ABORTS),
        )
    }

    #[cfg(test)]
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |bit| if self.0 & bit != 0 { "on" } else { "off" };
        let (overflow, debug) = (on(OVERFLOW_CHECKS), on(DEBUG_ASSERTIONS));
        let panics = if self.0 & ABORTS != 0 { "abort" } else { "unwind" };
        write!(f, "overflow checks {overflow}, debug assertions {debug}, panic {panics}")
    }
}

/// Whether arithmetic that overflows panics. No `cfg` of the stable compiler says so.
fn overflow_checks() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if cfg!(panic = "abort") {
        // Trying would end the process; this is what a profile has unless it says otherwise.
        return cfg!(debug_assertions);
    }
    *KNOWN.get_or_init(|| quietly(|| black_box(u8::MAX) + black_box(1)).is_err())
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs what may panic without a word about it. Panics of other threads meanwhile go to the hook that was there.
fn quietly<T>(work: impl FnOnce() -> T + panic::UnwindSafe) -> std::thread::Result<T> {
    type Hook = dyn Fn(&PanicHookInfo<'_>) + Send + Sync;
    if std::thread::panicking() {
        return panic::catch_unwind(work);
    }
    let before: Arc<Hook> = Arc::from(panic::take_hook());
    let during = before.clone();
    panic::set_hook(Box::new(move |info| {
        if !QUIET.get() {
            during(info);
        }
    }));
    QUIET.set(true);
    let result = panic::catch_unwind(work);
    QUIET.set(false);
    panic::set_hook(Box::new(move |info| before(info)));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_is_told_in_words() {
        assert_eq!(overflow_checks(), cfg!(debug_assertions), "the profiles of this workspace have both or none");
        assert_eq!(Build(4).to_string(), "overflow checks off, debug assertions off, panic abort");
        assert_ne!(Build::of_this(), Build(ABORTS));
    }
}
