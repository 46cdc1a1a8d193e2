//! Groups of this repository's framework.

use anyhow::Result;
use mosaik::{groups, prelude::*};

use super::{Framework, Replicated, ours::Ours};

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
    /// Ends with its last handle.
    _network: Network,
}

impl Replicated for Ours {
    type Member = Member;

    async fn members(count: usize) -> Result<Vec<Member>> {
        let (key, size) = (GroupKey::random(), u32::try_from(count)?);
        let mut members = Vec::new();
        for _ in 0..count {
            let network = <Self as Framework>::node("groups", None).await?;
            let builder = network.groups().with_key(key.clone()).with_state_machine(Counter::default());
            let group = builder.with_size(size).join().await?;
            members.push(Member { group, _network: network });
        }
        for member in &members {
            member.group.when().is_online().await;
        }
        Ok(members)
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
