//! [`StateMachine`]: what a group replicates, written by the user.
//!
//! Every member applies the same commands in the same order to its own copy. Nothing here does IO; the apply worker is
//! the only caller.

use std::time::Duration;

use serde::Serialize;

use super::{
    raft::{Digest, Entry, Index, MachineId, Term},
    shapes::Shapes,
    snapshots::Snapshots,
};
use crate::primitives::Datum;

/// A deterministic machine that a group keeps equal on all its members.
///
/// `apply` must be a function of the machine and its arguments alone: no clock, no randomness, no environment, no map
/// with a random order that can be observed; [`ApplyContext`] has an agreed clock and an agreed seed. A machine that breaks
/// this differs from member to member, and nothing can repair that.
///
/// ```
/// use mosaik::{groups::{ApplyContext, Snapshots, StateMachine}, prelude::*};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Counter(i64);
///
/// impl StateMachine for Counter {
///     type Command = i64;
///     type Output = i64;
///     type Query = ();
///     type QueryResult = i64;
///     const NAME: &'static str = "counter";
///
///     fn apply(&mut self, by: i64, _: &ApplyContext) -> i64 {
///         self.0 = self.0.wrapping_add(by);
///         self.0
///     }
///
///     fn query(&self, (): ()) -> i64 {
///         self.0
///     }
///
///     fn snapshots() -> Snapshots<Self> {
///         Snapshots::serde()
///     }
/// }
///
/// let mut counter = Counter::default();
/// assert_eq!(counter.apply(5, &ApplyContext::at(1)), 5);
/// ```
pub trait StateMachine: Send + Sized + 'static {
    /// What changes the machine. Encoded at most 1 MiB.
    type Command: Datum;
    /// What a command gives back. Kept in the table of sessions until its caller has it.
    type Output: Datum;
    /// What is asked of the machine.
    type Query: Datum;
    /// What a query gives back.
    type QueryResult: Datum;

    /// The machine's name: with the key it decides which group this is.
    const NAME: &'static str;
    /// The machine's version: members of different versions refuse each other. Raise it when commands, outputs or
    /// what `apply` does change.
    const VERSION: u32 = 0;
    /// A fingerprint of the declaration of commands and outputs. It counts where their shape cannot be looked into; the shape is
    /// always compared: members that differ in it refuse each other.
    const SCHEMA: Option<[u8; 32]> = None;

    /// Applies a committed command. Must be deterministic.
    ///
    /// A panic is contained: the caller gets [`CallError::Panicked`](super::CallError::Panicked), the command counts as one that
    /// did nothing, and all members go on from the state before it. For that the machine is made anew from its last snapshot
    /// and the log. One that has no [snapshots](Self::snapshots) and was not given as a function
    /// ([`with_initial`](super::GroupBuilder::with_initial)) cannot be made anew: it goes on with what the command had changed
    /// before it panicked, which is the same at all members.
    fn apply(&mut self, command: Self::Command, ctx: &ApplyContext) -> Self::Output;

    /// Answers a query from the present state.
    fn query(&self, query: Self::Query) -> Self::QueryResult;

    /// How the machine becomes bytes and back. With the default, [`Snapshots::none`], the log is never compacted: it grows
    /// in memory and on disk, a restart applies it from the beginning, and the group's status says so.
    fn snapshots() -> Snapshots<Self> {
        Snapshots::none()
    }
}

/// Who the machine is, in storage and snapshots.
pub(crate) fn machine_id<M: StateMachine>() -> MachineId {
    MachineId {
        name: M::NAME.to_owned(),
        version: M::VERSION,
        schema: Some(Digest(Shapes::of::<M>().fingerprint)),
        codec: 0,
    }
}

/// Where and when a command is applied: the same at every member.
#[derive(Clone, Debug)]
pub struct ApplyContext {
    index: Index,
    term: Term,
    time: u64,
    hash: [u8; 32],
    part: u32,
}

impl ApplyContext {
    pub(crate) const fn of(entry: &Entry) -> Self {
        Self { index: entry.index, term: entry.term, time: entry.civil, hash: entry.hash.0, part: 0 }
    }

    /// That of another command of the same entry.
    pub(crate) fn part_at(&self, part: usize) -> Self {
        Self { part: u32::try_from(part).unwrap_or(u32::MAX), ..*self }
    }

    /// A context for testing a machine by itself: term 1, time 0, a seed that follows from the index.
    #[must_use]
    pub fn at(index: u64) -> Self {
        Self { index, term: 1, time: 0, hash: *blake3::hash(&index.to_le_bytes()).as_bytes(), part: 0 }
    }

    /// The same context at another time, for testing a machine by itself.
    #[must_use]
    pub fn with_time(mut self, since_epoch: Duration) -> Self {
        self.time = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// The place in the log of the entry that carried the command. Never goes back, has gaps, and commands of one member
    /// that came at the same time share it: [`part`](Self::part) tells them apart.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The command's place in its entry, from 0. The pair of [`index`](Self::index) and this one grows from command to
    /// command.
    #[must_use]
    pub const fn part(&self) -> u32 {
        self.part
    }

    /// The term of the leader that took the command.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// The group's civil time when the leader took the command, since the Unix epoch, in milliseconds.
    ///
    /// It begins with the median of the founders' wall clocks, never goes back along a log, and follows the median of the
    /// voters' wall clocks: at most twice as fast as time passes while it is behind, at least half as fast while it is
    /// ahead. So one wrong clock of three does not move it, and after a full stop of an hour it takes an hour to catch up.
    #[must_use]
    pub const fn time(&self) -> Duration {
        Duration::from_millis(self.time)
    }

    /// Randomness that all members agree on: different for each command, derived from the log up to it. Whoever can read the
    /// log can compute it, so it is no secret, and the leader can influence it.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("mosaik 1 seed of a command");
        *hasher.update(&self.hash).update(&self.part.to_le_bytes()).finalize().as_bytes()
    }
}

/// Why a command of a machine with [states](crate::node::StatesDecl) was not taken: it changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize, thiserror::Error)]
pub enum NoTransition<S> {
    /// It leads nowhere from the state that the machine is in.
    #[error("not possible in the state {state:?}")]
    None {
        /// That state.
        state: S,
    },
    /// It leads somewhere from there, but no condition for that holds, or its time has not come.
    #[error("not possible in the state {state:?} as things are: no condition for it holds")]
    Unmet {
        /// That state.
        state: S,
    },
}

impl<S> NoTransition<S> {
    /// The state that the machine was and stays in.
    pub const fn state(&self) -> &S {
        match self {
            Self::None { state } | Self::Unmet { state } => state,
        }
    }
}

/// A machine without state: for groups that are used only to agree on a leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct NoOp;

impl StateMachine for NoOp {
    type Command = ();
    type Output = ();
    type Query = ();
    type QueryResult = ();
    const NAME: &'static str = "mosaik.noop";

    fn apply(&mut self, (): (), _: &ApplyContext) {}

    fn query(&self, (): ()) {}

    fn snapshots() -> Snapshots<Self> {
        Snapshots::serde()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_differs_from_command_to_command() {
        assert_ne!(ApplyContext::at(1).seed(), ApplyContext::at(2).seed());
        assert_ne!(ApplyContext::at(1).seed(), ApplyContext::at(1).part_at(1).seed());
        assert_eq!(ApplyContext::at(1).with_time(Duration::from_secs(1)).time(), Duration::from_secs(1));
    }
}
