//! What the worker of a replica publishes: the state, how it stands, and why it is not in step if it is not.

use super::{
    super::{
        core::Standing,
        disk::word,
        lineage::Run,
        replica::ReplicaState,
        view::{Position, Versioned, View},
    },
    FOLLOW, Worker,
};
use crate::primitives::PeerId;

impl<V: View> Worker<V> {
    /// What an operator should know: why it is not in step, or not on disk.
    fn trouble(&self, standing: Standing) -> Option<String> {
        let failure =
            || self.failure.as_ref().map_or_else(String::new, |failure| format!("; the last attempt: {failure}"));
        let why = match standing {
            Standing::Synced(_) => None,
            Standing::Alone => {
                let end = self.last_end.as_ref().map_or_else(String::new, |end| format!("; the last one: {end}"));
                Some(format!("no primary is connected{end}{}", failure()))
            }
            Standing::Catching(_) if self.cut.claim().is_some() => {
                Some(format!("the primary is asked whether its file is an older copy{}", failure()))
            }
            Standing::Catching(_) => {
                let left_out = match self.cut.left_out {
                    0 => String::new(),
                    some => {
                        format!("; {some} deltas came meanwhile for which there was no room, so another one follows")
                    }
                };
                Some(format!("{}{left_out}{}", self.progress, failure()))
            }
            Standing::Refused(primary) => {
                let file = self.saver.as_ref().map(|saver| word(saver.disk().file(), FOLLOW).display().to_string());
                let how = file.map_or_else(String::new, |file| format!(", or create the file {file}"));
                let at = self.position();
                Some(format!(
                    "{primary:?} is primary with a history that does not continue what is kept here ({at}): bring back the \
                     primary that has it{how} to give it up"
                ))
            }
        };
        let disk = self.saver.as_ref().and_then(|saver| saver.trouble.as_ref());
        let disk = disk.map(|trouble| format!("it is not on disk: {trouble}"));
        [why, disk].into_iter().flatten().reduce(|one, other| format!("{one}; {other}"))
    }

    /// The node behind what the core knows: of an owned store a member that is connected, or the local one.
    fn named(&self, primary: PeerId) -> PeerId {
        if !self.is_owned {
            return primary;
        }
        self.connected.first().copied().unwrap_or_else(|| self.registry.node.id())
    }

    /// At a member of the owner: what handles read and others are given, and how far the file is behind.
    fn show(&self, value: Option<&Versioned<V>>, trouble: Option<&String>) {
        let Some(member) = &self.member else { return };
        if let Some(value) = value {
            let Position { epoch, seq } = value.position();
            *member.snapshots.run() = Run { epoch, end: seq, lineage: None };
            member.shown.send_replace(value.clone());
        }
        let behind = self.saver.as_ref().map_or((0, 0), |saver| saver.behind(self.cut.at()));
        member.shared.behind.send_if_modified(|known| std::mem::replace(known, behind) != behind);
        if member.snapshots.trouble().as_ref() != trouble {
            member.snapshots.set_trouble(trouble.cloned());
        }
    }

    /// Publishes the state, and how the replica stands.
    pub(super) fn publish(&mut self) {
        let standing = self.cut.standing();
        let state = match standing {
            Standing::Alone => ReplicaState::Alone,
            Standing::Synced(primary) => ReplicaState::Synced { primary: self.named(primary) },
            Standing::Catching(primary) => ReplicaState::Catching { primary: self.named(primary) },
            Standing::Refused(primary) => ReplicaState::OtherHistory { primary },
        };
        // All members of an owner are one primary.
        (self.stats.resumed, self.stats.primaries) = (self.cut.resumed, self.cut.primaries());
        let position = self.position();
        let known = self.published.borrow().value.position();
        let value = (known != position).then(|| Versioned::new(self.state.clone(), position));
        let (stats, trouble) = (self.stats, self.trouble(standing));
        self.show(value.as_ref(), trouble.as_ref());
        self.published.send_modify(|published| {
            published.state = state;
            published.stats = stats;
            published.trouble = trouble;
            if let Some(value) = value {
                published.value = value;
            }
        });
    }
}
