//! What sessions and the worker do to the state of their producer: admit, serve and expel subscribers.

use std::{task::Context, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::shared::{Asked, Next, Predicate, Push, Shared, Signal, State, Sub};
use crate::{
    discovery::PeerEntry,
    network::{CloseCode, Lane},
    primitives::watch,
    streams::{
        conditions::Topology,
        core::{
            SubId,
            admission::{Answer, Change, WaitReason},
            frames::Between,
            lag::Depth,
            pace::Bucket,
            retain::Replay,
        },
        limits::{HANDSHAKE, OnLag, STALL},
    },
    trust::{MissingGrant, RefusedBy},
};

impl Shared {
    /// What speaks against a peer: its ticket, then the predicate. Runs user code: never under the lock.
    pub(super) fn keeps_out(&self, entry: &PeerEntry) -> Option<WaitReason> {
        if self.lacks(entry).is_some() {
            return Some(WaitReason::NotGranted);
        }
        if self.config.owner.get().is_some_and(|owner| !owner.is_bound()) {
            return Some(WaitReason::NotAllowed);
        }
        let accept = self.config.accept_if.as_ref()?;
        (!ask(accept, &entry.measured(self.node.rtt(entry.id())))).then_some(WaitReason::NotAllowed)
    }

    /// The grant that a consumer lacks, if it does.
    pub(super) fn lacks(&self, entry: &PeerEntry) -> Option<MissingGrant> {
        self.config.consume.lacks(self.node.trust(), entry.id(), entry.ticket())
    }

    /// The grant that this node itself lacks, so that nobody subscribes who has the same declaration.
    pub(super) fn lacks_itself(&self) -> Option<MissingGrant> {
        self.config.produce.lacks(self.node.trust(), self.node.id(), None)
    }

    /// What a subscription waits for that has no grant; noted, as it is told to its consumer.
    pub(super) fn tells_missing(&self, id: SubId) -> Option<MissingGrant> {
        let entry = self.state().subs.get(&id)?.entry.clone();
        let missing = self.lacks(&entry)?;
        let now = self.node.transport().wall_clock();
        self.node.trust().note_missing(entry.id(), RefusedBy::Us, missing.clone(), now);
        Some(missing)
    }

    /// A new subscription. An older one of the same consumer, or of an earlier run of that peer, is dead and ends here.
    pub(super) fn request(
        &self,
        entry: PeerEntry,
        asked: Asked,
        keeps_out: Option<WaitReason>,
    ) -> Result<(SubId, watch::Receiver<Signal>), CloseCode> {
        let mut state = self.state();
        if let Some(code) = state.closing {
            return Err(code);
        }
        let run = entry.version().run_id;
        let replaced =
            |sub: &Sub| sub.entry.id() == entry.id() && (sub.asked.consumer == asked.consumer || sub.run < run);
        let dead: Vec<SubId> = state.subs.iter().filter(|(_, sub)| replaced(sub)).map(|(id, _)| *id).collect();
        dead.into_iter().for_each(|id| state.end(id, CloseCode::Normal));
        let id = state.next_sub;
        state.next_sub += 1;
        let answer = match keeps_out {
            // It asks again.
            Some(reason) if asked.heads => {
                self.refresh(&mut state);
                return Err(match reason {
                    WaitReason::NotGranted => CloseCode::NotGranted,
                    WaitReason::NotAllowed | WaitReason::NoCapacity => CloseCode::NotAllowed,
                });
            }
            _ if asked.heads => state.admission.stand_by(id),
            _ => state.admission.request(id, keeps_out),
        };
        let (signal, replay) = match answer {
            Answer::Admit => self.join(&mut state, id, &asked),
            Answer::Wait(reason) => (Signal::Wait(reason), None),
            Answer::Refuse => {
                // What was replaced has ended all the same.
                self.refresh(&mut state);
                return Err(CloseCode::NoCapacity);
            }
        };
        state.standbys += usize::from(asked.heads);
        let (sender, receiver) = watch::channel(signal);
        let (since, written) = (Instant::now(), Depth::default());
        let sub = Sub { entry, run, asked, replay, since, signal: sender, written, lane: None };
        state.subs.insert(id, sub);
        self.refresh(&mut state);
        Ok((id, receiver))
    }

    /// Starts to serve a subscription: from where on, and what is replayed before.
    fn join(&self, state: &mut State, id: SubId, asked: &Asked) -> (Signal, Option<Replay>) {
        if asked.heads {
            let (epoch, next) = (state.epoch, state.log.head());
            return (Signal::Serve { epoch, next, replay: false }, None);
        }
        // What the owner keeps is there for all.
        let kept = self.config.owner.get().filter(|_| asked.replay).map(|_| 0);
        let from = asked.from(state.epoch).or(kept);
        let next = state.log.join_filtered(id, from, asked.filter.clone());
        let retained = state.retained.as_mut().filter(|_| asked.replay);
        let filter = asked.filter.clone();
        let replay = retained.and_then(|retained| retained.replay(from.unwrap_or_default(), next, filter, self.now()));
        (Signal::Serve { epoch: state.epoch, next, replay: replay.is_some() }, replay)
    }

    /// A session is over, whoever ended it.
    pub(super) fn leave(&self, id: SubId) {
        let mut state = self.state();
        if state.subs.contains_key(&id) {
            state.end(id, CloseCode::Normal);
            self.refresh(&mut state);
        }
        self.attention.notify_one();
    }

    pub(super) fn expel_laggards(&self, state: &mut State) {
        let expelled = state.log.expelled();
        if expelled.is_empty() {
            return;
        }
        for id in expelled {
            if let Some(sub) = state.subs.get(&id) {
                let (peer, stream) = (sub.entry.id(), self.config.stream);
                tracing::debug!(?peer, ?stream, "subscriber is too slow");
            }
            state.end(id, CloseCode::TooSlow);
            state.too_slow += 1;
        }
        self.refresh(state);
        self.attention.notify_one();
    }

    /// What an idle subscriber is told; `None` if it is gone.
    pub(super) fn heartbeat(&self, id: SubId) -> Option<(Between, u64)> {
        self.state().log.heartbeat(id)
    }

    /// A subscriber has taken nothing for too long.
    pub(super) fn expel(&self, id: SubId, code: CloseCode) {
        let mut state = self.state();
        state.end(id, code);
        state.too_slow += u64::from(code == CloseCode::TooSlow);
        self.refresh(&mut state);
        self.attention.notify_one();
    }

    /// Brings topology, the online state and waiting senders up to date after subscriptions or entries changed.
    pub(super) fn refresh(&self, state: &mut State) {
        let served: Vec<PeerEntry> = state.served().map(|(_, sub)| sub.entry.clone()).collect();
        state.online = state.closing.is_none() && self.config.online_when.met(&served);
        self.topology.send_replace(Topology { online: state.online, peers: served });
        if state.log.subscribers() == 0 {
            let (items, unclaimed) = state.log.unclaimed(self.config.undelivered.get().is_some());
            state.drops += items;
            if !unclaimed.is_empty() {
                self.return_unclaimed(unclaimed);
            }
        }
        state.waits.wake();
    }

    /// The last subscriber went before anybody took these. Decoding them is user code, so a task does it.
    fn return_unclaimed(&self, unclaimed: Vec<Bytes>) {
        let Some(shared) = self.me.upgrade() else { return };
        self.node.tasks().spawn("undelivered", async move {
            for chunk in unclaimed {
                shared.hand_back(&chunk);
                tokio::task::yield_now().await;
            }
        });
    }

    /// Looks at tickets and runs the predicate for everybody again, with the newest entries, and applies what changed.
    pub(super) fn recheck(&self) {
        let catalog = self.discovery.catalog();
        let mut changed = false;
        let entries: Vec<(SubId, PeerEntry)> = {
            let mut state = self.state();
            for sub in state.subs.values_mut() {
                // Nobody asked for it in time, and it must not be held for ever.
                sub.replay.take_if(|_| sub.since.elapsed() > HANDSHAKE);
                if let Some(entry) = catalog.get(sub.entry.id()).filter(|e| e.version() > sub.entry.version()) {
                    sub.entry = entry.clone();
                    changed = true;
                }
            }
            state.subs.iter().map(|(id, sub)| (*id, sub.entry.clone())).collect()
        };
        let keeps_out = entries.iter().map(|(id, entry)| (*id, self.keeps_out(entry))).collect();
        let mut state = self.state();
        for change in state.admission.recheck(&keeps_out) {
            changed = true;
            match change {
                Change::Admit(id) => {
                    let Some(asked) = state.subs.get(&id).map(|sub| sub.asked.clone()) else { continue };
                    let (serve, replay) = self.join(&mut state, id, &asked);
                    if let Some(sub) = state.subs.get_mut(&id) {
                        (sub.since, sub.replay) = (Instant::now(), replay);
                        sub.signal.send_replace(serve);
                    }
                }
                Change::Expel(id, WaitReason::NotGranted) => state.end(id, CloseCode::NotGranted),
                Change::Expel(id, _) => state.end(id, CloseCode::NotAllowed),
                Change::Wait(id, reason) => {
                    if let Some(sub) = state.subs.get(&id) {
                        sub.signal.send_replace(Signal::Wait(reason));
                    }
                }
            }
        }
        if changed {
            self.refresh(&mut state);
        }
    }

    /// Asks the lag policy again for senders that wait; when it wants to be asked next.
    pub(super) fn check_lag(&self) -> Option<Duration> {
        let mut state = self.state();
        if state.check_at.is_some_and(|at| at <= self.now()) {
            state.check_at = None;
            if self.room(&mut state) == Push::Sent {
                state.waits.wake();
            }
        }
        state.check_at
    }

    /// What this subscription writes next; if there is nothing, the session's task is woken when there is.
    pub(super) fn poll_next(&self, id: SubId, max: usize, cx: &Context<'_>) -> Option<Next> {
        let mut state = self.state();
        if state.log.is_timed() {
            state.log.tick(self.now());
        }
        let taken = state.log.take(id, max);
        if !state.waits.is_empty()
            && state.subs.get(&id).is_some_and(|sub| sub.asked.filter.is_some())
            && self.room(&mut state) == Push::Sent
        {
            // What was filtered out made room without being written.
            state.waits.wake();
        }
        if let Some(taken) = taken {
            return Some(Next::Items(taken));
        }
        if let Some(code) = state.closing {
            return Some(Next::End(code, state.log.head()));
        }
        state.park(id, cx);
        None
    }

    /// The head that is told to a subscription that stands by, if it is another one than `told`; else its task is woken when it is.
    pub(super) fn poll_head(&self, id: SubId, told: Option<u64>, cx: &Context<'_>) -> Option<Next> {
        let mut state = self.state();
        let next = state.log.head();
        if told != Some(next) {
            let digest = (!state.last.is_empty()).then(|| digest(&state.last));
            return Some(Next::Head(state.epoch, next, digest));
        }
        if let Some(code) = state.closing {
            return Some(Next::End(code, next));
        }
        state.park(id, cx);
        None
    }

    /// Its items go on this lane.
    pub(super) fn carried(&self, id: SubId, lane: Lane) {
        if let Some(sub) = self.state().subs.get_mut(&id) {
            sub.lane = Some(lane);
        }
    }

    /// A subscription has written so many bytes of what it took, and with them so many whole items.
    pub(super) fn wrote(&self, id: SubId, bytes: usize, items: u64) {
        let mut state = self.state();
        state.log.wrote(id, bytes);
        if let Some(sub) = state.subs.get_mut(&id) {
            sub.written.bytes += bytes as u64;
            sub.written.items += items;
        }
        if !state.waits.is_empty() && self.room(&mut state) == Push::Sent {
            state.waits.wake();
        }
    }

    /// Reserves bytes of the egress limit: when they may be written, if there is a limit.
    pub(super) fn reserve(&self, bytes: usize) -> Option<Instant> {
        let now = self.now();
        let at = self.state().bucket.as_mut()?.reserve(bytes, now);
        (at > now).then(|| self.at(at))
    }

    /// The most bytes for one write under the egress limit.
    pub(super) fn slice(&self) -> usize {
        self.state().bucket.as_ref().map_or(usize::MAX, Bucket::slice)
    }

    /// How long a subscriber may take nothing, if it is closed for that.
    pub(super) fn stall_limit(&self) -> Option<Duration> {
        match self.config.on_lag {
            OnLag::Disconnect => Some(STALL),
            OnLag::Block(patience) => Some(patience.max(STALL)),
            OnLag::DropOldest | OnLag::Conflate => None,
        }
    }
}

impl State {
    /// The task of a subscription is woken with the next item.
    fn park(&mut self, id: SubId, cx: &Context<'_>) {
        match self.parked.iter_mut().find(|(parked, _)| *parked == id) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => self.parked.push((id, cx.waker().clone())),
        }
    }

    /// Takes a subscription off every list and tells its session.
    pub(super) fn end(&mut self, id: SubId, code: CloseCode) {
        self.admission.gone(id);
        self.log.unsubscribe(id);
        self.parked.retain(|(parked, _)| *parked != id);
        if let Some(sub) = self.subs.remove(&id) {
            self.standbys -= usize::from(sub.asked.heads);
            self.endings.note(sub.entry.id(), code);
            sub.signal.send_replace(Signal::Close(code));
        }
    }
}

/// A digest of a framed item, by which one that stands by can tell that its producer has the same items as another one.
fn digest(framed: &[u8]) -> u64 {
    let mut digest = [0; 8];
    digest.copy_from_slice(&blake3::hash(framed).as_bytes()[..8]);
    u64::from_le_bytes(digest)
}

/// Asks a predicate; one that panics admits nobody.
pub(crate) fn ask(predicate: &Predicate, entry: &PeerEntry) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| predicate(entry))).unwrap_or_else(|_| {
        tracing::error!(peer = ?entry.id(), "a predicate of a stream panicked; it counts as false");
        false
    })
}
