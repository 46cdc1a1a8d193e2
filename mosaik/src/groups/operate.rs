//! `operate/2`: what an operator who has a group's key may ask of one of its members without being one: to seal the group, to
//! hand leadership over, to prefer a member as leader.
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

use super::{
    Groups,
    error::SealError,
    inspect::Window,
    key::GroupKey,
    leadership::{self, LeaderPreference, Transferred},
    raft::Index,
    worker::Ask,
};
use crate::{
    network::{Acceptors, CloseCode, Family, Link, LinkError, Node, OpenError, Protocol},
    primitives::{GroupId, PeerId},
};

/// Requests that are served at once; further ones are told to come again.
const AT_ONCE: usize = 16;
/// How long the request may take to come, and the answer to be taken.
const PROMPT: Duration = Duration::from_secs(5);
/// How long the group may take.
const GIVEN: Duration = Duration::from_secs(10);
/// The longest reason in an answer, in bytes.
const MAX_REASON: usize = 512;
const EXPORTER_LABEL: &[u8] = b"EXPORTER-mosaik-group-operate-2";

#[derive(Debug)]
struct Operating;

impl Protocol for Operating {
    type Message = Message;
    const FAMILY: Family = Family::GROUPS;
    const NAME: &'static str = "operate/2";
    const MAX_FRAME: usize = 1024;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    /// Do this; who asks has the group's key.
    Ask { group: GroupId, order: Order, proof: [u8; 32] },
    /// Done, and the outcome.
    Done(Outcome),
    /// Why not, or not yet.
    Failed(String),
}

/// What an operator may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Order {
    /// Seal the group.
    Seal,
    /// Hand leadership to this member.
    Transfer(PeerId),
    /// The asked member is to lead that much from now on.
    Prefer(LeaderPreference),
}

/// What came of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    /// Sealed at this index; the member's snapshot is durable.
    Sealed(Index),
    /// Who leads.
    Transferred(Transferred),
    /// Taken as the member's preference.
    Preferred,
}

/// Why a member did not do what an operator asked for.
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
    /// It could not be done, or not yet. A seal or a hand-over that has begun may still be done.
    #[error("{0}")]
    Failed(String),
}

/// What proves the key on this connection, for this order.
fn proof(key: &GroupKey, group: GroupId, order: Order, exporter: &[u8; 32]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(b"mosaik 2 order to a group:").update(exporter).update(group.as_bytes());
    // Encoding plain data into memory does not fail.
    hasher.update(&postcard::to_allocvec(&order).unwrap_or_default());
    hasher.finalize()
}

/// Asks a member to seal its group. Resolves to the index once the member's snapshot of it is durable.
pub(crate) async fn seal(
    node: &Node,
    member: &EndpointAddr,
    key: &GroupKey,
    machine: &str,
) -> Result<Index, OperateError> {
    match order(node, member, key, machine, Order::Seal).await? {
        Outcome::Sealed(index) => Ok(index),
        _ => Err(another()),
    }
}

/// Asks a member to have leadership handed to another one, or to itself. Resolves when that leads.
pub(crate) async fn transfer(
    node: &Node,
    member: &EndpointAddr,
    key: &GroupKey,
    machine: &str,
    to: PeerId,
) -> Result<Transferred, OperateError> {
    match order(node, member, key, machine, Order::Transfer(to)).await? {
        Outcome::Transferred(transferred) => Ok(transferred),
        _ => Err(another()),
    }
}

/// Sets how much a member is to lead.
pub(crate) async fn prefer(
    node: &Node,
    member: &EndpointAddr,
    key: &GroupKey,
    machine: &str,
    preference: LeaderPreference,
) -> Result<(), OperateError> {
    match order(node, member, key, machine, Order::Prefer(preference)).await? {
        Outcome::Preferred => Ok(()),
        _ => Err(another()),
    }
}

fn another() -> OperateError {
    OperateError::NoAnswer("the answer to another request".to_owned())
}

async fn order(
    node: &Node,
    member: &EndpointAddr,
    key: &GroupKey,
    machine: &str,
    order: Order,
) -> Result<Outcome, OperateError> {
    let group = key.group_id(machine);
    let mut link = node.open::<Operating>(member).await.map_err(|error| match error {
        OpenError::Link(error) => failed(&error),
        OpenError::Connect(error) => OperateError::Unreachable(error.to_string()),
    })?;
    let exporter = link.exporter(EXPORTER_LABEL, group.as_bytes());
    let exporter = exporter.ok_or_else(|| OperateError::NoAnswer("the connection is gone".to_owned()))?;
    let request = Message::Ask { group, order, proof: *proof(key, group, order, &exporter).as_bytes() };
    let asking = async {
        link.send(&request).await?;
        link.recv().await
    };
    match timeout(GIVEN + PROMPT, asking).await {
        Ok(Ok(Some(Message::Done(outcome)))) => Ok(outcome),
        Ok(Ok(Some(Message::Failed(why)))) => Err(OperateError::Failed(why)),
        Ok(Ok(Some(Message::Ask { .. }))) => Err(OperateError::NoAnswer("a request instead of an answer".to_owned())),
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
        let (group, order, shown) = match timeout(PROMPT, link.recv()).await {
            Ok(Ok(Some(Message::Ask { group, order, proof }))) => (group, order, proof),
            Ok(Ok(Some(_)) | Err(LinkError::Undecodable { .. })) => return link.close(CloseCode::Undecodable),
            Ok(Ok(None) | Err(_)) => return,
            Err(_) => return link.close(CloseCode::Timeout),
        };
        let window = self.0.joined().get(&group).and_then(|joined| joined.window.clone());
        let Some(window) = window else { return link.close(CloseCode::GroupNotFound) };
        let Some(exporter) = link.exporter(EXPORTER_LABEL, group.as_bytes()) else { return };
        // Compared in constant time.
        if proof(&window.key, group, order, &exporter) != blake3::Hash::from_bytes(shown) {
            tracing::warn!(?group, peer = ?link.peer(), ?order, "somebody without the key gives the group an order");
            return link.close(CloseCode::WrongKey);
        }
        tracing::info!(?group, peer = ?link.peer(), ?order, "an operator's order");
        let answer = match window.carry_out(order).await {
            Ok(outcome) => Message::Done(outcome),
            Err(mut why) => {
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

impl Window {
    async fn carry_out(&self, order: Order) -> Result<Outcome, String> {
        match order {
            Order::Seal => self.seal().await.map(Outcome::Sealed).map_err(|error| error.to_string()),
            Order::Transfer(to) => {
                let transferred = leadership::transfer(&self.queue, to, GIVEN).await;
                transferred.map(Outcome::Transferred).map_err(|error| error.to_string())
            }
            Order::Prefer(preference) => {
                let asked = self.queue.ask(Ask::Prefer(preference));
                asked.map(|()| Outcome::Preferred).map_err(|why| SealError::Stopped(why).to_string())
            }
        }
    }

    /// As [`Group::seal`](super::Group::seal) of the member.
    async fn seal(&self) -> Result<Index, SealError> {
        if !self.board.status().compacts() {
            return Err(SealError::NoSnapshots);
        }
        let (sender, answer) = oneshot::channel();
        let ask = Ask::Seal { deadline: Instant::now() + GIVEN, timeout: GIVEN, answer: sender };
        self.queue.ask(ask).map_err(SealError::Stopped)?;
        let stopped = || SealError::Stopped(self.queue.closed().unwrap_or(super::error::StopReason::Shutdown));
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::fixtures::Fixture;

    #[test]
    fn messages_are_as_they_were() {
        Fixture::new(Operating::NAME).postcard::<Message>().check();
    }
}
