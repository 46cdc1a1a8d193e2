//! The front: hands signed transactions to the pool. Any number of them may run; they are clients of the pool's group, not
//! members.

use std::{io, net::SocketAddr, time::Duration};

use mosaik::prelude::*;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    Envelopes, Mempool,
    rpc::{self, Call, Failure},
};

/// How long a call waits for the pool.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Serves `eth_sendRawTransaction` and `eth_blockNumber`.
#[mosaik::node]
pub struct Intake {
    /// Where to serve JSON-RPC over HTTP
    #[mosaik(arg)]
    rpc: SocketAddr,
    pool: Client<Mempool>,
    #[mosaik(on_lag = drop_oldest)]
    envelopes: Producer<Envelopes>,
    /// Ends with the role.
    #[mosaik(default)]
    server: JoinSet<io::Result<()>>,
}

#[mosaik::handlers]
impl Intake {
    #[start]
    async fn serve(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.rpc).await?;
        eprintln!("rpc {}", listener.local_addr()?);
        let (pool, envelopes) = (Client::from(self.pool.group().with_timeout(PATIENCE)), self.envelopes.clone());
        self.server.spawn(rpc::serve(listener, move |call| answer(pool.clone(), envelopes.clone(), call)));
        Ok(())
    }
}

async fn answer(pool: Client<Mempool>, envelopes: Producer<Envelopes>, call: Call) -> Result<Value, Failure> {
    let (order, envelope) = match call {
        Call::Send(received) => *received,
        Call::BlockNumber => return Ok(json!(format!("{:#x}", pool.height().strong().await?))),
    };
    let hash = order.hash;
    pool.submit(order).await??;
    // Nobody has to listen, and whoever is too slow is told of the gap.
    drop(envelopes.try_send(envelope));
    Ok(json!(hash))
}
