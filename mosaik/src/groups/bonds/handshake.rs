//! The handshake of a bond: each side proves to the other that it knows the group's key, on this very connection.
//!
//! ```text
//! dialler                               acceptor
//!   Hello { group, who, nonce, .. }  ->
//!                                    <- Hello { .. }
//!   Proof(role dialler)              ->
//!                                    <- Shown { proof(role acceptor), terms }
//!   Terms                            ->
//! ```
//!
//! A proof is an HMAC-SHA256 over the role, both ids, the connection's keying material and both hellos. So it is
//! worth nothing on another connection (other keying material), to its own author (other role) or in another exchange
//! (other nonces). The dialler proves first: who dials in without the key gets nothing that depends on it. Terms are told
//! only to a side that has proved the key. Pure: the caller moves the messages and closes what is refused.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::super::{
    build::Build,
    key::GroupKey,
    raft::{ClusterId, Extent, Member, NodeId, Start},
    shapes::Shapes,
};
use crate::{
    network::CloseCode,
    primitives::{GroupId, PeerId},
    trust::{MissingGrant, Right, told},
};

/// The label of the keying material that binds proofs to a connection.
pub(super) const EXPORTER_LABEL: &[u8] = b"EXPORTER-mosaik-bond-1";
const KEY_DOMAIN: &str = "mosaik 2026 bond proof key 1";
const ID_DOMAIN: &str = "mosaik 2026 bond id 1";

/// What the members of a group must agree on before any of them votes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// Founders that the group declares; 0: undeclared.
    pub(crate) size: u32,
    /// The version of the state machine.
    pub(crate) version: u32,
    /// How the program was built, as far as it decides what a command does.
    pub(crate) build: Build,
    /// A digest of the agreed settings of the consensus.
    pub(crate) settings: [u8; 32],
    /// The types of commands, outputs and state.
    pub(crate) shapes: Shapes,
    /// The group's label.
    pub(crate) label: Option<String>,
}

impl Terms {
    /// The first difference that makes two members incompatible.
    fn check(&self, theirs: &Self) -> Result<(), Refusal> {
        let differs = |what, ours: String, theirs: String| Err(Refusal::Incompatible { what, ours, theirs });
        if self.size != theirs.size {
            let show = |size: u32| if size == 0 { "undeclared".to_owned() } else { size.to_string() };
            return differs("size", show(self.size), show(theirs.size));
        }
        if self.version != theirs.version {
            return differs("machine version", self.version.to_string(), theirs.version.to_string());
        }
        if self.build != theirs.build {
            return differs("build", self.build.to_string(), theirs.build.to_string());
        }
        if self.label != theirs.label {
            let show = |label: &Option<String>| told(label.as_deref()).to_owned();
            return differs("label", show(&self.label), show(&theirs.label));
        }
        if let Some((ours, theirs)) = self.shapes.difference(&theirs.shapes) {
            return differs("schema", ours, theirs);
        }
        if self.settings != theirs.settings {
            let show = |digest: &[u8; 32]| blake3::Hash::from_bytes(*digest).to_hex()[..8].to_owned();
            return differs("consensus settings", show(&self.settings), show(&theirs.settings));
        }
        Ok(())
    }
}

/// Why two nodes do not become bonded members of one group. Both of them see it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The node that was asked is not a member of the group.
    #[error("not a member of the group")]
    NotMember,
    /// A proof of the group's key is wrong, or was made for another connection.
    #[error("the group's key was not proved")]
    WrongKey,
    /// Both know the key but declare the group differently.
    #[error("incompatible {what}: {ours} here, {theirs} there")]
    Incompatible {
        /// What differs.
        what: &'static str,
        /// What the local member declares.
        ours: String,
        /// What the other one declares.
        theirs: String,
    },
    /// A later life of the refused member's storage is known.
    #[error("an incarnation of this member that is over")]
    OldIncarnation,
    /// The refused member's storage is an older copy: a later start of it, or more of its log, was seen before. The member
    /// discards it and joins as a new incarnation.
    #[error("an older copy of this member's storage: more of it was seen before")]
    OlderCopy,
    /// The refused member's storage is a copy of one that another process is running on at this moment.
    #[error("another start of this member's storage is running: two processes use copies of one data directory")]
    SecondStart,
    /// The ticket of the refused node grants none of what the group's declaration asks of a member.
    #[error(transparent)]
    NotGranted(MissingGrant),
    /// The other side does not speak this version of the protocol.
    #[error("protocol or version not supported")]
    Unsupported,
    /// What was said is no handshake.
    #[error("not a handshake")]
    Malformed,
}

impl Refusal {
    /// The code with which a link is closed for this reason.
    pub(super) const fn code(&self) -> CloseCode {
        match self {
            Self::NotMember => CloseCode::GroupNotFound,
            Self::WrongKey => CloseCode::WrongKey,
            Self::Incompatible { .. } => CloseCode::Incompatible,
            Self::OldIncarnation => CloseCode::OldIncarnation,
            Self::OlderCopy => CloseCode::OlderCopy,
            Self::SecondStart => CloseCode::SecondStart,
            Self::NotGranted(_) => CloseCode::NotGranted,
            Self::Unsupported => CloseCode::UnsupportedProtocol,
            Self::Malformed => CloseCode::Undecodable,
        }
    }

    /// The reason behind the code of a peer, if it stands for a refusal. `Incompatible` never arrives this way: whoever
    /// may know it finds it out from the terms.
    pub(super) const fn from_code(code: CloseCode) -> Option<Self> {
        match code {
            CloseCode::GroupNotFound => Some(Self::NotMember),
            CloseCode::WrongKey => Some(Self::WrongKey),
            CloseCode::OldIncarnation => Some(Self::OldIncarnation),
            CloseCode::OlderCopy => Some(Self::OlderCopy),
            CloseCode::SecondStart => Some(Self::SecondStart),
            // What is missing the local side knows, and fills in.
            CloseCode::NotGranted => Some(Self::NotGranted(MissingGrant::untold(Right::Member))),
            CloseCode::UnsupportedProtocol => Some(Self::Unsupported),
            CloseCode::Undecodable => Some(Self::Malformed),
            _ => None,
        }
    }
}

/// The first message of each side. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(super) group: GroupId,
    /// The life of the speaker's storage.
    pub(super) incarnation: u64,
    pub(super) cluster: Option<ClusterId>,
    /// Which start of that storage this is, and how far it is durable.
    pub(super) start: Start,
    pub(super) extent: Extent,
    pub(super) nonce: [u8; 32],
    /// Tells the runs of the speaker's bonds apart.
    pub(super) session: u64,
    /// Counts the dials of a session, for the dialler; see `mesh` on duplicates.
    pub(super) dial: u64,
    /// The last bond between the two that the speaker has lost; 0: none.
    pub(super) gave_up: u64,
}

/// What travels during the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    Hello(Hello),
    /// The dialler's proof.
    Proof([u8; 32]),
    /// The acceptor's proof and terms.
    Shown {
        proof: [u8; 32],
        terms: Terms,
    },
    /// The dialler's terms.
    Terms(Terms),
}

/// Which side of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Dialler,
    Acceptor,
}

/// What one side brings along.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) role: Role,
    pub(super) me: PeerId,
    pub(super) peer: PeerId,
    pub(super) exporter: [u8; 32],
    pub(super) key: GroupKey,
    pub(super) terms: Terms,
    pub(super) hello: Hello,
}

/// One side of a handshake.
pub(super) struct Handshake {
    setup: Setup,
    state: State,
}

enum State {
    /// Waits for the other hello.
    Start,
    /// Waits for the other proof.
    Greeted(Hello),
    /// The acceptor waits for the dialler's terms.
    Shown(Proven),
    Over,
}

/// The other side, which knows the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proven {
    pub(super) member: Member,
    pub(super) hello: Hello,
    /// Names the bond at both ends.
    pub(super) id: u64,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "lives for a moment, once per message of a handshake")]
pub(super) enum Step {
    /// Send it and go on.
    Send(Message),
    /// The other side has proved the key and is owed this message; then the bond is made, if the terms agree.
    Finish { proven: Proven, owed: Option<Message>, agreed: Result<(), Refusal> },
}

impl Handshake {
    pub(super) fn new(setup: Setup) -> Self {
        Self { setup, state: State::Start }
    }

    /// The hello of this side: the dialler's first word, and the acceptor's answer.
    pub(super) fn hello(&self) -> Message {
        Message::Hello(self.setup.hello.clone())
    }

    /// Who the other side is, once its key is proved and before the terms are known to both.
    pub(super) fn proven(&self) -> Option<&Proven> {
        match &self.state {
            State::Shown(proven) => Some(proven),
            _ => None,
        }
    }

    /// Takes a message of the other side.
    pub(super) fn on(&mut self, message: Message) -> Result<Step, Refusal> {
        match (std::mem::replace(&mut self.state, State::Over), message, self.setup.role) {
            (State::Start, Message::Hello(theirs), role) => self.on_hello(theirs, role),
            (State::Greeted(theirs), Message::Proof(proof), Role::Acceptor) => self.on_proof(theirs, &proof),
            (State::Greeted(theirs), Message::Shown { proof, terms }, Role::Dialler) => {
                self.verify(&theirs, &proof)?;
                let owed = Some(Message::Terms(self.setup.terms.clone()));
                let agreed = self.setup.terms.check(&terms);
                Ok(Step::Finish { proven: self.proved(theirs), owed, agreed })
            }
            (State::Shown(proven), Message::Terms(terms), Role::Acceptor) => {
                let agreed = self.setup.terms.check(&terms);
                Ok(Step::Finish { proven, owed: None, agreed })
            }
            _ => Err(Refusal::Malformed),
        }
    }

    fn on_hello(&mut self, theirs: Hello, role: Role) -> Result<Step, Refusal> {
        if theirs.group != self.setup.hello.group {
            return Err(Refusal::NotMember);
        }
        let step = match role {
            Role::Dialler => Message::Proof(self.proof(Role::Dialler, &theirs)),
            Role::Acceptor => self.hello(),
        };
        self.state = State::Greeted(theirs);
        Ok(Step::Send(step))
    }

    fn on_proof(&mut self, theirs: Hello, proof: &[u8; 32]) -> Result<Step, Refusal> {
        self.verify(&theirs, proof)?;
        let shown = Message::Shown { proof: self.proof(Role::Acceptor, &theirs), terms: self.setup.terms.clone() };
        self.state = State::Shown(self.proved(theirs));
        Ok(Step::Send(shown))
    }

    fn proved(&self, theirs: Hello) -> Proven {
        let member = Member { node: NodeId::from_bytes(*self.setup.peer.as_bytes()), incarnation: theirs.incarnation };
        let digest = blake3::derive_key(ID_DOMAIN, &self.transcript(&theirs));
        let id = digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        // Zero stands for none.
        Proven { member, hello: theirs, id: id.max(1) }
    }

    fn verify(&self, theirs: &Hello, proof: &[u8; 32]) -> Result<(), Refusal> {
        let author = match self.setup.role {
            Role::Dialler => Role::Acceptor,
            Role::Acceptor => Role::Dialler,
        };
        // Hashes compare in constant time.
        let right = blake3::Hash::from_bytes(self.proof(author, theirs)) == blake3::Hash::from_bytes(*proof);
        if right { Ok(()) } else { Err(Refusal::WrongKey) }
    }

    fn proof(&self, author: Role, theirs: &Hello) -> [u8; 32] {
        let mut transcript = self.transcript(theirs);
        transcript.push(author as u8);
        mac(&blake3::derive_key(KEY_DOMAIN, self.setup.key.as_bytes()), &transcript)
    }

    /// Everything that the two must have in common, the dialler's part first. Every part is of fixed size.
    fn transcript(&self, theirs: &Hello) -> Vec<u8> {
        let Setup { role, me, peer, exporter, hello, .. } = &self.setup;
        let (mine, yours) = ((me, hello), (peer, theirs));
        let sides = if *role == Role::Dialler { [mine, yours] } else { [yours, mine] };
        let mut said = exporter.to_vec();
        for (id, hello) in sides {
            let Hello { group, incarnation, cluster, start, extent, nonce, session, dial, gave_up } = hello;
            let Start { number, run, term: began, last: end } = start;
            let Extent { term, last, verified, committed } = extent;
            for part in [id.as_bytes(), group.as_bytes(), nonce, &cluster.map_or([0; 32], |cluster| cluster.0.0)] {
                said.extend_from_slice(part);
            }
            said.push(u8::from(cluster.is_some()));
            [incarnation, number, run, began, end, term, last, verified, committed, session, dial, gave_up]
                .iter()
                .for_each(|number| said.extend_from_slice(&number.to_le_bytes()));
        }
        said
    }
}

/// The message authentication code of proofs: HMAC-SHA256 (RFC 2104, FIPS 180-4).
fn mac(key: &[u8; 32], transcript: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    // A key of exactly one block is used as it is, as HMAC pads a shorter one itself: this form cannot fail.
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(transcript);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests;
