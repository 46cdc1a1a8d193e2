//! What a generated main writes to stderr: its own lines, the log, reports of panics.
//!
//! Whoever reads stderr may stop to, and then a write to a full pipe does not return. So no thread of the runtime writes: lines
//! go into a queue with a bound, and a thread of its own writes them out. What finds no room is dropped and counted, and the
//! count stands where the lines would have been. The end of the process waits for the queue as long as somebody reads.
//!
//! Locks: there is one, over [`Queue`]; it is never held while something is written.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    collections::VecDeque,
    fmt::Display,
    io::{self, Write},
    panic::{self, PanicHookInfo},
    ptr,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use tokio::time::Instant;

use crate::primitives::figures;

/// What may wait to be written, in bytes.
const LIMIT: usize = 1 << 20;
/// What is handed to the system at a time, in bytes. A pipe takes as much at once or not at all, so that lines do not mix
/// with those that handlers print.
const CHUNK: usize = 4096;
/// How long who writes an important line waits until it is out, so that it is still seen if the process then dies. Once that was
/// in vain, nobody waits until the queue was empty again.
const SETTLE: Duration = Duration::from_millis(20);
/// How long the end of the process waits while nothing is read.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it waits in all for a reader that is slow.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// Lines that wait, and what became of others.
#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    /// Of `lines` and of what is being written.
    bytes: usize,
    /// Dropped since that was last told.
    dropped: u64,
    /// No room is given until half of it is free, so that few counts stand for many lines.
    full: bool,
    /// Lines that were ever queued, and those that are out.
    pushed: u64,
    written: u64,
    /// Chunks that are out.
    chunks: u64,
    /// Waiting was in vain.
    stuck: bool,
}

impl Queue {
    /// The number of the line, if there is room for it.
    fn push(&mut self, line: Vec<u8>) -> Option<u64> {
        let needed = self.bytes.saturating_add(line.len());
        if needed > LIMIT || (self.full && self.bytes > LIMIT / 2) {
            self.full = true;
            self.dropped += 1;
            return None;
        }
        self.tell_dropped();
        self.enqueue(line);
        Some(self.pushed)
    }

    fn enqueue(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.pushed += 1;
        self.lines.push_back(line);
    }

    /// Puts the count where the lines would have been.
    fn tell_dropped(&mut self) {
        self.full = false;
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.enqueue(format!("{dropped} lines dropped: stderr was not read in time\n").into_bytes());
        }
    }

    /// As many lines as fit into a chunk, at least one.
    fn take(&mut self) -> (Vec<u8>, u64) {
        let (mut batch, mut lines) = (Vec::new(), 0);
        while let Some(line) = self.lines.front()
            && (lines == 0 || batch.len() + line.len() <= CHUNK)
        {
            batch.extend(self.lines.pop_front().unwrap_or_default());
            lines += 1;
        }
        (batch, lines)
    }

    fn is_out(&self) -> bool {
        self.written == self.pushed && self.dropped == 0
    }
}

/// The queue and who waits at it.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// For the thread that writes: there is something to write.
    filled: Condvar,
    /// For those who wait until something is out.
    emptied: Condvar,
}

/// A queue of lines, with a thread that writes them out.
pub(super) struct Output(Arc<Shared>);

impl Output {
    /// Starts the thread, which ends with the process.
    fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writing = shared.clone();
        thread::Builder::new().name(String::from("stderr")).spawn(move || writing.write_out(sink))?;
        Ok(Self(shared))
    }

    /// Queues a line. An important one is waited for, but for no longer than a moment.
    pub(super) fn write(&self, line: Vec<u8>, important: bool) {
        let mut queue = self.0.lock();
        let number = queue.push(line);
        self.0.filled.notify_one();
        let Some(number) = number else {
            drop(queue);
            metrics::counter!(figures::LOG_DROPPED).increment(1);
            return;
        };
        if !important || queue.stuck {
            return;
        }
        let waited = self.0.emptied.wait_timeout_while(queue, SETTLE, |queue| queue.written < number && !queue.stuck);
        let (mut queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            queue.stuck = true;
        }
    }

    /// Waits until everything is out, as long as within `patience` some of it is read.
    pub(super) fn flush(&self, patience: Duration) {
        let end = Instant::now() + FLUSH_LIMIT;
        let mut queue = self.0.lock();
        while !queue.is_out() && Instant::now() < end {
            let seen = queue.chunks;
            let waits = |queue: &mut Queue| queue.chunks == seen && !queue.is_out();
            let waited = self.0.emptied.wait_timeout_while(queue, patience, waits);
            let (after, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return;
            }
            queue = after;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's work.
    fn write_out(&self, mut sink: impl Write) {
        loop {
            let waiting = self.filled.wait_while(self.lock(), |queue| queue.lines.is_empty() && queue.dropped == 0);
            let mut queue = waiting.unwrap_or_else(PoisonError::into_inner);
            if queue.lines.is_empty() {
                queue.tell_dropped();
            }
            let (batch, lines) = queue.take();
            drop(queue);
            for chunk in batch.chunks(CHUNK) {
                write_chunk(&mut sink, chunk);
                self.lock().chunks += 1;
                self.emptied.notify_all();
            }
            let mut queue = self.lock();
            queue.bytes -= batch.len();
            queue.written += lines;
            queue.stuck &= !queue.lines.is_empty();
            drop(queue);
            self.emptied.notify_all();
        }
    }
}

/// Writes all of it. There is nowhere to report that stderr is gone, and it is no reason to end a node.
fn write_chunk(sink: &mut impl Write, mut chunk: &[u8]) {
    while !chunk.is_empty() {
        match sink.write(chunk) {
            Ok(0) => return,
            Ok(written) => chunk = chunk.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares the descriptor may have made it one that does not wait.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(Duration::from_millis(10)),
            Err(_) => return,
        }
    }
}

/// The one of this process; nothing if its thread could not be started.
static STDERR: OnceLock<Option<Output>> = OnceLock::new();

/// Queues what is to be seen on stderr.
pub(super) fn write(line: Vec<u8>, important: bool) {
    match STDERR.get_or_init(|| Output::start(io::stderr()).ok()) {
        Some(output) => output.write(line, important),
        None => write_chunk(&mut io::stderr(), &line),
    }
}

/// One line on stderr.
pub(super) fn say(line: impl Display) {
    write(format!("{line}\n").into_bytes(), true);
}

/// Waits until everything is on stderr, as long as within `patience` somebody reads some of it.
pub(super) fn flush(patience: Duration) {
    if let Some(Some(output)) = STDERR.get() {
        output.flush(patience);
    }
}

/// Held by a main: at its end, be it by a panic, what was said is still written out.
pub(super) struct UntilRead;

impl UntilRead {
    /// From here on also panics are reported through the queue.
    pub(super) fn new() -> Self {
        report_panics();
        Self
    }
}

impl Drop for UntilRead {
    fn drop(&mut self) {
        flush(PATIENCE);
    }
}

/// The hook of the standard library writes to stderr on the thread that panics, and would not return from a full pipe. A hook
/// that the program has set itself stays.
fn report_panics() {
    let (set, standard) = (panic::take_hook(), panic::take_hook());
    if ptr::eq(&raw const *set, &raw const *standard) {
        panic::set_hook(Box::new(report_panic));
    } else {
        panic::set_hook(set);
    }
}

/// As the standard library would report it.
fn report_panic(info: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload_as_str().unwrap_or("a value that is not text");
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => format!("stack backtrace:\n{backtrace}"),
        _ => String::from("note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n"),
    };
    write(format!("\nthread '{name}' panicked at {at}:\n{message}\n{backtrace}").into_bytes(), true);
    if cfg!(panic = "abort") {
        flush(PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// A reader that takes a chunk when it is told to.
    struct Pipe {
        turn: Receiver<()>,
        read: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.turn.recv().is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.read.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn pipe() -> (Output, SyncSender<()>, impl Fn() -> String) {
        let (turns, turn) = sync_channel(100_000);
        let read = Arc::new(Mutex::new(Vec::new()));
        let output = Output::start(Pipe { turn, read: read.clone() }).expect("starts");
        (output, turns, move || {
            String::from_utf8_lossy(&read.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
        })
    }

    fn line(number: usize) -> Vec<u8> {
        format!("{number:099}\n").into_bytes()
    }

    #[test]
    fn what_does_not_fit_is_counted_once_it_flows_again() {
        let (output, turns, read) = pipe();
        // Twice what may wait. The first important line is waited for in vain, the others are not.
        (0..2 * LIMIT / 100).for_each(|number| output.write(line(number), true));
        (0..100_000).for_each(|_| turns.send(()).expect("is there"));
        output.flush(Duration::from_secs(30));
        output.write(line(7), false);
        output.flush(Duration::from_secs(30));
        let text = read();
        let mut lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.pop(), Some(&*format!("{:099}", 7)));
        let told = lines.pop().and_then(|line| line.strip_suffix(" lines dropped: stderr was not read in time"));
        let dropped: usize = told.and_then(|number| number.parse().ok()).unwrap_or_default();
        assert_eq!(dropped + lines.len(), 2 * LIMIT / 100, "{told:?}");
        assert!(lines.iter().enumerate().all(|(at, line)| line.parse() == Ok(at)), "the oldest stay, in order");
    }

    #[test]
    fn the_end_does_not_wait_for_a_reader_that_is_gone() {
        let (output, turns, read) = pipe();
        output.write(line(1), true);
        output.flush(Duration::from_millis(1));
        assert_eq!(read(), "", "nobody has read");
        drop(turns);
        output.flush(Duration::from_secs(30));
        assert!(output.0.lock().is_out(), "the pipe is broken");
    }

    #[test]
    fn a_long_line_is_written_whole() {
        let (output, turns, read) = pipe();
        (0..100).for_each(|_| turns.send(()).expect("is there"));
        let long = "x".repeat(10 * CHUNK + 1);
        output.write(long.clone().into_bytes(), false);
        output.write(vec![b'y'; LIMIT + 1], false);
        output.flush(Duration::from_secs(30));
        assert_eq!(read(), format!("{long}1 lines dropped: stderr was not read in time\n"));
    }
}
