//! Types that everybody uses.

use std::{collections::BTreeMap, str::FromStr};

use crate::carried;

#[test]
fn chrono() {
    let at = chrono::DateTime::from_timestamp(1_700_000_000, 5).unwrap();
    carried(&[at]);
    carried(&[at.date_naive()]);
    carried(&[at.naive_utc()]);
}

#[test]
fn time() {
    let at = time::OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    carried(&[at]);
    carried(&[at.date()]);
    carried(&[time::Duration::seconds(-5)]);
}

#[test]
fn jiff() {
    carried(&[jiff::Timestamp::from_second(1_700_000_000).unwrap()]);
    carried(&[jiff::civil::date(2026, 11, 29)]);
    carried(&[jiff::SignedDuration::from_secs(-90)]);
}

#[test]
fn uuid() {
    carried(&[uuid::Uuid::from_u128(7), uuid::Uuid::nil()]);
}

#[test]
fn decimals() {
    carried(&[rust_decimal::Decimal::new(-12_345, 3), rust_decimal::Decimal::MAX]);
    carried(&[bigdecimal::BigDecimal::from_str("123456789012345678901234567890.123").unwrap()]);
}

#[test]
fn json() {
    let value = serde_json::json!({"a": [1, -2, 3.5, null, true], "b": {"c": "d"}, "e": u64::MAX});
    carried(&[value, serde_json::Value::Null]);
}

#[test]
fn text_that_is_checked() {
    carried(&[url::Url::parse("https://example.org/a?b=c").unwrap()]);
    carried(&[semver::Version::parse("1.2.3-rc.1+5").unwrap()]);
    carried(&[ipnet::IpNet::from_str("10.0.0.0/8").unwrap(), ipnet::IpNet::from_str("fe80::/10").unwrap()]);
}

#[test]
fn collections() {
    let map: indexmap::IndexMap<String, Vec<u8>> = [("z".into(), vec![1]), ("a".into(), vec![])].into_iter().collect();
    carried(&[map]);
    carried(&[bytes::Bytes::from_static(b"some bytes"), bytes::Bytes::new()]);
    let tuples: BTreeMap<(u8, String), Option<i128>> =
        [((1, "a".into()), Some(i128::MIN)), ((2, "b".into()), None)].into();
    carried(&[tuples]);
}

#[test]
fn solana() {
    carried(&[solana_pubkey::Pubkey::new_from_array([7; 32])]);
}
