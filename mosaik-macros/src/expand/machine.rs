//! `#[mosaik::state_machine]`: the types of commands, queries and what they give back, and the impl of the trait that takes
//! them apart again. What puts them together is in `client`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Expr, Type, spanned::Spanned};

use super::{bytes, client, states};
use crate::{
    model::{Machine, Method, MethodKind, Param, Stored, plain},
    tokens::canonical,
};

/// The names of the generated types.
pub(super) struct Names {
    pub(super) command: Ident,
    pub(super) output: Ident,
    pub(super) query: Ident,
    pub(super) answer: Ident,
    pub(super) client: Ident,
}

impl Names {
    fn of(machine: &Ident) -> Self {
        let name = |suffix: &str| format_ident!("{}{}", plain(machine), suffix, span = Span::call_site());
        Self {
            command: name("Command"),
            output: name("Output"),
            query: name("Query"),
            answer: name("Answer"),
            client: name("Client"),
        }
    }
}

pub(crate) fn machine(machine: &Machine) -> TokenStream {
    let runtime = &machine.runtime;
    let names = Names::of(&machine.ident);
    let (commands, queries): (Vec<&Method>, Vec<&Method>) =
        machine.methods.iter().partition(|method| method.kind == MethodKind::Command);
    let word = plain(&machine.ident);
    let (asked, answered) = states::variants(machine);
    let types = [
        enumeration(runtime, &names.command, &format!("A command of [`{word}`]."), &commands, calls, None),
        enumeration(
            runtime,
            &names.output,
            &format!("What a command of [`{word}`] gives back."),
            &commands,
            results,
            None,
        ),
        enumeration(runtime, &names.query, &format!("A query of [`{word}`]."), &queries, calls, asked),
        enumeration(
            runtime,
            &names.answer,
            &format!("What a query of [`{word}`] gives back."),
            &queries,
            results,
            answered,
        ),
    ];
    let client = client::client(machine, &names);
    let implementation = implementation(machine, &names, &commands, &queries);
    let declared = declared(machine, &names, &commands, &queries);
    quote!(#(#types)* #implementation #declared #client)
}

/// An enum with one variant per method, and perhaps one more.
fn enumeration(
    runtime: &TokenStream,
    name: &Ident,
    doc: &str,
    methods: &[&Method],
    variant: fn(&TokenStream, &Method) -> TokenStream,
    further: Option<TokenStream>,
) -> TokenStream {
    let serde = quote!(#runtime::__private::serde);
    let serde_path = canonical(serde.clone());
    let variants = methods.iter().map(|method| {
        let (docs, ident, inside) = (doc_of(method), &method.variant, variant(runtime, method));
        quote!(#[doc = #docs] #ident #inside)
    });
    let variants = variants.chain(further);
    quote! {
        #[doc = #doc]
        #[derive(#serde::Serialize, #serde::Deserialize)]
        #[serde(crate = #serde_path)]
        #[allow(dead_code, missing_docs, private_interfaces, unreachable_pub, clippy::all, clippy::pedantic)]
        pub enum #name { #(#variants),* }
    }
}

fn doc_of(method: &Method) -> String {
    if method.docs.is_empty() { format!("`{}`", plain(&method.signature.ident)) } else { method.docs.clone() }
}

fn calls(runtime: &TokenStream, method: &Method) -> TokenStream {
    let fields = arguments(method).map(|(ident, param)| {
        let (doc, ty) = (format!("The argument `{}`.", plain(ident)), stored(param));
        let bytes = match &param.stored {
            Stored::Borrowed(inner) if canonical(quote!(#inner)) == "[u8]" => {
                bytes::attribute(runtime, &quote!(Vec<u8>))
            }
            _ => bytes::attribute(runtime, &ty),
        };
        quote!(#[doc = #doc] #bytes #ident: #ty)
    });
    quote!({ #(#fields),* })
}

fn results(runtime: &TokenStream, method: &Method) -> TokenStream {
    let output = &method.output;
    let bytes = bytes::attribute(runtime, output);
    quote!((#bytes #output))
}

/// The parameters that travel.
pub(super) fn arguments(method: &Method) -> impl Iterator<Item = (&Ident, &Param)> {
    let travels = |param: &&Param| !matches!(param.stored, Stored::Context);
    method.params.iter().filter(travels).filter_map(|param| Some((param.ident.as_ref()?, param)))
}

fn stored(param: &Param) -> TokenStream {
    let ty = &param.ty;
    match &param.stored {
        Stored::Borrowed(inner) => quote_spanned!(inner.span()=> <#inner as ::std::borrow::ToOwned>::Owned),
        _ => quote!(#ty),
    }
}

fn implementation(machine: &Machine, names: &Names, commands: &[&Method], queries: &[&Method]) -> TokenStream {
    let Machine { runtime, ty, .. } = machine;
    let Names { command, output, query, answer, .. } = names;
    let group = group_of(runtime, ty);
    let (version, snapshots) =
        settings(runtime, machine.version.as_ref(), machine.snapshots.as_ref(), &machine.migrations);
    let shape = shape(commands) + &states::shape(machine);
    let applied = commands.iter().map(|method| match &machine.states {
        Some(states) if !method.steps.is_empty() && !method.broken => {
            states::arm(machine, states, method, (command, output))
        }
        _ => arm(method, command, output),
    });
    let answered = queries.iter().map(|method| arm(method, query, answer)).chain(states::asked(machine, names));
    let (applied, answered): (Vec<_>, Vec<_>) = (applied.collect(), answered.collect());
    let none = |arms: &[TokenStream]| arms.is_empty().then(|| quote!(_ => ::core::unreachable!()));
    let (no_command, no_query) = (none(&applied), none(&answered));
    quote! {
        #[automatically_derived]
        #[allow(unused_variables, deprecated, clippy::all, clippy::pedantic)]
        impl #runtime::groups::StateMachine for #ty {
            type Command = #command;
            type Output = #output;
            type Query = #query;
            type QueryResult = #answer;
            const NAME: &'static str = #group.name;
            #version
            const SCHEMA: ::core::option::Option<[u8; 32]> =
                ::core::option::Option::Some(*#runtime::node::Schema::of(#shape).as_bytes());

            fn apply(&mut self, call: #command, ctx: &#runtime::groups::ApplyContext) -> #output {
                match call { #(#applied,)* #no_command }
            }

            fn query(&self, call: #query) -> #answer {
                match call { #(#answered,)* #no_query }
            }

            #snapshots
        }
    }
}

/// The group's declaration; that it is missing is reported on the machine's name.
pub(super) fn group_of(runtime: &TokenStream, ty: &Type) -> TokenStream {
    let runtime = super::at(runtime, ty.span());
    quote_spanned!(ty.span()=> <#ty as #runtime::node::GroupType>::GROUP)
}

/// What the group's declaration gives to the machine's; `begun` makes the machine to begin with of the group's.
pub(super) fn from_group(
    runtime: &TokenStream,
    ty: &Type,
    begun: impl FnOnce(&TokenStream) -> TokenStream,
) -> TokenStream {
    let moved = super::at(runtime, ty.span());
    let of = quote_spanned!(ty.span()=> <#ty as #moved::node::GroupType>);
    let initial = begun(&quote!(#of::initial()));
    quote! {
        fn key() -> ::core::result::Result<#runtime::groups::GroupKey, #runtime::node::KeyError> {
            #of::key()
        }

        fn initial() -> Self {
            #initial
        }
    }
}

/// Version and snapshots, which all machines have in common.
pub(super) fn settings(
    runtime: &TokenStream,
    version: Option<&Expr>,
    snapshots: Option<&Expr>,
    migrations: &[(Expr, Expr)],
) -> (TokenStream, TokenStream) {
    let version = version.map(|version| quote!(const VERSION: u32 = #version;));
    let snapshots = match snapshots {
        Some(snapshots) => quote!(#snapshots),
        None => quote! {{
            #[allow(unused_imports)]
            use #runtime::__private::{SnapshotsCloned as _, SnapshotsNone as _, SnapshotsSerde as _};
            (&&&#runtime::__private::Probe::<Self>::NEW).snapshots()
        }},
    };
    let migrations = migrations.iter().map(|(version, up)| quote_spanned!(up.span()=> .migrate_from(#version, #up)));
    let snapshots = quote! {
        #[allow(clippy::needless_borrow)]
        fn snapshots() -> #runtime::groups::Snapshots<Self> {
            #snapshots #(#migrations)*
        }
    };
    (version.unwrap_or_default(), snapshots)
}

/// What members must agree on: names, argument types and results of all commands in order, as deep as the tokens go.
fn shape(commands: &[&Method]) -> String {
    let described: Vec<String> = commands
        .iter()
        .map(|method| {
            let arguments: Vec<String> = arguments(method)
                .map(|(ident, param)| {
                    let ty = &param.ty;
                    format!("{}:{}", plain(ident), canonical(quote!(#ty)))
                })
                .collect();
            let output = method.returned.as_ref().unwrap_or(&method.output);
            format!("{}({})->{}", plain(&method.signature.ident), arguments.join(","), canonical(quote!(#output)))
        })
        .collect();
    format!("commands{{{}}}", described.join(","))
}

/// One arm of a dispatch: from the variant of a call to the variant of its result.
fn arm(method: &Method, call: &Ident, result: &Ident) -> TokenStream {
    let (variant, ident) = (&method.variant, &method.signature.ident);
    if method.broken {
        return quote!(#call::#variant { .. } => ::core::unreachable!());
    }
    let mut bound = Vec::new();
    let given = method.params.iter().enumerate().map(|(index, param)| {
        let span = param.ty.span();
        let local = Ident::new(&format!("argument{index}"), span.resolved_at(Span::mixed_site()));
        match (&param.stored, &param.ident) {
            (Stored::Context, _) | (_, None) => quote!(ctx),
            (stored, Some(ident)) => {
                bound.push(quote!(#ident: #local));
                match stored {
                    Stored::Borrowed(_) => quote_spanned!(span=> ::core::borrow::Borrow::borrow(&#local)),
                    _ => quote!(#local),
                }
            }
        }
    });
    let given: Vec<TokenStream> = given.collect();
    quote!(#call::#variant { #(#bound),* } => #result::#variant(Self::#ident(self, #(#given),*)))
}

fn declared(machine: &Machine, names: &Names, commands: &[&Method], queries: &[&Method]) -> TokenStream {
    let Machine { runtime, ty, .. } = machine;
    let client = &names.client;
    let (group, from_group) =
        (group_of(runtime, ty), from_group(runtime, ty, |initial| states::initial(machine, initial)));
    let ((states, complete), time_outs) = (states::declared(machine), states::called(machine, names));
    let list = |methods: &[&Method]| {
        let entries = methods.iter().map(|method| {
            let (name, docs) = (plain(&method.signature.ident), &method.docs);
            quote!(#runtime::node::MethodDecl { name: #name, doc: #docs })
        });
        quote!(&[#(#entries),*])
    };
    let (commands, queries) = (list(commands), list(queries));
    quote! {
        #complete

        #[automatically_derived]
        #[allow(private_interfaces, clippy::all, clippy::pedantic)]
        impl #runtime::node::Declared for #ty {
            type Client = #client;
            const MACHINE: #runtime::node::MachineDecl = #runtime::node::MachineDecl {
                group: #group,
                version: <Self as #runtime::groups::StateMachine>::VERSION,
                schema: <Self as #runtime::groups::StateMachine>::SCHEMA,
                commands: #commands,
                queries: #queries,
                states: #states,
            };

            #from_group

            #time_outs

            fn client(handle: #runtime::node::GroupHandle<Self>) -> #client {
                #client { handle }
            }
        }
    }
}
