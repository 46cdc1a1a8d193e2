//! What every primary's run did: the state after each delta, and from which run it goes on.

use std::collections::{BTreeMap, btree_map::Entry};

use mosaik::stores::{Position, Primary, StoreReplica, View};

use super::chain::{Chain, Link};

/// One run. If its file was put back it has several branches, of which the last goes on.
struct Run {
    branches: Vec<Vec<Chain>>,
    /// The first of the runs that continue each other.
    root: u64,
}

/// All runs by their epoch.
#[derive(Default)]
pub struct Histories(BTreeMap<u64, Run>);

impl Histories {
    fn run(&mut self, epoch: u64, first: impl FnOnce() -> Chain) -> &mut Run {
        self.0.entry(epoch).or_insert_with(|| Run { branches: vec![vec![first()]], root: epoch })
    }

    /// A run begins, or goes on with all that was applied in it.
    pub fn begin(&mut self, primary: &Primary<Chain>) {
        let (now, Position { epoch, seq }) = (primary.read(), primary.read().position());
        let states = self.run(epoch, Chain::default).branches.last().expect("a branch");
        assert_eq!((states.len() as u64 - 1, states.last()), (seq, Some(&*now)), "something that was applied is lost");
    }

    /// A run goes on with what it had at some time.
    pub fn rolled_back(&mut self, primary: &Primary<Chain>) {
        let (now, Position { epoch, seq }) = (primary.read(), primary.read().position());
        let branches = &mut self.0.get_mut(&epoch).expect("a run").branches;
        let at = usize::try_from(seq).expect("a number");
        let known = branches.iter().find(|states| states.get(at) == Some(&*now)).expect("it had that");
        branches.push(known[..=at].to_vec());
    }

    /// A primary that learns that it was put back begins a new run with what it has. `before` is the epoch that it had.
    pub fn look(&mut self, primary: &Primary<Chain>, before: &mut u64) {
        let now = primary.read();
        let root = self.0.get(before).map_or(*before, |run| run.root);
        *before = now.position().epoch;
        if let Entry::Vacant(run) = self.0.entry(*before) {
            assert_eq!(now.position().seq, 0);
            run.insert(Run { branches: vec![vec![Chain::clone(&now)]], root });
        }
    }

    /// A delta was applied; `before` is the state that the primary had.
    pub fn applied(&mut self, position: Position, before: &Chain, delta: Link) {
        let states = self.run(position.epoch, || before.clone()).branches.last_mut().expect("a branch");
        let mut state = states.last().expect("a first state").clone();
        state.fold(delta);
        states.push(state);
        assert_eq!(states.len() as u64 - 1, position.seq);
    }

    /// A replica is the fold of the first deltas of one run, as many as its position says.
    pub fn check(&self, replica: &StoreReplica<Chain>) {
        let value = replica.read();
        let Position { epoch, seq } = value.position();
        if epoch == 0 {
            assert_eq!(*value, Chain::default());
            return;
        }
        let run = self.0.get(&epoch).unwrap_or_else(|| panic!("no run {epoch}"));
        let at = usize::try_from(seq).expect("a number");
        let found = run.branches.iter().any(|states| states.get(at) == Some(&*value));
        assert!(found, "{value:?} is not the fold of {seq} deltas of run {epoch}");
    }

    /// The first of the runs that continue each other, if there is such a run.
    pub fn root(&self, epoch: u64) -> Option<u64> {
        self.0.get(&epoch).map(|run| run.root)
    }
}
