//! What is emitted beside the errors when a declaration cannot be expanded: inert impls of the traits that other code
//! will ask for, so that one mistake is reported as one error. They are never run, because the program does not compile.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Generics, Ident};

use crate::{expand, model};

/// The serde impls stay real: a field whose type cannot be serialised is an error of its own.
pub(crate) fn stream(stream: &model::Stream, item: TokenStream) -> TokenStream {
    let runtime = &stream.runtime;
    let item = expand::with_serde(stream, item);
    let inert = inert(
        &stream.ident,
        &stream.generics,
        &quote!(#runtime::node::StreamType),
        &quote!(#runtime::primitives::Datum),
        &quote!(const STREAM: #runtime::node::StreamDecl = #runtime::node::StreamDecl::new("", "", "", "");),
    );
    quote!(#item #inert)
}

pub(crate) fn node(node: &model::Node) -> TokenStream {
    let runtime = &node.runtime;
    // A name of its own: two broken roles must not be reported as having the same one.
    let name = node.ident.to_string();
    inert(
        &node.ident,
        &node.generics,
        &quote!(#runtime::node::Role),
        &quote!(::core::marker::Send + 'static),
        &quote! {
            const ROLE: #runtime::node::RoleDecl = #runtime::node::RoleDecl {
                name: #name, ty: "", doc: "", tags: &[], clears: &[], attest: ::core::option::Option::None, args: &[],
                endpoints: &[],
            };
            async fn open(
                _: &mut #runtime::node::Setup<'_>,
            ) -> ::core::result::Result<Self, #runtime::node::RoleError> {
                ::core::unreachable!()
            }
        },
    )
}

pub(crate) fn group(group: &model::Group) -> TokenStream {
    let runtime = &group.runtime;
    let name = group.ident.to_string();
    inert(
        &group.ident,
        &group.generics,
        &quote!(#runtime::node::GroupType),
        &quote!(::core::marker::Send + 'static),
        &quote! {
            const GROUP: #runtime::node::GroupDecl = #runtime::node::GroupDecl {
                name: #name, ty: "", doc: "", key: #runtime::node::KeyDecl::Value, size: ::core::option::Option::None,
                member: &[], call: &[], label: ::core::option::Option::None,
            };
            fn key() -> ::core::result::Result<#runtime::groups::GroupKey, #runtime::node::KeyError> {
                ::core::unreachable!()
            }
            fn initial() -> Self {
                ::core::unreachable!()
            }
        },
    )
}

fn inert(
    ident: &Ident,
    generics: &Generics,
    of: &TokenStream,
    supertraits: &TokenStream,
    members: &TokenStream,
) -> TokenStream {
    let (parameters, arguments, bounds) = generics.split_for_impl();
    let bounds = match bounds {
        None => quote!(where),
        Some(bounds) if bounds.predicates.is_empty() || bounds.predicates.trailing_punct() => quote!(#bounds),
        Some(bounds) => quote!(#bounds,),
    };
    quote! {
        #[automatically_derived]
        impl #parameters #of for #ident #arguments #bounds Self: #supertraits {
            #members
        }
    }
}
