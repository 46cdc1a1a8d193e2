//! Runs of one contender, each in a fresh process: this program again, with a hidden subcommand.

use std::{env, process::Stdio, str::FromStr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::{process::Command, time::timeout};

use crate::{
    contender::{
        ours::{self, Lane},
        ours_group, peer, raw,
    },
    work::{self, Figures, Who, Work},
};

/// Tries of one run before its bench fails.
pub const TRIES: usize = 4;

/// What a child is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    who: Who,
    work: Work,
    /// A core for each worker of the runtime.
    pub pinned: bool,
}

/// As it stands on the command line.
impl FromStr for Task {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// What all runs have in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// The peer's home relay; empty without the peer.
    pub relay: String,
    /// Transport settings of plain iroh (see `quic`).
    pub quic: String,
    /// What carries the framework's streams and bonds.
    pub lane: Lane,
    pub timeout: Duration,
    /// Workers of the runtime run on any core, of groups, too.
    pub unpinned: bool,
}

/// The body of a child: runs and prints the figures as one line of JSON.
pub async fn serve(task: Task) -> Result<()> {
    let figures = work::run(task.who, &task.work).await;
    ours_group::clean();
    let figures = figures?;
    println!("{}", serde_json::to_string(&figures)?);
    // Shutting down is not part of any figure.
    std::process::exit(0)
}

/// Runs until it succeeds. Returns the figures and how many tries failed.
pub async fn run(who: Who, work: &Work, common: &Common) -> Result<(Figures, usize)> {
    let mut failed = 0;
    loop {
        match once(who, work, common).await {
            Ok(figures) => return Ok((figures, failed)),
            Err(error) => {
                failed += 1;
                eprintln!("  {who:?} {work:?}: try {failed} of {TRIES} failed: {error:#}");
                ensure!(failed < TRIES, "{who:?} {work:?} failed {failed} times: {error:#}");
            }
        }
    }
}

async fn once(who: Who, work: &Work, common: &Common) -> Result<Figures> {
    let task = serde_json::to_string(&Task { who, work: work.clone(), pinned: work.sleeps() && !common.unpinned })?;
    let output = Command::new(env::current_exe()?)
        .args(["child", &task])
        .env(peer::RELAY, &common.relay)
        .env("RUST_BACKTRACE", "0")
        .env(raw::SETTINGS, &common.quic)
        .env(ours::LANE, common.lane.name())
        // Where sockets are made; what is there already is taken where the system has none.
        .env("XDG_RUNTIME_DIR", env::var_os("XDG_RUNTIME_DIR").unwrap_or_else(|| env::temp_dir().into()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(common.timeout, output).await.context("timed out")??;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("no figures")
}
