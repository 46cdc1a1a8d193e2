//! [`Pool`]: Intel's word on platforms, the *collateral*, by the kind of platform (FMSPC): the newest that a quote was verified with, and
//! what has come since. Pure.
//!
//! Invariant: what is given to others was good, and it is never replaced by something older, so that what Intel has revoked stays so for who
//! has heard of it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use dcap_qvl::{QuoteCollateralV3, TcbInfo};
use x509_cert::{crl::CertificateList, der::Decode};

use crate::trust::attest::{AttestError, MAX_COLLATERAL, MAX_COLLATERALS};

/// Kinds of platforms of which something is kept.
const MAX_PLATFORMS: usize = 64;
/// What was not used so far, of one kind of platform.
const MAX_UNTRIED: usize = 4;
/// How often a source is asked for one kind of platform, in seconds.
const ASK_AGAIN: u64 = 3_600;

/// A kind of platform, as its vendor numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Platform(pub(super) [u8; 6]);

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Intel's word, as it was read; nothing in it is verified.
#[derive(Debug)]
pub(super) struct Collateral {
    pub(super) content: QuoteCollateralV3,
    platform: Platform,
    /// When it was issued, in the form of RFC 3339 and UTC, so that texts compare as times do.
    issued: String,
    /// When its revocation lists were issued, that of the root first: seconds since the Unix epoch.
    pub(super) listed: [u64; 2],
    /// As it travels.
    bytes: Arc<[u8]>,
}

impl Collateral {
    pub(super) fn read(json: &[u8]) -> Result<Self, AttestError> {
        let undecodable = |why: String| AttestError::Undecodable { why: format!("collateral: {why}") };
        if json.len() > MAX_COLLATERAL {
            return Err(undecodable(format!("{} bytes are longer than {MAX_COLLATERAL}", json.len())));
        }
        let mut content: QuoteCollateralV3 =
            serde_json::from_slice(json).map_err(|error| undecodable(error.to_string()))?;
        // That of one machine; each shows its own in its quote.
        content.pck_certificate_chain = None;
        let of: TcbInfo = serde_json::from_str(&content.tcb_info).map_err(|error| undecodable(error.to_string()))?;
        let platform = data_encoding::HEXLOWER_PERMISSIVE.decode(of.fmspc.as_bytes()).ok();
        let platform = platform.and_then(|bytes| bytes.try_into().ok()).map(Platform);
        let platform = platform.ok_or_else(|| undecodable(format!("{:?} is no kind of platform", of.fmspc)))?;
        let listed = |list: &[u8]| {
            let list: CertificateList =
                CertificateList::from_der(list).map_err(|error| undecodable(format!("a revocation list: {error}")))?;
            Ok::<_, AttestError>(list.tbs_cert_list.this_update.to_unix_duration().as_secs())
        };
        let listed = [listed(&content.root_ca_crl)?, listed(&content.pck_crl)?];
        let bytes = serde_json::to_vec(&content).map_err(|error| undecodable(error.to_string()))?.into();
        Ok(Self { content, platform, issued: of.issue_date, listed, bytes })
    }
}

/// What verified collateral says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Until when it holds: seconds since the Unix epoch.
    pub(super) until: u64,
    /// What grows with each issue of its parts: when the two revocation lists were issued, seconds since the Unix epoch (Intel does not
    /// count them), and the numbers of the data of the platform and of the quoting enclave.
    pub(super) issues: [u64; 4],
}

impl Standing {
    /// Whether a part of it is older than that of another one: new and old parts can be put together by anybody.
    pub(super) fn is_behind(&self, other: &Self) -> bool {
        self.issues.iter().zip(&other.issues).any(|(ours, theirs)| ours < theirs)
    }
}

#[derive(Debug, Default)]
struct Known {
    /// What a quote was verified with.
    good: Option<(Arc<Collateral>, Standing)>,
    /// Newer than that, the newest first.
    untried: Vec<Arc<Collateral>>,
    /// When a source was asked last: seconds since the Unix epoch.
    asked: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Pool(BTreeMap<Platform, Known>);

impl Pool {
    fn known(&mut self, platform: Platform) -> Option<&mut Known> {
        let full = self.0.len() >= MAX_PLATFORMS && !self.0.contains_key(&platform);
        (!full).then(|| self.0.entry(platform).or_default())
    }

    /// Keeps it to be tried, if it is newer than what is known.
    pub(super) fn take(&mut self, collateral: Collateral) {
        let Some(known) = self.known(collateral.platform) else { return };
        let is_old = known.good.as_ref().is_some_and(|(good, _)| good.issued >= collateral.issued);
        if is_old || known.untried.iter().any(|other| other.bytes == collateral.bytes) {
            return;
        }
        let at = known.untried.partition_point(|other| other.issued >= collateral.issued);
        known.untried.insert(at, Arc::new(collateral));
        // Who says to be the newest may be anything: the others stay for when it is nothing.
        if known.untried.len() > MAX_UNTRIED {
            known.untried.remove(0);
        }
    }

    /// What is known of a platform, in the order in which it is to be tried.
    pub(super) fn of(&self, platform: Platform) -> Vec<Arc<Collateral>> {
        let Some(known) = self.0.get(&platform) else { return Vec::new() };
        known.untried.iter().cloned().chain(known.good.iter().map(|(good, _)| good.clone())).collect()
    }

    /// What the last good one of a platform says of itself.
    pub(super) fn standing(&self, platform: Platform) -> Standing {
        let good = self.0.get(&platform).and_then(|known| known.good.as_ref());
        good.map(|(_, standing)| *standing).unwrap_or_default()
    }

    /// A quote was verified with it; with `failed` it was not.
    pub(super) fn settle(
        &mut self,
        platform: Platform,
        good: &Arc<Collateral>,
        standing: Standing,
        failed: &[Arc<Collateral>],
    ) {
        let Some(known) = self.known(platform) else { return };
        let is = |one: &Arc<Collateral>, other: &Arc<Collateral>| Arc::ptr_eq(one, other);
        known.untried.retain(|it| it.issued > good.issued && !failed.iter().any(|failed| is(it, failed)));
        if known.good.as_ref().is_none_or(|(old, _)| is(old, good) || old.issued < good.issued) {
            known.good = Some((good.clone(), standing));
        }
    }

    /// Whether a source is to be asked for a platform now: nothing is known of it, or nothing that still holds. Seconds since the Unix
    /// epoch.
    pub(super) fn is_wanted(&mut self, platform: Platform, now: u64) -> bool {
        let Some(known) = self.known(platform) else { return false };
        let holds = !known.untried.is_empty() || known.good.as_ref().is_some_and(|(_, standing)| now <= standing.until);
        let asked = known.asked.is_some_and(|asked| now.saturating_sub(asked) < ASK_AGAIN);
        if !holds && !asked {
            known.asked = Some(now);
        }
        !holds && !asked
    }

    /// What is given to others: that of the platforms whose was issued last.
    pub(super) fn given(&self) -> Vec<Arc<[u8]>> {
        let mut good: Vec<_> = self.0.values().filter_map(|known| Some(&known.good.as_ref()?.0)).collect();
        good.sort_by(|one, other| other.issued.cmp(&one.issued));
        good.into_iter().take(MAX_COLLATERALS).map(|good| good.bytes.clone()).collect()
    }
}
