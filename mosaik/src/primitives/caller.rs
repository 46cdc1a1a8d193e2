//! Whose code runs on this thread now: the handler of a role, if it is one's. For messages that name who waits.

use std::{cell::Cell, fmt};

thread_local! {
    static CURRENT: Cell<Option<Caller>> = const { Cell::new(None) };
}

/// A handler of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) role: &'static str,
    pub(crate) handler: &'static str,
}

/// While it lives, code on this thread is the handler's.
pub(crate) struct Entered(Option<Caller>);

/// Names whose code runs until the guard is dropped.
pub(crate) fn enter(caller: Caller) -> Entered {
    Entered(CURRENT.replace(Some(caller)))
}

/// Whose code runs now; `None` where it is no handler's.
pub(crate) fn current() -> Option<Caller> {
    CURRENT.get()
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handler `{}` of {}", self.handler, self.role)
    }
}
