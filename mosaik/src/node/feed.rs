//! What the fields of a role give to their `#[on(..)]` handlers: a consumer its items, a replica of a store its newest state.

use std::{
    fmt,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;

use crate::{
    primitives::{PeerId, Streamed},
    stores::{Position, StoreReplica, Versioned, View},
    streams::{Consumer, Origin},
};

/// A field that `#[on(..)]` can name: it gives a `T` from an `O`.
#[diagnostic::on_unimplemented(
    message = "`#[on(..)]` needs a field that receives items, but this one is a `{Self}`",
    label = "neither a `Consumer<T>` nor a `StoreReplica<V>`",
    note = "to receive the items of a stream, give the role a field of type `Consumer<T>`; to follow a store, one of type \
            `StoreReplica<V>`"
)]
pub trait Feeds<T, O>: Send {
    /// What it gives next; nothing when it never will again.
    #[doc(hidden)]
    fn poll_feed(&mut self, waits: &mut Waits, cx: &mut Context<'_>) -> Poll<Option<Fed<T, O>>>;

    /// A handle of its own on the same, which gives nothing once the field is dropped.
    #[doc(hidden)]
    fn detach(&self) -> Box<dyn Feeds<T, O>>;
}

/// Something for a handler.
#[doc(hidden)]
#[derive(Debug)]
pub struct Fed<T, O> {
    pub(super) item: T,
    pub(super) from: O,
    pub(super) source: FedBy,
}

/// Where it comes from, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) enum FedBy {
    Item(Origin),
    State(Position),
}

impl FedBy {
    pub(super) fn describe(self, field: &str) -> String {
        match self {
            Self::Item(Origin { producer, seq, .. }) => format!("item {seq} of {field} from {producer:?}"),
            Self::State(position) => format!("the state of {field} at {position}"),
        }
    }
}

/// What a field that cannot be polled itself needs to be waited for.
#[doc(hidden)]
#[derive(Default)]
pub struct Waits {
    /// The state that the handler had last.
    seen: Position,
    /// Ends when there is another; with false when there never will be.
    next: Option<BoxFuture<'static, bool>>,
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waits").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl<T: Streamed> Feeds<T::Item, PeerId> for Consumer<T> {
    fn poll_feed(&mut self, _: &mut Waits, cx: &mut Context<'_>) -> Poll<Option<Fed<T::Item, PeerId>>> {
        let next = ready!(self.poll_recv_from(cx));
        Poll::Ready(next.map(|(item, origin)| Fed { item, from: origin.producer, source: FedBy::Item(origin) }))
    }

    fn detach(&self) -> Box<dyn Feeds<T::Item, PeerId>> {
        Box::new(self.second())
    }
}

/// One that is not there gives nothing.
impl<T, O, F: Feeds<T, O> + 'static> Feeds<T, O> for Option<F> {
    fn poll_feed(&mut self, waits: &mut Waits, cx: &mut Context<'_>) -> Poll<Option<Fed<T, O>>> {
        match self {
            Some(field) => field.poll_feed(waits, cx),
            None => Poll::Ready(None),
        }
    }

    fn detach(&self) -> Box<dyn Feeds<T, O>> {
        match self {
            Some(field) => field.detach(),
            None => Box::new(None::<F>),
        }
    }
}

/// Whatever has changed since the handler was called last is one call.
impl<V: View> Feeds<Versioned<V>, ()> for StoreReplica<V> {
    fn poll_feed(&mut self, waits: &mut Waits, cx: &mut Context<'_>) -> Poll<Option<Fed<Versioned<V>, ()>>> {
        let seen = waits.seen;
        let next = waits.next.get_or_insert_with(|| {
            let changed = self.when().changed_since(seen);
            Box::pin(async move { changed.await.is_ok() })
        });
        let changed = ready!(next.as_mut().poll(cx));
        waits.next = None;
        Poll::Ready(changed.then(|| {
            let item = self.read();
            waits.seen = item.position();
            Fed { source: FedBy::State(waits.seen), from: (), item }
        }))
    }

    fn detach(&self) -> Box<dyn Feeds<Versioned<V>, ()>> {
        Box::new(self.clone())
    }
}
