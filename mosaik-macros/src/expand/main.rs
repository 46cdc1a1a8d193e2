//! `#[mosaik::main]`: the user's `main` inside the real one.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{ReturnType, spanned::Spanned};

use crate::model::Main;

pub(crate) fn main(main: &Main, item: &TokenStream) -> TokenStream {
    let Main { runtime, docs, .. } = main;
    let name = main.name.as_ref().map_or_else(|| quote!(::core::env!("CARGO_PKG_NAME")), |name| quote!(#name));
    let tags = super::tags(runtime, &main.tags);
    // In a block of its own: the user's `main` must not see the constant.
    let program = quote! {{
        const PROGRAM: #runtime::__private::Program = #runtime::__private::Program {
            name: #name,
            doc: #docs,
            version: ::core::option_env!("CARGO_PKG_VERSION"),
            tags: #tags,
        };
        PROGRAM
    }};
    let span = match &main.function.output {
        ReturnType::Default => main.function.ident.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    let runtime = super::at(runtime, span);
    let call = quote_spanned!(span=> #runtime::__private::main_with(#program, main));
    quote! {
        fn main() -> ::std::process::ExitCode {
            #item

            #call
        }
    }
}
