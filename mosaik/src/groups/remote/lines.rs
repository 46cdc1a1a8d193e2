//! The links of a client: to members of the group that discovery knows of, up to [`LINES`], each kept by a task of its own that
//! dials again when it is lost.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::protocol::{
    Asked, Calling, Greeting, MAX_FRAME, Request, Shape, Side, Standing, Told, Unanswered, exporter, proof,
};
use crate::{
    discovery::{Catalog, Discovery, PeerEntry},
    groups::{RECHECK, key::GroupKey, raft::Index},
    network::{CloseCode, LinkError, Node, OpenError, RawLink, decode, encode_frame, read_frame},
    primitives::{GroupId, PeerId, watch},
    trust::{Held, MissingGrant, Needed, RefusedBy},
};

/// Members that a client has links to, or tries to have, at once. The leader is always among them once it is known.
const LINES: usize = 8;
/// Requests that wait to be written to one member.
const OUTBOX: usize = 256;
/// How long the answer to the greeting may take.
const PROMPT: Duration = Duration::from_secs(5);
/// The first pause before a member is dialled again; doubled each time up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A link that lived so long begins with the first pause again.
const STABLE: Duration = Duration::from_secs(5);

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It certainly never left.
    NotSent,
    /// It may have been served.
    Unknown,
}

/// What an answer carries.
#[derive(Debug)]
enum Answer {
    Batch(Option<Bytes>),
    Query(Result<(Index, Bytes), Unanswered>),
}

/// A link to a member that has proved the key.
#[derive(Debug)]
pub(super) struct Line {
    pub peer: PeerId,
    requests: mpsc::Sender<Request>,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
    standing: Mutex<Standing>,
}

impl Line {
    pub fn standing(&self) -> Standing {
        *lock(&self.standing)
    }

    /// Queues a request; requests leave in the order of the calls.
    fn ask(&self, ask: Asked) -> Result<oneshot::Receiver<Answer>, Lost> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(id, sender);
        if self.requests.try_send(Request { id, ask }).is_err() {
            lock(&self.waiting).remove(&id);
            return Err(Lost::NotSent);
        }
        Ok(answer)
    }

    /// Sends a batch. The request is queued when this returns.
    pub fn batch(&self, body: Bytes) -> impl Future<Output = Result<Bytes, Lost>> + Send + use<> {
        let asked = self.ask(Asked::Batch(body));
        async move {
            match asked?.await {
                Ok(Answer::Batch(Some(response))) => Ok(response),
                Ok(Answer::Batch(None) | Answer::Query(_)) | Err(_) => Err(Lost::Unknown),
            }
        }
    }

    /// Asks a query. It has no effect, so an answer that is lost is one that another member may give.
    pub async fn query(
        &self,
        body: Bytes,
        strong: bool,
        at_least: Index,
        within: Duration,
    ) -> Result<(Index, Bytes), Unanswered> {
        let lost = || Unanswered::NotHere(format!("the link to {} is lost", self.peer));
        let within = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        let asked = self.ask(Asked::Query { body, strong, at_least, within }).map_err(|_| lost())?;
        match asked.await {
            Ok(Answer::Query(answer)) => answer,
            Ok(Answer::Batch(_)) | Err(_) => Err(lost()),
        }
    }

    fn told(&self, id: u64, answer: Answer) {
        if let Some(waiting) = lock(&self.waiting).remove(&id) {
            // The caller may have gone.
            let _ = waiting.send(answer);
        }
    }
}

/// All links of a client. They end with `cancel`.
#[derive(Debug)]
pub(super) struct Lines {
    node: Node,
    discovery: Discovery,
    group: GroupId,
    key: GroupKey,
    /// What the ticket of a member needs, and what members ask of this node's.
    member: Needed,
    call: Needed,
    shape: Shape,
    live: Mutex<BTreeMap<PeerId, Arc<Line>>>,
    /// Members that are tried, with what is in the way.
    tried: Mutex<BTreeMap<PeerId, (CancellationToken, Option<String>)>>,
    /// Members whose tickets do not let them be members.
    lacking: Mutex<BTreeMap<PeerId, MissingGrant>>,
    changed: watch::Sender<u64>,
    cancel: CancellationToken,
}

impl Lines {
    pub fn new(
        (node, discovery): (Node, Discovery),
        (group, key): (GroupId, GroupKey),
        (member, call): (Needed, Needed),
        shape: Shape,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let (live, tried, lacking) = (Mutex::default(), Mutex::default(), Mutex::default());
        let changed = watch::Sender::new(0);
        Arc::new(Self { node, discovery, group, key, member, call, shape, live, tried, lacking, changed, cancel })
    }

    /// Changes when a link comes or goes, or a member stands otherwise.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn note(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub fn live(&self) -> Vec<Arc<Line>> {
        lock(&self.live).values().cloned().collect()
    }

    pub fn to(&self, peer: PeerId) -> Option<Arc<Line>> {
        lock(&self.live).get(&peer).cloned()
    }

    /// The smoothed round-trip time to a peer, if it was measured.
    pub fn rtt(&self, peer: PeerId) -> Option<Duration> {
        self.node.rtt(peer)
    }

    /// What is in the way of each member that is tried and not reached.
    pub fn in_the_way(&self) -> Vec<(PeerId, String)> {
        let tried = lock(&self.tried);
        let tried = tried.iter().filter_map(|(peer, (_, why))| Some((*peer, why.clone()?)));
        tried.chain(lock(&self.lacking).iter().map(|(peer, missing)| (*peer, missing.to_string()))).collect()
    }

    /// Follows discovery until the client ends.
    pub async fn follow(self: Arc<Self>) {
        let (mut catalog, mut changed) = (self.discovery.watch(), self.watch());
        let mut recheck = interval(RECHECK);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let snapshot = catalog.borrow_and_update().clone();
            self.choose(&snapshot);
            // A dialled member may name a leader that there is no link to yet.
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return,
                changed = catalog.changed() => if changed.is_err() { return },
                changed = changed.changed() => if changed.is_err() { return },
                _ = recheck.tick(), if self.member.asks(self.node.trust()) => {}
            }
        }
    }

    /// Tries the members that it should, and no others.
    fn choose(self: &Arc<Self>, catalog: &Catalog) {
        let me = self.node.id();
        let leaders: Vec<PeerId> = self.live().iter().filter_map(|line| leader_of(&line.standing())).collect();
        let members = catalog.peers().filter(|entry| entry.groups().contains(&self.group) && self.may_be_member(entry));
        let mut members: Vec<PeerId> = members.map(|entry| entry.id()).collect();
        // Each client in an order of its own, so that they spread; who leads comes first.
        let order = |peer: &PeerId| {
            let own: Vec<u8> = peer.as_bytes().iter().zip(me.as_bytes()).map(|(a, b)| a ^ b).collect();
            (!leaders.contains(peer), own)
        };
        members.sort_by_cached_key(order);
        members.truncate(LINES);
        let mut tried = lock(&self.tried);
        tried.retain(|peer, (cancel, _)| {
            let stays = members.contains(peer);
            if !stays {
                cancel.cancel();
            }
            stays
        });
        for peer in members {
            if let Entry::Vacant(place) = tried.entry(peer) {
                let cancel = self.cancel.child_token();
                place.insert((cancel.clone(), Some("not reached yet".to_owned())));
                self.node.tasks().spawn("line to a member", self.clone().keep(peer, cancel));
            }
        }
    }

    /// Whether the ticket of a member lets it be one; one that does not is noted once.
    fn may_be_member(&self, entry: &PeerEntry) -> bool {
        let (peer, held) = (entry.id(), self.member.held(self.node.trust(), entry.id(), entry.ticket()));
        let mut lacking = lock(&self.lacking);
        let Held::Missing(missing) = held else {
            lacking.remove(&peer);
            return held == Held::Granted;
        };
        if lacking.insert(peer, missing.clone()).as_ref() != Some(&missing) {
            self.note_missing(peer, RefusedBy::Us, missing);
        }
        false
    }

    fn note_missing(&self, peer: PeerId, by: RefusedBy, missing: MissingGrant) {
        self.node.trust().note_missing(peer, by, missing, self.node.transport().wall_clock());
    }

    /// A member has refused this node for want of a grant.
    fn not_granted(&self, by: PeerId) -> String {
        let missing = self.call.refused(self.node.trust());
        let text = missing.to_string();
        let is_new = lock(&self.tried).get(&by).is_none_or(|(_, why)| why.as_ref() != Some(&text));
        if is_new {
            self.note_missing(by, RefusedBy::Them, missing);
        }
        text
    }

    fn set_why(&self, peer: PeerId, why: Option<String>) {
        if let Some((_, said)) = lock(&self.tried).get_mut(&peer) {
            *said = why;
        }
    }

    /// Keeps a link to a member until it is cancelled.
    async fn keep(self: Arc<Self>, peer: PeerId, cancel: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let ended = tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                why = self.link(peer) => Some(why),
            };
            let was_live = lock(&self.live).remove(&peer).is_some();
            if was_live {
                self.note();
            }
            let Some(why) = ended else { return };
            tracing::debug!(group = ?self.group, ?peer, why, "no link to a member");
            self.set_why(peer, Some(why));
            if was_live && began.elapsed() >= STABLE {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = sleep(pause) => {}
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// One link, from dialling to its end; says why it ended.
    async fn link(&self, peer: PeerId) -> String {
        let addr = self.discovery.catalog().get(peer).map(|entry| entry.addr().clone());
        let Some(addr) = addr else { return "it has departed".to_owned() };
        let mut link = match self.node.open::<Calling>(&addr).await {
            Ok(link) => link,
            Err(OpenError::Link(error)) => return error.to_string(),
            Err(OpenError::Connect(error)) => return error.to_string(),
        };
        let Some(exported) = exporter(&link, self.group) else { return "the connection is gone".to_owned() };
        let shown = *proof(&self.key, self.group, &exported, Side::Client).as_bytes();
        let greeting = async {
            link.send(&Greeting::Hello { group: self.group, shape: self.shape, proof: shown }).await?;
            link.recv().await
        };
        match timeout(PROMPT, greeting).await {
            Ok(Ok(Some(Greeting::Welcome { proof: theirs }))) => {
                let expected = proof(&self.key, self.group, &exported, Side::Member);
                if expected != blake3::Hash::from_bytes(theirs) {
                    link.close(CloseCode::WrongKey);
                    return "it does not have the group's key".to_owned();
                }
            }
            Ok(Ok(Some(Greeting::Differs { shape }))) => return differs(self.shape, shape),
            Ok(Ok(Some(Greeting::Hello { .. }))) => return "it greets as a client".to_owned(),
            Ok(Ok(None)) => return "it ended the link".to_owned(),
            Ok(Err(LinkError::Closed(CloseCode::NotGranted))) => return self.not_granted(peer),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "it does not answer".to_owned(),
        }
        match self.serve(peer, link.into_raw()).await {
            Ok(()) => "it ended the link".to_owned(),
            Err(LinkError::Closed(CloseCode::NotGranted)) => self.not_granted(peer),
            Err(error) => error.to_string(),
        }
    }

    /// Moves requests and answers until the link ends.
    async fn serve(&self, peer: PeerId, link: RawLink) -> Result<(), LinkError> {
        let RawLink { mut send, mut recv, buffered, connection: _connection, in_use: _in_use } = link;
        let (requests, mut outbox) = mpsc::channel(OUTBOX);
        let line = Arc::new(Line {
            peer,
            requests,
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
            standing: Mutex::default(),
        });
        let sending = async {
            while let Some(request) = outbox.recv().await {
                send.write_all_chunks(&mut [encode_frame(&request, MAX_FRAME)?]).await?;
            }
            Ok::<_, LinkError>(())
        };
        let receiving = async {
            let mut buffer = BytesMut::from(&buffered[..]);
            while let Some(frame) = read_frame(&mut recv, &mut buffer, MAX_FRAME, None).await? {
                match decode(&frame)? {
                    Told::Standing(standing) => {
                        *lock(&line.standing) = standing;
                        self.set_why(peer, None);
                        lock(&self.live).insert(peer, line.clone());
                        self.note();
                    }
                    Told::Batch { id, response } => line.told(id, Answer::Batch(response)),
                    Told::Query { id, answer } => line.told(id, Answer::Query(answer)),
                }
            }
            Ok::<_, LinkError>(())
        };
        let ended = tokio::select! {
            biased;
            ended = receiving => ended,
            ended = sending => ended,
        };
        // Whoever waits is told that the link is gone.
        lock(&line.waiting).clear();
        ended
    }
}

/// The peer that a member takes for the leader.
pub(super) fn leader_of(standing: &Standing) -> Option<PeerId> {
    standing.leader.and_then(|leader| crate::groups::status::peer_of(leader.node))
}

fn differs(ours: Shape, theirs: Shape) -> String {
    if ours.version == theirs.version {
        "its machine has commands or queries of another shape, or its group another label".to_owned()
    } else {
        format!("it runs version {} of the machine, this client version {}", theirs.version, ours.version)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
