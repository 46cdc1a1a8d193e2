//! Durable storage beside the plainest thing that could do the same: write the batch, `fdatasync`, in the same run.

use std::{
    collections::VecDeque,
    fs::{self, File},
    future::poll_fn,
    io::{Seek, SeekFrom, Write as _},
    path::{Path, PathBuf},
    task::Poll,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use mosaik::groups::{
    raft::{Command, Digest, Entry, Payload, SessionId, Write},
    storage::{Disk, Storage},
};
use tokio::sync::{mpsc, oneshot};

use crate::conditions;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where to write; on the file system that is to be measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Rounds; each measures everything once, in turn.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// How long each is measured per round, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Writers, each with one command under way.
    #[arg(long, default_value_t = 64)]
    writers: usize,
    /// Sizes of a command's body, in bytes.
    #[arg(long, value_delimiter = ',', default_value = "64,1024")]
    bytes: Vec<usize>,
    /// Length of the log whose recovery is measured, in MiB; 0 for none.
    #[arg(long, default_value_t = 1024)]
    recover: u64,
}

/// Zeros that the contender with the prepared file has ahead of it.
const STEP: usize = 1 << 20;

pub async fn run(options: Options) -> Result<()> {
    let dir = options.dir.join(format!("mosaik-bench-disk-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let done = measure(&dir, &options).await;
    fs::remove_dir_all(&dir)?;
    done
}

async fn measure(dir: &Path, options: &Options) -> Result<()> {
    let (kind, device) = file_system(dir)?;
    ensure!(kind != "tmpfs" && kind != "ramfs", "{} is on {kind}, where fdatasync does nothing", dir.display());
    println!("- file system: {kind} on {device}; load average {:.2}", conditions::load());
    println!("- fdatasync of 4 KiB appended: p50 {:.3} ms, p99 {:.3} ms", p(dir, false)?.0, p(dir, false)?.1);
    println!("- fdatasync of 4 KiB written again: p50 {:.3} ms, p99 {:.3} ms", p(dir, true)?.0, p(dir, true)?.1);
    println!(
        "- {} writers, one command each under way; {} rounds of {} s\n",
        options.writers, options.runs, options.seconds
    );
    println!("| body | | k commands/s | of write+fdatasync | commands per fdatasync |");
    println!("| --- | --- | --- | --- | --- |");
    for bytes in &options.bytes {
        commands(dir, *bytes, options).await?;
    }
    if options.recover > 0 {
        recovery(dir, options.recover)?;
    }
    println!("- load average at the end: {:.2}", conditions::load());
    Ok(())
}

async fn commands(dir: &Path, bytes: usize, options: &Options) -> Result<()> {
    let time = Duration::from_secs_f64(options.seconds);
    let names = ["write+fdatasync, appending", "write+fdatasync into zeroed space", "Disk, one owner", "Disk, tasks"];
    let mut rates = vec![Vec::new(); names.len()];
    let mut groups = vec![Vec::new(); names.len()];
    for _ in 0..options.runs {
        for (n, _) in names.iter().enumerate() {
            let path = dir.join("contender");
            let (commands, syncs, took) = match n {
                0 | 1 => raw(&path, bytes, options.writers, time, n == 1)?,
                2 => owner(&path, bytes, options.writers, time).await?,
                _ => tasks(&path, bytes, options.writers, time).await?,
            };
            rates[n].push(commands as f64 / took.as_secs_f64() / 1e3);
            groups[n].push(commands as f64 / syncs as f64);
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
    }
    let base = rates[0].clone();
    for (n, name) in names.iter().enumerate() {
        let ratios: Vec<f64> = rates[n].iter().zip(&base).map(|(rate, base)| rate / base).collect();
        println!(
            "| {bytes} B | {name} | {} | {} | {:.0} |",
            range(&rates[n], 1),
            range(&ratios, 2),
            median(&groups[n])
        );
    }
    Ok(())
}

fn median(of: &[f64]) -> f64 {
    let mut of = of.to_vec();
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

fn range(of: &[f64], digits: usize) -> String {
    let min = of.iter().copied().fold(f64::INFINITY, f64::min);
    let max = of.iter().copied().fold(0.0, f64::max);
    format!("{:.digits$} ({min:.digits$}..{max:.digits$})", median(of))
}

/// A log as a group makes it.
struct Log {
    body: Bytes,
    last: u64,
    hash: Digest,
}

impl Log {
    fn new(bytes: usize) -> Self {
        Self { body: Bytes::from(vec![0x5A; bytes]), last: 0, hash: Digest::default() }
    }

    fn next(&mut self) -> Entry {
        self.last += 1;
        let body = self.body.clone();
        let command = Command {
            session: SessionId(u128::MAX),
            opened: 1,
            sequence: self.last,
            settled: 0,
            attempted: 1 << 40,
            body,
        };
        let entry = Entry::after(&self.hash, self.last, 1, (1 << 30, 1 << 40), Payload::Command(command));
        self.hash = entry.hash;
        entry
    }

    fn batch(&mut self, count: usize) -> Vec<Entry> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// What is to be beaten: encode all writers' commands, write, `fdatasync`, again.
fn raw(path: &Path, bytes: usize, writers: usize, time: Duration, zeroed: bool) -> Result<(u64, u64, Duration)> {
    let (mut file, mut log) = (File::create(path)?, Log::new(bytes));
    let (mut at, mut end, zeros) = (0, 0, vec![0; STEP]);
    let start = Instant::now();
    let mut syncs = 0;
    while start.elapsed() < time {
        let batch = postcard::to_stdvec(&log.batch(writers))?;
        if zeroed && at + batch.len() > end {
            file.seek(SeekFrom::Start(end as u64))?;
            file.write_all(&zeros)?;
            file.sync_data()?;
            end += STEP;
            file.seek(SeekFrom::Start(at as u64))?;
        }
        file.write_all(&batch)?;
        file.sync_data()?;
        at += batch.len();
        syncs += 1;
    }
    Ok((log.last, syncs, start.elapsed()))
}

/// All writers' commands are handed over by one task, as a worker with a full queue does it; a writer's next command
/// follows when its last one is durable.
async fn owner(path: &Path, bytes: usize, writers: usize, time: Duration) -> Result<(u64, u64, Duration)> {
    let (mut disk, mut log) = open(path, bytes)?;
    let start = Instant::now();
    let (mut token, mut syncs) = (0, 0);
    while start.elapsed() < time {
        token += 1;
        disk.submit(token, vec![Write::Replace(log.batch(writers))]);
        while poll_fn(|cx| disk.poll_durable(cx)).await? < token {}
        syncs += 1;
    }
    Ok((log.last, syncs, start.elapsed()))
}

/// Each writer is a task; whatever has come is one batch, and what comes while an `fdatasync` runs waits for the next.
async fn tasks(path: &Path, bytes: usize, writers: usize, time: Duration) -> Result<(u64, u64, Duration)> {
    let (mut disk, mut log) = open(path, bytes)?;
    let (commands, mut incoming) = mpsc::channel::<oneshot::Sender<()>>(writers);
    let start = Instant::now();
    for _ in 0..writers {
        let commands = commands.clone();
        tokio::spawn(async move {
            while start.elapsed() < time {
                let (done, durable) = oneshot::channel();
                if commands.send(done).await.is_err() || durable.await.is_err() {
                    return;
                }
            }
        });
    }
    drop(commands);
    let (mut token, mut syncs, mut came) = (0, 0, Vec::new());
    let mut waiting: VecDeque<(u64, Vec<oneshot::Sender<()>>)> = VecDeque::new();
    loop {
        let mut closed = false;
        let durable = poll_fn(|cx| {
            if let Poll::Ready(durable) = disk.poll_durable(cx) {
                return Poll::Ready(Some(durable));
            }
            match incoming.poll_recv_many(cx, &mut came, writers) {
                Poll::Ready(0) => {
                    closed = true;
                    if waiting.is_empty() { Poll::Ready(None) } else { Poll::Pending }
                }
                Poll::Ready(_) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        let durable = durable.await.transpose()?;
        if !came.is_empty() {
            token += 1;
            disk.submit(token, vec![Write::Replace(log.batch(came.len()))]);
            waiting.push_back((token, std::mem::take(&mut came)));
        }
        if let Some(durable) = durable {
            syncs += 1;
            while waiting.front().is_some_and(|(token, _)| *token <= durable) {
                let (_, done) = waiting.pop_front().context("checked")?;
                done.into_iter().for_each(|done| _ = done.send(()));
            }
        }
        if closed && waiting.is_empty() {
            return Ok((log.last, syncs, start.elapsed()));
        }
    }
}

fn open(path: &Path, bytes: usize) -> Result<(Disk, Log)> {
    let mut disk = Disk::open(path)?;
    disk.load()?;
    Ok((disk, Log::new(bytes)))
}

/// Writes a log of so many MiB in commands of 1 KiB and reads it back, with and without the cache of the system.
fn recovery(dir: &Path, mib: u64) -> Result<()> {
    let path = dir.join("recovery");
    let (mut disk, mut log) = open(&path, 1024)?;
    let start = Instant::now();
    let mut durable = 0;
    for token in 1..=mib * 4 {
        disk.submit(token, vec![Write::Replace(log.batch(256))]);
        // At most 16 MiB wait.
        while durable + 64 < token {
            durable = futures::executor::block_on(poll_fn(|cx| disk.poll_durable(cx)))?;
        }
    }
    drop(disk);
    println!("\n- {mib} MiB in commands of 1 KiB: written in {:.1} s", start.elapsed().as_secs_f64());
    let cold = fs::write("/proc/sys/vm/drop_caches", "3").is_ok();
    for what in
        [if cold { "from the device" } else { "from the cache (dropping it is not permitted)" }, "from the cache"]
    {
        let start = Instant::now();
        let mut disk = Disk::open(&path)?;
        let entries = disk.load()?.entries.len() as u64;
        println!("- recovered {what}: {entries} entries in {:.2} s", start.elapsed().as_secs_f64());
        ensure!(entries == log.last, "{entries} of {} entries", log.last);
    }
    Ok(())
}

/// Median and 99th percentile, ms.
/// The median of an `fdatasync` after 4 KiB were appended to a file in the directory, in seconds.
pub fn sync_time(dir: &Path) -> Result<f64> {
    let (kind, _) = file_system(dir)?;
    ensure!(kind != "tmpfs" && kind != "ramfs", "{} is on {kind}, where fdatasync does nothing", dir.display());
    let (p50, _) = p(dir, false)?;
    fs::remove_file(dir.join(PROBE))?;
    Ok(p50 / 1e3)
}

const PROBE: &str = "mosaik-bench-probe";

fn p(dir: &Path, again: bool) -> Result<(f64, f64)> {
    let mut file = File::create(dir.join(PROBE))?;
    let block = [7; 4096];
    let mut times = Vec::new();
    for _ in 0..300 {
        if again && !times.is_empty() {
            file.seek(SeekFrom::Start(0))?;
        }
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

/// Type and device of the file system that holds the directory.
fn file_system(dir: &Path) -> Result<(String, String)> {
    let dir = dir.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("which file system this is, only Linux says")?;
    let mut best: Option<(usize, String, String)> = None;
    for line in mounts.lines() {
        let (Some(point), Some((_, rest))) = (line.split(' ').nth(4), line.split_once(" - ")) else { continue };
        let mut rest = rest.split(' ');
        let (Some(kind), Some(device)) = (rest.next(), rest.next()) else { continue };
        if dir.starts_with(point) && best.as_ref().is_none_or(|(len, ..)| point.len() >= *len) {
            best = Some((point.len(), kind.to_owned(), device.to_owned()));
        }
    }
    let Some((_, kind, device)) = best else { bail!("no mount holds {}", dir.display()) };
    Ok((kind, device))
}
