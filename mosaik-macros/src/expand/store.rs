//! `#[mosaik::store]`: the impl of the view in terms of the method `fold`, the declaration, and the two builders.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use crate::{
    model::{Fold, Store},
    tokens::canonical,
};

pub(crate) fn store(store: &Store) -> TokenStream {
    let Store { runtime, ty, ident, docs, .. } = store;
    let name = &store.name.text;
    let version = store.version.as_ref().map_or_else(|| quote!(0), |version| quote!(#version));
    let delta = store.fold.as_ref().and_then(|fold| fold.delta.as_ref());
    let delta = delta.map_or_else(|| quote!(()), |delta| quote!(#delta));
    let shape = canonical(delta.clone());
    let fold = match &store.fold {
        Some(fold) if !fold.broken => call(fold),
        _ => quote!(::core::unreachable!()),
    };
    let evolve = store.evolve.map(|variant| super::evolve(runtime, variant));
    let (granting, labelled) = (super::granting(&store.primary, &store.replica), super::labelled(store.label.as_ref()));
    let owned = store.owner.as_ref().map(|owner| {
        let name = super::stream::owner_name(runtime, owner);
        quote!(.owned_by(#name))
    });
    let owner = store.owner.as_ref().map(|owner| super::stream::owner(runtime, owner));
    let builders = builders(store);
    // What the state lacks, such as `Clone`, is reported on its name, and once.
    let there = Span::call_site().located_at(ty.span());
    let moved = super::at(runtime, there);
    let declared = quote_spanned! {there=>
        #[automatically_derived]
        #[allow(unused_variables, private_interfaces)]
        impl #moved::stores::View for #ty {
            type Delta = #delta;
            const NAME: &'static str = #name;
            const VERSION: u32 = #version;
            #evolve
            const SCHEMA: ::core::option::Option<[u8; 32]> =
                ::core::option::Option::Some(*#moved::node::Schema::of(#shape).as_bytes());

            fn fold(&mut self, delta: Self::Delta) {
                #fold
            }
        }

        #[automatically_derived]
        impl #moved::node::StoreType for #ty {
            const STORE: #moved::node::StoreDecl = #moved::node::StoreDecl::new(
                #name,
                ::core::stringify!(#ident),
                #docs,
                #shape,
                #version,
            )#granting #labelled #owned;
            #owner
        }
    };
    quote! {
        #declared

        #[automatically_derived]
        #[allow(dead_code)]
        impl #ty {
            #(#builders)*
        }
    }
}

/// `primary(&net)` and `replica(&net)`, without one whose name is taken, which has been reported.
fn builders(store: &Store) -> impl Iterator<Item = TokenStream> {
    let runtime = &store.runtime;
    let taken = |name: &str| store.helpers.iter().any(|helper| helper.ident == name);
    let primary = quote! {
        /// Configures the primary of this store on a node.
        pub fn primary(net: &#runtime::Network) -> #runtime::stores::PrimaryBuilder<Self> {
            #runtime::__private::primary::<Self>(net)
        }
    };
    let replica = quote! {
        /// Configures a replica of this store on a node.
        pub fn replica(net: &#runtime::Network) -> #runtime::stores::ReplicaBuilder<Self> {
            #runtime::__private::replica::<Self>(net)
        }
    };
    let free = |name: &str, builder| (!taken(name)).then_some(builder);
    [free("primary", primary), free("replica", replica)].into_iter().flatten()
}

/// The inherent method, which comes before that of the trait.
fn call(fold: &Fold) -> TokenStream {
    let ident = &fold.signature.ident;
    quote!(Self::#ident(self, delta))
}
