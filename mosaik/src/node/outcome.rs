//! What a handler may return, and how the runner sees it.

use std::{fmt::Display, iter::Chain, option, vec};

use futures::future::BoxFuture;

use crate::{
    groups::fence::{self, Fence},
    primitives::GroupId,
};

/// The result of a handler, once it has ended.
pub type Outcome = Result<Done, String>;

/// What became of the items that a handler returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// How many are in the subscribers' queues.
    pub emitted: u64,
    /// For how many nobody was there, or no room.
    pub dropped: u64,
}

/// A handler that was called: a `fn` has ended by then, an `async fn` has not begun.
pub enum Call<'a> {
    /// The outcome of a `fn`.
    Done(Outcome),
    /// The body of an `async fn`.
    Later(BoxFuture<'a, Outcome>),
}

impl Call<'_> {
    /// The rest of it runs under this leadership, too.
    pub(super) fn under(self, fence: (GroupId, Fence)) -> Self {
        match self {
            Self::Done(outcome) => Self::Done(outcome),
            Self::Later(future) => Self::Later(Box::pin(fence::scope(fence, future))),
        }
    }
}

/// What a handler without `emit` returns: nothing, or a `Result` with nothing in it whose error can be shown.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "nobody takes this value",
    note = "return nothing or `Result<(), E>` with an `E` that is `Display`",
    note = "to send what a periodic handler returns: `#[every(\"1s\", emit = field)]`"
)]
pub trait Handled {
    /// Takes the error as text, with its causes where the type shows them.
    ///
    /// # Errors
    /// When the handler returned one.
    fn handled(self) -> Result<(), String>;
}

impl Handled for () {
    fn handled(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Display> Handled for Result<(), E> {
    fn handled(self) -> Result<(), String> {
        self.map_err(show)
    }
}

/// The items that a handler returned.
pub type Items<T> = Chain<option::IntoIter<T>, vec::IntoIter<T>>;

/// What a handler with `emit` returns: an item of the field's stream, an `Option` or a `Vec` of them, or a `Result` of any.
#[diagnostic::on_unimplemented(
    message = "a handler cannot emit `{Self}` on a stream of `{T}`",
    label = "expected `{T}`",
    note = "return `{T}`, `Option<{T}>`, `Vec<{T}>`, or a `Result` of one of them with an error that is `Display`"
)]
pub trait Emits<T> {
    /// The items, in the order in which they are sent.
    ///
    /// # Errors
    /// The handler's, as text.
    fn items(self) -> Result<Items<T>, String>;
}

fn one<T>(item: Option<T>) -> Items<T> {
    item.into_iter().chain(Vec::new())
}

fn many<T>(items: Vec<T>) -> Items<T> {
    None.into_iter().chain(items)
}

impl<T> Emits<T> for T {
    fn items(self) -> Result<Items<T>, String> {
        Ok(one(Some(self)))
    }
}

impl<T> Emits<T> for Option<T> {
    fn items(self) -> Result<Items<T>, String> {
        Ok(one(self))
    }
}

impl<T> Emits<T> for Vec<T> {
    fn items(self) -> Result<Items<T>, String> {
        Ok(many(self))
    }
}

impl<T, E: Display> Emits<T> for Result<T, E> {
    fn items(self) -> Result<Items<T>, String> {
        self.map(|item| one(Some(item))).map_err(show)
    }
}

impl<T, E: Display> Emits<T> for Result<Option<T>, E> {
    fn items(self) -> Result<Items<T>, String> {
        self.map(one).map_err(show)
    }
}

impl<T, E: Display> Emits<T> for Result<Vec<T>, E> {
    fn items(self) -> Result<Items<T>, String> {
        self.map(many).map_err(show)
    }
}

/// The alternate form: error types that know their causes print them with it.
fn show(error: impl Display) -> String {
    format!("{error:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_return_type_works() {
        assert_eq!(().handled(), Ok(()));
        assert_eq!(Err::<(), _>("no").handled(), Err("no".into()));
        let items = |items: Result<Items<u8>, String>| items.map(Iterator::collect::<Vec<_>>);
        assert_eq!(items(1u8.items()), Ok(vec![1]));
        assert_eq!(items(None::<u8>.items()), Ok(vec![]));
        assert_eq!(items(vec![1u8, 2].items()), Ok(vec![1, 2]));
        assert_eq!(items(Ok::<u8, String>(1).items()), Ok(vec![1]));
        assert_eq!(items(Ok::<Option<u8>, String>(None).items()), Ok(vec![]));
        assert_eq!(items(Ok::<Vec<u8>, String>(vec![1, 2]).items()), Ok(vec![1, 2]));
        assert_eq!(items(Err::<u8, _>("no").items()), Err("no".into()));
    }
}
