//! Metrics: the table is what the book says and what an endpoint serves, and the endpoint of a generated main works.

#![expect(clippy::disallowed_methods, reason = "processes live in real time")]

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use mosaik::metrics::{Kind, METRICS, Metric};

use super::processes::{Keys, Process};

const WEATHER: &str = env!("CARGO_BIN_EXE_weather");
const PROGRAM: &str = env!("CARGO_BIN_EXE_program");
const LEDGER: &str = env!("CARGO_BIN_EXE_ledger");
const SOON: Duration = Duration::from_mins(1);

#[test]
fn the_book_has_every_metric_and_no_other() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/metrics.md");
    let page = fs::read_to_string(page).unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `mosaik_")).collect();
    for metric in METRICS {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help);
        assert!(rows.contains(&row.as_str()), "missing in docs/src/metrics.md:\n{row}");
    }
    assert_eq!(rows.len(), METRICS.len());
}

#[test]
fn names_follow_the_conventions() {
    let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len(), "each has a name of its own");
    for metric in METRICS {
        let fits = metric.name.ends_with("_total") == (metric.kind == Kind::Counter)
            && (metric.name.ends_with("_seconds") || metric.kind != Kind::Histogram);
        assert!(fits, "{metric:?}");
    }
}

/// Where a process says that it serves metrics.
pub(super) fn endpoint(process: &mut Process) -> SocketAddr {
    let line = process.stderr.wait(Instant::now() + SOON, "metrics line", |line| line.starts_with("metrics "));
    let address = line.strip_prefix("metrics http://").and_then(|rest| rest.strip_suffix("/metrics"));
    address.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

fn scrape(at: SocketAddr) -> String {
    let mut connection = TcpStream::connect(at).unwrap();
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// Scrapes until it is so.
pub(super) fn until(at: SocketAddr, holds: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + SOON;
    loop {
        let answer = scrape(at);
        if holds(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{answer}");
    }
}

/// The greatest value of a metric with these labels; 0 if there is none.
fn value(answer: &str, metric: &str, labels: &[&str]) -> f64 {
    let fits = |line: &&str| line.starts_with(metric) && labels.iter().all(|label| line.contains(label));
    let values = answer.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse().ok());
    values.fold(0.0, f64::max)
}

/// Every line is of a metric of the table, with its labels, and is explained.
fn known(answer: &str) {
    for line in answer.lines().filter(|line| line.starts_with("mosaik_")) {
        let name = line.split(['{', ' ']).next().unwrap();
        let is = |metric: &&Metric| {
            let parts = ["", "_bucket", "_sum", "_count"];
            parts.iter().any(|part| name == format!("{}{part}", metric.name))
        };
        let metric = METRICS.iter().find(is).unwrap_or_else(|| panic!("not in the table: {line}"));
        assert!(metric.labels.iter().all(|label| line.contains(&format!("{label}=\""))), "{line}");
        let help = format!("# HELP {} {}", metric.name, metric.help);
        assert!(answer.contains(&help), "{} is not explained", metric.name);
    }
}

#[test]
fn roles_serve_what_they_count() {
    let mut weather = Process::start(WEATHER, &["dev", "--for", "1m", "--metrics", "127.0.0.1:0"], &[]);
    let at = endpoint(&mut weather);
    let received = |answer: &str| value(answer, "mosaik_stream_received_items_total", &["stream=\"readings\""]);
    let answer = until(at, |answer| received(answer) > 1.0);
    known(&answer);
    let handlers = ["role=\"display\"", "handler=\"show\""];
    assert!(value(&answer, "mosaik_role_handler_seconds_count", &handlers) > 0.0, "{answer}");
    assert!(value(&answer, "mosaik_stream_subscribers", &["stream=\"readings\""]) > 0.0, "{answer}");
    assert!(value(&answer, "mosaik_peers", &[]) > 0.0, "{answer}");
    let before = received(&answer);
    until(at, |answer| received(answer) > before);
}

#[test]
fn a_member_of_a_group_says_that_it_is_not_online() {
    let keys = Keys::new();
    let dir = keys.path("bank");
    let args = ["run", "bank", "--api", "127.0.0.1:0", "--data-dir", &dir, "--metrics", "127.0.0.1:0"];
    let mut bank = Process::start(LEDGER, &args, &[("LEDGER_KEY", "0123456789abcdef0123456789abcdef")]);
    bank.contact();
    let at = endpoint(&mut bank);
    let answer = until(at, |answer| answer.contains("mosaik_group_online{"));
    known(&answer);
    assert!(answer.contains("group=\"ledger\""), "{answer}");
    assert!(value(&answer, "mosaik_group_online", &["group=\"ledger\""]) == 0.0, "one founder of three: {answer}");
}

#[test]
fn an_address_that_cannot_be_used_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for (address, status, part) in
        [("nonsense", 2, "an IP address and a port"), (taken.as_str(), 1, "metrics cannot be served on")]
    {
        let mut process = Process::start(WEATHER, &["run", "display", "--metrics", address], &[]);
        let ended = process.wait(SOON);
        let told = process.stderr.rest();
        assert_eq!(ended.code(), Some(status), "{told}");
        assert!(told.contains(part), "{told}");
    }
}

/// A stream that is closed has no series any more, and a histogram of the program's own is counted in buckets.
#[test]
fn what_is_gone_has_no_series_and_own_histograms_have_buckets() {
    let args = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let mut program = Process::start(PROGRAM, &args, &[("PROGRAM", "measure")]);
    let at = endpoint(&mut program);
    let answer = until(at, |answer| answer.contains("stream=\"passing\"") && answer.contains("stream=\"lasting\""));
    known(&answer);
    let counts = |le: &str| value(&answer, "order_lines_bucket", &[le]);
    assert!(counts("le=\"10\"") < 0.5 && counts("le=\"+Inf\"") > 0.5, "{answer}");
    assert!(!answer.contains("quantile"), "{answer}");
    program.stdout.wait(Instant::now() + SOON, "line", |line| line == "passed");
    let answer = until(at, |answer| !answer.contains("stream=\"passing\""));
    assert!(answer.contains("stream=\"lasting\"") && answer.contains("order_lines_count 1"), "{answer}");
}
