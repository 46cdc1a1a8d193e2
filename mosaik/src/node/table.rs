//! The handlers of a role as the runner sees them: what each one waits for, and how it is called. Filled by the code
//! that `#[mosaik::handlers]` generates.

use std::{
    fmt,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::{
    primitives::{Datum, PeerId},
    streams::{Consumer, Origin},
};

use super::outcome::Call;

/// A handler that is called with the role alone.
type Plain<R> = for<'a> fn(&'a mut R) -> Call<'a>;
/// A handler of items.
type OnItem<R, T> = for<'a> fn(&'a mut R, T, PeerId) -> Call<'a>;
/// How to get at the consumer field of a role.
type Reach<R, T> = fn(&mut R) -> &mut Consumer<T>;

/// The handlers of a role.
pub struct Table<R> {
    pub(super) starts: Vec<Once<R>>,
    pub(super) stops: Vec<Once<R>>,
    pub(super) sources: Vec<Box<dyn Source<R>>>,
    /// Where the next search begins: sources take turns, so that a busy stream does not starve the others.
    turn: usize,
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
    /// Ready with true when the handler should be called, with false when it never will be again.
    fn poll_due(&mut self, role: &mut R, cx: &mut Context<'_>) -> Poll<bool>;
    /// Calls the handler; only after `poll_due` was ready with true.
    fn call<'a>(&mut self, role: &'a mut R) -> Option<Call<'a>>;
}

impl<R: 'static> Table<R> {
    pub(super) fn new() -> Self {
        Self { starts: Vec::new(), stops: Vec::new(), sources: Vec::new(), turn: 0 }
    }

    /// A handler of the items that arrive on a consumer field.
    #[doc(hidden)]
    pub fn on<T: Datum>(&mut self, name: &'static str, field: &'static str, reach: Reach<R, T>, call: OnItem<R, T>) {
        self.sources.push(Box::new(Items { name, field, reach, call, next: None, current: None }));
    }

    /// A handler that is called once per period, first after one.
    #[doc(hidden)]
    pub fn every(&mut self, name: &'static str, period: Duration, call: Plain<R>) {
        self.sources.push(Box::new(Periodic { name, period, call, interval: None }));
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

    /// The index of a source whose handler is due. Pending for ever once no source is left.
    pub(super) fn poll_due(&mut self, role: &mut R, cx: &mut Context<'_>) -> Poll<usize> {
        let mut looked_at = 0;
        while looked_at < self.sources.len() {
            let index = (self.turn + looked_at) % self.sources.len();
            match self.sources[index].poll_due(role, cx) {
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

struct Items<R, T: Datum> {
    name: &'static str,
    field: &'static str,
    reach: Reach<R, T>,
    call: OnItem<R, T>,
    next: Option<(T, Origin)>,
    /// Where the item that is being handled comes from.
    current: Option<Origin>,
}

impl<R, T: Datum> Source<R> for Items<R, T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn origin(&self) -> String {
        match self.current {
            Some(Origin { producer, seq, .. }) => format!("item {seq} of {} from {producer:?}", self.field),
            None => self.field.to_owned(),
        }
    }

    fn poll_due(&mut self, role: &mut R, cx: &mut Context<'_>) -> Poll<bool> {
        self.next = ready!((self.reach)(role).poll_recv_from(cx));

        Poll::Ready(self.next.is_some())
    }

    fn call<'a>(&mut self, role: &'a mut R) -> Option<Call<'a>> {
        let (item, origin) = self.next.take()?;
        self.current = Some(origin);
        Some((self.call)(role, item, origin.producer))
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

    fn poll_due(&mut self, _: &mut R, cx: &mut Context<'_>) -> Poll<bool> {
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
        let sources: Vec<_> = self.sources.iter().map(|source| source.name()).collect();
        f.debug_struct("Table")
            .field("starts", &once(&self.starts))
            .field("sources", &sources)
            .field("stops", &once(&self.stops))
            .finish_non_exhaustive()
    }
}
