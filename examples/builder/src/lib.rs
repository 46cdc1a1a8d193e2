//! An order-flow pipeline as block builders run it: signed transactions come in at one end, blocks go out at the other.
//!
//! * `intake` ([`Intake`], any number) serves JSON-RPC, decodes transactions, recovers their senders and hands them to the pool.
//! * `pool` ([`Pool`], three) is the group that remembers them. Its leader seals a block every 200 ms.
//! * `watch` ([`Watch`], any number) prints the blocks.
//!
//! What is acknowledged goes through the group's log, so each transaction is in exactly one block whoever dies meanwhile.
//! Streams carry what may be missed: a block to those who watch, who ask the group for what a stream has lost, and the envelopes
//! of accepted transactions to those who want to see them early.

pub mod envelope;
pub mod intake;
pub mod pool;
pub mod rpc;
pub mod watch;

use alloy::consensus::TxEnvelope;

pub use self::{
    intake::Intake,
    pool::{Mempool, Pool},
    watch::Watch,
};

/// Transactions that the pool has accepted, from the intake that took them. Whoever must not miss one reads the blocks.
#[mosaik::stream(name = "envelopes", of = TxEnvelope)]
pub struct Envelopes;

/// A sealed block, from the pool's leader.
#[mosaik::stream(name = "blocks")]
pub struct Block {
    /// Counted from 1, without holes.
    pub number: u64,
    /// In the order of the block.
    pub txs: Vec<TxEnvelope>,
}

/// An order-flow pipeline: intakes, a pool of three, and those who watch.
#[mosaik::app(name = "builder", roles = [Intake, Pool, Watch])]
pub struct Builder;
