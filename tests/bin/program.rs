//! A program with a main of its own, for the process tests.

use mosaik::prelude::*;

/// Ends when `PROGRAM` says how: `ok`, `error`, `wait` or `block`.
#[mosaik::main(name = "program", tags = ["program"])]
async fn main(net: Network) -> anyhow::Result<()> {
    println!("{}", net.local().id());
    match std::env::var("PROGRAM").as_deref() {
        Ok("error") => Err(anyhow::anyhow!("the cause").context("the effect")),
        Ok("wait") => std::future::pending().await,
        Ok("block") => loop {
            std::thread::park();
        },
        _ => Ok(()),
    }
}
