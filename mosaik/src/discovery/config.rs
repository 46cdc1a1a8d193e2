//! Every limit and interval of discovery. The defaults suit a few to a few thousand nodes on a LAN or WAN.

use std::time::Duration;

use super::hint::LEASE_BOUNDS;

/// The hard limit of [`Config::max_peers`]: with it one bucket of any catalog fits one sync frame.
pub const MAX_PEERS: usize = 16_384;

/// The hard limit of [`Config::max_lost`] and [`Config::max_remembered`].
const MAX_LOST: usize = 4096;

/// How discovery behaves. Made by [`Config::builder`]; values out of bounds are brought into them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How long this node is believed to be alive after its last sign of life; 1 s to 600 s, default 15 s.
    pub lease: Duration,
    /// How often this node gives a sign of life; at most a third of the lease, default 5 s.
    pub renew_every: Duration,
    /// How often the catalog is compared with that of a random peer, give or take a fifth; default 5 s. The first four times
    /// come sooner, the very first one after a sixteenth.
    pub sync_every: Duration,
    /// Peers in the catalog; further ones are refused until one departs. At most, and by default, [`MAX_PEERS`].
    pub max_peers: usize,
    /// Departed peers, and those remembered from former runs, that are looked for; and again so many whose last version is kept so that
    /// stale entries do not resurrect them. Those that never answered make room first, then the oldest. Default 1,024, at most 4,096.
    pub max_lost: usize,
    /// How long the last version of a departed peer is kept; default 1 h. The peer is looked for without end.
    pub forget_after: Duration,
    /// The longest pause between two attempts to reach a peer that is looked for; the first comes after 1 s, then they double. With
    /// more than ten such peers it is 3 s for each. Default 30 s.
    pub lost_retry_cap: Duration,
    /// Lost or silent peers that are dialled at one time; default 4.
    pub max_probes: usize,
    /// The longest pause between two attempts to reach a bootstrap peer in the first minute after it was lost; default 1 s.
    pub bootstrap_retry: Duration,
    /// The same after the first minute; default 5 s.
    pub bootstrap_retry_cap: Duration,
    /// Sync sessions that this node opens at one time; default 16.
    pub max_dials: usize,
    /// Sync sessions and entry requests that this node serves at one time, each, at most eight of one peer; default 128.
    pub max_served: usize,
    /// How long one sync session or entry request may last; default 20 s.
    pub session_timeout: Duration,
    /// The shortest pause between two announcements of this node; default 50 ms.
    pub announce_gap: Duration,
    /// Neighbours in the gossip overlay; default 5.
    pub neighbors: usize,
    /// Frames of up to 64 KiB that wait for one gossip neighbour; when full, the neighbour is dropped and looked for
    /// again. Default 256.
    pub neighbor_queue: usize,
    /// Events that wait for one subscriber of `events()`; when full, the oldest are dropped and counted. Default 4,096.
    pub event_buffer: usize,
    /// Peers remembered in the data directory; default 1,024, at most 4,096.
    pub max_remembered: usize,
    /// How long a graceful departure may take to tell the others; default 500 ms.
    pub farewell: Duration,
    /// Whether nodes of one process find each other without a bootstrap peer; default true.
    pub rendezvous: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_every: Duration::from_secs(5),
            sync_every: Duration::from_secs(5),
            max_peers: MAX_PEERS,
            max_lost: 1024,
            forget_after: Duration::from_hours(1),
            lost_retry_cap: Duration::from_secs(30),
            max_probes: 4,
            bootstrap_retry: Duration::from_secs(1),
            bootstrap_retry_cap: Duration::from_secs(5),
            max_dials: 16,
            max_served: 128,
            session_timeout: Duration::from_secs(20),
            announce_gap: Duration::from_millis(50),
            neighbors: 5,
            neighbor_queue: 256,
            event_buffer: 4096,
            max_remembered: 1024,
            farewell: Duration::from_millis(500),
            rendezvous: true,
        }
    }
}

impl Config {
    /// Starts from the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder(Self::default())
    }
}

/// Builds a [`Config`]; converts into it, so `build()` may be left out where a `Config` is taken.
#[derive(Clone, Debug)]
#[must_use]
pub struct ConfigBuilder(Config);

macro_rules! setters {
    ($($name:ident: $type:ty => $field:ident;)*) => {
        impl ConfigBuilder {
            $(
                #[doc = concat!("Sets [`Config::", stringify!($field), "`].")]
                pub const fn $name(mut self, $field: $type) -> Self {
                    self.0.$field = $field;
                    self
                }
            )*
        }
    };
}

setters! {
    with_lease: Duration => lease;
    with_renew_every: Duration => renew_every;
    with_sync_every: Duration => sync_every;
    with_max_peers: usize => max_peers;
    with_max_lost: usize => max_lost;
    with_forget_after: Duration => forget_after;
    with_lost_retry_cap: Duration => lost_retry_cap;
    with_max_probes: usize => max_probes;
    with_bootstrap_retry: Duration => bootstrap_retry;
    with_bootstrap_retry_cap: Duration => bootstrap_retry_cap;
    with_max_dials: usize => max_dials;
    with_max_served: usize => max_served;
    with_session_timeout: Duration => session_timeout;
    with_announce_gap: Duration => announce_gap;
    with_neighbors: usize => neighbors;
    with_neighbor_queue: usize => neighbor_queue;
    with_event_buffer: usize => event_buffer;
    with_max_remembered: usize => max_remembered;
    with_farewell: Duration => farewell;
    with_rendezvous: bool => rendezvous;
}

impl ConfigBuilder {
    /// The configuration, every value within its bounds.
    #[must_use]
    pub fn build(self) -> Config {
        let mut config = self.0;
        let tick = Duration::from_millis(10);
        config.lease = config.lease.clamp(LEASE_BOUNDS.0, LEASE_BOUNDS.1);
        config.renew_every = config.renew_every.clamp(tick, config.lease / 3);
        config.sync_every = config.sync_every.max(tick);
        config.max_peers = config.max_peers.clamp(1, MAX_PEERS);
        config.bootstrap_retry = config.bootstrap_retry.max(tick);
        config.bootstrap_retry_cap = config.bootstrap_retry_cap.max(config.bootstrap_retry);
        config.session_timeout = config.session_timeout.max(tick);
        config.max_lost = config.max_lost.min(MAX_LOST);
        config.max_remembered = config.max_remembered.min(MAX_LOST);
        config.neighbors = config.neighbors.clamp(2, 32);
        for at_least_one in [
            &mut config.max_probes,
            &mut config.max_dials,
            &mut config.max_served,
            &mut config.neighbor_queue,
            &mut config.event_buffer,
        ] {
            *at_least_one = (*at_least_one).max(1);
        }
        config
    }
}

impl From<ConfigBuilder> for Config {
    fn from(builder: ConfigBuilder) -> Self {
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_brought_into_bounds() {
        let config = Config::builder().with_lease(Duration::ZERO).with_max_peers(usize::MAX).with_max_dials(0).build();
        assert_eq!(config.lease, LEASE_BOUNDS.0);
        assert!(config.renew_every * 3 <= config.lease);
        assert_eq!((config.max_peers, config.max_dials), (MAX_PEERS, 1));
    }
}
