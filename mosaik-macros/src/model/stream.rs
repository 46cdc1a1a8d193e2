//! A declared stream: a struct or enum whose values travel.

use proc_macro2::TokenStream;
use syn::{Expr, Generics, Ident, LitStr, Type};

use super::Name;

#[expect(clippy::struct_excessive_bools, reason = "each is a key of the attribute")]
pub(crate) struct Stream {
    pub(crate) runtime: TokenStream,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    /// The stream's name: `name = ".."`, else the `#[serde(rename)]` below the attribute, else the type's identifier.
    pub(crate) name: Name,
    pub(crate) docs: String,
    /// The type of the items, if that is not the declared one.
    pub(crate) of: Option<Type>,
    /// The format that every item is written in: a variant of the runtime's `Format`.
    pub(crate) codec: Option<&'static str>,
    /// How the type may change from one program to the next: a variant of the runtime's `Evolve`.
    pub(crate) evolve: Option<&'static str>,
    /// Every producer publishes the same sequence.
    pub(crate) replicated: bool,
    /// Whether a serde derive sees the item after us.
    pub(crate) follows: bool,
    /// The serde derives that we add.
    pub(crate) derives: Vec<&'static str>,
    /// Whether we add `#[serde(crate = "..")]`.
    pub(crate) sets_crate: bool,
    /// Whether we add `#[serde(rename = "..")]`.
    pub(crate) sets_rename: bool,
    /// What gives the key of an item.
    pub(crate) key: Option<Expr>,
    pub(crate) retain: Option<Retain>,
    /// The roles and grants of which one is needed to send items, and to receive them.
    pub(crate) produce: Vec<LitStr>,
    pub(crate) consume: Vec<LitStr>,
    /// Only roles that clear it receive what is sent.
    pub(crate) label: Option<LitStr>,
    /// The machine of the group that owns the stream.
    pub(crate) owner: Option<Type>,
    /// The declared shape in canonical text; see `parse::stream::shape`.
    pub(crate) shape: String,
}

/// What a producer keeps for late joiners.
pub(crate) enum Retain {
    Last(Expr),
    LastPerKey(Expr),
    Keyframe(Expr),
    Window {
        bytes: Expr,
        /// Nanoseconds.
        age: u64,
    },
}
