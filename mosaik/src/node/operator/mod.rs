//! The command `mosaik` (feature `cli`): what an operator has in hand for the network of any app. `command` is the command
//! line as clap sees it, [`Survey`] asks, `show` prints. It is no member of the network, but for `beacon` and `tap`, and changes
//! nothing, but for `group`.

mod command;
mod embedded;
mod membership;
mod merged;
mod new;
mod show;
mod tap;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use clap::ArgMatches;
use tokio_util::sync::CancellationToken;

use self::{command::command, show::Pings};
use super::{
    cli::{NodeFlags, completion_script},
    environment,
    machine::{NoKey, find_key},
    output::UntilRead,
    process::{self, Failure, print, say},
    run,
    secret::Secret,
};
use crate::{
    diagnostics::{Client, MAX_ASKED, Survey},
    discovery::Bootstrap,
    groups::{GroupKey, MIN_GROUP_SECRET},
    network::SecretError,
    primitives::{NetworkId, PeerId, fresh_bytes},
    trust::{Invitation, NetworkKey},
};

/// The exit status of an explanation that has found something.
const FOUND: u8 = 3;

/// Runs the command line to its end. Exit status: 0 done (for `beacon`: left gracefully after a signal), 1 failure, 2 wrong
/// usage, 3 `explain` has found something in the way, or `check` that programs do not fit together.
#[must_use = "the exit code is what `main` returns"]
pub fn operator() -> ExitCode {
    let _until_read = UntilRead::new();
    let matches = environment::read(command());
    match matches.subcommand() {
        Some(("beacon", matches)) => beacon(matches),
        Some(("authority", matches)) if matches.subcommand_name() == Some("trust") => {
            process::run(|ending| async move {
                match ending.run_until_cancelled(Box::pin(membership::trust(matches))).await {
                    Some(done) => done,
                    None => Err("interrupted: members may have been told".into()),
                }
            })
        }
        Some(("ticket", matches)) if matches.subcommand_name() == Some("revoke") => process::run(|ending| async move {
            match ending.run_until_cancelled(Box::pin(membership::revoke(matches))).await {
                Some(done) => done,
                None => Err("interrupted: members may have been told".into()),
            }
        }),
        Some(("ticket", matches)) if matches.subcommand_name() == Some("renew") => process::run(|ending| async move {
            match ending.run_until_cancelled(Box::pin(membership::renew(matches))).await {
                Some(done) => done,
                None => Err("interrupted: the ticket is the one that it was".into()),
            }
        }),
        Some((name @ ("id" | "keygen" | "completions" | "new" | "authority" | "invite" | "ticket"), matches)) => {
            match offline(name, matches) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    say(format_args!("error: {}", process::chain(&*error)));
                    ExitCode::FAILURE
                }
            }
        }
        Some(("tap", matches)) => process::run(|ending| tap::tap(matches, ending)),
        Some((name @ ("inspect" | "check"), matches)) => match programs(name, matches) {
            Ok(found) => {
                if found {
                    ExitCode::from(FOUND)
                } else {
                    ExitCode::SUCCESS
                }
            }
            Err(error) => {
                say(format_args!("error: {}", process::chain(&*error)));
                ExitCode::FAILURE
            }
        },
        Some(("group", matches)) => match matches.subcommand() {
            Some((name, matches)) => process::run(|ending| change(name, matches, ending)),
            None => ExitCode::FAILURE,
        },
        Some((name, matches)) => {
            let found = AtomicBool::new(false);
            let exit = process::run(|ending| ask(name, matches, &found, ending));
            if found.load(Ordering::Relaxed) { ExitCode::from(FOUND) } else { exit }
        }
        None => ExitCode::FAILURE,
    }
}

/// A node that does nothing but be there.
fn beacon(matches: &ArgMatches) -> ExitCode {
    let flags = NodeFlags::read(matches);
    let joining = flags.join.as_ref().map(Invitation::network);
    let Some(network) = flags.network.or(joining) else { return ExitCode::FAILURE };
    process::run(|ending: CancellationToken| async move {
        let (network, supervisor) = Box::pin(run::start(flags, network, [])).await?;
        let ready = supervisor.ready();
        if ready.is_ok() {
            ending.cancelled().await;
        }
        supervisor.stopping();
        network.shutdown().await;
        ready
    })
}

/// The commands that look at programs without running them; whether they do not fit together.
fn programs(name: &str, matches: &ArgMatches) -> Result<bool, Failure> {
    let paths = matches.get_many::<PathBuf>("program").ok_or("the program is missing")?;
    let mut read = Vec::new();
    for path in paths {
        read.push((path.display().to_string(), embedded::read(path)?));
    }
    if name == "inspect" {
        let apps: Vec<_> = read.into_iter().flat_map(|(_, apps)| apps).collect();
        let json = matches.get_flag("json");
        print(&if json { serde_json::to_string_pretty(&apps)? + "\n" } else { merged::listing(&apps) })?;
        return Ok(false);
    }
    let merged::Findings { errors, warnings, corridors } = merged::check(&read);
    let lines = errors.iter().map(|error| format!("error: {error}\n"));
    let lines =
        lines.chain(warnings.iter().map(|warning| format!("warning: {warning}\n"))).collect::<Vec<_>>().concat();
    let found = if lines.is_empty() { "nothing to complain about\n" } else { &lines };
    print(&(found.to_owned() + &corridors))?;
    Ok(!errors.is_empty())
}

/// The commands that ask nobody.
fn offline(name: &str, matches: &ArgMatches) -> Result<(), Failure> {
    let public = |secret: &Secret| Ok::<_, SecretError>(PeerId::from(secret.load()?.public()));
    match name {
        "authority" | "invite" | "ticket" => membership::run(name, matches),
        "id" => {
            let secret = matches.get_one::<Secret>("secret").ok_or("--secret is missing")?;
            print(&format!("{}\n", public(secret)?))
        }
        "keygen" => match matches.get_one::<Secret>("file") {
            Some(Secret::Key(_)) => Err("FILE is a key, not the name of a file to keep one in".into()),
            Some(Secret::File(file)) if file.exists() => Err(format!("{} is there already", file.display()).into()),
            Some(Secret::File(file)) if matches.get_flag("for-network") || matches.get_flag("for-group") => {
                Ok(NetworkKey::random().to_new_file(file)?)
            }
            Some(file) => print(&format!("{}\n", public(file)?)),
            None => {
                let hex: Vec<_> = fresh_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                print(&(hex.concat() + "\n"))
            }
        },
        "new" => print(&new::make(matches)?),
        _ => print(&completion_script(command(), matches)?),
    }
}

/// Whom to ask, as the command line says.
async fn survey(matches: &ArgMatches) -> Result<Survey, Failure> {
    let mut bootstrap: Vec<Bootstrap> =
        matches.get_many("bootstrap").map_or_else(Vec::new, |all| all.cloned().collect());
    if let Some(invitation) = matches.get_one::<Invitation>("join") {
        for peer in invitation.bootstrap() {
            bootstrap.push(peer.parse()?);
        }
        return Ok(Survey::new(Client::join(invitation).await?, bootstrap));
    }
    let network = *matches.get_one::<NetworkId>("network").ok_or("--network is missing")?;
    let client = match matches.get_one::<PathBuf>("network-key") {
        Some(file) => Client::with_network_key(network, NetworkKey::from_file(file)?).await?,
        None => Client::new(network).await?,
    };
    Ok(Survey::new(client, bootstrap))
}

/// Changes a group: seals it, hands leadership over, or sets a member's preference.
async fn change(name: &str, matches: &ArgMatches, ending: CancellationToken) -> Result<(), Failure> {
    let argument = |name: &str| matches.try_get_one::<String>(name).ok().flatten().map(String::as_str);
    let given = |name: &'static str| argument(name).ok_or_else(|| Failure::from(format!("{name} is missing")));
    let (machine, peer, json) = (given("machine")?, argument("peer"), matches.get_flag("json"));
    let key = group_key(matches)?;
    let survey = survey(matches).await?;
    let changing = async {
        match name {
            "transfer" => {
                let transferred = survey.transfer(&key, machine, given("to")?, peer).await?;
                show::transferred(machine, transferred, json)
            }
            "prefer" => {
                let preference = given("preference")?.parse()?;
                let member = survey.prefer(&key, machine, given("peer")?, preference).await?;
                show::preferred(machine, member, preference, json)
            }
            _ => {
                let (member, index) = survey.seal(&key, machine, peer).await?;
                show::sealed(machine, member, index, json)
            }
        }
    };
    let changed = tokio::select! {
        biased;
        () = ending.cancelled() => Err("interrupted: it may be done, `mosaik groups` says so".into()),
        changed = changing => changed,
    };
    survey.close().await;
    print(&changed?)
}

/// The key of a group, in a file or an environment variable.
fn group_key(matches: &ArgMatches) -> Result<GroupKey, Failure> {
    if let Some(file) = matches.get_one::<PathBuf>("key-file") {
        return Ok(GroupKey::from_file(file)?);
    }
    let variable = matches.get_one::<String>("key-env").ok_or("--key-env or --key-file is missing")?;
    find_key(&std::env::var(variable), None).map_err(|why| match why {
        NoKey::Missing => format!("the environment variable {variable} is not set: it holds the group's key").into(),
        NoKey::NotUnicode => format!("the environment variable {variable} is not UTF-8").into(),
        NoKey::Weak(bytes) => format!(
            "the environment variable {variable} holds {bytes} bytes: a group's key has at least {MIN_GROUP_SECRET} bytes"
        )
        .into(),
        NoKey::File(error) => error.into(),
    })
}

/// The commands that ask nodes, once or again and again.
async fn ask(name: &str, matches: &ArgMatches, found: &AtomicBool, ending: CancellationToken) -> Result<(), Failure> {
    let survey = survey(matches).await?;
    let asked = again_and_again(name, matches, &survey, found, ending).await;
    survey.close().await;
    asked
}

async fn again_and_again(
    name: &str,
    matches: &ArgMatches,
    survey: &Survey,
    found: &AtomicBool,
    ending: CancellationToken,
) -> Result<(), Failure> {
    let json = matches.get_flag("json");
    let every = matches.try_get_one::<Duration>("watch").ok().flatten().copied();
    loop {
        let answering = once(name, matches, survey, json);
        let answered = tokio::select! {
            biased;
            () = ending.cancelled() => return Ok(()),
            answered = answering => answered,
        };
        let Some(every) = every else {
            let (text, fault) = answered?;
            found.store(fault, Ordering::Relaxed);
            return print(&text);
        };
        // Whoever watches wants to see it come back.
        match answered {
            Ok((text, _)) => print(&show::again(&text, json))?,
            Err(error) => say(format_args!("error: {}", process::chain(&*error))),
        }
        tokio::select! {
            biased;
            () = ending.cancelled() => return Ok(()),
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// Asks once: what to print, and whether it explains a fault.
async fn once(name: &str, matches: &ArgMatches, survey: &Survey, json: bool) -> Result<(String, bool), Failure> {
    let argument = |name: &str| matches.try_get_one::<String>(name).ok().flatten().map(String::as_str);
    let peer = argument("peer");
    let text = match name {
        "peers" => show::peers(&survey.peers().await?, json)?,
        "node" => show::node(&survey.node(peer).await?, json)?,
        "streams" => {
            let all = survey.streams(peer).await?;
            tell_limit(all.len());
            show::by_node(&all, "streams", json)?
        }
        "groups" => {
            let all = survey.groups(peer).await?;
            tell_limit(all.len());
            show::by_node(&all, "groups", json)?
        }
        "stores" => {
            let all = survey.stores(peer).await?;
            tell_limit(all.len());
            show::by_node(&all, "stores", json)?
        }
        "ping" => {
            let count = matches.get_one::<u32>("count").copied().unwrap_or(4);
            let pause = matches.get_one::<Duration>("interval").copied().unwrap_or(Duration::from_secs(1));
            show::pings(&ping(survey, peer.ok_or("the peer is missing")?, count, pause, json).await?, json)?
        }
        _ => {
            let (peer, target) =
                (peer.ok_or("the peer is missing")?, argument("target").ok_or("the target is missing")?);
            let explained = survey.explain(peer, target, argument("with")).await?;
            return Ok((show::explained(&explained, json)?, explained.explanation.fault().is_some()));
        }
    };
    Ok((text, false))
}

fn tell_limit(asked: usize) {
    if asked >= MAX_ASKED {
        say(format_args!("only the first {MAX_ASKED} nodes are asked"));
    }
}

/// Round trips, each printed as it comes unless all are printed at the end.
async fn ping(survey: &Survey, peer: &str, count: u32, pause: Duration, quiet: bool) -> Result<Pings, Failure> {
    let mut session = survey.session(peer).await?;
    let mut pings = Pings { peer: session.peer(), sent: 0, rtts: Vec::new(), error: None };
    while pings.sent < count {
        if pings.sent > 0 {
            tokio::time::sleep(pause).await;
        }
        pings.sent += 1;
        match session.ping().await {
            Ok(rtt) => {
                if !quiet {
                    print(&format!("{}  {rtt:.1?}\n", pings.peer))?;
                }
                pings.rtts.push(rtt);
            }
            Err(error) if pings.rtts.is_empty() => return Err(error.into()),
            Err(error) => {
                pings.error = Some(error);
                break;
            }
        }
    }
    Ok(pings)
}
