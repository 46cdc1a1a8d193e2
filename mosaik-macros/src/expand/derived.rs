//! `#[derive(StateMachine)]`: the impl of the trait in terms of two methods, or of one for each command, and the client that all such machines share.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Ident, Type};

use super::machine::{from_group, group_of, settings};
use crate::{
    model::{Derived, Variant},
    tokens::canonical,
};

pub(crate) fn derived(derived: &Derived) -> TokenStream {
    let Derived { runtime, machine: ty, .. } = derived;
    let or_unit = |ty: &Option<Type>| ty.as_ref().map_or_else(|| quote!(()), |ty| quote!(#ty));
    let (command, output) = (or_unit(&derived.command), or_unit(&derived.output));
    let (query, answer) = (or_unit(&derived.query), or_unit(&derived.answer));
    let (group, from_group) = (group_of(runtime, ty), from_group(runtime, ty, Clone::clone));
    let (version, snapshots) =
        settings(runtime, derived.version.as_ref(), derived.snapshots.as_ref(), &derived.migrations);
    let shape = format!("command {}->{}", canonical(command.clone()), canonical(output.clone()));
    let unreachable = || quote!(::core::unreachable!());
    let applied = match &derived.variants {
        _ if derived.broken => unreachable(),
        Some(variants) => by_variant(&command, variants),
        None => quote!(Self::on_command(self, command, ctx)),
    };
    let answered = match &derived.query {
        _ if derived.broken => unreachable(),
        Some(_) => quote!(Self::on_query(self, query)),
        None => quote!(query),
    };
    quote! {
        #[automatically_derived]
        #[allow(unused_variables)]
        impl #runtime::groups::StateMachine for #ty {
            type Command = #command;
            type Output = #output;
            type Query = #query;
            type QueryResult = #answer;
            const NAME: &'static str = #group.name;
            #version
            const SCHEMA: ::core::option::Option<[u8; 32]> =
                ::core::option::Option::Some(*#runtime::node::Schema::of(#shape).as_bytes());

            fn apply(&mut self, command: #command, ctx: &#runtime::groups::ApplyContext) -> #output {
                #applied
            }

            fn query(&self, query: #query) -> #answer {
                #answered
            }

            #snapshots
        }

        #[automatically_derived]
        impl #runtime::node::Declared for #ty {
            type Client = #runtime::node::MachineClient<Self>;
            const MACHINE: #runtime::node::MachineDecl = #runtime::node::MachineDecl {
                group: #group,
                version: <Self as #runtime::groups::StateMachine>::VERSION,
                schema: <Self as #runtime::groups::StateMachine>::SCHEMA,
                commands: &[],
                queries: &[],
                states: ::core::option::Option::None,
            };

            #from_group

            fn client(handle: #runtime::node::GroupHandle<Self>) -> Self::Client {
                #runtime::node::MachineClient::new(handle)
            }
        }
    }
}

/// A method for each variant, with the variant's fields as its arguments.
fn by_variant(commands: &TokenStream, variants: &[Variant]) -> TokenStream {
    let arms = variants.iter().map(|Variant { ident, method, fields, context }| {
        let locals: Vec<Ident> = (0..fields.len()).map(|index| format_ident!("argument{index}")).collect();
        let bound = fields.members().zip(&locals).map(|(member, local)| quote!(#member: #local));
        let ctx = context.then(|| quote!(ctx)).into_iter();
        let call = quote_spanned!(ident.span()=> Self::#method(self, #(#locals,)* #(#ctx)*));
        quote!(#commands::#ident { #(#bound),* } => #call)
    });
    if variants.is_empty() { quote!(match command {}) } else { quote!(match command { #(#arms),* }) }
}
