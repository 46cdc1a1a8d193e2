//! `#[mosaik::node]`: the role's declaration, and how each field gets its value.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{GenericArgument, PathArguments, Type, spanned::Spanned};

use crate::{
    model::{self, DefaultValue, Field, Node, Shape, Source},
    tokens::canonical,
};

pub(crate) fn node(node: &Node) -> TokenStream {
    let Node { runtime, ident, docs, .. } = node;
    let name = &node.name.text;
    let tags = super::tags(runtime, &node.tags);
    let args = node.fields.iter().filter_map(|field| argument(runtime, field));
    let endpoints = node.fields.iter().filter_map(|field| endpoint(runtime, field));
    // Each value in a statement of its own: what it is computed from is gone before an endpoint is waited for.
    let local = |index: usize| format_ident!("field{}", index, span = Span::mixed_site());
    let values = node.fields.iter().enumerate().filter_map(|(index, field)| {
        let (local, ty) = (local(index), &field.ty);
        let value = (!matches!(field.source, Source::Endpoint)).then(|| value(runtime, field))?;
        Some(quote!(let #local: #ty = #value;))
    });
    let fields = node.fields.iter().enumerate().map(|(index, field)| {
        let (ident, local) = (&field.ident, local(index));
        match field.source {
            Source::Endpoint => {
                let value = value(runtime, field);
                quote!(#ident: #value)
            }
            _ => quote!(#ident: #local),
        }
    });
    quote! {
        #[automatically_derived]
        impl #runtime::node::Role for #ident {
            const ROLE: #runtime::node::RoleDecl = #runtime::node::RoleDecl {
                name: #name,
                ty: ::core::stringify!(#ident),
                doc: #docs,
                tags: #tags,
                args: &[#(#args),*],
                endpoints: &[#(#endpoints),*],
            };

            #[allow(unused_variables, clippy::unused_async, clippy::unused_async_trait_impl)]
            async fn open(
                setup: &mut #runtime::node::Setup<'_>,
            ) -> ::core::result::Result<Self, #runtime::node::RoleError> {
                #(#values)*
                ::core::result::Result::Ok(Self { #(#fields),* })
            }
        }
    }
}

fn endpoint(runtime: &TokenStream, field: &Field) -> Option<TokenStream> {
    let (name, ty) = (model::plain(&field.ident), &field.ty);
    matches!(field.source, Source::Endpoint).then(|| {
        let runtime = super::at(runtime, ty.span());
        quote_spanned! {ty.span()=> #runtime::node::EndpointDecl {
            field: #name,
            link: <#ty as #runtime::node::Endpoint>::LINK,
        }}
    })
}

fn argument(runtime: &TokenStream, field: &Field) -> Option<TokenStream> {
    let Source::Arg { shape, default } = &field.source else { return None };
    let field_name = model::plain(&field.ident);
    let (flag, docs, ty) = (model::kebab(&field_name), &field.docs, parsed_type(field, *shape));
    let occurs = match (shape, default) {
        (Shape::Switch, _) => quote!(Switch),
        (Shape::Many, _) => quote!(Many),
        (Shape::Optional, _) => quote!(Optional),
        (Shape::Single, None) => quote!(Required),
        (Shape::Single, Some(DefaultValue::Text(text))) => quote!(Default(#text)),
        (Shape::Single, Some(DefaultValue::Value(value))) => {
            let shown = canonical(quote!(#value));
            quote!(Computed(#shown))
        }
    };
    let runtime = super::at(runtime, ty.span());
    Some(quote_spanned! {ty.span()=> #runtime::node::ArgDecl {
        flag: #flag,
        doc: #docs,
        occurs: #runtime::node::Occurs::#occurs,
        check: <#ty as #runtime::node::ArgType>::check,
    }})
}

/// The type that one value of the flag is read as: `T` of `Option<T>` and `Vec<T>`.
fn parsed_type(field: &Field, shape: Shape) -> &Type {
    if let (Shape::Optional | Shape::Many, Type::Path(path)) = (shape, &field.ty)
        && let Some(last) = path.path.segments.last()
        && let PathArguments::AngleBracketed(list) = &last.arguments
        && let Some(GenericArgument::Type(inner)) = list.args.first()
    {
        return inner;
    }
    &field.ty
}

fn value(runtime: &TokenStream, field: &Field) -> TokenStream {
    let (name, ty) = (model::plain(&field.ident), &field.ty);
    let flag = model::kebab(&name);
    let runtime = super::at(runtime, ty.span());
    let read = |shape| {
        let ty = parsed_type(field, shape);
        quote_spanned!(ty.span()=> <#ty as #runtime::node::ArgType>::read)
    };
    let call = match &field.source {
        Source::Endpoint => {
            return quote_spanned!(ty.span()=> <#ty as #runtime::node::Endpoint>::open(setup, #name).await?);
        }
        Source::Default(None) => return quote_spanned!(ty.span()=> <#ty as ::core::default::Default>::default()),
        Source::Default(Some(value)) => return quote!(#value),
        Source::Arg { shape: Shape::Switch, .. } => quote!(switch(#flag)),
        Source::Arg { shape, default: Some(DefaultValue::Value(value)) } => {
            let read = read(*shape);
            let default = quote_spanned!(value.span()=> || -> #ty { #value });
            quote!(computed(#flag, #read, #default)?)
        }
        Source::Arg { shape, .. } => {
            let read = read(*shape);
            match shape {
                Shape::Many => quote!(many(#flag, #read)?),
                Shape::Optional => quote!(optional(#flag, #read)?),
                Shape::Single | Shape::Switch => quote!(single(#flag, #read)?),
            }
        }
    };
    quote!(setup.#call)
}
