//! A hand-written `async fn main(net: Network)`.

use proc_macro2::{Span, TokenStream};
use syn::{Expr, LitStr, Signature};

pub(crate) struct Main {
    pub(crate) runtime: TokenStream,
    /// `name = ".."`; without it the package's name.
    pub(crate) name: Option<LitStr>,
    pub(crate) tags: Vec<Expr>,
    pub(crate) docs: String,
    pub(crate) function: Signature,
    /// Where the attribute stands.
    pub(crate) at: Span,
}
