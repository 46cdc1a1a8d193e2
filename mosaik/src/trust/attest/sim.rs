//! Simulated evidence, for tests: signed with keys that everybody knows, so that nothing but a [`SimEvidence`] accepts it. It is refused
//! for every reason for which real evidence is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use iroh::{SecretKey, Signature};
use serde::{Deserialize, Serialize};

use super::{AttestError, Challenge, Evidence, Measurements, Policy, Report};
use crate::{primitives::PeerId, trust::Claims};

const KIND: &str = "sim";
/// The root that a verifier knows, and one that it does not.
const ROOT: [u8; 32] = *b"the root of simulated platforms.";
const FOREIGN_ROOT: [u8; 32] = *b"another root of such platforms..";

/// What evidence begins with, so that it is mistaken for nothing else.
const MAGIC: [u8; 16] = *b"mosaik simulated";

/// A machine that makes evidence, whose facts tests change while it runs.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub struct SimPlatform {
    /// Its number: another number is another machine, with a key of its own.
    pub number: u8,
    /// Certified by a root that no verifier knows.
    pub foreign: bool,
    /// The environment runs in debug mode.
    pub debug: bool,
    /// What is measured.
    pub registers: BTreeMap<String, Vec<u8>>,
    /// The status of the platform.
    pub status: String,
    /// Whether its vendor has revoked it.
    pub revoked: bool,
    /// Until when the vendor's word holds: seconds since the Unix epoch.
    pub collateral_until: u64,
    /// It can make no evidence.
    pub broken: bool,
}

impl SimPlatform {
    /// A machine that is up to date, with the vendor's word until then and a register `code` of 32 times its number.
    #[must_use]
    pub fn new(number: u8, collateral_until: u64) -> Self {
        Self {
            number,
            foreign: false,
            debug: false,
            registers: [(String::from("code"), vec![number; 32])].into(),
            status: String::from("UpToDate"),
            revoked: false,
            collateral_until,
            broken: false,
        }
    }

    /// The same, running what has this name there.
    ///
    /// # Panics
    /// When nothing has.
    #[must_use]
    pub fn running(mut self, name: &str, known: &Measurements) -> Self {
        self.registers = known.get(name).unwrap_or_else(|| panic!("nothing is named {name}")).clone();
        self
    }

    fn key(&self) -> SecretKey {
        SecretKey::from_bytes(&[self.number; 32])
    }
}

/// Simulated evidence of a machine, of kind `sim`. Clones are of the same machine.
#[derive(Clone, Debug)]
pub struct SimEvidence {
    platform: Arc<Mutex<SimPlatform>>,
    policy: Policy,
}

/// As it travels.
#[derive(Debug, Serialize, Deserialize)]
struct Quote {
    magic: [u8; 16],
    /// The machine's key, and the root's signature of it.
    platform: PeerId,
    certificate: Signature,
    body: Vec<u8>,
    signature: Signature,
    /// The vendor's word, and the root's signature of it.
    collateral: Vec<u8>,
    word: Signature,
}

#[derive(Debug, Serialize, Deserialize)]
struct Body {
    data: Vec<u8>,
    debug: bool,
    registers: BTreeMap<String, Vec<u8>>,
    status: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Collateral {
    until: u64,
    revoked: Vec<PeerId>,
}

impl SimEvidence {
    /// Of this machine, judging others by this policy.
    #[must_use]
    pub fn new(platform: SimPlatform, policy: Policy) -> Self {
        Self { platform: Arc::new(Mutex::new(platform)), policy }
    }

    /// Changes the machine.
    pub fn change(&self, change: impl FnOnce(&mut SimPlatform)) {
        change(&mut self.platform.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn read(evidence: &[u8]) -> Result<Quote, AttestError> {
        let undecodable = |why: &str| AttestError::Undecodable { why: why.to_owned() };
        let quote: Quote = postcard::from_bytes(evidence).map_err(|_| undecodable("no simulated quote"))?;
        if quote.magic != MAGIC {
            return Err(undecodable("it does not begin as a simulated quote"));
        }
        Ok(quote)
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, AttestError> {
    postcard::to_allocvec(value).map_err(|error| AttestError::Unavailable { why: error.to_string() })
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, AttestError> {
    postcard::from_bytes(bytes).map_err(|error| AttestError::Undecodable { why: error.to_string() })
}

impl Evidence for SimEvidence {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn make(&self, challenge: &Challenge) -> Result<Vec<u8>, AttestError> {
        let platform = self.platform.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if platform.broken {
            return Err(AttestError::Unavailable { why: String::from("the simulated machine is broken") });
        }
        let root = SecretKey::from_bytes(if platform.foreign { &FOREIGN_ROOT } else { &ROOT });
        let (key, id) = (platform.key(), PeerId::from(platform.key().public()));
        let data = challenge.as_bytes().to_vec();
        let body =
            encode(&Body { data, debug: platform.debug, registers: platform.registers, status: platform.status })?;
        let revoked = if platform.revoked { vec![id] } else { Vec::new() };
        let collateral = encode(&Collateral { until: platform.collateral_until, revoked })?;
        encode(&Quote {
            magic: MAGIC,
            platform: id,
            certificate: root.sign(id.as_bytes()),
            signature: key.sign(&body),
            body,
            word: root.sign(&collateral),
            collateral,
        })
    }

    fn verify(&self, evidence: &[u8], challenge: &Challenge, now: u64) -> Result<Claims, AttestError> {
        let quote = Self::read(evidence)?;
        let root = SecretKey::from_bytes(&ROOT).public();
        root.verify(quote.platform.as_bytes(), &quote.certificate).map_err(|_| AttestError::ForeignChain)?;
        let forged = |what: &str| AttestError::Forged { what: what.to_owned() };
        root.verify(&quote.collateral, &quote.word).map_err(|_| forged("the vendor's word"))?;
        let platform =
            iroh::PublicKey::from_bytes(quote.platform.as_bytes()).map_err(|_| forged("the platform's key"))?;
        platform.verify(&quote.body, &quote.signature).map_err(|_| forged("the quote"))?;
        let (collateral, body): (Collateral, Body) = (decode(&quote.collateral)?, decode(&quote.body)?);
        if collateral.revoked.contains(&quote.platform) {
            return Err(AttestError::Revoked { what: String::from("the platform's key") });
        }
        let report_data = body
            .data
            .try_into()
            .map_err(|_| AttestError::Undecodable { why: String::from("report data of 64 bytes") })?;
        let report = Report {
            kind: KIND,
            report_data,
            debug: body.debug,
            registers: body.registers,
            status: body.status,
            collateral_until: collateral.until,
        };
        self.policy.appraise(&report, challenge, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::record::Shown, *};
    use crate::primitives::NetworkId;

    const NOW: u64 = 100_000_000;

    fn peer(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).public().into()
    }

    fn policy() -> Policy {
        let code = |n: u8| [("code", vec![n; 32])];
        let known = Measurements::default().with("seven", code(7)).and_then(|known| known.with("eight", code(8)));
        Policy::default().with_measurements(known.expect("is in order"))
    }

    fn verified(change: impl FnOnce(&mut SimPlatform)) -> Result<Vec<String>, AttestError> {
        let evidence = SimEvidence::new(SimPlatform::new(7, NOW + 100), policy());
        evidence.change(change);
        judged(&evidence, &shown(&evidence)?, peer(1), NOW)
    }

    fn shown(evidence: &SimEvidence) -> Result<Shown, AttestError> {
        Shown::make(evidence, "n".into(), peer(1), NOW)
    }

    fn judged(evidence: &SimEvidence, shown: &Shown, of: PeerId, now: u64) -> Result<Vec<String>, AttestError> {
        let (claims, _) = shown.verify([evidence as &dyn Evidence], NetworkId::from("n"), of, now)?;
        Ok(claims.grants.into_iter().collect())
    }

    #[test]
    fn what_is_proved_becomes_grants() {
        assert_eq!(verified(|_| {}), Ok(vec!["attested:sim".to_owned(), "measured:seven".to_owned()]));
    }

    #[test]
    fn each_thing_that_is_wrong_has_its_own_reason() {
        assert_eq!(verified(|it| it.foreign = true), Err(AttestError::ForeignChain));
        assert_eq!(verified(|it| it.debug = true), Err(AttestError::Debug));
        let revoked = AttestError::Revoked { what: "the platform's key".into() };
        assert_eq!(verified(|it| it.revoked = true), Err(revoked));
        let status = AttestError::Status { status: "OutOfDate".into(), accepted: "UpToDate".into() };
        assert_eq!(verified(|it| it.status = "OutOfDate".into()), Err(status));
        let grace = Policy::default().grace().as_secs();
        assert!(verified(|it| it.collateral_until = NOW - grace).is_ok());
        let stale = AttestError::StaleCollateral { late: grace + 1, grace };
        assert_eq!(verified(|it| it.collateral_until = NOW - grace - 1), Err(stale));
        let off = verified(|it| {
            it.registers.entry("code".into()).and_modify(|code| code[31] ^= 1);
        });
        assert_eq!(off, Err(AttestError::Measurement { register: "code".into(), theirs: "07".repeat(16) + ".." }));
        assert!(matches!(verified(|it| it.broken = true), Err(AttestError::Unavailable { .. })));
    }

    #[test]
    fn evidence_is_worth_nothing_for_another_peer_network_or_time() {
        let evidence = SimEvidence::new(SimPlatform::new(7, NOW + 100), policy());
        let own = shown(&evidence).expect("is made");
        assert!(judged(&evidence, &own, peer(1), NOW).is_ok());
        assert_eq!(judged(&evidence, &own, peer(2), NOW), Err(AttestError::AnotherPeer));
        let elsewhere = own.verify([&evidence as &dyn Evidence], NetworkId::from("m"), peer(1), NOW);
        assert_eq!(elsewhere, Err(AttestError::AnotherPeer));
        let fresh = Shown { made: NOW + 1, ..own.clone() };
        assert_eq!(judged(&evidence, &fresh, peer(1), NOW), Err(AttestError::AnotherPeer));
        let day = Duration::from_hours(24).as_secs();
        assert!(judged(&evidence, &own, peer(1), NOW + day).is_ok());
        assert_eq!(
            judged(&evidence, &own, peer(1), NOW + day + 1),
            Err(AttestError::TooOld { age: day + 1, max: day })
        );
        assert_eq!(judged(&evidence, &own, peer(1), NOW - 61), Err(AttestError::NotYet { ahead: 61 }));
        let nobody = own.verify([], NetworkId::from("n"), peer(1), NOW);
        assert_eq!(nobody, Err(AttestError::Kind { theirs: "sim".into() }));
    }

    #[test]
    fn a_changed_bit_is_noticed_wherever_it_is() {
        let evidence = SimEvidence::new(SimPlatform::new(7, NOW + 100), policy());
        let own = shown(&evidence).expect("is made");
        let mut reasons = std::collections::BTreeSet::new();
        for at in 0..own.evidence.len() {
            let mut changed = own.clone();
            changed.evidence[at] ^= 1;
            let error = judged(&evidence, &changed, peer(1), NOW).expect_err("is noticed");
            reasons.insert(error.to_string().split(':').next().unwrap_or_default().to_owned());
        }
        assert!(reasons.contains("a signature is wrong"), "{reasons:?}");
        assert!(reasons.contains("the chain of certificates ends at a foreign root"), "{reasons:?}");
    }
}
