//! `#[mosaik::app]`: the graph as a constant that is checked at compile time, and the generated main.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use crate::model::App;

pub(crate) fn app(app: &App) -> TokenStream {
    let App { runtime, ident, docs, .. } = app;
    let name = &app.name.text;
    let roles = app.roles.iter().map(|role| {
        let runtime = super::at(runtime, role.span());
        quote_spanned!(role.span()=> #runtime::node::RoleEntry::of::<#role>())
    });
    let count = app.roles.len();
    let checks = app.roles.iter().enumerate().map(|(index, role)| {
        let runtime = super::at(runtime, role.span());
        quote_spanned!(role.span()=> const _: () = #runtime::__private::check_role(GRAPH, #index, CLASHES[#index]);)
    });
    quote! {
        #[automatically_derived]
        impl #runtime::node::App for #ident {
            const GRAPH: #runtime::node::Graph = #runtime::node::Graph {
                app: #name,
                doc: #docs,
                version: ::core::option_env!("CARGO_PKG_VERSION"),
                roles: &[#(#roles),*],
            };
        }

        const _: () = {
            const GRAPH: &#runtime::node::Graph = &<#ident as #runtime::node::App>::GRAPH;
            const CLASHES: [::core::option::Option<#runtime::__private::Clash>; #count] =
                #runtime::__private::clashes::<#count, { #runtime::__private::slots(GRAPH) }>(GRAPH);
            #(#checks)*
        };

        // Kept by the linker, for who looks at the program without running it.
        #[cfg(target_os = "linux")]
        const _: () = {
            const GRAPH: &#runtime::node::Graph = &<#ident as #runtime::node::App>::GRAPH;
            #[used]
            #[unsafe(link_section = "mosaik")]
            static RECORD: [::core::primitive::u8; #runtime::__private::record_size(GRAPH)] = #runtime::__private::record(GRAPH);
        };

        #[automatically_derived]
        impl #ident {
            /// Runs the command line of this app to its end.
            pub fn main() -> ::std::process::ExitCode {
                #runtime::node::main::<Self>()
            }
        }
    }
}
