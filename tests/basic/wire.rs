//! What is sent and what is kept is listed in the book, each version with the digest of its fixture.

use std::{collections::BTreeMap, fs, path::Path};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn the_book_lists_the_bytes_of_every_version() {
    let root = Path::new(ROOT);
    let files = fs::read_dir(root.join("mosaik/fixtures")).unwrap().map(|file| file.unwrap().path());
    let kept: BTreeMap<String, String> = files
        .map(|path| {
            let digest = blake3::hash(&fs::read(&path).unwrap()).to_hex()[..16].to_owned();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), digest)
        })
        .collect();
    assert!(kept.len() > 15, "{kept:?}");
    let page = fs::read_to_string(root.join("docs/src/protocols.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix("` |"));
    let listed = rows.filter_map(|row| {
        let (file, rest) = row.split_once("` | ")?;
        let (_, digest) = rest.rsplit_once(" | `")?;
        (digest.len() == 16).then(|| (file.to_owned(), digest.to_owned()))
    });
    assert_eq!(listed.collect::<BTreeMap<_, _>>(), kept, "in docs/src/protocols.md, here as (file, digest)");
}
