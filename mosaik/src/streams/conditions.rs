//! Conditions on who is connected, and futures that wait for them: `when()`.
//!
//! Both handles publish a [`Topology`] for every change; everything here only looks at it, so a condition holds no lock and
//! does not keep a stream open.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use crate::primitives::watch;
use futures::{FutureExt, future::BoxFuture};

use crate::{
    discovery::PeerEntry,
    primitives::{Tag, Tags},
};

/// Who is connected now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Topology {
    pub(crate) online: bool,
    /// The other sides of all live subscriptions.
    pub(crate) peers: Vec<PeerEntry>,
}

/// One tag or several: a [`Tag`], `&str`, `String`, [`Tags`], or an array, slice or `Vec` of them.
pub trait IntoTags {
    /// The tags.
    fn into_tags(self) -> Vec<Tag>;
}

macro_rules! one_tag {
    ($($tag:ty),*) => {
        $(impl IntoTags for $tag {
            fn into_tags(self) -> Vec<Tag> {
                vec![self.into()]
            }
        })*
    };
}

one_tag!(Tag, &Tag, &str, String, &String);

impl IntoTags for Tags {
    fn into_tags(self) -> Vec<Tag> {
        self.iter().copied().collect()
    }
}

impl<T: Into<Tag>, const N: usize> IntoTags for [T; N] {
    fn into_tags(self) -> Vec<Tag> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<Tag>> IntoTags for Vec<T> {
    fn into_tags(self) -> Vec<Tag> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<Tag> + Clone> IntoTags for &[T] {
    fn into_tags(self) -> Vec<Tag> {
        self.iter().cloned().map(Into::into).collect()
    }
}

/// How many peers of which kind must be connected. The default is one of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a condition does nothing by itself"]
pub struct Conditions {
    minimum: usize,
    tags: Vec<Tag>,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { minimum: 1, tags: Vec::new() }
    }
}

impl Conditions {
    /// At least this many subscriptions; 0 always holds.
    pub const fn minimum_of(mut self, minimum: usize) -> Self {
        self.minimum = minimum;
        self
    }

    /// Only peers that have all of these tags count. A second call adds to the first.
    pub fn with_tags(mut self, tags: impl IntoTags) -> Self {
        self.tags.extend(tags.into_tags());
        self
    }

    pub(crate) fn met<'a>(&self, peers: impl IntoIterator<Item = &'a PeerEntry>) -> bool {
        let counts = |peer: &&PeerEntry| self.tags.iter().all(|tag| peer.tags().contains(*tag));
        self.minimum == 0 || peers.into_iter().filter(counts).take(self.minimum).count() == self.minimum
    }
}

/// Makes futures that resolve when something is so; made by `when()` of a producer or consumer.
///
/// The futures are `Send + 'static` and cancellation-safe. They resolve at once when it is so already, and can be awaited
/// again (by `&mut`): each time they look anew. After the stream has closed, what can no longer come never resolves.
#[derive(Debug, Clone)]
#[must_use = "call one of its methods and await the result"]
pub struct When {
    topology: watch::Receiver<Topology>,
}

impl When {
    pub(crate) const fn new(topology: watch::Receiver<Topology>) -> Self {
        Self { topology }
    }

    /// Resolves when the stream is online: a producer when its `online_when` condition holds, a consumer when it has a producer.
    pub fn online(&self) -> Online {
        Online { watching: Watching::new(self.topology.clone()), wanted: true }
    }

    /// Resolves when the stream is not online.
    pub fn offline(&self) -> Online {
        Online { watching: Watching::new(self.topology.clone()), wanted: false }
    }

    /// Resolves when there is a subscription, or as many as the added conditions say.
    pub fn subscribed(&self) -> Subscribed {
        let conditions = Conditions::default();
        Subscribed { watching: Watching::new(self.topology.clone()), conditions, wanted: true }
    }

    /// Resolves when there is no subscription, or fewer than the added conditions say.
    pub fn unsubscribed(&self) -> Subscribed {
        let conditions = Conditions::default();
        Subscribed { watching: Watching::new(self.topology.clone()), conditions, wanted: false }
    }
}

/// A future of [`When::online`] or [`When::offline`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Online {
    watching: Watching,
    wanted: bool,
}

impl Future for Online {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let wanted = self.wanted;
        self.watching.poll_until(cx, |topology| topology.online == wanted)
    }
}

/// A future of [`When::subscribed`] or [`When::unsubscribed`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Subscribed {
    watching: Watching,
    conditions: Conditions,
    wanted: bool,
}

impl Subscribed {
    /// See [`Conditions::minimum_of`].
    pub fn minimum_of(mut self, minimum: usize) -> Self {
        self.conditions = self.conditions.minimum_of(minimum);
        self
    }

    /// See [`Conditions::with_tags`].
    pub fn with_tags(mut self, tags: impl IntoTags) -> Self {
        self.conditions = self.conditions.with_tags(tags);
        self
    }
}

impl Future for Subscribed {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { watching, conditions, wanted } = self.get_mut();
        watching.poll_until(cx, |topology| conditions.met(&topology.peers) == *wanted)
    }
}

/// Polls a watch without borrowing it.
struct Watching {
    topology: watch::Receiver<Topology>,
    /// Resolves with the next change after the last look; false when there will be none.
    changed: Option<BoxFuture<'static, bool>>,
}

impl Watching {
    const fn new(topology: watch::Receiver<Topology>) -> Self {
        Self { topology, changed: None }
    }

    fn poll_until(&mut self, cx: &mut Context<'_>, holds: impl Fn(&Topology) -> bool) -> Poll<()> {
        loop {
            if let Some(changed) = &mut self.changed {
                // When the sender is gone nothing will change, and a look has been taken since.
                let more = ready!(changed.poll_unpin(cx));
                self.changed = None;
                if !more {
                    self.changed = Some(futures::future::pending().boxed());
                    continue;
                }
            }
            if holds(&self.topology.borrow_and_update()) {
                return Poll::Ready(());
            }
            let mut topology = self.topology.clone();
            self.changed = Some(async move { topology.changed().await.is_ok() }.boxed());
        }
    }
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.topology.borrow().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn online(online: bool) -> Topology {
        Topology { online, peers: Vec::new() }
    }

    #[tokio::test]
    async fn a_condition_can_be_awaited_again_and_looks_anew() {
        let (sender, receiver) = watch::channel(online(false));
        let mut when = When::new(receiver).online();
        assert!((&mut when).now_or_never().is_none());
        sender.send_replace(online(true));
        (&mut when).await;
        assert!((&mut when).now_or_never().is_some(), "it still holds");
        sender.send_replace(online(false));
        assert!((&mut when).now_or_never().is_none());
        sender.send_replace(online(true));
        when.await;
    }

    #[tokio::test]
    async fn what_cannot_come_any_more_stays_pending() {
        let (sender, receiver) = watch::channel(online(false));
        let when = When::new(receiver);
        let mut waiting = when.online();
        assert!((&mut waiting).now_or_never().is_none());
        drop(sender);
        assert!((&mut waiting).now_or_never().is_none());
        assert!((&mut waiting).now_or_never().is_none());
        when.offline().await;
        when.unsubscribed().await;
        when.subscribed().minimum_of(0).await;
    }

    #[test]
    fn tags_come_in_many_shapes() {
        let both = vec![Tag::from("a"), Tag::from("b")];
        assert_eq!("a".into_tags(), both[..1]);
        assert_eq!(["a", "b"].into_tags(), both);
        assert_eq!(vec![String::from("a"), "b".into()].into_tags(), both);
        assert_eq!(both[..].into_tags(), both);
    }
}
