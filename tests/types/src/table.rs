//! The table of crates and types in the book: format and size of one value of each.

use std::{fmt::Write, path::Path, str::FromStr};

use alloy::{
    consensus::{Header, TxEnvelope},
    primitives::{Address, B256, U256},
    rpc::types::{self as rpc, TransactionRequest},
};
use mosaik::testing::encoding;

use crate::{Value, alloy_types};

/// The lines of the table.
struct Table(String);

impl Table {
    fn row<T: Value>(&mut self, krate: &str, ty: &str, value: T) {
        let (format, bytes) = encoding(&value).unwrap_or_else(|error| panic!("{krate} {ty}: {error}"));
        writeln!(self.0, "| {krate} | `{ty}` | {format} | {} |", bytes.len()).unwrap();
    }
}

fn table() -> String {
    let mut table = Table("| crate | type | format | bytes of an example |\n|---|---|---|---|\n".to_owned());
    table.row("alloy 2.5", "TxEnvelope", TxEnvelope::from(alloy_types::signed(alloy_types::dynamic())));
    table.row("alloy 2.5", "consensus::Header", Header::default());
    table.row("alloy 2.5", "Receipt", alloy_types::receipt());
    table.row("alloy 2.5", "rpc::Log", rpc::Log { inner: alloy_types::log(), ..Default::default() });
    table.row("alloy 2.5", "rpc::TransactionRequest", TransactionRequest { gas: Some(5), ..Default::default() });
    table.row("alloy 2.5", "Address", Address::repeat_byte(1));
    table.row("alloy 2.5", "B256", B256::repeat_byte(1));
    table.row("alloy 2.5", "U256", U256::MAX);
    table.row("bigdecimal 0.4", "BigDecimal", bigdecimal::BigDecimal::from_str("123.45").unwrap());
    table.row("bytes 1", "Bytes", bytes::Bytes::from_static(&[7; 100]));
    let at = chrono::DateTime::from_timestamp(1_700_000_000, 5).unwrap();
    table.row("chrono 0.4", "DateTime<Utc>", at);
    table.row("chrono 0.4", "NaiveDate", at.date_naive());
    let map: indexmap::IndexMap<String, u8> = [("a".to_owned(), 1), ("b".to_owned(), 2)].into_iter().collect();
    table.row("indexmap 2", "IndexMap<String, u8>", map);
    table.row("ipnet 2", "IpNet", ipnet::IpNet::from_str("10.0.0.0/8").unwrap());
    table.row("jiff 0.2", "Timestamp", jiff::Timestamp::from_second(1_700_000_000).unwrap());
    table.row("jiff 0.2", "civil::Date", jiff::civil::date(2026, 11, 29));
    table.row("rust_decimal 1", "Decimal", rust_decimal::Decimal::new(12_345, 2));
    table.row("semver 1", "Version", semver::Version::parse("1.2.3-rc.1").unwrap());
    table.row("serde_json 1", "Value", serde_json::json!({"a": [1, 2]}));
    table.row("solana-pubkey 3", "Pubkey", solana_pubkey::Pubkey::new_from_array([7; 32]));
    table.row("time 0.3", "OffsetDateTime", time::OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap());
    table.row("url 2", "Url", url::Url::parse("https://example.org/a").unwrap());
    table.row("uuid 1", "Uuid", uuid::Uuid::from_u128(7));
    table.0
}

#[test]
fn the_table_of_the_book_is_right() {
    let (begin, end) = ("<!-- table -->\n", "<!-- end of table -->");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/types.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once(begin).expect("where the table begins");
    let (written, after) = rest.split_once(end).expect("where it ends");
    let found = table();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&page, format!("{before}{begin}{found}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(written, found, "the table of {} is not what was found: UPDATE=1 writes it", page.display());
}
