//! [`Tdx`]: evidence of Intel TDX. `kernel` makes quotes, `verify` verifies them by `dcap-qvl` (the chain up to Intel's root, revocation
//! lists, the level of the platform's TCB, the identity of the quoting enclave), and `collateral` keeps what Intel says of platforms, the
//! newest of each. What a quote says once that is done is judged by the [`Policy`].
//!
//! Intel's word is no part of a quote: whoever can reach Intel, or a cache of it, fetches it, members give it to each other by its hash,
//! and everybody verifies it with the quote that it is needed for.

mod collateral;
mod kernel;
mod verify;

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dcap_qvl::{
    QuoteClaims,
    quote::{Quote, Report as QuoteReport, TDReport10},
};

use self::{
    collateral::{Collateral, Platform, Pool, Standing},
    kernel::Kernel,
};
use super::{AttestError, Challenge, Evidence, Policy, Report};
use crate::trust::Claims;

const KIND: &str = "tdx";
/// Debug and profiling, of the attributes of a trust domain.
const OPEN: u8 = 0x71;

/// Fetches Intel's word on the platform of a quote.
type Source = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, AttestError> + Send + Sync>;
/// Makes a quote with this report data.
type Quotes = Arc<dyn Fn(&[u8; 64]) -> Result<Vec<u8>, AttestError> + Send + Sync>;

/// Evidence of kind `tdx`: a quote of Intel TDX. Clones share what is known of platforms.
#[derive(Clone)]
pub struct Tdx {
    policy: Policy,
    /// Of another vendor than Intel, in DER.
    root: Option<Vec<u8>>,
    pool: Arc<Mutex<Pool>>,
    source: Option<Source>,
    /// In the place of the kernel's.
    quotes: Option<Quotes>,
    kernel: Kernel,
}

impl Tdx {
    /// Judges by this policy. What may run is in its measurements: the registers are `mrtd`, `rtmr0` to `rtmr3`, `mrconfigid`, `mrowner`,
    /// `mrownerconfig`, `mrseam` and `mrsignerseam`, of 48 bytes each. The status is that of the platform's TCB, such as `UpToDate`,
    /// `SWHardeningNeeded` or `OutOfDate`; what Intel has revoked is refused whatever the policy says.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, root: None, pool: Arc::default(), source: None, quotes: None, kernel: Kernel::default() }
    }

    /// With this root in the place of Intel's, a certificate in DER.
    #[must_use]
    pub fn with_root(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.root = Some(der.into());
        self
    }

    /// Fetches the collateral, Intel's word on a platform, for a quote: JSON of at most 64 KiB, as `dcap-qvl` writes it. Called whenever this node
    /// makes evidence, three or four times a day, and for a peer's platform of which nothing is known or nothing that holds still, at most
    /// once an hour; from a thread that may block. Other members are given what it brings. Default: what others give, and
    /// [`set_collateral`](Self::set_collateral).
    #[must_use]
    pub fn with_source(
        mut self,
        fetch: impl Fn(&[u8]) -> Result<Vec<u8>, AttestError> + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Arc::new(fetch));
        self
    }

    /// The same from a file, which somebody else keeps up to date.
    #[must_use]
    pub fn with_collateral_file(self, file: impl Into<PathBuf>) -> Self {
        let file = file.into();
        self.with_source(move |_| {
            let why = |error| AttestError::Unavailable { why: format!("collateral in {}: {error}", file.display()) };
            fs::read(&file).map_err(why)
        })
    }

    /// Makes quotes by this in the place of Linux: from the 64 bytes of report data. From a thread that may block.
    #[must_use]
    pub fn with_quotes(
        mut self,
        make: impl Fn(&[u8; 64]) -> Result<Vec<u8>, AttestError> + Send + Sync + 'static,
    ) -> Self {
        self.quotes = Some(Arc::new(make));
        self
    }

    /// Takes Intel's word on the platforms of one kind, if it is newer than what is known: JSON as `dcap-qvl` writes it. It counts once a
    /// quote was verified with it.
    ///
    /// # Errors
    /// When it is no collateral, or longer than 64 KiB.
    pub fn set_collateral(&self, json: &[u8]) -> Result<(), AttestError> {
        let collateral = Collateral::read(json)?;
        self.pool().take(collateral);
        Ok(())
    }

    /// Whether this machine can make quotes.
    ///
    /// # Errors
    /// When it cannot: why, as far as it can be seen.
    pub fn available(&self) -> Result<(), AttestError> {
        if self.quotes.is_some() { Ok(()) } else { self.kernel.available() }
    }

    /// What a quote says once all of its signatures are verified, before the policy judges it. `now`: seconds since the Unix epoch.
    ///
    /// # Errors
    /// When it is no quote of TDX, a signature, a certificate or a revocation list is wrong, something is revoked, nothing is known of its platform,
    /// or what is known has ended for longer than the policy allows.
    pub fn report(&self, quote: &[u8], now: u64) -> Result<Report, AttestError> {
        let undecodable = |why: String| AttestError::Undecodable { why };
        let parsed = Quote::parse(quote).map_err(|error| undecodable(format!("{error:#}")))?;
        if !matches!(parsed.report, QuoteReport::TD10(_) | QuoteReport::TD15(_) | QuoteReport::TD15Ex(_)) {
            return Err(undecodable(String::from("a quote, but not of TDX")));
        }
        let platform = verify::platform(&parsed).map_err(undecodable)?;
        let claims = self.verified(quote, platform, now)?;
        let td = claims.report.as_td10().ok_or_else(|| undecodable(String::from("a quote, but not of TDX")))?;
        Ok(Report {
            kind: KIND,
            report_data: td.report_data,
            debug: td.td_attributes[0] & OPEN != 0,
            registers: registers(td),
            status: claims.tcb.status.to_string(),
            collateral_until: claims.earliest_expiration_date,
        })
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By the newest that is known of the platform. What was never used may be anything, so the last one that was good stands behind it.
    fn verified(&self, quote: &[u8], platform: Platform, now: u64) -> Result<QuoteClaims, AttestError> {
        if self.source.is_some() && self.pool().is_wanted(platform, now) {
            self.fetch(quote);
        }
        let grace = self.policy.grace().as_secs();
        let mut last = AttestError::NoCollateral { platform: platform.to_string() };
        let mut failed = Vec::new();
        let known = self.pool().of(platform);
        for collateral in known {
            match verify::verified(self.root.as_deref(), quote, &collateral.content, now, grace) {
                Ok(claims) => {
                    let (standing, former) = (standing(&claims, collateral.listed), self.pool().standing(platform));
                    if !standing.is_behind(&former) {
                        self.pool().settle(platform, &collateral, standing, &failed);
                        return Ok(claims);
                    }
                }
                // Only a list or a level that Intel has signed says that something is revoked.
                Err(error @ AttestError::Revoked { .. }) => return Err(error),
                Err(error) => last = error,
            }
            failed.push(collateral);
        }
        Err(last)
    }

    /// Asks the source. What there is stands when it fails.
    fn fetch(&self, quote: &[u8]) {
        let Some(source) = &self.source else { return };
        let fetched = source(quote).and_then(|json| self.set_collateral(&json));
        if let Err(error) = fetched {
            tracing::warn!(%error, "no collateral for evidence of TDX was fetched");
        }
    }
}

impl fmt::Debug for Tdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tdx")
            .field("policy", &self.policy)
            .field("source", &self.source.is_some())
            .finish_non_exhaustive()
    }
}

fn standing(claims: &QuoteClaims, [root, platforms]: [u64; 2]) -> Standing {
    Standing {
        until: claims.earliest_expiration_date,
        issues: [root, platforms, claims.tcb.eval_data_number.into(), claims.qe.tcb_eval_data_number.into()],
    }
}

fn registers(td: &TDReport10) -> BTreeMap<String, Vec<u8>> {
    let all = [
        ("mrtd", &td.mr_td),
        ("rtmr0", &td.rt_mr0),
        ("rtmr1", &td.rt_mr1),
        ("rtmr2", &td.rt_mr2),
        ("rtmr3", &td.rt_mr3),
        ("mrconfigid", &td.mr_config_id),
        ("mrowner", &td.mr_owner),
        ("mrownerconfig", &td.mr_owner_config),
        ("mrseam", &td.mr_seam),
        ("mrsignerseam", &td.mr_signer_seam),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}

impl Evidence for Tdx {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn make(&self, challenge: &Challenge) -> Result<Vec<u8>, AttestError> {
        let quote = match &self.quotes {
            Some(quotes) => quotes(challenge.as_bytes())?,
            None => self.kernel.quote(challenge.as_bytes())?,
        };
        self.fetch(&quote);
        Ok(quote)
    }

    fn verify(&self, evidence: &[u8], challenge: &Challenge, now: u64) -> Result<Claims, AttestError> {
        self.policy.appraise(&self.report(evidence, now)?, challenge, now)
    }

    fn collateral(&self) -> Vec<Arc<[u8]>> {
        self.pool().given()
    }

    fn take_collateral(&self, collateral: &[u8]) -> Result<(), AttestError> {
        self.set_collateral(collateral)
    }
}
