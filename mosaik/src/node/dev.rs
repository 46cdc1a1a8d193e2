//! `dev`: all roles in this process, each as a node of its own on loopback, so that one command shows an app at work, also one whose
//! nodes fail (`--chaos`).

use std::{collections::BTreeSet, net::Ipv4Addr, process::ExitCode, str::FromStr, time::Duration};

use clap::ArgMatches;
use iroh::SecretKey;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    args::ArgValues,
    board::{self, Board},
    chaos::{Chaos, Fault, Kind, Step},
    cli::NodeFlags,
    graph::{Graph, RoleEntry},
    log::Gate,
    metrics, peers,
    process::{self, Failure, say},
    role::Setup,
    run::dialable,
    runner::{RoleHandle, RoleStatus},
};
use crate::{network::Network, primitives::NetworkId};

/// How long a killed node is tried to be started again: its former self may hold its files for a moment longer.
const LETS_GO: Duration = Duration::from_secs(5);
/// How often.
const TRIES: Duration = Duration::from_millis(100);

/// A node of a trial run.
struct Node {
    /// The role, and its number if there are several nodes of it.
    name: String,
    entry: &'static RoleEntry,
    values: ArgValues,
    /// Its identity, if it has no data directory to keep it in.
    secret: SecretKey,
    /// Nothing while it is killed.
    running: Option<Running>,
    /// What `--chaos` does to it now.
    fault: Option<Kind>,
    /// What its status line said last.
    told: RoleStatus,
}

struct Running {
    network: Network,
    handle: RoleHandle,
}

/// A trial run.
struct Trial<'a> {
    matches: &'a ArgMatches,
    network: NetworkId,
    nodes: Vec<Node>,
}

pub(super) fn dev(graph: Graph, matches: &ArgMatches) -> ExitCode {
    process::run(|ending| async move {
        let gate = Gate::install(&NodeFlags::read(matches).log)?;
        gate.open();
        for warning in graph.warnings() {
            say(format_args!("warning: {warning}"));
        }
        // Not the app's own network: a trial run must not meet a deployment.
        let mut trial = Trial { matches, network: NetworkId::random(), nodes: Vec::new() };
        let result = match Box::pin(trial.start(&graph)).await {
            Ok(()) => trial.run(&ending).await,
            Err(error) => Err(error),
        };
        board::leave();
        trial.stop().await;
        result
    })
}

impl Trial<'_> {
    async fn start(&mut self, graph: &Graph) -> Result<(), Failure> {
        let mut metrics = Some(metrics::serve(NodeFlags::read(self.matches).metrics)?);
        let replicas: Vec<Replicas> = self.matches.get_many("replicas").into_iter().flatten().cloned().collect();
        if let Some(Replicas { role, .. }) = replicas.iter().find(|it| graph.role(&it.role).is_none()) {
            let roles: Vec<_> = graph.roles().map(|role| role.name).collect();
            return Err(format!("--replicas: there is no role {role}; there are {}", roles.join(", ")).into());
        }
        for entry in graph.roles {
            let role = &entry.role;
            let count = replicas.iter().rev().find(|it| it.role == role.name).map_or(1, |it| it.count);
            for number in 1..=count {
                let name = if count == 1 { role.name.to_owned() } else { format!("{}-{number}", role.name) };
                let values = ArgValues::collect(role, &format!("{}.", role.name), self.matches);
                let (secret, told) = (SecretKey::generate(), RoleStatus::default());
                self.nodes.push(Node { name, entry, values, secret, running: None, fault: None, told });
                let running = self.start_node(self.nodes.len() - 1).await?;
                if let Some(metrics) = metrics.take() {
                    metrics.tell(running.network.node().tasks());
                }
            }
        }
        if self.nodes.is_empty() {
            return Err("no node is to run: --replicas leaves none".into());
        }
        Ok(())
    }

    async fn start_node(&mut self, index: usize) -> Result<&Running, Failure> {
        let Node { name, entry, values, secret, .. } = &self.nodes[index];
        let mut flags = NodeFlags::read(self.matches);
        flags.listen = Some((Ipv4Addr::LOCALHOST, 0).into());
        flags.data_dir = flags.data_dir.map(|dir| dir.join(name));
        let keeps = flags.data_dir.is_some();
        let builder = flags.builder(self.network, entry.role.tags.iter().map(|declared| declared.tag))?;
        let builder = if keeps { builder } else { builder.with_secret_key(secret.clone()) };
        #[cfg(feature = "attest")]
        let builder = if entry.role.attest.is_some() {
            say(format_args!("[{name}] asks nobody for evidence, as this is a trial (attest)"));
            builder.with_waived_evidence()
        } else {
            builder
        };
        let network = builder.build().await?;
        say(format_args!("[{name}] listening {}", dialable(&network, None, &[])));
        let events = peers::tell(network.discovery().events(), format!("[{name}] "));
        network.node().tasks().spawn("peer lines", events);
        let mut setup = Setup::new(&network, values).alone().telling(format!("[{name}] "));
        let handle = (entry.start)(&mut setup).await?;
        Ok(self.nodes[index].running.insert(Running { network, handle }))
    }

    /// Until the time is over, a signal, or a role that ends by itself.
    async fn run(&mut self, ending: &CancellationToken) -> Result<(), Failure> {
        let limit: Option<Duration> = self.matches.get_one("for").copied();
        let time_is_over = async {
            match limit {
                Some(limit) => sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(time_is_over);
        let mut chaos = self.chaos();
        let board = Board::of_stderr();
        let mut tells = interval(board.period());
        tells.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first is at once, when nothing has happened yet.
        tells.tick().await;
        loop {
            let step = async {
                match &mut chaos {
                    Some(chaos) => chaos.step().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = ending.cancelled() => break,
                result = self.ended() => return result,
                () = &mut time_is_over => break,
                step = step => self.take(step).await?,
                _ = tells.tick() => board.show(&self.lines()),
            }
        }
        // Who is frozen could not leave.
        if let Some(fault) = chaos.and_then(|chaos| chaos.current())
            && fault.kind != Kind::Kill
        {
            self.undo(fault).await?;
        }
        Ok(())
    }

    fn chaos(&self) -> Option<Chaos> {
        let seed = *self.matches.get_one::<u64>("chaos")?;
        // Anything will do that differs from run to run.
        let seed = if seed == 0 { rand::random_range(1..u64::from(u32::MAX)) } else { seed };
        let chaos = Chaos::new(seed, self.nodes.len());
        say(format_args!("[chaos] {chaos}"));
        Some(chaos)
    }

    /// A node that fails, or a role that ends by itself.
    async fn ended(&self) -> Result<(), Failure> {
        let all = || self.nodes.iter().filter_map(|node| node.running.as_ref());
        if all().next().is_none() {
            return std::future::pending().await;
        }
        let failed = all().map(|running| Box::pin(running.network.failed()));
        let ended = all().map(|running| Box::pin(running.handle.ended()));
        tokio::select! {
            biased;
            (failure, ..) = futures::future::select_all(failed) => Err(failure.into()),
            (result, ..) = futures::future::select_all(ended) => Ok(result?),
        }
    }

    async fn take(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Begin(fault) => self.begin(fault),
            Step::End(fault) => self.undo(fault).await?,
            Step::Over => say("[chaos] is over"),
        }
        Ok(())
    }

    fn begin(&mut self, Fault { kind, node, lasts }: Fault) {
        let Node { name, running, fault, .. } = &mut self.nodes[node];
        let lasts = lasts.as_millis();
        *fault = Some(kind);
        match kind {
            Kind::Kill => {
                say(format_args!("[chaos] kills {name} for {lasts} ms"));
                running.take().iter().for_each(|running| running.network.node().abandon());
            }
            Kind::Freeze => {
                say(format_args!("[chaos] freezes {name} for {lasts} ms"));
                running.iter().for_each(|running| running.network.node().tasks().pause());
            }
            Kind::Part => {
                say(format_args!("[chaos] parts {name} from all others for {lasts} ms"));
                self.block(Some(node));
            }
        }
    }

    async fn undo(&mut self, Fault { kind, node, .. }: Fault) -> Result<(), Failure> {
        let Node { name, running, fault, .. } = &mut self.nodes[node];
        *fault = None;
        match kind {
            Kind::Kill => {
                say(format_args!("[chaos] starts {name} again"));
                let until = Instant::now() + LETS_GO;
                while let Err(error) = self.start_node(node).await {
                    if Instant::now() >= until {
                        return Err(error);
                    }
                    sleep(TRIES).await;
                }
            }
            Kind::Freeze => {
                say(format_args!("[chaos] lets {name} go on"));
                running.iter().for_each(|running| running.network.node().tasks().resume());
            }
            Kind::Part => {
                say(format_args!("[chaos] lets {name} back to the others"));
                self.block(None);
            }
        }
        Ok(())
    }

    /// This node and the others refuse each other's connections; without one nobody is refused.
    fn block(&self, parted: Option<usize>) {
        let ids: Vec<_> = self.nodes.iter().map(|node| Some(node.running.as_ref()?.network.local().id())).collect();
        for (index, node) in self.nodes.iter().enumerate() {
            let refused = |other: usize| other != index && (parted == Some(index) || parted == Some(other));
            let refused: BTreeSet<_> =
                ids.iter().enumerate().filter(|(other, _)| refused(*other)).filter_map(|(_, id)| *id).collect();
            if let Some(running) = &node.running {
                running.network.node().block(refused);
            }
        }
    }

    /// How each node is.
    fn lines(&mut self) -> Vec<String> {
        self.nodes.iter_mut().map(Node::line).collect()
    }

    async fn stop(self) {
        let stops = self.nodes.into_iter().filter_map(|node| Some((node.name, node.running?)));
        let stops = stops.map(|(name, Running { network, handle })| async move {
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
}

impl Node {
    fn line(&mut self) -> String {
        let (name, status) = (&self.name, self.running.as_ref().map(|running| running.handle.status()));
        let word = match (self.fault, &status) {
            (Some(Kind::Kill), _) | (_, None) => "killed",
            (Some(Kind::Freeze), _) => "frozen",
            (Some(Kind::Part), _) => "parted",
            (None, Some(status)) if status.ready => "ready",
            (None, Some(_)) => "not ready",
        };
        let Some(status) = status else { return format!("[{name}] {word}") };
        // A node that was started again counts from the beginning.
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        let (handled, emitted) = (since(status.handled, self.told.handled), since(status.emitted, self.told.emitted));
        self.told = status;
        let RoleStatus { dropped, errors, panics, .. } = status;
        format!(
            "[{name}] {word}, handled {} (+{handled}), emitted {} (+{emitted}), dropped {dropped}, errors {errors}, panics {panics}",
            status.handled, status.emitted
        )
    }
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
