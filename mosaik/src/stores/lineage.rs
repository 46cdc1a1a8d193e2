//! How a primary that was put back to an older copy of its file is found out.
//!
//! A durable primary goes on with its run after a restart. Each of its starts has a number and a random id; its file has the
//! newest of them, each with the number of the delta from which on it applied. A replica remembers the start that its last
//! connection was of, and tells both when it comes back. A copy of the file lacks later starts or deltas, and what is started
//! from it has other ids: so it contradicts every replica that has seen more. Pure data: ids come in as arguments.

use serde::{Deserialize, Serialize};

/// Starts that are remembered of a run. A replica that was away for more of them is believed as long as it is not ahead.
const STARTS: usize = 64;
/// Runs that are remembered of those that a run continues.
const PARENTS: usize = 16;

/// One start of a durable primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    /// Counted over the starts of a run.
    pub(super) number: u64,
    /// Random.
    pub(super) id: u64,
}

/// What a replica knows of the primary that its state came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Witness {
    /// Nothing: the state was written by a build that did not ask.
    #[default]
    Unknown,
    /// It begins a new run with each start.
    Volatile,
    /// It is durable, and this was its start.
    Durable(Start),
}

impl Witness {
    /// The start of a durable primary.
    pub(super) fn start(self) -> Option<Start> {
        if let Self::Durable(start) = self { Some(start) } else { None }
    }
}

impl From<Option<Start>> for Witness {
    fn from(start: Option<Start>) -> Self {
        start.map_or(Self::Volatile, Self::Durable)
    }
}

/// The starts of one run of a durable primary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lineage {
    /// Oldest first, each with the number of the first delta that it applied or may apply.
    starts: Vec<(Start, u64)>,
    /// The epochs of the runs that this one continues, oldest first.
    parents: Vec<u64>,
}

impl Lineage {
    /// The primary starts, with so many deltas in its file.
    pub(super) fn begin(&mut self, id: u64, end: u64) {
        let number = self.current().map_or(1, |last| last.number + 1);
        self.starts.push((Start { number, id }, end));
        let surplus = self.starts.len().saturating_sub(STARTS);
        self.starts.drain(..surplus);
    }

    /// That of a new run which goes on with the state of this one, the run `epoch`, also for who has the run `lost`, which began
    /// after it.
    pub(super) fn continued(&self, epoch: u64, lost: Option<u64>, id: u64) -> Self {
        let mut parents = self.parents.clone();
        parents.push(epoch);
        parents.extend(lost.filter(|lost| *lost > epoch));
        let surplus = parents.len().saturating_sub(PARENTS);
        parents.drain(..surplus);
        let mut child = Self { starts: Vec::new(), parents };
        child.begin(id, 0);
        child
    }

    pub(super) fn current(&self) -> Option<Start> {
        self.starts.last().map(|(start, _)| *start)
    }

    pub(super) fn parents(&self) -> &[u64] {
        &self.parents
    }

    /// Whether a replica that has all deltas before `next`, the last of them from that start, can be right, if this file has
    /// all before `end`. If not, the file is older than what its primary once gave out.
    pub(super) fn agrees(&self, end: u64, next: u64, start: Option<Start>) -> bool {
        if next > end {
            return false;
        }
        let Some(start) = start else { return true };
        let Some(newest) = self.current() else { return true };
        match self.starts.iter().position(|(known, _)| known.number == start.number) {
            // Older than what is remembered, or newer than all that this file has gone through.
            None => start.number < newest.number,
            Some(at) => {
                let ended = self.starts.get(at + 1).map_or(end, |(_, first)| *first);
                self.starts[at].0.id == start.id && next <= ended
            }
        }
    }
}

/// The run of a primary.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) epoch: u64,
    /// Deltas that are on disk. No replica has more.
    pub(super) end: u64,
    /// Only of a durable primary.
    pub(super) lineage: Option<Lineage>,
}

/// What a primary says of what a replica has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It can be, and this start of the primary vouches for it.
    Agrees(Option<Start>),
    /// The run is a later one, which the replica will be told of.
    OtherRun,
    /// It cannot be: the file is an older copy.
    Contradicts,
}

impl Run {
    /// What to say to a replica that has so many deltas of a run, the last of them from that start.
    pub(super) fn check(&self, epoch: u64, next: u64, start: Option<Start>) -> Answer {
        if self.epoch > epoch {
            return Answer::OtherRun;
        }
        let Some(lineage) = &self.lineage else { return Answer::Agrees(None) };
        // A later run of this primary that its file knows nothing of contradicts it as well.
        if self.epoch == epoch && lineage.agrees(self.end, next, start) {
            Answer::Agrees(lineage.current())
        } else {
            Answer::Contradicts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A primary started with these ids and numbers of deltas.
    fn started(starts: &[(u64, u64)]) -> Lineage {
        let mut lineage = Lineage::default();
        starts.iter().for_each(|(id, end)| lineage.begin(*id, *end));
        lineage
    }

    #[test]
    fn who_has_no_more_than_there_is_agrees() {
        let lineage = started(&[(70, 0), (71, 10), (72, 20)]);
        let start = |number, id| Some(Start { number, id });
        assert!(lineage.agrees(25, 10, start(1, 70)) && lineage.agrees(25, 3, start(1, 70)));
        assert!(lineage.agrees(25, 20, start(2, 71)) && lineage.agrees(25, 25, start(3, 72)));
        assert!(lineage.agrees(25, 25, None), "nothing is known against it");
    }

    #[test]
    fn a_copy_contradicts_who_has_seen_more() {
        let start = |number, id| Some(Start { number, id });
        // Copied while the first start ran, at ten deltas; a replica has twelve.
        let lineage = started(&[(70, 0), (91, 10)]);
        assert!(!lineage.agrees(10, 12, start(1, 70)), "ahead of the head");
        assert!(!lineage.agrees(15, 12, start(1, 70)), "the first start never gave more than ten");
        assert!(lineage.agrees(15, 9, start(1, 70)), "what it has was there when the copy was made");
        // Copied before the second start, which a replica has seen.
        assert!(!lineage.agrees(15, 10, start(2, 71)), "the second start was another one");
        assert!(!lineage.agrees(15, 10, start(3, 72)), "nor is there a third one here");
    }

    #[test]
    fn a_long_history_is_bounded() {
        let mut lineage = Lineage::default();
        (0..1000).for_each(|start| lineage.begin(start, start));
        assert_eq!((lineage.starts.len(), lineage.current().map(|start| start.number)), (STARTS, Some(1000)));
        assert!(lineage.agrees(1000, 5, Some(Start { number: 5, id: 4 })), "too old to be known");
        for epoch in 0..100 {
            lineage = lineage.continued(epoch, None, epoch);
        }
        assert_eq!((lineage.parents().len(), lineage.parents().last()), (PARENTS, Some(&99)));
        assert_eq!(lineage.continued(100, Some(200), 1).parents()[PARENTS - 2..], [100, 200]);
    }
}
