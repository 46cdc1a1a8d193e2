//! The ledger example as processes on 127.0.0.1: branches are killed one by one and all at once, and what was acknowledged
//! is there afterwards.

#![expect(clippy::disallowed_methods, reason = "processes live in real time")]

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::processes::{Contact, Keys, Process, free_port};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");
const LEDGER: &str = env!("CARGO_BIN_EXE_ledger");
const KEY: (&str, &str) = ("LEDGER_KEY", "0123456789abcdef0123456789abcdef");
const SOON: Duration = Duration::from_mins(1);

/// A branch that can be started again as the same one.
struct Branch {
    args: Vec<String>,
    process: Process,
    contact: Contact,
    api: String,
}

impl Branch {
    fn start(keys: &Keys, name: &str, bootstrap: Option<&Contact>) -> Self {
        let (secret, data, listen) =
            (keys.path(name), keys.path(&format!("{name}.data")), format!("127.0.0.1:{}", free_port()));
        let mut args = vec!["run", "bank", "--secret", &secret, "--data-dir", &data, "--listen", &listen];
        args.extend(["--api", "127.0.0.1:0"]);
        if let Some(contact) = bootstrap {
            args.extend(["--bootstrap", &contact.address]);
        }
        Self::run(args.into_iter().map(String::from).collect())
    }

    fn run(args: Vec<String>) -> Self {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut process = Process::start(LEDGER, &words, &[KEY]);
        let contact = process.contact();
        let line = process.stderr.wait(Instant::now() + SOON, "api line", |line| line.starts_with("api "));
        Self { args, process, contact, api: line["api ".len()..].to_owned() }
    }

    /// The same branch once more, after it was killed.
    fn again(self) -> Self {
        Self::run(self.args.clone())
    }

    /// One request over a connection of its own; nothing when the branch is gone.
    fn ask(&self, request: &Value) -> Option<Value> {
        let mut stream = TcpStream::connect(&self.api).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        stream.write_all(format!("{request}\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    /// Asks until the answer is `ok`, and returns it.
    fn insists(&self, request: &Value) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let answer = self.ask(request);
            if let Some(ok) = answer.as_ref().and_then(|answer| answer.get("ok")) {
                return ok.clone();
            }
            assert!(
                Instant::now() < deadline,
                "{request}: {answer:?}; stderr:\n{}",
                self.process.stderr.seen.join("\n")
            );
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn balance(&self, consistency: &str) -> Value {
        self.insists(&json!({"op": "balance", "account": "a", "consistency": consistency, "timeout_ms": 1000}))
    }
}

/// A deposit of 1 that may be sent again.
fn deposit(seq: u64) -> Value {
    json!({"op": "deposit", "account": "a", "amount": 1, "session": "test", "seq": seq, "timeout_ms": 1000})
}

#[test]
fn what_was_acknowledged_survives_every_kill() {
    let keys = Keys::new();
    let one = Branch::start(&keys, "one", None);
    let two = Branch::start(&keys, "two", Some(&one.contact));
    let three = Branch::start(&keys, "three", Some(&one.contact));
    let mut branches = [one, two, three];
    let mut done = 0;
    for branch in &branches {
        done += 1;
        assert_eq!(branch.insists(&deposit(done)), json!(done));
    }

    for _ in 0..3 {
        let leader = leader(&branches);
        branches[leader].process.kill();
        let other = (leader + 1) % branches.len();
        done += 1;
        assert_eq!(branches[other].insists(&deposit(done)), json!(done), "the others go on");
        branches = branches.map(|mut branch| if branch.process.is_running() { branch } else { branch.again() });
        let deadline = Instant::now() + SOON;
        while branches[leader].balance("weak") != json!(done) {
            assert!(Instant::now() < deadline, "it does not catch up");
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    for branch in &mut branches {
        branch.process.kill();
    }
    let branches = branches.map(Branch::again);
    for branch in &branches {
        assert_eq!(branch.balance("strong"), json!(done), "all of it is on disk");
    }
    assert_eq!(branches[0].insists(&deposit(done)), json!(done), "also what a client was answered");
}

fn leader(branches: &[Branch]) -> usize {
    let deadline = Instant::now() + SOON;
    loop {
        let role = |branch: &Branch| branch.ask(&json!({"op": "status"}))?["ok"]["role"].as_str().map(String::from);
        if let Some(leader) = branches.iter().position(|branch| role(branch).as_deref() == Some("leader")) {
            return leader;
        }
        assert!(Instant::now() < deadline, "nobody leads");
        thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_branch_without_a_key_says_so_and_does_not_start() {
    for key in [None, Some(("LEDGER_KEY", ""))] {
        let args = ["run", "bank", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
        let mut process = Process::start(LEDGER, &args, key.as_slice());
        assert_eq!(process.wait(SOON).code(), Some(1));
        let stderr = process.stderr.rest();
        assert!(stderr.contains("LEDGER_KEY is not set") && stderr.contains("the group \"ledger\""), "{stderr}");
    }
}

#[test]
fn a_key_that_can_be_guessed_is_refused() {
    // White space at the ends is no part of a key, nor does it make one longer.
    for key in ["four", "fifteen letters", " fifteen letters \n\n"] {
        let args = ["run", "bank", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
        let mut process = Process::start(LEDGER, &args, &[("LEDGER_KEY", key)]);
        assert_eq!(process.wait(SOON).code(), Some(1));
        let stderr = process.stderr.rest();
        assert!(stderr.contains("LEDGER_KEY") && stderr.contains("16 bytes"), "{stderr}");
        assert!(!stderr.contains(key.trim()), "it is not printed: {stderr}");
    }
}

/// A key that the operator's command has made, in the file that the variable names.
#[test]
fn a_branch_reads_its_key_from_a_file() {
    let keys = Keys::new();
    let file = keys.path("ledger.key");
    let made = Command::new(OPERATOR).args(["keygen", "--group", &file]).output().unwrap();
    assert!(made.status.success() && made.stdout.is_empty(), "{made:?}");
    let args = ["run", "bank", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    let mut process = Process::start(LEDGER, &args, &[("LEDGER_KEY_FILE", &file)]);
    process.stderr.wait(Instant::now() + SOON, "api line", |line| line.starts_with("api "));

    std::fs::write(&file, "fifteen letters\n").unwrap();
    for file in [file, keys.path("none")] {
        let mut process = Process::start(LEDGER, &args, &[("LEDGER_KEY_FILE", &file)]);
        assert_eq!(process.wait(SOON).code(), Some(1));
        let stderr = process.stderr.rest();
        assert!(stderr.contains(&file) && stderr.contains("the group \"ledger\""), "{stderr}");
        assert!(!stderr.contains("fifteen"), "it is not printed: {stderr}");
    }
}

#[test]
fn the_group_is_in_help_roles_and_graph() {
    for (args, part) in [
        (vec!["run", "bank", "--help"], "LEDGER_KEY  The key of the group \"ledger\""),
        (vec!["run", "bank", "--help"], "--api <API>"),
        (vec!["roles"], "member of ledger (Ledger, 3 founders, key in LEDGER_KEY)"),
        (vec!["graph"], "r0 <--> g0"),
        (vec!["graph", "-f", "json"], "\"commands\":[\"deposit\",\"transfer\",\"cas\"]"),
        (vec!["check"], "nothing to complain about"),
    ] {
        let mut process = Process::start(LEDGER, &args, &[]);
        let stdout = process.stdout.rest();
        assert!(stdout.contains(part), "{args:?} prints:\n{stdout}");
    }
}
