//! Machines with states: their declaration as constant data and as text, and who calls their time-outs.
//!
//! A time-out is a command as any other: it is in the log, and whether its time has come is decided by the group's civil time when
//! it is applied. Whoever leads calls it; that two call it at a change of leaders does no harm, since the second finds another
//! state, or a time that has begun anew.

use std::time::Duration;

use super::{
    graph::Graph,
    machine::{Declared, MachineDecl},
    render::{array, line, object, quoted, string, texts},
};
use crate::{
    groups::{Consistency, Group, StateMachine},
    network::Node,
};

/// How often a leader looks whether a time-out has come: one is late by about this much.
const PACE: Duration = Duration::from_millis(100);
/// The longest that a call may take, and the longest pause after one that changed nothing.
const LONGEST: Duration = Duration::from_secs(1);

/// The states of a declared machine; `#[mosaik::state_machine(states = ..)]` makes it and the compiler has checked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatesDecl {
    /// The identifier of the enum.
    pub ty: &'static str,
    /// All states; a machine begins in the first.
    pub names: &'static [&'static str],
    /// Those that nothing leaves.
    pub terminal: &'static [&'static str],
    /// What leads from one to another, by command, each in the order in which they are tried.
    pub transitions: &'static [TransitionDecl],
    /// A Mermaid state diagram.
    pub mermaid: &'static str,
}

/// What leads from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransitionDecl {
    /// The command.
    pub command: &'static str,
    /// The state in which it is possible.
    pub from: &'static str,
    /// The state in which the machine is afterwards.
    pub to: &'static str,
    /// The name of its condition; empty without one.
    pub guard: &'static str,
    /// The group calls it itself after so long in the state.
    pub after: Option<Duration>,
}

impl StatesDecl {
    /// A Graphviz digraph: ellipses are states, double ones terminal.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let mut out = format!("digraph {} {{\n    rankdir=LR;\n    begin [shape=point];\n", quoted(self.ty));
        for name in self.names {
            let shape = if self.terminal.contains(name) { "doublecircle" } else { "ellipse" };
            line(&mut out, &format!("    {} [shape={shape}];", quoted(name)));
        }
        if let Some(first) = self.names.first() {
            line(&mut out, &format!("    begin -> {};", quoted(first)));
        }
        for each in self.transitions {
            let (from, to, label) = (quoted(each.from), quoted(each.to), quoted(&each.label()));
            line(&mut out, &format!("    {from} -> {to} [label={label}];"));
        }
        out.push_str("}\n");
        out
    }

    /// One JSON object with the keys `type`, `states`, `terminal` and `transitions`; times are in nanoseconds.
    #[must_use]
    pub fn to_json(&self) -> String {
        let null = || String::from("null");
        let transitions = self.transitions.iter().map(|each| {
            object([
                ("command", string(each.command)),
                ("from", string(each.from)),
                ("to", string(each.to)),
                ("if", if each.guard.is_empty() { null() } else { string(each.guard) }),
                ("after", each.after.map_or_else(null, |after| after.as_nanos().to_string())),
            ])
        });
        object([
            ("type", string(self.ty)),
            ("states", texts(self.names)),
            ("terminal", texts(self.terminal)),
            ("transitions", array(transitions)),
        ])
    }
}

impl TransitionDecl {
    pub(super) fn label(&self) -> String {
        let guard = if self.guard.is_empty() { String::new() } else { format!(" [{}]", self.guard) };
        let after = self.after.map_or_else(String::new, |after| format!(" after {after:?}"));
        format!("{}{guard}{after}", self.command)
    }
}

/// There are no states to print.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoStates {
    #[error("no role of this app has a group or a machine \"{name}\"; there are {known}")]
    Unknown { name: String, known: String },
    #[error("no role of this app has a group")]
    NoGroups,
    #[error(
        "the machine {ty} of the group \"{group}\" declares no states: `#[mosaik::state_machine(states = ..)]` does"
    )]
    Stateless { group: &'static str, ty: &'static str },
}

impl Graph {
    /// The states of the machine of this name, or of the group of this name.
    pub(super) fn states(&self, name: &str) -> Result<StatesDecl, NoStates> {
        let groups = self.groups();
        let machines = || groups.iter().map(|group| &group.machine);
        let found = machines().find(|machine| machine.group.name == name || machine.group.ty == name);
        match found {
            Some(MachineDecl { states: Some(states), .. }) => Ok(*states),
            Some(MachineDecl { group, .. }) => Err(NoStates::Stateless { group: group.name, ty: group.ty }),
            None if groups.is_empty() => Err(NoStates::NoGroups),
            None => {
                let known: Vec<_> = machines().map(|machine| format!("\"{}\"", machine.group.name)).collect();
                Err(NoStates::Unknown { name: name.to_owned(), known: known.join(", ") })
            }
        }
    }
}

/// How a member asks a machine for its time-outs.
#[derive(Debug)]
pub struct TimeOuts<M: StateMachine> {
    /// The query.
    pub query: fn() -> M::Query,
    /// What comes next, from its answer.
    pub next: fn(M::QueryResult) -> Option<Due<M::Command>>,
}

/// The next time-out of a machine, if it stays in its state.
#[derive(Clone, Copy, Debug)]
pub struct Due<C> {
    /// When it came into its state, in the group's civil time; zero if nobody has noted it yet.
    pub since: Duration,
    /// How long after that.
    pub after: Duration,
    /// What is called then.
    pub command: C,
}

/// Calls the time-outs of a machine while the local member leads, until it ends.
pub(super) fn call_time_outs<M: Declared>(node: &Node, group: &Group<M>) {
    let Some(time_outs) = M::time_outs() else { return };
    let (member, transport) = (group.downgrade(), node.transport().clone());
    let clock = move || Duration::from_micros(transport.wall_clock());
    node.tasks().spawn("group time-outs", async move {
        let mut seen = Seen { index: None, since: Duration::ZERO, due: None, pause: PACE };
        while let Some(group) = member() {
            if group.is_leader() {
                seen.look(&group.with_timeout(LONGEST), &time_outs, clock()).await;
            } else {
                seen.index = None;
            }
            // Not held while it waits: the last handle of a role ends the member.
            drop(group);
            tokio::time::sleep(PACE).await;
        }
    });
}

/// What a leader knows of the time-outs of its machine.
struct Seen {
    /// When it was asked last; nothing if another member led meanwhile.
    index: Option<u64>,
    /// The time that was noted then.
    since: Duration,
    /// When the next one is to be called.
    due: Option<tokio::time::Instant>,
    /// After a call that changed nothing.
    pause: Duration,
}

impl Seen {
    async fn look<M: Declared>(&mut self, group: &Group<M>, time_outs: &TimeOuts<M>, wall: Duration) {
        let now = tokio::time::Instant::now();
        let is_due = self.due.is_some_and(|due| due <= now);
        if self.index == Some(group.committed()) && !is_due {
            return;
        }
        let Ok(answer) = group.query((time_outs.query)(), Consistency::Weak).await else { return };
        let is_new = self.index.is_none();
        self.index = Some(answer.at());
        let Some(Due { since, after, command }) = (time_outs.next)(answer.into_inner()) else {
            self.due = None;
            return;
        };
        if is_new || self.due.is_none() || since != self.since {
            // By this member's wall clock, but not later than if the state were new: a clock that is behind must not hold it up.
            let left = if since.is_zero() { Duration::ZERO } else { (since + after).saturating_sub(wall).min(after) };
            (self.since, self.due, self.pause) = (since, Some(now + left), PACE);
        }
        if self.due.is_some_and(|due| due <= now) {
            if let Err(error) = group.execute(command, Consistency::Weak).await {
                tracing::debug!(group = M::NAME, %error, "a time-out could not be called yet");
            }
            // Had no effect if the next look sees the same: the group's time is behind this member's.
            self.due = Some(tokio::time::Instant::now() + self.pause);
            self.pause = (2 * self.pause).min(LONGEST);
        }
    }
}
