//! A program that writes and says what is durable is killed without warning, again and again.

use std::{
    future::poll_fn,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use futures::executor::block_on;
use mosaik::{
    groups::{
        raft::Stored,
        storage::{Disk, Storage},
    },
    testing::StorageScript,
};
use tempfile::TempDir;

use super::load;

/// Batches that the victim keeps under way.
const IN_FLIGHT: u64 = 16;

#[test]
fn killed_ten_times() {
    kill_loop(10);
}

#[test]
#[ignore = "takes half a minute: for the command in the book"]
fn killed_two_hundred_times() {
    kill_loop(200);
}

fn kill_loop(times: u64) {
    let dir = TempDir::new().unwrap();
    let (mut stored, mut acknowledged, mut torn) = (Stored::default(), 0, 0);
    let mut random = StorageScript::new(times);
    for life in 0..times {
        let (lines, micros) = (random.random(120), random.random(3000));
        let reported = run_and_kill(dir.path(), life, lines, Duration::from_micros(micros));
        let found = load(dir.path()).unwrap_or_else(|error| panic!("life {life}: {error}"));
        // Everything that was reported, and perhaps some of what was under way.
        let mut script = StorageScript::resume(life, stored);
        let mut batches = 0;
        while batches < reported || *script.image() != found {
            assert!(
                batches < reported + 2 * IN_FLIGHT,
                "life {life}: {reported} reported, the store has none of the prefixes"
            );
            script.batch();
            batches += 1;
        }
        acknowledged += reported;
        torn += batches - reported;
        stored = found;
    }
    println!("{times} lives, {acknowledged} batches acknowledged, {torn} more were there, 0 lost");
    assert!(acknowledged > times, "killed too early to mean anything");
}

/// Starts the victim, kills it a while after it has printed so many lines, and returns the last token it printed.
fn run_and_kill(dir: &Path, life: u64, lines: u64, then: Duration) -> u64 {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "storage::kill::victim", "--ignored", "--nocapture", "--quiet"])
        .env("STORAGE_DIR", dir)
        .env("STORAGE_LIFE", life.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut reported = 0;
    let token = |line: String| line.strip_prefix("durable ").and_then(|token| token.parse().ok());
    for token in said.by_ref().filter_map(token).take(lines as usize) {
        reported = token;
    }
    thread::sleep(then);
    victim.kill().unwrap();
    victim.wait().unwrap();
    // What it said before it died counts too.
    said.filter_map(token).last().unwrap_or(reported)
}

/// Not a test: what `kill_loop` kills.
#[test]
#[ignore = "started by the kill loop"]
fn victim() {
    let (Ok(dir), Ok(life)) = (std::env::var("STORAGE_DIR"), std::env::var("STORAGE_LIFE")) else { return };
    let mut disk = Disk::open(dir).unwrap();
    let mut script = StorageScript::resume(life.parse().unwrap(), disk.load().unwrap());
    let (mut token, mut durable) = (0, 0);
    loop {
        while token < durable + IN_FLIGHT {
            token += 1;
            disk.submit(token, script.batch());
        }
        durable = block_on(poll_fn(|cx| disk.poll_durable(cx))).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "durable {durable}").unwrap();
        out.flush().unwrap();
    }
}
