//! One producer as a consumer's task sees it: subscribe, read, and subscribe again.
//!
//! The task lives as long as the catalog lists the producer, and a while longer, so that a producer that comes back is
//! measured against what was received before.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    task::coop,
    time::{Instant, sleep_until, timeout},
};

use super::{
    ahead::Ahead,
    channel::Channel,
    merge::Batch,
    reader::{End, Reader, Wanted, interrupted},
    shared::{Replicated, Shared},
};
use crate::{
    discovery::PeerEntry,
    network::{CloseCode, Link, LinkError, OpenError, RawLink},
    primitives::{Difference, watch},
    streams::{
        core::{
            admission::WaitReason,
            frames::{Frame, FrameError, split_item},
            lineage::{Joins, Place},
            pace::Backoff,
            progress::{GapReason, Missed, Progress, Resume, Step},
        },
        events::{DisconnectReason, Event},
        limits::HANDSHAKE,
        owner::{ownership, split_place},
        protocol::{Message, Subscription, difference, sendable, show},
        stats::ChannelState,
    },
    trust::{Label, RefusedBy, told},
};

/// A producer that is not in the catalog any more is forgotten after this time.
const FORGET: Duration = Duration::from_mins(10);
/// A subscription that lasted this long was a good one: the next failure is tried again at once.
const STABLE: Duration = Duration::from_secs(5);
/// After a refusal that only a change at the producer can lift.
const INCOMPATIBLE_RETRY: Duration = Duration::from_mins(1);

pub(super) async fn run(shared: Arc<Shared>, channel: Arc<Channel>, wanted: watch::Receiver<Wanted>) {
    let progress =
        shared.begin.filter(|(peer, _)| *peer == channel.peer).map_or_else(Progress::default, |(_, at)| at.into());
    let backoff = shared.backoff.map_or_else(Backoff::default, |(first, longest)| Backoff::new(first, longest));
    let mut task = Task { shared, channel, wanted, progress, backoff, owned: false };
    let cancel = task.shared.cancel.clone();
    // Links close inside, with a code; so the loop looks at the token itself, and only idling is cut off here.
    while !cancel.is_cancelled() {
        let Some(Some((entry, heads))) = cancel.run_until_cancelled(task.wait()).await else { break };
        let started = Instant::now();
        task.channel.set_standby(heads);
        let end = task.attempt(&entry, heads).await;
        if started.elapsed() >= STABLE || end == End::Promoted {
            task.backoff.reset();
        }
        task.channel.set_state(ChannelState::Connecting);
        task.shared.refresh();
        if cancel.run_until_cancelled(task.ended(end)).await.is_none() {
            break;
        }
    }
    task.shared.forget(&task.channel);
    task.shared.refresh();
}

/// The producer's answer.
#[derive(Debug, Clone, Copy)]
struct Accepted {
    epoch: u64,
    /// Where the live flow begins.
    next: u64,
    /// With what the replay before it is to be asked for, if there is one.
    replay: Option<u64>,
    /// Whether each item has its place in a log in front of it.
    owned: bool,
}

pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) channel: Arc<Channel>,
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) progress: Progress,
    backoff: Backoff,
    /// Whether each item has its place in a log in front of it.
    owned: bool,
}

impl Task {
    /// Waits until the next attempt is due, and says whether it is one for heads; `None` when the producer is to be forgotten.
    async fn wait(&mut self) -> Option<(PeerEntry, bool)> {
        let delay = self.backoff.next_delay(self.shared.random());
        if !delay.is_zero() {
            // News of the producer are worth an attempt at once.
            let _ = timeout(delay, self.wanted.changed()).await;
        }
        // A consumer that does not read would only be found too slow again.
        self.channel.room().await;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let heads = matches!(wanted, Wanted::Standby(_));
            match wanted {
                Wanted::Yes(entry) | Wanted::Standby(entry) => {
                    self.channel.set_entry(entry.clone());
                    self.channel.set_state(ChannelState::Connecting);
                    return Some((entry, heads));
                }
                // One that may be taken is remembered for as long as it is there.
                Wanted::Spare(entry) => {
                    self.channel.set_entry(entry);
                    self.channel.set_state(ChannelState::Spare);
                    self.wanted.changed().await.ok()?;
                }
                Wanted::Gone | Wanted::No(_) => timeout(FORGET, self.wanted.changed()).await.ok()?.ok()?,
            }
        }
    }

    /// Tells the user how an attempt ended, and sees to the next one.
    async fn ended(&mut self, end: End) {
        let (producer, stream) = (self.channel.peer, self.shared.stream);
        match end {
            End::Cancelled | End::Unreachable | End::Promoted => {}
            // The user has nothing of one that stands by, so only reports tell.
            End::Disconnected(reason) if self.channel.stands_by() => {
                tracing::debug!(peer = ?producer, ?stream, %reason, "stands by no longer");
                self.channel.ended(reason.to_string(), reason.code());
            }
            End::Disconnected(reason) => {
                tracing::debug!(peer = ?producer, ?stream, %reason, "subscription ended");
                if matches!(reason.code(), Some(CloseCode::TooSlow | CloseCode::Undecodable)) {
                    self.backoff.penalize();
                }
                let is_new = self.channel.ended(reason.to_string(), reason.code());
                if is_new && let DisconnectReason::NoStream { limit } = reason {
                    tracing::warn!(peer = ?producer, ?stream, limit, "no subscription: the connection carries no more streams");
                }
                let incompatible = match reason {
                    DisconnectReason::NotFiltered(why) => {
                        if is_new {
                            tracing::warn!(peer = ?producer, ?stream, "no subscription, the producer cannot apply the filter: {why}");
                        }
                        true
                    }
                    _ => false,
                };
                self.shared.events.send(Event::Disconnected { producer, reason });
                if incompatible {
                    let _ = timeout(INCOMPATIBLE_RETRY, self.wanted.changed()).await;
                }
            }
            End::Incompatible { theirs, differs } => {
                let (ours, theirs) = match differs {
                    Some(Difference { path, ours, theirs }) => (format!("{path}: {ours}"), format!("{path}: {theirs}")),
                    None => {
                        let declared = |of| format!("{} by its declaration (`codec`, `evolve`, attributes)", show(of));
                        (declared(self.shared.items.fingerprint), declared(theirs))
                    }
                };
                self.differs("schema", ours, theirs).await;
            }
            End::Labelled(theirs) => {
                let ours = self.shared.label.as_ref().map(Label::as_str);
                self.differs("label", told(ours).to_owned(), told(theirs.as_deref()).to_owned()).await;
            }
            End::Owned(theirs) => {
                let ours = self.shared.is_owned();
                self.differs("owner", ownership(ours).to_owned(), ownership(theirs).to_owned()).await;
            }
        }
    }

    /// The producer declares something else, until its next start.
    async fn differs(&mut self, what: &str, ours: String, theirs: String) {
        let (producer, stream) = (self.channel.peer, self.shared.stream);
        tracing::warn!(peer = ?producer, ?stream, ours, theirs, "producer declares another {what}");
        self.channel.ended(format!("{what} differs: {ours} here, {theirs} there"), Some(CloseCode::Incompatible));
        let what = what.to_owned();
        self.shared.events.send(Event::Incompatible { producer, what, ours, theirs });
        let _ = timeout(INCOMPATIBLE_RETRY, self.wanted.changed()).await;
    }

    /// One subscription from dialling to its end.
    async fn attempt(&mut self, entry: &PeerEntry, heads: bool) -> End {
        let (cancel, resume) = (self.shared.cancel.clone(), self.resume());
        let opening = async {
            let mut link = timeout(HANDSHAKE, self.shared.registry.node.open::<Subscription>(entry.addr())).await??;
            let subscribe = Message::Subscribe {
                stream: self.shared.stream,
                fingerprint: self.shared.items.fingerprint,
                consumer: self.shared.id,
                resume,
                replay: self.shared.replay,
                entry: self.shared.registry.discovery.signed_local(),
                readable: self.shared.items.readable.as_ref().and_then(sendable),
                filter: self.shared.filter.clone(),
                label: self.shared.label.as_ref().map(Label::to_string),
                // The numbers of an owned stream count in its epoch only.
                replicated: self.shared.replicated.is_some() && !self.shared.is_owned(),
                heads,
                owned: (!self.shared.any_owner).then(|| self.shared.is_owned()),
            };
            link.send(&subscribe).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(link)
        };
        let mut link = match cancel.run_until_cancelled(opening).await {
            None => return End::Cancelled,
            Some(Ok(link)) => link,
            Some(Err(error)) => {
                if let Some(OpenError::Link(LinkError::NoStream { limit })) = error.downcast_ref() {
                    return DisconnectReason::NoStream { limit: *limit }.into();
                }
                tracing::debug!(peer = ?self.channel.peer, stream = ?self.shared.stream, %error, "cannot subscribe");
                return End::Unreachable;
            }
        };
        match self.admitted(&mut link).await {
            Ok(accepted) if heads => {
                let end = self.stand_by(&mut link, accepted).await;
                self.shared.forget_trail(self.channel.peer);
                link.close(CloseCode::Normal);
                end
            }
            Ok(accepted) => self.live(link.into_raw(), entry, resume, accepted).await,
            Err(end) => {
                link.close(CloseCode::Normal);
                end
            }
        }
    }

    /// What is had of the items already: of a sequence that several producers publish, whoever sent it.
    fn resume(&self) -> Option<Resume> {
        match &self.shared.replicated {
            Some(replicated) => {
                let union = replicated.union();
                let epoch = replicated.lineage().map_or(Some(0), |lineage| lineage.epoch());
                Some(Resume { epoch: epoch?, next: union.next()? })
            }
            None => self.progress.resume(),
        }
    }

    /// Takes heads until that ends.
    async fn stand_by(&mut self, link: &mut Link<Subscription>, accepted: Accepted) -> End {
        let producer = self.channel.peer;
        self.channel.set_state(ChannelState::Standby);
        self.channel.heard();
        self.shared.refresh();
        tracing::debug!(peer = ?producer, stream = ?self.shared.stream, next = accepted.next, "stands by");
        let mut last = accepted.next;
        self.shared.head(producer, last);
        loop {
            let message = tokio::select! {
                biased;
                message = link.recv() => message,
                end = interrupted(&self.shared, &self.channel, &mut self.wanted) => return end,
            };
            match message {
                Ok(Some(Message::Head { next, .. })) => {
                    if next > last {
                        self.channel.heard();
                    }
                    last = next;
                    self.shared.head(producer, next);
                }
                Ok(Some(_)) => return DisconnectReason::Closed(CloseCode::Undecodable).into(),
                Ok(None) => return End::Unreachable,
                Err(LinkError::Closed(code)) => return DisconnectReason::Closed(code).into(),
                Err(error) => return DisconnectReason::Lost(error.to_string()).into(),
            }
        }
    }

    /// Waits for the producer's answer, also for long.
    async fn admitted(&mut self, link: &mut Link<Subscription>) -> Result<Accepted, End> {
        let producer = self.channel.peer;
        let mut answered = false;
        let deadline = Instant::now() + HANDSHAKE;
        loop {
            let message = tokio::select! {
                biased;
                message = link.recv() => message,
                end = interrupted(&self.shared, &self.channel, &mut self.wanted) => return Err(end),
                () = sleep_until(deadline), if !answered => return Err(End::Unreachable),
            };
            answered = true;
            match message {
                Ok(Some(Message::Accepted { epoch, next, replay, owned })) => {
                    return Ok(Accepted { epoch, next, replay, owned });
                }
                Ok(Some(Message::Waiting { reason })) => {
                    self.channel.set_state(ChannelState::Waiting(reason));
                    self.shared.events.send(Event::Waiting { producer, reason });
                }
                Ok(Some(Message::NotGranted(missing))) => {
                    let reason = WaitReason::NotGranted;
                    self.channel.set_state(ChannelState::Waiting(reason));
                    self.shared.events.send(Event::Waiting { producer, reason });
                    self.shared.not_granted(producer, RefusedBy::Them, missing.heard());
                }
                Ok(Some(Message::Refused { code, fingerprint, schema, label, owned })) => {
                    let code = CloseCode::from(code);
                    if code != CloseCode::Incompatible {
                        return Err(DisconnectReason::Closed(code).into());
                    }
                    if label.as_deref() != self.shared.label.as_ref().map(Label::as_str) {
                        return Err(End::Labelled(label));
                    }
                    if !self.shared.any_owner && owned != self.shared.is_owned() {
                        return Err(End::Owned(owned));
                    }
                    if let Some(ours) = sendable(self.shared.items.compared) {
                        // For the producer's own report; ours does not depend on it.
                        let _ = link.send(&Message::Schema(ours)).await;
                    }
                    let grows = match (&self.shared.items.readable, &schema) {
                        (Some(readable), Some(schema)) if schema.is_sound() => readable.unreadable(schema, false),
                        _ => None,
                    };
                    let differs = grows.or_else(|| difference(self.shared.items.compared, schema.as_ref()));
                    return Err(End::Incompatible { theirs: fingerprint, differs });
                }
                Ok(Some(Message::NotFiltered(why))) => return Err(DisconnectReason::NotFiltered(why).into()),
                Ok(Some(Message::Subscribe { .. } | Message::Schema(_) | Message::Head { .. })) => {
                    return Err(DisconnectReason::Closed(CloseCode::Undecodable).into());
                }
                Ok(None) => return Err(End::Unreachable),
                Err(LinkError::Closed(code)) => return Err(DisconnectReason::Closed(code).into()),
                Err(error) => {
                    tracing::debug!(peer = ?producer, %error, "no answer to a subscription");
                    return Err(End::Unreachable);
                }
            }
        }
    }

    /// Reads items until the subscription ends, and closes the link.
    async fn live(&mut self, mut link: RawLink, entry: &PeerEntry, asked: Option<Resume>, accepted: Accepted) -> End {
        let Accepted { epoch, next, replay, owned } = accepted;
        self.owned = owned;
        let producer = self.channel.peer;
        if let Err(end) = self.join(asked, accepted) {
            link.send.reset(CloseCode::Normal.code());
            link.recv.stop(CloseCode::Normal.code());
            return end;
        }
        self.channel.clear_failure();
        self.channel.flows(link.recv.lane());
        let resumed = self.progress.resume().is_some_and(|resume| resume.epoch == epoch);
        self.shared.events.send(Event::Connected { producer, epoch, next, resumed });
        let joined = self.progress.joined(epoch, next, replay.is_some());
        if let Some(from) = joined.restarted_from {
            self.shared.events.send(Event::Restarted { producer, from, to: epoch });
        }
        self.missed(joined.missed);
        self.shared.refresh();
        tracing::debug!(peer = ?producer, stream = ?self.shared.stream, epoch, next, "subscribed");
        let mut reader = Reader::new(link);
        let replayed = match replay {
            Some(ticket) => self.replay(&mut reader, entry, epoch, ticket).await,
            None => Ok(()),
        };
        let end = loop {
            if let Err(end) = &replayed {
                break end.clone();
            }
            if let Err(end) = self.hand_on(&mut reader, epoch) {
                break end;
            }
            if let Err(end) = reader.read(&self.shared, &self.channel, &mut self.wanted).await {
                break end;
            }
            coop::consume_budget().await;
        };
        let code = match &end {
            End::Disconnected(reason) => reason.code().unwrap_or(CloseCode::Normal),
            _ => CloseCode::Normal,
        };
        reader.link.send.reset(code.code());
        reader.link.recv.stop(code.code());
        end
    }

    /// Takes part in one sequence of several producers, if it is one, with what is had of it by now. Not with a member of an owned
    /// stream that is of a cluster which was left, or that lacks what another one may yet bring.
    fn join(&mut self, asked: Option<Resume>, Accepted { epoch, next, replay, .. }: Accepted) -> Result<(), End> {
        let Some(replicated) = &self.shared.replicated else { return Ok(()) };
        let mut union = replicated.union();
        let mut of = epoch;
        if let Some(mut lineage) = replicated.lineage() {
            let is_current = lineage.epoch() == Some(epoch);
            if is_current && union.next().is_some_and(|had| had < next) {
                let lacks = asked.is_some_and(|asked| asked.within(epoch) < next);
                // One that was not asked for it may have it all the same, and so may others.
                if !lacks || self.shared.is_served() {
                    return Err(End::Unreachable);
                }
            }
            match lineage.join(epoch) {
                Joins::Same => {}
                Joins::Left => return Err(End::Unreachable),
                Joins::Other { from } => {
                    of = from;
                    union.restart();
                }
            }
        }
        self.progress = union.next().map_or_else(Progress::default, |next| Resume { epoch: of, next }.into());
        if replay.is_none() {
            union.begins(next);
        }
        Ok(())
    }

    /// Queues all whole items that were read.
    fn hand_on(&mut self, reader: &mut Reader, epoch: u64) -> Result<(), End> {
        loop {
            match reader.intake.frames.next_frame() {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => self.take_frame(frame, epoch)?,
                Err(error @ (FrameError::TooLarge | FrameError::Malformed)) => {
                    return Err(DisconnectReason::Undecodable(error.to_string()).into());
                }
            }
        }
    }

    /// Queues what a frame of the live flow has.
    pub(super) fn take_frame(&mut self, frame: Frame, epoch: u64) -> Result<(), End> {
        match frame {
            Frame::Items { first, count, data } => {
                let step = self.progress.received(first, u64::from(count));
                self.take_items(first, u64::from(count), &data, step, epoch)?;
            }
            Frame::Mark { reason, next } => {
                let missed = self.progress.marked(next, reason);
                self.missed(missed);
            }
            // Without a filter nothing is filtered out, whatever a producer says.
            Frame::Filtered { next } if self.shared.filter.is_none() => {
                let missed = self.progress.marked(next, GapReason::Skipped);
                self.missed(missed);
            }
            Frame::Filtered { next } => {
                if let Some(replicated) = &self.shared.replicated {
                    replicated.union().passed(next);
                }
                self.progress.filtered(next).map_err(|error| DisconnectReason::Undecodable(error.to_string()))?;
            }
            Frame::End { code, next } => {
                let step = self.progress.received(next, 0);
                self.missed(step.missed);
                return Err(DisconnectReason::Closed(code.into()).into());
            }
        }
        Ok(())
    }

    /// Queues those of the items that are new.
    pub(super) fn take_items(
        &mut self,
        first: u64,
        count: u64,
        data: &Bytes,
        step: Step,
        epoch: u64,
    ) -> Result<(), End> {
        // Held until they are queued: what two producers send is queued in order and once.
        let mut union = self.shared.replicated.as_ref().map(Replicated::union);
        let lineage = self.shared.replicated.as_ref().and_then(Replicated::lineage);
        let before = union.as_deref().copied();
        let step = union.as_mut().map_or(step, |union| union.received(first, count, step));
        if let Some(mut lineage) = lineage {
            let is_left = lineage.epoch() != Some(epoch);
            let taken = if is_left { Ok(()) } else { lineage.take(places(&behind(data, step.skip))) };
            if let (Some(union), Some(before)) = (&mut union, before)
                && (is_left || taken.is_err())
            {
                // Others bring them.
                **union = before;
            }
            if is_left {
                return Err(DisconnectReason::Closed(CloseCode::Normal).into());
            }
            taken.map_err(DisconnectReason::from)?;
        }
        if let Some(missed) = step.missed {
            self.shared.missed(&self.channel, missed);
        }
        let items = count - step.skip;
        if items == 0 {
            return Ok(());
        }
        if self.shared.has_deadline() {
            self.channel.heard();
        }
        let (data, first, owned) = (behind(data, step.skip), first + step.skip, self.owned);
        let shared = &self.shared;
        // Not while others wait for what is held here.
        let is_ahead = union.is_none() && Ahead::pays(&data) && shared.merge.is_behind();
        let decoded = is_ahead.then(|| shared.items.ahead.decode(&data, owned)).flatten();
        shared.merge.push(Batch { channel: self.channel.clone(), epoch, first, items, data, owned, decoded });
        Ok(())
    }

    pub(super) fn missed(&self, missed: Option<Missed>) {
        let missed = match &self.shared.replicated {
            Some(replicated) => missed.and_then(|missed| {
                let mut union = replicated.union();
                // What a cluster that was left lacks is of no interest.
                let is_left = replicated.lineage().is_some_and(|lineage| lineage.epoch() != self.progress.epoch());
                if is_left { None } else { union.missed(missed) }
            }),
            None => missed,
        };
        if let Some(missed) = missed {
            self.shared.missed(&self.channel, missed);
        }
    }
}

/// Where items of an owned stream are in the group's log.
fn places(framed: &[u8]) -> impl Iterator<Item = Place> {
    let mut rest = framed;
    std::iter::from_fn(move || {
        let (payload, behind) = split_item(rest)?;
        rest = behind;
        Some(split_place(payload).map(|(place, _)| place))
    })
    .flatten()
}

/// The items behind the first `skip` ones.
fn behind(data: &Bytes, skip: u64) -> Bytes {
    let mut rest = &data[..];
    for _ in 0..skip {
        match split_item(rest) {
            Some((_, behind)) => rest = behind,
            None => break,
        }
    }
    let at = data.len() - rest.len();
    data.slice(at..)
}
