//! Rules for `#[mosaik::main]`.

use syn::FnArg;

use crate::{
    diag::Diag,
    model::{Main, Name},
};

pub(crate) fn main(main: &Main, diag: &Diag) {
    let function = &main.function;
    if let Some(name) = &main.name {
        super::command_name(&Name { text: name.value(), span: name.span() }, "a program", diag);
    }
    super::tags(&main.tags, diag);
    if function.ident != "main" {
        diag.error(&function.ident, "#[mosaik::main] goes on `async fn main(net: Network)`");
    }
    if function.asyncness.is_none() {
        diag.error(function.fn_token, "`main` is async here: `async fn main(net: Network)`");
    }
    super::no_generics(&function.generics, "`main` has no generic parameters", diag);
    let mut inputs = function.inputs.iter();
    match inputs.next() {
        None => diag
            .error_at(main.at, "`main` takes the node that was set up from the flags: `async fn main(net: Network)`"),
        Some(FnArg::Receiver(receiver)) => diag.error(receiver, "`main` is a free function"),
        Some(FnArg::Typed(_)) => {}
    }
    for extra in inputs {
        diag.error(extra, "`main` takes the network and nothing else");
    }
}
