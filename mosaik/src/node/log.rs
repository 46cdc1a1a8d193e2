//! `--log`: tracing on stderr. Lines are held back until the node has said where it listens, which is promised to be
//! the first line.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::process::Failure;

/// What is held back at most, in bytes; the rest of it is dropped.
const HELD: usize = 1 << 20;

/// Libraries whose lines say once a second what ours says once, unless they are asked for.
const MUTED: [&str; 1] = ["swarm_discovery"];

/// What was written so far; nothing once the gate is open.
type Held = Arc<Mutex<Option<Vec<u8>>>>;

/// Holds log lines back until opened or dropped: whatever ends the program before it listens is still to be read.
pub(super) struct Gate(Held);

impl Gate {
    /// Begins to log by these filter directives, behind a closed gate. A subscriber that the program has set already
    /// stays.
    pub(super) fn install(directives: &str) -> Result<Self, Failure> {
        let muted = MUTED.into_iter().filter(|library| !directives.contains(library));
        let directives = muted.fold(directives.to_owned(), |all, library| format!("{all},{library}=off"));
        let filter = EnvFilter::try_new(directives)?;
        let held = Held::new(Mutex::new(Some(Vec::new())));
        let writer = Writer(held.clone());
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
        if subscriber.try_init().is_err() {
            tracing::debug!("the program has a log subscriber of its own; --log has no effect");
        }
        Ok(Self(held))
    }

    /// Lets everything through, what was held back first.
    pub(super) fn open(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.take() {
            let _ = io::stderr().write_all(&held);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// Where the subscriber writes to.
#[derive(Clone)]
struct Writer(Held);

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            Some(held) if held.len() + line.len() <= HELD => held.extend_from_slice(line),
            Some(_) => {}
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Writer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
