//! `#[mosaik::handlers]`: one registration per handler, in a separate impl.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Ident, Type, spanned::Spanned};

use super::duration;
use crate::model::{Concurrency, Fires, Handler, Handlers, Of, OnError};

pub(crate) fn handlers(handlers: &Handlers) -> TokenStream {
    let Handlers { runtime, role, .. } = handlers;
    let entries = handlers.handlers.iter().map(|each| handler(runtime, each));
    let checks = handlers.handlers.iter().filter_map(|each| deadline_check(runtime, role, each));
    let once = handlers.handlers.iter().filter_map(|each| once_check(runtime, role, each));
    quote! {
        #(#checks)*
        #(#once)*

        #[automatically_derived]
        impl #runtime::node::Handlers for #role {
            #[allow(unused_variables, clippy::unused_unit)]
            fn handlers(table: &mut #runtime::node::Table<Self>) {
                #(#entries)*
            }
        }
    }
}

/// A silence is declared once: at the handler, or at the field. Only the role knows its fields, so a constant judges it.
fn deadline_check(runtime: &TokenStream, role: &Type, handler: &Handler) -> Option<TokenStream> {
    let Fires::On { field, of: Of::Lateness { after, word } } = &handler.fires else { return None };
    let (name, has_own, cfgs) = (crate::model::plain(field), after.is_some(), &handler.cfgs);
    let runtime = super::at(runtime, word.span());
    Some(quote_spanned! {word.span()=>
        #(#cfgs)*
        const _: () = #runtime::__private::check_late(&<#role as #runtime::node::Role>::ROLE, #name, #has_own);
    })
}

/// A handler runs at the leader of a group that its role is a member of; that, too, only the role knows.
fn once_check(runtime: &TokenStream, role: &Type, handler: &Handler) -> Option<TokenStream> {
    let (machine, cfgs) = (handler.once.as_ref().filter(|_| !handler.further)?, &handler.cfgs);
    let runtime = super::at(runtime, machine.span());
    Some(quote_spanned! {machine.span()=>
        #(#cfgs)*
        const _: () = #runtime::__private::check_once(
            &<#role as #runtime::node::Role>::ROLE,
            <#machine as #runtime::node::Declared>::MACHINE.group.name,
        );
    })
}

fn handler(runtime: &TokenStream, handler: &Handler) -> TokenStream {
    let Handler { method, cfgs, fires, .. } = handler;
    let ident = &method.ident;
    let name = crate::model::plain(ident);
    let emit = handler.emit.as_ref().map(|field| {
        let runtime = super::at(runtime, field.span());
        quote_spanned!(field.span()=> #runtime::__private::sending(&role.#field))
    });
    let fence = fence(runtime, handler);
    let plain = || call_of(runtime, handler, &quote!(role.#ident(#fence)), emit.as_ref());
    let register = match fires {
        Fires::On { field, of } => on(runtime, handler, (field, of), emit.as_ref()),
        Fires::Every { period } => {
            let (call, period) = (plain(), duration(period));
            quote!(table.every(#name, #period, |role: &mut Self| #call))
        }
        Fires::Start => {
            let call = plain();
            quote!(table.start(#name, |role: &mut Self| #call))
        }
        Fires::Stop => {
            let call = plain();
            quote!(table.stop(#name, |role: &mut Self| #call))
        }
        Fires::Ready => {
            let span = output_span(handler);
            let moved = super::at(runtime, span);
            let holds = quote_spanned!(span=> #moved::__private::holds(role.#ident()));
            quote!(table.ready(|role: &Self| #holds))
        }
    };
    let policy = handler.on_error.map(|policy| {
        let variant = match policy {
            OnError::Log => quote!(Log),
            OnError::Restart => quote!(Restart),
            OnError::Stop => quote!(Stop),
        };
        quote!(table.on_error(#runtime::node::OnError::#variant);)
    });
    let once = handler.once.as_ref().map(|machine| quote_spanned!(machine.span()=> table.once::<#machine>();));
    quote!(#(#cfgs)* { #register; #policy #once })
}

/// What a handler is given for its fence, if it takes one; a parameter of another type is reported there.
fn fence(runtime: &TokenStream, handler: &Handler) -> Option<TokenStream> {
    let param = handler.fence()?;
    let moved = super::at(runtime, param.span());
    Some(quote_spanned!(param.span()=> #moved::__private::fence()))
}

fn on(runtime: &TokenStream, handler: &Handler, (field, of): (&Ident, &Of), emit: Option<&TokenStream>) -> TokenStream {
    let method = &handler.method;
    let (ident, name, source) = (&method.ident, crate::model::plain(&method.ident), crate::model::plain(field));
    // Named with the parameters' spans: a parameter of another type than the field's items is reported there.
    let params: Vec<Ident> = ["item", "from"]
        .into_iter()
        .zip(handler.params().take(of.most()))
        .map(|(name, param)| Ident::new(name, param.span()))
        .collect();
    let args = params.iter().map(|param| quote!(#param)).chain(fence(runtime, handler));
    let call = call_of(runtime, handler, &quote!(role.#ident(#(#args),*)), emit);
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
        Of::Connected => (quote!(on_connected), None),
        Of::Disconnected => (quote!(on_disconnected), None),
        Of::Gaps => (quote!(on_gap), None),
        Of::Lateness { after, .. } => {
            let after = after.as_ref().map(duration);
            let after = after.map_or_else(
                || quote!(::core::option::Option::None),
                |after| quote!(::core::option::Option::Some(#after)),
            );
            (quote!(on_late), Some(after))
        }
    };
    let after = after.into_iter();
    if let Some(Concurrency { key, calls }) = &handler.concurrency {
        let moved = super::at(runtime, key.span());
        let lend = quote_spanned!(key.span()=> #moved::__private::lend(role));
        return quote! {
            table.on_shared((#name, #source), #calls, |role: &Self| #lend, |role: &mut Self| #reach, |role: &Self, #(#bound),*| #call)
        };
    }
    quote! {
        table.#table(#name, #source, #(#after,)* |role: &mut Self| #reach, |role: &mut Self, #(#bound),*| #call)
    }
}

/// The call of a handler and what becomes of its result. The result's conversion is reported on the return type, where
/// a wrong one was written.
fn call_of(runtime: &TokenStream, handler: &Handler, call: &TokenStream, emit: Option<&TokenStream>) -> TokenStream {
    let span = output_span(handler);
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

/// Where what a handler returns is written.
fn output_span(handler: &Handler) -> Span {
    match &handler.method.output {
        syn::ReturnType::Default => handler.method.ident.span(),
        syn::ReturnType::Type(_, ty) => ty.span(),
    }
}
