//! The command line of an app as clap sees it: subcommands, the flags that every node has, and what they mean for a
//! [`NetworkBuilder`]. Reads and checks; starts nothing.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Arg, ArgAction, ArgMatches, Command, ValueEnum, builder::PossibleValuesParser};
use clap_complete::Shell;

use super::{
    announced::Announced,
    args::{clap_args, prefixed_args},
    attested,
    config::{Config, ConfigError, config},
    decl::{EndpointDecl, RoleDecl},
    dev::Replicas,
    environment::with_env,
    graph::Graph,
    join::join,
    machine::KeyDecl,
    process::Failure,
    render::summary,
    secret::{Secret, network_key, secret},
};
use crate::{
    discovery::Bootstrap,
    network::{Network, NetworkBuilder},
    primitives::{NetworkId, Tag},
    trust::{Invitation, NetworkKey},
};

/// The whole command line of an app, with what a file says of its flags.
pub(super) fn command(graph: &Graph, config: &Config) -> Result<Command, ConfigError> {
    let own: Vec<_> = graph.roles().map(|role| (role, attested::flags(role))).collect();
    let flags: Vec<_> = own
        .iter()
        .map(|(role, of_node)| {
            let of_node = of_node.iter().map(|flag| flag.get_id().as_str());
            (role.name, role.args.iter().map(|arg| arg.flag).chain(of_node).collect())
        })
        .collect();
    config.check(&node_flags(graph.app), &flags)?;
    let of_roles = |name, about| {
        let command = Command::new(name).about(about).subcommand_required(true);
        command.subcommand_value_name("ROLE").subcommand_help_heading("Roles")
    };
    let mut run = of_roles("run", "Run one role on this node until SIGINT or SIGTERM");
    let mut shown = of_roles(
        "config",
        "Print with which flags a role would run, as a file for --config, and where each comes from",
    );
    for role in graph.roles() {
        let command = described(Command::new(role.name), role.doc, &format!("Run the role {}", role.name));
        let command = command.args(role_flags(graph.app, role, config)?).after_help(environment(&[*role]));
        shown = shown.subcommand(command.clone());
        run = run.subcommand(command);
    }
    let mut dev = Command::new("dev")
        .about("Run all roles in this process, each as a node of its own, and print what happens")
        .arg(
            flag("for", "DURATION", "Stop after this time, such as 5s or 500ms [default: run until a signal]")
                .value_parser(parse_duration),
        )
        .args(dev_flags());
    for role in graph.roles() {
        let heading = format!("Flags of the role {}", role.name);
        let args = config.under_prefixed(role.name, prefixed_args(role))?;
        dev = dev.args(args.into_iter().map(|arg| arg.help_heading(heading.clone())));
    }
    let all: Vec<RoleDecl> = graph.roles().copied().collect();
    dev = dev.after_help(environment(&all));
    let format = flag("format", "FORMAT", "How to print it")
        .short('f')
        .default_value("mermaid")
        .value_parser(PossibleValuesParser::new(["mermaid", "dot", "json", "svg"]));
    let all = described(program(graph.app, graph.version), graph.doc, &format!("The app {}", graph.app))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run)
        .subcommand(dev)
        .subcommand(shown)
        .subcommand(
            Command::new("graph")
                .about("Print which roles produce and consume which streams, replicate which groups and change and follow which stores")
                .arg(format)
                .arg(flag("machine", "NAME", "Print the states of this machine instead, and what leads from one to another")),
        )
        .subcommand(Command::new("roles").about("List the roles with their tags, streams, groups, stores and flags"))
        .subcommand(
            Command::new("corridors")
                .about("Print what is labelled, which roles have it, and what is declassified for what reason"),
        )
        .subcommand(
            Command::new("check")
                .about("Look for streams with only one end, stores without or with several primaries, and names that disagree"),
        )
        .subcommand(
            Command::new("id").about("Print the peer id of a secret key and nothing else").arg(secret().required(true)),
        );
    Ok(all.subcommand(completions()))
}

/// The flags of a role that runs alone, and of its node.
fn role_flags(app: &str, role: &RoleDecl, config: &Config) -> Result<Vec<Arg>, ConfigError> {
    let mut of_node = node_flags(app);
    of_node.extend(attested::flags(role));
    let taken: Vec<_> = of_node.iter().filter_map(|flag| Some(flag.get_env()?.to_str()?.to_owned())).collect();
    let own = clap_args(role, &taken).into_iter().map(|arg| arg.help_heading("Flags of the role"));
    config.under(role.name, own.chain(of_node).collect())
}

/// The command that prints a script for a shell.
pub(super) fn completions() -> Command {
    let shell = Arg::new("shell").value_name("SHELL").required(true);
    let shell = shell.value_parser(PossibleValuesParser::new(["bash", "elvish", "fish", "powershell", "zsh"]));
    Command::new("completions").about("Print a script that completes this command line").arg(shell)
}

/// What that command prints.
pub(super) fn completion_script(mut command: Command, matches: &ArgMatches) -> Result<String, Failure> {
    let shell = matches.get_one::<String>("shell").ok_or("SHELL is missing")?;
    let shell = <Shell as ValueEnum>::from_str(shell, true)?;
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    clap_complete::generate(shell, &mut command, name, &mut script);
    Ok(String::from_utf8(script)?)
}

/// What the help says about environment variables that are not flags: the keys of groups.
fn environment(roles: &[RoleDecl]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for machine in roles.iter().flat_map(|role| role.endpoints).filter_map(EndpointDecl::machine) {
        if let KeyDecl::Env(variable) = machine.group.key {
            let line = format!(
                "  {variable}  The key of the group \"{}\", the same at all members; {variable}_FILE names a file with it",
                machine.group.name
            );
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    if lines.is_empty() { String::new() } else { format!("Environment:\n{}", lines.join("\n")) }
}

/// The part that apps and hand-written programs share.
pub(super) fn program(name: &'static str, version: Option<&'static str>) -> Command {
    let command = Command::new(name).max_term_width(120);
    version.into_iter().fold(command, |command, version| command.version(version))
}

/// Sets the help texts from a doc comment: its first paragraph for lists, all of it for `--help`.
pub(super) fn described(command: Command, doc: &str, otherwise: &str) -> Command {
    if doc.is_empty() {
        command.about(otherwise.to_owned())
    } else {
        command.about(summary(doc)).long_about(doc.to_owned())
    }
}

pub(super) fn flag(name: &'static str, value: &'static str, help: impl Into<clap::builder::StyledStr>) -> Arg {
    with_env(Arg::new(name).long(name).value_name(value).help(help), name)
}

/// The flags of every node.
pub(super) fn node_flags(app: &str) -> Vec<Arg> {
    let listen =
        flag("listen", "IP:PORT", "Where to listen; port 0 takes a free one [default: all interfaces, a free port]");
    let announce = flag(
        "announce",
        "HOST:PORT",
        "An address to announce besides those that are found, such as that of a forwarded port; may be repeated, or \
         separated by commas",
    );
    let announce = announce.action(ArgAction::Append).value_delimiter(',').value_parser(Announced::from_str);
    let ready = flag(
        "ready-file",
        "FILE",
        "A file that is written when all endpoints of the role are online, and removed at the end; systemd is told by itself",
    );
    let mut flags = shared_flags(format!("The network to join: a name, or 64 hex digits [default: {app}]"));
    flags.extend([
        config(),
        secret(),
        network_key(),
        join().conflicts_with("network-key"),
        listen.value_parser(SocketAddr::from_str),
        announce,
        ready.value_parser(clap::value_parser!(PathBuf)),
    ]);
    flags
}

fn dev_flags() -> Vec<Arg> {
    let mut flags =
        shared_flags(String::from("The network to join: a name, or 64 hex digits [default: one of its own]"));
    flags.push(config().help("A TOML file with values for the roles' own flags; what it says of nodes is passed over"));
    let replicas = flag(
        "replicas",
        "ROLE=N",
        "How many nodes of a role to run [default: 1]; may be repeated, or separated by commas",
    );
    flags.push(replicas.action(ArgAction::Append).value_delimiter(',').value_parser(Replicas::from_str));
    let chaos = flag(
        "chaos",
        "SEED",
        "Kill, freeze and part nodes, one at a time, 20 times at most, and say so; the seed decides when and whom [default: another \
         one each time]",
    );
    flags.push(
        chaos.num_args(0..=1).require_equals(true).default_missing_value("0").value_parser(clap::value_parser!(u64)),
    );
    flags
}

fn shared_flags(network: String) -> Vec<Arg> {
    vec![
        #[cfg(feature = "mdns")]
        with_env(super::args::switch(Arg::new("mdns").long("mdns")), "mdns")
            .help("Find nodes of the network on the local network by multicast DNS, and be found"),
        flag("network", "NAME", network).value_parser(parse_network),
        flag(
            "bootstrap",
            "ID@HOST:PORT",
            "A peer to meet the network through: its id, or better its id and address; may be repeated, or separated by \
             commas",
        )
        .action(ArgAction::Append)
        .value_delimiter(',')
        .value_parser(Bootstrap::from_str),
        flag("data-dir", "DIR", "Where identity and known peers are kept; created if missing [default: nothing is kept]")
            .value_parser(clap::value_parser!(PathBuf)),
        with_env(super::args::switch(Arg::new("local-lane").long("local-lane")), "local-lane")
            .help("Go past the network, unencrypted, to peers of this user on this host that do so too (experimental)"),
        flag("tag", "TAG", "A tag to announce beside those of the role; may be repeated, or separated by commas")
            .action(ArgAction::Append)
            .value_delimiter(',')
            .value_parser(Tag::from_str),
        flag("metrics", "IP:PORT", "Serve metrics for Prometheus at http://IP:PORT/metrics [default: none are]")
            .value_parser(parse_metrics),
        flag("log", "FILTER", "What to log on stderr: a level, or directives such as mosaik=debug")
            .default_value("warn")
            .value_parser(parse_filter),
    ]
}

/// A name, or an id. Digits that are nearly an id would make a network that nobody else is in.
pub(super) fn parse_network(text: &str) -> Result<NetworkId, String> {
    let text = text.trim();
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    if digits == text.len() && digits != 64 && (56..=72).contains(&digits) {
        return Err(format!("an id has 64 hex digits, this has {digits}"));
    }
    NetworkId::from_str(text).map_err(|error| error.to_string())
}

fn parse_metrics(text: &str) -> Result<SocketAddr, String> {
    if cfg!(not(feature = "prometheus")) {
        return Err(String::from("this program was built without the feature `prometheus` of mosaik"));
    }
    text.parse().map_err(|_| String::from("an IP address and a port, such as 127.0.0.1:9000"))
}

fn parse_filter(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// A whole number and a unit, as in `#[every(..)]`.
pub(super) fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    const USAGE: &str = "a duration is a whole number and a unit (ms, s, m, h or d), such as 500ms or 5s";
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(USAGE.into()),
    };
    let number: u64 = number.parse().map_err(|_| String::from(USAGE))?;
    number
        .checked_mul(millis)
        .map(std::time::Duration::from_millis)
        .ok_or_else(|| String::from("longer than can be waited"))
}

/// The flags of a node, read.
pub(super) struct NodeFlags {
    pub(super) network: Option<NetworkId>,
    pub(super) secret: Option<Secret>,
    pub(super) network_key: Option<PathBuf>,
    pub(super) join: Option<Invitation>,
    pub(super) bootstrap: Vec<Bootstrap>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) announce: Vec<Announced>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) ready_file: Option<PathBuf>,
    pub(super) tags: Vec<Tag>,
    /// The file that the role of this node declares with `attest`, and the one that is to be read instead.
    #[cfg(feature = "attest")]
    pub(super) attest: Option<&'static str>,
    #[cfg(feature = "attest")]
    pub(super) measurements: Option<PathBuf>,
    #[cfg(feature = "attest-tdx")]
    pub(super) collateral: Option<PathBuf>,
    local_lane: bool,
    #[cfg(feature = "mdns")]
    mdns: bool,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) log: String,
}

impl NodeFlags {
    /// Reads what [`node_flags`] or the flags of `dev` declare; those that a command does not have are absent.
    pub(super) fn read(matches: &ArgMatches) -> Self {
        fn one<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, flag: &str) -> Option<T> {
            matches.try_get_one(flag).ok().flatten().cloned()
        }
        fn all<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, flag: &str) -> Vec<T> {
            matches.try_get_many(flag).ok().flatten().map(|values| values.cloned().collect()).unwrap_or_default()
        }
        Self {
            network: one(matches, "network"),
            secret: one(matches, "secret"),
            network_key: one(matches, "network-key"),
            join: one(matches, "join"),
            bootstrap: all(matches, "bootstrap"),
            listen: one(matches, "listen"),
            announce: all(matches, "announce"),
            data_dir: one(matches, "data-dir"),
            ready_file: one(matches, "ready-file"),
            tags: all(matches, "tag"),
            #[cfg(feature = "attest")]
            attest: None,
            #[cfg(feature = "attest")]
            measurements: one(matches, attested::MEASUREMENTS),
            #[cfg(feature = "attest-tdx")]
            collateral: one(matches, attested::COLLATERAL),
            local_lane: matches.try_get_one("local-lane").ok().flatten().copied().unwrap_or_default(),
            #[cfg(feature = "mdns")]
            mdns: matches.try_get_one("mdns").ok().flatten().copied().unwrap_or_default(),
            metrics: one(matches, "metrics"),
            log: one(matches, "log").unwrap_or_default(),
        }
    }

    /// The same for the node of this role.
    #[cfg_attr(
        not(feature = "attest"),
        allow(unused_mut, unused_variables, reason = "nothing depends on the role then")
    )]
    pub(super) fn of_role(mut self, role: &RoleDecl) -> Self {
        #[cfg(feature = "attest")]
        {
            self.attest = role.attest;
        }
        self
    }

    /// A node as the flags say, with the tags of its role.
    pub(super) fn builder(
        self,
        default: NetworkId,
        tags: impl IntoIterator<Item = Tag>,
    ) -> Result<NetworkBuilder, Failure> {
        let mut builder = Network::builder(self.network.unwrap_or(default))
            .with_tags(tags)
            .with_tags(self.tags.iter().copied())
            .with_local_lane(self.local_lane);
        #[cfg(feature = "attest")]
        if let Some(declared) = self.attest {
            builder = attested::configure(builder, declared, &self)?;
        }
        if let Some(secret) = self.secret {
            builder = builder.with_secret_key(secret.load()?);
        }
        if let Some(invitation) = self.join {
            let (ours, theirs) = (self.network.unwrap_or_else(|| invitation.network()), invitation.network());
            if ours != theirs {
                return Err(format!("--network is {ours:?}, and --join is for network {theirs:?}").into());
            }
            builder = builder.with_invitation(invitation);
        }
        if let Some(file) = self.network_key {
            builder = builder.with_network_key(NetworkKey::from_file(file)?);
        }
        for bootstrap in self.bootstrap {
            builder = builder.with_bootstrap(bootstrap);
        }
        if let Some(listen) = self.listen {
            builder = builder.with_listen(listen);
        }
        if let Some(data_dir) = self.data_dir {
            builder = builder.with_data_dir(data_dir);
        }
        #[cfg(feature = "mdns")]
        if self.mdns {
            builder = builder.with_mdns();
        }
        if self.metrics.is_some() {
            builder = builder.with_metrics();
        }
        Ok(builder)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "5", "s", "1.5s", "5 s", "-1s", "99999999999999999h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_is_a_name_or_a_whole_id() {
        let id = NetworkId::from_name("x");
        assert_eq!(parse_network(&format!("{id}\n")), Ok(id));
        assert_eq!(parse_network("x"), Ok(id));
        assert_eq!(parse_network("cafe"), Ok(NetworkId::from_name("cafe")));
        for wrong in ["", &id.to_string()[1..], &format!("{id}0")] {
            assert!(parse_network(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        let graph = Graph { app: "test", doc: "", version: None, roles: &[] };
        command(&graph, &Config::default()).expect("no file").debug_assert();
    }
}
