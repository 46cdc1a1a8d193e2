//! A network of an authority as a new operator sets it up: one command for the authority, one string for each process.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use super::processes::{Contact, Keys, Process, WEATHER};

const GUARDED: &str = env!("CARGO_BIN_EXE_guarded");
const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");
const SOON: Duration = Duration::from_mins(1);

fn mosaik(args: &[&str]) -> Output {
    let mut command = Command::new(OPERATOR);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MOSAIK_")) {
        command.env_remove(name);
    }
    command.args(args).output().unwrap()
}

fn said(args: &[&str]) -> String {
    let output = mosaik(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn start(args: &[&str]) -> (Process, Contact) {
    start_at("127.0.0.1:0", args)
}

fn start_at(listen: &str, args: &[&str]) -> (Process, Contact) {
    let args = [&["run"], args, &["--listen", listen, "--log", "warn"]].concat();
    let mut process = Process::start(WEATHER, &args, &[]);
    let contact = process.contact();
    (process, contact)
}

fn invite(authority: &str, role: &str, ttl: &str, bootstrap: Option<&str>) -> String {
    let args =
        ["invite", "--authority", authority, "--network", "weather", "--role", role, "--grant", "eu", "--ttl", ttl];
    said(&[&args[..], &bootstrap.map_or(vec![], |at| vec!["--bootstrap", at])].concat())
}

#[test]
fn two_roles_join_by_a_string_each_and_strangers_do_not() {
    let (keys, deadline) = (Keys::new(), Instant::now() + SOON);
    let (authority, display_dir, sensor_dir) = (keys.path("authority"), keys.path("display"), keys.path("sensor"));
    let id = said(&["authority", "new", &authority]);
    assert_eq!((id.len(), mosaik(&["authority", "new", &authority]).status.code()), (64, Some(1)), "none is replaced");

    let first = invite(&authority, "display", "1h", None);
    let (mut display, at) = start(&["display", "--join", &first, "--data-dir", &display_dir]);
    let string = invite(&authority, "sensor", "1h", Some(&at.address));
    let file = keys.path("string");
    std::fs::write(&file, format!("{string}\n")).unwrap();
    let (mut sensor, of_sensor) =
        start(&["sensor", "--id", "1", "--join", &format!("@{file}"), "--data-dir", &sensor_dir]);
    display.stdout.has(deadline, "a reading", |line| line.ends_with(": 1 = 21.5 C"));
    let shown = said(&["ticket", "show", &sensor_dir]);
    assert!(shown.contains(&of_sensor.id) && shown.contains("eu sensor") && shown.contains(&id), "{shown}");

    // Restarts need nothing but the directory.
    sensor.signal("TERM");
    assert!(sensor.wait(SOON).success());
    let (_, listen) = of_sensor.address.split_once('@').unwrap();
    let (mut sensor, again) = start_at(listen, &["sensor", "--id", "2", "--data-dir", &sensor_dir]);
    assert_eq!(again.id, of_sensor.id);
    display.stdout.has(deadline, "a reading after the restart", |line| line.ends_with(": 2 = 21.5 C"));

    // The operator joins like anybody, and sees what the authority says of the sensor.
    let ask = |args: &[&str]| mosaik(&[args, &["--join", &string]].concat());
    let peers = String::from_utf8(ask(&["peers"]).stdout).unwrap();
    assert!(peers.contains(&of_sensor.id) && peers.contains("grants eu,sensor"), "{peers}");

    // Without a ticket: the same app, the same name, one address. Both ends say so.
    let (mut stranger, of_stranger) = start(&["sensor", "--id", "3", "--bootstrap", &at.address]);
    stranger.stderr.has(deadline, "a refusal", |line| line.contains("refused by") && line.contains("an open network"));
    display.stderr.has(deadline, "a refusal", |line| line.contains("refused") && line.contains("an open network"));
    let explained = ask(&["explain", &at.id, "readings", "--with", &of_stranger.address]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.starts_with("refused:") && explained.status.code() == Some(3), "{text}");
    let alone = mosaik(&["peers", "--network", "weather", "--bootstrap", &at.address]);
    let error = String::from_utf8(alone.stderr).unwrap();
    assert!(!alone.status.success() && error.contains("refused"), "{error}");

    // The sensor's laptop was stolen.
    let revoke = ["ticket", "revoke", "--authority", &authority, "--network", "weather", "--bootstrap", &at.address];
    let revoked = said(&[&revoke[..], &["--peer", &of_sensor.id]].concat());
    assert!(revoked.starts_with("revoked: peer") && revoked.contains("told 1"), "{revoked}");
    sensor.stderr.has(deadline, "the reason", |line| line.contains("refused by") && line.contains("revoked"));
    display.stderr.has(deadline, "the reason", |line| line.contains("refused") && line.contains("revoked: peer"));
    let string = invite(&authority, "display", "1h", Some(&at.address));
    let explained = mosaik(&["explain", &at.id, "readings", "--with", &of_sensor.id[..12], "--join", &string]);
    let text = String::from_utf8(explained.stdout).unwrap() + &String::from_utf8_lossy(&explained.stderr);
    assert!(text.contains("revoked") || text.contains("not discovered"), "{text}");

    // A string for a role is for no other one.
    let string = invite(&authority, "sensor", "1h", None);
    let args = ["run", "display", "--join", &string, "--listen", "127.0.0.1:0"];
    let mut wrong = Process::start(WEATHER, &args, &[]);
    wrong.stderr.has(deadline, "the roles", |line| line.contains("for the role sensor, not for display"));
    assert_eq!(wrong.wait(SOON).code(), Some(1));
}

/// Strings of a minute become tickets of an hour where a renewer is, are kept, and go with the string when that is taken back.
#[test]
fn tickets_are_renewed_kept_and_taken_back_with_their_string() {
    let (keys, deadline) = (Keys::new(), Instant::now() + SOON);
    let (authority, display_dir, sensor_dir) = (keys.path("authority"), keys.path("display"), keys.path("sensor"));
    let id = said(&["authority", "new", &authority]);
    let renewer = ["--role", "display", "--ttl", "1m", "--renewer", "--life", "1h", "--renew-for", "2d"];
    let first = said(&[&["invite", "--authority", &authority, "--network", "weather"], &renewer[..]].concat());
    let (mut display, at) = start(&["display", "--join", &first, "--data-dir", &display_dir]);
    let string = invite(&authority, "sensor", "1m", Some(&at.address));
    let (mut sensor, of_sensor) = start(&["sensor", "--id", "1", "--join", &string, "--data-dir", &sensor_dir]);
    display.stdout.has(deadline, "a reading", |line| line.ends_with(": 1 = 21.5 C"));
    for dir in [&display_dir, &sensor_dir] {
        let renewed = || {
            let shown = said(&["ticket", "show", dir]);
            shown.contains("holds for another 35") && shown.contains("renewed")
        };
        while !renewed() {
            assert!(Instant::now() < deadline, "{}", said(&["ticket", "show", dir]));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let running = mosaik(&["ticket", "renew", &sensor_dir]);
    assert_eq!(running.status.code(), Some(1), "the node that runs renews by itself");

    // The restart needs no string; a node that does not run is renewed by hand.
    sensor.signal("TERM");
    assert!(sensor.wait(SOON).success());
    let shown = said(&["ticket", "renew", &sensor_dir]);
    assert!(shown.contains(&of_sensor.id) && shown.contains("renewed"), "{shown}");
    let (_, listen) = of_sensor.address.split_once('@').unwrap();
    let (mut sensor, again) = start_at(listen, &["sensor", "--id", "2", "--data-dir", &sensor_dir]);
    assert_eq!(again.id, of_sensor.id);
    display.stdout.has(deadline, "a reading after the restart", |line| line.ends_with(": 2 = 21.5 C"));

    // What came of the string goes with it, renewed or not, and is not renewed again.
    let revoke = ["ticket", "revoke", "--authority", &authority, "--network", "weather", "--bootstrap", &at.address];
    said(&[&revoke[..], &["--invitation", &string]].concat());
    sensor.stderr.has(deadline, "the reason", |line| line.contains("refused by") && line.contains("revoked"));
    sensor.signal("TERM");
    assert!(sensor.wait(SOON).success());
    let output = mosaik(&["ticket", "renew", &sensor_dir]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("revoked"), "{error}");

    // A second authority is trusted beside the first, in one word that the members pass on.
    let second = said(&["authority", "new", &keys.path("second")]);
    let trust = ["authority", "trust", "--authority", &authority, "--network", "weather", "--bootstrap", &at.address];
    let told = said(&[&trust[..], &["--trust", &id, "--trust", &format!("{second}=role:sensor+grant:eu")]].concat());
    assert!(told.contains("told 1"), "{told}");
    let string = invite(&keys.path("second"), "sensor", "1m", Some(&at.address));
    let (_sensor, _) = start(&["sensor", "--id", "3", "--join", &string]);
    // The newcomer trusts its own authority alone, and would need --trust to know the others as members.
    display.stderr.has(deadline, "a refusal", |line| line.contains("refused by"));
    let args =
        ["invite", "--authority", &keys.path("second"), "--network", "weather", "--role", "sensor", "--grant", "eu"];
    let string = said(&[&args[..], &["--bootstrap", &at.address, "--trust", &id]].concat());
    let (_sensor, _) = start(&["sensor", "--id", "4", "--join", &string]);
    display.stdout.has(deadline, "a reading of another authority's", |line| line.ends_with(": 4 = 21.5 C"));
}

/// A ticket that has run out is refused, and both ends say since when.
#[test]
fn an_expired_ticket_is_refused_with_the_reason() {
    let (keys, deadline) = (Keys::new(), Instant::now() + SOON);
    let authority = keys.path("authority");
    said(&["authority", "new", &authority]);
    let (mut display, at) = start(&["display", "--join", &invite(&authority, "display", "1h", None)]);

    let key = mosaik::Authority::from_file(&authority).unwrap();
    let claims = mosaik::trust::Claims::new(1_000, 2_000).with_role("sensor");
    let expired = key.invite("weather", claims, [at.address.clone()]).unwrap().to_string();
    let (mut sensor, of_sensor) = start(&["sensor", "--id", "1", "--join", &expired]);
    sensor.stderr.has(deadline, "the reason", |line| line.contains("refused by") && line.contains("expired"));
    display.stderr.has(deadline, "the reason", |line| line.contains("refused") && line.contains("expired"));
    let string = invite(&authority, "display", "1h", Some(&at.address));
    let explained = mosaik(&["explain", &at.id, "readings", "--with", &of_sensor.address, "--join", &string]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.starts_with("refused:") && text.contains("expired"), "{text}");
}

#[test]
fn what_is_no_invitation_is_refused_and_not_printed() {
    let (keys, secret) = (Keys::new(), "mosaik1AAAAsecretAAAA");
    let file = keys.path("string");
    std::fs::write(&file, secret).unwrap();
    for args in [vec!["--join", secret], vec!["--join", &format!("@{file}")], vec!["--join", "@/nowhere/at/all"]] {
        let output = Command::new(WEATHER).args(["run", "display"]).args(&args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("--join") && !stderr.contains("AAAAsecret"), "{stderr}");
    }
    let key = "ab".repeat(32);
    let output = Command::new(WEATHER).args(["run", "display", "--network-key", &key]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && stderr.contains("looks like a key") && !stderr.contains(&key),
        "{stderr}"
    );
}

/// Roles of an app are grants like others: what a declaration asks for comes with the string that a node joins by. Without an authority
/// nobody can hold one, so such a role runs on this machine alone or not at all.
#[test]
fn a_role_that_asks_for_grants_runs_where_there_can_be_some() {
    let (keys, deadline) = (Keys::new(), Instant::now() + SOON);
    let run = |args: &[&str]| Process::start(GUARDED, &[&["run"], args, &["--log", "warn"]].concat(), &[]);
    for kind in [&[][..], &["--network-key", &keys.path("net.key")]] {
        if let [_, file] = kind {
            said(&["keygen", "--network", file]);
        }
        let mut process = run(&[&["seller", "--listen", "0.0.0.0:0"], kind].concat());
        assert_eq!(process.wait(SOON).code(), Some(1));
        let stderr = process.stderr.rest();
        assert!(
            stderr.contains("the role seller asks for grants on \"offers\"") && stderr.contains("--join"),
            "{stderr}"
        );
        // A trial on one machine goes on as without them.
        let here = [&["--listen", "127.0.0.1:0"], kind].concat();
        let mut seller = run(&[&["seller"], &here[..]].concat());
        let at = seller.contact();
        let mut buyer = run(&[&["buyer", "--bootstrap", &at.address], &here[..]].concat());
        buyer.stdout.has(deadline, "an offer", |line| line == "offered 7");
    }

    let authority = keys.path("authority");
    said(&["authority", "new", &authority]);
    let invite = |role: &str, at: &str| {
        let args = ["invite", "--authority", &authority, "--network", "guarded", "--role", role, "--ttl", "1h"];
        let at = if at.is_empty() { vec![] } else { vec!["--bootstrap", at] };
        said(&[&args[..], &at].concat())
    };
    let join = |role: &str, string: &str| run(&[role, "--join", string, "--listen", "127.0.0.1:0"]);
    let mut seller = join("seller", &invite("seller", ""));
    let at = seller.contact();
    let mut buyer = join("buyer", &invite("buyer", &at.address));
    buyer.stdout.has(deadline, "an offer", |line| line == "offered 7");
}

/// The key of a secret network, from `keygen` to readings, and an operator with and without it.
#[test]
fn a_secret_network_by_one_file() {
    let (keys, deadline) = (Keys::new(), Instant::now() + SOON);
    let key = keys.path("network");
    said(&["keygen", "--network", &key]);
    let (mut display, at) = start(&["display", "--network-key", &key]);
    let (_sensor, _) = start(&["sensor", "--id", "1", "--network-key", &key, "--bootstrap", &at.address]);
    display.stdout.has(deadline, "a reading", |line| line.ends_with(": 1 = 21.5 C"));
    let ask = ["peers", "--network", "weather", "--bootstrap", &at.address];
    assert!(said(&[&ask[..], &["--network-key", &key]].concat()).contains(&at.id));
    let without = mosaik(&ask);
    let error = String::from_utf8(without.stderr).unwrap();
    assert!(!without.status.success() && error.contains("refused"), "{error}");
}
