//! `#[mosaik::handlers]`: one registration per handler, in a separate impl.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{FnArg, Ident, LitStr, spanned::Spanned};

use crate::model::{Fires, Handler, Handlers, Of, parse_period};

pub(crate) fn handlers(handlers: &Handlers) -> TokenStream {
    let Handlers { runtime, role, .. } = handlers;
    let entries = handlers.handlers.iter().map(|each| handler(runtime, each));
    quote! {
        #[automatically_derived]
        impl #runtime::node::Handlers for #role {
            #[allow(unused_variables, clippy::unused_unit)]
            fn handlers(table: &mut #runtime::node::Table<Self>) {
                #(#entries)*
            }
        }
    }
}

fn handler(runtime: &TokenStream, handler: &Handler) -> TokenStream {
    let Handler { method, cfgs, fires, .. } = handler;
    let ident = &method.ident;
    let name = crate::model::plain(ident);
    let register = match fires {
        Fires::On { field, of } => {
            let source = crate::model::plain(field);
            // Named with the parameters' spans: a parameter of another type than the field's items is reported there.
            let params: Vec<Ident> = ["item", "from"]
                .into_iter()
                .zip(method.inputs.iter().filter(|arg| matches!(arg, FnArg::Typed(_))))
                .map(|(name, param)| Ident::new(name, param.span()))
                .collect();
            let call = call_of(runtime, handler, &quote!(role.#ident(#(#params),*)), None);
            let unused = (params.len() == 1).then(|| quote!(_));
            let bound = params.iter().map(|param| quote!(#param)).chain(unused);
            let moved = super::at(runtime, field.span());
            let reaching = match of {
                Of::Items => quote_spanned!(field.span()=> feeding),
                _ => quote_spanned!(field.span()=> consuming),
            };
            let reach = quote_spanned!(field.span()=> #moved::__private::#reaching(&mut role.#field));
            let (table, after) = match of {
                Of::Items => (quote!(on), None),
                Of::Gaps => (quote!(on_gap), None),
                Of::Lateness { after } => (quote!(on_late), Some(duration(after))),
            };
            let after = after.into_iter();
            quote! {
                table.#table(#name, #source, #(#after,)* |role: &mut Self| #reach, |role: &mut Self, #(#bound),*| #call)
            }
        }
        Fires::Every { period, emit } => {
            let emit = emit.as_ref().map(|field| {
                let runtime = super::at(runtime, field.span());
                quote_spanned!(field.span()=> #runtime::__private::producing(&mut role.#field))
            });
            let call = call_of(runtime, handler, &quote!(role.#ident()), emit.as_ref());
            let period = duration(period);
            quote!(table.every(#name, #period, |role: &mut Self| #call))
        }
        Fires::Start => {
            let call = call_of(runtime, handler, &quote!(role.#ident()), None);
            quote!(table.start(#name, |role: &mut Self| #call))
        }
        Fires::Stop => {
            let call = call_of(runtime, handler, &quote!(role.#ident()), None);
            quote!(table.stop(#name, |role: &mut Self| #call))
        }
    };
    quote!(#(#cfgs)* #register;)
}

fn duration(period: &LitStr) -> TokenStream {
    // One that cannot be read has been reported.
    let nanos = parse_period(&period.value()).unwrap_or(1);
    quote!(::core::time::Duration::from_nanos(#nanos))
}

/// The call of a handler and what becomes of its result. The result's conversion is reported on the return type, where
/// a wrong one was written.
fn call_of(runtime: &TokenStream, handler: &Handler, call: &TokenStream, emit: Option<&TokenStream>) -> TokenStream {
    let span = match &handler.method.output {
        syn::ReturnType::Default => handler.method.ident.span(),
        syn::ReturnType::Type(_, ty) => ty.span(),
    };
    let result = match handler.method.asyncness {
        Some(_) => quote!(#call.await),
        None => call.clone(),
    };
    let moved = super::at(runtime, span);
    let outcome = match emit {
        None => quote_spanned!(span=> #moved::__private::done(result)),
        Some(producer) => quote_spanned!(span=> #moved::__private::emit(#producer, result)),
    };
    match handler.method.asyncness {
        Some(_) => quote! {
            #runtime::__private::Call::Later(::std::boxed::Box::pin(async move { let result = #result; #outcome }))
        },
        None => quote!({ let result = #result; #runtime::__private::Call::Done(#outcome) }),
    }
}
