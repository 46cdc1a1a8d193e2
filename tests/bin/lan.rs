//! The ledger example's branch with the timing for one building, for the process tests: `lan run bank` and the same flags,
//! each with a value. It ends when it is killed.

use std::env;

use anyhow::Context;
use mosaik::prelude::*;
use tokio::net::TcpListener;

#[path = "../../examples/ledger.rs"]
#[allow(dead_code, reason = "its command line is the example's own")]
mod example;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = env::args().skip(3).collect();
    let all = |flag: &'static str| words.chunks(2).filter(move |it| it[0] == flag).filter_map(|it| it.get(1)).cloned();
    let one = |flag: &'static str| all(flag).next().context(flag);
    let mut builder = Network::builder(NetworkId::from("ledger in one building"))
        .with_secret_key(one("--secret")?.parse()?)
        .with_listen(one("--listen")?.parse()?)
        .with_data_dir(one("--data-dir")?);
    for contact in all("--bootstrap") {
        builder = builder.with_bootstrap(contact.as_str());
    }
    let network = builder.build().await?;
    let group = network
        .groups()
        .with_key(GroupKey::from_secret(&env::var("LEDGER_KEY")?))
        .with_state_machine(example::Ledger::default())
        .with_size(3)
        .with_timing(Timing::lan())
        .join()
        .await?;
    let listener = TcpListener::bind(one("--api")?).await?;
    eprintln!("api {}", listener.local_addr()?);
    let (_goes_on, ending) = tokio::sync::oneshot::channel();
    example::api::accept(listener, Replica::from(group), example::api::ending(ending)).await;
    Ok(())
}
