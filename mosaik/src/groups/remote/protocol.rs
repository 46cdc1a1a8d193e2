//! What a client of a group and a member say to each other, `call/1`: a handshake in short frames, then requests and answers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    groups::{
        bonds::MAX_CALL,
        key::GroupKey,
        machine::StateMachine,
        raft::{ClusterId, Index, Member, Term},
        shapes::Shapes,
    },
    network::{Family, Protocol},
    primitives::{GroupId, codec::Codec},
    trust::Label,
};

/// The longest frame after the handshake, in bytes.
pub(super) const MAX_FRAME: usize = MAX_CALL + 1024;
const EXPORTER_LABEL: &[u8] = b"EXPORTER-mosaik-group-call-1";

/// The handshake; what follows has longer frames.
#[derive(Debug)]
pub(super) struct Calling;

impl Protocol for Calling {
    type Message = Greeting;
    const FAMILY: Family = Family::GROUPS;
    const NAME: &'static str = "call/1";
    const MAX_FRAME: usize = 256;
}

/// What client and member must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::groups) struct Shape {
    pub version: u32,
    /// The fingerprint of commands, outputs, queries and their results, and of the group's label.
    pub schema: [u8; 32],
}

impl Shape {
    pub fn of<M: StateMachine>(label: Option<&Label>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("mosaik 1 what clients exchange with a machine");
        hasher.update(&Shapes::of::<M>().fingerprint);
        hasher.update(&Codec::<M::Query>::of().fingerprint(M::SCHEMA));
        hasher.update(&Codec::<M::QueryResult>::of().fingerprint(M::SCHEMA));
        if let Some(label) = label {
            hasher.update(b"label:").update(label.as_str().as_bytes());
        }
        Self { version: M::VERSION, schema: *hasher.finalize().as_bytes() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Greeting {
    /// A client that has the group's key.
    Hello { group: GroupId, shape: Shape, proof: [u8; 32] },
    /// A member that has it, too.
    Welcome { proof: [u8; 32] },
    /// A member of another version or shape.
    Differs { shape: Shape },
}

/// From a client, after the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// Chosen by the client, echoed.
    pub id: u64,
    pub ask: Asked,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Asked {
    /// An encoded batch of commands, as between members.
    Batch(Bytes),
    /// An encoded query. `strong`: linearizable. The machine must have applied everything up to `at_least`. It may take so
    /// many milliseconds.
    Query { body: Bytes, strong: bool, at_least: Index, within: u32 },
}

/// From a member, after the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Told {
    /// How the member stands: at first, and after each change.
    Standing(Standing),
    /// The answer to a batch, encoded as between members; none if what became of it is not known.
    Batch { id: u64, response: Option<Bytes> },
    /// The answer to a query.
    Query { id: u64, answer: Result<(Index, Bytes), Unanswered> },
}

/// What a client must know of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub cluster: Option<ClusterId>,
    pub term: Term,
    pub leader: Option<Member>,
    /// It knows a leader and its data are current as far as it can tell.
    pub online: bool,
    /// The machine takes no commands any more.
    pub sealed: bool,
}

/// Why a member did not answer a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::groups) enum Unanswered {
    /// Not in time, or it stops; another one may. In words.
    NotHere(String),
    /// The query could not be read, the machine panicked, or the result is too long. In words.
    Failed(String),
}

/// Whose proof it is.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Client,
    Member,
}

/// What proves the key on this connection, from one side.
pub(super) fn proof(key: &GroupKey, group: GroupId, exporter: &[u8; 32], side: Side) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(match side {
        Side::Client => b"mosaik 1 client of a group:",
        Side::Member => b"mosaik 1 member to client of:",
    });
    hasher.update(exporter).update(group.as_bytes());
    hasher.finalize()
}

/// What only the two ends of the connection know.
pub(super) fn exporter(link: &crate::network::Link<Calling>, group: GroupId) -> Option<[u8; 32]> {
    link.exporter(EXPORTER_LABEL, group.as_bytes())
}
