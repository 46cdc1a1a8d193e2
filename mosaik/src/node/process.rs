//! The process around a generated main: signals and exit status. What has to work even when every worker thread is stuck
//! in user code (a second signal, the limit on a graceful end) runs on a thread of its own.

use std::{
    error::Error,
    io::{self, Write},
    process::{ExitCode, exit},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::output;
pub(super) use super::output::say;

/// How long a graceful end may take, from the first signal on.
pub(super) const GRACEFUL_LIMIT: Duration = Duration::from_secs(2);
/// How long the last words wait for a reader when the process ends at once.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(100);

/// Workers of the runtime at least.
const MIN_WORKERS: usize = 2;

/// What can go wrong in a generated main once the command line is understood.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// Text on stdout; a reader that has seen enough (`graph | head`) is not an error.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Runs `work` on a multi-threaded runtime to its end. The token is cancelled at the first SIGINT or SIGTERM.
pub(super) fn run<F: Future<Output = Result<(), Failure>>>(work: impl FnOnce(CancellationToken) -> F) -> ExitCode {
    let (ending, ended) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let result = watch_signals(ending.clone(), ended.clone()).and_then(|()| {
        let runtime = runtime()?;
        let result = runtime.block_on(work(ending));
        ended.store(true, Ordering::Release);
        // A blocking call in user code must not hold the process.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("error: {}", chain(&*error)));
            ExitCode::FAILURE
        }
    }
}

/// One worker for each core, but two at least: with one, a handler that computes would hold up everything else of the node. The
/// variable `TOKIO_WORKER_THREADS` says otherwise, as for any program.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder
            .worker_threads(thread::available_parallelism().map_or(MIN_WORKERS, |cores| cores.get().max(MIN_WORKERS)));
    }
    builder.enable_all().build()
}

/// The error and all of its causes; a cause that the text before it ends with already is not repeated.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.ends_with(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

fn watch_signals(ending: CancellationToken, ended: Arc<AtomicBool>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _context = runtime.enter();
        Signals::listen()?
    };
    thread::Builder::new()
        .name(String::from("signals"))
        .spawn(move || runtime.block_on(on_signals(signals, ending, &ended)))?;
    Ok(())
}

async fn on_signals(mut signals: Signals, ending: CancellationToken, ended: &AtomicBool) {
    let name = signals.next().await.0;
    say(format_args!("{name}: leaving; once more to end at once"));
    ending.cancel();
    let second = tokio::time::timeout(GRACEFUL_LIMIT, signals.next()).await;
    let status = match second {
        Ok((_, number)) => 128 + number,
        // It has left, and somebody still reads what it said.
        Err(_) if ended.load(Ordering::Acquire) => 128 + signals.next().await.1,
        Err(_) => {
            say(format_args!("error: could not leave within {} s", GRACEFUL_LIMIT.as_secs()));
            1
        }
    };
    super::board::leave();
    output::flush(LAST_WORDS);
    exit(status)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next signal's name and number.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => ("SIGTERM", 15),
            _ = self.interrupt.recv() => ("SIGINT", 2),
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> (&'static str, i32) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        ("ctrl-c", 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer{0}")]
    struct Outer(&'static str, #[source] io::Error);

    #[test]
    fn every_cause_is_shown_once() {
        assert_eq!(chain(&Outer("", io::Error::other("inner"))), "outer: inner");
        assert_eq!(chain(&Outer(": inner", io::Error::other("inner"))), "outer: inner");
    }
}
