//! Signed transactions for tests, from keys that are known to everybody, and what must hold of the blocks that they end in.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope, TxLegacy},
    eips::eip2718::Encodable2718,
    hex,
    primitives::{Address, Bytes, Signature, TxKind, U256},
};
use builder::envelope::{self, GAS_LIMIT, Order};
use k256::ecdsa::SigningKey;

fn key(account: u8) -> SigningKey {
    let mut secret = [0; 32];
    (secret[0], secret[31]) = (7, account);
    SigningKey::from_bytes(&secret.into()).expect("in the field")
}

/// The transaction in hex, signed by the account.
pub fn signed<T>(account: u8, tx: T) -> String
where
    T: SignableTransaction<Signature>,
    TxEnvelope: From<alloy::consensus::Signed<T>>,
{
    let digest = tx.signature_hash();
    let signature = key(account).sign_prehash_recoverable(digest.as_slice()).expect("signs");
    hex::encode_prefixed(TxEnvelope::from(tx.into_signed(signature.into())).encoded_2718())
}

/// A transfer by a legacy transaction.
pub fn legacy(account: u8, nonce: u64, gas_price: u128, chain_id: Option<u64>) -> String {
    let to = TxKind::Call(Address::repeat_byte(account));
    let (value, input) = (U256::from(1), Bytes::new());
    signed(account, TxLegacy { chain_id, nonce, gas_price, gas_limit: 21_000, to, value, input })
}

/// A call by a transaction with a priority fee.
pub fn dynamic(account: u8, nonce: u64, tip: u128, gas_limit: u64, input: Vec<u8>) -> String {
    let to = TxKind::Call(Address::repeat_byte(account));
    let (max_priority_fee_per_gas, max_fee_per_gas, input) = (tip, tip + 30, input.into());
    let tx = TxEip1559 {
        chain_id: 1,
        nonce,
        gas_limit,
        max_fee_per_gas,
        max_priority_fee_per_gas,
        to,
        input,
        ..Default::default()
    };
    signed(account, tx)
}

/// 100 transactions of 20 senders, each sender's in order: few tips, so that many are equal, and gas for a dozen blocks.
pub fn transactions() -> Vec<String> {
    let of = |nonce: u64, account: u8| match (account % 5, u64::from(account)) {
        (0, account64) => legacy(account, 40 + nonce, u128::from(account64), account.is_multiple_of(2).then_some(1)),
        (1, 1) => dynamic(account, nonce, 3, 2 * GAS_LIMIT, vec![]),
        (_, account64) => {
            let gas = 100_000 + 20_000 * account64;
            dynamic(account, nonce, u128::from(nonce * account64 % 7), gas, vec![account; 10 * usize::from(account)])
        }
    };
    (0..5).flat_map(|nonce| (1..=20).map(move |account| of(nonce, account))).collect()
}

/// What the pool is to know of them.
pub fn orders(transactions: &[String]) -> Vec<Order> {
    transactions.iter().map(|raw| envelope::receive(raw).expect("well-formed").0).collect()
}

/// Each of the orders is in exactly one of the blocks and nothing else is; no block is over the gas limit with more than one; nonces are in order.
pub fn assert_each_once<'a>(orders: &[Order], blocks: impl IntoIterator<Item = &'a Vec<String>>) {
    let by_hash: BTreeMap<String, &Order> = orders.iter().map(|order| (order.hash.to_string(), order)).collect();
    let (mut seen, mut nonces) = (BTreeSet::new(), BTreeMap::new());
    for txs in blocks {
        assert!(!txs.is_empty(), "an empty block");
        let mut gas = 0;
        for tx in txs {
            let order = by_hash.get(tx).unwrap_or_else(|| panic!("{tx} was never sent"));
            assert!(seen.insert(tx), "{tx} is there twice");
            let last = nonces.insert(order.sender, order.nonce);
            assert!(last.is_none_or(|last| last < order.nonce), "{order:?} comes after nonce {last:?}");
            gas += order.gas;
        }
        assert!(gas <= GAS_LIMIT || txs.len() == 1, "a block of {gas} gas");
    }
    assert_eq!(seen.len(), by_hash.len(), "all are in blocks");
}
