//! The rules of layering (docs/src/architecture.md) that no lint can check, checked over the sources of the runtime
//! crate. What a lint can check is in clippy.toml.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The modules of the runtime crate from the bottom up; subsystems share a layer.
const LAYERS: [&[&str]; 9] = [
    &["primitives"],
    &["transport"],
    &["trust"],
    &["network"],
    &["discovery", "streams", "stores", "groups"],
    &["owned"],
    &["diagnostics", "metrics"],
    &["node"],
    &["testing"],
];
const SUBSYSTEMS: &[&str] = LAYERS[4];
/// The handle that users hold puts a node together from all layers.
const ASSEMBLY: [&str; 2] = ["network/builder.rs", "network/handle.rs"];
/// What a core may use of iroh: plain data.
const IROH_DATA: [&str; 7] =
    ["EndpointAddr", "EndpointId", "TransportAddr", "PublicKey", "RelayUrl", "SecretKey", "Signature"];

#[test]
fn the_sources_keep_the_rules_of_layering() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mosaik/src");
    let mut found = Vec::new();
    let files = sources(&root);
    assert!(files.len() > 20, "the sources are not where this test looks: {}", root.display());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        found.extend(breaches(&path, &text).into_iter().map(|breach| format!("{path}: {breach}")));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// What a file does that it must not do. `path` is relative to the crate's `src`.
fn breaches(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if path.ends_with("tests.rs") {
        return found;
    }
    if !text.starts_with("//!") {
        found.push("does not open with a //! paragraph on what the room is for".to_owned());
    }
    let code = plainly(&production_code(text));
    let imports = imports(path, &code);
    let names = |what: &str| {
        let imported = |import: &String| {
            let whole = import.strip_suffix("::*").is_some_and(|all| what.starts_with(&format!("{all}::")));
            whole || import.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        mentions(&code, what) || imports.iter().any(imported)
    };
    let mut forbid = |whether: bool, what: &[&str], why: &str| {
        let used = what.iter().filter(|what| whether && names(what));
        found.extend(used.map(|what| format!("names {what}: {why}")));
    };

    let endpoint = ["iroh::Endpoint", "iroh::endpoint"];
    forbid(
        !path.starts_with("transport/iroh") && path != "transport/lookup.rs",
        &endpoint,
        "only the QUIC backend knows iroh's endpoint",
    );
    forbid(!path.starts_with("discovery/announce"), &["iroh_gossip"], "only announcements know the gossip core");
    let is_core = path.contains("/core/") || path.ends_with("/core.rs") || path.starts_with("groups/raft");
    let world = ["tokio", "Instant::now", "SystemTime", "rand::rng", "rand::random", "std::fs", "std::net::UdpSocket"];
    forbid(is_core, &world, "a core is a pure state machine");
    let spawners = ["tokio::spawn", "task::spawn", "thread::spawn", "spawn_blocking"];
    forbid(path != "transport/tasks.rs", &spawners, "tasks are spawned by Tasks only");
    let unbounded = ["unbounded_channel", "UnboundedSender", "UnboundedReceiver", "mpsc::unbounded"];
    forbid(true, &unbounded, "every queue is bounded");
    forbid(
        path != "primitives/persistent.rs",
        &["im::OrdMap", "im::OrdSet", "im::HashMap", "im::HashSet", "im::Vector", "im::ordmap"],
        "persistent maps come from primitives",
    );
    forbid(true, &["tokio::sync::watch"], "it wakes in random order, use primitives::watch");

    let iroh =
        imports.iter().filter_map(|import| import.strip_prefix("iroh::")).filter(|item| !IROH_DATA.contains(item));
    found.extend(iroh.filter(|_| is_core).map(|item| format!("names iroh::{item}: a core is a pure state machine")));

    for after in code.split("select! {").skip(1).chain(code.split("select!{").skip(1)) {
        if !after.trim_start().starts_with("biased;") {
            found.push("has a select! that is not biased, so its order is random".to_owned());
        }
    }
    found.extend(imports.iter().filter_map(|import| sideways(path, import)));
    found
}

/// Why a module must not import that, if it must not.
fn sideways(path: &str, import: &str) -> Option<String> {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let from = path.split(['/', '.']).next()?;
    let mut segments = import.strip_prefix("crate::")?.split("::");
    let (to, item) = (segments.next()?, segments.next().unwrap_or_default());
    let (lower, upper) = (layer(to)?, layer(from)?);
    if lower > upper && !ASSEMBLY.contains(&path) {
        return Some(format!("imports {import} from a higher layer"));
    }
    let internal = segments.next().is_some() && item.starts_with(|first: char| first.is_ascii_lowercase());
    if from != to && SUBSYSTEMS.contains(&from) && SUBSYSTEMS.contains(&to) && internal {
        return Some(format!("imports {import}, which is internal to another subsystem"));
    }
    None
}

/// Whether the code has the path as a whole, not only as the beginning of a longer name.
fn mentions(code: &str, path: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    code.match_indices(path).any(|(at, _)| ends(&code[at + path.len()..]))
}

/// The text without comments and without its test module.
fn production_code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// The code with the paths in the place of the other names that it gives to things (`use a::b as c`, `type C = a::B;`).
fn plainly(code: &str) -> String {
    let mut code = code.to_owned();
    // A name may stand for another one; nobody has a longer chain.
    for _ in 0..4 {
        let mut named = renamed(&code);
        named.retain(|(path, name)| !path.ends_with(&format!("::{name}")) && path != name);
        let before = code.clone();
        for (path, name) in named {
            code = replaced(&code, &name, &path);
        }
        if code == before {
            break;
        }
    }
    code
}

/// The paths that have another name, and which.
fn renamed(code: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for tree in statements(code, "use ") {
        flatten("", tree, &mut found);
    }
    let aliases = statements(code, "type ").filter_map(|alias| alias.split_once(" = "));
    found.extend(aliases.map(|(name, path)| format!("{} as {}", path.trim(), name.trim())));
    let named = found.iter().filter_map(|import| import.split_once(" as "));
    let plain = |text: &str| text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | ':'));
    let named = named.map(|(path, name)| (path.trim_end_matches("::self").to_owned(), name.trim().to_owned()));
    named
        .filter(|(path, name)| path.contains(char::is_alphabetic) && plain(path) && plain(name) && name != "_")
        .collect()
}

/// Puts the path in the place of the name, where that begins a path.
fn replaced(code: &str, name: &str, path: &str) -> String {
    let mut out = String::new();
    let mut done = 0;
    for (at, _) in code.match_indices(name) {
        let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '\'');
        let end = at + name.len();
        let is_word =
            !code[..at].ends_with(inside) && !code[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let is_named_here = code[..at].ends_with(" as ") || code[..at].ends_with("type ");
        if is_word && !is_named_here {
            out.extend([&code[done..at], path]);
            done = end;
        }
    }
    out.push_str(&code[done..]);
    out
}

/// What stands between the word, at the beginning of a statement, and the semicolon.
fn statements<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(word).filter_map(move |(at, _)| {
        let before = code[..at].lines().next_back().unwrap_or_default().trim_start();
        let begins = code[..at].ends_with('\n') || before.is_empty() || before.starts_with("pub");
        let end = code[at..].find(';').filter(|_| begins)?;
        Some(&code[at + word.len()..at + end])
    })
}

/// All paths that `use` statements of a file bring in, `self` and `super` resolved.
fn imports(path: &str, code: &str) -> Vec<String> {
    let mut module: Vec<_> = path.trim_end_matches(".rs").split('/').collect();
    if matches!(module.last(), Some(&"mod" | &"lib")) {
        module.pop();
    }
    let mut found = Vec::new();
    for tree in statements(code, "use ") {
        flatten("", tree, &mut found);
    }
    let found = found.iter().map(|import| import.split(" as ").next().unwrap_or_default().trim());
    found.map(|import| resolve(&module, import)).collect()
}

/// Splits a tree such as `a::{b, c::{d as x, e}}` into its paths, each with its other name if it has one.
fn flatten(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        found.push(format!("{prefix}{tree}"));
        return;
    };
    let inner = rest.trim().strip_suffix('}').unwrap_or(rest);
    let prefix = format!("{prefix}{}", head.trim());
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                flatten(&prefix, &inner[start..at], found);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inner[start..].trim().is_empty() {
        flatten(&prefix, &inner[start..], found);
    }
}

fn resolve(module: &[&str], import: &str) -> String {
    let mut base = module.to_vec();
    let mut rest = import.trim_start_matches("::");
    let relative = rest.starts_with("super::") || rest.starts_with("self::");
    loop {
        if let Some(above) = rest.strip_prefix("super::") {
            base.pop();
            rest = above;
        } else if let Some(here) = rest.strip_prefix("self::") {
            rest = here;
        } else {
            break;
        }
    }
    if !relative {
        return rest.to_owned();
    }
    let mut path = vec!["crate"];
    path.extend(base);
    path.push(rest);
    path.join("::")
}

/// The checker notices each kind of breach.
#[test]
fn the_rules_are_checked() {
    let breached = |path: &str, code: &str| !breaches(path, &format!("//! A room.\n\n{code}")).is_empty();
    for (path, bad) in [
        ("network/node.rs", "use iroh::{EndpointAddr, Endpoint};"),
        ("network/node.rs", "use iroh::{\n    EndpointAddr,\n    endpoint::{self, Connection},\n};"),
        ("streams/mod.rs", "use iroh_gossip::proto::State;"),
        ("streams/core/frames.rs", "use tokio::sync::Notify;"),
        ("discovery/core.rs", "fn f() { let now = Instant::now(); }"),
        ("groups/raft/log.rs", "use std::{fs, io};\nfn f() { std::fs::read(x) }"),
        ("node/mod.rs", "fn f() { tokio::spawn(async {}); }"),
        ("node/mod.rs", "use tokio::task::spawn;"),
        ("node/mod.rs", "use tokio::sync::{mpsc, watch};"),
        ("node/mod.rs", "fn f() { mpsc::unbounded_channel() }"),
        ("node/mod.rs", "async fn f() { tokio::select! {\n a = b => {} } }"),
        ("primitives/id.rs", "use crate::transport::Transport;"),
        ("discovery/catalog.rs", "use im::{OrdMap, Vector};"),
        ("network/node.rs", "use super::super::discovery::Discovery;"),
        ("discovery/core/mod.rs", "use iroh::{EndpointAddr, Watcher};"),
        ("streams/mod.rs", "use crate::{network::Node, discovery::worker::Worker};"),
        ("transport/mod.rs", "pub(crate) use crate::network::Node;"),
        // Under another name.
        ("groups/raft/log.rs", "use std::time::Instant as Clock;\nfn f() { Clock::now() }"),
        ("groups/raft/log.rs", "use std::{fmt, time::{Duration, Instant as Clock}};\nfn f() { Clock::now() }"),
        ("groups/raft/log.rs", "type Clock = std::time::Instant;\nfn f() { Clock::now() }"),
        ("groups/raft/log.rs", "use rand as dice;\nfn f() { dice::random() }"),
        ("groups/raft/log.rs", "fn f() {\n    use std as s;\n    s::fs::read(x)\n}"),
        ("groups/raft/log.rs", "use std as s;\nuse s::time as t;\nuse t::Instant as C;\nfn f() { C::now() }"),
        ("discovery/core/mod.rs", "use tokio as runtime;"),
        ("discovery/core/mod.rs", "use iroh as net;\nuse net::Watcher;"),
        ("network/node.rs", "use iroh::{self as net, EndpointAddr};\nfn f(e: net::Endpoint) {}"),
        ("node/mod.rs", "use tokio::task as work;\nfn f() { work::spawn(async {}); }"),
        ("node/mod.rs", "use tokio::task::spawn as begin;"),
        ("node/mod.rs", "use tokio::sync as s;\nfn f() { s::watch::channel(1) }"),
        ("node/mod.rs", "use tokio::sync::*;"),
        ("primitives/id.rs", "use crate as all;\nuse all::transport::Transport;"),
    ] {
        assert!(breached(path, bad), "{path}: {bad}");
    }
    for (path, good) in [
        ("network/node.rs", "use iroh::{EndpointAddr, SecretKey};"),
        ("streams/core/mod.rs", "use rand::rngs::SmallRng;\nuse iroh::EndpointAddr;"),
        ("network/builder.rs", "use crate::discovery::Discovery;"),
        ("transport/iroh.rs", "use iroh::{Endpoint, endpoint};"),
        ("streams/mod.rs", "use crate::{discovery::{Catalog, Discovery}, network::Node};"),
        ("streams/core/mod.rs", "use std::time::Instant;\n#[cfg(test)]\nmod tests {\n use tokio::x; }"),
        ("node/mod.rs", "async fn f() { tokio::select! {\n    biased;\n a = b => {} } }\n// tokio::spawn"),
        ("streams/mod.rs", "use self::core::Core;\nuse super::discovery::Discovery;"),
        ("primitives/persistent.rs", "pub(crate) use im::OrdMap;"),
        ("groups/raft/log.rs", "use std::time::Duration as Time;\nfn f() { Time::from_secs(1) }"),
        ("groups/raft/log.rs", "use crate::groups::client as fs;\nfn f() { fs::read(x) }"),
        ("node/mod.rs", "use std::fmt::Result as Spawned;\nuse std::io::Write as _;"),
    ] {
        assert!(!breached(path, good), "{path}: {good}: {:?}", breaches(path, &format!("//! A room.\n\n{good}")));
    }
    assert_eq!(breaches("node/mod.rs", "use std::fmt;").len(), 1);
}
