//! The names behind identifiers, for people: what was turned into an id in this process and as what.
//!
//! Identifiers are digests, so a report could only print hex. Whoever makes an id from a name leaves the name here; reports
//! look it up. Nothing else may depend on it: the table is bounded and forgets nothing, and an id that came from elsewhere has no name.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock},
};

use super::Tag;

/// Names that are kept; later ones are not.
const MAX_NAMES: usize = 4096;
/// The longest name that is kept, in bytes.
const MAX_LEN: usize = 128;

static NAMES: RwLock<BTreeMap<[u8; 32], Box<str>>> = RwLock::new(BTreeMap::new());

thread_local! {
    /// The tags that were looked for and not found, while somebody wants to know.
    static MISSED: RefCell<Option<BTreeSet<Tag>>> = const { RefCell::new(None) };
}

/// Remembers a name.
pub(crate) fn note(id: [u8; 32], name: &str) {
    let full = |names: &BTreeMap<_, _>| names.len() >= MAX_NAMES || names.contains_key(&id);
    if name.len() > MAX_LEN || full(&NAMES.read().unwrap_or_else(PoisonError::into_inner)) {
        return;
    }
    let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
    if !full(&names) {
        names.insert(id, name.into());
    }
}

/// The name behind an id, if it was made in this process.
pub(crate) fn of(id: &[u8; 32]) -> Option<String> {
    NAMES.read().unwrap_or_else(PoisonError::into_inner).get(id).map(|name| name.to_string())
}

/// A tag was looked for and not found.
pub(super) fn missed(tag: Tag) {
    MISSED.with_borrow_mut(|missed| {
        if let Some(missed) = missed {
            missed.insert(tag);
        }
    });
}

/// Runs something on this thread and tells which tags it looked for in vain.
pub(crate) fn missed_by<T>(run: impl FnOnce() -> T) -> (T, BTreeSet<Tag>) {
    let before = MISSED.replace(Some(BTreeSet::new()));
    let result = run();
    let missed = MISSED.replace(before).unwrap_or_default();
    (result, missed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::{StreamId, Tags};

    #[test]
    fn names_are_found_by_their_ids() {
        let id = StreamId::from("names: a stream");
        assert_eq!(of(id.as_bytes()).as_deref(), Some("names: a stream"));
        let long = "x".repeat(MAX_LEN + 1);
        assert_eq!(of(StreamId::from(long).as_bytes()), None);
    }

    #[test]
    fn tags_that_were_looked_for_in_vain_are_told() {
        let tags: Tags = ["a"].into_iter().collect();
        let (found, missed) = missed_by(|| tags.contains("a") && tags.contains("b"));
        assert!(!found);
        assert_eq!(missed, [Tag::from("b")].into());
        assert!(!tags.contains("c"), "nobody wants to know");
    }
}
