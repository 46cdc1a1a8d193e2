//! Real processes on 127.0.0.1: the weather example is started, killed and restarted as an operator would do it, with
//! nothing but its command line, its output and its exit status to go by.

#![expect(clippy::disallowed_methods, reason = "processes live in real time")]

use std::{
    io::{BufRead, BufReader},
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

pub(super) const WEATHER: &str = env!("CARGO_BIN_EXE_weather");
const PROGRAM: &str = env!("CARGO_BIN_EXE_program");
/// For what has no promise of its own: the machine may be busy.
const SOON: Duration = Duration::from_secs(20);

/// A promised time, stretched by how much more the machine has to do than it can: it is a promise about a machine that
/// is not overloaded.
fn promised(time: Duration) -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse().ok());
    let cores = thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    time.mul_f64((load.unwrap_or(0.0) / cores).clamp(1.0, 20.0))
}

/// A running process whose output is read line by line. Killed when dropped.
pub(super) struct Process {
    child: Child,
    pub(super) stdout: Lines,
    pub(super) stderr: Lines,
}

/// The lines of one pipe, those seen so far and those to come.
pub(super) struct Lines {
    what: String,
    coming: Receiver<String>,
    pub(super) seen: Vec<String>,
}

impl Lines {
    /// Of a pipe that is not read yet.
    fn new(what: String) -> Self {
        Self { what, coming: sync_channel(0).1, seen: Vec::new() }
    }

    /// Begins to read.
    pub(super) fn read_from(&mut self, pipe: impl std::io::Read + Send + 'static) {
        let (sender, coming) = sync_channel(65_536);
        thread::Builder::new()
            .spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            })
            .unwrap();
        self.coming = coming;
    }

    /// The next line that fits, unless the deadline passes.
    pub(super) fn wait(&mut self, deadline: Instant, what: &str, fits: impl Fn(&str) -> bool) -> String {
        loop {
            match self.coming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if fits(&line) {
                        return line;
                    }
                }
                Err(reason) => {
                    let ended = if reason == RecvTimeoutError::Timeout { "in time" } else { "before the end" };
                    panic!("{}: no {what} {ended}; it printed:\n{}", self.what, self.seen.join("\n"));
                }
            }
        }
    }

    /// As [`wait`](Self::wait), also if the line was printed before.
    pub(super) fn has(&mut self, deadline: Instant, what: &str, fits: impl Fn(&str) -> bool) {
        if !self.seen.iter().any(|line| fits(line)) {
            self.wait(deadline, what, fits);
        }
    }

    /// Everything, once the process has ended.
    pub(super) fn rest(&mut self) -> String {
        while let Ok(line) = self.coming.recv_timeout(SOON) {
            self.seen.push(line);
        }
        self.seen.join("\n")
    }
}

impl Process {
    pub(super) fn start(program: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let (mut process, stderr) = Self::start_unread(program, args, env);
        process.stderr.read_from(stderr);
        process
    }

    /// As [`start`](Self::start), but nobody reads stderr until it is given to [`Lines::read_from`].
    pub(super) fn start_unread(program: &str, args: &[&str], env: &[(&str, &str)]) -> (Self, ChildStderr) {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MOSAIK_")) {
            command.env_remove(name);
        }
        command.args(args).envs(env.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let what = |pipe: &str| format!("{} {} ({pipe})", Path::new(program).display(), args.join(" "));
        let (mut stdout, stderr) = (Lines::new(what("stdout")), Lines::new(what("stderr")));
        stdout.read_from(child.stdout.take().unwrap());
        let unread = child.stderr.take().unwrap();
        (Self { child, stdout, stderr }, unread)
    }

    /// Starts a role and returns it with its peer id and dialable address, which are the first line on stderr.
    fn run(args: &[&str]) -> (Self, Contact) {
        let mut process = Self::start(WEATHER, &[&["run"], args].concat(), &[]);
        let contact = process.contact();
        (process, contact)
    }

    /// Where it listens, from its first line on stderr.
    pub(super) fn contact(&mut self) -> Contact {
        let line = self.stderr.wait(Instant::now() + SOON, "line", |_| true);
        let address = line.strip_prefix("listening ").unwrap_or_else(|| panic!("the first line is {line:?}"));
        let (id, _) = address.split_once('@').unwrap();
        Contact { id: id.into(), address: address.into() }
    }

    pub(super) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub(super) fn kill(&mut self) {
        self.signal("KILL");
        self.child.wait().unwrap();
    }

    /// Whether it has not ended.
    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(super) fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "still running after {within:?}; stderr:\n{}",
                self.stderr.seen.join("\n")
            );
            thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) struct Contact {
    pub(super) id: String,
    pub(super) address: String,
}

/// A temporary directory with secret keys, one per name.
pub(super) struct Keys(tempfile::TempDir);

impl Keys {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

/// A port that was free a moment ago, for a process that has to come back on the same one.
pub(super) fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn sensor(keys: &Keys, id: &str, bootstrap: &str) -> (Process, Contact) {
    Process::run(&[
        "sensor",
        "--id",
        id,
        "--secret",
        &keys.path(id),
        "--bootstrap",
        bootstrap,
        "--listen",
        "127.0.0.1:0",
    ])
}

/// Waits until the display has printed a new reading of each sensor.
fn hears(display: &mut Process, ids: &[&str], deadline: Instant) {
    for id in ids {
        let reading = format!(": {id} = 21.5 C");
        display.stdout.wait(deadline, &format!("new reading of sensor {id}"), |line| line.ends_with(&reading));
    }
}

#[test]
fn three_processes_find_each_other_and_a_killed_sensor_comes_back() {
    let keys = Keys::new();
    let (mut display, at) = Process::run(&["display", "--listen", "127.0.0.1:0"]);
    let (_one, first) = sensor(&keys, "1", &at.address);
    let (mut two, second) = sensor(&keys, "2", &at.address);
    hears(&mut display, &["1", "2"], Instant::now() + promised(Duration::from_secs(3)));
    for contact in [&first, &second] {
        let line = format!("peer discovered {}", contact.id);
        display.stderr.has(Instant::now() + SOON, &line, |seen| seen == line);
    }

    two.kill();
    let departed = format!("peer departed {}", second.id);
    display
        .stderr
        .wait(Instant::now() + promised(Duration::from_secs(10)), &departed, |line| line.starts_with(&departed));

    // What it sent before it died is not mistaken for a return.
    while display.stdout.coming.try_recv().is_ok() {}
    let (_two, again) = sensor(&keys, "2", &at.address);
    let deadline = Instant::now() + promised(Duration::from_secs(3));
    assert_eq!(again.id, second.id, "the same secret is the same peer");
    hears(&mut display, &["2"], deadline);
    let returned = format!("peer returned {}", second.id);
    display.stderr.wait(Instant::now() + SOON, &returned, |line| line == returned);
}

/// A sensor comes back at another port while a node of another network takes its old one.
#[test]
fn a_sensor_that_moves_is_reached_with_its_old_port_taken() {
    let keys = Keys::new();
    let (mut display, at) = Process::run(&["display", "--listen", "127.0.0.1:0"]);
    let secret = keys.path("1");
    let sensor = |listen: &str| {
        let args = ["sensor", "--id", "1", "--secret", &secret, "--bootstrap", &at.address, "--listen", listen];
        Process::run(&args)
    };
    let (mut first, before) = sensor("127.0.0.1:0");
    hears(&mut display, &["1"], Instant::now() + SOON);
    let (_, port) = before.address.split_once('@').unwrap();
    first.kill();
    let (_other, taken) = Process::run(&["display", "--listen", port, "--network", "another"]);
    assert!(taken.address.ends_with(port));
    // What it sent before it died is not mistaken for a return.
    while display.stdout.coming.try_recv().is_ok() {}
    let (_second, after) = sensor("127.0.0.1:0");
    let deadline = Instant::now() + promised(Duration::from_secs(3));
    assert_eq!(after.id, before.id);
    hears(&mut display, &["1"], deadline);
}

fn display_comes_back(data_dir: Option<&str>, within: Duration) {
    let keys = Keys::new();
    let (secret, listen) = (keys.path("display"), format!("127.0.0.1:{}", free_port()));
    let data_dir = data_dir.map(|name| keys.path(name));
    let mut args = vec!["display", "--secret", &secret, "--listen", &listen];
    if let Some(data_dir) = &data_dir {
        args.extend(["--data-dir", data_dir]);
    }
    let (mut display, at) = Process::run(&args);
    let (_one, _) = sensor(&keys, "1", &at.address);
    let (_two, _) = sensor(&keys, "2", &at.address);
    hears(&mut display, &["1", "2"], Instant::now() + SOON);

    display.kill();
    let (mut display, again) = Process::run(&args);
    let deadline = Instant::now() + promised(within);
    assert_eq!(again.address, at.address);
    hears(&mut display, &["1", "2"], deadline);
}

#[test]
fn a_display_that_was_killed_is_found_by_its_sensors() {
    display_comes_back(None, Duration::from_secs(6));
}

#[test]
fn a_display_with_a_data_directory_remembers_its_sensors() {
    display_comes_back(Some("data"), Duration::from_secs(3));
}

/// A second process on one data directory is refused, and named the directory; a crash frees it.
#[test]
fn a_data_directory_is_for_one_process() {
    let keys = Keys::new();
    let data = keys.path("data");
    let args = ["run", "display", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let (mut first, at) = Process::run(&args[1..]);
    let second = Command::new(WEATHER).args(args).output().unwrap();
    let stderr = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("another node uses the data directory") && stderr.contains(&data), "{stderr}");
    first.kill();
    let (_third, again) = Process::run(&args[1..]);
    assert_eq!(again.id, at.id);
}

/// A host that has IPv6 only.
#[test]
fn nodes_meet_over_ipv6() {
    let keys = Keys::new();
    let (mut display, at) = Process::run(&["display", "--listen", "[::1]:0"]);
    assert!(at.address.starts_with(&format!("{}@[::1]:", at.id)), "{}", at.address);
    let secret = keys.path("1");
    let args = ["sensor", "--id", "1", "--secret", &secret, "--bootstrap", &at.address, "--listen", "[::1]:0"];
    let (_sensor, sensor) = Process::run(&args);
    assert!(sensor.address.contains("@[::1]:"), "{}", sensor.address);
    hears(&mut display, &["1"], Instant::now() + SOON);
    // All addresses of IPv6: one of them is said, which the sensor reaches.
    let (mut everywhere, at) = Process::run(&["display", "--listen", "[::]:0", "--network", "everywhere"]);
    let (_, socket) = at.address.split_once('@').unwrap();
    let socket: std::net::SocketAddr = socket.parse().unwrap();
    assert!(socket.is_ipv6() && !socket.ip().is_unspecified() && socket.port() != 0, "{socket}");
    let args = ["sensor", "--id", "2", "--bootstrap", &at.address, "--listen", "[::]:0", "--network", "everywhere"];
    let (_sensor, _) = Process::run(&args);
    hears(&mut everywhere, &["2"], Instant::now() + SOON);
}

/// An address outside is announced, whatever the node itself sees.
#[test]
fn an_outside_address_is_announced() {
    let args = ["display", "--listen", "127.0.0.1:0", "--announce", "203.0.113.7:4433,[2001:db8::7]:4433"];
    let (mut display, at) = Process::run(&args);
    assert!(at.address.contains("@127.0.0.1:"), "{}", at.address);
    for outside in ["announcing 203.0.113.7:4433", "announcing [2001:db8::7]:4433"] {
        display.stderr.has(Instant::now() + SOON, outside, |line| line == outside);
    }
    // What others are told is asked as they would.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let addrs = runtime.block_on(async {
        let listen = "127.0.0.1:0".parse().unwrap();
        let builder = mosaik::Network::builder("weather").with_listen(listen).with_bootstrap(at.address.as_str());
        let node = builder.build().await.unwrap();
        let display: mosaik::PeerId = at.id.parse().unwrap();
        let known = || node.discovery().catalog().get(display).is_some();
        assert!(mosaik::testing::eventually(SOON, known).await);
        let entry = node.discovery().catalog().get(display).unwrap().clone();
        let addrs: Vec<String> = entry.addr().ip_addrs().map(ToString::to_string).collect();
        node.shutdown().await;
        addrs
    });
    assert!(addrs.iter().any(|addr| addr == "203.0.113.7:4433"), "{addrs:?}");
    assert!(addrs.iter().any(|addr| addr == "[2001:db8::7]:4433"), "{addrs:?}");
    assert!(addrs.iter().any(|addr| addr.starts_with("127.0.0.1:")), "{addrs:?}");
    // As a variable, with a host name.
    let env = [("MOSAIK_ANNOUNCE", "localhost:4433")];
    let mut display = Process::start(WEATHER, &["run", "display", "--listen", "127.0.0.1:0"], &env);
    display
        .stderr
        .wait(Instant::now() + SOON, "line", |line| line.starts_with("announcing ") && line.ends_with(":4433"));
}

/// Where there is no way for multicast: one line of ours, and all else works.
#[test]
fn without_a_multicast_route_there_is_one_line() {
    let script = format!("ip link set lo up && exec {WEATHER} run display --listen 127.0.0.1:0 --mdns");
    let possible = Command::new("unshare").args(["-rn", "ip", "link", "set", "lo", "up"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no network namespaces here");
        return;
    }
    let mut display = Process::start("unshare", &["-rn", "sh", "-c", &script], &[]);
    display.contact();
    let ours = "no way for multicast DNS here";
    display.stderr.wait(Instant::now() + SOON, ours, |line| line.contains(ours));
    // The library's lines would come once a second.
    thread::park_timeout(Duration::from_millis(2500));
    display.signal("TERM");
    assert_eq!(display.wait(SOON).code(), Some(0));
    let stderr = display.stderr.rest();
    let lines: Vec<&str> = stderr.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert!(matches!(lines[..], [line] if line.contains(ours)), "{stderr}");
}

#[test]
fn a_signal_ends_a_role_gracefully() {
    let keys = Keys::new();
    // However much is logged, the first line is where it listens.
    let (mut display, at) = Process::run(&["display", "--listen", "127.0.0.1:0", "--log", "debug"]);
    for (id, signal) in [("1", "TERM"), ("2", "INT")] {
        let (mut process, contact) = sensor(&keys, id, &at.address);
        hears(&mut display, &[id], Instant::now() + SOON);
        process.signal(signal);
        assert_eq!(process.wait(promised(Duration::from_secs(2))).code(), Some(0), "SIG{signal}");
        let departed = format!("peer departed {}", contact.id);
        // Said by the sensor, not found out: sooner than a silent peer is given up.
        display
            .stderr
            .wait(Instant::now() + promised(Duration::from_secs(1)), &departed, |line| line.starts_with(&departed));
    }
    display.signal("TERM");
    assert_eq!(display.wait(promised(Duration::from_secs(2))).code(), Some(0));
}

#[test]
fn dev_shows_readings_and_stops_by_itself() {
    let mut dev = Process::start(WEATHER, &["dev", "--for", "3s"], &[]);
    dev.stdout.wait(Instant::now() + SOON, "reading", |line| line.ends_with(": 7 = 21.5 C"));
    assert_eq!(dev.wait(SOON).code(), Some(0));
    let stderr = dev.stderr.rest();
    assert!(stderr.contains("[sensor] listening ") && stderr.contains("[display] listening "), "{stderr}");
}

#[test]
fn dev_with_chaos_says_what_it_does_and_ends_well() {
    let mut dev = Process::start(WEATHER, &["dev", "--replicas", "sensor=3", "--chaos=3", "--for", "5s"], &[]);
    assert_eq!(dev.wait(SOON).code(), Some(0));
    let stderr = dev.stderr.rest();
    let said: Vec<_> = stderr.lines().filter_map(|line| line.strip_prefix("[chaos] ")).collect();
    assert!(said.first().is_some_and(|line| line.ends_with("the same again with --chaos=3")), "{stderr}");
    let begins = |line: &&&str| ["kills ", "freezes ", "parts "].iter().any(|word| line.starts_with(word));
    let ends = |line: &&&str| ["starts ", "lets "].iter().any(|word| line.starts_with(word));
    let (begun, ended) = (said.iter().filter(begins).count(), said.iter().filter(ends).count());
    assert!(begun > 0 && (ended == begun || ended + 1 == begun), "{stderr}");
    assert!(said.iter().filter(begins).all(|line| line.contains("sensor-") || line.contains("display")), "{stderr}");
}

#[test]
fn dev_says_what_chaos_may_be() {
    let output = Command::new(WEATHER).args(["dev", "--chaos=soon"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = Command::new(WEATHER).args(["dev", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("--chaos[=<SEED>]") && help.contains("one at a time"), "{help}");
}

#[test]
fn a_graph_is_also_a_picture() {
    let graph = |format: &str| Command::new(WEATHER).args(["graph", "-f", format]).output().unwrap();
    let output = graph("svg");
    assert!(output.status.success(), "{output:?}");
    let svg = String::from_utf8(output.stdout).unwrap();
    assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"), "{svg}");
    for name in ["sensor", "display", "readings"] {
        assert!(svg.contains(name), "{name}: {svg}");
    }
    let output = Command::new(WEATHER).args(["graph", "--machine", "none"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("no role of this app has a group"), "{stderr}");
}

#[test]
fn id_prints_the_peer_id_and_keeps_a_new_key_to_its_owner() {
    let output = |args: &[&str]| {
        let output = Command::new(WEATHER).args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let hex = "0".repeat(63) + "1";
    let id = output(&["id", "--secret", &hex]);
    assert_eq!(id, "4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29\n");

    let keys = Keys::new();
    let file = keys.path("key");
    let made = output(&["id", "--secret", &file]);
    assert_eq!(made, output(&["id", "--secret", &file]), "the key is kept");
    assert_eq!(PathBuf::from(&file).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let (_process, at) = Process::run(&["display", "--listen", "127.0.0.1:0", "--secret", &file]);
    assert_eq!(made, format!("{}\n", at.id));

    // A key that others can read is used, and said to be so after the first line.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (mut process, _) = Process::run(&["display", "--listen", "127.0.0.1:0", "--secret", &file]);
    process.stderr.wait(Instant::now() + SOON, "warning", |line| line.contains("others can read"));
}

#[test]
fn exit_status_tells_usage_from_failure() {
    let keys = Keys::new();
    std::fs::write(keys.path("broken"), "not a key").unwrap();
    let broken = keys.path("broken");
    for (args, code, part) in [
        (vec![], 2, "Usage"),
        (vec!["run"], 2, "Usage"),
        (vec!["run", "thermometer"], 2, "thermometer"),
        (vec!["run", "sensor", "--id", "three"], 2, "invalid digit"),
        (vec!["run", "sensor", "--bootstrap", "nowhere"], 2, "64 hex digits"),
        (vec!["run", "sensor", "--announce", "4433"], 2, "HOST:PORT"),
        (vec!["run", "sensor", "--announce", "nowhere.invalid:4433"], 1, "--announce nowhere.invalid:4433: "),
        (vec!["dev", "--for", "soon"], 2, "500ms"),
        (vec!["graph", "-f", "png"], 2, "mermaid"),
        (vec!["run", "sensor", "--secret", &broken], 1, "does not hold 64 hex digits"),
        (vec!["run", "sensor", "--listen", "192.0.2.254:1"], 1, "192.0.2.254:1"),
        (vec!["check"], 0, ""),
        (vec!["--help"], 0, ""),
        (vec!["--version"], 0, ""),
    ] {
        let output = Command::new(WEATHER).args(&args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(part), "{args:?}: {stderr}");
    }
}

#[test]
fn help_names_every_flag_and_its_variable() {
    let output = Command::new(WEATHER).args(["run", "sensor", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for flag in ["network", "secret", "bootstrap", "listen", "announce", "data-dir", "local-lane", "tag", "log", "id"] {
        let variable = format!("[env: MOSAIK_{}", flag.replace('-', "_").to_uppercase());
        assert!(help.contains(&format!("--{flag} ")) && help.contains(&variable), "{flag}:\n{help}");
    }
}

#[test]
fn flags_can_be_given_as_variables() {
    let (mut display, at) = Process::run(&["display", "--listen", "127.0.0.1:0", "--network", "by-variable"]);
    let env =
        [("MOSAIK_ID", "41"), ("MOSAIK_NETWORK", "by-variable"), ("MOSAIK_BOOTSTRAP", &at.address), ("MOSAIK_TAG", "")];
    let _sensor = Process::start(WEATHER, &["run", "sensor", "--listen", "127.0.0.1:0"], &env);
    hears(&mut display, &["41"], Instant::now() + SOON);
}

#[test]
fn a_program_with_its_own_main_gets_a_node() {
    let start = |how| Process::start(PROGRAM, &["--listen", "127.0.0.1:0"], &[("PROGRAM", how)]);
    let mut ok = start("ok");
    let listening = ok.stderr.wait(Instant::now() + SOON, "line", |_| true);
    let id = ok.stdout.wait(Instant::now() + SOON, "peer id", |_| true);
    assert!(listening.starts_with(&format!("listening {id}@127.0.0.1:")), "{listening}");
    assert_eq!(ok.wait(SOON).code(), Some(0));

    let mut exchange = start("exchange");
    let status = exchange.wait(SOON);
    assert!(status.success(), "{}", exchange.stderr.rest());

    let mut error = start("error");
    assert_eq!(error.wait(SOON).code(), Some(1));
    assert!(error.stderr.rest().contains("error: the effect: the cause"));

    // What the node is of no use without has panicked: the reason is the error.
    let mut failed = start("fail");
    assert_eq!(failed.wait(SOON).code(), Some(1));
    let stderr = failed.stderr.rest();
    let reason = "error: the node ended because its task \"made to panic\" panicked: asked for by a test";
    assert!(stderr.lines().any(|line| line == reason), "{stderr}");

    let mut waiting = start("wait");
    waiting.stdout.wait(Instant::now() + SOON, "peer id", |_| true);
    waiting.signal("TERM");
    assert_eq!(waiting.wait(promised(Duration::from_secs(2))).code(), Some(0));

    // Stuck in a call that never yields: the limit holds, and a second signal does not wait for it.
    let mut stuck = start("block");
    stuck.stdout.wait(Instant::now() + SOON, "peer id", |_| true);
    stuck.signal("TERM");
    assert_eq!(stuck.wait(promised(Duration::from_secs(3))).code(), Some(1));
    let mut stuck = start("block");
    stuck.stdout.wait(Instant::now() + SOON, "peer id", |_| true);
    stuck.signal("INT");
    stuck.stderr.wait(Instant::now() + SOON, "notice", |line| line.starts_with("SIGINT"));
    stuck.signal("INT");
    assert_eq!(stuck.wait(promised(Duration::from_secs(1))).code(), Some(130));
}

/// How many lines of `talk` there are, as many as no reader of a pipe that stops leaves room for.
const LINES: u32 = 30_000;

/// A program that logs [`LINES`] lines to a pipe that nobody reads, and gets to their end.
fn talk_to_nobody() -> (Process, ChildStderr) {
    let env = [("PROGRAM", "talk"), ("LINES", &*LINES.to_string())];
    let args = ["--listen", "127.0.0.1:0", "--log", "program=info"];
    let (mut process, stderr) = Process::start_unread(PROGRAM, &args, &env);
    process.stdout.wait(Instant::now() + SOON, "end of what it says", |line| line == "all is said");
    (process, stderr)
}

#[test]
fn nobody_reads_stderr_and_a_signal_ends_the_process_gracefully() {
    let (mut process, _unread) = talk_to_nobody();
    process.signal("TERM");
    assert_eq!(process.wait(SOON).code(), Some(0));
}

#[test]
fn what_nobody_read_in_time_is_counted() {
    let (mut process, stderr) = talk_to_nobody();
    process.stderr.read_from(stderr);
    let (mut read, mut dropped, mut panics) = (0, 0, 0);
    let deadline = Instant::now() + SOON;
    while read + dropped < LINES {
        let line = process.stderr.wait(deadline, "more", |_| true);
        if let Some((number, _)) = line.split_once(" lines dropped") {
            dropped += number.parse::<u32>().unwrap();
        } else if line.contains("line=") {
            read += 1;
        } else if line.contains("on purpose") {
            panics += 1;
        }
    }
    assert!(read > 0 && dropped > 0, "{read} lines were read, {dropped} dropped");
    assert!(read + dropped <= LINES + 3, "the report of the panic may be among the dropped, {panics}");
    process.signal("TERM");
    assert_eq!(process.wait(SOON).code(), Some(0));
    assert!(process.stderr.rest().contains("SIGTERM"), "it is read again");
}

#[test]
fn nothing_is_lost_at_the_end_when_somebody_reads() {
    // More than a pipe holds, and less than may wait.
    let env = [("PROGRAM", "recite"), ("LINES", "5000")];
    let args = ["--listen", "127.0.0.1:0", "--log", "program=info"];
    let (mut process, stderr) = Process::start_unread(PROGRAM, &args, &env);
    process.stdout.wait(Instant::now() + SOON, "end of what it says", |line| line == "all is said");
    process.stderr.read_from(stderr);
    let text = process.stderr.rest();
    assert_eq!(process.wait(SOON).code(), Some(0));
    let numbers = text.lines().filter_map(|line| line.rsplit_once("line=")?.1.parse::<u32>().ok());
    assert_eq!(numbers.collect::<Vec<_>>(), (0..5000).collect::<Vec<_>>(), "all of it, in order");
    assert!(text.starts_with("listening ") && text.contains("panicked at") && text.contains("on purpose"), "{text}");
}

#[test]
fn what_looks_like_a_key_is_never_a_file() {
    let keys = Keys::new();
    let run = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = Command::new(WEATHER);
        command.args(args).envs(env.iter().copied()).current_dir(keys.path("")).output().unwrap()
    };
    let hex = "0123456789abcdef".repeat(4);
    let looks = [
        hex[1..].to_owned(),
        format!("{hex}0"),
        format!("0x{hex}"),
        format!("{}O", &hex[1..]),
        hex[..40].to_owned(),
        hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap()).collect::<Vec<_>>().join(":"),
    ];
    for text in &looks {
        for (args, env) in [(vec!["id", "--secret", text], vec![]), (vec!["id"], vec![("MOSAIK_SECRET", &**text)])] {
            let output = run(&args, &env);
            let stderr = String::from_utf8(output.stderr.clone()).unwrap();
            assert_eq!(output.status.code(), Some(2), "{args:?} {env:?}: {output:?}");
            assert!(stderr.contains("64 hex digits") && stderr.contains("--secret"), "{stderr}");
            assert!(!stderr.contains(&text[..32]), "a key that is nearly right is not printed: {stderr}");
            assert_eq!(stderr.contains("MOSAIK_SECRET"), args.len() == 1, "{stderr}");
        }
    }
    assert_eq!(std::fs::read_dir(keys.path("")).unwrap().count(), 0, "no file is made");

    // A key from a file has a line end, and a file may have any name.
    let key = format!("{hex}\n");
    assert!(run(&["id"], &[("MOSAIK_SECRET", &key)]).status.success());
    let file = format!("./{}", &hex[1..]);
    assert!(run(&["id", "--secret", &file], &[]).status.success());
    assert!(Path::new(&keys.path(&file)).is_file());
    // An id of a network likewise is no name.
    let output = run(&["run", "sensor", "--network", &hex[1..]], &[]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("64 hex digits"), "{stderr}");
}

#[test]
fn a_value_from_the_environment_is_said_to_be_one() {
    let keys = Keys::new();
    std::fs::write(keys.path("broken"), "not a key").unwrap();
    let broken = keys.path("broken");
    let docker = "tcp://10.0.0.1:80";
    // With a secret that cannot be used a command line that is right ends with 1.
    let run = |args: &[&str], env: &[(&str, &str)]| {
        let args = [&["run", "sensor", "--secret", &broken], args].concat();
        let mut process = Process::start(WEATHER, &args, env);
        (process.wait(SOON).code(), process.stderr.rest())
    };
    for (env, parts) in [
        (vec![("MOSAIK_ID", docker)], vec!["MOSAIK_ID", "MOSAIK_SENSOR_ID", "invalid digit"]),
        (vec![("MOSAIK_SENSOR_ID", docker)], vec!["MOSAIK_SENSOR_ID", "invalid digit"]),
        (vec![("MOSAIK_SENSOR_ID", docker), ("MOSAIK_ID", "1")], vec!["MOSAIK_SENSOR_ID", "invalid digit"]),
        (vec![("MOSAIK_LISTEN", docker)], vec!["MOSAIK_LISTEN", "invalid socket address"]),
        (vec![("MOSAIK_BOOTSTRAP", "nowhere,elsewhere")], vec!["MOSAIK_BOOTSTRAP", "nowhere"]),
        (vec![("MOSAIK_MDNS", "perhaps")], vec!["MOSAIK_MDNS", "yes"]),
    ] {
        let (code, stderr) = run(&[], &env);
        assert_eq!(code, Some(2), "{env:?}: {stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{env:?}: {stderr}");
    }
    let (code, stderr) = run(&["--id", "x"], &[("MOSAIK_ID", docker)]);
    assert!(code == Some(2) && !stderr.contains("MOSAIK"), "{stderr}");
    for (args, env) in [
        (vec![], vec![("MOSAIK_ID", docker), ("MOSAIK_SENSOR_ID", "4")]),
        (vec!["--id", "4"], vec![("MOSAIK_ID", docker), ("MOSAIK_SENSOR_ID", docker)]),
        (vec![], vec![("MOSAIK_ID", ""), ("MOSAIK_SENSOR_ID", "")]),
    ] {
        let (code, stderr) = run(&args, &env);
        assert_eq!(code, Some(1), "{args:?} {env:?}: {stderr}");
    }
    for switch in ["1", "yes", "on", "true", "TRUE", "y", "0", "no", "off", "false", " 1\n", ""] {
        let (code, stderr) = run(&[], &[("MOSAIK_MDNS", switch)]);
        assert_eq!(code, Some(1), "MOSAIK_MDNS={switch}: {stderr}");
    }
}

#[test]
fn a_flag_of_a_role_has_a_variable_of_its_own() {
    let (mut display, at) = Process::run(&["display", "--listen", "127.0.0.1:0", "--network", "own-variable"]);
    let env = [("MOSAIK_ID", "41"), ("MOSAIK_SENSOR_ID", "42")];
    let args = ["run", "sensor", "--listen", "127.0.0.1:0", "--network", "own-variable", "--bootstrap", &at.address];
    let _sensor = Process::start(WEATHER, &args, &env);
    hears(&mut display, &["42"], Instant::now() + SOON);
    let help = Command::new(WEATHER).args(["run", "sensor", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("MOSAIK_SENSOR_ID"), "{help}");
}

#[test]
fn processes_that_make_one_key_file_at_once_have_the_same_key() {
    let keys = Keys::new();
    for round in 0..4 {
        let file = keys.path(&format!("key-{round}"));
        let start = || Process::start(WEATHER, &["id", "--secret", &file], &[]);
        let mut all: Vec<_> = (0..8).map(|_| start()).collect();
        let ids: std::collections::BTreeSet<_> = all
            .iter_mut()
            .map(|process| {
                let id = process.stdout.rest();
                assert_eq!(process.wait(SOON).code(), Some(0), "{}", process.stderr.rest());
                id
            })
            .collect();
        assert!(ids.len() == 1 && !ids.contains(""), "{ids:?}");
    }
    assert_eq!(std::fs::read_dir(keys.path("")).unwrap().count(), 4, "nothing else is left behind");
}

/// A handler that waits in `send` because nobody is subscribed would otherwise look as if it had nothing to do.
#[test]
fn a_handler_that_waits_for_a_subscriber_is_named() {
    let args = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let mut stuck = Process::start(PROGRAM, &args, &[("PROGRAM", "stuck")]);
    let at = super::metrics::endpoint(&mut stuck);
    let line = stuck.stderr.wait(Instant::now() + SOON, "warning", |line| line.contains("WARN"));
    for part in ["place", "stuck", "orders", "nobody is subscribed"] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    let waits = |answer: &str| {
        answer.lines().any(|line| line.starts_with("mosaik_stream_waiting_senders") && line.ends_with(" 1"))
    };
    super::metrics::until(at, waits);
}

/// A handler that computes is named while it does.
#[test]
fn a_handler_that_computes_for_seconds_is_named() {
    let mut busy = Process::start(PROGRAM, &["--listen", "127.0.0.1:0"], &[("PROGRAM", "busy")]);
    let line = busy.stderr.wait(Instant::now() + SOON, "warning", |line| line.contains("WARN"));
    for part in ["compute", "busy"] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
}
