//! Between alloy's types and the pool's: everything that costs time or may fail for one transaction alone happens here, once, at
//! the intake, and never when a command is applied.

use alloy::{
    consensus::{Transaction, TxEnvelope, transaction::SignerRecoverable},
    eips::eip2718::Decodable2718,
    hex,
    primitives::{Address, B256, Bytes},
};
use mosaik::prelude::*;

/// Gas of a block, unless it has one transaction alone.
pub const GAS_LIMIT: u64 = 2_000_000;
/// Gas of a transaction. One over [`GAS_LIMIT`] gets a block of its own.
pub const MAX_GAS: u64 = 30_000_000;
/// Gas that every transaction costs.
pub const MIN_GAS: u64 = 21_000;
/// The longest transaction, bytes: that of the network's nodes.
pub const MAX_SIZE: usize = 128 << 10;

/// What the pool needs to know of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its hash.
    pub hash: B256,
    /// Who signed it.
    pub sender: Address,
    /// Its place among those of its sender.
    pub nonce: u64,
    /// What it pays for each gas above a base fee of zero, wei: the pool knows no chain.
    pub tip: u128,
    /// What it may use at most.
    pub gas: u64,
    /// As it was signed: EIP-2718.
    pub raw: Bytes,
}

impl Order {
    /// What it takes in memory, bytes, about.
    pub fn size(&self) -> usize {
        256 + self.raw.len()
    }
}

/// Why a transaction is no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The text is not hex.
    #[error("no hex that begins with 0x: {0}")]
    Hex(String),
    /// Over [`MAX_SIZE`].
    #[error("a transaction of {0} bytes is over the limit of {MAX_SIZE} bytes")]
    TooLong(usize),
    /// The bytes are not a signed transaction and nothing else.
    #[error("no signed transaction: {0}")]
    Decode(String),
    /// Nobody has signed it.
    #[error("no valid signature: {0}")]
    Signature(String),
    /// Carries blobs, which the pool does not keep.
    #[error("transactions with blobs are not taken")]
    Blobs,
    /// Its gas does not pay for what it says.
    #[error("intrinsic gas too low: has {has}, needs {needs}")]
    GasTooLow {
        /// Its gas limit.
        has: u64,
        /// What it costs before it does anything.
        needs: u64,
    },
    /// Over [`MAX_GAS`].
    #[error("exceeds block gas limit: {0} is over {MAX_GAS}")]
    GasTooHigh(u64),
}

impl Refused {
    /// Whether the bytes are wrong, rather than what they ask for.
    pub const fn is_malformed(&self) -> bool {
        !matches!(self, Self::Blobs | Self::GasTooLow { .. } | Self::GasTooHigh(_))
    }
}

/// Reads a signed transaction as `eth_sendRawTransaction` gets it. The chain id is not looked at.
///
/// # Errors
/// When it is none, or none that the pool takes.
pub fn receive(text: &str) -> Result<(Order, TxEnvelope), Refused> {
    let digits = text.strip_prefix("0x").ok_or_else(|| Refused::Hex("no 0x".into()))?;
    if digits.len() / 2 > MAX_SIZE {
        return Err(Refused::TooLong(digits.len() / 2));
    }
    let raw = Bytes::from(hex::decode(digits).map_err(|error| Refused::Hex(error.to_string()))?);
    let envelope = decode(&raw)?;
    if envelope.is_eip4844() {
        return Err(Refused::Blobs);
    }
    let sender = envelope.recover_signer().map_err(|error| Refused::Signature(error.to_string()))?;
    let (has, needs) = (envelope.gas_limit(), intrinsic_gas(envelope.input()));
    if has < needs {
        return Err(Refused::GasTooLow { has, needs });
    }
    if has > MAX_GAS {
        return Err(Refused::GasTooHigh(has));
    }
    let tip = envelope.effective_tip_per_gas(0).unwrap_or_default();
    let (hash, nonce) = (*envelope.tx_hash(), envelope.nonce());
    Ok((Order { hash, sender, nonce, tip, gas: has, raw }, envelope))
}

/// Decodes the bytes of an order.
///
/// # Errors
/// When they are not one whole signed transaction.
pub fn decode(raw: &[u8]) -> Result<TxEnvelope, Refused> {
    TxEnvelope::decode_2718_exact(raw).map_err(|error| Refused::Decode(error.to_string()))
}

/// What a transaction costs for being there, without what creation and access lists add (EIP-2028). It bounds the bytes of a
/// block by its gas.
fn intrinsic_gas(input: &[u8]) -> u64 {
    MIN_GAS + input.iter().map(|byte| if *byte == 0 { 4 } else { 16 }).sum::<u64>()
}
