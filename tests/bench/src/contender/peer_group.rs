//! Groups of the crate that the registry knows as `mosaik`.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use mosaik_peer::{
    Network,
    groups::{ApplyContext, Consistency, Group, GroupKey, LogReplaySync, StateMachine},
    primitives::UniqueId,
};
use tokio::time::sleep;

use super::{Framework, Replicated, peer::Peer};
use crate::work::Kind;

#[derive(Debug, Default)]
pub struct Counter(i64);

impl StateMachine for Counter {
    type Command = u32;
    type Query = ();
    type QueryResult = i64;
    type StateSync = LogReplaySync<Self>;

    fn signature(&self) -> UniqueId {
        UniqueId::from_u8(2)
    }

    fn apply(&mut self, by: u32, _: &dyn ApplyContext) {
        self.0 = self.0.wrapping_add(i64::from(by));
    }

    fn query(&self, (): ()) -> i64 {
        self.0
    }

    fn state_sync(&self) -> Self::StateSync {
        LogReplaySync::default()
    }
}

#[derive(Clone)]
pub struct Member(std::sync::Arc<Inner>);

struct Inner {
    group: Group<Counter>,
    key: GroupKey,
    network: Network,
}

fn member(network: Network, key: GroupKey) -> Member {
    let group = network.groups().with_key(key).with_state_machine(Counter::default()).join();
    Member(std::sync::Arc::new(Inner { group, key, network }))
}

impl Replicated for Peer {
    type Member = Member;

    async fn members(count: usize, kind: Kind) -> Result<Vec<Member>> {
        ensure!(kind == Kind::Volatile, "it has no groups of that kind");
        let key = GroupKey::random();
        let mut networks: Vec<Network> = Vec::new();
        for _ in 0..count {
            let network = <Self as Framework>::node("groups", None).await?;
            for other in &networks {
                <Self as Framework>::sync(&network, other.local().addr()).await?;
            }
            networks.push(network);
        }
        let members: Vec<Member> = networks.into_iter().map(|network| member(network, key)).collect();
        for member in &members {
            member.0.group.when().online().await;
        }
        let leaders = || members.iter().map(|member| member.0.group.leader()).collect::<Vec<_>>();
        while leaders().iter().any(|leader| leader.is_none() || *leader != leaders()[0]) {
            sleep(Duration::from_millis(10)).await;
        }
        Ok(members)
    }

    async fn join(members: &[Member]) -> Result<Member> {
        let network = <Self as Framework>::node("groups", None).await?;
        for other in members {
            <Self as Framework>::sync(&network, other.0.network.local().addr()).await?;
        }
        Ok(member(network, members[0].0.key))
    }

    fn is_leader(member: &Member) -> bool {
        member.0.group.is_leader()
    }

    async fn execute(member: &Member, commands: Vec<u32>) -> Result<()> {
        member.0.group.execute_many(commands).await.map_err(|error| anyhow!("{error:?}"))?;
        Ok(())
    }

    async fn query(member: &Member, strong: bool) -> Result<i64> {
        let consistency = if strong { Consistency::Strong } else { Consistency::Weak };
        Ok(*member.0.group.query((), consistency).await.map_err(|error| anyhow!("{error:?}"))?)
    }
}
