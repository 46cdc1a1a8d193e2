//! `#[mosaik::stream]`: serde derives and attributes on the item, the declaration, and the two builders.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Ident, Type, spanned::Spanned};

use super::bytes;
use crate::{
    model::{Retain, Stream},
    tokens::{canonical, split_attributes},
};

pub(crate) fn stream(stream: &Stream, item: TokenStream) -> TokenStream {
    let Stream { runtime, ident, docs, .. } = stream;
    let name = &stream.name.text;
    let item = if stream.of.is_some() { item } else { with_serde(stream, item) };
    let foreign = stream.of.as_ref().map(|of| streamed(stream, of));
    let (made, shape) = match &stream.of {
        Some(of) => (quote!(foreign), canonical(quote!(#of))),
        None => (quote!(new), stream.shape.clone()),
    };
    let (granting, labelled) =
        (super::granting(&stream.produce, &stream.consume), super::labelled(stream.label.as_ref()));
    let configure = configure(stream);
    let codec = stream.codec.map(|variant| {
        let variant = Ident::new(variant, Span::call_site());
        quote! {
            const CODEC: ::core::option::Option<#runtime::primitives::Format> =
                ::core::option::Option::Some(#runtime::primitives::Format::#variant);
        }
    });
    let replicated = stream.replicated.then(|| {
        quote!(
            const REPLICATED: bool = true;
        )
    });
    let evolve = stream.evolve.map(|variant| super::evolve(runtime, variant));
    let declared = declared(stream);
    let owned = stream.owner.as_ref().map(|owner| {
        let name = owner_name(runtime, owner);
        quote!(.owned_by(#name))
    });
    let owner = stream.owner.as_ref().map(|owner| self::owner(runtime, owner));
    quote! {
        #item

        #foreign

        #declared

        #[automatically_derived]
        impl #runtime::node::StreamType for #ident {
            const STREAM: #runtime::node::StreamDecl = #runtime::node::StreamDecl::#made(
                #name,
                ::core::stringify!(#ident),
                #docs,
                #shape,
            )#granting #labelled #owned;
            #codec
            #evolve
            #replicated
            #owner

            #configure
        }

        #[automatically_derived]
        #[allow(dead_code)]
        impl #ident {
            /// Configures a producer of this stream on a node.
            pub fn producer(net: &#runtime::Network) -> #runtime::streams::ProducerBuilder<Self> {
                #runtime::__private::producer::<Self>(net)
            }

            /// Configures a consumer of this stream on a node.
            pub fn consumer(net: &#runtime::Network) -> #runtime::streams::ConsumerBuilder<Self> {
                #runtime::__private::consumer::<Self>(net)
            }
        }
    }
}

/// The name of the group that a machine is declared for.
/// The constant that tells which group owns a stream or a store.
pub(super) fn owner(runtime: &TokenStream, owner: &Type) -> TokenStream {
    let runtime = super::at(runtime, owner.span());
    quote_spanned! {owner.span()=>
        const OWNER: ::core::option::Option<
            fn() -> ::core::result::Result<#runtime::GroupId, #runtime::node::KeyError>,
        > = ::core::option::Option::Some(#runtime::__private::owner::<#owner>);
    }
}

pub(super) fn owner_name(runtime: &TokenStream, owner: &Type) -> TokenStream {
    let runtime = super::at(runtime, owner.span());
    quote_spanned!(owner.span()=> <#owner as #runtime::node::Declared>::MACHINE.group.name)
}

/// What the declaration asks of the ends, for who has only the type.
fn declared(stream: &Stream) -> Option<TokenStream> {
    let Stream { runtime, ident, produce, consume, label, owner, .. } = stream;
    if label.is_none() && owner.is_none() && produce.is_empty() && consume.is_empty() {
        return None;
    }
    let none = || quote!(::core::option::Option::None);
    let label = label.as_ref().map_or_else(none, |label| quote!(::core::option::Option::Some(#label)));
    let owner = owner.as_ref().map_or_else(none, |owner| {
        let name = owner_name(runtime, owner);
        quote!(::core::option::Option::Some(#name))
    });
    Some(quote! {
        #runtime::__private::inventory::submit! {
            #runtime::primitives::StreamTerms {
                ty: ::core::any::TypeId::of::<#ident>,
                produce: &[#(#produce),*],
                consume: &[#(#consume),*],
                label: #label,
                owner: #owner,
            }
        }
    })
}

/// A stream of a type of another crate: a name for it.
fn streamed(stream: &Stream, of: &Type) -> TokenStream {
    let Stream { runtime, ident, .. } = stream;
    let name = &stream.name.text;
    quote! {
        #[automatically_derived]
        impl #runtime::primitives::Streamed for #ident {
            type Item = #of;

            fn stream_id() -> ::core::result::Result<#runtime::primitives::StreamId, #runtime::primitives::Unnamed> {
                ::core::result::Result::Ok(#runtime::primitives::StreamId::from(#name))
            }
        }
    }
}

/// What the declaration sets at a producer.
fn configure(stream: &Stream) -> Option<TokenStream> {
    let runtime = &stream.runtime;
    let item = stream.of.as_ref().map_or_else(|| quote!(Self), |of| quote!(#of));
    let settings = settings(stream, &item);
    (!settings.is_empty()).then(|| {
        quote! {
            fn configure(
                producer: #runtime::streams::ProducerBuilder<Self>,
            ) -> #runtime::streams::ProducerBuilder<Self> {
                producer #settings
            }
        }
    })
}

/// Calls on the builder of a producer of these items.
fn settings(stream: &Stream, item: &TokenStream) -> TokenStream {
    let Stream { runtime, key, retain, .. } = stream;
    let key = key.as_ref().map(|key| quote!(.with_key(#key)));
    let retain = retain.as_ref().map(|kept| {
        let kept = self::retain(kept);
        quote!(.retain(#runtime::streams::Retain::<#item>::#kept))
    });
    quote!(#key #retain)
}

/// The call that makes a `Retain`.
pub(super) fn retain(retain: &Retain) -> TokenStream {
    match retain {
        Retain::Last(items) => quote!(last(#items)),
        Retain::LastPerKey(items) => quote!(last_per_key(#items)),
        Retain::Keyframe(is) => quote!(keyframe(#is)),
        Retain::Window { bytes, age } => quote!(window(#bytes, ::core::time::Duration::from_nanos(#age))),
    }
}

/// The derives come first and our `#[serde(..)]` last among the attributes: a helper attribute may not stand above the
/// derive that it belongs to, and the derive may be the user's own.
pub(crate) fn with_serde(stream: &Stream, item: TokenStream) -> TokenStream {
    let runtime = &stream.runtime;
    let (attributes, rest) = split_attributes(item);
    let rest = if stream.follows { bytes::fields(runtime, rest) } else { rest };
    let derives = stream.derives.iter().map(|name| {
        let name = Ident::new(name, Span::call_site());
        quote!(#[derive(#runtime::__private::serde::#name)])
    });
    let serde_path = canonical(quote!(#runtime::__private::serde));
    let serde_crate = stream.sets_crate.then(|| quote!(#[serde(crate = #serde_path)]));
    let name = &stream.name.text;
    let rename = stream.sets_rename.then(|| quote!(#[serde(rename = #name)]));
    quote!(#(#derives)* #attributes #serde_crate #rename #rest)
}
