//! `#[mosaik::group]`: the declaration of the group, its key, and the machine that a member begins with.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use crate::model::{Group, Key};

pub(crate) fn group(group: &Group) -> TokenStream {
    let Group { runtime, ident, docs, member, call, .. } = group;
    let name = &group.name.text;
    let size = match &group.size {
        None => quote!(::core::option::Option::None),
        Some(size) => quote_spanned!(size.span()=> ::core::option::Option::Some(#size)),
    };
    let label = match &group.label {
        None => quote!(::core::option::Option::None),
        Some(label) => quote!(::core::option::Option::Some(#label)),
    };
    let (declared, key) = key(runtime, group.key.as_ref(), name);
    let initial = match &group.initial {
        Some(initial) => quote!(#initial),
        None => {
            let runtime = super::at(runtime, ident.span());
            quote_spanned!(ident.span()=> #runtime::__private::initial::<#ident>())
        }
    };
    quote! {
        #[automatically_derived]
        impl #runtime::node::GroupType for #ident {
            const GROUP: #runtime::node::GroupDecl = #runtime::node::GroupDecl {
                name: #name,
                ty: ::core::stringify!(#ident),
                doc: #docs,
                key: #runtime::node::KeyDecl::#declared,
                size: #size,
                member: &[#(#member),*],
                call: &[#(#call),*],
                label: #label,
            };

            fn key() -> ::core::result::Result<#runtime::groups::GroupKey, #runtime::node::KeyError> {
                #key
            }

            fn initial() -> Self {
                #initial
            }
        }
    }
}

/// Where the key comes from, as data and as code.
fn key(runtime: &TokenStream, key: Option<&Key>, group: &str) -> (TokenStream, TokenStream) {
    match key {
        Some(Key::Env(variable)) => {
            let span = variable.span();
            let moved = super::at(runtime, span);
            (
                quote_spanned!(span=> Env(#variable)),
                quote_spanned!(span=> #moved::__private::key_from_env(#group, #variable)),
            )
        }
        Some(Key::File(path)) => {
            let span = path.span();
            let moved = super::at(runtime, span);
            (quote_spanned!(span=> File(#path)), quote_spanned!(span=> #moved::__private::key_from_file(#group, #path)))
        }
        Some(Key::Secret(secret)) => {
            let moved = super::at(runtime, secret.span());
            let key = quote_spanned!(secret.span()=> #moved::groups::GroupKey::from_secret(#secret));
            (quote!(Secret), quote!(::core::result::Result::Ok(#key)))
        }
        Some(Key::Value(value)) => {
            let key = quote!(let key: #runtime::groups::GroupKey = #value;);
            (quote!(Value), quote!(#key ::core::result::Result::Ok(key)))
        }
        // That it is missing has been reported.
        None => (quote!(Value), quote!(::core::unreachable!())),
    }
}
