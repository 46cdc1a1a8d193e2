//! `#[mosaik::node]`: the role's declaration, and how each field gets its value.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{GenericArgument, Ident, PathArguments, Type, spanned::Spanned};

use super::options;
use crate::{
    model::{self, DefaultValue, Field, Node, Shape, Source},
    tokens::canonical,
};

pub(crate) fn node(node: &Node) -> TokenStream {
    let Node { runtime, ident, docs, .. } = node;
    let name = &node.name.text;
    let (tags, clears) = (super::tags(runtime, &node.tags), &node.clears);
    let args = node.fields.iter().filter_map(|field| argument(runtime, field));
    let endpoints = node.fields.iter().filter_map(|field| endpoint(runtime, field));
    // Each value in a statement of its own: what it is computed from is gone before an endpoint is waited for.
    let values = node.fields.iter().filter_map(|field| {
        let (local, ty, cfgs) = (local(&field.ident), &field.ty, &field.cfgs);
        let value = (!matches!(field.source, Source::Endpoint { .. })).then(|| value(runtime, field))?;
        Some(quote!(#(#cfgs)* let #local: #ty = #value;))
    });
    let (before, at_last): (Vec<_>, Vec<_>) = node.fields.iter().map(|field| options::open(runtime, field)).unzip();
    let fields = node.fields.iter().zip(at_last).map(|(field, opened)| {
        let (ident, local, cfgs) = (&field.ident, local(&field.ident), &field.cfgs);
        match opened {
            Some(opened) => quote!(#(#cfgs)* #ident: #opened),
            None => quote!(#(#cfgs)* #ident: #local),
        }
    });
    // This also says that endpoints are used, which do their work by being held.
    let told = node.fields.iter().filter(|field| matches!(field.source, Source::Endpoint { .. })).map(|field| {
        let (ident, ty, cfgs) = (&field.ident, &field.ty, &field.cfgs);
        let moved = super::at(runtime, ty.span());
        quote_spanned!(ty.span()=> #(#cfgs)* <#ty as #moved::node::Endpoint>::set_ready(&self.#ident, ready);)
    });
    let members = node.fields.iter().filter(|field| matches!(field.source, Source::Endpoint { .. })).map(|field| {
        let (ident, ty, cfgs) = (&field.ident, &field.ty, &field.cfgs);
        let moved = super::at(runtime, ty.span());
        quote_spanned! {ty.span()=>
            #(#cfgs)*
            if <#ty as #moved::node::Endpoint>::LINK.is_member_of(group) {
                return <#ty as #moved::node::Endpoint>::member(&self.#ident);
            }
        }
    });
    let (read, wire) = (options::read(node), options::wire(node));
    let (attest, attested) = attest(runtime, node);
    quote! {
        #[automatically_derived]
        impl #runtime::node::Role for #ident {
            const ROLE: #runtime::node::RoleDecl = #runtime::node::RoleDecl {
                name: #name,
                ty: ::core::stringify!(#ident),
                doc: #docs,
                tags: #tags,
                clears: &[#(#clears),*],
                attest: #attest,
                args: &[#(#args),*],
                endpoints: &[#(#endpoints),*],
            };

            #[allow(unused_variables, clippy::unused_async, clippy::unused_async_trait_impl)]
            async fn open(
                setup: &mut #runtime::node::Setup<'_>,
            ) -> ::core::result::Result<Self, #runtime::node::RoleError> {
                #attested
                #read
                #(#values)*
                #(#before)*
                ::core::result::Result::Ok(Self { #(#fields),* })
            }

            #wire

            #[allow(unused_variables)]
            fn set_ready(&self, ready: bool) {
                #(#told)*
            }

            #[allow(unused_variables)]
            fn member(&self, group: &str) -> ::core::option::Option<#runtime::node::Leading> {
                #(#members)*
                ::core::option::Option::None
            }
        }
    }
}

/// The file of `attest`, by a macro of the runtime, which knows whether it was built with the feature; and the question whether the
/// node asks for evidence, before the role is opened on it.
fn attest(runtime: &TokenStream, node: &Node) -> (TokenStream, TokenStream) {
    let Some(file) = &node.attest else { return (quote!(::core::option::Option::None), TokenStream::new()) };
    let (runtime, name) = (super::at(runtime, file.span()), &node.name.text);
    (quote_spanned!(file.span()=> #runtime::__attest!(#file)), quote!(setup.attested(#name)?;))
}

/// The variable that holds a field's value until the role is made. The user cannot name it.
pub(super) fn local(field: &Ident) -> Ident {
    format_ident!("field_{}", model::plain(field), span = Span::mixed_site())
}

fn endpoint(runtime: &TokenStream, field: &Field) -> Option<TokenStream> {
    let Source::Endpoint { settings, only_if } = &field.source else { return None };
    let (name, ty, cfgs, optional) = (model::plain(&field.ident), &field.ty, &field.cfgs, only_if.is_some());
    let declared = settings.iter().map(|setting| {
        let (key, shown) = (setting.key.to_string(), &setting.shown);
        quote!(#runtime::node::OptionDecl { key: #key, value: #shown })
    });
    let place = super::place(runtime, field.ident.span());
    let moved = super::at(runtime, ty.span());
    let link = quote_spanned!(ty.span()=> <#ty as #moved::node::Endpoint>::LINK);
    Some(quote! {
        #(#cfgs)* #runtime::node::EndpointDecl {
            field: #name,
            link: #link,
            optional: #optional,
            options: &[#(#declared),*],
            place: #place,
        }
    })
}

fn argument(runtime: &TokenStream, field: &Field) -> Option<TokenStream> {
    let Source::Arg { shape, default } = &field.source else { return None };
    let cfgs = &field.cfgs;
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
    Some(quote_spanned! {ty.span()=> #(#cfgs)* #runtime::node::ArgDecl {
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
        // Opened after all values are there: see `options`.
        Source::Endpoint { .. } => return TokenStream::new(),
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
