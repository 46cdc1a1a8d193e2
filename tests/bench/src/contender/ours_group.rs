//! Groups of this repository's framework.

use std::path::PathBuf;

use anyhow::Result;
use mosaik::{groups, prelude::*};

use super::{Framework, Replicated, ours::Ours};
use crate::work::Kind;

#[derive(Default, Clone, Serialize, Deserialize)]
pub struct Counter(i64);

impl StateMachine for Counter {
    type Command = u32;
    type Output = i64;
    type Query = ();
    type QueryResult = i64;
    const NAME: &'static str = "counter";

    fn apply(&mut self, by: u32, _: &ApplyContext) -> i64 {
        self.0 = self.0.wrapping_add(i64::from(by));
        self.0
    }

    fn query(&self, (): ()) -> i64 {
        self.0
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::cloned()
    }
}

#[derive(Clone)]
pub struct Member {
    group: groups::Group<Counter>,
    key: GroupKey,
    /// Ends with its last handle.
    _network: Network,
}

/// Deletes what durable members of this process have kept.
pub fn clean() {
    (0..).map(data_dir).take_while(|dir| std::fs::remove_dir_all(dir).is_ok()).for_each(drop);
}

/// Where durable members keep their state.
fn data_dir(index: usize) -> PathBuf {
    PathBuf::from(format!("mosaik-bench-group-{}-{index}", std::process::id()))
}

impl Replicated for Ours {
    type Member = Member;

    async fn members(count: usize, kind: Kind) -> Result<Vec<Member>> {
        let (key, size) = (GroupKey::random(), u32::try_from(count)?);
        let mut members = Vec::new();
        for index in 0..count {
            let mut network = super::ours::builder("groups")?;
            if kind == Kind::Durable {
                network = network.with_data_dir(data_dir(index));
            }
            let network = network.build().await?;
            let mut builder = network.groups().with_key(key.clone()).with_state_machine(Counter::default());
            if kind == Kind::Lan {
                builder = builder.with_timing(Timing::lan());
            }
            let group = builder.with_size(size).join().await?;
            members.push(Member { group, key: key.clone(), _network: network });
        }
        for member in &members {
            member.group.when().is_online().await;
        }
        Ok(members)
    }

    async fn join(members: &[Member]) -> Result<Member> {
        let network = <Self as Framework>::node("groups", None).await?;
        let (key, size) = (members[0].key.clone(), u32::try_from(members.len())?);
        let builder = network.groups().with_key(key.clone()).with_state_machine(Counter::default());
        let group = builder.with_size(size).join().await?;
        Ok(Member { group, key, _network: network })
    }

    fn is_leader(member: &Member) -> bool {
        member.group.is_leader()
    }

    async fn execute(member: &Member, commands: Vec<u32>) -> Result<()> {
        match commands[..] {
            [one] => _ = member.group.execute(one, Consistency::Strong).await?,
            _ => _ = member.group.execute_many(commands, Consistency::Strong).await?,
        }
        Ok(())
    }

    async fn query(member: &Member, strong: bool) -> Result<i64> {
        let consistency = if strong { Consistency::Strong } else { Consistency::Weak };
        Ok(*member.group.query((), consistency).await?)
    }
}
