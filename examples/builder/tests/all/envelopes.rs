//! Which transactions become orders, and what is read of them.

use alloy::{
    consensus::{TxEip4844, TxEip4844Variant},
    eips::eip2718::Encodable2718,
    hex,
    primitives::keccak256,
};
use builder::envelope::{self, GAS_LIMIT, MAX_GAS, MAX_SIZE, Refused};

use crate::common::{dynamic, legacy, orders, signed, transactions};

#[test]
fn an_order_is_what_was_signed() {
    let raw = dynamic(1, 7, 3, 50_000, vec![1, 0, 2]);
    let (order, envelope) = envelope::receive(&raw).expect("well-formed");
    assert_eq!((order.nonce, order.tip, order.gas), (7, 3, 50_000));
    assert_eq!(hex::encode_prefixed(&order.raw), raw);
    assert_eq!(order.hash, keccak256(&order.raw));
    assert_eq!(envelope.encoded_2718(), order.raw);
    let (other, _) = envelope::receive(&legacy(1, 8, 5, None)).expect("without a chain id");
    assert_eq!((other.sender, other.nonce, other.tip), (order.sender, 8, 5));
    let (stranger, _) = envelope::receive(&legacy(2, 8, 5, Some(31_337))).expect("of another chain");
    assert_ne!(stranger.sender, order.sender);
}

#[test]
fn what_is_no_order_says_why() {
    let why = |raw: &str| envelope::receive(raw).expect_err(raw);
    let good = legacy(1, 0, 1, None);
    assert!(matches!(why(&good[2..]), Refused::Hex(_)));
    assert!(matches!(why(&good[..good.len() - 1]), Refused::Hex(_)));
    assert!(matches!(why(&good[..good.len() - 2]), Refused::Decode(_)));
    assert!(matches!(why(&format!("{good}00")), Refused::Decode(_)), "bytes behind it");
    assert!(matches!(why("0x02"), Refused::Decode(_)));
    assert!(matches!(why(&format!("0x{}", "00".repeat(MAX_SIZE + 1))), Refused::TooLong(_)));
    assert!(matches!(
        why(&format!("{}{}", &good[..good.len() - 64], "00".repeat(32))),
        Refused::Decode(_) | Refused::Signature(_)
    ));
    let needs = |input| dynamic(1, 0, 1, 21_019, input);
    assert_eq!(why(&needs(vec![0, 1])), Refused::GasTooLow { has: 21_019, needs: 21_020 });
    assert!(envelope::receive(&needs(vec![0])).is_ok());
    assert_eq!(why(&dynamic(1, 0, 1, MAX_GAS + 1, vec![])), Refused::GasTooHigh(MAX_GAS + 1));
    let blobs = TxEip4844 { gas_limit: 50_000, ..Default::default() };
    assert_eq!(why(&signed::<TxEip4844Variant>(1, blobs.into())), Refused::Blobs);
}

#[test]
fn the_transactions_of_the_tests_are_many_and_different() {
    let orders = orders(&transactions());
    let distinct =
        |key: fn(&envelope::Order) -> String| orders.iter().map(key).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(distinct(|order| order.hash.to_string()), 100);
    assert_eq!(distinct(|order| order.sender.to_string()), 20);
    assert!(distinct(|order| order.tip.to_string()) < 30, "equal tips are among them");
    assert!(orders.iter().map(|order| order.gas).sum::<u64>() > 10 * GAS_LIMIT);
}
