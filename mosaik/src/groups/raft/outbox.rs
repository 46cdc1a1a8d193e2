//! Collects the effects of a step, keeps back every message until what it reveals is durable, and knows what storage owes.
//!
//! The rule is the same for all messages: they reveal the term, vote, cluster or founding record, so they wait for the
//! last write of those. How far the *log* is durable is said in the message itself (`AppendReply::matched`).

use std::collections::VecDeque;

use super::{
    io::{HardState, Output, Write},
    message::{Envelope, Message},
    types::{ClusterId, Member, Term, Token},
};

#[derive(Clone, Debug)]
pub(super) struct Outbox {
    pub me: Member,
    pub cluster: Option<ClusterId>,
    pub term: Term,
    /// Not empty: then `out` begins with a place for them.
    writes: Vec<Write>,
    /// The token that the writes of this step will get.
    next: Token,
    /// The last token whose writes change what every message reveals.
    hard: Token,
    durable: Token,
    held: VecDeque<(Token, Envelope)>,
    held_bytes: usize,
    /// The time of the step, microseconds.
    pub now: u64,
    /// Batches that storage has not answered, with their bytes.
    owed: VecDeque<(Token, usize)>,
    owed_bytes: usize,
    /// When storage last answered, or was given a batch while it owed nothing, microseconds.
    answered: u64,
    out: Vec<Output>,
}

/// Messages kept back at most; beyond it the oldest are dropped, as a network might.
const HELD: usize = 4096;
/// And their payload bytes.
const HELD_BYTES: usize = 16 << 20;

/// Payload bytes of a message.
fn size(body: &Message) -> usize {
    match body {
        Message::Append { entries, .. } | Message::Pulled { entries, .. } => {
            entries.iter().map(|entry| entry.payload.size()).sum()
        }
        Message::Chunk { data, .. } => data.len(),
        _ => 0,
    }
}

fn weight(write: &Write) -> usize {
    match write {
        Write::Hard(_) | Write::Founding(_) | Write::Machine(_) | Write::Marks(_) => 64,
        Write::Replace(entries) => entries.iter().map(|entry| entry.payload.size()).sum(),
        Write::Snapshot { snapshot, .. } => snapshot.data.len(),
    }
}

impl Outbox {
    pub fn new(me: Member, hard: &HardState) -> Self {
        Self {
            me,
            cluster: hard.cluster,
            term: hard.term,
            writes: Vec::new(),
            next: 1,
            hard: 0,
            durable: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            now: 0,
            owed: VecDeque::new(),
            owed_bytes: 0,
            answered: 0,
            out: Vec::new(),
        }
    }

    /// Writes something that every later message depends on.
    pub fn write_hard(&mut self, write: Write) {
        self.hard = self.next;
        self.write(write);
    }

    /// Writes part of the log. Returns the token that will say it is durable.
    pub fn write(&mut self, write: Write) -> Token {
        if self.writes.is_empty() {
            // Writes come first, because nothing else may overtake them.
            self.out.insert(0, Output::Persist { token: self.next, writes: Vec::new() });
        }
        let bytes = weight(&write);
        if self.owed.is_empty() {
            self.answered = self.now;
        }
        match self.owed.back_mut() {
            Some((token, sum)) if *token == self.next => *sum += bytes,
            _ => self.owed.push_back((self.next, bytes)),
        }
        self.owed_bytes += bytes;
        self.writes.push(write);
        self.next
    }

    /// For how long storage has owed an answer and given none, microseconds; 0 if it owes none.
    pub fn silence(&self) -> u64 {
        if self.owed.is_empty() { 0 } else { self.now.saturating_sub(self.answered) }
    }

    /// Batches that storage has not answered, and their bytes.
    pub fn owed(&self) -> (usize, usize) {
        (self.owed.len(), self.owed_bytes)
    }

    pub fn send(&mut self, to: Member, body: Message) {
        debug_assert_ne!(to, self.me, "a member does not write to itself");
        let envelope = Envelope { from: self.me, to, cluster: self.cluster, term: self.term, body };
        if self.hard <= self.durable {
            self.out.push(Output::Send(envelope));
        } else {
            self.held_bytes += size(&envelope.body);
            self.held.push_back((self.hard, envelope));
            while self.held.len() > HELD || (self.held_bytes > HELD_BYTES && self.held.len() > 1) {
                let Some((_, dropped)) = self.held.pop_front() else { break };
                self.held_bytes -= size(&dropped.body);
            }
        }
    }

    /// As `send`, but without waiting; called only by a planted bug.
    pub fn send_unsafely(&mut self, to: Member, body: Message) {
        let envelope = Envelope { from: self.me, to, cluster: self.cluster, term: self.term, body };
        self.out.push(Output::Send(envelope));
    }

    pub fn put(&mut self, output: Output) {
        self.out.push(output);
    }

    /// Whether everything that messages reveal is durable.
    pub fn settled(&self) -> bool {
        self.hard <= self.durable
    }

    pub fn persisted(&mut self, token: Token) {
        assert!(token < self.next, "storage completed a write that was never asked for");
        self.durable = self.durable.max(token);
        while let Some((_, bytes)) = self.owed.front().copied().filter(|(owed, _)| *owed <= token) {
            self.owed.pop_front();
            self.owed_bytes -= bytes;
            self.answered = self.now;
        }
        while self.held.front().is_some_and(|(needs, _)| *needs <= self.durable) {
            if let Some((_, envelope)) = self.held.pop_front() {
                self.held_bytes -= size(&envelope.body);
                self.out.push(Output::Send(envelope));
            }
        }
    }

    /// The effects of the step.
    pub fn finish(&mut self) -> Vec<Output> {
        if let Some(Output::Persist { writes, .. }) = self.out.first_mut()
            && !self.writes.is_empty()
        {
            *writes = std::mem::take(&mut self.writes);
            self.next += 1;
        }
        std::mem::take(&mut self.out)
    }
}
