//! The declared pool in virtual time, under faults that are drawn from seeds. Transactions enter where the HTTP server of an
//! intake hands them over.

use std::{sync::LazyLock, time::Duration};

use builder::{Builder, Intake, Mempool, Pool, Watch, envelope::Order};
use futures::future::join_all;
use mosaik::{
    prelude::*,
    testing::{Cluster, eventually},
};
use tokio::time::sleep;

use crate::common::{assert_each_once, orders, transactions};

static ORDERS: LazyLock<Vec<Order>> = LazyLock::new(|| orders(&transactions()));

#[mosaik::test(seeds = 12, faults = [kill, partition, pause], with = [Pool = 3, Intake = 0, Watch = 0], durable)]
async fn each_accepted_transaction_is_in_exactly_one_block(cluster: Cluster<Builder>) {
    sealed_once(cluster).await;
}

/// As many seeds as the promise is made for: minutes, most of which the disk takes.
#[mosaik::test(seeds = 200, faults = [kill, partition, pause], with = [Pool = 3, Intake = 0, Watch = 0], durable)]
#[ignore = "long"]
async fn long_each_accepted_transaction_is_in_exactly_one_block(cluster: Cluster<Builder>) {
    sealed_once(cluster).await;
}

async fn sealed_once(cluster: Cluster<Builder>) {
    let clients = [(); 3].map(|()| Client::<Mempool>::open(cluster.observer()).expect("the key is there"));
    // No two of a sender at a time, and all within the time in which faults begin.
    for some in ORDERS.chunks(5) {
        join_all(some.iter().zip(clients.iter().cycle()).map(|(order, client)| accepted(client, order))).await;
        sleep(Duration::from_millis(1_500)).await;
    }
    cluster.calm().await;
    cluster.converged().await.expect("as declared after the faults");
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while clients[0].next().strong().await.expect("answered").is_some() {
        assert!(tokio::time::Instant::now() < deadline, "some are in no block");
        sleep(Duration::from_millis(100)).await;
    }
    let (first, blocks) = clients[1].since(1).strong().await.expect("answered");
    assert_eq!(first, 1);
    assert_eq!(blocks.len() as u64, clients[2].height().strong().await.expect("answered"));
    let blocks: Vec<Vec<String>> = blocks.iter().map(|txs| txs.iter().map(ToString::to_string).collect()).collect();
    assert_each_once(&ORDERS, &blocks);
}

/// Some faults last longer than a call: whoever gets no answer asks again.
async fn accepted(client: &Client<Mempool>, order: &Order) {
    loop {
        match client.submit(order.clone()).await {
            Ok(taken) => return taken.expect("taken"),
            Err(CallError::Timeout { .. } | CallError::Unknown { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[mosaik::test(with = [Pool = 3, Intake = 0, Watch = 0])]
async fn the_leader_emits_what_it_seals(cluster: Cluster<Builder>) {
    let mut blocks = cluster.tap::<builder::Block>();
    cluster.converged().await.expect("as declared");
    assert!(eventually(Duration::from_secs(10), || blocks.producers().count() == 3).await);
    let pool = Client::<Mempool>::open(cluster.observer()).expect("the key is there");
    pool.submit(ORDERS[0].clone()).await.expect("answered").expect("taken");
    let block = blocks.recv().await.expect("a block");
    assert_eq!(block.number, 1);
    assert_eq!(block.txs.iter().map(|tx| *tx.tx_hash()).collect::<Vec<_>>(), [ORDERS[0].hash]);
}
