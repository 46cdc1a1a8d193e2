//! The types of Ethereum's builders.

use alloy::{
    consensus::{
        Header, Receipt, ReceiptEnvelope, ReceiptWithBloom, SignableTransaction, Signed, TxEip1559, TxEip2930,
        TxEip4844, TxEip4844Variant, TxEip7702, TxEnvelope, TxLegacy, transaction::Recovered,
    },
    eips::eip2718::Decodable2718,
    primitives::{Address, B256, Bytes, Log, LogData, Signature, TxKind, U256},
    rpc::types::{self as rpc, BlockTransactions, TransactionRequest},
};

use crate::carried;

pub(crate) fn signed<T: SignableTransaction<Signature>>(tx: T) -> Signed<T> {
    tx.into_signed(Signature::test_signature())
}

fn legacy() -> TxLegacy {
    TxLegacy {
        chain_id: Some(1),
        nonce: 7,
        gas_price: 1 << 40,
        gas_limit: 21_000,
        to: TxKind::Call(Address::repeat_byte(3)),
        value: U256::MAX,
        input: Bytes::from_static(b"data"),
    }
}

pub(crate) fn dynamic() -> TxEip1559 {
    TxEip1559 {
        chain_id: 1,
        nonce: 1,
        gas_limit: 21_000,
        max_fee_per_gas: 5,
        max_priority_fee_per_gas: 1,
        ..Default::default()
    }
}

pub(crate) fn log() -> Log {
    Log {
        address: Address::repeat_byte(1),
        data: LogData::new_unchecked(vec![B256::repeat_byte(2)], Bytes::from_static(b"log")),
    }
}

pub(crate) fn receipt() -> Receipt<Log> {
    Receipt { status: true.into(), cumulative_gas_used: 5, logs: vec![log()] }
}

#[test]
fn envelopes() {
    carried(&[
        TxEnvelope::from(signed(legacy())),
        TxEnvelope::from(signed(TxLegacy { chain_id: None, ..legacy() })),
        TxEnvelope::from(signed(TxEip2930 { chain_id: 1, ..Default::default() })),
        TxEnvelope::from(signed(dynamic())),
        TxEnvelope::Eip4844(signed(TxEip4844Variant::TxEip4844(TxEip4844 { chain_id: 1, ..Default::default() }))),
        TxEnvelope::from(signed(TxEip7702 { chain_id: 1, ..Default::default() })),
    ]);
}

#[test]
fn bodies() {
    carried(&[signed(legacy())]);
    carried(&[signed(TxEip2930 { chain_id: 1, ..Default::default() })]);
    carried(&[signed(dynamic())]);
    carried(&[signed(TxEip4844 { chain_id: 1, ..Default::default() })]);
    carried(&[signed(TxEip7702 { chain_id: 1, ..Default::default() })]);
}

#[test]
fn receipts_and_headers() {
    carried(&[receipt()]);
    let bloom = ReceiptWithBloom { receipt: receipt(), logs_bloom: Default::default() };
    carried(&[
        ReceiptEnvelope::Legacy(bloom.clone()),
        ReceiptEnvelope::Eip2930(bloom.clone()),
        ReceiptEnvelope::Eip1559(bloom.clone()),
        ReceiptEnvelope::Eip4844(bloom.clone()),
        ReceiptEnvelope::Eip7702(bloom),
    ]);
    carried(&[Header { number: 7, base_fee_per_gas: Some(1), ..Default::default() }, Header::default()]);
    carried(&[Address::repeat_byte(1)]);
    carried(&[B256::repeat_byte(2)]);
    carried(&[U256::MAX, U256::ZERO]);
}

#[test]
fn what_a_node_answers() {
    carried(&[rpc::Log { inner: log(), block_number: Some(5), ..Default::default() }]);
    carried(&[rpc::Header::new(Header { number: 7, ..Default::default() })]);
    let block = rpc::Block::<rpc::Transaction>::default();
    let hashes = BlockTransactions::Hashes(vec![B256::repeat_byte(4)]);
    carried(&[block.clone().with_transactions(hashes)]);
    let envelope = Recovered::new_unchecked(TxEnvelope::from(signed(dynamic())), Address::repeat_byte(9));
    let transaction = rpc::Transaction::from_transaction(envelope, rpc::TransactionInfo::default());
    carried(&[transaction.clone()]);
    carried(&[block.clone().with_transactions(BlockTransactions::Full(vec![transaction]))]);
    // `to: Some(Create)` is null in its serde code and read as `None`, which is refused.
    let to = Some(TxKind::Call(Address::repeat_byte(3)));
    let request = TransactionRequest { to, gas: Some(5), value: Some(U256::from(1)), ..Default::default() };
    carried(&[request, TransactionRequest::default()]);
}

/// The transactions of a real block, if its file is beside the checkout.
#[test]
fn a_block() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/block-17585076-relay-payload.json");
    let Ok(text) = std::fs::read_to_string(root) else { return };
    let payload: serde_json::Value = serde_json::from_str(&text).unwrap();
    let raw = payload["execution_payload"]["transactions"].as_array().expect("transactions").clone();
    let envelopes: Vec<TxEnvelope> = raw
        .iter()
        .map(|raw| {
            let bytes: Bytes = raw.as_str().unwrap().parse().unwrap();
            TxEnvelope::decode_2718_exact(&bytes).unwrap()
        })
        .collect();
    assert_eq!(envelopes.len(), 116);
    carried(&envelopes);
}
