//! [`Policy`]: what must be true of a [`Report`] whose signatures are verified, the same for every kind of evidence.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use toml::Value;

use super::{
    AttestError, Challenge, Measurements, MeasurementsError,
    measured::{MEASURED, OF_POLICY, malformed, table, text_of},
};
use crate::trust::Claims;

/// What comes before the kind of evidence in the grant that it becomes.
pub(crate) const ATTESTED: &str = "attested:";

/// The longest grace, in days.
const MAX_GRACE: u32 = 90;

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
    /// Reads a file with what may run, such as `measurements.toml`, as a role names it with `attest`. Beside the tables of
    /// [`Measurements`], of which there must be one, it may say at its beginning which statuses are accepted, `status = ["UpToDate",
    /// "SWHardeningNeeded"]`, and the grace, `grace_days = 14`.
    ///
    /// # Errors
    /// When it cannot be read, or as [`parse`](Self::parse).
    pub fn from_file(file: impl AsRef<Path>) -> Result<Self, MeasurementsError> {
        let file = file.as_ref();
        Self::parse(&text_of(file)?).map_err(|error| error.of(file))
    }

    /// Reads what stands in such a file.
    ///
    /// # Errors
    /// As [`Measurements::parse`], when it names no measurement, so that anything could run, or the statuses are no list of texts or the grace is
    /// no number of days.
    pub fn parse(text: &str) -> Result<Self, MeasurementsError> {
        let mut table = table(text)?;
        let [status, grace] = OF_POLICY.map(|key| table.remove(key));
        let mut policy = Self::default();
        if let Some(status) = status {
            let names: Option<BTreeSet<String>> = match status {
                Value::Array(names) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
                _ => None,
            };
            let names = names.filter(|names| !names.is_empty());
            policy.statuses =
                names.ok_or_else(|| malformed("`status` lists what is accepted, as in status = [\"UpToDate\"]"))?;
        }
        if let Some(grace) = grace {
            let days = grace.as_integer().and_then(|days| u32::try_from(days).ok()).filter(|days| *days <= MAX_GRACE);
            let days =
                days.ok_or_else(|| malformed(format!("`grace_days` is a number of days, at most {MAX_GRACE}")))?;
            policy.grace = Duration::from_hours(24 * u64::from(days));
        }
        policy.measurements = Measurements::named(table)?;
        if policy.measurements.is_empty() {
            return Err(malformed(
                "it names nothing that may run, so that anything could: give a table such as [builder-7]",
            ));
        }
        Ok(policy)
    }

    /// What may run.
    #[must_use]
    pub const fn measurements(&self) -> &Measurements {
        &self.measurements
    }

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
    /// another. At most 90 days; longer is cut. Default: 14 days.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace.min(Duration::from_hours(24 * u64::from(MAX_GRACE)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_may_run_and_what_is_accepted_besides() {
        let policy = Policy::parse("[seven]\ncode = \"07\"").expect("is in order");
        assert_eq!((policy.grace().as_secs(), policy.statuses.len()), (14 * 86_400, 1));
        let text = "status = [\"UpToDate\", \"SWHardeningNeeded\"]\ngrace_days = 3\n[seven]\ncode = \"07\"";
        let policy = Policy::parse(text).expect("is in order");
        assert_eq!((policy.grace().as_secs(), policy.statuses.len()), (3 * 86_400, 2));
        assert_eq!(policy.measurements().get("seven").map(|it| it["code"].clone()), Some(vec![7]));
        for (text, part) in [
            ("", "it names nothing that may run"),
            ("status = \"UpToDate\"\n[seven]\ncode = \"07\"", "`status` lists what is accepted"),
            ("status = []\n[seven]\ncode = \"07\"", "`status` lists what is accepted"),
            ("grace_days = -1\n[seven]\ncode = \"07\"", "`grace_days` is a number of days"),
            ("stat = 7\n[seven]\ncode = \"07\"", "`stat` is not a table of registers"),
            ("[seven]\ncode = 7", "seven.code is not in hex"),
            ("[seven]", "seven names no register"),
        ] {
            let error = Policy::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let missing = Policy::from_file("/nowhere/measurements.toml").expect_err("is not there").to_string();
        assert!(missing.starts_with("cannot read the measurements in /nowhere/measurements.toml: "), "{missing}");
        let mixed = Measurements::parse("grace_days = 3\n[seven]\ncode = \"07\"").expect_err("is a policy");
        assert!(mixed.to_string().contains("`Policy::from_file`"), "{mixed}");
    }
}
