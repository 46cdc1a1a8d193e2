//! What can be wrong with a page beside its snippets: it is not listed, or it points at something that is not there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::PAGES;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &str) -> String {
    fs::read_to_string(here().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The pages below `docs/src`, as `PAGES` writes them; the table of contents is none.
fn pages_on_disk() -> BTreeSet<String> {
    fn walk(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).expect("the book is there") {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "md") && !path.ends_with("SUMMARY.md") {
                let page = path.strip_prefix(here()).expect("is below docs");
                found.insert(page.to_str().expect("page names are UTF-8").to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&here().join("src"), &mut found);
    found
}

/// A page without its code blocks, where brackets and backticks mean other things.
fn prose(page: &str) -> String {
    let mut fenced = false;
    let outside = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    };
    read(page).lines().filter(outside).flat_map(|line| [line, "\n"]).collect()
}

/// What stands between `open` and `close`, once for each time that it does on one line.
fn between<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
    text.lines().flat_map(move |line| line.split(open).skip(1)).filter_map(move |rest| Some(rest.split_once(close)?.0))
}

/// The anchors that a page's headings get: lower case, words joined by dashes, punctuation dropped.
fn anchors(page: &str) -> BTreeSet<String> {
    let slug = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
    };
    prose(page).lines().filter_map(|line| Some(slug(line.strip_prefix('#')?.trim_start_matches('#')))).collect()
}

/// The links of a page that stay inside the repository: the page or file they lead to, and the anchor there.
fn links(page: &str) -> Vec<(String, PathBuf, Option<String>)> {
    let text = prose(page);
    // With an `@` it is a mail address, or one of the items that rustdoc knows.
    let local = between(&text, "](", ')').filter(|link| !link.contains("://") && !link.contains('@'));
    local
        .map(|link| {
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let to = if file.is_empty() { page.into() } else { Path::new(page).with_file_name(file) };
            (link.to_owned(), to, anchor.map(str::to_owned))
        })
        .collect()
}

/// `a/b/../c` as `a/c`, so that two ways to write one page compare equal.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, part| {
        if part.as_os_str() != ".." || !path.pop() {
            path.push(part);
        }
        path
    })
}

#[test]
fn every_page_is_listed_and_in_the_table_of_contents() {
    let on_disk = pages_on_disk();
    let listed: BTreeSet<_> = PAGES.iter().filter(|page| page.starts_with("src/")).map(|&page| page.into()).collect();
    assert_eq!(on_disk, listed, "docs/lib.rs lists the pages whose snippets are compiled");
    let contents: BTreeSet<_> =
        links("src/SUMMARY.md").iter().map(|(_, to, _)| to.to_str().expect("UTF-8").to_owned()).collect();
    assert_eq!(on_disk, contents, "docs/src/SUMMARY.md lists the pages that a reader sees");
}

#[test]
fn every_link_leads_somewhere() {
    for page in PAGES.iter().copied().chain(["src/SUMMARY.md"]) {
        for (link, to, anchor) in links(page) {
            assert!(here().join(&to).exists(), "{page}: there is no {link}");
            if let Some(anchor) = anchor {
                let to = normal(&to);
                let known = anchors(to.to_str().expect("UTF-8"));
                assert!(known.contains(&anchor), "{page}: {link} has no such heading; there are {known:?}");
            }
        }
    }
}

/// A page that says where something is, `mosaik/src/network/` say, must not send the reader to a room that has moved.
#[test]
fn every_named_path_exists() {
    let root = here().parent().expect("docs is in the repository");
    let tops = ["mosaik/", "mosaik-macros/", "tests/", "examples/", "docs/", ".ci/"];
    for page in PAGES {
        let text = prose(page);
        let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        for path in spans.filter(|span| tops.iter().any(|top| span.starts_with(top)) && !span.contains(' ')) {
            // `mosaik/streams/1` and its like are protocol names.
            let protocol = path.strip_prefix("mosaik/").is_some_and(|rest| !rest.starts_with("src"));
            assert!(protocol || root.join(path).exists(), "{page}: there is no {path}");
        }
    }
}

#[test]
fn the_readme_states_the_oldest_compiler_that_the_manifest_does() {
    let manifest = read("../Cargo.toml");
    let version = between(&manifest, "rust-version = \"", '"').next().expect("the workspace states one");
    assert!(read("../README.md").contains(&format!("Rust {version}")), "README.md does not say Rust {version}");
}
