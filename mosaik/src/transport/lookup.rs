//! Where the QUIC backend looks for the addresses of a peer of which only the id is known, beside what it is told: multicast DNS
//! (feature `mdns`), a pkarr relay and DNS (feature `pkarr`). Nothing of it is used unless asked for, and a node starts and
//! works when it does not answer.

#[cfg(feature = "mdns")]
use std::{collections::BTreeMap, time::Duration};

use iroh::Endpoint;
#[cfg(feature = "mdns")]
use iroh::EndpointAddr;
#[cfg(feature = "pkarr")]
use iroh::RelayUrl;
use iroh::endpoint::Builder;

use super::Tasks;

/// Peers of the local network that are remembered.
#[cfg(feature = "mdns")]
const MAX_FOUND: usize = 1024;
/// An announcement is told once, and who hears of it may not reach the peer then: so it is told again.
#[cfg(feature = "mdns")]
const AGAIN: Duration = Duration::from_secs(10);

/// What to use.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    /// Under which name to be found on the local network, and who is told of the peers that are.
    #[cfg(feature = "mdns")]
    pub(crate) mdns: Option<(String, tokio::sync::mpsc::Sender<EndpointAddr>)>,
    /// Pkarr relays to publish to and to ask.
    #[cfg(feature = "pkarr")]
    pub(crate) pkarr: Vec<RelayUrl>,
    /// Domains below which ids are looked up in DNS.
    #[cfg(feature = "pkarr")]
    pub(crate) dns: Vec<String>,
}

impl Lookups {
    /// What is configured before the endpoint is bound.
    #[cfg(not(feature = "pkarr"))]
    #[expect(clippy::unused_self, reason = "there is something with the feature")]
    pub(super) fn of_builder(&self, builder: Builder) -> Builder {
        builder
    }

    /// What is configured before the endpoint is bound.
    #[cfg(feature = "pkarr")]
    pub(super) fn of_builder(&self, mut builder: Builder) -> Builder {
        use iroh::address_lookup::{AddrFilter, DnsAddressLookup, PkarrPublisher, PkarrResolver};

        for relay in &self.pkarr {
            let publisher = PkarrPublisher::builder((**relay).clone()).addr_filter(AddrFilter::unfiltered());
            builder = builder.address_lookup(publisher).address_lookup(PkarrResolver::builder((**relay).clone()));
        }
        for origin in &self.dns {
            builder = builder.address_lookup(DnsAddressLookup::builder(origin.clone()));
        }
        builder
    }

    /// What begins with the endpoint.
    #[cfg(not(feature = "mdns"))]
    #[expect(clippy::unused_async, reason = "there is something to wait for with the feature")]
    pub(super) async fn begin(self, _endpoint: &Endpoint, _tasks: &Tasks) {}

    /// What begins with the endpoint.
    #[cfg(feature = "mdns")]
    #[expect(clippy::unused_async, reason = "as without the feature")]
    pub(super) async fn begin(self, endpoint: &Endpoint, tasks: &Tasks) {
        if let Some((service, found)) = self.mdns {
            tasks.spawn("mdns", multicast(endpoint.clone(), service, found, multicast_route));
        }
    }
}

/// Whether packets for the group of multicast DNS (RFC 6762, section 3) leave this machine; if not, why. Sends a question
/// without questions, which nobody answers.
#[cfg(feature = "mdns")]
fn multicast_route() -> std::io::Result<()> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    socket.send_to(&[0; 12], (std::net::Ipv4Addr::new(224, 0, 0, 251), 5353)).map(drop)
}

/// Says it once when there is no way for multicast, and once when there is one again.
#[cfg(feature = "mdns")]
fn note_route(known: &mut bool, route: &std::io::Result<()>) -> bool {
    match (route, *known) {
        (Err(error), true) => tracing::warn!(
            %error,
            "no way for multicast DNS here; nobody is found on the local network until there is one"
        ),
        (Ok(()), false) => tracing::info!("multicast DNS has a way again"),
        _ => {}
    }
    *known = route.is_ok();
    *known
}

/// Finds and is found by multicast DNS, from when there is a way for it.
#[cfg(feature = "mdns")]
async fn multicast(
    endpoint: Endpoint,
    service: String,
    found: tokio::sync::mpsc::Sender<EndpointAddr>,
    route: fn() -> std::io::Result<()>,
) {
    use futures::StreamExt;
    use iroh_mdns_address_lookup::{DiscoveryEvent, MdnsAddressLookup};

    let mut again = tokio::time::interval(AGAIN);
    let mut has_route = true;
    again.tick().await;
    // The library would say so once a second.
    while !note_route(&mut has_route, &route()) {
        tokio::select! {
            biased;
            () = endpoint.closed() => return,
            _ = again.tick() => {}
        }
    }
    let begun = MdnsAddressLookup::builder().service_name(service).build(endpoint.id());
    let mdns = match (begun, endpoint.address_lookup()) {
        (Ok(mdns), Ok(lookups)) => {
            lookups.add(mdns.clone());
            mdns
        }
        (Err(error), _) => {
            tracing::warn!(%error, "no multicast DNS here; going on without");
            return;
        }
        (_, Err(error)) => {
            tracing::debug!(%error, "the endpoint has ended");
            return;
        }
    };
    let mut events = mdns.subscribe().await;
    let mut here = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(DiscoveryEvent::Discovered { endpoint_info, .. }) if here.len() < MAX_FOUND => {
                    let addr = endpoint_info.into_endpoint_addr();
                    // One that finds no room is told of again below.
                    let _ = found.try_send(addr.clone());
                    here.insert(addr.id, addr);
                }
                Some(DiscoveryEvent::Expired { endpoint_id }) => _ = here.remove(&endpoint_id),
                Some(_) => {}
                None => return,
            },
            _ = again.tick() => {
                note_route(&mut has_route, &route());
                for addr in here.values() {
                    if found.send(addr.clone()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(all(test, feature = "pkarr"))]
mod tests {
    use std::{
        net::{Ipv4Addr, Ipv6Addr, SocketAddr},
        time::Duration,
    };

    use iroh::{
        Endpoint,
        dns::{BoxIter, DnsError, DnsResolver, Resolver, TxtRecordData},
        endpoint::presets,
    };

    use super::Lookups;

    /// A name server that knows where one peer is.
    #[derive(Debug, Clone)]
    struct Names {
        name: String,
        at: SocketAddr,
    }

    type Answer<T> = futures::future::BoxFuture<'static, Result<BoxIter<T>, DnsError>>;

    fn answer<T: Send + 'static>(records: Vec<T>) -> Answer<T> {
        Box::pin(std::future::ready(Ok(Box::new(records.into_iter()) as BoxIter<T>)))
    }

    impl Resolver for Names {
        fn lookup_ipv4(&self, _: String) -> Answer<Ipv4Addr> {
            answer(Vec::new())
        }

        fn lookup_ipv6(&self, _: String) -> Answer<Ipv6Addr> {
            answer(Vec::new())
        }

        fn lookup_txt(&self, host: String) -> Answer<TxtRecordData> {
            let known = host.trim_end_matches('.') == self.name;
            let records = known.then(|| TxtRecordData::from(vec![format!("addr={}", self.at)]));
            answer(records.into_iter().collect())
        }

        fn clear_cache(&self) {}

        fn reset(&self) -> Box<dyn Resolver> {
            Box::new(self.clone())
        }
    }

    #[tokio::test]
    async fn an_id_is_looked_up_below_the_origin() {
        let alpn = b"test".to_vec();
        let listen: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let builder = || Endpoint::builder(presets::Minimal).bind_addr(listen).unwrap();
        let server = builder().alpns(vec![alpn.clone()]).bind().await.unwrap();
        let name = format!("_iroh.{}.peers.example", server.id().to_z32());
        let names = Names { name, at: server.bound_sockets()[0] };
        let lookups = Lookups { dns: vec!["peers.example".to_owned()], ..Lookups::default() };
        let client = lookups.of_builder(builder().dns_resolver(DnsResolver::custom(names)));
        let client = client.bind().await.unwrap();
        let accepting = async { server.accept().await.unwrap().await.unwrap() };
        let both = async { tokio::join!(client.connect(server.id(), &alpn), accepting) };
        let (connected, _accepted) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        connected.unwrap();
    }
}
