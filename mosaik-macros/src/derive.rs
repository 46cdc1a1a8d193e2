//! The prelude's `#[derive(Serialize, Deserialize)]`, for crates that do not depend on serde themselves.
//!
//! Serde's own derives look for a crate called `serde`, unless `#[serde(crate = "..")]` on the type says where it is, and
//! a derive cannot add an attribute to its type. So the type's definition is copied, the copy gets the attribute and
//! serde's derive of a foreign type (`#[serde(remote = "..")]`), and the type's impl calls the copy's functions. What is
//! derived is serde's own in every respect; nothing here knows a format.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Attribute, Data, DeriveInput, Fields, GenericParam, Generics, LifetimeParam, LitStr, parse_quote};

use crate::{diag::Diag, model, parse, tokens::canonical};

#[derive(Clone, Copy)]
pub(crate) enum Which {
    Serialize,
    Deserialize,
}

pub(crate) fn derive(which: Which, item: TokenStream, diag: &Diag) -> TokenStream {
    let item: DeriveInput = match syn::parse2(item) {
        Ok(item) => item,
        Err(error) => {
            diag.syntax(error);
            return TokenStream::new();
        }
    };
    let given = Given::read(&item.attrs);
    if let Some(remote) = given.remote {
        diag.error(remote, "a foreign type is derived for with serde's own derive: `use serde::Serialize;`");
        return TokenStream::new();
    }
    let copy = copy(&item, &given);
    let serde = given.location();
    let (ident, name) = (&item.ident, format_ident!("__Serde{}", model::plain(&item.ident)));
    let (_, arguments, _) = item.generics.split_for_impl();
    let generics = bounded(which, &serde, &item.generics);
    let (parameters, _, bounds) = generics.split_for_impl();
    let (derive, body) = match which {
        Which::Serialize => (
            quote!(#serde::Serialize),
            quote! {
                impl #parameters #serde::Serialize for #ident #arguments #bounds {
                    fn serialize<__S: #serde::Serializer>(
                        &self,
                        serializer: __S,
                    ) -> ::core::result::Result<__S::Ok, __S::Error> {
                        #name::serialize(self, serializer)
                    }
                }
            },
        ),
        Which::Deserialize => (
            quote!(#serde::Deserialize),
            quote! {
                impl #parameters #serde::Deserialize<'de> for #ident #arguments #bounds {
                    fn deserialize<__D: #serde::Deserializer<'de>>(
                        deserializer: __D,
                    ) -> ::core::result::Result<Self, __D::Error> {
                        #name::deserialize(deserializer)
                    }
                }
            },
        ),
    };
    quote! {
        const _: () = {
            #[derive(#derive)]
            #copy

            #[automatically_derived]
            #body
        };
    }
}

/// What the type's own `#[serde(..)]` attributes say already.
#[derive(Default)]
struct Given {
    renamed: bool,
    /// Where serde is.
    located: Option<LitStr>,
    remote: Option<syn::Path>,
}

impl Given {
    fn read(attributes: &[Attribute]) -> Self {
        let mut given = Self::default();
        parse::serde_keys(attributes, |meta| {
            given.renamed |= meta.path.is_ident("rename");
            if meta.path.is_ident("remote") {
                given.remote = Some(meta.path.clone());
            }
            let located = meta.path.is_ident("crate");
            if located {
                given.located = Some(meta.value()?.parse()?);
            }
            Ok(located)
        });
        given
    }

    /// The path to serde.
    fn location(&self) -> TokenStream {
        let given = self.located.as_ref().and_then(|path| path.parse::<syn::Path>().ok());
        given.map_or_else(|| quote!(::mosaik::__private::serde), |path| quote!(#path))
    }
}

/// The definition under another name, with serde's attributes and no others.
fn copy(item: &DeriveInput, given: &Given) -> DeriveInput {
    let mut copy = item.clone();
    let ident = &item.ident;
    let (remote, rename) = (canonical(quote!(#ident)), model::plain(ident));
    copy.ident = format_ident!("__Serde{}", rename);
    copy.vis = syn::Visibility::Inherited;
    copy.attrs.retain(is_serde);
    copy.attrs.push(parse_quote!(#[allow(dead_code)]));
    copy.attrs.push(parse_quote!(#[serde(remote = #remote)]));
    if !given.renamed {
        copy.attrs.push(parse_quote!(#[serde(rename = #rename)]));
    }
    if given.located.is_none() {
        copy.attrs.push(parse_quote!(#[serde(crate = "::mosaik::__private::serde")]));
    }
    match &mut copy.data {
        Data::Struct(data) => strip(&mut data.fields),
        Data::Enum(data) => {
            for variant in &mut data.variants {
                variant.attrs.retain(is_serde);
                variant.discriminant = None;
                strip(&mut variant.fields);
            }
        }
        Data::Union(_) => {}
    }
    copy
}

fn strip(fields: &mut Fields) {
    for field in fields {
        field.attrs.retain(is_serde);
    }
}

fn is_serde(attribute: &Attribute) -> bool {
    attribute.path().is_ident("serde")
}

/// As serde bounds them in all but rare cases: every type parameter can be read or written.
fn bounded(which: Which, serde: &TokenStream, generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    for parameter in &mut generics.params {
        match (which, parameter) {
            (Which::Serialize, GenericParam::Type(ty)) => {
                ty.bounds.push(parse_quote!(#serde::Serialize));
            }
            (Which::Deserialize, GenericParam::Type(ty)) => {
                ty.bounds.push(parse_quote!(#serde::Deserialize<'de>));
            }
            _ => {}
        }
    }
    if matches!(which, Which::Deserialize) {
        let mut de: LifetimeParam = parse_quote!('de);
        de.bounds.extend(generics.lifetimes().map(|each| each.lifetime.clone()));
        generics.params.insert(0, GenericParam::Lifetime(de));
    }
    generics
}
