#!/usr/bin/env bash
# tracing-appender 0.2.5: what a non-blocking writer still holds one second after its guard is dropped is lost without a word.
#
# Expected: the guard "flushes" what is queued at the end of the program, or says that it could not.
# Happens: the writer is slow (here: two seconds for its first line, as a pipe whose reader was busy). Dropping the guard waits for
# one second and returns; main ends, and all lines that were queued are gone. Nothing is printed, `error_counter` says that none was
# dropped, and the exit status is 0.
#
# Exit status 0 while it is so, another when it changes.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
tracing-appender = { version = "=0.2.5", default-features = false }
TOML
cat >src/main.rs <<'RUST'
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

static WRITTEN: AtomicUsize = AtomicUsize::new(0);

/// Takes two seconds for the first line and no time for the others.
struct Slow;

impl Write for Slow {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if WRITTEN.load(SeqCst) == 0 {
            std::thread::sleep(Duration::from_secs(2));
        }
        WRITTEN.fetch_add(1, SeqCst);
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn main() {
    let (mut log, guard) = tracing_appender::non_blocking(Slow);
    let errors = log.error_counter();
    for line in 0..100 {
        log.write_all(format!("line {line}\n").as_bytes()).unwrap();
    }
    let begin = Instant::now();
    drop(guard);
    let waited = begin.elapsed();
    let (written, counted) = (WRITTEN.load(SeqCst), errors.dropped_lines());
    println!("100 lines queued; dropping the guard took {waited:.1?}; {written} lines are written, {counted} are counted as dropped");
    let as_stated = written == 0 && counted == 0 && waited < Duration::from_millis(1900);
    println!("{}", if as_stated { "as stated: main ends here with status 0" } else { "CHANGED" });
    std::process::exit(if as_stated { 0 } else { 1 });
}
RUST
CARGO_TARGET_DIR=$dir/target cargo run --quiet
