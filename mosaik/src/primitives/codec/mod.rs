//! How values of users' types become bytes and back: items, deltas, commands, outputs, states. What was accepted can be read
//! back equal; what cannot is refused where it would be written, by type and field.
//!
//! A value is written with postcard where that carries it: the type's `Deserialize` never asks the format what comes next
//! ([`schema`](super::schema) finds out, once per type), and this value is written with just the parts that the reader expects
//! ([`check`]). Else it is written with `MessagePack`, with names, in the human-readable form that types choose for text
//! formats; that carries what asks for self-description. Which one it is depends on type and value alone, so that all members
//! of a group write alike, and is told beside the bytes, so that the reader never guesses.
//!
//! The first values of a type, and one in 4,096 after them, are read back and compared ([`readback`]). A difference means that
//! type's serde code writes what it does not read; the type is refused from then on.
//!
//! Formats: <https://postcard.jamesmunns.com/wire-format>, <https://github.com/msgpack/msgpack/blob/master/spec.md>.

mod check;
mod format;
mod locate;
mod readback;
mod sink;

use std::{
    any::{TypeId, type_name},
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};

pub use format::Format;
pub(crate) use readback::{ReadBack, compare};

use self::{check::Plan, sink::Sink};
use super::schema::{Described, Evolve, Schema};

/// So many values of a type are read back at first.
const FIRST: u32 = 16;
/// And one of so many after them.
const ONE_IN: u32 = 4_096;
/// So many types are found without a lock by each thread.
const RECENTLY: usize = 8;
/// How deep a `MessagePack` value may nest when it is read.
const MAX_DEPTH: usize = 128;

/// Why a value could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EncodeError {
    /// It has so many bytes, at least.
    #[error("{0} bytes are too many")]
    TooLarge(usize),
    /// Neither format carries it: type, place, reason, remedy.
    #[error("{0}")]
    Refused(String),
}

/// Why bytes could not be read. In words only when it is told, which keeps the way of good ones short.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("{0} bytes left over")]
    LeftOver(usize),
    #[error(transparent)]
    Postcard(postcard::Error),
    #[error(transparent)]
    MessagePack(rmp_serde::decode::Error),
    #[error("it was written with postcard, which does not carry the type here: {0}")]
    Unproven(&'static str),
    #[error("its format is unknown")]
    Format,
}

/// What is known of a type. One of each lives as long as the program.
struct Known {
    name: &'static str,
    schema: Schema,
    fingerprint: [u8; 32],
    forced: Option<Format>,
    /// How values are checked for postcard; `Err`: why it is not used.
    plan: Result<Plan, String>,
    /// An option that `MessagePack` cannot carry.
    twice_nil: Option<String>,
    /// Values that were read back.
    seen: AtomicU32,
    refused: OnceLock<String>,
}

/// Writes and reads values of one type.
pub(crate) struct Codec<T> {
    known: &'static Known,
    datum: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Codec<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Codec<T> {}

impl<T> fmt::Debug for Codec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Codec({})", self.known.name)
    }
}

thread_local! {
    /// Values that this thread wrote since it last read one back.
    static UNCHECKED: Cell<u32> = const { Cell::new(0) };
    static RECENT: RefCell<Recent> = const { RefCell::new(([None; RECENTLY], 0)) };
}

/// The types that a thread asked for last, and where the next one goes.
type Recent = ([Option<(Key, &'static Known)>; RECENTLY], usize);

/// A type, and the format that it is told to use.
type Key = (TypeId, Option<Format>);

/// Every type that was ever asked for.
static KNOWN: Mutex<BTreeMap<Key, &'static Known>> = Mutex::new(BTreeMap::new());

/// A codec of a type that is known where it is used.
#[derive(Clone, Copy)]
pub(crate) struct Untyped(&'static Known);

impl Untyped {
    /// The codec of the type that it was made of.
    #[inline]
    pub(crate) const fn typed<T>(self) -> Codec<T> {
        Codec { known: self.0, datum: PhantomData }
    }
}

impl<T> From<Codec<T>> for Untyped {
    fn from(codec: Codec<T>) -> Self {
        Self(codec.known)
    }
}

impl<T: DeserializeOwned + 'static> Codec<T> {
    /// The type's own choice.
    pub(crate) fn of() -> Self {
        Self::chosen(None)
    }

    /// This format, whatever the type says; `None`: its own choice.
    pub(crate) fn chosen(forced: Option<Format>) -> Self {
        let key = (TypeId::of::<T>(), forced);
        let recent = RECENT.with_borrow(|(recent, _)| recent.iter().flatten().find(|(of, _)| *of == key).copied());
        let known = recent.map_or_else(|| Self::looked_up(key), |(_, known)| known);
        Self { known, datum: PhantomData }
    }

    #[cold]
    fn looked_up(key: Key) -> &'static Known {
        let table = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let found = table().get(&key).copied();
        let known = found.unwrap_or_else(|| {
            // Outside the lock: it runs the type's own code. Whoever is second takes what the first has put there.
            let known = Known::new::<T>(key.1);
            table().entry(key).or_insert_with(|| Box::leak(Box::new(known)))
        });
        RECENT.with_borrow_mut(|(recent, next)| {
            recent[*next] = Some((key, known));
            *next = (*next + 1) % RECENTLY;
        });
        known
    }

    /// The type's shape.
    pub(crate) fn schema(self) -> &'static Schema {
        &self.known.schema
    }

    /// What both ends must agree on: the shape, and what the declaration says of it where the shape has parts that cannot be
    /// looked into; and the format, if it is not the type's own choice.
    pub(crate) fn fingerprint(self, declared: Option<[u8; 32]>) -> [u8; 32] {
        let known = self.known;
        let declared = declared.filter(|_| !known.schema.is_complete());
        if declared.is_none() && known.forced.is_none() {
            return known.fingerprint;
        }
        let mut hasher = blake3::Hasher::new_derive_key("mosaik schema, declared 1");
        hasher.update(&known.fingerprint);
        hasher.update(&declared.unwrap_or_default());
        hasher.update(&[known.forced.map_or(u8::MAX, Format::byte)]);
        *hasher.finalize().as_bytes()
    }

    /// The fingerprint that the ends of a stream compare. A type without a container of its own, such as a number or text, has
    /// none and matches anything. Of types that may grow it says only that they may; their shapes are compared besides.
    pub(crate) fn compared(self, declared: Option<[u8; 32]>, evolve: Evolve) -> Option<[u8; 32]> {
        if evolve == Evolve::Append {
            return Some(blake3::derive_key("mosaik schema, append 1", &[]));
        }
        let named = declared.is_some() || self.known.forced.is_some() || self.known.schema.name().is_some();
        named.then(|| self.fingerprint(declared))
    }

    /// Why values are not written with postcard; `None`: those that it carries are.
    pub(crate) fn unproven(self) -> Option<&'static str> {
        self.known.plan.as_ref().err().map(String::as_str)
    }

    /// Reads a value that is the whole of the bytes.
    #[inline]
    pub(crate) fn decode(self, format: Format, bytes: &[u8]) -> Result<T, DecodeError> {
        match format {
            Format::Postcard => {
                if let Err(why) = &self.known.plan {
                    return Err(DecodeError::Unproven(why));
                }
                match postcard::take_from_bytes(bytes) {
                    Ok((value, [])) => Ok(value),
                    Ok((_, rest)) => Err(DecodeError::LeftOver(rest.len())),
                    Err(error) => Err(DecodeError::Postcard(error)),
                }
            }
            Format::MessagePack => format::read(bytes).map_err(|(error, _)| error),
        }
    }

    /// As [`decode`](Self::decode); on an error in words and with the place.
    #[cold]
    fn decode_at(format: Format, bytes: &[u8]) -> Result<T, (String, usize)> {
        match format {
            // Bytes that are left over show as a difference: the value is written with fewer.
            Format::Postcard => {
                let mut deserializer = postcard::Deserializer::from_bytes(bytes);
                let value = T::deserialize(&mut deserializer);
                let left = deserializer.finalize().map_or(0, <[u8]>::len);
                value.map_err(|error| (error.to_string(), bytes.len() - left))
            }
            Format::MessagePack => format::read(bytes).map_err(|(error, at)| (error.to_string(), at)),
        }
    }

    /// Reads what [`append_marked`](Self::append_marked) wrote.
    pub(crate) fn decode_marked(self, bytes: &[u8]) -> Result<T, DecodeError> {
        let (first, rest) = bytes.split_first().ok_or(DecodeError::Format)?;
        self.decode(Format::from_byte(*first).ok_or(DecodeError::Format)?, rest)
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Codec<T> {
    /// Appends a value, of at most so many bytes. On an error the buffer is as before.
    #[inline]
    pub(crate) fn append(self, value: &T, out: &mut Vec<u8>, limit: usize) -> Result<Format, EncodeError> {
        let start = out.len();
        let format = self.write(value, out, limit)?;
        if self.known.seen.load(Ordering::Relaxed) < FIRST || is_due() {
            self.read_back(format, out, start)?;
        }
        Ok(format)
    }

    #[cold]
    fn message_pack(self, value: &T, out: &mut Vec<u8>, limit: usize, tried: bool) -> Result<Format, EncodeError> {
        if let Some(place) = &self.known.twice_nil {
            let name = self.known.name;
            return Err(EncodeError::Refused(format!(
                "{name} cannot be written: {place} is an option whose content may be nothing, too, and MessagePack has one nil for \
                 both: make it an enum of three variants"
            )));
        }
        let start = out.len();
        let mut sink = Sink::new(out, limit);
        let result = format::write(value, &mut sink);
        let size = sink.size();
        let Err(error) = result else {
            if size <= limit {
                return Ok(Format::MessagePack);
            }
            out.truncate(start);
            return Err(EncodeError::TooLarge(size));
        };
        let known = self.known;
        let at = locate::locate(&known.schema, Format::MessagePack, &out[start..], usize::MAX);
        out.truncate(start);
        let too = match self.unproven() {
            Some(why) => format!("; postcard: {why}"),
            None if tried => "; postcard: this value is written with other parts than it is read with".to_owned(),
            None => String::new(),
        };
        Err(EncodeError::Refused(format!("{} cannot be written, at {at}: MessagePack: {error}{too}", known.name)))
    }

    /// Whether what was written from `start` on is read as it was meant.
    #[cold]
    fn read_back(self, format: Format, out: &mut Vec<u8>, start: usize) -> Result<(), EncodeError> {
        let known = self.known;
        if let Some(refused) = known.refused.get() {
            out.truncate(start);
            return Err(EncodeError::Refused(refused.clone()));
        }
        let again = || {
            let value = Self::decode_at(format, &out[start..])?;
            let mut again = Vec::with_capacity(out.len() - start);
            let mut sink = Sink::new(&mut again, usize::MAX);
            let (written, size) = match (format, &known.plan) {
                (Format::Postcard, Ok(plan)) => {
                    let (written, size) = sink.postcard(&plan.checked(&value));
                    (written.map_err(|error| error.to_string()), size)
                }
                _ => {
                    let written = format::write(&value, &mut sink);
                    (written.map_err(|error| error.to_string()), sink.size())
                }
            };
            written.map(|()| again).map_err(|error| (error, size))
        };
        let Err(differs) = compare(&out[start..], again) else {
            known.seen.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        let place = locate::locate(&known.schema, format, &out[start..], differs.at);
        let text = format!(
            "{} is refused: a value written with {format} is not read back as it was, at {place}: {}. Its serde code writes \
             what it does not read: make the attributes of that field the same both ways, or keep the field in another form",
            known.name, differs.what,
        );
        // Every value from now on is refused: none is sent that may arrive as another one.
        known.seen.store(0, Ordering::Relaxed);
        let refused = known.refused.get_or_init(|| text).clone();
        tracing::error!(error = refused, "a type is refused");
        out.truncate(start);
        Err(EncodeError::Refused(refused))
    }

    /// As [`append`](Self::append), but nothing is read back: what comes of it depends on the value alone, and not on what was
    /// found of others before. For what all members of a group have to write alike.
    #[inline]
    pub(crate) fn write(self, value: &T, out: &mut Vec<u8>, limit: usize) -> Result<Format, EncodeError> {
        let Ok(plan) = &self.known.plan else { return self.message_pack(value, out, limit, false) };
        let start = out.len();
        let (written, size) = Sink::new(out, limit).postcard(&plan.checked(value));
        match written {
            Ok(()) if size <= limit => Ok(Format::Postcard),
            Ok(()) => {
                out.truncate(start);
                Err(EncodeError::TooLarge(size))
            }
            Err(_) => {
                out.truncate(start);
                self.message_pack(value, out, limit, true)
            }
        }
    }

    /// Appends a byte that tells the format, and the value.
    pub(crate) fn append_marked(self, value: &T, out: &mut Vec<u8>, limit: usize) -> Result<(), EncodeError> {
        let start = out.len();
        out.push(0);
        let written = self.append(value, out, limit);
        match written {
            Ok(format) => out[start] = format.byte(),
            Err(_) => out.truncate(start),
        }
        written.map(drop)
    }

    /// A value with the byte that tells its format.
    pub(crate) fn marked(self, value: &T, limit: usize) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::new();
        self.append_marked(value, &mut out, limit)?;
        Ok(out)
    }

    /// A whole state with the byte that tells its format; not read back, which would cost as much again.
    pub(crate) fn whole(self, state: &T) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::new();
        self.write_marked(state, &mut out)?;
        Ok(out)
    }

    /// As [`append_marked`](Self::append_marked), by [`write`](Self::write).
    pub(crate) fn write_marked(self, value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        out.push(0);
        let written = self.write(value, out, usize::MAX);
        match written {
            Ok(format) => out[start] = format.byte(),
            Err(_) => out.truncate(start),
        }
        written.map(drop)
    }
}

impl Known {
    fn new<T: DeserializeOwned>(forced: Option<Format>) -> Self {
        let Described { schema, known, unproven } = Described::of::<T>();
        let plan = match (forced, unproven) {
            (Some(Format::MessagePack), _) => Err("the declaration asks for MessagePack".to_owned()),
            (None, Some(why)) => Err(why),
            (Some(Format::Postcard), _) | (None, None) => Ok(Plan::new(known)),
        };
        let fingerprint = schema.fingerprint();
        let (seen, refused, twice_nil) = (AtomicU32::new(0), OnceLock::new(), schema.twice_nil());
        Self { name: type_name::<T>(), schema, twice_nil, fingerprint, forced, plan, seen, refused }
    }
}

/// Whether it is time for this thread to read a value back.
#[inline]
fn is_due() -> bool {
    let unchecked = UNCHECKED.get() + 1;
    UNCHECKED.set(if unchecked >= ONE_IN { 0 } else { unchecked });
    unchecked >= ONE_IN
}

#[cfg(test)]
mod tests;
