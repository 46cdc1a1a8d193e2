//! What is done to a group at random, and undone.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use mosaik::{
    groups::{MemberInfo, MemberKind},
    testing::{LinkQuality, SimDisk},
};
use tokio::time::{Instant, sleep};

use crate::{
    lab::{Lab, until},
    random::Rng,
    registers::{Registers, Shared},
};

/// Faults that are remembered.
const KEPT: usize = 200;

pub struct Faults {
    pub lab: Lab<Registers>,
    pub shared: Rc<Shared>,
    pub rng: Rng,
    pub nodes: usize,
    pub log_limit: u64,
    /// Frozen members and when they go on.
    frozen: BTreeMap<usize, Instant>,
    /// Members whose disk hangs and when it answers again.
    hung: BTreeMap<usize, Instant>,
    /// A node that came with a fresh identity, and is to go again; and how many there were.
    guest: Option<usize>,
    guests: usize,
    /// Links that are slow and lose packets.
    bad: Vec<(usize, usize)>,
    /// Copies of disks, made at some time.
    copies: BTreeMap<usize, SimDisk>,
    /// The incarnations of members with disks: what nobody has put back is never taken for a copy.
    lives: BTreeMap<usize, u64>,
    log: Log,
}

/// What was done and when; printed when the scenario panics.
#[derive(Default)]
struct Log(VecDeque<String>);

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.iter().for_each(|line| eprintln!("  {line}"));
        }
    }
}

impl Faults {
    pub fn new(lab: Lab<Registers>, shared: Rc<Shared>, mut rng: Rng, nodes: usize) -> Self {
        let log_limit = if rng.below(2) == 0 { 8 << 10 } else { 16 << 20 };
        let (frozen, hung) = (BTreeMap::new(), BTreeMap::new());
        Self {
            lab,
            shared,
            rng,
            nodes,
            log_limit,
            frozen,
            hung,
            guest: None,
            guests: 0,
            bad: Vec::new(),
            copies: BTreeMap::new(),
            lives: BTreeMap::new(),
            log: Log::default(),
        }
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.log.0.push_back(format!("{:.3?} {what}", self.lab.sim.elapsed()));
        if self.log.0.len() > KEPT {
            self.log.0.pop_front();
        }
    }

    fn is_volatile(&self) -> bool {
        self.lab.disks.is_none()
    }

    /// Starts everybody and waits until all vote.
    pub async fn begin(&mut self) {
        for n in 0..self.nodes {
            self.start(n).await;
            // An undeclared group begins with one: two that begin apart from each other are another story.
            if self.lab.size == 0 {
                self.lab.elected().await;
            }
        }
        self.all_vote().await;
        self.lives = (0..self.nodes).map(|n| (n, self.incarnation(n))).collect();
    }

    /// The life of a member's storage, as it knows it itself; 0 for a volatile one. While a new life takes the place of an old
    /// one both are members.
    fn incarnation(&self, n: usize) -> u64 {
        let id = self.lab.node(n).id();
        let members = self.lab.group(n).members();
        let lives = members.iter().filter(|it| it.id() == id && !self.is_volatile()).map(MemberInfo::incarnation);
        lives.max().unwrap_or(0)
    }

    /// At the end: nobody has discarded a storage that was all right.
    pub async fn nobody_was_taken_for_a_copy(&self) {
        self.all_vote().await;
        for (n, life) in &self.lives {
            assert_eq!(self.incarnation(*n), *life, "n{n} has discarded its storage");
        }
    }

    /// Waits until every node is a voter, for good and as all of them see it: what the leader alone has written down may die with
    /// it, and until two voters have become three none of the two may be lost.
    pub async fn all_vote(&self) {
        let voter = |member: &&MemberInfo| member.kind() == MemberKind::Voter;
        let voters = |n| self.lab.group(n).members().iter().filter(voter).count();
        let settled = |n| self.lab.group(n).status().is_settled();
        until("all vote", || (0..self.nodes).all(|n| voters(n) == self.nodes && settled(n))).await;
    }

    async fn start(&mut self, n: usize) {
        self.note(format_args!("start n{n}"));
        let limit = self.log_limit;
        self.lab.start_as(n, |builder| builder.with_log_limit(limit)).await;
        self.shared.groups.borrow_mut().insert(n, self.lab.group(n).clone());
    }

    fn stop(&mut self, n: usize) {
        self.shared.groups.borrow_mut().remove(&n);
        self.frozen.remove(&n);
        self.lab.node(n).resume();
    }

    /// Its disk answers nothing for a while.
    fn hang(&mut self, n: usize) {
        let time = self.rng.millis(500, 12_000);
        if let Some(disk) = self.lab.disks.as_ref().and_then(|disks| disks.get(&n)) {
            disk.set_hung(true);
            self.hung.insert(n, Instant::now() + time);
            self.note(format_args!("disk of n{n} hangs for {time:?}"));
        }
    }

    fn answer(&mut self, n: usize) {
        if self.hung.remove(&n).is_some() {
            self.note(format_args!("disk of n{n} answers"));
            self.lab.disks.iter().flatten().filter(|(of, _)| **of == n).for_each(|(_, disk)| disk.set_hung(false));
        }
    }

    /// A node that was never there comes, or the one that came goes for good: a container without a volume.
    async fn come_or_go(&mut self) {
        if let Some(guest) = self.guest.take() {
            self.note(format_args!("n{guest} goes for good"));
            self.lab.crash(guest);
            return;
        }
        let guest = self.nodes + self.guests;
        self.guests += 1;
        self.note(format_args!("n{guest} comes"));
        self.lab.start(guest).await;
        self.guest = Some(guest);
    }

    fn crash(&mut self, n: usize) {
        self.note(format_args!("crash n{n}"));
        self.stop(n);
        self.lab.crash(n);
    }

    async fn shut_down(&mut self, n: usize) {
        self.note(format_args!("shut n{n} down"));
        self.stop(n);
        self.lab.shut_down(n).await;
    }

    /// The leader, as the first member that runs knows it, half of the time; else anybody.
    fn victim(&mut self) -> usize {
        let leads = |n: &usize| self.lab.members.get(n).is_some_and(|(_, group)| group.is_leader());
        let leader = (0..self.nodes).find(leads);
        match leader {
            Some(leader) if self.rng.below(2) == 0 => leader,
            _ => self.rng.node(self.nodes),
        }
    }

    fn other_than(&mut self, n: usize) -> usize {
        (n + 1 + self.rng.node(self.nodes - 1)) % self.nodes
    }

    /// One fault, or some repairs.
    pub async fn fault(&mut self) {
        self.thaw(false);
        self.copy();
        let n = self.victim();
        match self.rng.below(22) {
            0..=2 => self.crash(n),
            3 => {
                // It is started again at once, or soon.
                self.crash(n);
                sleep(self.rng.millis(0, 500)).await;
                self.start(n).await;
            }
            4 => self.shut_down(n).await,
            5 => (0..self.nodes).for_each(|n| self.crash(n)),
            6 => self.restart_one_by_one().await,
            7 => self.skew(n),
            16..=17 => self.hang(n),
            18..=19 => self.come_or_go().await,
            8..=12 => self.disturb(n),
            20 => self.put_back().await,
            21 => self.run_beside(n).await,
            _ => self.mend(false).await,
        }
    }

    /// Now and then a disk is copied, for later.
    fn copy(&mut self) {
        let n = self.rng.node(self.nodes);
        if self.rng.below(3) == 0
            && let Some(disk) = self.lab.disks.as_ref().and_then(|disks| disks.get(&n))
        {
            let copy = disk.copied();
            self.note(format_args!("copy the disk of n{n}"));
            self.copies.insert(n, copy);
        }
    }

    /// All are there and see each other: what one of them has acknowledged is witnessed.
    async fn all_well(&mut self) {
        self.mend(true).await;
        self.lab.elected().await;
        self.all_vote().await;
        sleep(Duration::from_secs(2)).await;
    }

    /// A follower's disk is put back to an older copy, while those are there who have seen more. Some of the others were away
    /// meanwhile: with what the copy has forgotten they would be a majority.
    async fn put_back(&mut self) {
        if self.copies.is_empty() {
            return;
        }
        self.all_well().await;
        let leader = self.lab.elected().await;
        let Some(n) = self.copies.keys().copied().find(|n| *n != leader) else { return };
        let rest = (0..self.nodes).filter(|other| *other != n && *other != leader);
        let away: Vec<usize> = rest.take((self.nodes - 1) / 2).collect();
        away.iter().for_each(|other| self.crash(*other));
        sleep(self.rng.millis(200, 4000)).await;
        if self.lab.group(n).is_leader() {
            // What a leader has itself is told twice a second only.
            return;
        }
        self.crash(n);
        self.note(format_args!("put the disk of n{n} back"));
        let copy = self.copies.get(&n).map(SimDisk::copied);
        let disk = self.lab.disks.as_ref().and_then(|disks| disks.get(&n));
        if let (Some(copy), Some(disk)) = (copy, disk) {
            disk.put_back(&copy);
        }
        sleep(self.rng.millis(100, 2000)).await;
        self.start(n).await;
        sleep(self.rng.millis(0, 500)).await;
        for other in away {
            self.start(other).await;
        }
        // Before it hears from anybody it takes itself for what its disk says.
        until("all take part", || (0..self.nodes).all(|n| self.lab.group(n).status().is_online())).await;
        self.all_vote().await;
        self.lives.insert(n, self.incarnation(n));
    }

    /// A copy of a member's disk runs beside it for a while, as the same node at another address.
    async fn run_beside(&mut self, n: usize) {
        self.all_well().await;
        let Some(disk) = self.lab.disks.as_ref().and_then(|disks| disks.get(&n)).map(SimDisk::copied) else { return };
        let time = self.rng.millis(500, 8000);
        self.note(format_args!("a copy of n{n} beside it for {time:?}"));
        let twin = self.lab.sim.twin(&self.lab.node(n), &format!("twin of n{n}"));
        let mut node = twin.restart(self.lab.network);
        for other in (0..self.nodes).filter(|other| *other != n) {
            node = node.with_bootstrap(self.lab.node(other).addr());
        }
        let network = node.build().await.unwrap();
        let limit = self.log_limit;
        let builder = self.lab.builder(n, &network).with_storage(disk).with_log_limit(limit);
        let group = builder.join().await.unwrap();
        sleep(time).await;
        // Whoever is linked to the others stays. The original may have lost its links meanwhile, to be the refused one then.
        if group.status().is_online() {
            self.note(format_args!("it has taken the place of n{n}"));
            let original = self.lab.group(n).clone();
            until("the original is out", || !original.status().is_online()).await;
            self.lives.remove(&n);
        }
        drop(group);
        twin.crash();
        drop(network);
        self.lab.elected().await;
    }

    /// Its wall clock jumps. Two that differ by more than an hour are another story: the group takes commands of the slow one
    /// for old ones.
    fn skew(&mut self, n: usize) {
        let seconds = self.rng.below(3000) as f64 - 1500.0;
        self.note(format_args!("clock of n{n} by {seconds} s"));
        self.lab.node(n).skew(seconds);
    }

    /// A fault that costs no member its memory.
    fn disturb(&mut self, n: usize) {
        let other = self.other_than(n);
        match self.rng.below(5) {
            0 if self.lab.members.contains_key(&n) => {
                let time = self.rng.millis(1000, 10_000);
                self.note(format_args!("freeze n{n} for {time:?}"));
                self.lab.node(n).pause();
                self.frozen.insert(n, Instant::now() + time);
            }
            1 => {
                let side = self.rng.next();
                self.part(|n| side >> n & 1 == 1);
            }
            2 => self.part(|it| it == n),
            3 => {
                self.note(format_args!("cut n{n} to n{other}"));
                self.lab.sim.cut(&self.lab.node(n), &self.lab.node(other));
            }
            _ if self.rng.below(2) == 0 => {
                self.note(format_args!("cut n{n} and n{other}"));
                self.lab.sim.partition(&self.lab.nodes([n]), &self.lab.nodes([other]));
            }
            _ => {
                self.note(format_args!("bad link of n{n} and n{other}"));
                let slow = LinkQuality::lan().with_latency(self.rng.millis(50, 300));
                let bad = slow.with_jitter(self.rng.millis(1, 300)).with_loss(0.2);
                self.lab.sim.link(&self.lab.node(n), &self.lab.node(other), bad);
                self.bad.push((n, other));
            }
        }
    }

    fn part(&mut self, side: impl Fn(usize) -> bool) {
        let (one, rest): (Vec<_>, Vec<_>) = (0..self.nodes).partition(|n| side(*n));
        self.note(format_args!("part {one:?} and {rest:?}"));
        self.lab.sim.partition(&self.lab.nodes(one), &self.lab.nodes(rest));
    }

    /// An orderly restart of one member after the other, 3 s apart, whatever else goes on.
    async fn restart_one_by_one(&mut self) {
        for n in 0..self.nodes {
            if self.lab.members.contains_key(&n) && !self.frozen.contains_key(&n) {
                self.shut_down(n).await;
            }
            if !self.lab.members.contains_key(&n) {
                self.start(n).await;
            }
            sleep(Duration::from_secs(3)).await;
            self.thaw(false);
        }
    }

    /// Frozen members and hung disks whose time is over go on.
    fn thaw(&mut self, all: bool) {
        let now = Instant::now();
        let over: Vec<usize> = self.frozen.iter().filter(|(_, at)| all || **at <= now).map(|(n, _)| *n).collect();
        for n in over {
            self.note(format_args!("thaw n{n}"));
            self.frozen.remove(&n);
            self.lab.node(n).resume();
        }
        let over: Vec<usize> = self.hung.iter().filter(|(_, at)| all || **at <= now).map(|(n, _)| *n).collect();
        over.into_iter().for_each(|n| self.answer(n));
    }

    /// Takes back some of the faults, or all.
    pub async fn mend(&mut self, all: bool) {
        if all || self.rng.below(2) == 0 {
            self.note(format_args!("heal"));
            self.lab.sim.heal();
            for (a, b) in std::mem::take(&mut self.bad) {
                self.lab.sim.link(&self.lab.node(a), &self.lab.node(b), LinkQuality::lan());
            }
        }
        self.thaw(all);
        if all && self.guest.is_some() {
            self.come_or_go().await;
        }
        for n in 0..self.nodes {
            if !self.lab.members.contains_key(&n) && (all || self.rng.below(3) > 0) {
                self.start(n).await;
            }
        }
    }

    /// Faults for so long. Of a volatile group one member at a time loses its memory, 10 s apart, and before that there is
    /// some trouble of other kinds, which is over by then.
    pub async fn trouble(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if !self.is_volatile() {
                sleep(self.rng.millis(50, 3000)).await;
                self.fault().await;
                continue;
            }
            for _ in 0..self.rng.below(4) {
                let n = self.victim();
                self.disturb(n);
                sleep(self.rng.millis(50, 3000)).await;
                self.thaw(false);
            }
            self.mend(true).await;
            self.lab.elected().await;
            self.all_vote().await;
            self.roll().await;
        }
    }

    async fn roll(&mut self) {
        let n = self.victim();
        if self.rng.below(2) == 0 {
            self.crash(n);
        } else {
            self.shut_down(n).await;
        }
        sleep(self.rng.millis(10, 3000)).await;
        if self.rng.below(3) == 0 {
            self.skew(n);
        }
        self.start(n).await;
        self.lab.elected().await;
        sleep(Duration::from_secs(10)).await;
    }
}
