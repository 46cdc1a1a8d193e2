//! What this member knows of the storages of all members, itself included: bounded, and told to the others as it changes.

use std::collections::BTreeMap;

use super::super::raft::{Mark, NodeId};

/// Members of which something is remembered. Beyond it the one that has not changed for longest is forgotten.
const MAX_MARKS: usize = 256;

/// Marks by node, each with the version of the table at which it last changed.
#[derive(Debug)]
pub(super) struct Table {
    marks: BTreeMap<NodeId, (u64, Mark)>,
    version: u64,
}

impl Table {
    /// Begins with what storage has kept.
    pub(super) fn new(kept: BTreeMap<NodeId, Mark>) -> Self {
        let marks = kept.into_iter().take(MAX_MARKS).map(|(node, mark)| (node, (0, mark))).collect();
        Self { marks, version: 0 }
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&Mark> {
        self.marks.get(&node).map(|(_, mark)| mark)
    }

    /// Takes in what was seen of a member. A volatile one has nothing that a copy could be made of.
    pub(super) fn join(&mut self, node: NodeId, mark: &Mark) {
        if mark.start.number == 0 {
            return;
        }
        if !self.marks.contains_key(&node) && self.marks.len() >= MAX_MARKS {
            let oldest = self.marks.iter().min_by_key(|(_, (changed, _))| *changed).map(|(node, _)| *node);
            oldest.iter().for_each(|node| _ = self.marks.remove(node));
        }
        let next = self.version + 1;
        let changed = match self.marks.get_mut(&node) {
            Some((changed, known)) => {
                let more = known.join(mark);
                if more {
                    *changed = next;
                }
                more
            }
            None => {
                self.marks.insert(node, (next, *mark));
                true
            }
        };
        if changed {
            self.version = next;
        }
    }

    /// What has changed after a version, and the version that this is. Version 0 stands before everything.
    pub(super) fn since(&self, version: Option<u64>) -> (Vec<(NodeId, Mark)>, u64) {
        let is_newer = |changed: u64| version.is_none_or(|version| changed > version);
        let marks =
            self.marks.iter().filter(|(_, (changed, _))| is_newer(*changed)).map(|(node, (_, mark))| (*node, *mark));
        (marks.collect(), self.version)
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Everything about others than `me`.
    pub(super) fn others(&self, me: NodeId) -> BTreeMap<NodeId, Mark> {
        self.marks.iter().filter(|(node, _)| **node != me).map(|(node, (_, mark))| (*node, *mark)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::raft::Start;

    fn node(n: u16) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    fn mark(number: u64) -> Mark {
        Mark::first(1, Start { number, run: number, ..Start::default() }, 0)
    }

    #[test]
    fn only_what_has_changed_is_told_again() {
        let mut table = Table::new([(node(1), mark(1))].into());
        assert_eq!(table.since(None), (vec![(node(1), mark(1))], 0));
        assert_eq!(table.since(Some(0)), (vec![], 0));
        table.join(node(1), &mark(1));
        assert_eq!(table.since(Some(0)), (vec![], 0), "the same again is no change");
        table.join(node(2), &mark(1));
        table.join(node(1), &mark(2));
        assert_eq!(table.since(Some(0)).0.len(), 2);
        assert_eq!(table.since(Some(1)), (vec![(node(1), mark(2))], 2));
        assert_eq!(table.since(Some(2)), (vec![], 2));
        assert_eq!(table.get(node(1)), Some(&mark(2)));
        assert_eq!(table.others(node(1)), [(node(2), mark(1))].into());
    }

    #[test]
    fn the_table_is_bounded_and_volatile_members_are_not_in_it() {
        let mut table = Table::new(BTreeMap::new());
        table.join(node(0), &mark(0));
        assert_eq!(table.get(node(0)), None);
        for n in 1..=300 {
            table.join(node(n), &mark(1));
            table.join(node(1), &mark(u64::from(n)));
        }
        assert_eq!(table.since(None).0.len(), MAX_MARKS);
        assert!(table.get(node(2)).is_none() && table.get(node(300)).is_some());
        assert_eq!(table.get(node(1)), Some(&mark(300)), "what changes is not forgotten");
    }
}
