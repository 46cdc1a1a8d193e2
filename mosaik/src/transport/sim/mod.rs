//! The simulated backend: a network of nodes in memory, in virtual time, with injected faults.
//!
//! It behaves as QUIC does seen from above the transport seam; `tests.rs` runs the same checks against both
//! backends. All nodes of a simulation share one [`Net`]; only `testing` makes one. Built to run a thousand nodes on
//! one core and to do the same again from the same seed: no task or timer per connection, no randomness but the
//! seed's, no order but (time, sequence).
//!
//! Rooms: `world` (state and event loop), `handshake` (connections), `streams` and `pipe` (streams), `link` (delay),
//! `faults` (crash, pause, cut), `trace`; `connection` and `stream` hold the handles.

mod connection;
mod event;
mod faults;
mod handshake;
mod link;
mod pipe;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod trace;
mod transport;
mod world;

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use self::world::World;
pub(crate) use self::{
    connection::SimConnection,
    event::NodeIx,
    stream::{SimRecvStream, SimSendStream},
    transport::SimTransport,
};
pub use self::{link::LinkQuality, world::Traffic};
use super::Tasks;

/// A simulated network: the world behind its lock, and the driver that moves it along.
#[derive(Debug)]
pub(crate) struct Net {
    world: Mutex<World>,
    wake: Arc<Notify>,
    /// Tells simulations of this process apart, from 1.
    realm: u64,
}

impl Net {
    /// A network without nodes. Its driver runs on the current tokio runtime until the last handle is dropped.
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        static REALMS: AtomicU64 = AtomicU64::new(1);
        let wake = Arc::new(Notify::new());
        let realm = REALMS.fetch_add(1, Ordering::Relaxed);
        let net = Arc::new(Self { world: Mutex::new(World::new(seed)), wake: wake.clone(), realm });
        Tasks::default().spawn("simulated network", drive(Arc::downgrade(&net), wake));
        net
    }

    /// Enters the world for an instant; wakes what that made ready.
    fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.tick();
        let outcome = act(&mut world);
        let wakes = std::mem::take(&mut world.wakes);
        let rearm = world.must_rearm();
        drop(world);
        wakes.wake();
        if rearm {
            self.wake.notify_one();
        }
        outcome
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

/// Handles events as they fall due.
async fn drive(net: Weak<Net>, wake: Arc<Notify>) {
    loop {
        let next = match net.upgrade() {
            Some(net) => net.with(|world| world.run_due().map(|at| world.instant(at))),
            None => return,
        };
        match next {
            Some(next) => tokio::select! {
                biased;
                () = wake.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            },
            None => wake.notified().await,
        }
    }
}
