//! How fast the core is by itself: three members in one thread, no network, no disk, no serialization, 64 commands in
//! flight. `cargo test --release --test raft speed -- --ignored --nocapture`.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mosaik::groups::raft::{
    Ballot, Command, HardState, Input, Member, Now, Output, Payload, Proposal, Raft, SessionId, Settings, Stored,
};

use crate::sim::world::{id, index_of};

const MEMBERS: usize = 3;
const ENTRIES: u64 = 2_000_000;
const KEEP: u64 = 10_000;

struct Loop {
    rafts: Vec<Raft>,
    work: VecDeque<(usize, Input)>,
    now: Now,
    done: u64,
    sequence: u64,
    compacted: [u64; MEMBERS],
    leader: usize,
}

impl Loop {
    fn new() -> Self {
        let member = |n| Member { node: id(n), incarnation: 1 };
        let founders = (0..MEMBERS).map(member).collect();
        let ballot = Ballot { proposer: member(0), number: 1, founders, declared: MEMBERS as u32 };
        let hard = HardState { cluster: Some(ballot.cluster()), incarnation: 1, term: 1, voted: None, commit: 1 };
        let stored = Stored { hard, entries: vec![ballot.genesis()], ..Stored::default() };
        let now = Now { mono: 1, wall: 1 };
        let start = |n: usize| Raft::new(Settings::default(), member(n), stored.clone(), n as u64, now);
        let rafts = (0..MEMBERS).map(start).collect();
        Self { rafts, work: VecDeque::new(), now, done: 0, sequence: 0, compacted: [0; MEMBERS], leader: 0 }
    }

    fn propose(&mut self, count: u64) {
        let body = Bytes::from_static(b"sixteen bytes---");
        let proposals = (0..count).map(|_| {
            self.sequence += 1;
            let (session, sequence) = (SessionId(1), self.sequence);
            let command = Command { session, opened: 0, sequence, settled: sequence, attempted: 0, body: body.clone() };
            Proposal { id: sequence, payload: Payload::Command(command) }
        });
        let input = Input::Propose(proposals.collect());
        self.work.push_back((self.leader, input));
    }

    fn run(&mut self) {
        while let Some((n, input)) = self.work.pop_front() {
            for output in self.rafts[n].step(input, self.now) {
                match output {
                    Output::Persist { token, .. } => self.work.push_back((n, Input::Persisted { token })),
                    Output::Send(envelope) => {
                        self.work.push_back((index_of(envelope.to.node), Input::Message(envelope)));
                    }
                    Output::Apply(entries) => {
                        let index = entries.last().map_or(0, |entry| entry.index);
                        self.work.push_back((n, Input::Applied { index }));
                        if index > self.compacted[n] + KEEP {
                            self.compacted[n] = index;
                            self.work.push_back((n, Input::Compact { index, data: Bytes::new() }));
                        }
                        let commands = entries.iter().filter(|entry| entry.payload.is_user()).count() as u64;
                        if n == self.leader && commands > 0 {
                            self.done += commands;
                            if self.done < ENTRIES {
                                self.propose(commands);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
#[ignore = "a benchmark"]
fn speed() {
    // The best of five: whatever else runs on the machine only ever takes away.
    let best = (0..5).map(|_| round()).fold(0.0, f64::max);
    eprintln!("best: {best:.0} committed entries per second of one core, 64 in flight");
    assert!(best >= 1_000_000.0);
}

/// Time that this thread has spent on a core.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(0))
}

fn round() -> f64 {
    let mut all = Loop::new();
    while !all.rafts[0].is_leader() {
        all.now.mono += 2_000_000;
        all.work.push_back((0, Input::Tick));
        all.run();
    }
    let (began, before) = (Instant::now(), cpu());
    all.propose(64);
    all.run();
    let (took, busy) = (began.elapsed(), cpu().saturating_sub(before));
    let busy = if busy.is_zero() { took } else { busy };
    assert!(all.done >= ENTRIES);
    eprintln!("{} entries in {took:.2?}, of which {busy:.2?} on a core", all.done);
    all.done as f64 / busy.as_secs_f64()
}
