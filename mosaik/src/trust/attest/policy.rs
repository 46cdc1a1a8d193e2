//! [`Policy`]: what must be true of a [`Report`] whose signatures are verified, the same for every kind of evidence.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{AttestError, Challenge, Measurements, measured::MEASURED};
use crate::trust::Claims;

/// What comes before the kind of evidence in the grant that it becomes.
pub(crate) const ATTESTED: &str = "attested:";

/// What evidence says once its signatures are verified up to the vendor's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kind of the evidence.
    pub kind: &'static str,
    /// What it was asked to contain.
    pub report_data: [u8; 64],
    /// Whether the environment can be looked into.
    pub debug: bool,
    /// What was measured, by the names of the registers.
    pub registers: BTreeMap<String, Vec<u8>>,
    /// The status of the platform, as the vendor names it: an intact signature does not say that it is up to date.
    pub status: String,
    /// Until when the vendor's word on the platform holds: seconds since the Unix epoch.
    pub collateral_until: u64,
}

/// What must be true of a report.
#[derive(Clone, Debug)]
pub struct Policy {
    measurements: Measurements,
    statuses: BTreeSet<String>,
    grace: Duration,
}

impl Default for Policy {
    /// Whatever is measured, on platforms that are `UpToDate`; the vendor's word may be 14 days over its end.
    fn default() -> Self {
        Self {
            measurements: Measurements::default(),
            statuses: [String::from("UpToDate")].into(),
            grace: Duration::from_hours(14 * 24),
        }
    }
}

impl Policy {
    /// Only what has one of these measurements. Default: whatever is measured, and no grant `measured:`.
    #[must_use]
    pub fn with_measurements(mut self, measurements: Measurements) -> Self {
        self.measurements = measurements;
        self
    }

    /// Also platforms of this status, as the vendor names it, such as `SWHardeningNeeded`. Default: only `UpToDate`.
    #[must_use]
    pub fn with_status(mut self, status: impl Into<String>) -> Self {
        self.statuses.insert(status.into());
        self
    }

    /// For how long the vendor's word on the platform counts beyond its own end, so that members are not lost while nobody can fetch
    /// another. Default: 14 days.
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// For how long the vendor's word counts beyond its own end.
    #[must_use]
    pub const fn grace(&self) -> Duration {
        self.grace
    }

    /// What a report proves: the grants `attested:` and its kind, and `measured:` and each name whose measurements it has. They hold
    /// until the grace is over. `now`: seconds since the Unix epoch.
    ///
    /// # Errors
    /// The first check that it does not pass: its report data, debug mode, the platform's status, the age of the vendor's word, the
    /// measurements.
    pub fn appraise(&self, report: &Report, challenge: &Challenge, now: u64) -> Result<Claims, AttestError> {
        if report.report_data != *challenge.as_bytes() {
            return Err(AttestError::AnotherPeer);
        }
        if report.debug {
            return Err(AttestError::Debug);
        }
        if !self.statuses.contains(&report.status) {
            let accepted = self.statuses.iter().cloned().collect::<Vec<_>>().join(" or ");
            return Err(AttestError::Status { status: report.status.clone(), accepted });
        }
        let (late, grace) = (now.saturating_sub(report.collateral_until), self.grace.as_secs());
        if late > grace {
            return Err(AttestError::StaleCollateral { late, grace });
        }
        let names = self.measurements.fitting(&report.registers)?;
        let claims = Claims::new(0, report.collateral_until.saturating_add(grace));
        let claims = claims.with_grant(format!("{ATTESTED}{}", report.kind));
        Ok(names.into_iter().fold(claims, |claims, name| claims.with_grant(format!("{MEASURED}{name}"))))
    }
}
