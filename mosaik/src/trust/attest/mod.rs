//! Attestation: a node shows evidence that it runs in a measured environment, others verify it, and what it proves counts as grants.
//!
//! [`Evidence`] is one kind of it, which both makes and verifies; [`Challenge`] is what it must be about: this network, this peer and
//! a time. What a verified piece says is a [`Report`], which a [`Policy`] judges: the same rules for every kind. `sim` makes simulated
//! evidence for tests, `tdx` that of Intel TDX (feature `attest-tdx`). Pure but for what an implementation of [`Evidence`] does: `discovery` moves the bytes.

mod challenge;
mod error;
mod held;
mod measured;
mod policy;
mod record;
#[cfg(any(test, feature = "testing"))]
mod sim;
#[cfg(feature = "attest-tdx")]
mod tdx;

pub use challenge::Challenge;
pub use error::AttestError;
pub(super) use held::Held;
pub(crate) use held::{CollateralDigest, Demand, Evidences};
pub use measured::{Measurements, MeasurementsError};
pub use policy::{Policy, Report};
pub(crate) use record::{MAX_AGE, MAX_EVIDENCE, Shown};
#[cfg(any(test, feature = "testing"))]
pub use sim::{SimEvidence, SimPlatform};
#[cfg(feature = "attest-tdx")]
pub use tdx::Tdx;

use std::sync::Arc;

use super::Claims;

/// The longest piece of collateral, in bytes.
pub(crate) const MAX_COLLATERAL: usize = 64 << 10;
/// Pieces of collateral that a member gives.
pub(crate) const MAX_COLLATERALS: usize = 16;

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

    /// What its vendor says of machines, without which evidence cannot be verified: pieces of at most 64 KiB, each with signatures of its
    /// own, that were good here and are given to other members. Of more than 16 the first 16 are. Default: none.
    fn collateral(&self) -> Vec<Arc<[u8]>> {
        Vec::new()
    }

    /// Takes in such a piece from another member. It may be anything: it counts only once it was verified.
    ///
    /// # Errors
    /// When it is no such piece.
    fn take_collateral(&self, collateral: &[u8]) -> Result<(), AttestError> {
        let _ = collateral;
        Ok(())
    }
}
