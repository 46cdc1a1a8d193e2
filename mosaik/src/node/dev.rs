//! `dev`: all roles in this process, each as a node of its own on loopback, so that one command shows an app at work.

use std::{net::Ipv4Addr, process::ExitCode, time::Duration};

use clap::ArgMatches;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    args::ArgValues,
    cli::NodeFlags,
    graph::{Graph, RoleEntry},
    log::Gate,
    metrics, peers,
    process::{self, Failure, say},
    role::Setup,
    run::dialable,
    runner::RoleHandle,
};
use crate::{network::Network, primitives::NetworkId};

struct Running {
    entry: &'static RoleEntry,
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
    for entry in graph.roles {
        let role = &entry.role;
        let mut flags = NodeFlags::read(matches);
        flags.listen = Some((Ipv4Addr::LOCALHOST, 0).into());
        flags.data_dir = flags.data_dir.map(|dir| dir.join(role.name));
        let tags = role.tags.iter().map(|declared| declared.tag);
        let network = flags.builder(network, tags)?.build().await?;
        say(format_args!("[{}] listening {}", role.name, dialable(&network, None, &[])));
        if let Some(metrics) = metrics.take() {
            metrics.tell(network.node().tasks());
        }
        let events = peers::tell(network.discovery().events(), format!("[{}] ", role.name));
        network.node().tasks().spawn("peer lines", events);
        let values = ArgValues::collect(role, &format!("{}.", role.name), matches);
        let handle =
            (entry.start)(&mut Setup::new(&network, &values).alone().telling(format!("[{}] ", role.name))).await?;
        running.push(Running { entry, network, handle });
    }
    Ok(())
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
    tokio::select! {
        biased;
        () = ending.cancelled() => Ok(()),
        (failure, ..) = futures::future::select_all(failed) => Err(failure.into()),
        (result, ..) = futures::future::select_all(ended) => Ok(result?),
        () = time_is_over => Ok(()),
    }
}

async fn stop_all(running: Vec<Running>) {
    let stops = running.into_iter().map(|Running { entry, network, handle }| async move {
        let name = entry.role.name;
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
