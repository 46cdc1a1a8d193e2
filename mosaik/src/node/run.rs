//! `run <role>`: one role on one node, until a signal.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures::future::join_all;
use iroh::{EndpointAddr, TransportAddr};
use tokio_util::sync::CancellationToken;

use super::{
    args::ArgValues,
    cli::NodeFlags,
    graph::RoleEntry,
    log::Gate,
    metrics, output, peers,
    process::{Failure, say},
    role::Setup,
    supervisor::Supervisor,
};
use crate::{
    network::{Network, NetworkBuilder},
    primitives::{NetworkId, PeerId},
    trust::NetworkKind,
};

/// How long a node waits with everything else until somebody has read where it listens.
const LISTENING_LIMIT: Duration = Duration::from_secs(1);

/// Starts the node, says where it listens as the first line on stderr, and runs the role until `ending`.
pub(super) async fn run(
    entry: &RoleEntry,
    values: ArgValues,
    flags: NodeFlags,
    network: NetworkId,
    ending: CancellationToken,
) -> Result<(), Failure> {
    let tags = entry.role.tags.iter().map(|declared| declared.tag);
    let (network, supervisor) = Box::pin(start(flags, network, tags)).await?;
    if let Some(ticket) = network.trust().ticket()
        && ticket.roles().next().is_some()
        && !ticket.roles().any(|role| role == entry.role.name)
    {
        let roles = ticket.roles().collect::<Vec<_>>().join(", ");
        network.shutdown().await;
        return Err(format!("this node's ticket is for the role {roles}, not for {}", entry.role.name).into());
    }
    if let Err(refused) = may_ask_for_grants(&network, entry) {
        network.shutdown().await;
        return Err(refused);
    }
    let mut setup = Setup::new(&network, &values).telling(String::new());
    let started = tokio::select! {
        biased;
        () = ending.cancelled() => None,
        failure = network.failed() => return Err(failure.into()),
        started = (entry.start)(&mut setup) => Some(started),
    };
    let Some(role) = started.transpose()? else {
        network.shutdown().await;
        return Ok(());
    };
    let online = join_all(std::mem::take(&mut setup.online));
    let ready = async {
        role.when_ready().await;
        online.await;
        match supervisor.ready() {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    let ended = tokio::select! {
        biased;
        () = ending.cancelled() => {
            supervisor.stopping();
            role.stop().await
        }
        ended = role.ended() => ended,
        failure = ready => {
            network.shutdown().await;
            return Err(failure);
        }
    };
    network.shutdown().await;
    match network.failure() {
        Some(failure) => Err(failure.into()),
        None => Ok(ended?),
    }
}

/// A role whose declarations ask for grants runs in a network of an authority, or on this machine alone, for a trial: in other
/// networks nobody can hold a grant, and it would seem that somebody is kept out.
fn may_ask_for_grants(network: &Network, entry: &RoleEntry) -> Result<(), Failure> {
    let kind = network.trust().kind();
    if kind == NetworkKind::Authority || !network.node().is_beyond_loopback() {
        return Ok(());
    }
    let Some(of) = entry.role.endpoints.iter().find_map(|endpoint| endpoint.granted()) else { return Ok(()) };
    Err(format!(
        "the role {} asks for grants on \"{of}\", and nobody holds one in {kind}: join a network of an authority with --join, or \
         listen on loopback alone for a trial, as with --listen 127.0.0.1:0",
        entry.role.name
    )
    .into())
}

/// Starts a node by its flags and tells of it on stderr.
pub(super) async fn start(
    mut flags: NodeFlags,
    network: NetworkId,
    tags: impl IntoIterator<Item = crate::primitives::Tag>,
) -> Result<(Network, Supervisor), Failure> {
    let gate = Gate::install(&flags.log)?;
    let listen = flags.listen;
    let metrics = metrics::serve(flags.metrics)?;
    let mut external = Vec::new();
    for announced in std::mem::take(&mut flags.announce) {
        external.extend(announced.resolve().await?);
    }
    let mut supervisor = Supervisor::new(flags.ready_file.take())?;
    let builder = flags.builder(network, tags)?;
    let builder = external.iter().copied().fold(builder, NetworkBuilder::with_external_addr);
    let network = builder.build().await?;
    let events = network.discovery().events();
    supervisor.address = dialable(&network, listen, &external);
    supervisor.watch(network.node().tasks());
    say(format_args!("listening {}", supervisor.address));
    // It is the first line also beside what handlers print themselves.
    output::flush(LISTENING_LIMIT);
    warn_if_open(&network);
    for external in external {
        say(format_args!("announcing {external}"));
    }
    metrics.tell(network.node().tasks());
    gate.open();
    network.node().tasks().spawn("peer lines", peers::tell(events, String::new()));
    Ok((network, supervisor))
}

/// One line when strangers can reach a network that keeps nobody out.
fn warn_if_open(network: &Network) {
    if network.node().is_beyond_loopback() && network.trust().kind() == NetworkKind::Open {
        say(format_args!(
            "warning: an open network: whoever reaches this node and knows the network's name can join it, read and publish; \
             --network-key keeps strangers out"
        ));
    }
}

/// `<peer-id>@<ip:port>` of a node, to be given to `--bootstrap` of another one: where it listens, not where it says to be
/// reached from outside.
pub(super) fn dialable(network: &Network, listen: Option<SocketAddr>, external: &[SocketAddr]) -> String {
    let (id, mut addr) = (network.local().id(), network.local().addr());
    addr.addrs.retain(|addr| !matches!(addr, TransportAddr::Ip(socket) if external.contains(socket)));
    let listen = listen.map(|listen| listen.ip()).filter(|ip| !ip.is_unspecified());
    match best(&addr, listen) {
        Some(socket) => format!("{id}@{socket}"),
        None => PeerId::to_string(&id),
    }
}

/// The address that is asked for, else one that other machines reach, else loopback; IPv4 before IPv6.
fn best(addr: &EndpointAddr, wanted: Option<IpAddr>) -> Option<SocketAddr> {
    let sockets = addr.addrs.iter().filter_map(|addr| match addr {
        TransportAddr::Ip(socket) => Some(*socket),
        _ => None,
    });
    let rank = |socket: &SocketAddr| {
        let ip = socket.ip();
        (Some(ip) != wanted, ip.is_unspecified(), ip.is_loopback(), ip.is_ipv6(), *socket)
    };
    let mut best = sockets.min_by_key(rank)?;
    if best.ip().is_unspecified() {
        best.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialable_address_is_preferred() {
        let id = iroh::SecretKey::from_bytes(&[1; 32]).public();
        let addr = |sockets: &[&str]| {
            let mut addr = EndpointAddr::new(id);
            addr.addrs.extend(sockets.iter().filter_map(|socket| socket.parse().ok()).map(TransportAddr::Ip));
            addr
        };
        let best = |sockets: &[&str], wanted: Option<&str>| {
            best(&addr(sockets), wanted.and_then(|ip| ip.parse().ok())).map(|socket| socket.to_string())
        };
        assert_eq!(best(&["127.0.0.1:1", "10.0.0.1:1", "[fe80::1]:1"], None).as_deref(), Some("10.0.0.1:1"));
        assert_eq!(best(&["127.0.0.1:1", "10.0.0.1:1"], Some("127.0.0.1")).as_deref(), Some("127.0.0.1:1"));
        assert_eq!(best(&["0.0.0.0:5"], None).as_deref(), Some("127.0.0.1:5"));
        assert_eq!(best(&[], None), None);
    }
}
