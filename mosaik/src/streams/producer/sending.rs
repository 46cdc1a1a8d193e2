//! What handles do to the state of their producer: send, wait for room, close.

use std::{sync::MutexGuard, task::Context};

use bytes::Bytes;

use super::{
    encode::item_format,
    shared::{Push, Shared, State},
    waits::Waiting,
};
use crate::{
    network::CloseCode,
    primitives::{caller::Caller, figures},
    streams::{
        core::{
            SubId,
            frames::{ITEM_HEADER, split_item},
            key::Key,
            lag::Room,
            log::LARGE,
            retain::Label,
        },
        owner::{Offer, Owned},
    },
};

/// The most bytes of an item that a group takes.
const OWNED_ITEM: usize = 512 << 10;

/// Gives an item to the owner of its stream.
fn offer(state: &State, owner: &Owned, framed: &[u8], reserved: bool) -> Push {
    if state.closing.is_some() {
        return Push::Closed;
    }
    if framed.len() > OWNED_ITEM + ITEM_HEADER {
        return Push::TooLarge;
    }
    owner.offer(framed, reserved).into()
}

/// Wakes the sessions that wait for items.
fn wake(mut state: MutexGuard<'_, State>) {
    let parked = std::mem::take(&mut state.parked);
    drop(state);
    parked.into_iter().for_each(|(_, waker)| waker.wake());
}

impl From<Offer> for Push {
    fn from(offer: Offer) -> Self {
        match offer {
            Offer::Taken => Self::Sent,
            Offer::Full => Self::Full,
            Offer::NotLeader => Self::NotLeader,
        }
    }
}

impl Shared {
    /// Appends one framed item if it may be sent now. If not, and `waiter` is given, its task is woken when it is worth
    /// trying again. A large item is taken out of the vector, a small one is copied. A key is taken, too.
    pub(super) fn push(
        &self,
        framed: &mut Vec<u8>,
        label: &mut Label,
        waiter: Option<(&mut Option<u64>, &Context<'_>)>,
    ) -> Push {
        let mut state = self.state();
        if let Some(owner) = self.config.owner.get() {
            let push = offer(&state, owner, framed, false);
            self.wait(&mut state, push, waiter);
            return push;
        }
        match self.room(&mut state) {
            Push::Sent => {}
            not_now => {
                self.wait(&mut state, not_now, waiter);
                return not_now;
            }
        }
        self.append(state, framed, label);
        Push::Sent
    }

    /// Whether an item could be sent now; registers `waiter` if not.
    pub(super) fn poll_room(&self, waiter: (&mut Option<u64>, &Context<'_>)) -> Push {
        let mut state = self.state();
        let room = match self.config.owner.get() {
            Some(_) if state.closing.is_some() => Push::Closed,
            Some(owner) => owner.room().into(),
            None => self.room(&mut state),
        };
        self.wait(&mut state, room, Some(waiter));
        room
    }

    /// Appends one framed item whether there is room or not, unless the stream is closed. For `Sink::start_send`, which
    /// comes after a `poll_ready` that found room.
    pub(super) fn push_reserved(&self, framed: &mut Vec<u8>, label: &mut Label) -> Push {
        let state = self.state();
        if let Some(owner) = self.config.owner.get() {
            return offer(&state, owner, framed, true);
        }
        if state.closing.is_some() {
            return Push::Closed;
        }
        self.append(state, framed, label);
        Push::Sent
    }

    /// Appends framed items that their owner has put in order. A subscriber that lags too far behind is closed, and comes back with what
    /// it has; nothing waits for it.
    pub(in crate::streams) fn deliver(&self, framed: &[u8]) {
        let mut state = self.state();
        if state.closing.is_some() {
            return;
        }
        let _ = self.room(&mut state);
        if state.log.is_timed() {
            state.log.tick(self.now());
        }
        let mut rest = framed;
        while let Some((_, behind)) = split_item(rest) {
            let item = &rest[..rest.len() - behind.len()];
            state.sent.items += 1;
            state.sent.bytes += item.len() as u64;
            if item.len() >= LARGE {
                state.log.append_chunk(Bytes::copy_from_slice(item), &mut Key::default());
            } else {
                state.log.append(item, &mut Key::default());
            }
            if state.standbys > 0 && behind.is_empty() {
                state.last.clear();
                state.last.extend_from_slice(item);
            }
            rest = behind;
        }
        wake(state);
    }

    /// Ends all subscriptions: what their numbers mean is not known for now.
    pub(in crate::streams) fn end_run(&self) {
        let mut state = self.state();
        let served: Vec<SubId> = state.subs.keys().copied().collect();
        served.into_iter().for_each(|id| state.end(id, CloseCode::Normal));
        self.refresh(&mut state);
    }

    /// Lets those who wait for room try again.
    pub(in crate::streams) fn wake_senders(&self) {
        self.state().waits.wake();
    }

    /// Looks again at those who wait to be served.
    pub(in crate::streams) fn look_again(&self) {
        self.attention.notify_one();
    }

    /// `Sent` means that an item may be sent.
    #[inline]
    pub(super) fn room(&self, state: &mut State) -> Push {
        if state.closing.is_some() {
            return Push::Closed;
        }
        if !state.online {
            return Push::Offline;
        }
        if state.log.is_roomy() {
            return Push::Sent;
        }
        self.make_room(state)
    }

    #[cold]
    fn make_room(&self, state: &mut State) -> Push {
        let room = state.log.room(|| self.now());
        if let Room::Wait { check_at } = room
            && check_at.is_some_and(|at| state.check_at.is_none_or(|known| at < known))
        {
            state.check_at = check_at;
            self.attention.notify_one();
        }
        self.expel_laggards(state);
        match room {
            Room::Wait { .. } => Push::Full,
            Room::Yes if state.online => Push::Sent,
            Room::Yes => Push::Offline,
        }
    }

    #[inline]
    fn append(&self, mut state: MutexGuard<'_, State>, framed: &mut Vec<u8>, label: &mut Label) {
        state.sent.items += 1;
        state.sent.bytes += framed.len() as u64;
        let is_plain = state.retained.is_none() && state.standbys == 0 && state.log.subscribers() > 0;
        if !is_plain || state.log.is_timed() || framed.len() >= LARGE {
            return self.append_more(state, framed, label);
        }
        state.log.append(framed, &mut label.key);
        if !state.parked.is_empty() {
            wake(state);
        }
    }

    /// As [`append`](Self::append), of a large item, or where more is to be done than to append it.
    #[inline(never)]
    fn append_more(&self, mut state: MutexGuard<'_, State>, framed: &mut Vec<u8>, label: &mut Label) {
        let large = (framed.len() >= LARGE).then(|| Bytes::from(std::mem::take(framed)));
        if state.retained.is_some() {
            let kept = large.clone().unwrap_or_else(|| Bytes::copy_from_slice(framed));
            self.keep(&mut state, kept, label.clone());
        }
        if state.standbys > 0 {
            let State { last, .. } = &mut *state;
            last.clear();
            last.extend_from_slice(large.as_deref().unwrap_or(framed));
        }
        if state.log.subscribers() == 0 {
            state.drops += 1;
            if self.config.undelivered.get().is_some() || !state.log.has_ring() {
                state.log.skip();
                wake(state);
                self.hand_back(large.as_deref().unwrap_or(framed));
                return;
            }
        }
        if state.log.is_timed() {
            state.log.tick(self.now());
        }
        match large {
            Some(large) => state.log.append_chunk(large, &mut label.key),
            None => state.log.append(framed, &mut label.key),
        }
        wake(state);
    }

    /// Keeps an item for late joiners, before it is appended.
    fn keep(&self, state: &mut State, framed: Bytes, label: Label) {
        let seq = state.log.head();
        let Some(retained) = &mut state.retained else { return };
        if !retained.push(seq, framed, label, self.now()) {
            let stream = self.config.stream;
            tracing::warn!(?stream, "too much follows a key frame to be kept: late joiners wait for the next one");
        }
    }

    /// Gives framed items that reached no one to who asked for them.
    pub(super) fn hand_back(&self, mut framed: &[u8]) {
        let Some(undelivered) = self.config.undelivered.get() else { return };
        while let Some((payload, rest)) = split_item(framed) {
            undelivered(item_format(framed), payload);
            framed = rest;
        }
    }

    /// Registers a sender that was told to wait.
    fn wait(&self, state: &mut State, push: Push, waiter: Option<(&mut Option<u64>, &Context<'_>)>) {
        if let Some((key, cx)) = waiter.filter(|_| matches!(push, Push::Full | Push::Offline)) {
            state.waits.add(push, key, cx, self.now());
        }
    }

    /// Warns of a sender that has waited for long.
    pub(super) fn check_waits(&self) {
        let (waiting, served, asking) = {
            let mut state = self.state();
            let Some(waiting) = state.waits.due(self.now()) else { return };
            (waiting, state.served().count(), state.subs.len())
        };
        let why = match (waiting.for_room, served, asking) {
            (true, ..) => "its subscribers take nothing",
            (false, 0, 0) => "nobody is subscribed",
            (false, 0, _) => "nobody is subscribed; who asked is not admitted",
            _ => "the stream's online condition does not hold",
        };
        let Waiting { senders, time, caller, .. } = waiting;
        let stream = figures::label(self.config.stream.as_bytes(), self.config.stream);
        match caller {
            Some(Caller { role, handler }) => {
                tracing::warn!(stream, role, handler, ?time, senders, "a handler waits in `send`: {why}");
            }
            None => tracing::warn!(stream, ?time, senders, "a sender waits in `send`: {why}"),
        }
    }

    /// A sender no longer waits.
    pub(super) fn forget_sender(&self, key: u64) {
        self.state().waits.remove(key);
    }

    /// Nothing is sent any more. Sessions write what is queued and end with `code`; who waits for admission ends at once.
    pub(in crate::streams) fn close(&self, code: CloseCode) {
        let mut state = self.state();
        if state.closing.is_some() {
            return;
        }
        state.closing = Some(code);
        let waiting: Vec<SubId> = state.subs.iter().filter(|(_, sub)| !sub.is_served()).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|id| state.end(id, code));
        self.refresh(&mut state);
        wake(state);
        self.attention.notify_one();
    }

    /// Ends whatever a [`close`](Self::close) has left.
    pub(super) fn abort(&self) {
        let mut state = self.state();
        let code = state.closing.unwrap_or(CloseCode::ShuttingDown);
        state.closing = Some(code);
        let left: Vec<SubId> = state.subs.keys().copied().collect();
        left.into_iter().for_each(|id| state.end(id, code));
        self.refresh(&mut state);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().closing.is_some()
    }

    /// Whether no session is left.
    pub(super) fn is_drained(&self) -> bool {
        self.state().subs.is_empty()
    }

    /// Resolves when no session is left.
    pub(in crate::streams) async fn drained(&self) {
        // Every departure publishes the topology.
        let mut topology = self.topology();
        while !self.is_drained() && topology.changed().await.is_ok() {}
    }
}
