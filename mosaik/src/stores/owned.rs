//! A store that a group owns: its deltas are put in order by the group's log, and every member folds them and serves replicas.
//!
//! The group numbers the deltas, so the position of a store is the same at all members, and a replica goes on at any of them where it
//! was. A member reads from its own [`Log`] instead of a subscription; what the log has no longer comes as a snapshot from another
//! member. Only the leader offers deltas: [`lead`] is the task behind [`Primary::apply`](super::Primary::apply).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Registry, StoreError,
    disk::Part,
    follow,
    lead::{COMMANDS, Command},
    lineage::Run,
    primary::{Primary, refused},
    replica::{Published, restore, shown},
    serve::{Predicate, Snapshots},
    view::{Position, Versioned, View},
};
use crate::{
    primitives::{Fence, PeerId, StoreId, watch},
    streams::{Producer, ProducerBuilder},
    trust::{Needed, Right},
};

/// Bytes of deltas in one entry of the log, beyond which no further one is added.
const ENTRY: usize = 128 << 10;
/// Entries on their way at once.
const UNDER_WAY: usize = 8;
/// Deltas, and their bytes, by which the file of a durable store may be behind before its leader takes no more: half of what a group
/// keeps, so that whoever starts from the file finds the rest in the log.
const BEHIND: (u64, usize) = (32_768, 2 << 20);
/// Panics that are remembered, to be told to who has applied the delta.
const PANICS: usize = 1024;

/// What a group has decided about the deltas of a store, as its member on this node sees it.
pub(crate) trait Log: Send + Sync {
    /// Names the cluster in which deltas are counted, while there is a member that has come as far as the others.
    fn epoch(&self) -> Option<u64>;
    /// The deltas from this number on.
    fn tail(&self, next: u64) -> Tail;
    /// The leadership under which a delta may be applied now.
    fn fence(&self) -> Option<Fence>;
    /// Offers framed deltas under a leadership, which get consecutive numbers; resolves to the first of them once they are committed.
    fn offer(
        &self,
        fence: Fence,
        count: u64,
        framed: &[u8],
    ) -> Result<BoxFuture<'static, Result<u64, StoreError>>, StoreError>;
    /// Tells when something has changed.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// The newest deltas of a log.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The number of the first one: later than was asked for when that is not kept any more.
    pub(crate) first: u64,
    /// The number behind the last one.
    pub(crate) next: u64,
    /// The deltas, framed, without a hole.
    pub(crate) parts: Vec<Bytes>,
}

/// Makes the log of a store once its producer is there. It ends with the token.
pub(crate) type MakeLog = Box<dyn FnOnce(CancellationToken) -> Arc<dyn Log> + Send>;

/// The one primary that all members of the owner are to the core of a replica: their runs are one run.
pub(super) fn identity(store: StoreId) -> PeerId {
    iroh::SecretKey::from_bytes(store.as_bytes()).public().into()
}

/// What a member of the owner is built from.
pub(super) struct Parts<V: View> {
    pub(super) registry: Arc<Registry>,
    pub(super) store: StoreId,
    pub(super) producer: ProducerBuilder<V::Delta>,
    /// What replicas need, and whom it serves.
    pub(super) replica: (Needed, Option<Predicate>),
    pub(super) initial: Option<V>,
    pub(super) durable: bool,
    pub(super) skipped: BTreeSet<u64>,
    pub(super) owner: MakeLog,
}

/// Starts a member: it folds what the group's log has, and offers deltas when it leads.
pub(super) fn build<V: View>(parts: Parts<V>) -> Result<Primary<V>, StoreError> {
    let Parts { registry, store, producer, replica, initial, durable, skipped, owner } = parts;
    if initial.is_some() {
        return Err(StoreError::Owned("with_state"));
    }
    if !skipped.is_empty() {
        return Err(StoreError::Owned("skip_delta"));
    }
    let file = durable.then(|| registry.file(store, Part::Replica)).transpose()?;
    let (saver, kept) = file.map_or(Ok((None, None)), |file| restore::<V>(store, file))?;
    let value = shown(kept.as_ref());
    let producer = producer.build().map_err(|error| refused(store, error))?;
    let cancel = registry.cancel.child_token();
    let (log, shared) = (owner(cancel.clone()), Shared::new());
    let served = watch::Sender::new(value.clone());
    let Position { epoch, seq } = value.position();
    let run = Run { epoch, end: seq, lineage: None };
    let snapshots = Snapshots::new(store, &served, replica, run, cancel.clone());
    registry.add_primary(store, snapshots.clone());
    let member = follow::Member {
        log: log.clone(),
        shared: shared.clone(),
        shown: served.clone(),
        snapshots: snapshots.clone(),
        bound: None,
    };
    let worker = follow::Worker::new(follow::Parts {
        registry: registry.clone(),
        store,
        primary: (Needed::nothing(Right::Primary), None),
        subscribe_if: None,
        published: watch::Sender::new(Published::new(value)),
        is_owned: true,
        member: Some(member),
        number: None,
        saver,
        kept,
        word: watch::channel(None).1,
    });
    let (until, tasks) = (cancel.clone(), registry.node.tasks());
    tasks.spawn_essential("owned store", async move {
        until.run_until_cancelled(worker.run()).await;
    });
    let (commands, received) = mpsc::channel(COMMANDS);
    let (published, ends) = (served.subscribe(), cancel.clone());
    let leading = Lead { log: log.clone(), producer: producer.clone(), published, shared, cancel: ends };
    tasks.spawn_essential("owned store leads", lead(leading, received));
    Ok(Primary::of_member(commands, log, producer, served, (store, snapshots, cancel)))
}

/// What the tasks of one member share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Deltas on which the view has panicked, by number: they changed nothing, at any member.
    panics: Mutex<BTreeMap<u64, String>>,
    /// Deltas and bytes by which the file is behind the state.
    pub(super) behind: watch::Sender<(u64, usize)>,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self { panics: Mutex::default(), behind: watch::Sender::new((0, 0)) })
    }

    fn panics(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.panics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_skipped(&self, number: u64) -> bool {
        self.panics().contains_key(&number)
    }

    pub(super) fn skip(&self, number: u64, panic: String) {
        let mut panics = self.panics();
        panics.insert(number, panic);
        if panics.len() > PANICS {
            panics.pop_first();
        }
    }
}

/// What [`lead`] works with.
struct Lead<V: View> {
    log: Arc<dyn Log>,
    producer: Producer<V::Delta>,
    published: watch::Receiver<Versioned<V>>,
    shared: Arc<Shared>,
    cancel: CancellationToken,
}

type Answer = oneshot::Sender<Result<Position, StoreError>>;

/// Offers what is applied, and answers when the local state has it.
async fn lead<V: View>(lead: Lead<V>, mut commands: mpsc::Receiver<Command<V>>) {
    let mut under_way = FuturesUnordered::new();
    let (mut batch, mut behind) = (Vec::new(), lead.shared.behind.subscribe());
    loop {
        let is_behind = {
            let (deltas, bytes) = *behind.borrow_and_update();
            deltas >= BEHIND.0 || bytes >= BEHIND.1
        };
        tokio::select! {
            biased;
            () = lead.cancel.cancelled() => return,
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            changed = behind.changed(), if is_behind => if changed.is_err() { return },
            taken = commands.recv_many(&mut batch, COMMANDS), if !is_behind && under_way.len() < UNDER_WAY => {
                if taken == 0 {
                    return;
                }
                lead.offer(&mut batch, |offered| under_way.push(offered));
            }
        }
        tokio::task::coop::consume_budget().await;
    }
}

impl<V: View> Lead<V> {
    fn offer(&self, batch: &mut Vec<Command<V>>, mut take: impl FnMut(BoxFuture<'static, ()>)) {
        let (mut framed, mut answers, mut under) = (Vec::new(), Vec::new(), Fence::NOTHING);
        for (delta, fence, answer) in batch.drain(..) {
            let encoded = self.producer.encode(&delta).map_err(|kind| StoreError::Delta(kind.to_string()));
            match fence.ok_or(StoreError::NotLeader).and_then(|fence| Ok((fence, encoded?))) {
                Ok((fence, encoded)) => {
                    if framed.len() >= ENTRY || (fence != under && !answers.is_empty()) {
                        take(self.entry(under, &std::mem::take(&mut framed), std::mem::take(&mut answers)));
                    }
                    under = fence;
                    framed.extend_from_slice(encoded.framed());
                    answers.push(answer);
                }
                // Who asked may be gone; so below.
                Err(error) => _ = answer.send(Err(error)),
            }
        }
        if !answers.is_empty() {
            take(self.entry(under, &framed, answers));
        }
    }

    /// One entry of the log, and the answers to what is in it.
    fn entry(&self, fence: Fence, framed: &[u8], answers: Vec<Answer>) -> BoxFuture<'static, ()> {
        let count = answers.len() as u64;
        let offered = self.log.epoch().ok_or(StoreError::NotLeader).and_then(|epoch| {
            let offered = self.log.offer(fence, count, framed)?;
            Ok((epoch, offered))
        });
        let (mut published, shared) = (self.published.clone(), self.shared.clone());
        async move {
            let settled = match offered {
                Ok((epoch, offered)) => offered.await.map(|first| Position { epoch, seq: first }),
                Err(refused) => Err(refused),
            };
            let settled = match settled {
                Ok(Position { epoch, seq }) => {
                    let has = |now: &Versioned<V>| {
                        let at = now.position();
                        at.epoch == epoch && at.seq >= seq + count
                    };
                    published.wait_for(has).await.map_or(Err(StoreError::Closed), |_| Ok((epoch, seq)))
                }
                Err(refused) => Err(refused),
            };
            let panics = shared.panics();
            for (number, answer) in (0..).zip(answers) {
                let told = settled.clone().and_then(|(epoch, first)| match panics.get(&(first + number)) {
                    Some(panic) => Err(StoreError::Panicked(panic.clone())),
                    None => Ok(Position { epoch, seq: first + number + 1 }),
                });
                let _ = answer.send(told);
            }
        }
        .boxed()
    }
}
