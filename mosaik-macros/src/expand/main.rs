//! `#[mosaik::main]`: the user's `main` inside the real one.

use proc_macro2::TokenStream;
use quote::quote;

use crate::model::Main;

pub(crate) fn main(main: &Main, item: TokenStream) -> TokenStream {
    let Main { runtime, docs, .. } = main;
    let name = main.name.as_ref().map_or_else(|| quote!(::core::env!("CARGO_PKG_NAME")), |name| quote!(#name));
    let tags = super::tags(runtime, &main.tags);
    quote! {
        fn main() -> ::std::process::ExitCode {
            #item

            #runtime::__private::main_with(
                #runtime::__private::Program {
                    name: #name,
                    doc: #docs,
                    version: ::core::option_env!("CARGO_PKG_VERSION"),
                    tags: #tags,
                },
                main,
            )
        }
    }
}
