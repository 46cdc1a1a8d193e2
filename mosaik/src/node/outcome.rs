//! What a handler may return, and how the runner sees it.

use std::fmt::Display;

use futures::future::BoxFuture;

/// The result of a handler, once it has ended.
pub type Outcome = Result<Done, String>;

/// What became of the item that a handler returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// There was none.
    Nothing,
    /// It is in the subscribers' queues.
    Emitted,
    /// Nobody was there for it, or no room.
    Dropped,
}

/// A handler that was called: a `fn` has ended by then, an `async fn` has not begun.
pub enum Call<'a> {
    /// The outcome of a `fn`.
    Done(Outcome),
    /// The body of an `async fn`.
    Later(BoxFuture<'a, Outcome>),
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

/// What a handler with `emit` returns: an item of the field's stream, an `Option` of it, or a `Result` of either.
#[diagnostic::on_unimplemented(
    message = "a handler cannot emit `{Self}` on a stream of `{T}`",
    label = "expected `{T}`",
    note = "return `{T}`, `Option<{T}>`, `Result<{T}, E>` or `Result<Option<{T}>, E>` with an `E` that is `Display`"
)]
pub trait Emits<T> {
    /// The item, if there is one.
    ///
    /// # Errors
    /// The handler's, as text.
    fn item(self) -> Result<Option<T>, String>;
}

impl<T> Emits<T> for T {
    fn item(self) -> Result<Option<T>, String> {
        Ok(Some(self))
    }
}

impl<T> Emits<T> for Option<T> {
    fn item(self) -> Result<Option<T>, String> {
        Ok(self)
    }
}

impl<T, E: Display> Emits<T> for Result<T, E> {
    fn item(self) -> Result<Option<T>, String> {
        self.map(Some).map_err(show)
    }
}

impl<T, E: Display> Emits<T> for Result<Option<T>, E> {
    fn item(self) -> Result<Option<T>, String> {
        self.map_err(show)
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
        assert_eq!(Emits::<u8>::item(1u8), Ok(Some(1)));
        assert_eq!(Emits::<u8>::item(None::<u8>), Ok(None));
        assert_eq!(Emits::<u8>::item(Ok::<u8, String>(1)), Ok(Some(1)));
        assert_eq!(Emits::<u8>::item(Ok::<Option<u8>, String>(None)), Ok(None));
        assert_eq!(Emits::<u8>::item(Err::<u8, _>("no")), Err("no".into()));
    }
}
