//! Prints every block once, in order, as a line of JSON on stdout. Blocks come by the stream; what that has lost, the pool still
//! knows, and what the pool has forgotten is said.

use std::{
    io::{self, Write},
    num::NonZeroU64,
    time::{Duration, SystemTime},
};

use alloy::{consensus::TxEnvelope, primitives::B256};
use mosaik::prelude::*;
use serde_json::{Value, json};

use crate::{Block, Envelopes, Mempool};

/// Whoever wants to see the blocks: a client of the pool's group, not a member.
#[mosaik::node]
pub struct Watch {
    /// The first block to print; without it, the first that is sealed after this program has started
    #[mosaik(arg)]
    from: Option<NonZeroU64>,
    /// Print transactions, too, when the pool has accepted them
    #[mosaik(arg)]
    pending: bool,
    /// Since the Unix epoch.
    #[mosaik(default = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())]
    started: Duration,
    /// The number of the next block to print, once that is known.
    #[mosaik(default)]
    next: Option<u64>,
    pool: Client<Mempool>,
    blocks: Consumer<Block>,
    #[mosaik(only_if = pending)]
    envelopes: Option<Consumer<Envelopes>>,
}

#[mosaik::handlers]
impl Watch {
    #[start]
    fn begin(&mut self) {
        self.next = self.from.map(NonZeroU64::get);
    }

    /// Without a standard output there is nothing to do.
    #[on(blocks, on_error = stop)]
    async fn sealed(&mut self, block: Block) -> io::Result<()> {
        if self.next != Some(block.number) {
            return self.catch_up().await;
        }
        self.next = Some(block.number + 1);
        print(&line(block.number, block.txs.iter().map(TxEnvelope::tx_hash)))
    }

    /// Prints what has not been printed yet.
    #[every("250ms", on_error = stop)]
    async fn catch_up(&mut self) -> io::Result<()> {
        loop {
            let (first, blocks) = match self.page().await {
                Ok((first, blocks)) if blocks.is_empty() && self.next == Some(first) => return Ok(()),
                Ok(page) => page,
                Err(error) => {
                    eprintln!("no blocks: {error}");
                    return Ok(());
                }
            };
            let next = self.next.unwrap_or(1);
            if next < first {
                print(&json!({"missed": [next, first - 1]}))?;
            }
            for (number, txs) in (first..).zip(&blocks) {
                print(&line(number, txs))?;
            }
            self.next = Some(first + blocks.len() as u64);
        }
    }

    #[on(envelopes, on_error = stop)]
    fn accepted(&self, envelope: TxEnvelope) -> io::Result<()> {
        print(&json!({"pending": envelope.tx_hash()}))
    }

    /// The next blocks, behind the number of the first.
    async fn page(&self) -> Result<(u64, Vec<Vec<B256>>), CallError> {
        let next = match self.next {
            Some(next) => next,
            None => self.pool.first_after(self.started).strong().await?,
        };
        self.pool.since(next).strong().await
    }
}

fn line<'a>(number: u64, txs: impl IntoIterator<Item = &'a B256>) -> Value {
    json!({"block": number, "txs": txs.into_iter().collect::<Vec<_>>()})
}

fn print(line: &Value) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}
