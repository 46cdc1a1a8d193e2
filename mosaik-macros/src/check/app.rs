//! Rules for `#[mosaik::app]`. That role names differ and that streams of one name have one shape is checked by a
//! constant in the expansion, where the names are known.

use syn::Type;

use crate::{diag::Diag, model::App, tokens::canonical};

pub(crate) fn app(app: &mut App, diag: &Diag) {
    super::command_name(&app.name, "an app", diag);
    let mut seen = Vec::new();
    app.roles.retain(|role| {
        if !matches!(role, Type::Path(_)) {
            diag.error(role, "a role is a struct with #[mosaik::node]");
            return false;
        }
        let text = canonical(quote::quote!(#role));
        if seen.contains(&text) {
            diag.error(role, format!("`{text}` is listed twice"));
            return false;
        }
        seen.push(text);
        true
    });
}
