//! What the workspace depends on: licences and sources as `deny.toml` allows them, which `cargo deny check` reads too where it is
//! installed. Offline: cargo says what stands in the lock file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

/// What `deny.toml` says, as far as it is looked at here.
#[derive(Debug, Default)]
struct Rules {
    allowed: BTreeSet<String>,
    exceptions: BTreeMap<String, BTreeSet<String>>,
    banned: BTreeSet<String>,
    registries: BTreeSet<String>,
}

/// The words in double quotes.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned)
}

/// The line without its comment.
fn uncommented(line: &str) -> &str {
    let ends = |at: &usize| line[..*at].matches('"').count().is_multiple_of(2);
    let end = line.match_indices('#').map(|(at, _)| at).find(ends);
    &line[..end.unwrap_or(line.len())]
}

impl Rules {
    fn read(text: &str) -> Self {
        let lines: Vec<_> = text.lines().map(|line| uncommented(line).trim()).collect();
        let text = lines.join("\n");
        let list = |section: &str, key: &str| -> Vec<String> {
            let section = text.split(&format!("[{section}]\n")).nth(1).unwrap_or_default();
            let section = section.split("\n[").next().unwrap_or_default();
            let from = section.split(&format!("\n{key} = [")).nth(1);
            let from = from.or_else(|| section.strip_prefix(&format!("{key} = [")));
            let mut depth = 1;
            let end = |c: char| {
                depth += i32::from(c == '[') - i32::from(c == ']');
                depth == 0
            };
            let items = from.unwrap_or_default().split(end).next().unwrap_or_default();
            let mut within = 0;
            let between = |c: char| {
                within += i32::from(matches!(c, '{' | '[')) - i32::from(matches!(c, '}' | ']'));
                c == ',' && within == 0
            };
            items.split(between).map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
        };
        let exception = |item: &String| {
            let mut words = quoted(item);
            Some((words.next()?, words.collect()))
        };
        Self {
            allowed: list("licenses", "allow").iter().flat_map(|item| quoted(item)).collect(),
            exceptions: list("licenses", "exceptions").iter().filter_map(exception).collect(),
            banned: list("bans", "deny").iter().filter_map(|item| quoted(item).next()).collect(),
            registries: list("sources", "allow-registry").iter().flat_map(|item| quoted(item)).collect(),
        }
    }

    /// Whether a crate may be used under its licence, an expression of SPDX (also in cargo's old form with slashes); the
    /// licences that make it so are noted.
    fn allow(&self, package: &str, licence: &str, used: &mut BTreeSet<String>) -> bool {
        let spaced = licence.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "-WITH-");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut expression = Expression { words: &words, rules: self, package, used };
        expression.any() && expression.words.is_empty()
    }
}

/// Read from left to right: `OR` binds less than `AND`.
struct Expression<'a> {
    words: &'a [&'a str],
    rules: &'a Rules,
    package: &'a str,
    used: &'a mut BTreeSet<String>,
}

impl Expression<'_> {
    fn next_is(&mut self, word: &str) -> bool {
        let is_next = self.words.first() == Some(&word);
        self.words = &self.words[usize::from(is_next)..];
        is_next
    }

    fn any(&mut self) -> bool {
        let mut allowed = self.all();
        while self.next_is("OR") {
            allowed |= self.all();
        }
        allowed
    }

    fn all(&mut self) -> bool {
        let mut allowed = self.one();
        while self.next_is("AND") {
            allowed &= self.one();
        }
        allowed
    }

    fn one(&mut self) -> bool {
        if self.next_is("(") {
            let allowed = self.any();
            return self.next_is(")") && allowed;
        }
        let Some((word, rest)) = self.words.split_first() else { return false };
        self.words = rest;
        let licence = word.trim_end_matches('+').to_owned();
        let excepted = self.rules.exceptions.get(self.package).is_some_and(|allowed| allowed.contains(&licence));
        let allowed = self.rules.allowed.contains(&licence);
        if allowed {
            self.used.insert(licence);
        }
        allowed || excepted
    }
}

/// The triple of this platform.
fn platform() -> String {
    let told = Command::new("rustc").args(["--print", "host-tuple"]).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap().trim().to_owned()
}

/// The packages of the lock file, without asking the network.
fn metadata(root: &Path, options: &[&str]) -> Result<Value, String> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let told = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--all-features", "--format-version", "1"])
        .args(options)
        .current_dir(root)
        .output()
        .map_err(|error| error.to_string())?;
    if !told.status.success() {
        return Err(String::from_utf8_lossy(&told.stderr).into_owned());
    }
    serde_json::from_slice(&told.stdout).map_err(|error| error.to_string())
}

#[test]
fn what_is_depended_on_has_a_licence_and_a_source_that_were_reviewed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let rules = Rules::read(&fs::read_to_string(root.join("deny.toml")).unwrap());
    assert!(rules.allowed.len() > 3 && !rules.banned.is_empty() && !rules.registries.is_empty(), "{rules:?}");
    // Cargo looks into every package that it tells of, and a plain `cargo test` has downloaded only those of this platform.
    let (told, complete) = match metadata(&root, &[]) {
        Ok(told) => (told, true),
        Err(_) => (metadata(&root, &["--filter-platform", &platform()]).unwrap(), false),
    };
    let (mut found, mut used, mut present) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for package in told["packages"].as_array().unwrap() {
        let [name, version] = ["name", "version"].map(|key| package[key].as_str().unwrap());
        present.insert(name);
        match package["license"].as_str() {
            None => found.push(format!("{name} {version} states no licence")),
            Some(licence) if !rules.allow(name, licence, &mut used) => {
                found.push(format!("{name} {version} comes under {licence}"));
            }
            Some(_) => {}
        }
        if rules.banned.contains(name) {
            found.push(format!("{name} {version} is banned"));
        }
        let source = package["source"].as_str();
        let known = |source: &str| source.strip_prefix("registry+").is_some_and(|from| rules.registries.contains(from));
        if !source.is_none_or(known) {
            found.push(format!("{name} {version} comes from {}", source.unwrap_or_default()));
        }
    }
    if complete {
        // What nothing needs any more would let something in that nobody looked at.
        found.extend(rules.allowed.difference(&used).map(|licence| format!("{licence} is allowed and not needed")));
        let gone = rules.exceptions.keys().filter(|name| !present.contains(name.as_str()));
        found.extend(gone.map(|name| format!("the exception for {name} is not needed")));
    }
    assert!(found.is_empty(), "see deny.toml:\n{}", found.join("\n"));
}

#[test]
fn licences_are_read_as_they_are_meant() {
    let rules = Rules::read(
        "[licenses]\nallow = [\n  \"MIT\", # \"Not\"\n  # \"GPL-3.0\",\n  \"ISC\",\n]\n\
         exceptions = [\n  { crate = \"im\", allow = [\"MPL-2.0\"] },\n]\nother = 1\n\
         [bans]\ndeny = [\n  { crate = \"openssl-sys\", reason = \"a, b\" },\n  { crate = \"native-tls\" },\n]\n\
         [sources]\nallow-registry = [\"https://example.org/index\"]\n",
    );
    let set = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(rules.banned, set(&["openssl-sys", "native-tls"]));
    assert_eq!(rules.registries, set(&["https://example.org/index"]));
    assert_eq!(rules.exceptions, BTreeMap::from([("im".to_owned(), set(&["MPL-2.0"]))]));
    let allowed = |package, licence| rules.allow(package, licence, &mut BTreeSet::new());
    for good in ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "(MIT OR GPL-3.0) AND ISC", "GPL-3.0 AND MIT OR ISC"] {
        assert!(allowed("some", good), "{good}");
    }
    for bad in
        ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "MIT WITH Something", "MPL-2.0+", "", "MIT ISC"]
    {
        assert!(!allowed("some", bad), "{bad}");
    }
    assert!(!allowed("some", "Not") && allowed("im", "MPL-2.0+") && !allowed("im", "GPL-3.0"));
}
