//! What apps cost the compiler. Figures, which take it minutes, so not part of the usual run:
//! `cargo test --test basic compile_time -- --ignored --nocapture --test-threads 1`.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A figure is the median of so many.
const RUNS: usize = 5;

/// What the checks of an app of a thousand ends may cost: some twice what was seen. A tenth of a second is the aim.
const LIMIT: Duration = Duration::from_secs(1);
/// How often they are made, so that what else varies is small beside them.
const TIMES: usize = 10;

/// Roles in a ring over labelled streams, half of whose ends receive from the role before, half send to the one behind. The compiler
/// lets it pass; its checks are made so many times, not at all with none.
fn ring(roles: usize, ends: usize, times: usize) -> String {
    let mut out =
        String::from("#![allow(dead_code)]\nuse mosaik::{__private, node::{App, Graph, RoleEntry}, prelude::*};\n");
    let streams = ends / 2;
    for (role, stream) in (0..roles).flat_map(|role| (0..streams).map(move |stream| (role, stream))) {
        let _ = writeln!(out, "#[mosaik::stream(label = \"private\")] pub struct S{role}x{stream}(u64);");
    }
    for role in 0..roles {
        let before = (role + roles - 1) % roles;
        let _ = writeln!(out, "#[mosaik::node(clears = \"private\")] pub struct R{role} {{");
        for stream in 0..streams {
            let _ =
                writeln!(out, "    i{stream}: Consumer<S{before}x{stream}>, o{stream}: Producer<S{role}x{stream}>,");
        }
        let _ = writeln!(out, "}}\n#[mosaik::handlers] impl R{role} {{}}");
    }
    let entries = (0..roles).map(|role| format!("RoleEntry::of::<R{role}>()")).collect::<Vec<_>>().join(", ");
    let graph = format!("Graph {{ app: \"ring\", doc: \"\", version: None, roles: &[{entries}] }}");
    let _ = writeln!(out, "struct Ring;\nimpl App for Ring {{ const GRAPH: Graph = {graph}; }}");
    let _ = writeln!(out, "const GRAPH: &Graph = &Ring::GRAPH;");
    // As `#[mosaik::app]` writes them.
    for _ in 0..times {
        let _ = writeln!(
            out,
            "const _: () = {{\n    const CLASHES: [Option<__private::Clash>; {roles}] = \
             __private::clashes::<{roles}, {{ __private::slots(GRAPH) }}>(GRAPH);"
        );
        for role in 0..roles {
            let _ = writeln!(out, "    const _: () = __private::check_role(GRAPH, {role}, CLASHES[{role}]);");
        }
        let _ = writeln!(out, "}};");
    }
    out
}

const ROLES: usize = 30;
/// Of each role: so many that it sends on, and as many that it receives, each of another role.
const STREAMS: usize = 2;

/// The streams of the two programs that do the same. By hand, only serde is asked to.
fn types(attribute: &str) -> String {
    let all = (0..ROLES).flat_map(|role| (0..STREAMS).map(move |stream| (role, stream)));
    all.fold(String::from("use mosaik::prelude::*;\n"), |mut out, (role, stream)| {
        let attribute = attribute.replace("NAME", &format!("s{role}x{stream}"));
        let _ = writeln!(out, "{attribute}\npub struct S{role}x{stream} {{ pub value: u64, pub at: u64 }}");
        out
    })
}

/// The fields of a role, and for each stream that it receives the method that passes it on.
fn role(role: usize, on: &str) -> (String, String) {
    let before = (role + ROLES - 1) % ROLES;
    let (mut fields, mut methods) = (String::new(), String::new());
    for stream in 0..STREAMS {
        let _ = writeln!(
            fields,
            "    i{stream}: Consumer<S{before}x{stream}>,\n    o{stream}: Producer<S{role}x{stream}>,"
        );
        let _ = writeln!(
            methods,
            "    {}\n    async fn pass{stream}(&mut self, item: S{before}x{stream}) -> Result<(), \
             mosaik::streams::SendError<S{role}x{stream}>> {{\n        self.o{stream}.send(S{role}x{stream} {{ value: \
             item.value, at: item.at + 1 }}).await\n    }}",
            on.replace("FIELD", &format!("i{stream}"))
        );
    }
    (fields, methods)
}

/// An app of attributes.
fn declared() -> String {
    let mut out = types("#[mosaik::stream(name = \"NAME\")]");
    for index in 0..ROLES {
        let (fields, methods) = role(index, "#[on(FIELD)]");
        let _ = writeln!(out, "#[mosaik::node]\npub struct R{index} {{\n{fields}}}");
        let _ = writeln!(out, "#[mosaik::handlers]\nimpl R{index} {{\n{methods}}}");
    }
    let roles = (0..ROLES).map(|role| format!("R{role}")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(out, "#[mosaik::app(name = \"ring\", roles = [{roles}])]\npub struct Ring;");
    out + "fn main() -> std::process::ExitCode { Ring::main() }\n"
}

/// The same of builders and loops: no command line, no graph, no restart, no metrics of roles.
fn by_hand() -> String {
    let attribute =
        "#[derive(Serialize, Deserialize)]\n#[serde(crate = \"mosaik::__private::serde\", rename = \"NAME\")]";
    let mut out = types(attribute);
    out += "type Failure = Box<dyn std::error::Error + Send + Sync>;\n";
    let mut roles = String::new();
    for index in 0..ROLES {
        let (fields, methods) = role(index, "");
        let _ = writeln!(out, "pub struct R{index} {{\n{fields}}}\nimpl R{index} {{\n{methods}");
        let all = |text: &str| (0..STREAMS).map(|n| text.replace('#', &n.to_string())).collect::<String>();
        let opened = all("i#: net.streams().consumer().build(), o#: net.streams().producer().build()?, ");
        let _ = writeln!(
            out,
            "    fn open(net: &Network) -> Result<Self, Failure> {{\n        Ok(Self {{ {opened} }})\n    }}"
        );
        let arms = all("                item = self.i#.next() => match item {\n                    \
            Some(item) => self.pass#(item).await?,\n                    None => return Ok(()),\n                },\n");
        let _ = writeln!(
            out,
            "    async fn run(mut self) -> Result<(), Failure> {{\n        loop {{\n            tokio::select! \
             {{\n{arms}            }}\n        }}\n    }}\n}}"
        );
        let _ = writeln!(roles, "        \"r{index}\" => R{index}::open(&net)?.run().await?,");
    }
    let _ = writeln!(
        out,
        "#[tokio::main]\nasync fn main() -> Result<(), Failure> {{\n    let net = Network::builder(\"ring\").build().await?;\n    \
         match &*std::env::args().nth(1).unwrap_or_default() {{\n{roles}        _ => return Err(\"which role?\".into()),\n    \
         }}\n    net.shutdown().await;\n    Ok(())\n}}"
    );
    out
}

/// The directory of what cargo has built for this test.
fn built() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// The newest build of a library.
fn library(name: &str) -> String {
    let prefix = format!("lib{name}-");
    let fits = |file: &fs::DirEntry| {
        let is_library = file.path().extension().is_some_and(|it| it == "rlib");
        is_library && file.file_name().to_string_lossy().starts_with(&prefix)
    };
    let libraries = fs::read_dir(built()).unwrap().filter_map(Result::ok).filter(fits);
    let newest = libraries.max_by_key(|file| file.metadata().and_then(|it| it.modified()).ok()).unwrap().path();
    format!("--extern={name}={}", newest.display())
}

/// The processor time that the compiler takes for a program.
fn compiled(dir: &Path, program: &str, how: &[&str]) -> Duration {
    let source = dir.join("ring.rs");
    fs::write(&source, program).unwrap();
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let output = Command::new("bash")
        .args(["-c", "TIMEFORMAT=%U; time \"$0\" \"$@\"", &rustc, "--edition=2024", "--crate-name=ring"])
        .args(how)
        .args([library("mosaik"), library("tokio"), format!("-Ldependency={}", built().display())])
        .arg("--out-dir")
        .args([dir, &source])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    Duration::from_secs_f64(said.lines().last().unwrap().replace(',', ".").parse().unwrap())
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

/// The medians of several programs, whose runs alternate, so that a busy machine is as busy for all of them.
fn medians<const N: usize>(programs: [&str; N], how: &[&str]) -> [Duration; N] {
    let dir = tempfile::tempdir().unwrap();
    let mut took = programs.map(|_| Vec::new());
    for _ in 0..RUNS {
        for (program, took) in programs.iter().zip(&mut took) {
            took.push(compiled(dir.path(), program, how));
        }
    }
    took.map(median)
}

/// An app of a hundred roles with ten ends each.
#[test]
#[ignore = "figures: minutes of a compiler's time"]
fn a_thousand_ends_are_checked_in_less_than_a_second() {
    let (roles, ends) = (100, 10);
    let (without, with) = (ring(roles, ends, 0), ring(roles, ends, TIMES));
    let [without, with] = medians([&without, &with], &["--crate-type=lib", "--emit=metadata"]);
    let once = with.saturating_sub(without) / u32::try_from(TIMES).unwrap();
    println!(
        "{} ends: {without:.2?} without checks, {with:.2?} with {TIMES} times all checks: {once:.1?} each",
        roles * ends
    );
    assert!(once < LIMIT, "{once:?}");
}

/// An app of thirty roles and sixty streams, in both forms. Without code generation.
#[test]
#[ignore = "figures: minutes of a compiler's time"]
fn an_app_of_attributes_beside_one_by_hand() {
    let (declared, by_hand) = (declared(), by_hand());
    let [declared, by_hand] = medians([&declared, &by_hand], &["--crate-type=bin", "--emit=metadata"]);
    println!("{ROLES} roles, {} streams: {declared:.2?} declared, {by_hand:.2?} by hand", ROLES * STREAMS);
}
