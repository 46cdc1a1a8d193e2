//! The replicated machine of the simulator: registers, written with the previous value as output, behind the session table.

use std::{collections::BTreeMap, convert::Infallible};

use bytes::Bytes;
use mosaik::{
    groups::{
        client::{CommandResult, Done, bundle},
        raft::{Command, Entry, Index, Mutant, Payload, SessionId, Sessions, Switch, Verdict},
    },
    primitives::Format,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Write {
        key: u8,
        value: u64,
    },
    /// Writes if the value is `expect`.
    Cas {
        key: u8,
        expect: u64,
        value: u64,
    },
}

impl Op {
    pub fn key(self) -> u8 {
        match self {
            Self::Write { key, .. } | Self::Cas { key, .. } => key,
        }
    }

    /// Unique.
    pub fn value(self) -> u64 {
        match self {
            Self::Write { value, .. } | Self::Cas { value, .. } => value,
        }
    }

    /// A body with this command alone.
    pub fn body(self) -> Bytes {
        let Ok(body) = bundle::single(|body| {
            body.extend_from_slice(&self.encode());
            Ok::<_, Infallible>(Format::Postcard)
        });
        body.into()
    }

    fn encode(self) -> Bytes {
        let (tag, key, expect, value) = match self {
            Self::Write { key, value } => (0, key, 0, value),
            Self::Cas { key, expect, value } => (1, key, expect, value),
        };
        let mut out = vec![tag, key];
        out.extend_from_slice(&expect.to_le_bytes());
        out.extend_from_slice(&value.to_le_bytes());
        out.into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (key, expect, value) = (*bytes.get(1)?, number(2)?, number(10)?);
        Some(if bytes[0] == 0 { Self::Write { key, value } } else { Self::Cas { key, expect, value } })
    }
}

/// The value before, from the output of one command.
pub fn was(mut output: &[u8]) -> u64 {
    match bundle::output(&mut output) {
        Some(bundle::Output::Encoded(_, was)) => postcard::from_bytes(was).expect("a number"),
        other => panic!("{other:?} is no output of this machine"),
    }
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub values: BTreeMap<u8, u64>,
    pub sessions: Sessions,
    pub applied: Index,
    pub switch: Switch,
    limits: (usize, u64, u64),
}

pub struct Applied {
    pub session: SessionId,
    pub done: Done,
    /// What the machine really ran, as opposed to answering from the table.
    pub ran: Vec<Op>,
}

impl Machine {
    pub fn new(switch: Switch, limits: (usize, u64, u64)) -> Self {
        let sessions = Sessions::new(limits.0, limits.1, limits.2);
        Self { values: BTreeMap::new(), sessions, applied: 0, switch, limits }
    }

    pub fn apply(&mut self, entry: &Entry) -> Option<Applied> {
        assert_eq!(entry.index, self.applied + 1, "the machine is given every entry once");
        self.applied = entry.index;
        match &entry.payload {
            Payload::Open(session) => {
                let opened = self.sessions.open(*session, entry.index, entry.time, self.switch);
                let result = if opened.is_some() { CommandResult::Opened } else { CommandResult::Full };
                let done = Done { sequence: 0, index: opened.unwrap_or(entry.index), result };
                Some(Applied { session: *session, done, ran: Vec::new() })
            }
            Payload::Command(command) => Some(self.command(command, entry)),
            _ => None,
        }
    }

    fn command(&mut self, command: &Command, entry: &Entry) -> Applied {
        let verdict = self.sessions.admit(command, entry.time, self.switch);
        let mut ran = Vec::new();
        let result = match verdict {
            Verdict::Apply => {
                let ops = bundle::commands(&command.body)
                    .map(|it| it.and_then(|(_, op)| Op::decode(op)).expect("verified by hashes"));
                ran.extend(ops);
                // The value before, which for a `Cas` also says whether it took effect.
                let mut output = Vec::new();
                for was in ran.iter().map(|op| self.run(*op)).collect::<Vec<_>>() {
                    let write = |out: &mut Vec<u8>| {
                        out.extend(postcard::to_allocvec(&was).expect("in memory"));
                        Format::Postcard
                    };
                    bundle::append_output(write, &mut output);
                }
                let output = Bytes::from(output);
                self.sessions.record(command, entry.index, output.clone());
                CommandResult::Output(output)
            }
            Verdict::Duplicate(output) => CommandResult::Output(output),
            Verdict::Expired => CommandResult::Expired,
            Verdict::Settled => CommandResult::Settled,
            Verdict::Ended => CommandResult::Ended,
            Verdict::TooFar => CommandResult::TooFar,
        };
        let done = Done { sequence: command.sequence, index: entry.index, result };
        Applied { session: command.session, done, ran }
    }

    fn run(&mut self, op: Op) -> u64 {
        let slot = self.values.entry(op.key()).or_insert(0);
        let was = *slot;
        match op {
            Op::Write { value, .. } => *slot = value,
            Op::Cas { expect, value, .. } if was == expect => *slot = value,
            Op::Cas { .. } => {}
        }
        was
    }

    pub fn snapshot(&self) -> Bytes {
        let sessions = if self.switch.is(Mutant::SessionsNotInSnapshot) {
            // The bug: ids survive, results do not.
            Sessions::new(self.limits.0, self.limits.1, self.limits.2)
        } else {
            self.sessions.clone()
        };
        postcard::to_allocvec(&(self.applied, &self.values, sessions)).expect("in memory").into()
    }

    pub fn restore(&mut self, bytes: &[u8]) {
        let (applied, values, sessions) = postcard::from_bytes(bytes).expect("verified by hashes");
        self.applied = applied;
        self.values = values;
        self.sessions = sessions;
    }
}
