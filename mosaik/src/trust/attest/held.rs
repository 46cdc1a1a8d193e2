//! What a node has of evidence: its own, whose it verifies, and what it has verified.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use super::{AttestError, Evidence, MAX_COLLATERAL, MAX_COLLATERALS, Shown, policy::ATTESTED, record::Attested};
use crate::{primitives::PeerId, trust::Trust};

/// What a node makes, what it verifies, and of whom it asks for some.
#[derive(Clone, Default)]
pub(crate) struct Evidences {
    makes: Option<Arc<dyn Evidence>>,
    verifies: Vec<Arc<dyn Evidence>>,
    pub(crate) demand: Demand,
}

/// Of whom evidence is asked for, beside what declarations name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Of nobody.
    #[default]
    Nobody,
    /// Of everybody at the other end of something that is declared here.
    Everybody,
    /// Of nobody, although a role would ask for it: a trial.
    Waived,
}

impl Evidences {
    /// Makes this kind, and verifies it.
    pub(crate) fn make(&mut self, evidence: impl Evidence) {
        let evidence: Arc<dyn Evidence> = Arc::new(evidence);
        self.makes = Some(evidence.clone());
        self.verifies.push(evidence);
    }

    /// Verifies this kind.
    pub(crate) fn verify(&mut self, evidence: impl Evidence) {
        self.verifies.push(Arc::new(evidence));
    }

    /// Whether everybody is asked for what nobody here could verify.
    pub(crate) fn asks_in_vain(&self) -> bool {
        self.demand == Demand::Everybody && self.verifies.is_empty()
    }
}

impl fmt::Debug for Evidences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verifies: Vec<_> = self.verifies.iter().map(|it| it.kind()).collect();
        let makes = self.makes.as_ref().map(|it| it.kind());
        let mut f = f.debug_struct("Evidences");
        f.field("makes", &makes).field("verifies", &verifies).field("demand", &self.demand).finish()
    }
}

/// Part of the state of [`Trust`].
#[derive(Debug, Default)]
pub(in crate::trust) struct Held {
    /// This node.
    me: Option<PeerId>,
    evidences: Evidences,
    own: Option<Shown>,
    attested: Attested,
}

/// Names a piece of collateral: BLAKE3 of it.
pub(crate) type CollateralDigest = [u8; 32];

fn named(pieces: impl IntoIterator<Item = Arc<[u8]>>) -> BTreeMap<CollateralDigest, Arc<[u8]>> {
    let pieces = pieces.into_iter().filter(|piece| piece.len() <= MAX_COLLATERAL).take(MAX_COLLATERALS);
    pieces.map(|piece| (*blake3::hash(&piece).as_bytes(), piece)).collect()
}

impl Held {
    fn kinds(&self) -> Vec<String> {
        let kinds = self.evidences.verifies.iter().map(|verifier| format!("{ATTESTED}{}", verifier.kind()));
        kinds.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl Trust {
    /// What this node makes, and what it verifies. Before anything else is asked.
    pub(crate) fn set_attestation(&self, me: PeerId, evidences: Evidences) {
        self.state().attest = Held { me: Some(me), evidences, ..Held::default() };
    }

    /// Whether everybody is asked for evidence.
    pub(crate) fn demands_evidence(&self) -> bool {
        self.state().attest.evidences.demand == Demand::Everybody
    }

    /// Whether nobody is, although a role would.
    pub(crate) fn waives_evidence(&self) -> bool {
        self.state().attest.evidences.demand == Demand::Waived
    }

    /// The grants of evidence of which a peer needs one, whatever is declared; of this node nothing is asked.
    pub(in crate::trust) fn demanded(&self, peer: PeerId) -> Vec<String> {
        let state = self.state();
        let asks = state.attest.evidences.demand == Demand::Everybody && state.attest.me != Some(peer);
        if asks { state.attest.kinds() } else { Vec::new() }
    }

    /// The grants of the kinds that this node verifies.
    pub(in crate::trust) fn verified_kinds(&self) -> Vec<String> {
        self.state().attest.kinds()
    }

    /// Whether this node makes evidence.
    pub(crate) fn makes_evidence(&self) -> bool {
        self.state().attest.evidences.makes.is_some()
    }

    /// Whether this node verifies evidence.
    pub(crate) fn verifies_evidence(&self) -> bool {
        !self.state().attest.evidences.verifies.is_empty()
    }

    /// Makes evidence anew, and judges it as others will. Blocks. `now`: seconds since the Unix epoch.
    pub(crate) fn make_evidence(&self, me: PeerId, now: u64) -> Result<(), AttestError> {
        let Some(makes) = self.state().attest.evidences.makes.clone() else { return Ok(()) };
        let shown = Shown::make(&*makes, self.0.network, me, now)?;
        self.state().attest.own = Some(shown.clone());
        self.attest(me, &shown, now)
    }

    /// This node's newest evidence.
    pub(crate) fn evidence(&self) -> Option<Shown> {
        self.state().attest.own.clone()
    }

    /// Takes in what a peer has shown, if it is good. Blocks. `now`: seconds since the Unix epoch.
    pub(crate) fn attest(&self, peer: PeerId, shown: &Shown, now: u64) -> Result<(), AttestError> {
        let verifies = self.state().attest.evidences.verifies.clone();
        let (claims, proved_until) =
            shown.verify(verifies.iter().map(|verifier| &**verifier), self.0.network, peer, now)?;
        self.state().attest.attested.set(peer, claims, proved_until);
        Ok(())
    }

    /// The pieces of collateral that others are given with this node's evidence, by their digests.
    pub(crate) fn collateral(&self) -> BTreeMap<CollateralDigest, Arc<[u8]>> {
        let makes = self.state().attest.evidences.makes.clone();
        named(makes.iter().flat_map(|it| it.collateral()))
    }

    /// The digests of what is known of a kind of evidence; nothing if it is not verified here.
    pub(crate) fn known_collateral(&self, kind: &str) -> Option<BTreeSet<CollateralDigest>> {
        let verifier = self.verifier(kind)?;
        Some(named(verifier.collateral()).into_keys().collect())
    }

    /// Takes in a piece that a peer gave.
    pub(crate) fn take_collateral(&self, kind: &str, piece: &[u8]) -> Result<(), AttestError> {
        self.verifier(kind).map_or(Ok(()), |verifier| verifier.take_collateral(piece))
    }

    fn verifier(&self, kind: &str) -> Option<Arc<dyn Evidence>> {
        self.state().attest.evidences.verifies.iter().find(|verifier| verifier.kind() == kind).cloned()
    }

    /// Until when this node's own evidence could be made anew by what is known of its machine: seconds since the Unix epoch.
    pub(crate) fn attestable_until(&self, peer: PeerId) -> Option<u64> {
        self.state().attest.attested.proved_until(peer)
    }

    /// When the evidence of a peer ends: seconds since the Unix epoch.
    pub(crate) fn attested_until(&self, peer: PeerId) -> Option<u64> {
        self.state().attest.attested.until(peer)
    }

    /// What the evidence of a peer grants now.
    pub(in crate::trust) fn attested(&self, peer: PeerId) -> Vec<String> {
        let clocks = [self.now(), self.steady_now()];
        self.state().attest.attested.grants(peer, clocks).map(str::to_owned).collect()
    }
}
