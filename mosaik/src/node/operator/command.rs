//! The command line of `mosaik` as clap sees it.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Arg, ArgAction, ArgGroup, Command, builder::PossibleValuesParser};

use super::{
    super::{
        cli::{completions, flag, node_flags, parse_duration, parse_network, program},
        config,
        join::{JoinParser, join},
        secret::{KeyFileParser, SecretParser, network_key, secret},
    },
    new::new,
};
use crate::{
    discovery::Bootstrap,
    primitives::{PeerId, StreamId},
    trust::{AuthorityId, Scope},
};

const EXIT: &str = "Exit status: 0 done, 1 failure (nobody answered, or a file cannot be used), 2 wrong usage, \
                    3 `explain` has found something in the way, or `check` that programs do not fit together.";
const PEER: &str =
    "PEER is a peer id, the first digits of one that the bootstrap peer knows (at least 4), or id@host:port.";
const TARGET: &str = "TARGET is the name of a stream, a store or a group's machine, or an id of 64 hex digits; stream:NAME, \
                      store:NAME and group:NAME say which is meant when there are several.";

/// The whole of it.
#[expect(clippy::too_many_lines, reason = "a list of commands")]
pub(super) fn command() -> Command {
    let beacon = Command::new("beacon")
        .about("Run a node that does nothing but be there: a bootstrap peer to leave running")
        .long_about(
            "Run a node that does nothing but be there: a bootstrap peer to leave running.\n\nIts first line on stderr is \
             `listening <id>@<ip:port>`, which others take as --bootstrap. Give it --secret or --data-dir and --listen with a \
             fixed port, so that it comes back as the same one. It leaves gracefully at SIGINT or SIGTERM.",
        )
        .args(node_flags("required").into_iter().filter(|flag| flag.get_id() != config::FLAG).map(required_network));
    let peers = Command::new("peers").about("Print the bootstrap peer and the peers that it knows, with their leases");
    let node = Command::new("node").about("Print who a node is [default: the bootstrap peer]").arg(peer());
    let streams = Command::new("streams").about("Print producers and consumers [default: of every node]").arg(peer());
    let groups = Command::new("groups")
        .about("Print members of groups, and why one is not online if it is not [default: of every node]")
        .arg(peer());
    let stores = Command::new("stores")
        .about("Print primaries and replicas of stores, and how far each is [default: of every node]")
        .arg(peer());
    let ping = Command::new("ping")
        .about("Measure round trips to a node's program, its own work included")
        .arg(peer().required(true))
        .arg(
            Arg::new("count")
                .long("count")
                .short('c')
                .value_name("N")
                .default_value("4")
                .value_parser(clap::value_parser!(u32).range(1..=1000))
                .help("How many, 1 to 1000"),
        )
        .arg(
            Arg::new("interval")
                .long("interval")
                .value_name("DURATION")
                .default_value("1s")
                .value_parser(parse_pause)
                .help("The pause between two, at most 5s"),
        );
    let explain = Command::new("explain")
        .about("Say what is in the way between a node and the others of a stream, group or store, on the first line")
        .after_long_help(format!("{PEER}\n\n{TARGET}\n\n{EXIT}"))
        .arg(peer().required(true))
        .arg(
            Arg::new("target")
                .value_name("TARGET")
                .required(true)
                .help("A stream, a store, or a group by its machine's name"),
        )
        .arg(Arg::new("with").long("with").value_name("PEER").help("The other node [default: all that are involved]"));
    let mut all = program("mosaik", Some(env!("CARGO_PKG_VERSION")))
        .about("Start a beacon, and look at the nodes of any network of mosaik")
        .after_help(EXIT)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(beacon)
        .subcommand(
            Command::new("id").about("Print the peer id of a secret key and nothing else").arg(secret().required(true)),
        )
        .subcommand(
            Command::new("keygen")
                .about("Make a secret key: print it, or keep it in a new file and print its peer id")
                .arg(
                    Arg::new("file")
                        .value_name("FILE")
                        .value_parser(SecretParser)
                        .help("Where to keep it; must not exist"),
                )
                .arg(
                    Arg::new("for-network")
                        .long("network")
                        .action(ArgAction::SetTrue)
                        .help("Make the key of a secret network instead, for --network-key at all members"),
                )
                .arg(
                    Arg::new("for-group")
                        .long("group")
                        .action(ArgAction::SetTrue)
                        .conflicts_with("for-network")
                        .help("Make the key of a group instead, for the variable that the group's declaration names"),
                ),
        );
    let program =
        || Arg::new("program").value_name("PROGRAM").required(true).value_parser(clap::value_parser!(PathBuf));
    all = all
        .subcommand(
            Command::new("inspect")
                .about("Print what a program declares, without running it: its roles, streams, groups and stores, and where")
                .arg(program().help("An ELF program with an `#[mosaik::app]`; it may be stripped"))
                .arg(json()),
        )
        .subcommand(
            Command::new("check")
                .about("Say whether programs fit together, without running them: streams, groups and stores declared alike; and what is labelled and declassified in them")
                .arg(program().num_args(1..).help("The programs of one network")),
        );
    all = all.subcommand(new()).subcommand(group()).subcommand(tap()).subcommands(membership());
    for command in [peers, node, streams, groups, stores, ping, explain] {
        let watched = command.get_name() != "ping";
        let command = command.args(asking()).arg(json()).after_help(format!("{PEER}\n{EXIT}"));
        all = all.subcommand(if watched { command.arg(watch()) } else { command });
    }
    all.subcommand(completions())
}

/// Items of a stream.
fn tap() -> Command {
    let count =
        Arg::new("count").long("count").short('c').value_name("N").value_parser(clap::value_parser!(u64).range(1..));
    let limit = Arg::new("for").long("for").value_name("DURATION").value_parser(parse_duration);
    let only = Arg::new("from").long("from").value_name("PEER").value_parser(parse_start);
    Command::new("tap")
        .about("Print the items of a stream as JSON lines, whatever their type")
        .long_about(
            "Print the items of a stream as JSON lines, whatever their type: names of fields come from the shape that the producer \
             tells. It subscribes like any consumer: producers count it, ask their predicate about it, and wait for it or drop \
             it as their policy for lag says. It has no tags.",
        )
        .arg(
            Arg::new("stream")
                .value_name("STREAM")
                .required(true)
                .value_parser(parse_stream)
                .help("The stream: its name, or its id of 64 hex digits"),
        )
        .arg(only.help("Only of the producer whose id begins so, at least 4 hex digits [default: of all]"))
        .arg(count.help("End after so many items [default: at a signal]"))
        .arg(limit.help("End after this time"))
        .arg(
            Arg::new("replay")
                .long("replay")
                .action(ArgAction::SetTrue)
                .help("First what producers keep for consumers that come late"),
        )
        .args(asking())
        .after_help(
            "Each line has `producer`, `epoch`, `seq` and `item`; for items that cannot be read `error` and `bytes`; for those \
             that were missed `missed` and `reason`.\n\nExit status: 0 done, 1 failure, or nobody produced the stream within \
             --for, 2 wrong usage.",
        )
}

/// What changes a group.
fn group() -> Command {
    let seal = Command::new("seal")
        .about("End the present version of a group's machine: all members take a snapshot, the next version goes on from it")
        .long_about(
            "End the present version of a group's machine: every member takes a snapshot at one index and commands are refused \
             from then on. Once `mosaik groups` says `sealed` of every member, stop them all and start the next version. It cannot \
             be taken back.",
        )
        .arg(machine())
        .arg(peer().help("The member to ask [default: the first that is found]"))
        .args(group_key())
        .group(ArgGroup::new("key").args(["key-env", "key-file"]).required(true))
        .args(asking())
        .arg(json())
        .after_help(format!("{PEER}\n{EXIT}"));
    let transfer = Command::new("transfer")
        .about("Hand leadership of a group to one of its members")
        .long_about(
            "Hand leadership of a group to one of its members: that gets what it lacks and is elected without a timeout. No \
             acknowledged command is lost. A member that is preferred above it takes leadership back.",
        )
        .arg(machine())
        .arg(Arg::new("to").value_name("TO").required(true).help("Who is to lead: a peer id, its first digits, or id@host:port"))
        .arg(peer().help("The member to ask [default: the first that is found]"))
        .args(group_key())
        .group(ArgGroup::new("key").args(["key-env", "key-file"]).required(true))
        .args(asking())
        .arg(json())
        .after_help(format!("{PEER}\n{EXIT}"));
    let prefer = Command::new("prefer")
        .about("Say how much a member of a group is to lead, until it ends")
        .long_about(
            "Say how much a member of a group is to lead, until it ends: a preferred member leads whenever it can, a reluctant one \
             while nobody else can.",
        )
        .arg(machine())
        .arg(peer().required(true).help("The member: a peer id, its first digits, or id@host:port"))
        .arg(
            Arg::new("preference")
                .value_name("PREFERENCE")
                .required(true)
                .value_parser(PossibleValuesParser::new(["preferred", "normal", "reluctant"]))
                .help("How much it is to lead"),
        )
        .args(group_key())
        .group(ArgGroup::new("key").args(["key-env", "key-file"]).required(true))
        .args(asking())
        .arg(json())
        .after_help(format!("{PEER}\n{EXIT}"));
    Command::new("group").about("Change a group").subcommand_required(true).subcommands([seal, transfer, prefer])
}

fn machine() -> Arg {
    Arg::new("machine").value_name("MACHINE").required(true).help("The name of the group's machine")
}

/// Where the key of a group is: one of the two.
fn group_key() -> [Arg; 2] {
    let variable = Arg::new("key-env")
        .long("key-env")
        .value_name("VARIABLE")
        .help("The environment variable that holds the group's key");
    let file = Arg::new("key-file")
        .long("key-file")
        .value_name("FILE")
        .value_parser(KeyFileParser)
        .help("The file that holds the group's key");
    [variable, file]
}

/// What makes and shows memberships in networks of an authority.
fn membership() -> [Command; 3] {
    let file = || Arg::new("file").value_name("FILE").required(true).value_parser(KeyFileParser);
    let new = Command::new("new")
        .about("Make an authority: keep its key in a new file and print its id")
        .arg(file().help("Where to keep the key; must not exist. Whoever has it decides who is in the network"));
    let many = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).action(ArgAction::Append).value_delimiter(',').help(help)
    };
    let signing = || {
        let key = Arg::new("authority").long("authority").value_name("FILE").help("The file of the authority's key");
        let network = flag("network", "NAME", "The network: a name, or 64 hex digits").value_parser(parse_network);
        [key.value_parser(KeyFileParser).required(true), network.required(true)]
    };
    let trust = Command::new("trust")
        .about("Say which authorities a network trusts from now on")
        .long_about(
            "Say which authorities a network trusts from now on: all of them, in one list, which replaces the one before.\n\nThe \
             nodes that are given as --bootstrap are told and pass it on. One of them must answer. Who holds no ticket of an \
             authority in the list is out at once.",
        )
        .args(signing())
        .arg(
            many("trust", "ID[=SCOPE]", "An authority by its id, with what it can give if not everything: role:R+grant:G+..")
                .value_parser(parse_trusted)
                .required(true),
        )
        .arg(many("bootstrap", "ID@HOST:PORT", "A member to tell").value_parser(Bootstrap::from_str).required(true));
    let ttl = Arg::new("ttl").long("ttl").value_name("DURATION").default_value("1h").value_parser(parse_duration);
    let bootstrap = many("bootstrap", "ID@HOST:PORT", "A node to begin with; may be left out for the first one");
    let others =
        many("trust", "ID", "Another authority that the network trusts at present, while one takes over from another");
    let invite = Command::new("invite")
        .about("Print one line by which nodes join a network: what to give to --join")
        .long_about(
            "Print one line by which nodes join a network: what to give to --join.\n\nWhoever has the line can join until \
             its time is over, so hand it on like a password. Nothing is sent anywhere.\n\nA node that joins by a line made with \
             --renewer renews the tickets of the others and its own. Whoever has such a line can do so for as long as --renew-for \
             says.",
        )
        .args(signing())
        .arg(many("role", "ROLE", "A role that may be run with it; may be repeated, or separated by commas"))
        .arg(many("grant", "TAG", "A tag that the authority grants; may be repeated, or separated by commas"))
        .arg(ttl.help("For how long the line, and each membership made from it, is good until it is renewed"))
        .arg(bootstrap.value_parser(Bootstrap::from_str))
        .arg(others.value_parser(AuthorityId::from_str))
        .args(renewing());
    let show = Command::new("show")
        .about("Print whom a ticket is for, what it grants and until when")
        .arg(Arg::new("what").value_name("DIR|TICKET").required(true).help("A data directory, or a ticket mosaikt1.."));
    let at =
        many("bootstrap", "ID@HOST:PORT", "A member that renews tickets; by default those that the node began with");
    let renew = Command::new("renew")
        .about("Renew the ticket in the data directory of a node that does not run")
        .long_about(
            "Renew the ticket in the data directory of a node that does not run. One that runs does so by itself.\n\nAmong the \
             members that are asked there must be one that joined by `mosaik invite --renewer`.",
        )
        .arg(Arg::new("dir").value_name("DIR").required(true).value_parser(clap::value_parser!(PathBuf)).help("The data directory"))
        .arg(at.value_parser(Bootstrap::from_str));
    let revoke = Command::new("revoke")
        .about("Take back a ticket, an invitation with all that came of it, or all tickets of a peer, for good")
        .long_about(
            "Take back a ticket, an invitation with all that came of it, or all tickets of a peer, for good.\n\nThe nodes that are \
             given as --bootstrap are told and pass it on. One of them must answer.",
        )
        .args(signing())
        .arg(Arg::new("serial").long("serial").value_name("HEX").value_parser(parse_serial).help("A ticket's serial number"))
        .arg(Arg::new("peer").long("peer").value_name("ID").value_parser(PeerId::from_str).help("A peer, by its whole id"))
        .arg(
            Arg::new("invitation")
                .long("invitation")
                .value_name("STRING|@FILE")
                .value_parser(JoinParser)
                .help("An invitation, or the file that holds it"),
        )
        .group(ArgGroup::new("what").args(["serial", "peer", "invitation"]).required(true))
        .arg(many("bootstrap", "ID@HOST:PORT", "A member to tell").value_parser(Bootstrap::from_str).required(true));
    [
        Command::new("authority")
            .about("Make an authority, and say which ones are trusted")
            .subcommand_required(true)
            .subcommands([new, trust]),
        invite,
        Command::new("ticket")
            .about("Look at tickets, renew them, and take them back")
            .subcommand_required(true)
            .subcommands([show, renew, revoke]),
    ]
}

/// On what terms a node renews tickets.
fn renewing() -> [Arg; 3] {
    let renewer = Arg::new("renewer").long("renewer").action(ArgAction::SetTrue);
    let duration = |name: &'static str, default: &'static str| {
        Arg::new(name).long(name).value_name("DURATION").default_value(default).value_parser(parse_duration)
    };
    [
        renewer.help("Who joins by it renews tickets of this network"),
        duration("life", "30d").help("With --renewer: for how long a renewed ticket holds"),
        duration("renew-for", "365d").help("With --renewer: for how long it may renew; no renewed ticket holds longer"),
    ]
}

fn peer() -> Arg {
    Arg::new("peer").value_name("PEER").help("A peer id, its first digits, or id@host:port")
}

/// Whom to ask, and in which network.
fn asking() -> [Arg; 4] {
    let network = flag("network", "NAME", "The network: a name (for an app by default its own), or 64 hex digits");
    let bootstrap = flag("bootstrap", "ID@HOST:PORT", "A node to begin with; of several the first that answers")
        .action(ArgAction::Append)
        .value_delimiter(',')
        .value_parser(Bootstrap::from_str);
    [
        network.value_parser(parse_network).required_unless_present("join"),
        bootstrap.required_unless_present("join"),
        network_key(),
        join().conflicts_with("network-key"),
    ]
}

/// A beacon has no app whose network it would join by default.
fn required_network(arg: Arg) -> Arg {
    if arg.get_id() == "network" {
        return arg
            .help("The network: a name (for an app by default its own), or 64 hex digits")
            .required_unless_present("join");
    }
    arg
}

fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON")
}

fn watch() -> Arg {
    Arg::new("watch")
        .long("watch")
        .value_name("DURATION")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("2s")
        .value_parser(parse_duration)
        .help("Ask again and again, with this pause [default: 2s], until a signal")
}

fn parse_stream(text: &str) -> Result<StreamId, String> {
    let name = text.strip_prefix("stream:").unwrap_or(text);
    if name.is_empty() {
        return Err("a stream has a name".to_owned());
    }
    Ok(StreamId::from(name))
}

fn parse_start(text: &str) -> Result<String, String> {
    let digits = text.len() >= 4 && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits { Ok(text.to_ascii_lowercase()) } else { Err("a peer id begins with 4 to 64 hex digits".to_owned()) }
}

/// An authority with its scope.
fn parse_trusted(text: &str) -> Result<(AuthorityId, Scope), String> {
    let (id, scope) = text.split_once('=').map_or((text, None), |(id, scope)| (id, Some(scope)));
    let id = AuthorityId::from_str(id).map_err(|error| error.to_string())?;
    let Some(scope) = scope else { return Ok((id, Scope::everything())) };
    let names = scope.split('+').filter(|name| !name.is_empty());
    let scope = names.into_iter().try_fold(Scope::nothing(), |scope, name| match name.split_once(':') {
        Some(("role", role)) if !role.is_empty() => Ok(scope.with_role(role)),
        Some(("grant", grant)) if !grant.is_empty() => Ok(scope.with_grant(grant)),
        _ => Err(format!("{name} is neither role:NAME nor grant:NAME")),
    });
    Ok((id, scope?))
}

/// The serial number of a ticket: 32 hex digits.
fn parse_serial(text: &str) -> Result<[u8; 16], String> {
    let number = u128::from_str_radix(text.trim(), 16).ok().filter(|_| text.trim().len() == 32);
    Ok(number.ok_or("a serial number has 32 hex digits")?.to_be_bytes())
}

/// A pause that no node takes for silence.
fn parse_pause(text: &str) -> Result<Duration, String> {
    let pause = parse_duration(text)?;
    if pause > Duration::from_secs(5) { Err("at most 5s".to_owned()) } else { Ok(pause) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn usage_is_checked() {
        let id = iroh::SecretKey::from_bytes(&[1; 32]).public();
        let bootstrap = format!("--bootstrap={id}@127.0.0.1:1");
        let parse = |args: &[&str]| command().try_get_matches_from([&["mosaik"], args].concat());
        assert!(parse(&["peers", "--network", "a", &bootstrap, "--json", "--watch"]).is_ok());
        assert!(parse(&["group", "seal", "ledger", "--key-env=LEDGER_KEY", "--network=a", &bootstrap]).is_ok());
        assert!(parse(&["group", "seal", "ledger", "--key-file=./ledger.key", "--network=a", &bootstrap]).is_ok());
        let both = ["--key-env=K", "--key-file=./k"];
        for keys in [&both[..], &[]] {
            assert!(parse(&[&["group", "seal", "ledger", "--network=a", &bootstrap], keys].concat()).is_err());
        }
        assert!(parse(&["tap", "orders", "--for=5s", "--network=a", &bootstrap]).is_ok());
        let on = ["--key-env=LEDGER_KEY", "--network=a", &bootstrap];
        assert!(parse(&[&["group", "transfer", "ledger", "abcd"], &on[..]].concat()).is_ok());
        assert!(parse(&[&["group", "prefer", "ledger", "abcd", "reluctant"], &on[..]].concat()).is_ok());
        assert!(parse(&[&["group", "prefer", "ledger", "abcd", "maybe"], &on[..]].concat()).is_err());
        assert!(parse(&[&["group", "transfer", "ledger"], &on[..]].concat()).is_err());
        assert!(parse(&["explain", "abcd", "readings", "--network=a", &bootstrap]).is_ok());
        for wrong in [
            &["peers", &bootstrap][..],
            &["peers", "--network=a"],
            &["peers", "--network=a", "--bootstrap=nowhere"],
            &["explain", "abcd", "--network=a", &bootstrap],
            &["ping", "abcd", "--interval=1m", "--network=a", &bootstrap],
            &["stores"],
            &["group", "--network=a", &bootstrap],
            &["group", "seal", "ledger", "--network=a", &bootstrap],
            &["stores", "--network=a", "--bootstrap=nowhere"],
            &["completions", "tcsh"],
            &["tap", "--network=a", &bootstrap],
            &["tap", "orders", "--from=xyz", "--network=a", &bootstrap],
            &["tap", "orders", "--count=0", "--network=a", &bootstrap],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
