//! How a value would travel, for tests of a program's own types.

use crate::primitives::{
    Datum, Format,
    codec::{Codec, EncodeError},
};

/// A value that neither format carries: type, field, reason and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotCarried(String);

/// The format and the bytes that a stream, a store or a group writes a value in, once it has been read back equal: a test of one
/// line for a type's serde code.
///
/// ```
/// use mosaik::{primitives::Format, testing::encoding};
///
/// assert_eq!(encoding(&(7u8, true)).unwrap(), (Format::Postcard, vec![7, 1]));
/// ```
///
/// # Errors
/// When neither format carries the value.
pub fn encoding<T: Datum>(value: &T) -> Result<(Format, Vec<u8>), NotCarried> {
    let mut bytes = Vec::new();
    let format = Codec::<T>::of()
        .append(value, &mut bytes, usize::MAX)
        .map_err(|error: EncodeError| NotCarried(error.to_string()))?;
    Ok((format, bytes))
}
