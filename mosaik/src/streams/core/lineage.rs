//! Whose numbers a consumer of an owned stream has: of which cluster of the group, and up to which place of its log.
//!
//! All members of one cluster have the same items under the same numbers, so [`Union`](super::union::Union) merges what they send.
//! A group that began anew is another cluster, with numbers of its own: the consumer goes over to it once, says so, and never goes
//! back. Within a cluster the places of items, terms and indices of the log, only grow: who brings an item of an older term than
//! was seen is *fenced*.

use std::collections::VecDeque;

use super::mutants::{Mutant, Switch};

/// Clusters that are remembered as left.
const LEFT: usize = 16;

/// Where an item is in the group's log: term and index.
pub(crate) type Place = (u64, u64);

/// An item that comes behind a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fenced {
    /// Where it is.
    pub(crate) brought: Place,
    /// Where the item before it was.
    pub(crate) seen: Place,
}

/// What a producer is to this consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joins {
    /// Of the cluster whose numbers count, which it may have begun.
    Same,
    /// Of another one, whose numbers count from now on.
    Other {
        /// The one before.
        from: u64,
    },
    /// Of one that was left.
    Left,
}

/// See the module's text.
#[derive(Debug, Default, Clone)]
pub(crate) struct Lineage {
    /// Names the cluster whose numbers count; `None` before the first.
    epoch: Option<u64>,
    left: VecDeque<u64>,
    /// Of the last item.
    last: Place,
    switch: Switch,
}

impl Lineage {
    /// One with a planted bug, or none.
    pub(crate) fn with(switch: Switch) -> Self {
        Self { switch, ..Self::default() }
    }

    /// Names the cluster whose numbers count.
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// A producer serves items of this epoch.
    pub(crate) fn join(&mut self, epoch: u64) -> Joins {
        match self.epoch {
            Some(known) if known == epoch => Joins::Same,
            _ if self.left.contains(&epoch) => Joins::Left,
            Some(from) => {
                self.left.push_back(from);
                if self.left.len() > LEFT {
                    self.left.pop_front();
                }
                (self.epoch, self.last) = (Some(epoch), (0, 0));
                Joins::Other { from }
            }
            None => {
                self.epoch = Some(epoch);
                Joins::Same
            }
        }
    }

    /// Items come that nobody has brought before; those without a place are the decoder's business.
    pub(crate) fn take(&mut self, places: impl IntoIterator<Item = Place>) -> Result<(), Fenced> {
        let mut last = self.last;
        for place in places {
            if place < last && !self.switch.is(Mutant::OldTermTaken) {
                return Err(Fenced { brought: place, seen: last });
            }
            last = place;
        }
        self.last = last;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cluster_is_joined_once_and_the_old_one_never_again() {
        let mut lineage = Lineage::default();
        assert_eq!((lineage.join(7), lineage.join(7), lineage.epoch()), (Joins::Same, Joins::Same, Some(7)));
        assert_eq!(lineage.take([(3, 10)]), Ok(()));
        assert_eq!(lineage.join(8), Joins::Other { from: 7 });
        assert_eq!((lineage.join(7), lineage.epoch()), (Joins::Left, Some(8)));
        assert_eq!(lineage.take([(1, 2)]), Ok(()), "its terms begin anew");
        for epoch in 100..200 {
            lineage.join(epoch);
        }
        assert_eq!(lineage.left.len(), LEFT);
    }

    #[test]
    fn an_older_term_is_fenced_and_changes_nothing() {
        let mut lineage = Lineage::default();
        lineage.join(1);
        assert_eq!(lineage.take([(2, 5), (2, 5), (2, 6), (4, 9)]), Ok(()), "those of one entry have one place");
        assert_eq!(lineage.take([(5, 10), (3, 8)]), Err(Fenced { brought: (3, 8), seen: (5, 10) }));
        assert_eq!(lineage.take([(4, 8)]), Err(Fenced { brought: (4, 8), seen: (4, 9) }));
        assert_eq!(lineage.take([(4, 10)]), Ok(()));
    }

    #[test]
    fn a_consumer_that_ignores_the_fence_is_found() {
        let mut lineage = Lineage::with(Switch::plant(Some(Mutant::OldTermTaken)));
        lineage.join(1);
        assert_eq!(lineage.take([(4, 9), (3, 10)]), Ok(()), "so the test above would fail");
    }
}
