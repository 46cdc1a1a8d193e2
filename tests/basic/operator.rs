//! The command `mosaik` as a new operator uses it: a beacon, two apps on it as processes of their own, and every command.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use mosaik::{Network, discovery::Bootstrap, stores::View};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::processes::{Contact, Keys, Process};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");
const WEATHER: &str = env!("CARGO_BIN_EXE_weather");
const LEDGER: &str = env!("CARGO_BIN_EXE_ledger");
const NETWORK: &str = "field";
const SOON: Duration = Duration::from_mins(1);

/// The sum of what was sold.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Turnover(u64);

impl View for Turnover {
    type Delta = u64;
    const NAME: &'static str = "turnover";

    fn fold(&mut self, sale: u64) {
        self.0 += sale;
    }
}

fn mosaik(args: &[&str]) -> Output {
    mosaik_with(args, &[])
}

fn mosaik_with(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(OPERATOR);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MOSAIK_")) {
        command.env_remove(name);
    }
    command.args(args).envs(env.iter().copied()).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Starts a node of the network.
fn start(program: &str, args: &[&str], env: &[(&str, &str)]) -> (Process, Contact) {
    let mut process = Process::start(program, &[args, &["--listen", "127.0.0.1:0"]].concat(), env);
    let contact = process.contact();
    (process, contact)
}

/// Whom to ask.
struct Asked {
    bootstrap: String,
}

impl Asked {
    fn run(&self, args: &[&str]) -> Output {
        mosaik(&[args, &["--network", NETWORK, "--bootstrap", &self.bootstrap]].concat())
    }

    fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        mosaik_with(&[args, &["--network", NETWORK, "--bootstrap", &self.bootstrap]].concat(), env)
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {output:?}"))
    }

    /// Asks until it is so.
    fn until(&self, args: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let output = self.run(&[args, &["--json"]].concat());
            if let Some(value) = serde_json::from_slice(&output.stdout).ok().filter(&holds) {
                return value;
            }
            assert!(Instant::now() < deadline, "{args:?}: {output:?}");
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The key moves leadership, and a preference keeps it.
fn handing_over(asked: &Asked, members: [&str; 3], key: [(&str, &str); 1]) {
    let leader_of = |value: &Value| {
        let all: Vec<_> = list(value).iter().flat_map(|node| list(&node["groups"])).collect();
        let first = all.first().and_then(|group| group["leader"].as_str()).map(str::to_owned);
        first.filter(|first| all.len() == 3 && all.iter().all(|group| group["leader"].as_str() == Some(first)))
    };
    let order = |what: &[&str]| asked.run_with(&[&["group"], what, &["--key-env", key[0].0]].concat(), &key);
    for to in members {
        let moved = order(&["transfer", "ledger", &to[..8]]);
        assert!(moved.status.success() && text(&moved).starts_with(to), "{moved:?}");
        asked.until(&["groups"], |value| leader_of(value).as_deref() == Some(to));
    }
    let other = asked.run_with(
        &["group", "transfer", "ledger", members[0], "--key-env", key[0].0],
        &[(key[0].0, "another key of the same length..")],
    );
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    let preferred = order(&["prefer", "ledger", members[0], "preferred"]);
    assert!(preferred.status.success() && text(&preferred).contains("is preferred"), "{preferred:?}");
    asked.until(&["groups"], |value| leader_of(value).as_deref() == Some(members[0]));
    let shown = text(&asked.run(&["groups", members[0]]));
    assert!(shown.contains("as leader: preferred"), "{shown}");
    let refused = order(&["transfer", "ledger", members[1]]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is fitter to lead"), "{refused:?}");
    let normal = order(&["prefer", "ledger", members[0], "normal"]);
    assert!(normal.status.success(), "{normal:?}");
}

/// The key seals the ledger, and every member says so.
fn sealing(asked: &Asked, key: [(&str, &str); 1]) {
    let seal = ["group", "seal", "ledger", "--key-env", key[0].0];
    let unset = asked.run_with(&seal, &[(key[0].0, "")]);
    assert_eq!(unset.status.code(), Some(1), "{unset:?}");
    let other = asked.run_with(&seal, &[(key[0].0, "another key of the same length..")]);
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    assert!(String::from_utf8_lossy(&other.stderr).contains("no member of the group"), "{other:?}");
    let sealed = asked.run_with(&seal, &key);
    assert!(sealed.status.success() && text(&sealed).contains("sealed at index"), "{sealed:?}");
    asked.until(&["groups"], |value| {
        let all: Vec<_> = list(value).iter().flat_map(|node| list(&node["groups"])).collect();
        let says =
            |group: &Value| list(&group["notes"]).iter().any(|note| note.to_string().contains("sealed at index"));
        all.len() == 3 && all.into_iter().all(says)
    });
}

#[test]
fn a_session_of_an_operator() {
    let keys = Keys::new();
    // A key, a beacon that uses it.
    let file = keys.path("beacon");
    let made = mosaik(&["keygen", &file]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(mosaik(&["keygen", &file]).status.code(), Some(1), "a key is not overwritten");
    let looks = mosaik(&["keygen", &"ab".repeat(31)]);
    assert_eq!(looks.status.code(), Some(2), "a key is no name of a file: {looks:?}");
    let (mut beacon, at) = start(OPERATOR, &["beacon", "--network", NETWORK, "--secret", &file], &[]);
    assert_eq!(text(&made).trim(), at.id, "it is the key's id");
    assert_eq!(text(&mosaik(&["id", "--secret", &file])), text(&made));
    let asked = Asked { bootstrap: at.address.clone() };

    // Two apps on it.
    let on_it = ["--network", NETWORK, "--bootstrap", &at.address];
    let (_sensor, sensor) = start(WEATHER, &[&["run", "sensor", "--id", "3"], &on_it[..]].concat(), &[]);
    let (_display, display) = start(WEATHER, &[&["run", "display"], &on_it[..]].concat(), &[]);
    let key = [("LEDGER_KEY", "0123456789abcdef0123456789abcdef")];
    let banks: Vec<_> = ["one", "two", "three"].map(|name| keys.path(name)).to_vec();
    let bank = |dir: &String| {
        let args = [&["run", "bank", "--api", "127.0.0.1:0", "--data-dir", dir], &on_it[..]].concat();
        start(LEDGER, &args, &key)
    };
    let banks: Vec<_> = banks.iter().map(bank).collect();

    let peers = asked.until(&["peers"], |value| list(&value["peers"]).len() == 5);
    assert_eq!(peers["node"]["id"], at.id.as_str());
    let shown = text(&asked.run(&["peers"]));
    assert!(shown.contains(&sensor.id) && shown.contains("  produces "), "{shown}");
    assert_eq!(asked.json(&["node", &sensor.id[..8]])["id"], sensor.id.as_str());

    let flows = |value: &Value| {
        let all: Vec<_> = list(value).iter().flat_map(|node| list(&node["streams"])).collect();
        all.len() == 2 && all.iter().any(|it| it["consumer"]["received"].as_u64() > Some(0))
    };
    asked.until(&["streams"], flows);
    let shown = text(&asked.run(&["streams", &display.id]));
    assert!(shown.contains("readings  consumer") && !shown.contains("producer,"), "{shown}");

    let together = |value: &Value| {
        let all: Vec<_> = list(value).iter().flat_map(|node| list(&node["groups"])).collect();
        all.len() == 3 && all.iter().all(|group| group["online"] == true && list(&group["members"]).len() == 3)
    };
    asked.until(&["groups"], together);
    let shown = text(&asked.run(&["groups"]));
    assert!(shown.contains("ledger (") && shown.contains("leader"), "{shown}");

    // Each command gives its places back when it ends: one after the other, many are answered.
    for _ in 0..40 {
        assert_eq!(asked.json(&["node"])["id"], at.id.as_str());
    }

    stores(&asked, &at.address);

    let pong = asked.run(&["ping", &banks[0].1.id, "--count", "3", "--interval", "10ms"]);
    assert!(pong.status.success() && text(&pong).contains("3 asked, 3 answered"), "{pong:?}");

    explanations(&asked, &sensor, &display, &banks[0].1);
    watching(&asked);
    let members = [&banks[0].1.id, &banks[1].1.id, &banks[2].1.id];
    handing_over(&asked, members.map(String::as_str), key);
    sealing(&asked, key);

    beacon.signal("TERM");
    assert_eq!(beacon.wait(SOON).code(), Some(0), "it leaves gracefully");
    let gone = asked.run(&["peers"]);
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
    assert!(String::from_utf8_lossy(&gone.stderr).contains("cannot reach"), "{gone:?}");
}

/// A primary and a replica of a store, which runs in this process for as long as it is looked at.
fn stores(asked: &Asked, beacon: &str) {
    // A node may be too busy to answer at once.
    let none = |value: &Value| list(value).iter().all(|node| node["stores"].as_array().is_some_and(Vec::is_empty));
    asked.until(&["stores"], none);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = || async {
        let builder = Network::builder(NETWORK).with_bootstrap(beacon.parse::<Bootstrap>().unwrap());
        builder.with_listen("127.0.0.1:0".parse().unwrap()).build().await.unwrap()
    };
    let ((p, primary), (r, replica)) = runtime.block_on(async {
        let (p, r) = (node().await, node().await);
        let primary = p.stores().primary::<Turnover>("turnover").build().unwrap();
        let replica = r.stores().replica::<Turnover>("turnover").build();
        let position = primary.apply(5).await.unwrap();
        replica.when().reaches(position).await.unwrap();
        ((p, primary), (r, replica))
    });
    let seen = |value: &Value| {
        let all: Vec<_> = list(value).iter().flat_map(|node| list(&node["stores"])).collect();
        let one = |kind: &str| all.iter().map(|it| &it[kind]).find(|it| it["seq"] == 1).cloned();
        one("primary").is_some() && one("replica").is_some_and(|replica| replica["state"] == "synced")
    };
    asked.until(&["stores"], seen);
    let ids = [&p, &r].map(|network| network.local().id().to_string());
    let shown = text(&asked.run(&["stores", &ids[1]]));
    assert!(shown.contains("turnover  replica of a turnover") && shown.contains("synced"), "{shown}");
    let shown = text(&asked.run(&["node", &ids[0]]));
    assert!(shown.contains("is the primary of 1 stores"), "{shown}");
    let explained = asked.run(&["explain", &ids[1], "turnover"]);
    assert!(text(&explained).starts_with("ok: "), "{explained:?}");
    drop((primary, replica));
    runtime.block_on(async {
        p.shutdown().await;
        r.shutdown().await;
    });
}

/// What is in the way is in the first line, and in the exit status.
fn explanations(asked: &Asked, sensor: &Contact, display: &Contact, bank: &Contact) {
    let first = |args: &[&str], status: i32, line: &str| {
        let output = asked.run(args);
        assert!(text(&output).starts_with(line), "{args:?}: expected {line:?}: {output:?}");
        assert_eq!(output.status.code(), Some(status), "{args:?}: {output:?}");
    };
    first(&["explain", &display.id, "readings"], 0, "ok: nothing is in the way\n");
    first(&["explain", &sensor.id, "readings", "--with", &display.id], 0, "ok: ");
    first(&["explain", &bank.id, "ledger"], 0, "ok: ");
    first(&["explain", &bank.id, "readings"], 3, "not involved: ");
    first(&["explain", &sensor.id, "ledger", "--with", &bank.id], 3, "not involved: ");
    assert_eq!(asked.json(&["explain", &bank.id, "readings"])["fault"], "not_involved");

    let (_lonely, lonely) = start(WEATHER, &["run", "display", "--network", NETWORK], &[]);
    first(&["explain", &lonely.address, "readings"], 3, "not discovered: ");
    let (_other, other) = start(WEATHER, &["run", "display", "--network", "another"], &[]);
    first(&["explain", &other.address, "readings"], 3, "other network: ");
}

/// `--watch` asks again until a signal.
fn watching(asked: &Asked) {
    let args = ["streams", "--json", "--watch=100ms", "--network", NETWORK, "--bootstrap", &asked.bootstrap];
    let mut watch = Process::start(OPERATOR, &args, &[]);
    for _ in 0..3 {
        let line = watch.stdout.wait(Instant::now() + SOON, "line", |_| true);
        assert!(serde_json::from_str::<Value>(&line).is_ok_and(|value| value.is_array()), "{line}");
    }
    watch.signal("INT");
    assert_eq!(watch.wait(SOON).code(), Some(0));
}

#[test]
fn the_exit_status_tells_usage_from_failure() {
    let nobody = format!("{}@127.0.0.1:9", "4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29");
    for (args, code, part) in [
        (vec![], 2, "Usage"),
        (vec!["--version"], 0, "mosaik"),
        (vec!["peers"], 2, "--network"),
        (vec!["beacon"], 2, "--network"),
        (vec!["peers", "--network", "a", "--bootstrap", "nowhere"], 2, "64 hex digits"),
        (vec!["peers", "--network", "a", "--bootstrap", &nobody], 1, "cannot reach"),
        (vec!["completions", "tcsh"], 2, "zsh"),
        (vec!["completions", "bash"], 0, "_mosaik"),
        (vec!["explain", "--help"], 0, "TARGET is the name of a stream"),
    ] {
        let output = mosaik(&args);
        let all = [output.stdout.clone(), output.stderr.clone()].concat();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(String::from_utf8_lossy(&all).contains(part), "{args:?}: {output:?}");
    }
}

/// The crate itself is built as an example and its test run (`examples/Cargo.toml`).
#[test]
fn a_crate_to_begin_with_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("order-flow");
    let crate_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../mosaik");
    let made = mosaik(&["new", path.to_str().unwrap(), "--mosaik", crate_dir]);
    assert!(made.status.success(), "{made:?}");
    let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
    let manifest = read("Cargo.toml");
    assert!(manifest.contains("name = \"order-flow\"") && manifest.contains("features = [\"testing\"]"), "{manifest}");
    assert!(read("src/main.rs").contains("name = \"order-flow\""));
    assert!(read("order-flow@.service").contains("ExecStart=/usr/local/bin/order-flow run %i"));
    for file in ["Cargo.toml", "src/main.rs", "README.md", "order-flow@.service", "ci/run"] {
        let text = read(file);
        assert!(
            ["@NAME@", "app-name", "@MOSAIK@", "@TESTING@", "@RUST@", "@HOME@"].iter().all(|it| !text.contains(it)),
            "{text}"
        );
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path.join("ci/run")).unwrap().permissions());
    assert_eq!(mode & 0o111, 0o111);

    let wrong = |args: &[&str], part: &str| {
        let output = mosaik(&[&["new"], args].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && stderr.contains(part), "{stderr}");
    };
    wrong(&[path.to_str().unwrap()], "exists");
    wrong(&[dir.path().join("Order").to_str().unwrap()], "small letters");
    wrong(&[dir.path().join("demo").to_str().unwrap(), "--mosaik", "/nowhere"], "there is no crate mosaik");
    assert!(!dir.path().join("demo").exists());
}
