//! Attestation in a network: what simulated evidence proves is granted, what does not pass a check is named at both ends, and evidence that is
//! not renewed ends.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use mosaik::{
    Authority, Network, NetworkId, PeerId, discovery,
    network::NetworkBuilder,
    streams::{Consumer, Event, Producer},
    testing::{Sim, SimNode, eventually},
    trust::{
        Claims, MissingGrant, Reason, RefusedBy,
        attest::{AttestError, Challenge, Evidence, Measurements, Policy, SimEvidence, SimPlatform},
    },
};
use tokio::time::sleep;

use super::streams::{Data1, event, soon};

const NET: NetworkId = NetworkId::from_name("attestation tests");
/// When a simulation begins, seconds since the Unix epoch.
const BEGIN: u64 = 1_767_225_600;
const SOON: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_hours(1);
const DAY: u64 = 86_400;

fn policy() -> Policy {
    let known = Measurements::default().with("builder-7", [("code", vec![7; 32])]).unwrap();
    Policy::default().with_measurements(known)
}

/// A machine that runs what is accepted.
fn evidence() -> SimEvidence {
    SimEvidence::new(SimPlatform::new(7, BEGIN + DAY), policy())
}

fn builder(node: &SimNode) -> NetworkBuilder {
    let authority = Authority::from_bytes(&[1; 32]);
    let ticket = authority.issue(NET, node.id(), Claims::new(BEGIN, BEGIN + 30 * DAY)).unwrap();
    node.builder(NET).with_authority(authority.id()).with_ticket(ticket)
}

/// A node that verifies evidence and shows none.
async fn verifier(node: &SimNode) -> Network {
    builder(node).with_verifier(evidence()).build().await.unwrap()
}

async fn attested(node: &SimNode, evidence: impl Evidence) -> Network {
    builder(node).with_evidence(evidence).build().await.unwrap()
}

fn produces(network: &Network, grant: &str) -> Producer<Data1> {
    network.streams().producer().with_stream_id("bids").with_consume_grants([grant]).build().unwrap()
}

fn consumes(network: &Network) -> Consumer<Data1> {
    network.streams().consumer().with_stream_id("bids").build()
}

fn not_granted(event: &Event) -> Option<MissingGrant> {
    match event {
        Event::NotGranted { missing, .. } => Some(missing.clone()),
        _ => None,
    }
}

/// What a node says of the evidence of a peer, and who refused.
fn refused(node: &Network, peer: &Network) -> Option<(RefusedBy, AttestError)> {
    let about = node.trust().refusals().into_iter().filter(|refusal| refusal.peer == peer.local().id());
    about.map(|refusal| (refusal.by, refusal.reason)).find_map(|(by, reason)| match reason {
        Reason::Attestation(error) => Some((by, error)),
        _ => None,
    })
}

fn grants(node: &Network, peer: PeerId) -> Vec<String> {
    let catalog = node.discovery().catalog();
    catalog.get(peer).map_or_else(Vec::new, |entry| entry.grants().iter().map(str::to_owned).collect())
}

#[test]
fn what_evidence_proves_is_granted() {
    Sim::run(1, |sim| async move {
        let [owner, good, plain] = ["owner", "good", "plain"].map(|name| sim.node(name));
        let (owner, plain) = (verifier(&owner).await, builder(&plain).build().await.unwrap());
        let good = attested(&good, evidence()).await;
        let producer = produces(&owner, "measured:builder-7");
        let (mut served, waits) = (consumes(&good), consumes(&plain));
        let missing = event(&mut waits.events(), not_granted).await;
        assert_eq!((missing.have.len(), missing.need), (0, vec!["measured:builder-7".to_owned()]));
        soon("a subscription", producer.when().subscribed()).await;
        producer.send(Data1(1)).await.unwrap();
        assert_eq!(served.next().await, Some(Data1(1)));
        let proved = ["attested:sim", "measured:builder-7"];
        assert_eq!(
            (grants(&owner, good.local().id()), producer.consumers().count()),
            (proved.map(str::to_owned).to_vec(), 1)
        );
        // Who verifies nothing is not told.
        assert_eq!(grants(&plain, good.local().id()), [""; 0]);
        assert_eq!((refused(&owner, &good), refused(&owner, &plain)), (None, None));
    });
}

/// Evidence of a machine of somebody else.
struct Borrowed(SimEvidence, Challenge);

impl Evidence for Borrowed {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn make(&self, _: &Challenge) -> Result<Vec<u8>, AttestError> {
        self.0.make(&self.1)
    }

    fn verify(&self, evidence: &[u8], challenge: &Challenge, now: u64) -> Result<Claims, AttestError> {
        self.0.verify(evidence, challenge, now)
    }
}

/// A kind of which a production verifier knows nothing.
struct Renamed(SimEvidence);

impl Evidence for Renamed {
    fn kind(&self) -> &'static str {
        "tdx"
    }

    fn make(&self, challenge: &Challenge) -> Result<Vec<u8>, AttestError> {
        self.0.make(challenge)
    }

    fn verify(&self, evidence: &[u8], challenge: &Challenge, now: u64) -> Result<Claims, AttestError> {
        self.0.verify(evidence, challenge, now)
    }
}

type Change = fn(&mut SimPlatform);

#[test]
fn both_ends_name_the_check_that_evidence_does_not_pass() {
    Sim::run(2, |sim| async move {
        let owner = verifier(&sim.node("owner")).await;
        let producer = produces(&owner, "attested:sim");
        let changes: [(&str, Change); 6] = [
            ("the chain of certificates ends at a foreign root", |it| it.foreign = true),
            ("the environment runs in debug mode", |it| it.debug = true),
            ("revoked by the vendor: the platform's key", |it| it.revoked = true),
            ("the platform is OutOfDate, accepted is UpToDate", |it| it.status = "OutOfDate".into()),
            ("the vendor's word on the platform ended", |it| it.collateral_until = BEGIN - 15 * DAY),
            ("code is 07070707070707070707070707070707.., which is none of the measurements", |it| {
                it.registers.entry("code".into()).and_modify(|code| code[31] ^= 1);
            }),
        ];
        let mut bad = Vec::new();
        for (n, (says, change)) in changes.into_iter().enumerate() {
            let machine = evidence();
            machine.change(change);
            bad.push((says, attested(&sim.node(&format!("bad{n}")), machine).await));
        }
        let borrowed = Borrowed(evidence(), Challenge::new(NET, owner.local().id(), BEGIN));
        bad.push(("it is not about this peer", attested(&sim.node("borrowed"), borrowed).await));
        bad.push((
            "evidence of the kind tdx, which is not verified here",
            attested(&sim.node("renamed"), Renamed(evidence())).await,
        ));
        let broken = evidence();
        broken.change(|it| it.broken = true);
        bad.push(("no evidence was shown", attested(&sim.node("broken"), broken).await));

        let waiting: Vec<_> = bad.iter().map(|(_, node)| consumes(node)).collect();
        for (says, node) in &bad {
            let both = || refused(&owner, node).is_some() && refused(node, &owner).is_some();
            assert!(
                eventually(SOON, both).await,
                "{says}: {:?} {:?}",
                owner.trust().refusals(),
                node.trust().refusals()
            );
            let (by, error) = refused(&owner, node).unwrap();
            assert!(by == RefusedBy::Us && error.to_string().starts_with(says), "{says}: {error}");
            assert_eq!(refused(node, &owner), Some((RefusedBy::Them, error)));
            assert_eq!(grants(&owner, node.local().id()), [""; 0]);
        }
        assert_eq!(
            (producer.consumers().count(), waiting.iter().map(|it| it.producers().count()).sum::<usize>()),
            (0, 0)
        );
        assert!(owner.trust().refused()["attestation"] >= bad.len() as u64);
    });
}

/// How many hours without a word of the vendor are lived through. An hour of a node costs a processor an eighth of a second.
fn hours() -> u64 {
    std::env::var("MOSAIK_ATTEST_HOURS").ok().and_then(|hours| hours.parse().ok()).unwrap_or(30).max(30)
}

/// The vendor's word ends after an hour and nobody can fetch another: who is sound loses nothing. Who can make no evidence any more is
/// there for as long as the last one counts.
#[test]
fn evidence_is_renewed_without_the_vendor_and_ends_where_it_is_not() {
    Sim::run(3, |sim| async move {
        let slow = discovery::Config::builder()
            .with_lease(Duration::from_mins(10))
            .with_renew_every(Duration::from_mins(3))
            .with_sync_every(Duration::from_mins(10));
        let [owner, sound, lost] = ["owner", "sound", "lost"].map(|name| sim.node(name));
        let machine = || SimEvidence::new(SimPlatform::new(7, BEGIN + 3_600), policy());
        let start = async |node: &SimNode, evidence: &SimEvidence| {
            builder(node).with_discovery(slow.clone()).with_evidence(evidence.clone()).build().await.unwrap()
        };
        let (breaks, sound_machine) = (machine(), machine());
        let owner = builder(&owner).with_discovery(slow.clone()).with_verifier(evidence()).build().await.unwrap();
        let (sound, lost) = (start(&sound, &sound_machine).await, start(&lost, &breaks).await);
        let producer = produces(&owner, "attested:sim");
        let (consumer, other) = (consumes(&sound), consumes(&lost));
        assert!(eventually(SOON, || producer.consumers().count() == 2).await);
        let (mut events, mut others) = (consumer.events(), other.events());
        breaks.change(|it| it.broken = true);
        let begun = sim.elapsed();
        let ended = |event: &Event| matches!(event, Event::Disconnected { .. }).then_some(());
        let end = async {
            while ended(&others.next().await.unwrap()).is_none() {}
            sim.elapsed() - begun
        };
        let whole = async {
            sleep(HOUR * u32::try_from(hours()).unwrap()).await;
        };
        let (ended_after, ()) = futures::join!(end, whole);
        assert!(ended_after > 23 * HOUR && ended_after < 24 * HOUR + Duration::from_mins(5), "{ended_after:?}");
        assert!(futures::FutureExt::now_or_never(events.next()).is_none(), "no event");
        let uptime = consumer.stats().uptime().unwrap();
        assert!(uptime + Duration::from_mins(1) > sim.elapsed() - begun, "{uptime:?}");
        assert!(grants(&owner, sound.local().id()).contains(&"attested:sim".to_owned()));
        assert_eq!(producer.consumers().count(), 1);
        assert!(refused(&owner, &sound).is_none(), "{:?}", owner.trust().refusals());
    });
}

/// An implementation may say what it likes: what is no proof of what runs is nobody's grant.
#[test]
fn evidence_gives_no_rights() {
    struct Generous(Arc<str>);
    impl Evidence for Generous {
        fn kind(&self) -> &'static str {
            "generous"
        }

        fn make(&self, challenge: &Challenge) -> Result<Vec<u8>, AttestError> {
            Ok(challenge.as_bytes().to_vec())
        }

        fn verify(&self, evidence: &[u8], challenge: &Challenge, now: u64) -> Result<Claims, AttestError> {
            let claims =
                Claims::new(0, now + DAY).with_grant("attested:generous").with_role("builder").with_grant(&*self.0);
            if evidence == challenge.as_bytes() { Ok(claims) } else { Err(AttestError::AnotherPeer) }
        }
    }
    Sim::run(4, |sim| async move {
        let [one, two] = ["one", "two"].map(|name| sim.node(name));
        let one = attested(&one, Generous("clears:private".into())).await;
        let two = attested(&two, Generous("clears:private".into())).await;
        let known = || grants(&one, two.local().id()) == ["attested:generous"];
        assert!(eventually(SOON, known).await, "{:?}", grants(&one, two.local().id()));
    });
}
