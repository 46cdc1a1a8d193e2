//! How fast values of foreign types travel, one producer to one consumer in one process over loopback: transaction envelopes, and
//! 64 KiB as `Vec<u8>` of a declared type and as `Bytes`. Prints medians of five runs.
//!
//! `cargo run --release --example speed`

use std::time::{Duration, Instant};

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    primitives::{Address, Signature, TxKind, U256},
};
use bytes::Bytes;
use mosaik::{prelude::*, primitives::Streamed};

const RUNS: usize = 5;
const RUN: Duration = Duration::from_secs(2);

/// Transactions as they come in.
#[mosaik::stream(name = "envelopes", of = TxEnvelope)]
struct Envelopes;

/// 64 KiB that mosaik writes as bytes.
#[mosaik::stream(name = "declared")]
#[derive(Clone)]
struct Declared {
    number: u64,
    data: Vec<u8>,
}

/// 64 KiB that are bytes by their type.
#[mosaik::stream(name = "plain")]
#[derive(Clone)]
struct Plain {
    number: u64,
    data: Bytes,
}

fn envelope(nonce: u64) -> TxEnvelope {
    let transaction = TxEip1559 {
        chain_id: 1,
        nonce,
        gas_limit: 210_000,
        max_fee_per_gas: 30_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(Address::repeat_byte(7)),
        value: U256::from(10).pow(U256::from(18)),
        input: vec![0xA9; 68].into(),
        ..TxEip1559::default()
    };
    let signature = Signature::new(U256::from(1) << 200, U256::from(3) << 150, nonce % 2 == 0);
    TxEnvelope::from(transaction.into_signed(signature))
}

/// Items per second, once. Each end has a task of its own, and so a core.
async fn once<S: Streamed>(
    producer: &Producer<S>,
    mut consumer: Consumer<S>,
    item: impl Fn(u64) -> S::Item,
) -> Result<(f64, Consumer<S>), Box<dyn std::error::Error>> {
    let began = Instant::now();
    let (told, mut until) = tokio::sync::oneshot::channel();
    let receiving = tokio::spawn(async move {
        let (mut seen, mut wanted) = (0_u64, u64::MAX);
        while seen < wanted {
            tokio::select! {
                biased;
                item = consumer.recv() => {
                    item.ok_or("the stream has ended")?;
                    seen += 1;
                }
                sent = &mut until, if wanted == u64::MAX => wanted = sent.map_err(|_| "nothing was sent")?,
            }
        }
        Ok::<_, &str>(consumer)
    });
    let mut sent = 0;
    while sent % 64 != 0 || began.elapsed() < RUN {
        producer.send(item(sent)).await.map_err(|error| error.to_string())?;
        sent += 1;
    }
    told.send(sent).map_err(|_| "nobody counts")?;
    let consumer = receiving.await??;
    Ok((sent as f64 / began.elapsed().as_secs_f64(), consumer))
}

async fn measure<S: Streamed>(
    name: &str,
    producer: Producer<S>,
    consumer: Consumer<S>,
    item: impl Fn(u64) -> S::Item,
) -> Result<f64, Box<dyn std::error::Error>> {
    let (_, mut consumer) = once(&producer, consumer, &item).await?;
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        let rate;
        (rate, consumer) = once(&producer, consumer, &item).await?;
        rates.push(rate);
    }
    rates.sort_by(f64::total_cmp);
    let median = rates[RUNS / 2];
    println!("{name}: {:.1} k items/s ({:.1} to {:.1})", median / 1e3, rates[0] / 1e3, rates[RUNS - 1] / 1e3);
    Ok(median)
}

/// A lagging consumer holds the producer up; nothing is left out.
fn waiting<S: Streamed>(builder: mosaik::streams::ProducerBuilder<S>) -> mosaik::streams::ProducerBuilder<S> {
    builder.on_lag(mosaik::streams::OnLag::Block(Duration::from_secs(10)))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let id = NetworkId::random();
    let here = Network::builder(id).with_listen("127.0.0.1:0".parse()?).build().await?;
    let there =
        Network::builder(id).with_listen("127.0.0.1:0".parse()?).with_bootstrap(here.local().addr()).build().await?;

    let envelopes: Vec<_> = (0..116).map(envelope).collect();
    let producer = waiting(Envelopes::producer(&here)).build()?;
    measure("envelopes, MessagePack", producer, Envelopes::consumer(&there).build(), |n| {
        envelopes[n as usize % envelopes.len()].clone()
    })
    .await?;

    let text = serde_json::to_string(&envelopes)?;
    let began = Instant::now();
    let mut read = 0;
    while began.elapsed() < RUN {
        read += serde_json::from_str::<Vec<TxEnvelope>>(&text)?.len();
    }
    println!("decoding an envelope from JSON: {:.1} us", began.elapsed().as_secs_f64() * 1e6 / read as f64);

    // Each item is made for its sending, as an item of a real program is.
    let producer = waiting(Plain::producer(&here)).build()?;
    let plain = |number| Plain { number, data: vec![7; 64 << 10].into() };
    let bytes = measure("64 KiB as Bytes", producer, Plain::consumer(&there).build(), plain).await?;
    let producer = waiting(Declared::producer(&here)).build()?;
    let declared = |number| Declared { number, data: vec![7; 64 << 10] };
    let declared =
        measure("64 KiB as Vec<u8> of a declared type", producer, Declared::consumer(&there).build(), declared);
    let vec = declared.await?;
    println!("Vec<u8> : Bytes = {:.2}", vec / bytes);
    here.shutdown().await;
    there.shutdown().await;
    Ok(())
}
