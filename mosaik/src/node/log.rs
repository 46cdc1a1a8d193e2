//! `--log`: tracing on stderr. Lines are held back until the node has said where it listens, which is promised to be
//! the first line.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::{
    output::{self, say},
    process::Failure,
};

/// What is held back at most, in bytes; the rest of it is dropped and counted.
const HELD: usize = 1 << 19;

/// Libraries whose lines say once a second what ours says once, unless they are asked for.
const MUTED: [&str; 1] = ["swarm_discovery"];

/// Lines that wait for the gate to open.
#[derive(Default)]
struct Waiting {
    lines: Vec<Vec<u8>>,
    bytes: usize,
    dropped: u64,
}

/// What was logged so far; nothing once the gate is open.
type Held = Arc<Mutex<Option<Waiting>>>;

/// Holds log lines back until opened or dropped: whatever ends the program before it listens is still to be read.
pub(super) struct Gate(Held);

impl Gate {
    /// Begins to log by these filter directives, behind a closed gate. A subscriber that the program has set already
    /// stays.
    pub(super) fn install(directives: &str) -> Result<Self, Failure> {
        let muted = MUTED.into_iter().filter(|library| !directives.contains(library));
        let directives = muted.fold(directives.to_owned(), |all, library| format!("{all},{library}=off"));
        let filter = EnvFilter::try_new(directives)?;
        let held = Held::new(Mutex::new(Some(Waiting::default())));
        let log = Log(held.clone());
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log).with_ansi(false);
        if subscriber.try_init().is_err() {
            tracing::debug!("the program has a log subscriber of its own; --log has no effect");
        }
        Ok(Self(held))
    }

    /// Lets everything through, what was held back first.
    pub(super) fn open(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = held.take() {
            waiting.lines.into_iter().for_each(|line| output::write(line, false));
            if waiting.dropped > 0 {
                say(format_args!("{} lines dropped: they were logged before the node listened", waiting.dropped));
            }
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// Where the subscriber gets its writers from.
struct Log(Held);

impl<'a> MakeWriter<'a> for Log {
    type Writer = Writer<'a>;

    fn make_writer(&'a self) -> Writer<'a> {
        Writer { held: &self.0, important: false }
    }

    /// What an operator should act on, and what may be the last that a process says.
    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Writer<'a> {
        Writer { held: &self.0, important: *meta.level() <= Level::WARN }
    }
}

/// Takes a whole line at a time.
struct Writer<'a> {
    held: &'a Held,
    important: bool,
}

impl Write for Writer<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            Some(waiting) if waiting.bytes + line.len() <= HELD => {
                waiting.bytes += line.len();
                waiting.lines.push(line.to_vec());
            }
            Some(waiting) => waiting.dropped += 1,
            None => {
                drop(held);
                output::write(line.to_vec(), self.important);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
