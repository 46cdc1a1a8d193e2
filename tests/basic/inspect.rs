//! What a program declares is in it: `mosaik inspect` and `mosaik check` read it without running it.
#![cfg(target_os = "linux")]

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::Value;

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");
const WEATHER: &str = env!("CARGO_BIN_EXE_weather");
const LEDGER: &str = env!("CARGO_BIN_EXE_ledger");
const GUARDED: &str = env!("CARGO_BIN_EXE_guarded");
const PROGRAM: &str = env!("CARGO_BIN_EXE_program");

fn mosaik(args: &[&str]) -> Output {
    Command::new(OPERATOR).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_program_says_what_it_declares_also_when_it_is_stripped() {
    let whole = mosaik(&["inspect", WEATHER]);
    assert!(whole.status.success(), "{}", text(&whole));
    let said = text(&whole);
    let source = include_str!("../../examples/weather.rs");
    let line = source.lines().position(|line| line.contains("pub struct Display {")).unwrap() + 1;
    assert!(
        said.contains(&format!("readings: consumes stream readings (Reading)  tests/../examples/weather.rs:{line}"))
            || said.contains(&format!("examples/weather.rs:{line}")),
        "{said}"
    );
    assert!(said.contains("app weather ") && said.contains("--id default = 7"), "{said}");

    let dir = tempfile::tempdir().unwrap();
    let stripped = dir.path().join("stripped");
    fs::copy(WEATHER, &stripped).unwrap();
    match Command::new("strip").arg(&stripped).output() {
        Ok(strip) => assert!(strip.status.success(), "{}", text(&strip)),
        Err(error) => return eprintln!("skipped: no `strip` here: {error}"),
    }
    assert!(fs::metadata(&stripped).unwrap().len() < fs::metadata(WEATHER).unwrap().len());
    let stripped = mosaik(&["inspect", stripped.to_str().unwrap()]);
    assert_eq!(text(&stripped), said);
}

#[test]
fn all_that_is_declared_is_in_the_json() {
    let json: Value = serde_json::from_slice(&mosaik(&["inspect", PROGRAM, "--json"]).stdout).unwrap();
    let end = &json[0]["roles"][0]["endpoints"][0];
    assert_eq!((&json[0]["app"], &end["field"]), (&"other-weather".into(), &"readings".into()));
    assert_eq!(end["options"], serde_json::json!([["deadline", "5s"]]));
    assert_eq!(end["link"]["shape"], "struct{sensor:u32,celsius:f64}");
    let ledger: Value = serde_json::from_slice(&mosaik(&["inspect", LEDGER, "--json"]).stdout).unwrap();
    let roles = ledger[0]["roles"].as_array().unwrap();
    let links = roles.iter().flat_map(|role| role["endpoints"].as_array().unwrap()).map(|end| &end["link"]);
    let group = links.clone().find(|link| link["kind"] == "group").unwrap();
    assert_eq!((&group["size"], &group["key_variable"]), (&3.into(), &"LEDGER_KEY".into()));
}

#[test]
fn programs_that_do_not_fit_are_told_apart_by_path_and_place() {
    let fits = mosaik(&["check", WEATHER, LEDGER]);
    assert!(fits.status.success(), "{}", text(&fits));
    let differs = mosaik(&["check", WEATHER, PROGRAM]);
    let said = text(&differs);
    assert_eq!(differs.status.code(), Some(3), "{said}");
    assert!(said.contains("error: stream \"readings\": readings.celsius: f32 and f64"), "{said}");
    for place in ["examples/weather.rs:", "bin/program.rs:", "station.readings in "] {
        assert!(said.contains(place), "{place} is not in: {said}");
    }
    let alone = mosaik(&["check", PROGRAM]);
    assert!(alone.status.success(), "a warning is no failure");
    assert!(
        text(&alone).contains("warning: stream \"readings\" is consumed and produced by nobody"),
        "{}",
        text(&alone)
    );
}

#[test]
fn labels_and_grants_are_in_the_program_with_what_is_declassified() {
    let json: Value = serde_json::from_slice(&mosaik(&["inspect", GUARDED, "--json"]).stdout).unwrap();
    let roles = json[0]["roles"].as_array().unwrap();
    let auditor = roles.iter().find(|role| role["name"] == "auditor").unwrap();
    assert_eq!(
        (&auditor["clears"][0], &auditor["endpoints"][0]["link"]["label"]),
        (&"private".into(), &"private".into())
    );
    let offers = &roles[0]["endpoints"][0]["link"];
    assert_eq!(
        (&offers["produce"][0], &offers["consume"][0], &offers["label"]),
        (&"seller".into(), &"buyer".into(), &Value::Null)
    );
    let said = text(&mosaik(&["inspect", GUARDED]));
    assert!(said.contains("margins: consumes stream margins (Margin), labelled private  "), "{said}");
    assert!(said.contains("      consume granted to buyer\n") && said.contains("    clears private\n"), "{said}");
    let vault = roles.iter().find(|role| role["name"] == "vault").unwrap();
    assert_eq!((&vault["attest"], &auditor["attest"]), (&"measurements.toml".into(), &Value::Null));
    assert!(said.contains("    attested by measurements.toml\n"), "{said}");

    let report = "label private\n  stream margins: seller -> auditor\ndeclassified by auditor.totals: stream totals to buyer\n  \
                  only sums\n";
    let checked = mosaik(&["check", GUARDED]);
    assert_eq!((text(&checked), checked.status.code()), (format!("nothing to complain about\n{report}"), Some(0)));
    let own = Command::new(GUARDED).arg("corridors").output().unwrap();
    assert_eq!(text(&own), report);
    let without = Command::new(WEATHER).arg("corridors").output().unwrap();
    assert_eq!(text(&without), "nothing is labelled\n");
}

#[test]
fn what_declares_nothing_is_refused() {
    for (file, why) in [
        (OPERATOR, "declares no app"),
        (concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "no 64-bit little-endian ELF program"),
        ("/nowhere/at/all", "cannot read"),
    ] {
        let refused = mosaik(&["inspect", file]);
        assert_eq!(refused.status.code(), Some(1), "{file}");
        assert!(text(&refused).contains(why), "{}", text(&refused));
    }
    assert_eq!(mosaik(&["inspect"]).status.code(), Some(2));
}
