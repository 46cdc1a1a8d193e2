//! `#[mosaik::store]`: the impl of the view in terms of the method `fold`, the declaration, and the two builders.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use crate::{
    model::{Fold, Store},
    tokens::canonical,
};

pub(crate) fn store(store: &Store) -> TokenStream {
    let Store { runtime, ty, ident, docs, .. } = store;
    let name = &store.name.text;
    let version = store.version.as_ref().map(|version| quote!(const VERSION: u32 = #version;));
    let delta = store.fold.as_ref().and_then(|fold| fold.delta.as_ref());
    let delta = delta.map_or_else(|| quote!(()), |delta| quote!(#delta));
    let shape = canonical(delta.clone());
    let fold = match &store.fold {
        Some(fold) if !fold.broken => call(fold),
        _ => quote!(::core::unreachable!()),
    };
    // What the state lacks, such as `Clone`, is reported on its name.
    let moved = super::at(runtime, ty.span());
    let view = quote_spanned!(ty.span()=> #moved::stores::View);
    quote! {
        #[automatically_derived]
        #[allow(unused_variables, private_interfaces)]
        impl #view for #ty {
            type Delta = #delta;
            const NAME: &'static str = #name;
            #version
            const SCHEMA: ::core::option::Option<[u8; 32]> =
                ::core::option::Option::Some(*#runtime::node::Schema::of(#shape).as_bytes());

            fn fold(&mut self, delta: Self::Delta) {
                #fold
            }
        }

        #[automatically_derived]
        impl #runtime::node::StoreType for #ty {
            const STORE: #runtime::node::StoreDecl = #runtime::node::StoreDecl::new(
                #name,
                ::core::stringify!(#ident),
                #docs,
                #shape,
                <Self as #runtime::stores::View>::VERSION,
            );
        }

        #[automatically_derived]
        #[allow(dead_code)]
        impl #ty {
            /// Configures the primary of this store on a node.
            pub fn primary(net: &#runtime::Network) -> #runtime::stores::PrimaryBuilder<Self> {
                #runtime::__private::primary::<Self>(net)
            }

            /// Configures a replica of this store on a node.
            pub fn replica(net: &#runtime::Network) -> #runtime::stores::ReplicaBuilder<Self> {
                #runtime::__private::replica::<Self>(net)
            }
        }
    }
}

/// The inherent method, which comes before that of the trait.
fn call(fold: &Fold) -> TokenStream {
    let ident = &fold.signature.ident;
    quote!(Self::#ident(self, delta))
}
