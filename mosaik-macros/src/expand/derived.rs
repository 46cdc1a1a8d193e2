//! `#[derive(StateMachine)]`: the impl of the trait in terms of two methods, and the client that all such machines share.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Type;

use super::machine::{from_group, group_of, settings};
use crate::{model::Derived, tokens::canonical};

pub(crate) fn derived(derived: &Derived) -> TokenStream {
    let Derived { runtime, ident, .. } = derived;
    let or_unit = |ty: &Option<Type>| ty.as_ref().map_or_else(|| quote!(()), |ty| quote!(#ty));
    let (command, output) = (or_unit(&derived.command), or_unit(&derived.output));
    let (query, answer) = (or_unit(&derived.query), or_unit(&derived.answer));
    let ty: Type = syn::parse_quote!(#ident);
    let (group, from_group) = (group_of(runtime, &ty), from_group(runtime, &ty));
    let (version, snapshots) =
        settings(runtime, derived.version.as_ref(), derived.snapshots.as_ref(), &derived.migrations);
    let shape = format!("command {}->{}", canonical(command.clone()), canonical(output.clone()));
    let (applied, answered) = match &derived.query {
        _ if derived.broken => (quote!(::core::unreachable!()), quote!(::core::unreachable!())),
        Some(_) => (quote!(Self::on_command(self, command, ctx)), quote!(Self::on_query(self, query))),
        None => (quote!(Self::on_command(self, command, ctx)), quote!(query)),
    };
    quote! {
        #[automatically_derived]
        #[allow(unused_variables)]
        impl #runtime::groups::StateMachine for #ident {
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
        impl #runtime::node::Declared for #ident {
            type Client = #runtime::node::MachineClient<Self>;
            const MACHINE: #runtime::node::MachineDecl = #runtime::node::MachineDecl {
                group: #group,
                version: <Self as #runtime::groups::StateMachine>::VERSION,
                schema: <Self as #runtime::groups::StateMachine>::SCHEMA,
                commands: &[],
                queries: &[],
            };

            #from_group

            fn client(handle: #runtime::node::GroupHandle<Self>) -> Self::Client {
                #runtime::node::MachineClient::new(handle)
            }
        }
    }
}
