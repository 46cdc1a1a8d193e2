//! What all tasks of one group's bonds share, and the task that dials.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    BondEvent, BondProtocol,
    bond::{Bond, Made},
    claims::Claim,
    handshake::{EXPORTER_LABEL, Handshake, Proven, Refusal, Role, Setup, Step, Terms},
    io::{self, End},
    limits::{HANDSHAKE, INBOX_BYTES, VERDICT},
    mesh::{Dial, Mesh, NotAdmitted, Outcome},
    wire::Frame,
};
use crate::{
    discovery::{Discovery, PeerEntry},
    groups::{
        RECHECK,
        key::GroupKey,
        raft::{Mark, Member, NodeId},
    },
    network::{CloseCode, Link, LinkError, Node},
    primitives::{GroupId, PeerId, watch},
    trust::{Held, Needed, RefusedBy},
};

/// An event with its share of the memory that waiting events may take.
pub(super) type Told = (BondEvent, Option<OwnedSemaphorePermit>);

/// One joined group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) node: Node,
    pub(super) discovery: Discovery,
    pub(super) id: GroupId,
    key: GroupKey,
    terms: Terms,
    /// What the ticket of a member needs.
    needed: Needed,
    mesh: Mutex<Mesh>,
    /// Something about the next dial has changed.
    wake: Notify,
    events: mpsc::Sender<Told>,
    budget: Arc<Semaphore>,
    pub(super) cancel: CancellationToken,
    bonded: watch::Sender<Vec<Member>>,
    /// Messages that found no bond or no room.
    pub(super) dropped: AtomicU64,
}

/// A link whose handshake is done.
pub(super) struct Admitted {
    bond: Arc<Bond>,
    former: Option<Arc<Bond>>,
}

/// Why a handshake came to nothing.
#[derive(Debug)]
pub(super) enum Failed {
    /// One side refused; true: the other one.
    Refused(Refusal, bool),
    Duplicate,
    /// The link, the time or the group is over.
    Lost,
}

impl Group {
    pub(super) fn new(
        (node, discovery): (Node, Discovery),
        (id, key, terms): (GroupId, GroupKey, Terms),
        needed: Needed,
        mesh: Mesh,
        events: mpsc::Sender<Told>,
    ) -> Arc<Self> {
        let cancel = node.cancel().child_token();
        Arc::new(Self {
            node,
            discovery,
            id,
            key,
            terms,
            needed,
            mesh: Mutex::new(mesh),
            wake: Notify::new(),
            events,
            budget: Arc::new(Semaphore::new(INBOX_BYTES)),
            cancel,
            bonded: watch::Sender::new(Vec::new()),
            dropped: AtomicU64::new(0),
        })
    }

    pub(super) fn mesh(&self) -> MutexGuard<'_, Mesh> {
        self.mesh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Vec<Member>> {
        self.bonded.subscribe()
    }

    /// Looks at what is due now.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Follows discovery and dials whoever is missing, until the group is left.
    pub(super) async fn run(self: Arc<Self>) {
        let mut catalog = self.discovery.watch();
        let mut known = true;
        let mut recheck = interval(RECHECK);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.cancel.is_cancelled() {
            if known {
                let snapshot = catalog.borrow_and_update().clone();
                self.mesh().sync(&snapshot, Instant::now());
            }
            while let Some((peer, dial)) = self.due() {
                self.node.tasks().spawn("bond-dial", dial_peer(self.clone(), peer, dial));
            }
            let deadline = self.mesh().deadline();
            known = tokio::select! {
                biased;
                () = self.cancel.cancelled() => false,
                changed = catalog.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    true
                }
                () = self.wake.notified() => false,
                _ = recheck.tick(), if self.needed.asks(self.node.trust()) => {
                    self.end_ungranted();
                    false
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => false,
            };
        }
    }

    /// The ticket that a peer's entry names.
    fn held(&self, peer: PeerId) -> Held {
        let ticket = self.discovery.catalog().get(peer).and_then(PeerEntry::ticket);
        self.needed.held(self.node.trust(), peer, ticket)
    }

    /// Ends the bonds of those whose tickets no longer let them be members.
    fn end_ungranted(&self) {
        let bonds: Vec<_> = self.mesh().bonds().cloned().collect();
        for bond in bonds {
            if let Held::Missing(missing) = self.held(bond.peer) {
                self.refused(bond.peer, &Refusal::NotGranted(missing), false);
                bond.close(CloseCode::NotGranted);
            }
        }
    }

    fn due(&self) -> Option<(PeerId, Dial)> {
        self.mesh().due(Instant::now(), |peer| self.node.is_connected(peer))
    }

    /// What has changed about the storages of members since a bond was last told; none if nothing has.
    pub(super) fn marks_since(&self, told: &mut Option<u64>) -> Option<Frame> {
        let (marks, version) = self.mesh().marks().since(*told);
        *told = Some(version);
        (!marks.is_empty()).then_some(Frame::Marks(marks))
    }

    /// Another member tells what it has seen. Whoever is bonded although less of it is left is refused after all.
    pub(super) fn learn(&self, marks: &[(NodeId, Mark)]) {
        let stale = self.mesh().learn(marks);
        for bond in stale {
            self.refused(bond.peer, &Refusal::OlderCopy, false);
            bond.close(CloseCode::OlderCopy);
        }
    }

    /// Another member has refused a process that runs on a copy of the storage of this one.
    pub(super) fn copied(&self, by: PeerId) {
        if self.mesh().is_newborn(Instant::now()) {
            // It met a handshake of the earlier life, which was under way.
            return tracing::debug!(group = ?self.id, ?by, "the earlier life of the local storage was refused");
        }
        tracing::debug!(group = ?self.id, ?by, "a copy of the local storage was refused");
        self.refused(self.node.id(), &Refusal::SecondStart, false);
    }

    /// Hands an event to the worker, waiting for room; false when the bond or the group ended first.
    pub(super) async fn tell(&self, event: BondEvent, weight: usize, bond: &Bond) -> bool {
        let Some(event) = self.deliver_now(event, weight) else { return true };
        tokio::select! {
            biased;
            () = bond.cancel.cancelled() => false,
            told = self.deliver(event, weight) => told,
        }
    }

    /// The last event of a bond, which is over already.
    pub(super) async fn tell_down(&self, member: Member) {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {}
            _ = self.deliver(BondEvent::Down(member), 0) => {}
        }
    }

    /// Hands the event over if there is room; otherwise gives it back.
    fn deliver_now(&self, event: BondEvent, weight: usize) -> Option<BondEvent> {
        let Ok(room) = self.events.try_reserve() else { return Some(event) };
        let permit = match share(weight) {
            0 => None,
            share => match self.budget.clone().try_acquire_many_owned(share) {
                Ok(permit) => Some(permit),
                Err(_) => return Some(event),
            },
        };
        room.send((event, permit));
        None
    }

    async fn deliver(&self, event: BondEvent, weight: usize) -> bool {
        let permit = match share(weight) {
            0 => None,
            share => match self.budget.clone().acquire_many_owned(share).await {
                Ok(permit) => Some(permit),
                Err(_) => return false,
            },
        };
        let told = self.events.send((event, permit)).await.is_ok();
        if !told {
            // Nobody listens: the group was dropped.
            self.cancel.cancel();
        }
        told
    }

    /// A bond has ended.
    pub(super) fn lost(&self, bond: &Arc<Bond>, end: &End) {
        let me = {
            let mut mesh = self.mesh();
            mesh.lost(bond, matches!(end, End::Goodbye), Instant::now());
            self.publish(&mesh);
            mesh.me()
        };
        if let End::Refused(reason) = end
            && bond.me == me
        {
            self.refused(bond.peer, reason, true);
        }
        self.wake();
    }

    fn publish(&self, mesh: &Mesh) {
        let bonded: Vec<_> = mesh.bonds().map(|bond| bond.member).collect();
        self.bonded.send_if_modified(|known| {
            let news = *known != bonded;
            *known = bonded;
            news
        });
    }

    fn refused(&self, peer: PeerId, reason: &Refusal, by_peer: bool) {
        let own = match reason {
            Refusal::NotGranted(_) if by_peer => Some(Refusal::NotGranted(self.needed.refused(self.node.trust()))),
            _ => None,
        };
        let reason = own.as_ref().unwrap_or(reason);
        let first = self.mesh().refused(peer, reason, by_peer, Instant::now());
        match reason {
            Refusal::Incompatible { .. } if first => {
                tracing::warn!(group = ?self.id, ?peer, %reason, "a member declares the group differently; no bond is made");
            }
            Refusal::OlderCopy | Refusal::SecondStart if first && peer == self.node.id() => {
                tracing::warn!(group = ?self.id, "another process runs on a copy of this member's storage and is refused");
            }
            Refusal::OlderCopy | Refusal::SecondStart if first && by_peer => {
                tracing::warn!(group = ?self.id, ?peer, %reason, "a member refuses this one");
            }
            Refusal::OlderCopy | Refusal::SecondStart if first => {
                tracing::warn!(group = ?self.id, ?peer, %reason, "a member is refused");
            }
            Refusal::NotGranted(missing) if first => {
                let by = if by_peer { RefusedBy::Them } else { RefusedBy::Us };
                self.node.trust().note_missing(peer, by, missing.clone(), self.node.transport().wall_clock());
            }
            _ if first => tracing::debug!(group = ?self.id, ?peer, %reason, by_peer, "bond refused"),
            _ => {}
        }
    }

    /// Makes a proven link the bond of its pair.
    fn admit(
        &self,
        link: &Link<BondProtocol>,
        me: Member,
        proven: &Proven,
        dial: Option<u64>,
    ) -> Result<Admitted, Failed> {
        let made = Made {
            peer: link.peer(),
            member: proven.member,
            start: proven.hello.start,
            extent: proven.hello.extent,
            cluster: proven.hello.cluster,
            me,
            id: proven.id,
            session: proven.hello.session,
            dialled: dial.is_some(),
            dial: dial.unwrap_or(proven.hello.dial),
        };
        let bond = Bond::new(&made, &self.cancel);
        let mut mesh = self.mesh();
        let former = mesh.admit(&bond, proven.hello.gave_up).map_err(Failed::from)?;
        self.publish(&mesh);
        Ok(Admitted { bond, former })
    }

    fn start(self: &Arc<Self>, admitted: Admitted, link: Link<BondProtocol>) {
        let Admitted { bond, former } = admitted;
        self.node.tasks().spawn("bond", io::run(self.clone(), bond, link.into_raw(), former));
    }

    fn handshake(
        &self,
        link: &Link<BondProtocol>,
        role: Role,
        hello: super::handshake::Hello,
    ) -> Result<Handshake, Failed> {
        let exporter = link.exporter(EXPORTER_LABEL, self.id.as_bytes()).ok_or(Failed::Lost)?;
        let (me, peer) = (self.node.id(), link.peer());
        let setup = Setup { role, me, peer, exporter, key: self.key.clone(), terms: self.terms.clone(), hello };
        Ok(Handshake::new(setup))
    }

    /// Notes what came of a handshake and closes its link accordingly.
    fn conclude(&self, link: Link<BondProtocol>, me: Member, failed: &Failed) {
        let now = self.mesh().me();
        match failed {
            // It was about a life of the local storage that is over.
            Failed::Refused(..) if me != now => link.close(CloseCode::Normal),
            Failed::Refused(reason, by_peer) => {
                self.refused(link.peer(), reason, *by_peer);
                link.close(reason.code());
            }
            Failed::Duplicate => link.close(CloseCode::Duplicate),
            Failed::Lost => link.close(CloseCode::Normal),
        }
    }

    /// Serves a link that a peer opened, from its hello on.
    pub(super) async fn accept(self: &Arc<Self>, mut link: Link<BondProtocol>, theirs: super::handshake::Message) {
        let hello = {
            let mut mesh = self.mesh();
            mesh.is_open().then(|| mesh.hello(link.peer(), 0))
        };
        let Some((hello, me)) = hello else { return link.close(CloseCode::Normal) };
        // Before its proof of the key, which costs more. Whoever is connected has shown its ticket.
        let entry = self.discovery.catalog().get(link.peer()).and_then(PeerEntry::ticket);
        if let Some(missing) = self.needed.lacks(self.node.trust(), link.peer(), entry) {
            return self.conclude(link, me, &ours(Refusal::NotGranted(missing)));
        }
        let done = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return link.close(CloseCode::ShuttingDown),
            done = timeout(HANDSHAKE, self.accept_steps(&mut link, (hello, me), theirs)) => done.unwrap_or(Err(Failed::Lost)),
        };
        match done {
            Ok(admitted) => self.start(admitted, link),
            Err(failed) => self.conclude(link, me, &failed),
        }
    }

    async fn accept_steps(
        &self,
        link: &mut Link<BondProtocol>,
        (hello, me): (super::handshake::Hello, Member),
        mut message: super::handshake::Message,
    ) -> Result<Admitted, Failed> {
        let mut handshake = self.handshake(link, Role::Acceptor, hello)?;
        let mut open = None;
        loop {
            match handshake.on(message).map_err(ours)? {
                Step::Send(answer) => {
                    if let Some(proven) = handshake.proven() {
                        open = Some(self.examine(Claim::new(link.peer(), &proven.hello)).await?);
                    }
                    link.send(&answer).await.map_err(Failed::from)?;
                }
                Step::Finish { proven, agreed, .. } => {
                    agreed.map_err(ours)?;
                    let admitted = self.admit(link, me, &proven, None);
                    drop(open);
                    return admitted;
                }
            }
            message = next(link).await?;
        }
    }

    async fn dial_steps(
        &self,
        link: &mut Link<BondProtocol>,
        hello: super::handshake::Hello,
        me: Member,
    ) -> Result<Admitted, Failed> {
        let dial = hello.dial;
        let mut handshake = self.handshake(link, Role::Dialler, hello)?;
        link.send(&handshake.hello()).await.map_err(Failed::from)?;
        loop {
            match handshake.on(next(link).await?).map_err(ours)? {
                Step::Send(answer) => link.send(&answer).await.map_err(Failed::from)?,
                Step::Finish { proven, owed, agreed } => {
                    if let Err(differs) = agreed {
                        // The other side learns the terms, too, and says no by itself: both operators see why.
                        if let Some(owed) = &owed
                            && link.send(owed).await.is_ok()
                        {
                            let _ = timeout(VERDICT, link.recv()).await;
                        }
                        return Err(ours(differs));
                    }
                    let _open = self.examine(Claim::new(link.peer(), &proven.hello)).await?;
                    let admitted = self.admit(link, me, &proven, Some(dial))?;
                    if let Some(owed) = &owed
                        && let Err(error) = link.send(owed).await
                    {
                        tracing::trace!(peer = ?link.peer(), %error, "a bond is lost as it begins");
                    }
                    return Ok(admitted);
                }
            }
        }
    }
}

/// What an event of so many bytes takes of the budget.
fn share(weight: usize) -> u32 {
    u32::try_from(weight.min(INBOX_BYTES)).unwrap_or(u32::MAX)
}

async fn dial_peer(group: Arc<Group>, peer: PeerId, dial: Dial) {
    let outcome = tokio::select! {
        biased;
        () = group.cancel.cancelled() => return,
        outcome = dial_and_shake(&group, dial) => outcome,
    };
    tracing::trace!(group = ?group.id, ?peer, ?outcome, "dialled a member");
    group.mesh().dialled(peer, &outcome, Instant::now());
    group.wake();
}

async fn dial_and_shake(group: &Arc<Group>, dial: Dial) -> Outcome {
    let Dial { addr, hello, me, within } = dial;
    match group.held(PeerId::from(addr.id)) {
        Held::Granted => {}
        Held::Unknown => return Outcome::Failed,
        Held::Missing(missing) => {
            group.refused(PeerId::from(addr.id), &Refusal::NotGranted(missing), false);
            return Outcome::Refused;
        }
    }
    let mut link = match timeout(within, group.node.open::<BondProtocol>(&addr)).await {
        Ok(Ok(link)) => link,
        Err(_) => {
            tracing::trace!(group = ?group.id, ?within, "a dial takes too long");
            return Outcome::Failed;
        }
        Ok(Err(error)) => {
            tracing::trace!(group = ?group.id, %error, "a member cannot be reached");
            return Outcome::Failed;
        }
    };
    // A dial may take long. As an earlier life of the local storage this one would be taken for a copy that runs beside it.
    if group.mesh().me() != me {
        link.close(CloseCode::Normal);
        return Outcome::Failed;
    }
    match timeout(HANDSHAKE, group.dial_steps(&mut link, hello, me)).await.unwrap_or(Err(Failed::Lost)) {
        Ok(admitted) => {
            group.start(admitted, link);
            Outcome::Bonded
        }
        Err(failed) => {
            group.conclude(link, me, &failed);
            match failed {
                Failed::Refused(..) => Outcome::Refused,
                Failed::Duplicate => Outcome::Duplicate,
                Failed::Lost => Outcome::Failed,
            }
        }
    }
}

/// The next message of a handshake.
pub(super) async fn next_message(link: &mut Link<BondProtocol>) -> Result<super::handshake::Message, LinkError> {
    link.recv().await?.ok_or(LinkError::Closed(CloseCode::Normal))
}

async fn next(link: &mut Link<BondProtocol>) -> Result<super::handshake::Message, Failed> {
    next_message(link).await.map_err(Failed::from)
}

fn ours(reason: Refusal) -> Failed {
    Failed::Refused(reason, false)
}

impl From<NotAdmitted> for Failed {
    fn from(reason: NotAdmitted) -> Self {
        match reason {
            NotAdmitted::Duplicate => Self::Duplicate,
            NotAdmitted::Refused(reason) => Self::Refused(reason, false),
            NotAdmitted::Over => Self::Lost,
        }
    }
}

impl From<LinkError> for Failed {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Closed(CloseCode::Duplicate) => Self::Duplicate,
            LinkError::Closed(code) => {
                Refusal::from_code(code).map_or(Self::Lost, |reason| Self::Refused(reason, true))
            }
            LinkError::TooLarge { .. } | LinkError::Undecodable { .. } | LinkError::Truncated => {
                Self::Refused(Refusal::Malformed, false)
            }
            _ => Self::Lost,
        }
    }
}
