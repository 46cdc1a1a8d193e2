//! What late joiners are owed, kept in the plainest way, and the stream on which they get it.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use crate::streams::core::{
    frames::{self, FrameReader},
    lag::Limit,
    retain::{Keep, Replay, Retention},
};

#[derive(Debug, Clone, Copy)]
struct Item {
    seq: u64,
    key: u8,
    bytes: u64,
    born: Duration,
}

/// What a producer must keep: the model of `retain::Retained`.
#[derive(Debug)]
pub struct Owed {
    retention: Retention,
    items: Vec<Item>,
}

impl Owed {
    pub fn new(retention: Retention) -> Self {
        Self { retention, items: Vec::new() }
    }

    /// Items of key 0 are key frames.
    pub fn sent(&mut self, seq: u64, key: u8, bytes: usize, now: Duration) {
        match self.retention.keep {
            Keep::KeyFrame if key == 0 => self.items.clear(),
            Keep::KeyFrame if self.items.is_empty() => return,
            Keep::PerKey(most) if self.items.iter().filter(|item| item.key == key).count() as u64 == most => {
                let oldest = self.items.iter().position(|item| item.key == key).unwrap();
                self.items.remove(oldest);
            }
            _ => {}
        }
        self.items.push(Item { seq, key, bytes: bytes as u64, born: now });
        self.age(now);
        let Limit { items, bytes } = self.retention.limit;
        let over = |kept: &[Item]| kept.len() as u64 > items || kept.iter().map(|item| item.bytes).sum::<u64>() > bytes;
        while over(&self.items) {
            self.lose_oldest();
        }
    }

    /// The numbers of what a joiner is owed between these.
    pub fn between(&mut self, from: u64, until: u64, now: Duration) -> VecDeque<u64> {
        self.age(now);
        self.items.iter().map(|item| item.seq).filter(|seq| (from..until).contains(seq)).collect()
    }

    fn age(&mut self, now: Duration) {
        let Some(age) = self.retention.max_age else { return };
        while self.items.first().is_some_and(|oldest| oldest.born + age < now) {
            self.lose_oldest();
        }
    }

    fn lose_oldest(&mut self) {
        if self.retention.keep == Keep::KeyFrame {
            self.items.clear();
        } else {
            self.items.remove(0);
        }
    }
}

/// The stream of one replay, from its producer to its consumer.
#[derive(Debug)]
pub struct Line {
    replay: Replay,
    cut: u64,
    ended: bool,
    unwritten: VecDeque<Bytes>,
    pipe: VecDeque<Bytes>,
    in_pipe: usize,
    pub reader: FrameReader,
}

impl Line {
    pub fn new(replay: Replay, cut: u64) -> Self {
        let (unwritten, pipe) = (VecDeque::new(), VecDeque::new());
        Self { replay, cut, ended: false, unwritten, pipe, in_pipe: 0, reader: FrameReader::default() }
    }

    /// The producer writes up to so many bytes; whether it did anything.
    pub fn write(&mut self, max: usize, window: usize) -> bool {
        if self.unwritten.is_empty() && !self.ended {
            match self.replay.piece(max.max(1)) {
                Some(piece) => self.unwritten.extend(piece),
                None => {
                    self.ended = true;
                    self.unwritten.push_back(frames::end(0, self.cut));
                }
            }
        }
        let mut room = window.saturating_sub(self.in_pipe).min(max);
        let mut wrote = false;
        while room > 0
            && let Some(mut bytes) = self.unwritten.pop_front()
        {
            let part = bytes.split_to(bytes.len().min(room));
            if !bytes.is_empty() {
                self.unwritten.push_front(bytes);
            }
            (room, self.in_pipe, wrote) = (room - part.len(), self.in_pipe + part.len(), true);
            self.pipe.push_back(part);
        }
        wrote
    }

    /// The consumer takes up to so many bytes off the network; whether there were any.
    pub fn read(&mut self, max: usize) -> bool {
        let mut left = max;
        while left > 0
            && let Some(mut bytes) = self.pipe.pop_front()
        {
            let part = bytes.split_to(bytes.len().min(left));
            if !bytes.is_empty() {
                self.pipe.push_front(bytes);
            }
            (left, self.in_pipe) = (left - part.len(), self.in_pipe - part.len());
            self.reader.push(&part);
        }
        left < max
    }
}
