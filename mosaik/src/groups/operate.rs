//! `operate/1`: what an operator who has a group's key may ask of one of its members without being one: to seal the group.
//!
//! The key does not travel. The request carries a hash, keyed with it, of what only the two ends of this connection can
//! derive; on another connection it is worth nothing. The protocol: `docs/src/protocols.md`.

use std::{sync::Arc, time::Duration};

use iroh::EndpointAddr;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout},
};

use super::{Groups, error::SealError, key::GroupKey, raft::Index, worker::Ask};
use crate::{
    network::{Acceptors, CloseCode, Family, Link, LinkError, Node, OpenError, Protocol},
    primitives::GroupId,
};

/// Requests that are served at once; further ones are told to come again.
const AT_ONCE: usize = 16;
/// How long the request may take to come, and the answer to be taken.
const PROMPT: Duration = Duration::from_secs(5);
/// How long the group may take.
const SEALING: Duration = Duration::from_secs(10);
/// The longest reason in an answer, in bytes.
const MAX_REASON: usize = 512;
const EXPORTER_LABEL: &[u8] = b"EXPORTER-mosaik-group-operate-1";

#[derive(Debug)]
struct Operating;

impl Protocol for Operating {
    type Message = Message;
    const FAMILY: Family = Family::GROUPS;
    const NAME: &'static str = "operate/1";
    const MAX_FRAME: usize = 1024;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    /// Seal the group; who asks has its key.
    Seal { group: GroupId, proof: [u8; 32] },
    /// Sealed at this index; the member's snapshot is durable.
    Sealed(Index),
    /// Why not, or not yet.
    Failed(String),
}

/// Why a member did not seal its group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperateError {
    /// It cannot be reached.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It is no member of the group of this key and machine.
    #[error("it is no member of the group of this key")]
    NotMember,
    /// The key is not that of the group.
    #[error("the key is not that of the group")]
    WrongKey,
    /// It refused, or the link failed.
    #[error("it gave no answer: {0}")]
    NoAnswer(String),
    /// The group could not be sealed, or not yet. It may still be.
    #[error("{0}")]
    Failed(String),
}

/// What proves the key on this connection.
fn proof(key: &GroupKey, group: GroupId, exporter: &[u8; 32]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(b"mosaik 1 seal of a group:").update(exporter).update(group.as_bytes());
    hasher.finalize()
}

/// Asks a member to seal its group. Resolves to the index once the member's snapshot of it is durable.
pub(crate) async fn seal(
    node: &Node,
    member: &EndpointAddr,
    key: &GroupKey,
    machine: &str,
) -> Result<Index, OperateError> {
    let group = key.group_id(machine);
    let mut link = node.open::<Operating>(member).await.map_err(|error| match error {
        OpenError::Link(error) => failed(&error),
        OpenError::Connect(error) => OperateError::Unreachable(error.to_string()),
    })?;
    let exporter = link.exporter(EXPORTER_LABEL, group.as_bytes());
    let exporter = exporter.ok_or_else(|| OperateError::NoAnswer("the connection is gone".to_owned()))?;
    let request = Message::Seal { group, proof: *proof(key, group, &exporter).as_bytes() };
    let asking = async {
        link.send(&request).await?;
        link.recv().await
    };
    match timeout(SEALING + PROMPT, asking).await {
        Ok(Ok(Some(Message::Sealed(index)))) => Ok(index),
        Ok(Ok(Some(Message::Failed(why)))) => Err(OperateError::Failed(why)),
        Ok(Ok(Some(Message::Seal { .. }))) => Err(OperateError::NoAnswer("a request instead of an answer".to_owned())),
        Ok(Ok(None)) => Err(OperateError::NoAnswer("the link ended".to_owned())),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(OperateError::NoAnswer("it took too long".to_owned())),
    }
}

fn failed(error: &LinkError) -> OperateError {
    match error {
        LinkError::Closed(CloseCode::GroupNotFound) => OperateError::NotMember,
        LinkError::Closed(CloseCode::WrongKey) => OperateError::WrongKey,
        error => OperateError::NoAnswer(error.to_string()),
    }
}

impl Groups {
    /// Registers the protocol.
    pub(crate) fn serve_operators(&self, acceptors: &mut Acceptors) {
        let (weak, places) = (Arc::downgrade(&self.0), Arc::new(Semaphore::new(AT_ONCE)));
        acceptors.accept::<Operating>(move |incoming| {
            let Some(groups) = weak.upgrade().map(Self) else { return };
            let link = incoming.link::<Operating>();
            let Ok(place) = places.clone().try_acquire_owned() else { return link.close(CloseCode::NoCapacity) };
            let tasks = groups.0.node.tasks().clone();
            tasks.spawn("group operator", async move {
                groups.operate(link).await;
                drop(place);
            });
        });
    }

    async fn operate(&self, mut link: Link<Operating>) {
        let (group, shown) = match timeout(PROMPT, link.recv()).await {
            Ok(Ok(Some(Message::Seal { group, proof }))) => (group, proof),
            Ok(Ok(Some(_)) | Err(LinkError::Undecodable { .. })) => return link.close(CloseCode::Undecodable),
            Ok(Ok(None) | Err(_)) => return,
            Err(_) => return link.close(CloseCode::Timeout),
        };
        let window = self.0.joined().get(&group).and_then(|joined| joined.window.clone());
        let Some(window) = window else { return link.close(CloseCode::GroupNotFound) };
        let Some(exporter) = link.exporter(EXPORTER_LABEL, group.as_bytes()) else { return };
        // Compared in constant time.
        if proof(&window.key, group, &exporter) != blake3::Hash::from_bytes(shown) {
            tracing::warn!(?group, peer = ?link.peer(), "somebody without the key asks to seal the group");
            return link.close(CloseCode::WrongKey);
        }
        tracing::info!(?group, peer = ?link.peer(), "an operator seals the group");
        let answer = match window.seal().await {
            Ok(index) => Message::Sealed(index),
            Err(error) => {
                let mut why = error.to_string();
                why.truncate(why.floor_char_boundary(MAX_REASON));
                Message::Failed(why)
            }
        };
        if let Ok(Err(error)) = timeout(PROMPT, link.send(&answer)).await {
            tracing::debug!(?group, %error, "the operator has gone");
        }
        link.finish();
    }
}

impl super::inspect::Window {
    /// As [`Group::seal`](super::Group::seal) of the member.
    async fn seal(&self) -> Result<Index, SealError> {
        if !self.board.status().compacts() {
            return Err(SealError::NoSnapshots);
        }
        let (sender, answer) = oneshot::channel();
        let ask = Ask::Seal { deadline: Instant::now() + SEALING, timeout: SEALING, answer: sender };
        self.queue.ask(ask).map_err(SealError::Stopped)?;
        let stopped = || SealError::Stopped(self.queue.closed().unwrap_or(super::error::StopReason::Shutdown));
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}
