//! The pool: a group of three that remembers orders, and whose leader seals blocks of them.
//!
//! [`Mempool`] is what the members agree on. It promises: an order is in one block at most, and in one as soon as there is room for
//! it; a sender's orders are in the order of their nonces; a block's number is one more than that of the block before.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    error::Error,
    time::Duration,
};

use alloy::primitives::{Address, B256, Bytes};
use mosaik::prelude::*;

use crate::{
    Block,
    envelope::{self, GAS_LIMIT, Order},
};

/// Blocks that are remembered.
pub const REMEMBERED: usize = 10_000;
/// What waits for a block, bytes.
pub const MAX_WAITING: usize = 32 << 20;
/// Senders whose nonces are known. They are never forgotten: a transaction would count as new again.
pub const MAX_SENDERS: usize = 1 << 20;
/// Blocks in one answer.
pub const PAGE: usize = 100;

/// Orders that wait, and the blocks that were made of others.
#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(name = "pool", key = env("BUILDER_KEY"), size = 3)]
pub struct Mempool {
    /// By sender and nonce.
    waiting: BTreeMap<Address, BTreeMap<u64, Order>>,
    /// Of all that wait.
    bytes: usize,
    /// The number of the last block.
    height: u64,
    /// The last blocks: when each was sealed, by the group's clock, and what is in it.
    blocks: VecDeque<(Duration, Vec<B256>)>,
    /// What is in them.
    hashes: BTreeSet<B256>,
    /// The last nonce of each sender that is in a block, remembered or not.
    nonces: BTreeMap<Address, u64>,
}

/// Why the pool does not take an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// One with this nonce, or a higher one, is in a block.
    #[error("nonce too low")]
    NonceTooLow,
    /// Another one of this sender and nonce waits; it was acknowledged, so it is not replaced.
    #[error("nonce taken by a transaction that waits")]
    NonceTaken,
    /// [`MAX_WAITING`] or [`MAX_SENDERS`] is reached.
    #[error("pool is full")]
    Full,
}

#[mosaik::state_machine(version = 1)]
impl Mempool {
    /// Takes an order; one that it has or had already is taken alike, and nothing changes.
    ///
    /// # Errors
    /// When it cannot be in a block any more, or there is no room.
    #[command]
    pub fn submit(&mut self, order: Order) -> Result<(), Refusal> {
        let Order { hash, sender, nonce, .. } = order;
        if self.nonces.get(&sender).is_some_and(|last| nonce <= *last) {
            return if self.hashes.contains(&hash) { Ok(()) } else { Err(Refusal::NonceTooLow) };
        }
        if let Some(waiting) = self.waiting.get(&sender).and_then(|orders| orders.get(&nonce)) {
            return if waiting.hash == hash { Ok(()) } else { Err(Refusal::NonceTaken) };
        }
        let bytes = self.bytes + order.size();
        let stranger = self.nonces.len() >= MAX_SENDERS && !self.nonces.contains_key(&sender);
        if bytes > MAX_WAITING || stranger {
            return Err(Refusal::Full);
        }
        self.bytes = bytes;
        self.waiting.entry(sender).or_default().insert(nonce, order);
        Ok(())
    }

    /// Seals the block of this number, if it is the next one and something waits: its transactions. Asking again does nothing.
    #[command]
    pub fn seal(&mut self, number: u64, ctx: &ApplyContext) -> Option<Vec<Bytes>> {
        if self.next() != Some(number) {
            return None;
        }
        let orders = self.take();
        self.height = number;
        self.nonces.extend(orders.iter().map(|order| (order.sender, order.nonce)));
        self.hashes.extend(orders.iter().map(|order| order.hash));
        self.blocks.push_back((ctx.time(), orders.iter().map(|order| order.hash).collect()));
        let forgotten = self.blocks.len().saturating_sub(REMEMBERED);
        self.blocks.drain(..forgotten).for_each(|(_, txs)| txs.iter().for_each(|tx| _ = self.hashes.remove(tx)));
        Some(orders.into_iter().map(|order| order.raw).collect())
    }

    /// The number of the next block, if something waits for it.
    #[query]
    pub fn next(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then(|| self.height + 1)
    }

    /// The number of the last block; 0 before the first.
    #[query]
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The number of the first block, remembered or yet to come, that was sealed no earlier than this (since the Unix epoch).
    #[query]
    pub fn first_after(&self, time: Duration) -> u64 {
        self.oldest() + self.blocks.partition_point(|(sealed, _)| *sealed < time) as u64
    }

    /// The hashes of blocks from this number on, up to [`PAGE`] of them, behind the number of the first: what was asked for, or the
    /// oldest that is remembered.
    #[query]
    pub fn since(&self, number: u64) -> (u64, Vec<Vec<B256>>) {
        let first = number.max(self.oldest());
        let skipped = usize::try_from(first - self.oldest()).unwrap_or(usize::MAX);
        (first, self.blocks.iter().skip(skipped).take(PAGE).map(|(_, txs)| txs.clone()).collect())
    }

    /// The number of the oldest block that is remembered, or of the first.
    fn oldest(&self) -> u64 {
        self.height + 1 - self.blocks.len() as u64
    }

    /// Takes the orders of a block out: again and again that with the highest tip, of equal ones that with the lowest hash, among
    /// the first of each sender. A sender whose first does not fit any more waits with all of them; one that would fit into no block
    /// gets one of its own when its turn comes.
    fn take(&mut self) -> Vec<Order> {
        let rank = |order: &Order| (order.tip, Reverse(order.hash), order.sender);
        let firsts = self.waiting.values().filter_map(|orders| orders.values().next());
        let mut firsts: BinaryHeap<_> = firsts.map(rank).collect();
        let (mut taken, mut gas) = (Vec::new(), 0);
        while let Some((_, _, sender)) = firsts.pop() {
            let Some(orders) = self.waiting.get_mut(&sender) else { continue };
            let fits = |order: &Order| taken.is_empty() || gas + order.gas <= GAS_LIMIT;
            let Some(first) = orders.first_entry().filter(|first| fits(first.get())) else { continue };
            let order = first.remove();
            firsts.extend(orders.values().next().map(rank));
            if orders.is_empty() {
                self.waiting.remove(&sender);
            }
            gas += order.gas;
            self.bytes -= order.size();
            taken.push(order);
        }
        taken
    }
}

/// A member of the pool. The one that leads builds.
#[mosaik::node]
pub struct Pool {
    pool: Replica<Mempool>,
    blocks: Producer<Block>,
}

#[mosaik::handlers]
impl Pool {
    #[every("200ms", emit = blocks)]
    async fn build(&self) -> Result<Option<Block>, Box<dyn Error + Send + Sync>> {
        if !self.pool.group().is_leader() {
            return Ok(None);
        }
        let Some(number) = self.pool.next().weak().await? else { return Ok(None) };
        // Another leader may have been faster: then there is nothing to emit.
        let Some(txs) = self.pool.seal(number).await? else { return Ok(None) };
        let txs = txs.iter().map(|raw| envelope::decode(raw)).collect::<Result<_, _>>()?;
        Ok(Some(Block { number, txs }))
    }
}

#[cfg(test)]
mod tests;
