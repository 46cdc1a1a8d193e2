//! A test of an app: `async fn name(cluster: Cluster<App>)`.

use proc_macro2::{Span, TokenStream};
use syn::{Expr, ExprPath, Ident, Signature};

pub(crate) struct Test {
    pub(crate) runtime: TokenStream,
    pub(crate) function: Signature,
    /// How many seeds it is run with.
    pub(crate) seeds: Option<Expr>,
    /// Kinds of faults: variants of the runtime's `FaultKind`, with the words that they were written as.
    pub(crate) faults: Vec<(&'static str, Ident)>,
    /// How many nodes there are of a role.
    pub(crate) with: Vec<(ExprPath, Expr)>,
    pub(crate) durable: bool,
    /// Where the attribute stands.
    pub(crate) at: Span,
}
