//! What the figures depend on, for the head of the table.

use std::{fs, process::Command};

use crate::child::Common;

/// Crates whose versions say what was measured.
const CRATES: [&str; 6] = ["mosaik", "iroh", "noq", "noq-proto", "tokio", "postcard"];

/// One Markdown list.
pub fn describe(runs: usize, seconds: f64, common: &Common) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let quic = if common.quic.is_empty() { "as the framework's" } else { &common.quic };
    let lane = common.lane.name();
    let workers = if common.unpinned { "on any core" } else { "pinned, one to a core" };
    [
        format!("- date: {}, git {}", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]), commit()),
        format!("- machine: {cores} cores ({}), Linux {}", processor(), read("/proc/sys/kernel/osrelease")),
        format!(
            "- UDP buffers: rmem_max {}, wmem_max {}",
            read("/proc/sys/net/core/rmem_max"),
            read("/proc/sys/net/core/wmem_max")
        ),
        format!("- load average at the end: {}", read("/proc/loadavg")),
        format!("- versions: {}; {}", versions(), output("rustc", &["--version"])),
        format!("- {runs} runs of each, alternating; streams: {seconds} s each after 0.5 s of warm-up"),
        format!("- groups: workers of the runtime {workers}"),
        format!("- streams and bonds of mosaik: by {lane}"),
        format!("- transport settings of plain iroh: {quic}"),
        "- item: `struct { sequence: u64, body: Bytes }` by postcard; its size is 8 bytes and the body".to_owned(),
    ]
    .join("\n")
}

/// The load average of the last minute.
pub fn load() -> f64 {
    read("/proc/loadavg").split(' ').next().and_then(|one| one.parse().ok()).unwrap_or(f64::NAN)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().ok();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn commit() -> String {
    output("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"])
}

fn processor() -> String {
    let info = read("/proc/cpuinfo");
    let model = info.lines().find(|line| line.starts_with("model name"));
    model.and_then(|line| line.split_once(": ")).map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}

/// Read from the lock file that this program was built with.
fn versions() -> String {
    let lock = include_str!("../Cargo.lock");
    let packages = lock.split("[[package]]").filter_map(|package| {
        let field = |name: &str| {
            package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'))
        };
        let (name, version) = (field("name")?, field("version")?);
        // Of the two packages of our name the one without a source is ours.
        let shown = if name == "mosaik" && field("source").is_some() { "peer" } else { name };
        CRATES.contains(&name).then(|| format!("{shown} {version}"))
    });
    packages.collect::<Vec<_>>().join(", ")
}
