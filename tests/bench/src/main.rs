//! Measures the framework beside the registry crate of the same name and beside plain iroh, in one run.
//!
//! The parent process starts a child per run (`child`), which runs one load for one contender (`work`, `contender`);
//! it alternates the contenders and prints a Markdown table (`table`) with the conditions (`conditions`).

mod benches;
mod child;
mod conditions;
mod contender;
mod disk;
mod item;
mod pin;
mod quic;
mod relay;
mod table;
mod tune;
mod work;

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use benches::{Bench, Effort};
use child::Common;
use contender::ours::Lane;
use work::Who;

#[derive(Debug, Parser)]
#[command(about = "Side-by-side benches; prints a Markdown table", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Benches to run; all of them if none is named.
    benches: Vec<Bench>,
    /// Leave the peer out.
    #[arg(long)]
    without_peer: bool,
    /// Leave the framework itself out.
    #[arg(long)]
    without_ours: bool,
    /// Leave plain iroh out.
    #[arg(long)]
    without_raw: bool,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Runs of each contender per bench.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long a stream is measured, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Pairs of nodes per run of `subscribe`.
    #[arg(long, default_value_t = 20)]
    tries: usize,
    /// Of groups only figures whose name contains this, such as `leader 64` or `execute`.
    #[arg(long, default_value = "")]
    only: String,
    /// A run that takes longer is tried again, in seconds.
    #[arg(long, default_value_t = 30)]
    timeout: u64,
    /// Transport settings of plain iroh, `name=value` separated by commas (see src/quic.rs), or `stock`.
    #[arg(long, default_value = "")]
    quic: String,
    /// What carries the framework's streams and bonds.
    #[arg(long, value_enum, default_value_t = Lane::Memory)]
    lane: Lane,
    /// Do not give each worker of the runtime a core of its own in runs of groups.
    #[arg(long)]
    unpinned: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure transport settings of plain iroh against the framework's.
    Tune {
        /// Each as for --quic.
        #[arg(required = true)]
        variants: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Measure durable storage against write and fdatasync of the same batches, and the recovery of a long log.
    Disk {
        #[command(flatten)]
        options: disk::Options,
    },
    #[command(hide = true)]
    Child { task: child::Task },
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into()))
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let pinned = matches!(&args.command, Some(Command::Child { task }) if task.pinned);
    pin::runtime(pinned)?.block_on(run(args))
}

async fn run(args: Args) -> Result<()> {
    match args.command {
        Some(Command::Child { task }) => child::serve(task).await,
        Some(Command::Disk { options }) => disk::run(options).await,
        Some(Command::Tune { variants, options }) => {
            tune::run(&variants, options.effort(), &options.common(None)).await
        }
        None => compare(args).await,
    }
}

async fn compare(args: Args) -> Result<()> {
    let mut without = Vec::new();
    if args.without_peer {
        without.push(Who::Peer);
    }
    if args.without_ours {
        without.push(Who::Ours);
    }
    if args.without_raw {
        without.extend([Who::Raw, Who::RawBytes]);
    }
    let all = [
        Bench::Stream,
        Bench::Fanout,
        Bench::Latency,
        Bench::Topology,
        Bench::Subscribe,
        Bench::Replay,
        Bench::Polled,
        Bench::Metrics,
        Bench::Groups,
    ];
    let benches = if args.benches.is_empty() { all.to_vec() } else { args.benches };
    let relay = if args.without_peer { None } else { Some(relay::start().await?) };
    let (effort, common) = (args.options.effort(), args.options.common(relay.as_ref().map(relay::url)));
    let mut sections = Vec::new();
    for plan in benches.into_iter().flat_map(|bench| benches::plans(bench, &effort)) {
        sections.push(benches::run(plan, effort.runs, &common, &without).await?);
    }
    let columns = [
        (Who::Ours, "mosaik"),
        (Who::Peer, "peer"),
        (Who::Raw, "plain iroh"),
        (Who::RawBytes, "plain iroh, bytes only"),
    ];
    let pairs = [(Who::Ours, Who::Peer, "mosaik / peer"), (Who::Ours, Who::Raw, "mosaik / iroh")];
    println!("{}\n", conditions::describe(effort.runs, effort.seconds, &common));
    println!("{}", table::render(&sections, &columns, &pairs));
    Ok(())
}

impl Options {
    fn effort(&self) -> Effort {
        Effort { runs: self.runs, seconds: self.seconds, tries: self.tries, only: self.only.clone() }
    }

    fn common(&self, relay: Option<String>) -> Common {
        Common {
            relay: relay.unwrap_or_default(),
            quic: self.quic.clone(),
            lane: self.lane,
            timeout: Duration::from_secs(self.timeout),
            unpinned: self.unpinned || !pin::POSSIBLE,
        }
    }
}
