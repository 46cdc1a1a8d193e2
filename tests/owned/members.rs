//! Three processes that own a stream together, what is done to them, and what they have said.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::{SocketAddr, UdpSocket},
    ops::Range,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    str::{FromStr, SplitWhitespace},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use mosaik::{PeerId, SecretKey};

use super::wait_for;

const FEED: &str = env!("CARGO_BIN_EXE_feed");

/// What became of items, as their sender was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Committed,
    Refused,
    Unknown,
}

/// What the processes have said.
#[derive(Default)]
pub struct Told {
    /// Who began to lead, in the order of what was heard, and when.
    elections: Vec<(usize, Duration)>,
    leads: BTreeMap<usize, bool>,
    applied: BTreeMap<usize, u64>,
    done: usize,
    /// By life, of so many items what became of them.
    pub settled: BTreeMap<u64, Vec<(Range<u64>, Fate)>>,
}

fn word<T: FromStr>(words: &mut SplitWhitespace<'_>) -> Option<T> {
    words.next()?.parse().ok()
}

impl Told {
    fn hear(&mut self, member: usize, line: &str) -> Option<()> {
        let mut words = line.split_whitespace();
        match words.next()? {
            "leads" => {
                self.elections.push((member, Duration::from_micros(word(&mut words)?)));
                self.leads.insert(member, true);
            }
            "follows" => _ = self.leads.insert(member, false),
            "applied" => _ = self.applied.insert(member, word(&mut words)?),
            "settled" => {
                let (life, from, to) = (word(&mut words)?, word(&mut words)?, word(&mut words)?);
                let fate = match words.next()? {
                    "committed" => Fate::Committed,
                    "refused" => Fate::Refused,
                    "unknown" => Fate::Unknown,
                    _ => return None,
                };
                self.settled.entry(life).or_default().push((from..to, fate));
            }
            "done" => self.done += 1,
            _ => return None,
        }
        Some(())
    }
}

struct Member {
    id: PeerId,
    secret: String,
    listen: SocketAddr,
    data: PathBuf,
    process: Option<Child>,
}

pub struct Members {
    members: Vec<Member>,
    rate: u64,
    told: Arc<Mutex<Told>>,
    _dir: tempfile::TempDir,
}

impl Members {
    /// Three that send so many items per second; none of them is started.
    pub fn new(rate: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let member = |n: u64| {
            let secret = format!("{:064x}", 0x0FEE_D000 + n);
            let id = secret.parse::<SecretKey>().unwrap().public().into();
            let listen = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            Member { id, secret, listen, data: dir.path().join(n.to_string()), process: None }
        };
        let members = (0..3).map(member).collect();
        Self { members, rate, told: Arc::default(), _dir: dir }
    }

    pub fn ids(&self) -> Vec<PeerId> {
        self.members.iter().map(|member| member.id).collect()
    }

    /// How others reach them.
    pub fn contacts(&self) -> Vec<String> {
        self.members.iter().map(|it| format!("{}@{}", it.id, it.listen)).collect()
    }

    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a member with the data that it had.
    pub fn spawn(&mut self, n: usize) {
        let contacts = self.contacts();
        let member = &mut self.members[n];
        let mut command = Command::new(FEED);
        command.args(["--secret", &member.secret, "--listen", &member.listen.to_string()]);
        command.args(["--rate", &self.rate.to_string()]).arg("--data-dir").arg(&member.data);
        let others = contacts.iter().enumerate().filter(|(other, _)| *other != n);
        others.for_each(|(_, contact)| _ = command.args(["--bootstrap", contact]));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MOSAIK_")) {
            command.env_remove(name);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdout, told) = (child.stdout.take().unwrap(), self.told.clone());
        member.process = Some(child);
        thread::Builder::new().spawn(move || listen(n, stdout, &told)).unwrap();
    }

    /// Waits until a member has all that any of them has now.
    pub fn wait_caught_up(&self, n: usize) {
        let all = self.told().applied.values().copied().max().unwrap_or_default();
        wait_for("a member has caught up", || self.told().applied.get(&n).is_some_and(|applied| *applied >= all));
    }

    /// The one that leads, once only one says so.
    pub fn leader(&self) -> usize {
        let mut leader = None;
        wait_for("one leads", || {
            let told = self.told();
            let mut leaders = told.leads.iter().filter(|(_, leads)| **leads).map(|(member, _)| *member);
            leader = leaders.next().filter(|_| leaders.next().is_none());
            leader.is_some()
        });
        leader.unwrap()
    }

    /// When the last leader until then was elected.
    pub fn elected_before(&self, time: Duration) -> Option<Duration> {
        self.told().elections.iter().map(|(_, at)| *at).filter(|at| *at <= time).max()
    }

    pub fn signal(&self, n: usize, name: &str) {
        let pid = self.members[n].process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self, n: usize) {
        if let Some(mut process) = self.members[n].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        let mut told = self.told();
        told.leads.remove(&n);
        told.applied.remove(&n);
    }

    /// Nobody sends any more; returns when all know what became of what they have sent.
    pub fn quiet(&mut self) {
        for member in &mut self.members {
            drop(member.process.as_mut().and_then(|process| process.stdin.take()));
        }
        wait_for("all is settled", || self.told().done == self.members.len());
    }
}

/// Takes in what a process says, to its end.
fn listen(member: usize, stdout: ChildStdout, told: &Mutex<Told>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let heard = told.lock().unwrap_or_else(PoisonError::into_inner).hear(member, &line);
        // One that is killed may be in the middle of a line.
        if heard.is_none() {
            eprintln!("member {member} says: {line}");
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|n| self.kill(n));
    }
}
