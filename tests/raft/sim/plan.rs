//! What goes wrong in one run: each seed draws its own mix and intensities (swarm testing), so that rare faults are not
//! drowned by common ones.

use mosaik::groups::raft::{Quirk, Settings, Switch};

use super::rng::Rng;

#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub declared: u32,
    pub volatile: bool,
    pub clients: usize,
    /// Simulated microseconds with faults, then without.
    pub stormy: u64,
    pub calm: u64,
    /// Message loss and duplication, per million.
    pub loss: u64,
    pub duplicate: u64,
    /// Bytes damaged in an entry on the way, per million messages.
    pub damage: u64,
    /// Message delay, microseconds: least, and spread. A rare message takes a hundred times as long.
    pub delay: (u64, u64),
    pub straggle: u64,
    /// Write latency, microseconds.
    pub fsync: (u64, u64),
    pub slow_fsync: u64,
    /// Clock-rate error, parts per million either way.
    pub drift: u64,
    /// Mean time between faults of each kind, microseconds; 0: never.
    pub crash: u64,
    pub restart: (u64, u64),
    /// Crash at one output, per million outputs.
    pub crash_at_output: u64,
    pub pause: u64,
    pub cut: u64,
    pub one_way: u64,
    pub isolate: u64,
    pub heal: u64,
    pub wipe: u64,
    pub transfer: u64,
    pub change: u64,
    pub compact: u64,
    /// Storage fails; the member stops and is started again.
    pub eio: u64,
    /// Wall clocks jump, by up to a lifetime.
    pub skew: u64,
    /// Storage answers nothing for a while, and then goes on.
    pub hang: u64,
    /// Oddities of the core, as bits of `Quirk::ALL`.
    pub quirks: u32,
    /// Nodes start over this span.
    pub start: u64,
    pub settings: Settings,
    pub sessions: (usize, u64, u64),
}

const SECOND: u64 = 1_000_000;

impl Plan {
    /// Nothing goes wrong.
    pub fn calm(nodes: usize) -> Self {
        Self {
            nodes,
            declared: nodes as u32,
            volatile: false,
            clients: 3,
            stormy: 0,
            calm: 10 * SECOND,
            loss: 0,
            duplicate: 0,
            damage: 0,
            delay: (500, 1000),
            straggle: 0,
            fsync: (100, 400),
            slow_fsync: 0,
            drift: 0,
            crash: 0,
            restart: (SECOND, 2 * SECOND),
            crash_at_output: 0,
            pause: 0,
            cut: 0,
            one_way: 0,
            isolate: 0,
            heal: SECOND,
            wipe: 0,
            transfer: 0,
            change: 0,
            compact: 0,
            eio: 0,
            skew: 0,
            hang: 0,
            quirks: 0,
            start: 0,
            settings: Settings::default(),
            sessions: (64, 3_600_000, 64),
        }
    }

    pub fn swarm(rng: &mut Rng, switch: Switch) -> Self {
        let nodes = rng.pick(&[3, 3, 5, 5, 4]);
        let mut plan = Self::calm(nodes);
        plan.declared = if rng.chance(600_000) { rng.pick(&[3, 3, nodes as u32]) } else { 0 };
        plan.volatile = rng.chance(150_000);
        plan.clients = rng.between(1, 4) as usize;
        plan.stormy = rng.between(10, 30) * SECOND;
        plan.calm = 40 * SECOND;
        plan.start = rng.pick(&[0, SECOND, 5 * SECOND]);
        plan.loss = rng.pick(&[0, 0, 10_000, 100_000, 300_000]);
        plan.duplicate = rng.pick(&[0, 0, 20_000, 200_000]);
        plan.damage = rng.pick(&[0, 0, 0, 5_000]);
        plan.delay = rng.pick(&[(200, 500), (1000, 5000), (5_000, 100_000)]);
        plan.straggle = rng.pick(&[0, 0, 5_000, 50_000]);
        plan.fsync = rng.pick(&[(50, 200), (1000, 10_000), (5_000, 80_000)]);
        plan.slow_fsync = rng.pick(&[0, 0, 10_000]);
        plan.drift = rng.pick(&[0, 1_000, 100_000]);
        let mut often = |choices: &[u64]| if rng.chance(500_000) { 0 } else { rng.pick(choices) * SECOND / 10 };
        plan.crash = often(&[10, 30, 100]);
        plan.pause = often(&[30, 100]);
        plan.cut = often(&[5, 20, 60]);
        plan.one_way = often(&[5, 20, 60]);
        plan.isolate = often(&[20, 60, 100]);
        plan.wipe = often(&[100, 200]);
        plan.transfer = often(&[10, 50]);
        plan.change = often(&[10, 50]);
        plan.compact = often(&[5, 20, 50]);
        plan.eio = often(&[50, 150]);
        plan.skew = often(&[10, 50, 200]);
        plan.heal = rng.pick(&[SECOND / 5, SECOND, 4 * SECOND]);
        plan.restart = rng.pick(&[(1000, 50_000), (SECOND / 2, 2 * SECOND), (2 * SECOND, 8 * SECOND)]);
        plan.crash_at_output = rng.pick(&[0, 0, 200, 2_000]);
        if rng.chance(200_000) {
            plan.sessions = (rng.between(1, 6) as usize, rng.between(6_000, 12_000), 64);
        }
        if rng.chance(500_000) {
            plan.quirks = (0..Quirk::ALL.len()).filter(|_| rng.chance(250_000)).fold(0, |set, bit| set | 1 << bit);
        }
        if let Some(only) = std::env::var("RAFT_QUIRKS").ok().and_then(|it| it.parse::<u32>().ok()) {
            plan.quirks &= only;
        }
        plan.settings = Settings {
            tail: rng.pick(&[0, 5, 4096]),
            uncommitted_bytes: rng.pick(&[200, 64 << 20, 64 << 20]),
            append_entries: rng.pick(&[1, 3, 64]),
            inflight: rng.pick(&[1, 4, 64]),
            catch_up: rng.pick(&[3, 10, 4096]),
            catch_up_window: rng.pick(&[4, 16, 1000]),
            pull_entries: rng.pick(&[1, 3, 64]),
            chunk: rng.pick(&[40, 200, 4096]),
            silent: rng.pick(&[3, 10, 30]) * SECOND,
            target_voters: rng.pick(&[3, 5]),
            caught_up: rng.pick(&[2, 1024]),
            applying: rng.pick(&[1, 8, 65_536]),
            switch: switch.with_quirks(plan.quirks),
            ..Settings::default()
        };
        plan
    }
}
