//! What starts and watches a process: files of flags, `--ready-file`, and the protocol of systemd.

#![expect(clippy::disallowed_methods, reason = "processes live in real time")]

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process::Command,
    time::{Duration, Instant},
};

use super::processes::{Process, WEATHER};

const SOON: Duration = Duration::from_secs(20);

fn weather(args: &[&str], env: &[(&str, &str)]) -> (bool, String, String) {
    let mut command = Command::new(WEATHER);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MOSAIK_")) {
        command.env_remove(name);
    }
    let output = command.args(args).envs(env.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_file_gives_what_neither_flags_nor_variables_give() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weather.toml");
    let file = path.to_str().unwrap();
    fs::write(&path, "network = \"outside\"\ntag = [\"a\", \"b\"]\n[sensor]\nid = 3\nlog = \"info\"\n").unwrap();
    let shown = |args: &[&str], env: &[(&str, &str)]| {
        let (fine, stdout, stderr) = weather(&[&["config", "sensor", "--config", file], args].concat(), env);
        assert!(fine, "{stderr}");
        stdout
    };
    let all = shown(&["--listen", "127.0.0.1:0"], &[("MOSAIK_NETWORK", "beside"), ("MOSAIK_SECRET", &"0".repeat(64))]);
    for line in [
        "network = \"beside\"  # MOSAIK_NETWORK".to_owned(),
        "listen = \"127.0.0.1:0\"  # the command line".to_owned(),
        format!("tag = [\"a\", \"b\"]  # `tag` in {file}"),
        format!("log = \"info\"  # `sensor.log` in {file}"),
        "# secret is not shown; from MOSAIK_SECRET".to_owned(),
        "# metrics is not set".to_owned(),
        format!("[sensor]\nid = \"3\"  # `sensor.id` in {file}"),
    ] {
        assert!(all.contains(&line), "{line} in\n{all}");
    }
    assert!(shown(&["--id", "5"], &[]).contains("id = \"5\"  # the command line"));
    // What it prints is a file that says the same.
    let again = dir.path().join("again.toml");
    fs::write(&again, shown(&[], &[])).unwrap();
    let (_, printed, _) = weather(&["config", "sensor"], &[("MOSAIK_CONFIG", again.to_str().unwrap())]);
    let values =
        |text: &str| text.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(values(&printed), values(&shown(&[], &[])));
    // The display has no such flag.
    assert!(!weather(&["config", "display", "--config", file], &[]).1.contains("sensor"));

    for (text, part) in [
        ("[sensor]\nid = \"x\"", "the value is that of `sensor.id` in "),
        ("lisen = 1", "`lisen`: there is no such flag of the node"),
        ("[pump]", "`pump`: there is no such role; known are sensor, display"),
        ("id = ", "line 1"),
    ] {
        fs::write(&path, text).unwrap();
        let (fine, _, stderr) = weather(&["run", "sensor", "--config", file], &[]);
        assert!(!fine && stderr.contains(part), "{text}: {stderr}");
    }
    let (fine, _, stderr) = weather(&["run", "sensor", "--config", "/nowhere/weather.toml"], &[]);
    assert!(!fine && stderr.contains("cannot read /nowhere/weather.toml"), "{stderr}");
}

fn told(socket: &UnixDatagram, until: Instant, what: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut buffer = [0; 256];
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    while !all.iter().any(|state| state == what) {
        assert!(Instant::now() < until, "not told {what}: {all:?}");
        if let Ok(length) = socket.recv(&mut buffer) {
            all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
    all
}

#[test]
fn a_supervisor_is_told_when_the_endpoints_are_online_and_when_the_node_ends() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("mosaik-test-{}", std::process::id());
    let path = dir.path().join("notify");
    let by_path = UnixDatagram::bind(&path).unwrap();
    let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
    let by_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
    let (ready, at) = (dir.path().join("ready"), format!("@{name}"));
    fs::write(&ready, "of an earlier run").unwrap();

    // A consumer is online when it has a producer.
    let args = ["run", "display", "--listen", "127.0.0.1:0", "--ready-file", ready.to_str().unwrap()];
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    let mut display = Process::start(WEATHER, &args, &env);
    let address = display.contact().address;
    let alive = told(&by_path, Instant::now() + SOON, "WATCHDOG=1");
    assert!(!alive.iter().any(|state| state == "READY=1") && !ready.exists(), "{alive:?}");

    let args = ["run", "sensor", "--listen", "127.0.0.1:0", "--bootstrap", &address];
    let mut sensor = Process::start(WEATHER, &args, &[("NOTIFY_SOCKET", &at)]);
    assert_eq!(told(&by_name, Instant::now() + SOON, "READY=1"), ["READY=1"], "no watchdog was asked for");
    told(&by_path, Instant::now() + SOON, "READY=1");
    let until = Instant::now() + SOON;
    while !ready.exists() {
        assert!(Instant::now() < until, "no file");
        std::thread::yield_now();
    }
    assert_eq!(fs::read_to_string(&ready).unwrap().trim(), address);

    for (process, socket) in [(&mut display, &by_path), (&mut sensor, &by_name)] {
        process.signal("TERM");
        told(socket, Instant::now() + SOON, "STOPPING=1");
        assert!(process.wait(SOON).success());
    }
    assert!(!ready.exists());
}

#[test]
fn a_supervisor_that_is_not_there_is_named() {
    let args = ["run", "display", "--listen", "127.0.0.1:0"];
    let (fine, _, stderr) = weather(&args, &[("NOTIFY_SOCKET", "/nowhere/notify")]);
    assert!(!fine && stderr.contains("NOTIFY_SOCKET /nowhere/notify"), "{stderr}");
}

#[test]
fn an_app_prints_what_completes_its_command_line() {
    let (fine, script, _) = weather(&["completions", "bash"], &[]);
    assert!(fine && script.contains("weather") && script.contains("--ready-file"), "{script}");
}

#[test]
fn a_trial_run_has_as_many_nodes_of_a_role_as_asked_for() {
    let mut dev = Process::start(WEATHER, &["dev", "--replicas", "sensor=2,display=1"], &[]);
    let until = Instant::now() + SOON;
    for name in ["sensor-1", "sensor-2", "display"] {
        dev.stderr.has(until, name, |line| line.starts_with(&format!("[{name}] listening ")));
    }
    let sensor = |line: &str| line.split(':').next().unwrap().to_owned();
    let first = sensor(&dev.stdout.wait(until, "reading", |_| true));
    dev.stdout.wait(until, "reading of the other sensor", |line| sensor(line) != first);
    dev.signal("TERM");
    assert!(dev.wait(SOON).success());
    for (wrong, part) in [("pump=2", "there are sensor, display"), ("sensor=0,display=0", "leaves none")] {
        let (fine, _, stderr) = weather(&["dev", "--for", "1s", "--replicas", wrong], &[]);
        assert!(!fine && stderr.contains(part), "{stderr}");
    }
}
