//! Attestation: a node shows evidence that it runs in a measured environment, others verify it, and what it proves counts as grants.
//!
//! [`Evidence`] is one kind of it, which both makes and verifies; [`Challenge`] is what it must be about: this network, this peer and
//! a time. What a verified piece says is a [`Report`], which a [`Policy`] judges: the same rules for every kind. `sim` makes simulated
//! evidence for tests. Pure but for what an implementation of [`Evidence`] does: `discovery` moves the bytes.

mod challenge;
mod error;
mod held;
mod measured;
mod policy;
mod record;
#[cfg(any(test, feature = "testing"))]
mod sim;

pub use challenge::Challenge;
pub use error::AttestError;
pub(super) use held::Held;
pub(crate) use held::{Demand, Evidences};
pub use measured::{Measurements, MeasurementsError};
pub use policy::{Policy, Report};
pub(crate) use record::{MAX_AGE, MAX_EVIDENCE, Shown};
#[cfg(any(test, feature = "testing"))]
pub use sim::{SimEvidence, SimPlatform};

use super::Claims;

/// A kind of evidence: makes it on this machine, and verifies that of others.
///
/// Both are called from a thread that may block, `make` at most once in some hours.
pub trait Evidence: Send + Sync + 'static {
    /// Its name, such as `tdx`: what is verified becomes the grant `attested:tdx`. At most 32 bytes.
    fn kind(&self) -> &'static str;

    /// Evidence about this machine whose report data is the challenge. At most 64 KiB.
    ///
    /// # Errors
    /// When this machine cannot make any.
    fn make(&self, challenge: &Challenge) -> Result<Vec<u8>, AttestError>;

    /// What evidence of somebody else proves: grants, and from when until when they hold. `now`: seconds since the Unix epoch.
    ///
    /// # Errors
    /// When it proves nothing: what is wrong with it.
    fn verify(&self, evidence: &[u8], challenge: &Challenge, now: u64) -> Result<Claims, AttestError>;
}
