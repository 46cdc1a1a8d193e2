//! The handlers of a role as the runner sees them: what each one waits for, and how it is called. Filled by the code
//! that `#[mosaik::handlers]` generates.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::Stream;
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval_at},
};

use crate::{
    groups::fence::{Fence, Leading},
    primitives::{GroupId, PeerId, Streamed},
    streams::{Consumer, DisconnectReason, Event, Events, Gap, Producer},
};

use super::{
    feed::{Fed, FedBy, Feeds, Waits},
    machine::Declared,
    outcome::Call,
    role::Handlers,
    together::Lend,
};

/// Items that reached nobody and wait for their handler; more are dropped, and counted as drops like all of them.
const RETURNED: usize = 1024;

/// A handler that is called with the role alone.
type Plain<R> = for<'a> fn(&'a mut R) -> Call<'a>;
/// A handler of what a field gives it, of which several calls share the role.
type OnShared<R, T, O> = for<'a> fn(&'a R, T, O) -> Call<'a>;
/// A handler of what a field gives it.
type OnItem<R, T, O = PeerId> = for<'a> fn(&'a mut R, T, O) -> Call<'a>;
/// How to get at the field of a role that feeds a handler.
type ReachFeed<R, T, O> = for<'a> fn(&'a mut R) -> &'a mut dyn Feeds<T, O>;
/// How to get at the consumer field of a role, if it is there.
type Reach<R, T> = fn(&mut R) -> Option<&mut Consumer<T>>;
/// How to get at the producer field of a role, if it is there.
type ReachProducer<R, T> = fn(&mut R) -> Option<&mut Producer<T>>;

/// What an event tells a handler, and of which producer.
type Pick<V> = fn(&Event) -> Option<(V, PeerId)>;

/// The handlers of a role.
pub struct Table<R> {
    /// Whether the role is ready; without it, it is once it has started.
    pub(super) ready: Option<fn(&R) -> bool>,
    pub(super) starts: Vec<Once<R>>,
    pub(super) stops: Vec<Once<R>>,
    pub(super) sources: Vec<Listed<R>>,
    /// The place of the first stop handler, behind all sources and start handlers that there were at first.
    first_stop: usize,
    /// Lends the role to calls that share it, if there are handlers of such.
    pub(super) lend: Option<Lend<R>>,
    /// Where the next search begins: sources take turns, so that a busy stream does not starve the others.
    turn: usize,
}

/// A source with its place among all that there were at first: some end before the role does.
pub(super) struct Listed<R> {
    pub(super) place: usize,
    pub(super) source: Box<dyn Source<R>>,
    pub(super) on_error: OnError,
    /// Which group's leader alone calls it.
    pub(super) once: Option<AtLeader>,
}

/// A group whose leader runs a handler.
pub(super) struct AtLeader {
    group: &'static str,
    /// The role's own member of it, from the role's begin on, if it is there.
    member: Option<Leading>,
}

impl AtLeader {
    /// Under which leadership the handler may run now.
    pub(super) fn fence(&self) -> Option<(GroupId, Fence)> {
        self.member.as_ref()?.fence()
    }

    /// Whether that leadership is over, as far as the member knows.
    pub(super) fn has_ended(&self, under: Option<(GroupId, Fence)>) -> bool {
        let term = |(_, fence): (GroupId, Fence)| fence.term();
        self.fence().map(term) != under.map(term)
    }
}

/// What becomes of a role when one of its handlers returns an error or panics. It is reported and counted in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The role goes on.
    #[default]
    Log,
    /// The role is dropped and made anew from its flags, after a delay from 100 ms to 10 s. One that was not made from flags
    /// (by hand, for [`spawn`](super::spawn)) ends as with `Stop`.
    Restart,
    /// The role stops, its stop handlers included, and ends with the error.
    Stop,
}

/// A handler that is called once.
pub(super) struct Once<R> {
    pub(super) name: &'static str,
    pub(super) call: Plain<R>,
}

/// Something that makes a handler run again and again.
pub(super) trait Source<R>: Send {
    /// The handler's name.
    fn name(&self) -> &'static str;
    /// What made it run, for messages.
    fn origin(&self) -> String;
    /// Begins to listen, if there is something to be missed before the first poll.
    fn begin(&mut self, _: &mut R) {}
    /// Takes a handle of its own for what `poll_due` looks at, which then needs no role.
    fn detach(&mut self, _: &mut R) {}
    /// Ready with true when the handler should be called, with false when it never will be again. Without the role only after
    /// [`detach`](Self::detach).
    fn poll_due(&mut self, role: Option<&mut R>, cx: &mut Context<'_>) -> Poll<bool>;
    /// Calls the handler; only after `poll_due` was ready with true.
    fn call<'a>(&mut self, role: &'a mut R) -> Option<Call<'a>>;
    /// Gives up what the handler would be called with.
    fn skip(&mut self) {}
    /// How many calls may share the role; none of a handler that has it for itself.
    fn limit(&self) -> usize {
        0
    }
    /// As [`call`](Self::call), for one of those.
    fn call_shared<'a>(&mut self, _: &'a R) -> Option<Call<'a>> {
        None
    }
}

impl<R: Handlers> Table<R> {
    /// The handlers of a role.
    pub(super) fn of() -> Self {
        let mut table = Self::new();
        R::wire(&mut table);
        R::handlers(&mut table);
        table.first_stop = table.sources.len() + table.starts.len();
        table
    }

    /// Lets every source begin to listen; before the start handlers.
    pub(super) fn begin(&mut self, role: &mut R) {
        for Listed { source, once, .. } in &mut self.sources {
            source.begin(role);
            if let Some(once) = once {
                once.member = role.member(once.group);
            }
        }
    }
}

impl<R: 'static> Table<R> {
    pub(super) fn new() -> Self {
        Self {
            ready: None,
            starts: Vec::new(),
            stops: Vec::new(),
            sources: Vec::new(),
            first_stop: 0,
            lend: None,
            turn: 0,
        }
    }

    fn add(&mut self, source: impl Source<R> + 'static) {
        let (place, source) = (self.sources.len(), Box::new(source));
        self.sources.push(Listed { place, source, on_error: OnError::default(), once: None });
    }

    /// What becomes of the role when the handler that was registered last fails.
    #[doc(hidden)]
    pub fn on_error(&mut self, policy: OnError) {
        if let Some(last) = self.sources.last_mut() {
            last.on_error = policy;
        }
    }

    /// The handler that was registered last is called at the leader of this group alone.
    #[doc(hidden)]
    pub fn once<M: Declared>(&mut self) {
        if let Some(last) = self.sources.last_mut() {
            last.once = Some(AtLeader { group: M::MACHINE.group.name, member: None });
        }
    }

    /// Says whether the role is ready.
    #[doc(hidden)]
    pub fn ready(&mut self, ready: fn(&R) -> bool) {
        self.ready = Some(ready);
    }

    /// The place of the first stop handler.
    pub(super) const fn first_stop(&self) -> usize {
        self.first_stop
    }

    /// The names of all handlers: those of the sources by their places, then of the start and the stop handlers.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let once = self.starts.iter().chain(&self.stops).map(|once| once.name);
        self.sources.iter().map(|listed| listed.source.name()).chain(once).collect()
    }

    /// A handler of the items that arrive on a consumer field, or of the states that a replica of a store shows.
    #[doc(hidden)]
    pub fn on<T: Send + 'static, O: Send + 'static>(
        &mut self,
        name: &'static str,
        field: &'static str,
        reach: ReachFeed<R, T, O>,
        call: OnItem<R, T, O>,
    ) {
        self.add(Items::new(name, field, reach, Calls::Alone(call)));
    }

    /// As [`on`](Self::on), for a handler of which so many calls may share the role.
    #[doc(hidden)]
    pub fn on_shared<T: Send + 'static, O: Send + 'static>(
        &mut self,
        (name, field): (&'static str, &'static str),
        limit: usize,
        lend: Lend<R>,
        reach: ReachFeed<R, T, O>,
        call: OnShared<R, T, O>,
    ) {
        self.lend = Some(lend);
        self.add(Items::new(name, field, reach, Calls::Shared(limit, call)));
    }

    /// A handler of subscriptions of a consumer field that begin.
    #[doc(hidden)]
    pub fn on_connected<T: Streamed>(
        &mut self,
        name: &'static str,
        field: &'static str,
        reach: Reach<R, T>,
        call: OnItem<R, PeerId>,
    ) {
        self.told(name, field, reach, call, |event| match *event {
            Event::Connected { producer, .. } => Some((producer, producer)),
            _ => None,
        });
    }

    /// A handler of subscriptions of a consumer field that end.
    #[doc(hidden)]
    pub fn on_disconnected<T: Streamed>(
        &mut self,
        name: &'static str,
        field: &'static str,
        reach: Reach<R, T>,
        call: OnItem<R, DisconnectReason>,
    ) {
        self.told(name, field, reach, call, |event| match event {
            Event::Disconnected { producer, reason } => Some((reason.clone(), *producer)),
            _ => None,
        });
    }

    /// A handler of what a consumer field has missed.
    #[doc(hidden)]
    pub fn on_gap<T: Streamed>(
        &mut self,
        name: &'static str,
        field: &'static str,
        reach: Reach<R, T>,
        call: OnItem<R, Gap>,
    ) {
        self.told(name, field, reach, call, |event| match *event {
            Event::Gap { producer, from, to, reason } => Some((Gap { from, to, reason }, producer)),
            _ => None,
        });
    }

    /// A handler of producers of a consumer field that have been silent for `deadline`, or for what the field declares.
    #[doc(hidden)]
    pub fn on_late<T: Streamed>(
        &mut self,
        name: &'static str,
        field: &'static str,
        deadline: Option<Duration>,
        reach: Reach<R, T>,
        call: OnItem<R, Duration>,
    ) {
        let pick: Pick<Duration> = |event| match *event {
            Event::Late { producer, silent } => Some((silent, producer)),
            _ => None,
        };
        self.add(Told { name, field, reach, call, pick, deadline, events: None, next: None });
    }

    fn told<T: Streamed, V: Send + 'static>(
        &mut self,
        name: &'static str,
        field: &'static str,
        reach: Reach<R, T>,
        call: OnItem<R, V>,
        pick: Pick<V>,
    ) {
        self.add(Told { name, field, reach, call, pick, deadline: None, events: None, next: None });
    }

    /// A handler of the items of a producer field that reached nobody.
    #[doc(hidden)]
    pub fn undelivered<T: Streamed>(
        &mut self,
        name: &'static str,
        field: &'static str,
        reach: ReachProducer<R, T>,
        call: OnItem<R, T::Item, ()>,
    ) {
        self.add(Returned { name, field, reach, call, items: None, next: None });
    }

    /// A handler that is called once per period, first after one.
    #[doc(hidden)]
    pub fn every(&mut self, name: &'static str, period: Duration, call: Plain<R>) {
        self.add(Periodic { name, period, call, interval: None });
    }

    /// A handler that is called before all others.
    #[doc(hidden)]
    pub fn start(&mut self, name: &'static str, call: Plain<R>) {
        self.starts.push(Once { name, call });
    }

    /// A handler that is called after all others, at a graceful end.
    #[doc(hidden)]
    pub fn stop(&mut self, name: &'static str, call: Plain<R>) {
        self.stops.push(Once { name, call });
    }

    /// Lets every source have a handle of its own.
    pub(super) fn detach(&mut self, role: &mut R) {
        self.sources.iter_mut().for_each(|listed| listed.source.detach(role));
    }

    /// The index of a source whose handler is due. Pending for ever once no source is left.
    pub(super) fn poll_due(&mut self, role: &mut R, cx: &mut Context<'_>) -> Poll<usize> {
        self.poll(Some(role), &[], cx)
    }

    /// As [`poll_due`](Self::poll_due), after [`detach`](Self::detach), but for those of which as many calls as they may have are
    /// under way, by place.
    pub(super) fn poll_free(&mut self, under_way: &[usize], cx: &mut Context<'_>) -> Poll<usize> {
        self.poll(None, under_way, cx)
    }

    fn poll(&mut self, mut role: Option<&mut R>, under_way: &[usize], cx: &mut Context<'_>) -> Poll<usize> {
        let mut looked_at = 0;
        while looked_at < self.sources.len() {
            let index = (self.turn + looked_at) % self.sources.len();
            let Listed { place, source, .. } = &mut self.sources[index];
            let limit = source.limit();
            if limit > 0 && under_way.get(*place).is_some_and(|calls| *calls >= limit) {
                looked_at += 1;
                continue;
            }
            match source.poll_due(role.as_deref_mut(), cx) {
                Poll::Ready(true) => {
                    self.turn = index + 1;
                    return Poll::Ready(index);
                }
                Poll::Ready(false) => {
                    self.sources.remove(index);
                }
                Poll::Pending => looked_at += 1,
            }
        }
        Poll::Pending
    }
}

/// How a handler of items is called.
enum Calls<R, T, O> {
    /// With the role for itself.
    Alone(OnItem<R, T, O>),
    /// So many at a time, which share it.
    Shared(usize, OnShared<R, T, O>),
}

struct Items<R, T, O> {
    name: &'static str,
    field: &'static str,
    reach: ReachFeed<R, T, O>,
    call: Calls<R, T, O>,
    /// The field's items without the role.
    own: Option<Box<dyn Feeds<T, O>>>,
    waits: Waits,
    next: Option<Fed<T, O>>,
    /// Where what is being handled comes from.
    current: Option<FedBy>,
}

impl<R, T, O> Items<R, T, O> {
    fn new(name: &'static str, field: &'static str, reach: ReachFeed<R, T, O>, call: Calls<R, T, O>) -> Self {
        Self { name, field, reach, call, own: None, waits: Waits::default(), next: None, current: None }
    }
}

impl<R, T: Send, O: Send> Source<R> for Items<R, T, O> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn origin(&self) -> String {
        self.current.map_or_else(|| self.field.to_owned(), |source| source.describe(self.field))
    }

    fn detach(&mut self, role: &mut R) {
        self.own = Some((self.reach)(role).detach());
    }

    fn poll_due(&mut self, role: Option<&mut R>, cx: &mut Context<'_>) -> Poll<bool> {
        self.next = ready!(match (&mut self.own, role) {
            (Some(own), _) => own.poll_feed(&mut self.waits, cx),
            (None, Some(role)) => (self.reach)(role).poll_feed(&mut self.waits, cx),
            (None, None) => Poll::Ready(None),
        });
        Poll::Ready(self.next.is_some())
    }

    fn call<'a>(&mut self, role: &'a mut R) -> Option<Call<'a>> {
        let Fed { item, from, source } = self.next.take()?;
        self.current = Some(source);
        Some(match self.call {
            Calls::Alone(call) => call(role, item, from),
            Calls::Shared(_, call) => call(role, item, from),
        })
    }

    fn limit(&self) -> usize {
        match self.call {
            Calls::Alone(_) => 0,
            Calls::Shared(limit, _) => limit,
        }
    }

    fn call_shared<'a>(&mut self, role: &'a R) -> Option<Call<'a>> {
        let Calls::Shared(_, call) = self.call else { return None };
        let Fed { item, from, source } = self.next.take()?;
        self.current = Some(source);
        Some(call(role, item, from))
    }

    fn skip(&mut self) {
        self.next = None;
    }
}

/// What a consumer is told beside its items, of one kind.
struct Told<R, T: Streamed, V> {
    name: &'static str,
    field: &'static str,
    reach: Reach<R, T>,
    call: OnItem<R, V>,
    pick: Pick<V>,
    /// What the consumer is to be given, if it is about that.
    deadline: Option<Duration>,
    /// From the role's begin on.
    events: Option<Events>,
    next: Option<(V, PeerId)>,
}

impl<R, T: Streamed, V: Send + 'static> Source<R> for Told<R, T, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn origin(&self) -> String {
        format!("an event of {}", self.field)
    }

    fn begin(&mut self, role: &mut R) {
        let Some(consumer) = (self.reach)(role) else { return };
        self.events = Some(consumer.events());
        if let Some(deadline) = self.deadline {
            consumer.set_deadline(deadline);
        }
    }

    fn poll_due(&mut self, _: Option<&mut R>, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(events) = &mut self.events else { return Poll::Ready(false) };
        loop {
            let Some(event) = ready!(Pin::new(&mut *events).poll_next(cx)) else { return Poll::Ready(false) };
            if let Event::Lost { events } = event {
                tracing::warn!(handler = self.name, field = self.field, events, "too slow: events were missed");
            }
            self.next = (self.pick)(&event);
            if self.next.is_some() {
                return Poll::Ready(true);
            }
        }
    }

    fn call<'a>(&mut self, role: &'a mut R) -> Option<Call<'a>> {
        let (what, producer) = self.next.take()?;
        Some((self.call)(role, what, producer))
    }

    fn skip(&mut self) {
        self.next = None;
    }
}

/// Items of a producer that reached nobody.
struct Returned<R, T: Streamed> {
    name: &'static str,
    field: &'static str,
    reach: ReachProducer<R, T>,
    call: OnItem<R, T::Item, ()>,
    /// From the role's begin on, if the producer is there.
    items: Option<mpsc::Receiver<T::Item>>,
    next: Option<T::Item>,
}

impl<R, T: Streamed> Source<R> for Returned<R, T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn origin(&self) -> String {
        format!("an undelivered item of {}", self.field)
    }

    fn begin(&mut self, role: &mut R) {
        let Some(producer) = (self.reach)(role) else { return };
        let (returned, items) = mpsc::channel(RETURNED);
        producer.set_undelivered(returned);
        self.items = Some(items);
    }

    fn poll_due(&mut self, _: Option<&mut R>, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(items) = &mut self.items else { return Poll::Ready(false) };
        self.next = ready!(items.poll_recv(cx));
        Poll::Ready(self.next.is_some())
    }

    fn call<'a>(&mut self, role: &'a mut R) -> Option<Call<'a>> {
        Some((self.call)(role, self.next.take()?, ()))
    }

    fn skip(&mut self) {
        self.next = None;
    }
}

struct Periodic<R> {
    name: &'static str,
    period: Duration,
    call: Plain<R>,
    /// Made at the first poll: the first run is one period after the role began to listen.
    interval: Option<Interval>,
}

impl<R> Source<R> for Periodic<R> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn origin(&self) -> String {
        format!("every {:?}", self.period)
    }

    fn poll_due(&mut self, _: Option<&mut R>, cx: &mut Context<'_>) -> Poll<bool> {
        let interval = self.interval.get_or_insert_with(|| {
            let mut interval = interval_at(tokio::time::Instant::now() + self.period, self.period);
            // A handler that was late must not be called in a burst.
            interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
            interval
        });
        interval.poll_tick(cx).map(|_| true)
    }

    fn call<'a>(&mut self, role: &'a mut R) -> Option<Call<'a>> {
        Some((self.call)(role))
    }
}

impl<R> fmt::Debug for Table<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let once = |list: &[Once<R>]| list.iter().map(|each| each.name).collect::<Vec<_>>();
        let sources: Vec<_> = self.sources.iter().map(|listed| listed.source.name()).collect();
        f.debug_struct("Table")
            .field("starts", &once(&self.starts))
            .field("sources", &sources)
            .field("stops", &once(&self.stops))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Is due as often as that, then ends.
    struct Few(&'static str, usize);

    impl Source<()> for Few {
        fn name(&self) -> &'static str {
            self.0
        }

        fn origin(&self) -> String {
            String::new()
        }

        fn poll_due(&mut self, _: Option<&mut ()>, _: &mut Context<'_>) -> Poll<bool> {
            self.1 = self.1.saturating_sub(1);
            Poll::Ready(self.1 > 0)
        }

        fn call<'a>(&mut self, (): &'a mut ()) -> Option<Call<'a>> {
            None
        }
    }

    #[test]
    fn a_handler_keeps_its_place_when_another_one_has_ended() {
        let mut table: Table<()> = Table::new();
        table.add(Few("short", 2));
        table.add(Few("long", 10));
        assert_eq!(table.names(), ["short", "long"]);
        let mut due = || match table.poll_due(&mut (), &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(index) => table.sources[index].place,
            Poll::Pending => panic!("one is always due"),
        };
        assert_eq!([due(), due(), due(), due()], [0, 1, 1, 1]);
    }
}
