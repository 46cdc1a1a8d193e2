//! `dev`: all roles in this process, each as a node of its own on loopback, so that one command shows an app at work.

use std::{net::Ipv4Addr, process::ExitCode, str::FromStr, time::Duration};

use clap::ArgMatches;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    args::ArgValues,
    cli::NodeFlags,
    graph::Graph,
    log::Gate,
    metrics, peers,
    process::{self, Failure, say},
    role::Setup,
    run::dialable,
    runner::RoleHandle,
};
use crate::{network::Network, primitives::NetworkId};

struct Running {
    /// The role, and its number if there are several nodes of it.
    name: String,
    network: Network,
    handle: RoleHandle,
}

pub(super) fn dev(graph: Graph, matches: &ArgMatches) -> ExitCode {
    process::run(|ending| async move {
        let gate = Gate::install(&NodeFlags::read(matches).log)?;
        gate.open();
        for warning in graph.warnings() {
            say(format_args!("warning: {warning}"));
        }
        // Not the app's own network: a trial run must not meet a deployment.
        let network = NetworkId::random();
        let mut running = Vec::new();
        let result = match Box::pin(start_all(&graph, matches, network, &mut running)).await {
            Ok(()) => until_end(&running, matches.get_one("for").copied(), &ending).await,
            Err(error) => Err(error),
        };
        stop_all(running).await;
        result
    })
}

async fn start_all(
    graph: &Graph,
    matches: &ArgMatches,
    network: NetworkId,
    running: &mut Vec<Running>,
) -> Result<(), Failure> {
    let mut metrics = Some(metrics::serve(NodeFlags::read(matches).metrics)?);
    let replicas: Vec<Replicas> = matches.get_many("replicas").into_iter().flatten().cloned().collect();
    if let Some(Replicas { role, .. }) = replicas.iter().find(|it| graph.role(&it.role).is_none()) {
        let roles: Vec<_> = graph.roles().map(|role| role.name).collect();
        return Err(format!("--replicas: there is no role {role}; there are {}", roles.join(", ")).into());
    }
    for entry in graph.roles {
        let role = &entry.role;
        let count = replicas.iter().rev().find(|it| it.role == role.name).map_or(1, |it| it.count);
        for number in 1..=count {
            let name = if count == 1 { role.name.to_owned() } else { format!("{}-{number}", role.name) };
            let mut flags = NodeFlags::read(matches);
            flags.listen = Some((Ipv4Addr::LOCALHOST, 0).into());
            flags.data_dir = flags.data_dir.map(|dir| dir.join(&name));
            let tags = role.tags.iter().map(|declared| declared.tag);
            let network = flags.builder(network, tags)?.build().await?;
            say(format_args!("[{name}] listening {}", dialable(&network, None, &[])));
            if let Some(metrics) = metrics.take() {
                metrics.tell(network.node().tasks());
            }
            let events = peers::tell(network.discovery().events(), format!("[{name}] "));
            network.node().tasks().spawn("peer lines", events);
            let values = ArgValues::collect(role, &format!("{}.", role.name), matches);
            let handle =
                (entry.start)(&mut Setup::new(&network, &values).alone().telling(format!("[{name}] "))).await?;
            running.push(Running { name, network, handle });
        }
    }
    Ok(())
}

/// How many nodes of a role a trial run has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replicas {
    role: String,
    count: u16,
}

/// The most nodes of one role in a trial run.
const MAX_REPLICAS: u16 = 64;

impl FromStr for Replicas {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || format!("a role and how many nodes of it, 0 to {MAX_REPLICAS}, such as sensor=3");
        let (role, count) = text.split_once('=').ok_or_else(usage)?;
        let count = count.parse().ok().filter(|count| *count <= MAX_REPLICAS).ok_or_else(usage)?;
        Ok(Self { role: role.to_owned(), count })
    }
}

/// Until the time is over, a signal, or a role that ends by itself.
async fn until_end(running: &[Running], limit: Option<Duration>, ending: &CancellationToken) -> Result<(), Failure> {
    let time_is_over = async {
        match limit {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let ended = running.iter().map(|each| Box::pin(each.handle.ended()));
    let failed = running.iter().map(|each| Box::pin(each.network.failed()));
    if running.is_empty() {
        return Err("no node is to run: --replicas leaves none".into());
    }
    tokio::select! {
        biased;
        () = ending.cancelled() => Ok(()),
        (failure, ..) = futures::future::select_all(failed) => Err(failure.into()),
        (result, ..) = futures::future::select_all(ended) => Ok(result?),
        () = time_is_over => Ok(()),
    }
}

async fn stop_all(running: Vec<Running>) {
    let stops = running.into_iter().map(|Running { name, network, handle }| async move {
        if let Err(error) = handle.stop().await {
            say(format_args!("[{name}] {error}"));
        }
        network.shutdown().await;
        let status = handle.status();
        say(format_args!(
            "[{name}] handled {}, emitted {}, dropped {}, errors {}, panics {}",
            status.handled, status.emitted, status.dropped, status.errors, status.panics
        ));
    });
    futures::future::join_all(stops).await;
}
