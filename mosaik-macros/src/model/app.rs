//! An application: a name and its roles.

use proc_macro2::TokenStream;
use syn::{Ident, Type};

use super::Name;

pub(crate) struct App {
    pub(crate) runtime: TokenStream,
    pub(crate) ident: Ident,
    pub(crate) name: Name,
    pub(crate) docs: String,
    pub(crate) roles: Vec<Type>,
}
