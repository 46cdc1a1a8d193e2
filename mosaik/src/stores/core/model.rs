//! A model of a store that is driven at random: two primaries, each in memory or on a disk that may be put back to an older copy,
//! and a replica whose worker is as in [`follow`](super::super::follow), but for IO. Planted bugs prove that it would find them.
//!
//! A state is a chain of hashes, and each delta carries the state that it was applied to: so what is folded out of order, twice, or
//! into another history is seen at once. Of runs the model knows what truly continues what.

use std::{
    collections::{BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    super::{
        lineage::{Answer, Lineage, Run},
        mutants::{Mutant, Switch},
    },
    *,
};

/// Of each bug, the seeds that may be needed to find it.
const SEEDS: u64 = 2000;
const STEPS: usize = 400;

type State = u64;

const EMPTY: State = 0;

fn fold(state: State, delta: u64) -> State {
    let [state, delta] = [state, delta].map(u64::to_le_bytes);
    let hash = blake3::hash(&[state, delta].concat());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"))
}

#[derive(Clone)]
struct Primary {
    peer: PeerId,
    run: Run,
    /// The state before the first delta of the run, and after each of them.
    states: Vec<State>,
    /// The epochs that this run goes on with, its own among them.
    continues: BTreeSet<u64>,
    up: bool,
    /// The epoch that the replica has, of which its file knows nothing: it is to begin anew.
    contradicted: Option<u64>,
}

impl Primary {
    fn head(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn state_at(&self, position: u64) -> Option<State> {
        self.states.get(usize::try_from(position).ok()?).copied()
    }

    fn begin(&mut self, epoch: u64, state: State, lineage: Option<Lineage>) {
        self.run = Run { epoch, end: 0, lineage };
        self.states = vec![state];
        self.continues.insert(epoch);
    }
}

/// What the replica's consumer tells.
#[derive(Clone, Copy, Debug)]
enum Event {
    Connected { peer: PeerId, epoch: u64, next: u64, resumed: bool },
    Gap { peer: PeerId, to: u64 },
    Disconnected { peer: PeerId },
}

#[derive(Clone, Copy, Debug)]
struct Delta {
    peer: PeerId,
    epoch: u64,
    seq: u64,
    before: State,
    after: State,
}

/// A subscription of the replica.
#[derive(Clone, Copy, Default)]
struct Subscription {
    connected: bool,
    /// The run of which the consumer has received all before that number.
    known: Option<(u64, u64)>,
}

/// A snapshot that is on its way.
struct Fetch {
    wanted: Wanted,
    continues: Option<u64>,
    /// The primary as it was when it made the image, and the image's position.
    image: Option<(Primary, u64)>,
}

struct World {
    rng: SmallRng,
    switch: Switch,
    epoch: u64,
    applied: u64,
    primaries: [Primary; 2],
    copies: [Option<Primary>; 2],
    subscriptions: [Subscription; 2],
    events: VecDeque<Event>,
    deltas: VecDeque<Delta>,
    // The replica.
    cut: Cut,
    guarded: bool,
    state: State,
    published: (State, Option<At>),
    saved: (State, Option<(At, Witness)>),
    held: Vec<Delta>,
    fetching: Option<Fetch>,
    checking: Option<Claim>,
    /// Primaries whose connection it was told of.
    seen: BTreeSet<PeerId>,
    word: Option<PeerId>,
    /// The last things that happened, for who looks at a failure.
    log: VecDeque<String>,
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut peers = [1, 2].map(super::tests::peer);
        peers.sort_unstable();
        // The first is followed as a rule; the core prefers lower ids where it has no reason.
        peers.reverse();
        let mut epoch = 0;
        let durable = rng.random_range(0..4) > 0;
        let primaries = peers.map(|peer| {
            epoch += 1;
            let lineage = durable.then(|| {
                let mut lineage = Lineage::default();
                lineage.begin(rng.random(), 0);
                lineage
            });
            let run = Run { epoch, end: 0, lineage };
            Primary { peer, run, states: vec![EMPTY], continues: [epoch].into(), up: true, contradicted: None }
        });
        let guarded = rng.random();
        let switch = Switch::plant(mutant);
        Self {
            rng,
            switch,
            epoch,
            applied: 0,
            primaries,
            copies: [None, None],
            subscriptions: [Subscription::default(); 2],
            events: VecDeque::new(),
            deltas: VecDeque::new(),
            cut: Cut { switch, ..Cut::default() }.guarded(guarded),
            guarded,
            state: EMPTY,
            published: (EMPTY, None),
            saved: (EMPTY, None),
            held: Vec::new(),
            fetching: None,
            checking: None,
            seen: BTreeSet::new(),
            word: None,
            log: VecDeque::new(),
        }
    }

    fn note(&mut self, what: impl std::fmt::Debug) {
        if self.log.len() == 60 {
            self.log.pop_front();
        }
        self.log.push_back(format!("{what:?}"));
    }

    fn once_in(&mut self, times: u32) -> bool {
        self.rng.random_range(0..times) == 0
    }

    fn index(&self, peer: PeerId) -> usize {
        usize::from(self.primaries[0].peer != peer)
    }

    // The primaries and the streams of deltas.

    fn apply(&mut self, at: usize) {
        self.applied += 1;
        let primary = &mut self.primaries[at];
        let (seq, before) = (primary.head(), primary.states[primary.states.len() - 1]);
        let after = fold(before, self.applied);
        primary.states.push(after);
        primary.run.end = seq + 1;
        let subscription = &mut self.subscriptions[at];
        if subscription.connected && subscription.known.is_none_or(|(_, next)| next <= seq) {
            let (peer, epoch) = (primary.peer, primary.run.epoch);
            self.deltas.push_back(Delta { peer, epoch, seq, before, after });
            subscription.known = Some((epoch, seq + 1));
        }
    }

    fn connect(&mut self, at: usize) {
        // Now and then the consumer has forgotten what it had, and what was missed is too old to be sent.
        let (forgets, too_old) = (self.once_in(4), self.once_in(2));
        let (primary, subscription) = (&self.primaries[at], &mut self.subscriptions[at]);
        let (peer, epoch, head) = (primary.peer, primary.run.epoch, primary.head());
        let known = subscription.known.filter(|_| !forgets);
        let had = known.map(|(of, next)| if of == epoch { next } else { 0 });
        let next = had.filter(|_| !too_old).unwrap_or(head).min(head);
        let resumed = known.is_some_and(|(of, _)| of == epoch);
        // What it had once it does not hand on again, also if the producer has forgotten it.
        let has = had.filter(|_| resumed).unwrap_or(0).max(next);
        self.events.push_back(Event::Connected { peer, epoch, next, resumed });
        if had.is_some_and(|had| had < next) {
            self.events.push_back(Event::Gap { peer, to: next });
        }
        for seq in has..head {
            let [before, after] = [seq, seq + 1].map(|at| primary.state_at(at).expect("it has applied that"));
            self.deltas.push_back(Delta { peer, epoch, seq, before, after });
        }
        *subscription = Subscription { connected: true, known: Some((epoch, head.max(has))) };
    }

    fn disconnect(&mut self, at: usize) {
        if std::mem::take(&mut self.subscriptions[at].connected) {
            self.events.push_back(Event::Disconnected { peer: self.primaries[at].peer });
        }
    }

    fn start(&mut self, at: usize) {
        let id = self.rng.random();
        self.epoch += 1;
        let epoch = self.epoch;
        let primary = &mut self.primaries[at];
        (primary.up, primary.contradicted) = (true, None);
        let head = primary.head();
        match &mut primary.run.lineage {
            Some(lineage) => lineage.begin(id, head),
            None => primary.begin(epoch, EMPTY, None),
        }
    }

    fn stop(&mut self, at: usize) {
        self.disconnect(at);
        self.primaries[at].up = false;
    }

    /// It has learned that its file is an older copy of what the replica has seen.
    fn begin_anew(&mut self, at: usize) {
        let Some(seen) = self.primaries[at].contradicted.take().filter(|seen| *seen >= self.primaries[at].run.epoch)
        else {
            return;
        };
        self.disconnect(at);
        let id = self.rng.random();
        self.epoch = self.epoch.max(seen) + 1;
        let epoch = self.epoch;
        let primary = &mut self.primaries[at];
        let lineage = primary.run.lineage.as_ref().map(|lineage| lineage.continued(primary.run.epoch, Some(seen), id));
        primary.continues.insert(seen);
        let state = primary.states[primary.states.len() - 1];
        primary.begin(epoch, state, lineage);
        self.connect(at);
    }

    // The replica.

    fn take(&mut self) {
        let Some(event) = self.events.pop_front() else { return };
        self.note(event);
        match event {
            Event::Connected { peer, epoch, next, resumed } => {
                self.seen.insert(peer);
                self.cut.connected(peer, epoch, next, resumed);
            }
            Event::Gap { peer, to } => self.cut.missed(peer, to),
            Event::Disconnected { peer } => {
                self.seen.remove(&peer);
                let again = !self.cut.survives(peer);
                self.cut.disconnected(peer);
                if again {
                    self.cut = self.cut.begun_again();
                    self.subscribe_again();
                }
            }
        }
        let runs = [self.cut.wanted().map(|it| (it.primary, it.epoch)), self.cut.at().map(|it| (it.primary, it.epoch))];
        self.held.retain(|delta| runs.contains(&Some((delta.peer, delta.epoch))));
    }

    fn read(&mut self, deltas: usize) {
        for _ in 0..deltas {
            while !self.events.is_empty() {
                self.take();
            }
            // One that was read before is gone with its subscription.
            let Some(delta) = self.deltas.pop_front() else { break };
            self.fold(delta);
        }
    }

    fn fold(&mut self, delta: Delta) {
        let room = self.rng.random_range(0..4) > 0;
        let verdict = self.cut.delta(delta.peer, delta.epoch, delta.seq, room);
        self.note((delta, verdict));
        match verdict {
            Verdict::Fold => {
                assert_eq!(self.state, delta.before, "a delta is folded that does not fit the state: {delta:?}");
                self.state = delta.after;
                if self.once_in(100) {
                    let (state, at) = self.published;
                    self.state = state;
                    self.cut.unfoldable(at.map_or(0, |at| at.next), delta.seq);
                    self.note(("it panicked", self.published));
                }
            }
            Verdict::Hold => self.held.push(delta),
            Verdict::Drop => {}
        }
    }

    fn fold_held(&mut self) {
        self.published = (self.state, self.cut.at());
        for delta in std::mem::take(&mut self.held) {
            self.fold(delta);
        }
    }

    /// The connection that the deltas came over is the one that questions are answered over: that it has ended is known first.
    fn take_all(&mut self) {
        while !self.events.is_empty() {
            self.take();
        }
        self.between();
    }

    fn fetched(&mut self) {
        self.take_all();
        let Some(mut fetch) = self.fetching.take() else { return };
        let Fetch { wanted, continues, .. } = fetch;
        let Some((primary, position)) = fetch.image.take() else {
            let primary = &self.primaries[self.index(wanted.primary)];
            if !primary.up || primary.run.epoch != wanted.epoch {
                return self.cut.failed(wanted.primary);
            }
            if primary.head() >= wanted.at_least {
                let position = self.rng.random_range(wanted.at_least..=primary.head());
                fetch.image = Some((primary.clone(), position));
            } else if self.once_in(3) {
                return self.cut.failed(wanted.primary); // the primary does not wait for ever
            }
            self.fetching = Some(fetch);
            return;
        };
        let parents = primary.run.lineage.as_ref().map_or(&[][..], Lineage::parents);
        if continues.is_some_and(|epoch| !parents.contains(&epoch)) {
            return self.cut.refuse(wanted.primary, wanted.epoch);
        }
        let start = primary.run.lineage.as_ref().and_then(Lineage::current);
        let (before, vouched) = (self.cut.at(), self.cut.witness().start().is_some());
        let taken = self.cut.snapshot(wanted.primary, wanted.epoch, position, start.into());
        if !taken {
            return self.note((wanted, "came", position, "not taken"));
        }
        if let Some(before) = before {
            let same = (before.primary, before.epoch) == (wanted.primary, wanted.epoch);
            assert!(!same || before.next <= position, "a snapshot is older than the state");
            if self.guarded && vouched && self.state != EMPTY {
                let fits = if same {
                    primary.state_at(before.next) == Some(self.state)
                } else {
                    primary.continues.contains(&before.epoch)
                };
                let told = self.word == Some(wanted.primary);
                assert!(fits || told, "{before:?} is given up for another history: {wanted:?}");
            }
        }
        self.word.take_if(|word| *word == wanted.primary);
        self.state = primary.state_at(position).expect("it has applied that");
        self.note((wanted, "came", position, "taken"));
        self.note_beginning();
        if before.is_some_and(|before| before.primary != wanted.primary) {
            self.cut = self.cut.begun_again();
            return self.subscribe_again();
        }
        self.fold_held();
    }

    fn note_beginning(&mut self) {
        if self.cut.at().is_some_and(|at| at.next == 0) {
            self.cut.begins_with(self.state != EMPTY);
        }
    }

    fn checked(&mut self) {
        self.take_all();
        let Some(claim) = self.checking.take() else { return };
        let at = self.index(claim.primary);
        if !self.primaries[at].up {
            return;
        }
        let answer = self.primaries[at].run.check(claim.epoch, claim.next, claim.start);
        self.note((claim, answer));
        match answer {
            Answer::Agrees(start) => {
                self.cut.checked(claim, start.into());
                self.fold_held();
            }
            Answer::OtherRun => {}
            Answer::Contradicts => {
                self.primaries[at].contradicted = Some(claim.epoch);
                self.cut.contradicted(claim);
                self.held.clear();
            }
        }
    }

    /// What the worker does between two things that happen, and what must hold then.
    fn between(&mut self) {
        let wanted = self.cut.wanted();
        let run = wanted.map(|wanted| (wanted.primary, wanted.epoch));
        self.fetching.take_if(|fetch| run != Some((fetch.wanted.primary, fetch.wanted.epoch)));
        if let Some(wanted) = wanted.filter(|_| self.fetching.is_none() && self.cut.may_fetch()) {
            let own = self.cut.at().map(|at| at.primary).filter(|own| *own != wanted.primary);
            let has_its_own = own.is_some_and(|own| self.seen.contains(&own) && !self.cut.is_refused(own));
            assert!(!has_its_own || self.word == Some(wanted.primary), "its own primary is there: {wanted:?}");
            self.fetching = Some(Fetch { wanted, continues: self.cut.must_continue(), image: None });
        }
        self.checking = self.cut.claim();
        self.published = (self.state, self.cut.at());
        if let Standing::Synced(peer) = self.cut.standing() {
            let at = self.index(peer);
            let primary = &self.primaries[at];
            let quiet = self.events.is_empty() && self.deltas.iter().all(|delta| delta.peer != peer);
            if quiet && primary.up && self.subscriptions[at].connected {
                assert_eq!(Some(self.state), primary.state_at(primary.head()), "synced, and not all there");
            }
        }
    }

    /// Its consumer is made anew, from what it knows.
    fn subscribe_again(&mut self) {
        self.events.clear();
        self.deltas.clear();
        self.held.clear();
        self.seen.clear();
        self.subscriptions = [Subscription::default(); 2];
        if let Some(at) = self.cut.at() {
            self.subscriptions[self.index(at.primary)].known = Some((at.epoch, at.next));
        }
        (self.fetching, self.checking) = (None, None);
    }

    fn restart(&mut self) {
        let (state, kept) = self.saved;
        let cut = kept.map_or_else(Cut::default, |(at, witness)| Cut::restored(at, witness));
        self.cut = Cut { switch: self.switch, ..cut }.guarded(self.guarded);
        (self.state, self.word) = (state, None);
        self.subscribe_again();
        self.note_beginning();
    }

    fn is_refused(&self) -> Option<PeerId> {
        if let Standing::Refused(peer) = self.cut.standing() { Some(peer) } else { None }
    }

    fn step(&mut self) {
        let at = usize::from(self.once_in(5));
        let is_up = self.primaries[at].up;
        let what = self.rng.random_range(0..40);
        if (15..26).contains(&what) {
            self.note((what, at));
        }
        match what {
            0..12 if is_up => self.apply(at),
            // A second primary is a mistake that happens now and then.
            12..15 if is_up && !self.subscriptions[at].connected => self.connect(at),
            15 => self.disconnect(at),
            16 if is_up => self.stop(at),
            17..20 if !is_up => self.start(at),
            20 => self.copies[at] = Some(self.primaries[at].clone()),
            21 if self.primaries[at].run.lineage.is_some() && self.once_in(2) => {
                if let Some(copy) = self.copies[at].clone() {
                    self.stop(at);
                    self.primaries[at] = copy;
                    self.start(at);
                }
            }
            22 if self.once_in(4) => {
                self.cut = self.cut.begun_again();
                self.subscribe_again();
            }
            23 if self.once_in(4) => self.restart(),
            24 if self.guarded => {
                self.saved = (self.state, self.cut.at().map(|at| (at, self.cut.witness())));
            }
            25 => {
                if let Some(peer) = self.is_refused() {
                    self.word = Some(peer);
                    self.cut.follow(peer);
                }
            }
            26..29 => self.fetched(),
            29..32 => self.checked(),
            32..34 => self.take(),
            34 if is_up => self.begin_anew(at),
            _ => {
                let deltas = self.rng.random_range(1..6);
                self.read(deltas);
            }
        }
        self.between();
    }

    /// One primary is there and nothing fails any more.
    fn rest(&mut self) {
        self.stop(1);
        for _ in 0..100 {
            if !self.primaries[0].up {
                self.start(0);
            }
            if !self.subscriptions[0].connected {
                self.connect(0);
            }
            while !self.events.is_empty() {
                self.take();
                self.between();
            }
            while !self.deltas.is_empty() {
                self.read(5);
                self.between();
            }
            self.checked();
            self.between();
            self.begin_anew(0);
            self.fetched();
            self.between();
        }
        let primary = &self.primaries[0];
        let at = self.cut.at();
        match self.cut.standing() {
            Standing::Synced(_) => {
                assert_eq!(at.map(|at| at.next), Some(primary.head()));
                assert_eq!(Some(self.state), primary.state_at(primary.head()));
            }
            Standing::Refused(_) => {
                let other = at.is_some_and(|at| at.primary != primary.peer && !primary.continues.contains(&at.epoch));
                assert!(self.guarded && other, "refused without a reason, at {at:?}");
            }
            standing => panic!("{standing:?} at {at:?} when all is well: {:?} {:?}", self.cut.wanted(), self.checking),
        }
    }
}

/// What has gone wrong with a seed, if something has.
fn run(seed: u64, mutant: Option<Mutant>) -> Result<(), Box<World>> {
    let mut world = World::new(seed, mutant);
    let run = AssertUnwindSafe(|| {
        for _ in 0..2 {
            (0..STEPS).for_each(|_| world.step());
            world.rest();
        }
    });
    catch_unwind(run).map_err(|_| Box::new(world))
}

#[test]
fn a_replica_shows_one_history_whatever_happens() {
    for seed in 0..SEEDS {
        if let Err(world) = run(seed, None) {
            let log = Vec::from(world.log).join("\n");
            panic!("seed {seed} failed as said above, after this:\n{log}");
        }
    }
}

#[test]
fn planted_bugs_are_found() {
    use Mutant::*;
    let all = [
        CheckSkipped,
        FoldsUnchecked,
        ContradictionIgnored,
        RefusedIsFolded,
        EarlierRunUnchecked,
        FoldsTwice,
        FoldsOverGap,
        OtherRunFolded,
        ShortSnapshotSuffices,
        GapIgnored,
        LeftOutForgotten,
        LackForgotten,
        GuardIgnored,
        LeavesItsOwn,
        UnfoldableCounts,
        SyncedTooEarly,
        UnfoldedSurvives,
        RestartUnchecked,
    ];
    let found = all.map(|bug| {
        let first = (0..SEEDS).find(|seed| run(*seed, Some(bug)).is_err());
        eprintln!("{bug:?}: seed {first:?}");
        (bug, first)
    });
    let alive: Vec<_> = found.iter().filter(|(_, first)| first.is_none()).collect();
    assert!(alive.is_empty(), "not found: {alive:?}");
}
