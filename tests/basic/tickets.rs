//! Tickets in the course of time, in virtual time: renewed, run out, taken back, and of another authority.

use std::time::Duration;

use futures::future::join_all;
use mosaik::{
    Authority, Network, NetworkId, Ticket, discovery,
    network::NetworkBuilder,
    streams::{Consumer, Producer},
    testing::{Sim, SimNode, eventually},
    trust::{Claims, LEEWAY, Reason, RefusedBy, Renewing, Revoked, Scope},
};
use tokio::time::sleep;

use super::streams::Data1;

const NET: NetworkId = NetworkId::from_name("tickets in time");
/// When a simulation begins, seconds since the Unix epoch.
const BEGIN: u64 = 1_767_225_600;
const SOON: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_hours(1);

fn authority(n: u8) -> Authority {
    Authority::from_bytes(&[n; 32])
}

/// With a grant that names the authority.
fn claims(n: u8, until: u64) -> Claims {
    Claims::new(BEGIN, BEGIN + until).with_grant(format!("of {n}"))
}

fn issue(n: u8, node: &SimNode, until: u64) -> Ticket {
    authority(n).issue(NET, node.id(), claims(n, until)).unwrap()
}

/// Nodes that have tickets of the first authority for so many seconds, and know the first of them.
async fn with_tickets(sim: &Sim, until: &[u64]) -> (Vec<SimNode>, Vec<Network>) {
    sim.rendezvous(false);
    let machines: Vec<_> = (0..until.len()).map(|n| sim.node(&format!("n{n}"))).collect();
    let start = machines.iter().zip(until).map(|(machine, until)| {
        let builder = machine.builder(NET).with_authority(authority(1).id()).with_ticket(issue(1, machine, *until));
        builder.with_bootstrap(machines[0].addr()).build()
    });
    let nodes = join_all(start).await.into_iter().map(Result::unwrap).collect();
    (machines, nodes)
}

fn all_known(nodes: &[Network]) -> bool {
    nodes.iter().all(|node| node.discovery().catalog().len() == nodes.len())
}

/// Whether all know of all that they have a grant.
fn all_granted(nodes: &[Network], grant: &str) -> bool {
    let granted = |node: &Network| node.discovery().catalog().iter().all(|peer| peer.grants().contains(grant));
    all_known(nodes) && nodes.iter().all(granted)
}

fn refused(node: &Network, peer: &Network) -> Option<(RefusedBy, Reason)> {
    let refusal = node.trust().refusals().into_iter().find(|refusal| refusal.peer == peer.local().id())?;
    Some((refusal.by, refusal.reason))
}

fn refusals(nodes: &[Network]) -> Vec<String> {
    nodes.iter().flat_map(|node| node.trust().refusals()).map(|refusal| refusal.to_string()).collect()
}

/// A stream from one node to others, which takes note of each end of a subscription.
struct Line {
    producer: Producer<Data1>,
    consumers: Vec<Consumer<Data1>>,
    sent: u64,
}

impl Line {
    async fn new(from: &Network, to: &[Network], grant: &'static str) -> Self {
        let producer = from.streams().producer().accept_if(move |peer| peer.grants().contains(grant)).build().unwrap();
        let consumer =
            |node: &Network| node.streams().consumer().subscribe_if(move |peer| peer.grants().contains(grant)).build();
        let line = Self { producer, consumers: to.iter().map(consumer).collect(), sent: 0 };
        assert!(eventually(SOON, || line.producer.consumers().count() == to.len()).await);
        line
    }

    async fn send(&mut self) {
        self.producer.send(Data1(self.sent)).await.unwrap();
        self.sent += 1;
    }

    /// All that was sent has come, over subscriptions that stand for so long.
    async fn assert_unbroken(&mut self, for_at_least: Duration) {
        for consumer in &mut self.consumers {
            let mut got = Vec::new();
            let all = eventually(SOON, || {
                got.extend(std::iter::from_fn(|| consumer.try_recv()));
                got.len() as u64 == self.sent
            });
            assert!(all.await);
            assert!(got.iter().map(|item| item.0).eq(0..self.sent), "{got:?}");
            let uptime = consumer.stats().uptime();
            assert!(uptime.is_some_and(|uptime| uptime >= for_at_least), "{uptime:?} instead of {for_at_least:?}");
        }
    }
}

/// How many nodes live through a day. Each costs a processor some three seconds, so that with a hundred it is minutes.
fn nodes_of_a_day() -> usize {
    std::env::var("MOSAIK_TICKET_NODES").ok().and_then(|nodes| nodes.parse().ok()).unwrap_or(4)
}

/// By strings, the first of a renewer: nobody is given a ticket for longer than an hour, and all are there after a day. Clocks that
/// differ by less than the leeway matter to nobody.
#[test]
fn tickets_are_renewed_over_a_day_and_nobody_notices() {
    Sim::run(1, |sim| async move {
        sim.rendezvous(false);
        let machines: Vec<_> = (0..nodes_of_a_day()).map(|n| sim.node(&format!("n{n}"))).collect();
        machines[2].skew(45.0);
        machines[3].skew(-45.0);
        let slow = discovery::Config::builder()
            .with_lease(Duration::from_mins(10))
            .with_renew_every(Duration::from_mins(3))
            .with_sync_every(Duration::from_mins(10));
        let join = |n: usize, machine: &SimNode, string: String| -> NetworkBuilder {
            let builder = machine.builder("another").with_join(string).with_discovery(slow.clone());
            if n == 0 { builder } else { builder.with_bootstrap(machines[0].addr()) }
        };
        let terms = Renewing::until(BEGIN + 30 * 86_400).with_life(2 * HOUR);
        let strings = (0..machines.len()).map(|n| match n {
            0 => authority(1).invite_renewer(NET, claims(1, 3_600), [], terms.clone()),
            _ => authority(1).invite(NET, claims(1, 3_600), []),
        });
        let start = machines.iter().zip(strings).enumerate();
        let start = start.map(|(n, (machine, string))| join(n, machine, string.unwrap().to_string()).build());
        let nodes: Vec<_> = join_all(start).await.into_iter().map(Result::unwrap).collect();
        assert!(eventually(SOON, || all_granted(&nodes, "of 1")).await);
        // The clocks of its two ends are 90 s apart.
        let mut line = Line::new(&nodes[2], &nodes[3..4], "of 1").await;
        let first = |node: &Network| node.trust().ticket().is_some_and(|ticket| !ticket.is_renewed());
        assert!(eventually(SOON, || !nodes.iter().any(first)).await, "first tickets are exchanged at once");
        let begun = sim.elapsed();
        for _ in 0..48 {
            sleep(HOUR / 2).await;
            line.send().await;
        }
        line.assert_unbroken(sim.elapsed() - begun).await;
        let now = BEGIN + sim.elapsed().as_secs();
        for node in &nodes {
            let ticket = node.trust().ticket().unwrap();
            assert!(ticket.is_renewed() && ticket.not_after() > now && ticket.not_before() + 7_200 > now);
        }
        assert!(all_granted(&nodes, "of 1"));
        assert_eq!(refusals(&nodes), [""; 0]);
    });
}

/// Who shows no other ticket is out when the one that it has ends, to the second and at both ends; whoever sets a clock meanwhile.
#[test]
fn an_expired_ticket_ends_standing_connections_and_a_clock_that_is_set_does_not() {
    Sim::run(2, |sim| async move {
        let day = 86_400;
        let (machines, nodes) = with_tickets(&sim, &[day, 600, 600, 600, day]).await;
        let [producer, expires, another, behind, ahead] = &nodes[..] else { unreachable!() };
        let line = Line::new(producer, &nodes[1..], "of 1").await;
        let is_served =
            |node: &Network| line.producer.consumers().any(|channel| channel.peer().id() == node.local().id());
        let at = async |secs: u64| sleep(Duration::from_secs(secs).saturating_sub(sim.elapsed())).await;

        at(300).await;
        another.trust().replace_ticket(&issue(1, &machines[2], day)).unwrap();
        machines[3].skew(-86_400.0);
        machines[4].skew(2.0 * 86_400.0);
        at(400).await;
        machines[0].skew(1_800.0);
        at(600 + LEEWAY.as_secs() - 2).await;
        assert!(nodes[1..].iter().all(is_served), "a clock was set, which is nothing");
        assert_eq!(line.producer.consumers().count(), 4);
        at(600 + LEEWAY.as_secs() + 3).await;
        assert!(!is_served(expires) && !is_served(behind), "their tickets have ended");
        assert!(is_served(another), "it has another ticket");
        assert!(is_served(ahead), "its ticket holds, whatever its clock says");
        for node in [expires, behind] {
            let not_after = BEGIN + 600;
            assert!(
                matches!(refused(producer, node), Some((RefusedBy::Us, Reason::Expired { not_after: at, .. })) if at == not_after)
            );
        }
        let told = refused(expires, producer);
        assert!(matches!(told, Some((RefusedBy::Them, Reason::Expired { .. }))), "{told:?}");
    });
}

/// All trust a second authority, get tickets of it, and no longer trust the first; then one of them is put out.
#[test]
fn a_hundred_nodes_change_their_authority_and_lose_nobody() {
    Sim::run(3, |sim| async move {
        let (machines, nodes) = with_tickets(&sim, &[3_600; 100]).await;
        assert!(eventually(SOON, || all_granted(&nodes, "of 1")).await);
        let mut line = Line::new(&nodes[1], &nodes[2..12], "of 1").await;
        let begun = sim.elapsed();
        let everything = |n| (authority(n).id(), Scope::everything());
        let trusted = |list: &[u8]| {
            let list: Vec<_> = list.iter().map(|n| everything(*n)).collect();
            nodes.iter().all(|node| node.trust().authorities() == list)
        };
        let list = authority(1).list(NET, 1, [everything(1), everything(2)]).unwrap();
        assert_eq!(nodes[0].trust().trust_authorities(&list), Ok(true));
        assert_eq!(nodes[0].trust().trust_authorities(&list), Ok(false), "said twice");
        let since = sim.elapsed();
        assert!(eventually(SOON, || trusted(&[1, 2])).await);
        eprintln!("100 nodes trust another authority after {:?}", sim.elapsed() - since);

        for (node, machine) in nodes.iter().zip(&machines) {
            let claims = claims(2, 7_200).with_grant("of 1");
            node.trust().replace_ticket(&authority(2).issue(NET, machine.id(), claims).unwrap()).unwrap();
        }
        line.send().await;
        let since = sim.elapsed();
        assert!(eventually(Duration::from_mins(2), || all_granted(&nodes, "of 2")).await);
        eprintln!("100 tickets are known to 100 nodes after {:?}", sim.elapsed() - since);
        let list = authority(2).list(NET, 2, [everything(2)]).unwrap();
        assert_eq!(nodes[99].trust().trust_authorities(&list), Ok(true));
        assert!(eventually(SOON, || trusted(&[2])).await);
        // Whatever happens every few seconds has happened.
        sleep(Duration::from_secs(12)).await;
        line.send().await;
        assert!(all_granted(&nodes, "of 2"));
        assert_eq!(refusals(&nodes), [""; 0]);
        line.assert_unbroken(sim.elapsed() - begun).await;

        let what = Revoked::Peer(machines[50].id());
        let since = sim.elapsed();
        assert_eq!(nodes[7].trust().revoke(&authority(2).revoke(NET, what).unwrap()), Ok(true));
        let others = || nodes.iter().filter(|node| node.local().id() != machines[50].id());
        assert!(eventually(SOON, || others().all(|node| node.trust().revoked() == [what])).await);
        let took = sim.elapsed() - since;
        eprintln!("a revocation is known to 99 nodes after {took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        // What the first authority says counts no more.
        assert!(nodes[7].trust().revoke(&authority(1).revoke(NET, what).unwrap()).is_err());
        let list = authority(1).list(NET, 3, [everything(1)]).unwrap();
        assert!(nodes[7].trust().trust_authorities(&list).is_err());
    });
}

/// An authority that can give only some grants: another one is refused with the reason, at both ends, and it takes nothing back.
#[test]
fn an_authority_gives_what_is_in_its_scope() {
    Sim::run(4, |sim| async move {
        sim.rendezvous(false);
        let [hub, guest, greedy] = ["hub", "guest", "greedy"].map(|name| sim.node(name));
        let scope = || Scope::nothing().with_grant("of 2");
        let join = async |machine: &SimNode, ticket: Ticket| {
            let builder = machine.builder(NET).with_authority(authority(1).id());
            let builder = builder.with_scoped_authority(authority(2).id(), scope()).with_ticket(ticket);
            builder.with_bootstrap(hub.addr()).build().await.unwrap()
        };
        let node = join(&hub, issue(1, &hub, 3_600)).await;
        let fits = join(&guest, issue(2, &guest, 3_600)).await;
        assert!(eventually(SOON, || all_known(&[node.clone(), fits.clone()])).await, "{:?}", node.trust().refusals());
        let claims = claims(2, 3_600).with_role("builder");
        let too_much = join(&greedy, authority(2).issue(NET, greedy.id(), claims).unwrap()).await;
        let reason = Reason::OutOfScope { authority: authority(2).id(), what: "role builder".to_owned() };
        let both = || [refused(&node, &too_much), refused(&too_much, &node)];
        assert!(eventually(SOON, || both().iter().all(Option::is_some)).await);
        assert_eq!(both(), [Some((RefusedBy::Us, reason.clone())), Some((RefusedBy::Them, reason))]);
        let revoked = node.trust().revoke(&authority(2).revoke(NET, Revoked::Peer(hub.id())).unwrap());
        assert!(revoked.is_err() && node.trust().revoked().is_empty());

        // The scope is changed while the network runs: what is in it now is let in.
        let wider = [(authority(1).id(), Scope::everything()), (authority(2).id(), scope().with_role("builder"))];
        let list = authority(1).list(NET, 1, wider).unwrap();
        assert_eq!(node.trust().trust_authorities(&list), Ok(true));
        assert_eq!(too_much.trust().trust_authorities(&list), Ok(true));
        let met = || all_known(&[node.clone(), fits.clone(), too_much.clone()]);
        assert!(eventually(Duration::from_mins(2), met).await, "{:?}", node.trust().refusals());
    });
}
