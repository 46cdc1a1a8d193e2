//! [`AuthorityList`]: which authorities a network trusts from now on, in the word of one that it trusts already. So an authority
//! can be added, and the one before it dropped, while the network runs. Pure.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use iroh::Signature;
use serde::{Deserialize, Serialize};

use super::{
    authority::{Authority, AuthorityId},
    gate::MAX_AUTHORITIES,
    scope::Scope,
    ticket::{decode, encode},
};
use crate::primitives::NetworkId;

/// The longest list, in bytes.
const MAX_BYTES: usize = 4096;
/// Lists that a node keeps, so that who was away can follow from one to the next; the oldest goes first.
const MAX_LISTS: usize = 64;

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"mosaik authorities 1:";
const DIGEST_DOMAIN: &str = "mosaik 2026 authorities digest 1";
pub(super) const PREFIX: &str = "mosaika1";

/// An authority's word on which authorities are trusted from now on. `Display` and `FromStr` write it as one line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityList {
    body: Vec<u8>,
    signature: Signature,
}

/// What a list says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    version: u8,
    network: NetworkId,
    pub(super) number: u64,
    pub(super) signer: AuthorityId,
    pub(super) trusted: Vec<(AuthorityId, Scope)>,
}

impl Authority {
    /// Says which authorities are trusted from now on, each with what it can give. A list counts where this authority is trusted
    /// without a scope, and its number is above that of the list before; the time in seconds does well as one.
    ///
    /// # Errors
    /// When there are more than eight, one is named twice, none is without a scope so that nobody could change the list again, or a
    /// scope is over a limit.
    pub fn list(
        &self,
        network: impl Into<NetworkId>,
        number: u64,
        trusted: impl IntoIterator<Item = (AuthorityId, Scope)>,
    ) -> Result<AuthorityList, ListError> {
        let (network, trusted) = (network.into(), trusted.into_iter().collect());
        let body = encode(&Listed { version: VERSION, network, number, signer: self.id(), trusted });
        let body = body.map_err(|_| ListError::Malformed)?;
        let signature = self.sign(&[DOMAIN, &body].concat());
        let list = AuthorityList { body, signature };
        list.verify(network).map(|_| list)
    }
}

impl AuthorityList {
    /// What it says, if its signer says so of this network. Whether the signer is trusted is asked elsewhere.
    pub(super) fn verify(&self, network: NetworkId) -> Result<Listed, ListError> {
        if self.body.len() > MAX_BYTES || self.body.first() != Some(&VERSION) {
            return Err(ListError::Malformed);
        }
        let listed: Listed = decode(&self.body).map_err(|_| ListError::Malformed)?;
        if listed.network != network {
            return Err(ListError::OtherNetwork { theirs: listed.network });
        }
        let mut names: Vec<_> = listed.trusted.iter().map(|(authority, _)| *authority).collect();
        names.sort_unstable();
        names.dedup();
        let is_over = names.len() != listed.trusted.len() || names.len() > MAX_AUTHORITIES;
        if is_over || listed.trusted.iter().any(|(_, scope)| scope.check().is_err()) {
            return Err(ListError::Malformed);
        }
        if !listed.trusted.iter().any(|(_, scope)| scope.is_everything()) {
            return Err(ListError::NobodyInCharge);
        }
        let signed = [DOMAIN, &self.body].concat();
        listed.signer.verify(&signed, &self.signature).map_err(|_| ListError::Signature)?;
        Ok(listed)
    }
}

impl fmt::Debug for AuthorityList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityList({} bytes)", self.body.len())
    }
}

impl fmt::Display for AuthorityList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&encode(self).map_err(|_| fmt::Error)?))
    }
}

impl FromStr for AuthorityList {
    type Err = ListError;

    fn from_str(text: &str) -> Result<Self, ListError> {
        let encoded = text.trim().strip_prefix(PREFIX).filter(|encoded| encoded.len() <= 2 * MAX_BYTES);
        let bytes = BASE64URL_NOPAD.decode(encoded.ok_or(ListError::Malformed)?.as_bytes());
        decode(&bytes.map_err(|_| ListError::Malformed)?).map_err(|_| ListError::Malformed)
    }
}

/// Why something is no list of authorities here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// It is not in the form of one, names an authority twice, or more than eight.
    #[error("this is no list of authorities")]
    Malformed,
    /// Its signature is wrong.
    #[error("the list of authorities was not signed by who it says")]
    Signature,
    /// It is of an authority that is not trusted without a scope.
    #[error("the list is of authority {theirs:?}, which is not trusted here, or only for some grants")]
    UnknownAuthority {
        /// The authority.
        theirs: AuthorityId,
    },
    /// It is for another network.
    #[error("the list is for network {theirs:?}")]
    OtherNetwork {
        /// The network.
        theirs: NetworkId,
    },
    /// All that it names have a scope.
    #[error("the list names no authority without a scope: nobody could change it again")]
    NobodyInCharge,
}

/// The lists that counted here, one after the other.
#[derive(Debug, Default)]
pub(super) struct Lists(Vec<(u64, AuthorityList)>);

impl Lists {
    pub(super) fn number(&self) -> Option<u64> {
        self.0.last().map(|(number, _)| *number)
    }

    pub(super) fn add(&mut self, number: u64, list: AuthorityList) {
        if self.0.len() >= MAX_LISTS {
            self.0.remove(0);
        }
        self.0.push((number, list));
    }

    pub(super) fn all(&self) -> Vec<AuthorityList> {
        self.0.iter().map(|(_, list)| list.clone()).collect()
    }

    /// Equal where the same authorities are trusted by the same word.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(DIGEST_DOMAIN);
        self.0.last().iter().for_each(|(_, list)| _ = hasher.update(&list.body));
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn authority(n: u8) -> Authority {
        Authority::from_bytes(&[n; 32])
    }

    #[test]
    fn a_list_is_its_signers_word_for_one_network() {
        let both = || [1, 2].map(|n| (authority(n).id(), Scope::everything()));
        let list = authority(1).list("n", 7, both()).expect("is in order");
        let read: AuthorityList = list.to_string().parse().expect("is one");
        let listed = read.verify("n".into()).expect("is right");
        assert_eq!((listed.number, listed.signer, listed.trusted), (7, authority(1).id(), both().to_vec()));
        assert_eq!(read.verify("m".into()), Err(ListError::OtherNetwork { theirs: "n".into() }));
        for at in 0..list.body.len() {
            let mut forged = list.clone();
            forged.body[at] ^= 1;
            assert!(forged.verify("n".into()).is_err(), "byte {at}");
        }
        let list = |trusted: Vec<_>| authority(1).list("n", 7, trusted);
        assert_eq!(list([both(), both()].concat()), Err(ListError::Malformed), "named twice");
        assert_eq!(list(vec![(authority(1).id(), Scope::nothing())]), Err(ListError::NobodyInCharge));
        assert_eq!(list(vec![]), Err(ListError::NobodyInCharge));
        let many = (0..9).map(|n| (authority(n).id(), Scope::everything()));
        assert_eq!(list(many.collect()), Err(ListError::Malformed));
    }

    proptest! {
        #[test]
        fn made_up_text_is_no_list(text in "(mosaika1)?[ -~]{0,200}") {
            prop_assert!(text.parse::<AuthorityList>().is_err());
        }
    }
}
