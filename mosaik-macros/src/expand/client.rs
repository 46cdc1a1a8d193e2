//! The client of a machine: one method for each command and query, which puts the call together and takes the result out.

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::Type;

use super::machine::{Names, arguments};
use crate::model::{Machine, Method, MethodKind, Stored, plain};

pub(super) fn client(machine: &Machine, names: &Names) -> TokenStream {
    let Machine { runtime, ty, .. } = machine;
    let client = &names.client;
    let doc = format!(
        "Calls the commands and queries of [`{}`] in its group, from any member. Cheap to clone.",
        plain(&machine.ident)
    );
    let methods = machine.methods.iter().map(|method| match method.kind {
        MethodKind::Command => command(runtime, names, method),
        MethodKind::Query => query(runtime, ty, names, method),
    });
    quote! {
        #[doc = #doc]
        #[derive(Clone, Debug)]
        #[allow(dead_code, private_interfaces, unreachable_pub)]
        pub struct #client {
            handle: #runtime::node::GroupHandle<#ty>,
        }

        #[automatically_derived]
        #[allow(dead_code, private_interfaces, unreachable_pub, clippy::all, clippy::pedantic)]
        impl #client {
            #(#methods)*
        }
    }
}

/// The parameters of a client method, and the variant that they become.
fn call(method: &Method, name: &Ident) -> (Vec<TokenStream>, TokenStream) {
    let params = arguments(method).map(|(ident, param)| {
        let ty = &param.ty;
        quote!(#ident: #ty)
    });
    let fields = arguments(method).map(|(ident, param)| match param.stored {
        Stored::Borrowed(_) => quote!(#ident: ::std::borrow::ToOwned::to_owned(#ident)),
        _ => quote!(#ident),
    });
    let variant = &method.variant;
    (params.collect(), quote!(#name::#variant { #(#fields),* }))
}

/// Takes the result out of its variant.
fn pick(method: &Method, name: &Ident) -> TokenStream {
    let variant = &method.variant;
    quote! {
        |result| match result {
            #name::#variant(result) => ::core::option::Option::Some(result),
            #[allow(unreachable_patterns)]
            _ => ::core::option::Option::None,
        }
    }
}

fn command(runtime: &TokenStream, names: &Names, method: &Method) -> TokenStream {
    let (ident, attributes, output) = (&method.signature.ident, &method.attributes, &method.output);
    let (params, call) = call(method, &names.command);
    let pick = pick(method, &names.output);
    quote! {
        #(#attributes)*
        ///
        /// Resolves once the group has committed it and it was applied, exactly once. Not sent when it is not awaited.
        ///
        /// # Errors
        /// When the group cannot be reached, or it is not known whether it was applied.
        pub async fn #ident(
            &self,
            #(#params),*
        ) -> ::core::result::Result<#output, #runtime::groups::CallError> {
            self.handle.call(#call, #pick).await
        }
    }
}

fn query(runtime: &TokenStream, ty: &Type, names: &Names, method: &Method) -> TokenStream {
    let (ident, attributes, output) = (&method.signature.ident, &method.attributes, &method.output);
    let (params, call) = call(method, &names.query);
    let pick = pick(method, &names.answer);
    quote! {
        #(#attributes)*
        ///
        /// Asks nothing yet: `.strong().await` or `.weak().await` does.
        pub fn #ident(&self, #(#params),*) -> #runtime::node::QueryCall<'_, #ty, #output> {
            self.handle.ask(#call, #pick)
        }
    }
}
