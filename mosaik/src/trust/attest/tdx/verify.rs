//! Verification of a quote by `dcap-qvl`: at a time at which the collateral held, and with our reason when it fails.
//!
//! The library tells most reasons in words. What is not known among them is refused all the same, without a reason of its own; tests
//! hold the words against this version of the library.

use dcap_qvl::{
    QuoteClaims, QuoteCollateralV3, QuotePolicy, configs::RingConfig, intel, quote::Quote, verify::QuoteVerifier,
};
use webpki::Error as Pki;

use super::collateral::Platform;
use crate::trust::attest::AttestError;

const DAY: u64 = 86_400;
/// How far back the end of collateral is looked for that is too old, in days, and in what steps: shorter than it is valid.
const LOOK_BACK: u64 = 1_500;
const STEP: u64 = 20;

/// The kind of platform that a quote says to be of, and whose collateral it needs.
pub(super) fn platform(quote: &Quote) -> Result<Platform, String> {
    intel::quote_fmspc(quote).map(Platform).map_err(|error| format!("{error:#}"))
}

/// Why the library refuses.
enum Refusal {
    /// Something did not hold yet, or no longer, at that time.
    Time(String),
    Reason(AttestError),
}

/// What a quote says, by the collateral as of now or, where that has ended, as of the last day on which it held, within the grace.
pub(super) fn verified(
    root: Option<&[u8]>,
    quote: &[u8],
    collateral: &QuoteCollateralV3,
    now: u64,
    grace: u64,
) -> Result<QuoteClaims, AttestError> {
    let as_of = |ago: u64| at(root, quote, collateral, now.saturating_sub(ago));
    let early = match as_of(0) {
        Ok(claims) => return Ok(claims),
        Err(Refusal::Reason(reason)) => return Err(reason),
        Err(Refusal::Time(why)) => why,
    };
    // A second more: lists end before that of their end. The policy counts to the second.
    let days = (1..=grace / DAY).map(|day| day * DAY).chain([grace + 1]);
    let before = (1..=LOOK_BACK / STEP).map(|step| grace + step * STEP * DAY);
    for ago in days.chain(before) {
        match as_of(ago) {
            Ok(claims) if ago <= grace + 1 => return Ok(claims),
            Ok(claims) => {
                let late = now.saturating_sub(claims.earliest_expiration_date);
                return Err(AttestError::StaleCollateral { late, grace });
            }
            Err(Refusal::Reason(reason)) => return Err(reason),
            Err(Refusal::Time(_)) => {}
        }
    }
    // It holds at none of these times.
    Err(AttestError::Other { why: early })
}

fn at(root: Option<&[u8]>, quote: &[u8], collateral: &QuoteCollateralV3, now: u64) -> Result<QuoteClaims, Refusal> {
    let verifier = match root {
        Some(root) => QuoteVerifier::<RingConfig>::new_with_config(root.to_vec()),
        None => QuoteVerifier::new_prod().with_config::<RingConfig>(),
    };
    // Debug mode is the policy's business, which names it, as is the status.
    let verifier = verifier.allow_debug(true);
    let verified = verifier.verify_with_policy(quote, collateral, now, &QuotePolicy::claims_only(now));
    verified.map_err(|error| refusal(error.downcast_ref::<Pki>(), &format!("{error:#}")))
}

/// What the library says.
fn refusal(pki: Option<&Pki>, text: &str) -> Refusal {
    let what = || text.to_owned();
    let reason = match pki {
        Some(Pki::CertExpired { .. } | Pki::CrlExpired { .. } | Pki::CertNotValidYet { .. }) => {
            return Refusal::Time(what());
        }
        Some(Pki::CertRevoked) => AttestError::Revoked { what: String::from("a certificate of the platform") },
        Some(Pki::UnknownIssuer) => AttestError::ForeignChain,
        // What the root is known by.
        Some(Pki::InvalidSignatureForPublicKey) if text.contains("root CA CRL") => AttestError::ForeignChain,
        // Of the list of the root: signed by another one.
        Some(Pki::InvalidCrlSignatureForPublicKey) => AttestError::ForeignChain,
        Some(Pki::InvalidSignatureForPublicKey) => AttestError::Forged { what: String::from("a certificate") },
        _ if text.contains("expired") || text.contains("in the future") => return Refusal::Time(what()),
        _ if text.contains("TCB status is invalid: Revoked") => {
            AttestError::Revoked { what: String::from("the level of the platform's TCB") }
        }
        _ if text.contains("ignature is invalid") || text.contains("QE report hash mismatch") => {
            AttestError::Forged { what: what() }
        }
        _ => AttestError::Other { why: what() },
    };
    Refusal::Reason(reason)
}
