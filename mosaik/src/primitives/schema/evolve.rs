//! Types that may grow: whether what one program writes by names can be read by another one, although their types differ.
//!
//! The rule: what both have is alike, as deep as it goes. A field that only the reader has is one that it can do without
//! (`#[serde(default)]`, an `Option`). Fields and variants that only the writer has do not matter: the reader passes the fields
//! over, and an item with such a variant cannot be decoded there, which is counted and told. Order does not matter.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Described, Difference, Schema, compare::Reader};
use crate::primitives::Format;

/// How the items of a stream, or the deltas and the state of a store, may change from one program to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Evolve {
    /// Not at all: both ends have the same shape.
    #[default]
    Strict,
    /// New fields that the reader can do without, and new variants, both ways. Items are written with `MessagePack`.
    Append,
}

impl Evolve {
    /// The format of the items where this one was chosen: what grows is written by names.
    pub(crate) fn format(self, chosen: Option<Format>) -> Option<Format> {
        match self {
            Self::Strict => chosen,
            Self::Append => Some(Format::MessagePack),
        }
    }
}

/// A field of a struct or of a variant: the node, the variant's place (of a struct 0), the field's place.
pub(super) type Field = (u32, u32, u32);

/// What a reader says of a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Need {
    /// It may be missing.
    Optional,
    /// It may be written under this name.
    Alias(String),
}

/// The shape of a type together with what a reader of it can do without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Readable {
    pub(crate) schema: Schema,
    pub(super) needs: Vec<(Field, Need)>,
}

impl Readable {
    pub(crate) fn of<T: DeserializeOwned>() -> Self {
        let (Described { schema, .. }, needs) = Described::with_needs::<T>();
        Self { schema, needs }
    }

    /// What keeps this reader from reading what is written with the other shape. `swapped`: the writer is this side, in the
    /// words of the difference.
    pub(crate) fn unreadable(&self, writer: &Schema, swapped: bool) -> Option<Difference> {
        let difference = self.schema.compare(writer, Some(Reader { needs: &self.needs, keeps_all: false }))?;
        let Difference { path, ours, theirs } = difference;
        let (ours, theirs) = if swapped { (theirs, ours) } else { (ours, theirs) };
        Some(Difference { path, ours, theirs })
    }

    /// What keeps this reader from writing again what was written with the other shape: it cannot read it, or would lose a field.
    pub(crate) fn loses(&self, writer: &Schema) -> Option<Difference> {
        self.schema.compare(writer, Some(Reader { needs: &self.needs, keeps_all: true }))
    }
}
