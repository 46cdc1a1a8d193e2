//! [`AttestError`]: which check evidence did not pass. Told to its author, too.

use serde::{Deserialize, Serialize};

/// The longest text in an error that is told, in bytes.
const MAX_TEXT: usize = 256;

/// Why evidence cannot be made, or proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// This machine cannot make evidence.
    #[error("no evidence can be made here: {why}")]
    Unavailable {
        /// Why not.
        why: String,
    },
    /// The peer says that it has evidence, and shows none.
    #[error("no evidence was shown")]
    NotShown,
    /// Nobody here verifies this kind.
    #[error("evidence of the kind {theirs}, which is not verified here")]
    Kind {
        /// What was shown.
        theirs: String,
    },
    /// The bytes are no evidence of their kind.
    #[error("not evidence of its kind: {why}")]
    Undecodable {
        /// What is wrong with them.
        why: String,
    },
    /// A signature is wrong.
    #[error("a signature is wrong: {what}")]
    Forged {
        /// Of what.
        what: String,
    },
    /// The chain of certificates does not end at the vendor's root.
    #[error("the chain of certificates ends at a foreign root")]
    ForeignChain,
    /// A certificate or a version was revoked by the vendor.
    #[error("revoked by the vendor: {what}")]
    Revoked {
        /// What was revoked.
        what: String,
    },
    /// The environment can be looked into.
    #[error("the environment runs in debug mode")]
    Debug,
    /// The status of the platform is not among those that are accepted.
    #[error("the platform is {status}, accepted is {accepted}")]
    Status {
        /// As the vendor names it.
        status: String,
        /// Those that are accepted.
        accepted: String,
    },
    /// What the vendor says of the platform is too old, beyond what the policy allows.
    #[error("the vendor's word on the platform ended {late} s ago, allowed are {grace} s")]
    StaleCollateral {
        /// Since when, in seconds.
        late: u64,
        /// What the policy allows.
        grace: u64,
    },
    /// It is about another peer, network or time.
    #[error("it is not about this peer")]
    AnotherPeer,
    /// It measures something else.
    #[error("{register} is {theirs}, which is none of the measurements that are accepted")]
    Measurement {
        /// The register that differs, of the nearest one.
        register: String,
        /// What is in it, in hex.
        theirs: String,
    },
    /// It was made too long ago.
    #[error("made {age} s ago, at most {max} s are accepted")]
    TooOld {
        /// In seconds.
        age: u64,
        /// What the policy allows.
        max: u64,
    },
    /// It was made in the future, by this node's clock.
    #[error("made {ahead} s in the future")]
    NotYet {
        /// By how much, in seconds.
        ahead: u64,
    },
    /// Another check, in the words of who made it.
    #[error("{why}")]
    Other {
        /// What is wrong.
        why: String,
    },
    /// Nobody has told this node what the vendor says of such machines.
    #[error("the vendor's word on platforms of the kind {platform} is not known here")]
    NoCollateral {
        /// The kind, as the vendor numbers it.
        platform: String,
    },
}

impl AttestError {
    /// What a peer said, with texts of bounded length.
    pub(crate) fn heard(mut self) -> Self {
        let cut = |text: &mut String| {
            let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
        };
        match &mut self {
            Self::Unavailable { why: text }
            | Self::Kind { theirs: text }
            | Self::Undecodable { why: text }
            | Self::Forged { what: text }
            | Self::Revoked { what: text }
            | Self::Other { why: text }
            | Self::NoCollateral { platform: text } => cut(text),
            Self::Status { status: one, accepted: other } | Self::Measurement { register: one, theirs: other } => {
                cut(one);
                cut(other);
            }
            Self::NotShown
            | Self::ForeignChain
            | Self::Debug
            | Self::StaleCollateral { .. }
            | Self::AnotherPeer
            | Self::TooOld { .. }
            | Self::NotYet { .. } => {}
        }
        self
    }
}
