//! `#[mosaik::main]`: a hand-written main that is given a node set up from the common flags.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::{
    cli::{self, NodeFlags},
    decl::TagDecl,
    environment,
    output::UntilRead,
    process::{self, Failure},
    run,
};
use crate::network::Network;

/// A program with a main of its own.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name; the default network is derived from it.
    pub name: &'static str,
    /// The doc comment of its main.
    pub doc: &'static str,
    /// The version of its package.
    pub version: Option<&'static str>,
    /// The tags that its node announces.
    pub tags: &'static [TagDecl],
}

/// What `async fn main(net: Network)` may return: nothing, or a `Result` whose error becomes a boxed error.
#[diagnostic::on_unimplemented(
    message = "`main` cannot return `{Self}`",
    note = "return nothing or `Result<(), E>` with an `E` that is an error, such as `anyhow::Result<()>`"
)]
pub trait MainResult {
    /// The error, if there is one.
    ///
    /// # Errors
    /// When `main` returned one.
    fn main_result(self) -> Result<(), Failure>;
}

impl MainResult for () {
    fn main_result(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: Into<Failure>> MainResult for Result<(), E> {
    fn main_result(self) -> Result<(), Failure> {
        self.map_err(Into::into)
    }
}

/// Reads the flags, starts the node, and runs `main` until it ends or a signal comes; then the node leaves gracefully.
pub fn main_with<F: Future<Output: MainResult>>(program: Program, main: fn(Network) -> F) -> ExitCode {
    let Program { name, doc, version, tags } = program;
    let _until_read = UntilRead::new();
    let (matches, _) = environment::read_with_file(|config| {
        let command = cli::described(cli::program(name, version), doc, &format!("The program {name}"));
        let flags = cli::node_flags(name);
        config.check(&flags, &[])?;
        Ok(command.args(config.under("", flags)?))
    });
    let flags = NodeFlags::read(&matches);
    process::run(|ending: CancellationToken| async move {
        let tags = tags.iter().map(|declared| declared.tag);
        let (network, supervisor) = Box::pin(run::start(flags, name.into(), tags)).await?;
        let result = match supervisor.ready() {
            Err(error) => Err(error),
            Ok(()) => tokio::select! {
                biased;
                () = ending.cancelled() => Ok(()),
                failure = network.failed() => Err(failure.into()),
                result = main(network.clone()) => result.main_result(),
            },
        };
        supervisor.stopping();
        network.shutdown().await;
        result
    })
}
