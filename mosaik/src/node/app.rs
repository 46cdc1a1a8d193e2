//! The generated main of an app: reads the command line and hands each subcommand to its room.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{
    args::ArgValues,
    cli::{NodeFlags, command, completion_script},
    config::{Config, shown},
    dev, environment,
    graph::Graph,
    output::UntilRead,
    process::{self, Failure, print, say},
    run,
    secret::Secret,
};
use crate::primitives::PeerId;

/// An app: its roles and data flow; implemented by `#[mosaik::app]`, which also gives the type a `main()`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an app",
    note = "put `#[mosaik::app(name = \"..\", roles = [..])]` on `struct {Self};`"
)]
pub trait App {
    /// The declaration.
    const GRAPH: Graph;
}

/// Runs the command line of an app to its end: `run <role>`, `dev`, `config <role>`, `graph`,
/// `roles`, `corridors`, `check`, `id`, `completions`.
///
/// The exit status is 0 when a node left gracefully after SIGINT or SIGTERM, 1 on failure, and 2 when the command line
/// is wrong; clap ends the process itself in that case.
#[must_use = "the exit code is what `main` returns"]
pub fn main<A: App>() -> ExitCode {
    let graph = A::GRAPH;
    let _until_read = UntilRead::new();
    let (matches, config) = environment::read_with_file(|config| command(&graph, config));
    match matches.subcommand() {
        Some(("run", matches)) => match matches.subcommand() {
            Some((role, matches)) => run_role(&graph, role, matches),
            None => ExitCode::FAILURE,
        },
        Some(("dev", matches)) => dev::dev(graph, matches),
        Some(("config", matches)) => {
            printed(matches.subcommand().ok_or("ROLE is missing".into()).and_then(|(role, matches)| {
                let command = command(&graph, &config)?;
                let of_role = command.find_subcommand("run").and_then(|run| run.find_subcommand(role));
                Ok(shown(of_role.ok_or("no such role")?, matches, &config))
            }))
        }
        Some(("completions", matches)) => printed(
            command(&graph, &Config::default())
                .map_err(Into::into)
                .and_then(|command| completion_script(command, matches)),
        ),
        Some((simple, matches)) => printed(text_command(&graph, simple, matches)),
        None => ExitCode::FAILURE,
    }
}

fn printed(text: Result<String, Failure>) -> ExitCode {
    match text.and_then(|text| print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("error: {}", process::chain(&*error)));
            ExitCode::FAILURE
        }
    }
}

fn run_role(graph: &Graph, role: &str, matches: &ArgMatches) -> ExitCode {
    let Some(entry) = graph.role(role) else { return ExitCode::FAILURE };
    let values = ArgValues::collect(&entry.role, "", matches);
    let (flags, network) = (NodeFlags::read(matches).of_role(&entry.role), graph.app.into());
    process::run(|ending| run::run(entry, values, flags, network, ending))
}

/// The states of one machine.
fn machine_graph(graph: &Graph, matches: &ArgMatches) -> Result<String, Failure> {
    let name = matches.get_one::<String>("machine").ok_or("--machine is missing")?;
    let states = graph.states(name)?;
    Ok(match matches.get_one::<String>("format").map(String::as_str) {
        Some("json") => format!("{}\n", states.to_json()),
        Some("dot") => states.to_dot(),
        Some("svg") => states.to_svg(),
        _ => states.mermaid.to_owned(),
    })
}

/// The commands that only print.
fn text_command(graph: &Graph, name: &str, matches: &ArgMatches) -> Result<String, Failure> {
    match name {
        "graph" if matches.get_one::<String>("machine").is_some() => machine_graph(graph, matches),
        "graph" => {
            for warning in graph.warnings() {
                say(format_args!("warning: {warning}"));
            }
            Ok(match matches.get_one::<String>("format").map(String::as_str) {
                Some("json") => graph.to_json(),
                Some("dot") => graph.to_dot(),
                Some("svg") => graph.to_svg(),
                _ => graph.to_mermaid(),
            })
        }
        "roles" => Ok(graph.to_listing()),
        "corridors" => Ok(graph.corridors()),
        "check" => {
            let warnings: Vec<_> = graph.warnings().iter().map(|warning| format!("warning: {warning}\n")).collect();
            Ok(if warnings.is_empty() {
                format!("{}: nothing to complain about\n", graph.app)
            } else {
                warnings.concat()
            })
        }
        _ => {
            let secret = matches.get_one::<Secret>("secret").ok_or("--secret is missing")?;
            Ok(format!("{}\n", PeerId::from(secret.load()?.public())))
        }
    }
}
