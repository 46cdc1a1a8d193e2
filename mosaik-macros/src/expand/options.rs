//! How an endpoint of a role is opened: with the options that its field declares set at its builder, each by a trait of the
//! runtime that only the builders with that option implement. So the compiler reports an option on the wrong end at its word.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Expr, ExprPath, Ident, spanned::Spanned};

use super::node::local;
use crate::model::{self, Criterion, Field, Node, Setting, Source, To};

/// The value of an endpoint's field, if it is not in its local variable. What comes first is a statement before the role is made:
/// while options are set, the other fields are still there to be handed over.
pub(super) fn open(runtime: &TokenStream, field: &Field) -> (TokenStream, Option<TokenStream>) {
    let Source::Endpoint { settings, only_if } = &field.source else { return (TokenStream::new(), None) };
    let (name, ty, cfgs) = (model::plain(&field.ident), &field.ty, &field.cfgs);
    let moved = super::at(runtime, ty.span());
    let settings: Vec<_> = settings.iter().filter(|setting| !matches!(setting.to, To::Reason)).collect();
    let opened = if settings.is_empty() {
        quote_spanned!(ty.span()=> <#ty as #moved::node::Endpoint>::open(setup, #name).await?)
    } else {
        let builder = Ident::new("builder", Span::mixed_site());
        let set = settings.iter().map(|setting| set(runtime, setting, &builder));
        let at = settings.first().map_or_else(|| ty.span(), |setting| setting.key.span());
        let configured = super::at(runtime, at);
        let begin = quote_spanned!(at=> <#ty as #configured::node::Configure>::builder(setup));
        let end =
            quote_spanned!(ty.span()=> <#ty as #moved::node::Configure>::open_with(#builder, setup, #name).await?);
        quote!({ let #builder = #begin; #(#set)* #end })
    };
    let local = local(&field.ident);
    let Some(condition) = only_if else {
        if settings.is_empty() {
            return (TokenStream::new(), Some(opened));
        }
        return (quote!(#(#cfgs)* let #local: #ty = #opened;), None);
    };
    let absent_at = super::at(runtime, condition.span());
    let absent = quote_spanned!(condition.span()=> <#ty as #absent_at::node::Absent>::absent());
    let condition = condition_of(runtime, condition);
    (quote!(#(#cfgs)* let #local: #ty = if #condition { #opened } else { #absent };), None)
}

/// The fields that a condition names stand for what they hold.
fn condition_of(runtime: &TokenStream, condition: &Expr) -> TokenStream {
    let named = |expr: &Expr| named(expr).map(|ident| at(local(ident), ident.span()));
    let moved = super::at(runtime, condition.span());
    let holds = |value: TokenStream| quote_spanned!(condition.span()=> #moved::__private::holds(#value));
    match condition {
        Expr::Call(call) => {
            let (function, fields) = (&call.func, call.args.iter().filter_map(named));
            holds(quote!(#function(#(&#fields),*)))
        }
        Expr::Unary(not) => {
            let holds = named(&not.expr).map(|field| holds(quote!(#field)));
            quote!(!#holds)
        }
        other => named(other).map(|field| holds(quote!(#field))).unwrap_or_default(),
    }
}

/// The same name, shown at another place in messages.
fn at(mut ident: Ident, span: Span) -> Ident {
    ident.set_span(ident.span().located_at(span));
    ident
}

/// One option. A method is not the builder's business, which only says that the endpoint has such items.
fn set(runtime: &TokenStream, Setting { key, to, .. }: &Setting, builder: &Ident) -> TokenStream {
    if matches!(to, To::Method(_)) {
        let given = at(builder.clone(), key.span());
        let runtime = super::at(runtime, key.span());
        return quote_spanned!(key.span()=> #runtime::node::options::SetUndelivered::takes_undelivered(&#given););
    }
    let name = Ident::new(&format!("Set{}", model::camel(&key.to_string())), key.span());
    let value = value(runtime, to);
    let given = at(builder.clone(), key.span());
    let runtime = super::at(runtime, key.span());
    let call = quote_spanned!(key.span()=> #runtime::node::options::#name::#key);
    let arguments = value.map_or_else(|| quote!(#given), |value| quote!(#given, #value));
    quote!(let #builder = #call(#arguments);)
}

fn value(runtime: &TokenStream, to: &To) -> Option<TokenStream> {
    let nanos = |nanos: u64, span: Span| quote_spanned!(span=> ::core::time::Duration::from_nanos(#nanos));
    Some(match to {
        To::Flag | To::Method(_) | To::Reason => return None,
        To::Expr(value) => quote!(#value),
        To::Retain(retain) => {
            let retain = super::stream::retain(retain);
            quote!(#runtime::streams::Retain::#retain)
        }
        To::Predicate { function, fields } if fields.is_empty() => quote!(#function),
        To::Predicate { function, fields } => {
            let locals: Vec<Ident> = fields.iter().map(|field| at(local(field), field.span())).collect();
            let peer = Ident::new("peer", Span::mixed_site());
            // The role keeps the fields; the predicate has its own copies of them.
            quote_spanned! {function.span()=> {
                #(let #locals = ::core::clone::Clone::clone(&#locals);)*
                move |#peer: &#runtime::discovery::PeerEntry| -> bool { #function(#(&#locals,)* #peer) }
            }}
        }
        To::Conditions { minimum, tags, span } => {
            let tags = (!tags.is_empty()).then(|| quote!(.with_tags([#(#tags),*])));
            quote_spanned!(*span=> |conditions| conditions.minimum_of(#minimum) #tags)
        }
        To::Buffer { items, bytes, span } => {
            let buffer = match items {
                Some(items) => quote_spanned!(*span=> #runtime::streams::Buffer::items(#items)),
                None => quote_spanned!(*span=> <#runtime::streams::Buffer as ::core::default::Default>::default()),
            };
            let bytes = bytes.map(|bytes| quote!(.bytes(#bytes)));
            quote!(#buffer #bytes)
        }
        To::Nanos(length, span) => nanos(*length, *span),
        To::Range(least, most, span) => {
            let (least, most) = (nanos(*least, *span), nanos(*most, *span));
            quote!((#least, #most))
        }
        To::Bytes(bytes, span) => quote_spanned!(*span=> #bytes),
        To::Rate(bytes, span) => quote_spanned!(*span=> #runtime::streams::ByteRate::bytes_per_sec(#bytes)),
        To::Prefer(criteria) => {
            let each = criteria.iter().map(|Criterion { name, takes }| {
                let runtime = super::at(runtime, name.span());
                quote_spanned!(name.span()=> #runtime::streams::Prefer::#name(#takes))
            });
            each.reduce(|before, next| quote!(#before.then(#next)))?
        }
        To::Filter { kind, value } => {
            let name = Ident::new(&format!("key_{}", model::plain(kind)), kind.span());
            let runtime = super::at(runtime, kind.span());
            // A field of the role stays its own.
            let value = match model::field_of(value) {
                Some(field) => {
                    let field = at(local(field), field.span());
                    quote_spanned!(value.span()=> ::core::clone::Clone::clone(&#field))
                }
                None => quote!(#value),
            };
            quote_spanned!(kind.span()=> #runtime::streams::Filter::#name(#value))
        }
        To::Block(length, span) => {
            let length = nanos(*length, *span);
            quote_spanned!(*span=> #runtime::streams::OnLag::Block(#length))
        }
        To::Known { path, span } => {
            let name = Ident::new(path, *span);
            let runtime = super::at(runtime, *span);
            match *path {
                "lan" => quote_spanned!(*span=> #runtime::groups::Timing::#name()),
                "Voter" | "Reluctant" | "Observer" => quote_spanned!(*span=> #runtime::groups::MemberRole::#name),
                _ => quote_spanned!(*span=> #runtime::streams::OnLag::#name),
            }
        }
    })
}

/// The fields that options take: the role reads them, although that is before it is made.
pub(super) fn read(node: &Node) -> Option<TokenStream> {
    let mut fields: Vec<&Ident> = Vec::new();
    for field in &node.fields {
        let Source::Endpoint { settings, only_if } = &field.source else { continue };
        for setting in settings {
            match &setting.to {
                To::Predicate { fields: taken, .. } => fields.extend(taken),
                To::Filter { value, .. } => fields.extend(model::field_of(value)),
                _ => {}
            }
        }
        match only_if {
            Some(Expr::Call(call)) => fields.extend(call.args.iter().filter_map(named)),
            Some(Expr::Unary(not)) => fields.extend(named(&not.expr)),
            Some(other) => fields.extend(named(other)),
            None => {}
        }
    }
    (!fields.is_empty()).then(|| quote!(let _ = |role: &Self| { #(let _ = &role.#fields;)* };))
}

fn named(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Path(path) => path.path.get_ident(),
        _ => None,
    }
}

/// Methods that fields name are handlers of the role.
pub(super) fn wire(node: &Node) -> Option<TokenStream> {
    let runtime = &node.runtime;
    let mut calls = Vec::new();
    for field in &node.fields {
        let Source::Endpoint { settings, .. } = &field.source else { continue };
        for setting in settings {
            if let To::Method(method) = &setting.to {
                let (cfgs, call) = (&field.cfgs, undelivered(runtime, field, method));
                calls.push(quote!(#(#cfgs)* { #call }));
            }
        }
    }
    (!calls.is_empty()).then(|| {
        quote! {
            fn wire(table: &mut #runtime::node::Table<Self>) {
                #(#calls)*
            }
        }
    })
}

fn undelivered(runtime: &TokenStream, field: &Field, method: &ExprPath) -> TokenStream {
    let ident = &field.ident;
    let source = model::plain(ident);
    let name = method.path.segments.last().map_or_else(String::new, |last| model::plain(&last.ident));
    let moved = super::at(runtime, method.span());
    let call = quote_spanned!(method.span()=> #method(role, item));
    let outcome = quote_spanned!(method.span()=> #moved::__private::done(result));
    quote! {
        table.undelivered(
            #name,
            #source,
            |role: &mut Self| #runtime::__private::producing(&mut role.#ident),
            |role: &mut Self, item, _| { let result = #call; #runtime::__private::Call::Done(#outcome) },
        );
    }
}
