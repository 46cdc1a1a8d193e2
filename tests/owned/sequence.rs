//! What one consumer has received, checked as it comes.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    time::Duration,
};

use mosaik::{groups::Fence, streams::Origin};
use mosaik_tests::feed::Item;

/// Items that are kept to be compared with those of a consumer that comes later: more than a window holds.
const KEPT: usize = 2 * 65_536;
/// Items of which only a hash is kept.
const BLOCK: u64 = 1024;
/// One of so many delays is kept.
const SAMPLED: u64 = 16;

/// See the module's text.
#[derive(Default)]
pub struct Sequence {
    /// The number of the first item that has come.
    first: Option<u64>,
    next: u64,
    epoch: Option<u64>,
    place: Option<Fence>,
    /// The numbers of items, by the life of their sender.
    lives: BTreeMap<u64, Vec<Range<u64>>>,
    /// When the first item of each term came.
    terms: BTreeMap<u64, Duration>,
    block: blake3::Hasher,
    blocks: Vec<blake3::Hash>,
    kept: VecDeque<(Item, Fence)>,
    /// From `send` to receipt, microseconds.
    delays: Vec<u64>,
    last_at: Duration,
}

impl Sequence {
    /// The next item; what is wrong with it if something is.
    pub fn take(&mut self, item: Item, origin: Origin, now: Duration) -> Result<(), String> {
        let fence = origin.fence.ok_or("an item without a place")?;
        if *self.epoch.get_or_insert(origin.epoch) != origin.epoch {
            return Err(format!("another cluster: {origin:?}"));
        }
        let first = *self.first.get_or_insert(origin.seq);
        if origin.seq != self.next && origin.seq != first {
            return Err(format!("{origin:?} comes instead of {}", self.next));
        }
        if self.place.is_some_and(|before| fence < before) {
            return Err(format!("{fence} comes after {:?}", self.place));
        }
        (self.next, self.place, self.last_at) = (origin.seq + 1, Some(fence), now);
        self.terms.entry(fence.term()).or_insert(now);
        if origin.seq.is_multiple_of(SAMPLED) {
            self.delays.push(u64::try_from(now.saturating_sub(item.sent).as_micros()).unwrap_or(u64::MAX));
        }
        self.block.update(&item.to_bytes()).update(&fence.term().to_le_bytes()).update(&fence.index().to_le_bytes());
        if self.next.is_multiple_of(BLOCK) {
            self.blocks.push(self.block.finalize());
        }
        self.kept.push_back((item, fence));
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        let ranges = self.lives.entry(item.life).or_default();
        match ranges.last_mut() {
            Some(last) if item.number < last.end => Err(format!("{item:?} comes after {}", last.end - 1)),
            Some(last) if item.number == last.end => {
                last.end += 1;
                Ok(())
            }
            _ => {
                ranges.push(item.number..item.number + 1);
                Ok(())
            }
        }
    }

    /// The number of the next item.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// When the last item came.
    pub const fn last_at(&self) -> Duration {
        self.last_at
    }

    /// The term of the last item.
    pub fn term(&self) -> u64 {
        self.place.map_or(0, |place| place.term())
    }

    /// When the first item of a later term came.
    pub fn first_after(&self, term: u64) -> Option<Duration> {
        self.terms.range(term + 1..).next().map(|(_, at)| *at)
    }

    /// The delay below which so many of a hundred were.
    pub fn delay(&self, percent: usize) -> Duration {
        let mut delays = self.delays.clone();
        delays.sort_unstable();
        Duration::from_micros(delays.get(delays.len() * percent / 100).copied().unwrap_or_default())
    }

    /// How many of these items of a life have come.
    pub fn received(&self, life: u64, numbers: &Range<u64>) -> u64 {
        let Some(ranges) = self.lives.get(&life) else { return 0 };
        let first = ranges.partition_point(|range| range.end <= numbers.start);
        let overlap = |range: &Range<u64>| range.end.min(numbers.end) - range.start.max(numbers.start);
        ranges[first..].iter().take_while(|range| range.start < numbers.end).map(overlap).sum()
    }

    /// Has all that another one has, from the beginning.
    pub fn assert_equals(&self, other: &Self) {
        assert_eq!((self.first, self.next), (Some(0), other.next), "all items");
        assert_eq!(other.first, Some(0), "all items");
        let differs = self.blocks.iter().zip(&other.blocks).position(|(a, b)| a != b);
        assert_eq!(differs, None, "the number of a block of {BLOCK} items");
        assert_eq!(self.lives, other.lives);
        self.assert_ends_alike(other);
    }

    /// Has at the end what another one has there.
    pub fn assert_ends_alike(&self, other: &Self) {
        assert_eq!(self.next, other.next);
        let compared = self.kept.len().min(other.kept.len());
        assert!(compared > 0, "there are items");
        assert!(self.kept.iter().rev().zip(other.kept.iter().rev()).all(|(a, b)| a == b), "the last {compared} items");
    }
}
