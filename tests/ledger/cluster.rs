//! Three processes of the ledger example on this machine, and what is done to them.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// The example.
pub const LEDGER: &str = env!("CARGO_BIN_EXE_ledger");
/// The same with the timing for one building.
pub const LAN: &str = env!("CARGO_BIN_EXE_lan");
const KEY: &str = "0123456789abcdef0123456789abcdef";
/// For what has no promise of its own.
pub const SOON: Duration = Duration::from_mins(1);

/// Where a member runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The network namespace, if not that of the test.
    pub namespace: Option<String>,
    pub listen: SocketAddr,
    pub api: SocketAddr,
}

/// One member, running or not.
pub struct Branch {
    program: &'static str,
    name: usize,
    pub place: Place,
    data: PathBuf,
    bootstrap: Vec<String>,
    process: Option<Running>,
}

struct Running {
    child: Child,
    /// What it printed on stderr.
    lines: Receiver<String>,
}

/// Three members and their data.
pub struct Cluster {
    pub branches: Vec<Branch>,
    /// Just before the first process was started.
    pub begun: Instant,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts three members on loopback.
    pub fn on_loopback(program: &'static str) -> Self {
        let place = || {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            let (listen, api) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
            Place { namespace: None, listen, api }
        };
        Self::start(program, vec![place(), place(), place()])
    }

    /// Starts a member at each place.
    pub fn start(program: &'static str, places: Vec<Place>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let contacts: Vec<_> = places.iter().enumerate().map(|(name, place)| contact(name, place.listen)).collect();
        let branch = |(name, place): (usize, Place)| {
            let bootstrap = contacts.iter().enumerate().filter(|(other, _)| *other != name);
            let bootstrap = bootstrap.map(|(_, contact)| contact.clone()).collect();
            Branch { program, name, place, data: dir.path().join(name.to_string()), bootstrap, process: None }
        };
        let branches = places.into_iter().enumerate().map(branch).collect();
        let mut cluster = Self { branches, begun: Instant::now(), _dir: dir };
        cluster.branches.iter_mut().for_each(Branch::spawn);
        cluster.branches.iter_mut().for_each(Branch::wait_for_api);
        cluster
    }

    /// The member that leads, once there is one.
    pub fn leader(&self) -> usize {
        let deadline = Instant::now() + SOON;
        loop {
            let leads = |branch: &Branch| branch.role().as_deref() == Some("leader");
            if let Some(leader) = self.branches.iter().position(leads) {
                return leader;
            }
            assert!(Instant::now() < deadline, "nobody leads");
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Waits until every member runs, follows the leader and has all of the log.
    pub fn wait_whole(&self) {
        let deadline = Instant::now() + SOON;
        while !self.is_whole() {
            assert!(Instant::now() < deadline, "not whole: {:?}", self.statuses());
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Waits until the leader names so many members whose clocks are wrong.
    pub fn wait_skewed(&self, count: usize) {
        let deadline = Instant::now() + SOON;
        let named = |status: &Value| {
            let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
            members.iter().filter(|member| !member["clock_skew_ms"].is_null()).count()
        };
        while !self.statuses().iter().any(|status| status["role"] == "leader" && named(status) == count) {
            assert!(Instant::now() < deadline, "{count} wrong clocks are not named: {:?}", self.statuses());
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn is_whole(&self) -> bool {
        let statuses = self.statuses();
        let leaders = statuses.iter().filter(|status| status["role"] == "leader").count();
        let voters = |status: &Value| {
            let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
            members
                .iter()
                .filter(|member| member["kind"] == "voter" && member["lag"].as_u64().unwrap_or(0) < 1000)
                .count()
        };
        leaders == 1
            && statuses.iter().all(|status| {
                ["leader", "follower"].contains(&status["role"].as_str().unwrap_or_default()) && voters(status) == 3
            })
    }

    fn statuses(&self) -> Vec<Value> {
        self.branches.iter().map(|branch| branch.status().unwrap_or(Value::Null)).collect()
    }
}

/// How the others reach a member: its id follows from its name.
fn contact(name: usize, listen: SocketAddr) -> String {
    let output = Command::new(LEDGER).args(["id", "--secret", &secret(name)]).output().unwrap();
    let id = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    format!("{}@{listen}", id.trim())
}

fn secret(name: usize) -> String {
    format!("{:064x}", 0x001e_d6e4 + name)
}

impl Branch {
    /// Starts its process, with the data that it had.
    pub fn spawn(&mut self) {
        let mut command = match &self.place.namespace {
            None => Command::new(self.program),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, self.program]);
                command
            }
        };
        let (secret, listen, api) = (secret(self.name), self.place.listen.to_string(), self.place.api.to_string());
        command
            .args(["run", "bank", "--secret", &secret, "--listen", &listen, "--api", &api, "--data-dir"])
            .arg(&self.data);
        self.bootstrap.iter().for_each(|contact| _ = command.args(["--bootstrap", contact]));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MOSAIK_")) {
            command.env_remove(name);
        }
        command.env("MOSAIK_TEST_CLOCK", self.clock());
        command.env("LEDGER_KEY", KEY).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = sync_channel(4096);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::Builder::new()
            .spawn(move || {
                // What finds no room is not missed.
                stderr.lines().map_while(Result::ok).for_each(|line| drop(sender.try_send(line)));
            })
            .unwrap();
        self.process = Some(Running { child, lines });
    }

    /// Waits until its process serves its API.
    pub fn wait_for_api(&mut self) {
        let lines = &self.process.as_ref().unwrap().lines;
        let mut seen = Vec::new();
        loop {
            match lines.recv_timeout(SOON) {
                Ok(line) if line.starts_with("api ") => return,
                Ok(line) => seen.push(line),
                Err(error) => panic!("branch {} does not start: {error}; it says:\n{}", self.name, seen.join("\n")),
            }
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.process.as_ref().unwrap().child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Sets its wall clock so many seconds ahead of the true time, or behind it.
    pub fn set_clock(&self, seconds: i64) {
        let next = self.clock().with_extension("next");
        fs::write(&next, seconds.to_string()).unwrap();
        fs::rename(next, self.clock()).unwrap();
    }

    fn clock(&self) -> PathBuf {
        self.data.with_extension("clock")
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.child.kill().unwrap();
            process.child.wait().unwrap();
        }
    }

    /// SIGTERM; returns when it has departed, and checks that it did so cleanly.
    pub fn terminate(&mut self) {
        self.signal("TERM");
        let status = self.process.take().unwrap().child.wait().unwrap();
        assert!(status.success(), "branch {} ends with {status}", self.name);
    }

    /// One request over a connection of its own; nothing when the member does not answer.
    pub fn ask(&self, request: &Value) -> Option<Value> {
        let mut stream = TcpStream::connect_timeout(&self.place.api, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.write_all(format!("{request}\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    fn status(&self) -> Option<Value> {
        self.ask(&json!({"op": "status"}))?.get_mut("ok").map(Value::take)
    }

    fn role(&self) -> Option<String> {
        self.status()?["role"].as_str().map(String::from)
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        self.kill();
    }
}
