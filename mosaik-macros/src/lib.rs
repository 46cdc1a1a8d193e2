//! The attributes of mosaik. Use them through the `mosaik` crate, which re-exports them: `#[mosaik::stream]`.
//!
//! One declaration goes through one room after the other: `parse` reads tokens into the `model`, `check` judges it,
//! `expand` prints code; `diag` collects what is wrong on the way and `fallback` stands in for what could not be
//! expanded. The user's item is emitted again in every case, token for token, without our helper attributes; a stream's gets
//! serde attributes, on the type and on its fields of bytes.

mod check;
mod derive;
mod diag;
mod expand;
mod fallback;
mod model;
mod parse;
#[cfg(test)]
mod snapshots;
mod tokens;

use proc_macro::TokenStream;
use quote::quote;

use crate::{derive::Which, diag::Diag};

#[doc = include_str!("../docs/stream.md")]
#[proc_macro_attribute]
pub fn stream(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let stream = parse::stream(attribute.into(), item.clone(), &diag);
    if let Some(stream) = &stream {
        check::stream(stream, &diag);
    }
    let (broken, errors) = (diag.count() > 0, diag.finish());
    let expansion = match stream {
        None => item,
        Some(stream) if broken && !stream.generics.params.is_empty() => fallback::stream(&stream, item),
        Some(stream) => expand::stream(&stream, item),
    };
    quote!(#errors #expansion).into()
}

#[doc = include_str!("../docs/node.md")]
#[proc_macro_attribute]
pub fn node(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let node = parse::node(attribute.into(), item.clone(), &diag);
    if let Some(node) = &node {
        check::node(node, &diag);
    }
    let (broken, errors) = (diag.count() > 0, diag.finish());
    let generated = match node {
        None => proc_macro2::TokenStream::new(),
        Some(node) if broken => fallback::node(&node),
        Some(node) => expand::node(&node),
    };
    let item = tokens::without_helpers(item, &|name| tokens::FIELD_HELPERS.contains(&name));
    quote!(#errors #item #generated).into()
}

#[doc = include_str!("../docs/handlers.md")]
#[proc_macro_attribute]
pub fn handlers(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let mut handlers = parse::handlers(attribute.into(), item.clone(), &diag);
    if let Some(handlers) = &mut handlers {
        check::handlers(handlers, &diag);
    }
    let errors = diag.finish();
    let generated = handlers.filter(|each| each.generics.params.is_empty()).map(|each| expand::handlers(&each));
    let misspelt = parse::misspelt_helpers(item.clone(), tokens::METHOD_HELPERS);
    let is_helper = |name: &str| tokens::METHOD_HELPERS.contains(&name) || misspelt.iter().any(|word| word == name);
    let item = tokens::without_helpers(item, &is_helper);
    quote!(#errors #item #generated).into()
}

#[doc = include_str!("../docs/group.md")]
#[proc_macro_attribute]
pub fn group(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let group = parse::group(attribute.into(), item.clone(), &diag);
    if let Some(group) = &group {
        check::group(group, &diag);
    }
    let (broken, errors) = (diag.count() > 0, diag.finish());
    let generated = match group {
        None => proc_macro2::TokenStream::new(),
        Some(group) if broken => fallback::group(&group),
        Some(group) => expand::group(&group),
    };
    let item = tokens::without_field_helpers(item);
    quote!(#errors #item #generated).into()
}

#[doc = include_str!("../docs/state_machine.md")]
#[proc_macro_attribute]
pub fn state_machine(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let mut machine = parse::machine(attribute.into(), item.clone(), &diag);
    if let Some(machine) = &mut machine {
        check::machine(machine, &diag);
    }
    let errors = diag.finish();
    let machine = machine.filter(|each| each.generics.params.is_empty());
    let drawn = machine.as_ref().and_then(expand::documentation);
    let generated = machine.map(|each| expand::machine(&each));
    let misspelt = parse::misspelt_helpers(item.clone(), tokens::MACHINE_HELPERS);
    let is_helper = |name: &str| tokens::MACHINE_HELPERS.contains(&name) || misspelt.iter().any(|word| word == name);
    let item = tokens::without_helpers(item, &is_helper);
    quote!(#errors #drawn #item #generated).into()
}

#[doc = include_str!("../docs/derive_state_machine.md")]
#[proc_macro_derive(StateMachine, attributes(state_machine, mosaik))]
pub fn derive_state_machine(item: TokenStream) -> TokenStream {
    let diag = Diag::new();
    let mut derived = parse::derived(item.into(), &diag);
    if let Some(derived) = &mut derived {
        check::derived(derived, &diag);
    }
    let errors = diag.finish();
    let expansion = derived.filter(|each| each.generics.params.is_empty()).map(|each| expand::derived(&each));
    quote!(#errors #expansion).into()
}

#[doc = include_str!("../docs/store.md")]
#[proc_macro_attribute]
pub fn store(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let mut store = parse::store(attribute.into(), item.clone(), &diag);
    if let Some(store) = &mut store {
        check::store(store, &diag);
    }
    let errors = diag.finish();
    let generated = store.filter(|each| each.generics.params.is_empty()).map(|each| expand::store(&each));
    let item = tokens::without_helpers(item, &|name| tokens::FIELD_HELPERS.contains(&name));
    quote!(#errors #item #generated).into()
}

#[doc = include_str!("../docs/app.md")]
#[proc_macro_attribute]
pub fn app(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let mut app = parse::app(attribute.into(), item.clone(), &diag);
    if let Some(app) = &mut app {
        check::app(app, &diag);
    }
    let errors = diag.finish();
    let generated = app.map(|app| expand::app(&app));
    quote!(#errors #item #generated).into()
}

#[doc = include_str!("../docs/main.md")]
#[proc_macro_attribute]
pub fn main(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let main = parse::main(attribute.into(), item.clone(), &diag);
    if let Some(main) = &main {
        check::main(main, &diag);
    }
    let (broken, errors) = (diag.count() > 0, diag.finish());
    let expansion = match main {
        Some(main) if !broken => expand::main(&main, &item),
        // The function stays, for the editor; a real `main` beside it keeps the compiler from missing one.
        _ => quote!(const _: () = { #[allow(dead_code)] #item }; fn main() {}),
    };
    quote!(#errors #expansion).into()
}

#[doc = include_str!("../docs/test.md")]
#[proc_macro_attribute]
pub fn test(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let test = parse::test(attribute.into(), item.clone(), &diag);
    if let Some(test) = &test {
        check::test(test, &diag);
    }
    let (broken, errors) = (diag.count() > 0, diag.finish());
    let expansion = match test {
        Some(test) if !broken => expand::test(&test, item),
        // The function stays, for the editor.
        _ => quote!(const _: () = { #[allow(dead_code)] #item };),
    };
    quote!(#errors #expansion).into()
}

/// Serde's `Serialize` for crates that do not depend on serde; part of the prelude. All `#[serde(..)]` attributes work,
/// except `remote`. With a dependency on serde, its own derive does as well.
#[proc_macro_derive(Serialize, attributes(serde))]
pub fn serialize(item: TokenStream) -> TokenStream {
    derived(Which::Serialize, item)
}

/// Serde's `Deserialize` for crates that do not depend on serde; part of the prelude. All `#[serde(..)]` attributes work,
/// except `remote`; a generic type whose parameter needs more than `Deserialize`, as with `#[serde(default)]`, says so in a
/// `where` clause. With a dependency on serde, its own derive does as well.
#[proc_macro_derive(Deserialize, attributes(serde))]
pub fn deserialize(item: TokenStream) -> TokenStream {
    derived(Which::Deserialize, item)
}

fn derived(which: Which, item: TokenStream) -> TokenStream {
    let diag = Diag::new();
    let expansion = derive::derive(which, item.into(), &diag);
    let errors = diag.finish();
    quote!(#errors #expansion).into()
}
