//! `authority new` and `trust`, `invite`, `ticket show`, `renew` and `revoke`: who may be in a network of an authority. Only
//! `trust`, `renew` and `revoke` talk to anybody.

use std::{
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use clap::ArgMatches;
use iroh::EndpointAddr;

use super::super::process::{Failure, print};
use crate::{
    diagnostics::{AskError, Client},
    discovery::Bootstrap,
    network::{DataDirLock, secret_in_data_dir},
    primitives::{NetworkId, PeerId},
    trust::{Authority, AuthorityId, Claims, Invitation, LEEWAY, Membership, Renewing, Revoked, Scope, Ticket},
};

/// Runs one of the commands.
pub(super) fn run(name: &str, matches: &ArgMatches) -> Result<(), Failure> {
    match (name, matches.subcommand()) {
        ("authority", Some((_, matches))) => {
            let authority = Authority::random();
            authority.to_new_file(file(matches, "file")?)?;
            print(&format!("{}\n", authority.id()))
        }
        ("invite", None) => invite(matches),
        ("ticket", Some((_, matches))) => {
            let what = matches.get_one::<String>("what").ok_or("what to show is missing")?;
            print(&shown(&ticket(what)?, now()?))
        }
        _ => Err("no such command".into()),
    }
}

/// Tells members that something is taken back.
pub(super) async fn revoke(matches: &ArgMatches) -> Result<(), Failure> {
    let matches = matches.subcommand_matches("revoke").ok_or("no such command")?;
    let network = *matches.get_one::<NetworkId>("network").ok_or("--network is missing")?;
    let authority = Authority::from_file(file(matches, "authority")?)?;
    let serial = matches.get_one::<[u8; 16]>("serial").copied();
    let invitation = matches.get_one::<Invitation>("invitation").map(|invitation| invitation.ticket().serial());
    let peer = matches.get_one::<PeerId>("peer").copied();
    let what =
        serial.or(invitation).map(Revoked::Serial).or(peer.map(Revoked::Peer)).ok_or("what to revoke is missing")?;
    let revocation = authority.revoke(network, what)?;
    let told = tell(matches, &authority, async |client, to| client.revoke(to, revocation.clone()).await).await?;
    print(&format!("revoked: {what}; told {told} of the members, which tell the others\n"))
}

/// Tells members which authorities are trusted from now on.
pub(super) async fn trust(matches: &ArgMatches) -> Result<(), Failure> {
    let matches = matches.subcommand_matches("trust").ok_or("no such command")?;
    let network = *matches.get_one::<NetworkId>("network").ok_or("--network is missing")?;
    let authority = Authority::from_file(file(matches, "authority")?)?;
    let trusted = matches.get_many::<(AuthorityId, Scope)>("trust").into_iter().flatten().cloned();
    let list = authority.list(network, now()?, trusted)?;
    let told = tell(matches, &authority, async |client, to| client.trust_authorities(to, list.clone()).await).await?;
    print(&format!("told {told} of the members, which tell the others\n"))
}

/// Says something to each of the members that are given; how many have heard it, at least one.
async fn tell(
    matches: &ArgMatches,
    authority: &Authority,
    say: impl AsyncFn(&Client, &EndpointAddr) -> Result<(), AskError>,
) -> Result<usize, Failure> {
    let network = *matches.get_one::<NetworkId>("network").ok_or("--network is missing")?;
    let client = Client::of_authority(authority, network, now()?).await?;
    let (mut told, mut failed) = (0, Failure::from("--bootstrap is missing"));
    for member in matches.get_many::<Bootstrap>("bootstrap").into_iter().flatten() {
        let done = async { Ok::<_, Failure>(say(&client, &client.resolve(member.clone()).await?).await?) };
        match done.await {
            Ok(()) => told += 1,
            Err(error) => failed = error,
        }
    }
    client.close().await;
    if told == 0 { Err(failed) } else { Ok(told) }
}

/// Has the ticket in a data directory renewed by a member, and keeps it there.
pub(super) async fn renew(matches: &ArgMatches) -> Result<(), Failure> {
    let matches = matches.subcommand_matches("renew").ok_or("no such command")?;
    let dir = file(matches, "dir")?;
    let kept = Membership::in_dir(dir)?.ok_or_else(|| format!("{} holds no membership", dir.display()))?;
    // The node that runs there would not know of it.
    let _lock = DataDirLock::take(dir)?;
    let (ticket, authorities) = (kept.ticket().clone(), kept.authorities().to_vec());
    let client = Client::with_ticket(ticket.network(), authorities, secret_in_data_dir(dir)?, ticket).await?;
    let given = matches.get_many::<Bootstrap>("bootstrap").into_iter().flatten().cloned().map(Ok);
    let known = kept.bootstrap.iter().map(|peer| peer.parse::<Bootstrap>());
    let members: Vec<_> = if matches.contains_id("bootstrap") { given.collect() } else { known.collect() };
    let mut failed: Failure = "nobody to ask: --bootstrap is missing".into();
    for member in members {
        let renewed = async { Ok::<_, Failure>(client.renew(&client.resolve(member?).await?).await?) };
        match renewed.await {
            Ok(ticket) => {
                client.close().await;
                Membership { ticket: ticket.clone(), ..kept }.keep(dir)?;
                return print(&shown(&ticket, now()?));
            }
            Err(error) => failed = error,
        }
    }
    client.close().await;
    Err(failed)
}

fn file<'a>(matches: &'a ArgMatches, name: &str) -> Result<&'a PathBuf, Failure> {
    Ok(matches.get_one::<PathBuf>(name).ok_or("the file is missing")?)
}

fn invite(matches: &ArgMatches) -> Result<(), Failure> {
    let all = |name: &str| matches.get_many::<String>(name).into_iter().flatten();
    let network = *matches.get_one::<NetworkId>("network").ok_or("--network is missing")?;
    let ttl = matches.get_one::<Duration>("ttl").ok_or("--ttl is missing")?;
    let now = now()?;
    let claims = Claims::new(now, now.saturating_add(ttl.as_secs()));
    let claims = all("role").fold(claims, Claims::with_role);
    let claims = all("grant").fold(claims, Claims::with_grant);
    let bootstrap = matches.get_many::<Bootstrap>("bootstrap").into_iter().flatten().map(ToString::to_string);
    let authority = Authority::from_file(file(matches, "authority")?)?;
    let duration = |name: &str| matches.get_one::<Duration>(name).copied().unwrap_or_default();
    let invitation = if matches.get_flag("renewer") {
        let terms = Renewing::until(now.saturating_add(duration("renew-for").as_secs())).with_life(duration("life"));
        authority.invite_renewer(network, claims, bootstrap, terms)?
    } else {
        authority.invite(network, claims, bootstrap)?
    };
    let others = matches.get_many::<AuthorityId>("trust").into_iter().flatten().copied();
    print(&format!("{}\n", invitation.with_authorities(others)))
}

/// The ticket in a data directory, or in a text.
fn ticket(what: &str) -> Result<Ticket, Failure> {
    if what.trim().starts_with("mosaikt1") {
        return Ok(what.parse()?);
    }
    let member = Membership::in_dir(Path::new(what))?;
    Ok(member.ok_or_else(|| format!("{what} is no ticket, and no data directory with one in it"))?.ticket().clone())
}

/// Seconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "a command is no node: it has no clock but the machine's")]
fn now() -> Result<u64, Failure> {
    Ok(std::time::SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

fn shown(ticket: &Ticket, now: u64) -> String {
    let grants: Vec<_> = ticket.grants().iter().collect();
    let serial = ticket.serial().map(|byte| format!("{byte:02x}")).concat();
    let left = |secs: u64| format!("{:?}", Duration::from_secs(secs));
    let (from, until) = (ticket.not_before(), ticket.not_after());
    let state = if now > until + LEEWAY.as_secs() {
        format!("expired {} ago", left(now - until))
    } else if now + LEEWAY.as_secs() < from {
        format!("holds from {} on", left(from - now))
    } else {
        format!("holds for another {}", left(until.saturating_sub(now)))
    };
    let renewed = if ticket.is_renewed() { ", renewed" } else { "" };
    format!(
        "for        {}\nnetwork    {}\nauthority  {}\ngrants     {}\nserial     {serial}\n{state}{renewed}\n",
        ticket.subject(),
        ticket.network(),
        ticket.authority(),
        if grants.is_empty() { "membership alone".to_owned() } else { grants.join(" ") },
    )
}
