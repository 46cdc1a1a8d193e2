//! A declared stream: a struct or enum whose values travel.

use proc_macro2::TokenStream;
use syn::{Generics, Ident};

use super::Name;

pub(crate) struct Stream {
    pub(crate) runtime: TokenStream,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    /// The stream's name: `name = ".."`, else the `#[serde(rename)]` below the attribute, else the type's identifier.
    pub(crate) name: Name,
    pub(crate) docs: String,
    /// Serde derives that we add.
    pub(crate) derive_serialize: bool,
    pub(crate) derive_deserialize: bool,
    /// Whether `#[serde(crate, rename)]` can be added: some serde derive sees the item after us.
    pub(crate) serde_follows: bool,
    /// The user already wrote `#[serde(rename = "..")]` or `#[serde(crate = "..")]` below the attribute.
    pub(crate) has_rename: bool,
    pub(crate) has_crate: bool,
    /// The declared shape in canonical text; see `parse::stream::shape`.
    pub(crate) shape: String,
}
