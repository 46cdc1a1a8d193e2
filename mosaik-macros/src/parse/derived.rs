//! Reads `#[derive(StateMachine)]` and its `#[state_machine(..)]`. The fields are the business of `#[mosaik::group]`, which
//! every machine has.

use proc_macro2::TokenStream;
use syn::{Data, DeriveInput, Type};

use super::{args::Args, grammar};
use crate::{
    diag::Diag,
    model::{self, Derived, Variant},
};

pub(crate) fn derived(item: TokenStream, diag: &Diag) -> Option<Derived> {
    let item: DeriveInput = match syn::parse2(item) {
        Ok(item) => item,
        Err(error) => {
            diag.syntax(error);
            return None;
        }
    };
    if let Data::Union(data) = &item.data {
        diag.error(data.union_token, "a machine is a struct or an enum, and so are its commands an enum");
        return None;
    }
    let mut helpers = item.attrs.iter().filter(|attribute| attribute.path().is_ident("state_machine"));
    let Some(helper) = helpers.next() else {
        diag.error(
            &item.ident,
            "say what its commands are: `#[state_machine(command = Command, output = Output)]` below the derive; on the enum of \
             commands, whose they are: `#[state_machine(machine = Machine, output = Output)]`",
        );
        return None;
    };
    let args = Args::parse(&grammar::DERIVED, super::inside(helper, diag), Some(helper), diag);
    if let Some(second) = helpers.next() {
        diag.error(second, "put all keys into one #[state_machine(..)]");
    }
    let variants = match (args.key("machine"), args.key("command")) {
        (Some(machine), Some(_)) => {
            diag.error(
                machine,
                "`machine` goes on the enum of commands, `command` on the machine: keep one of the two",
            );
            None
        }
        (Some(machine), None) => match &item.data {
            Data::Enum(data) => Some(data.variants.iter().filter_map(|each| variant(each, diag)).collect()),
            _ => {
                diag.error(machine, "`machine` goes on the enum of its commands, which has a variant for each");
                None
            }
        },
        (None, None) => {
            diag.error(helper, "say what its commands are: `command = Command`, a type of yours, usually an enum");
            None
        }
        (None, Some(_)) => None,
    };
    if variants.is_none()
        && let Data::Enum(data) = &item.data
    {
        for attribute in data.variants.iter().flat_map(|variant| &variant.attrs) {
            if attribute.path().is_ident("state_machine") {
                diag.error(
                    attribute,
                    "this is for the enum of commands, which says whose they are: `machine = Machine`",
                );
            }
        }
    }
    match (args.key("query"), args.key("answer")) {
        (Some(query), None) => diag.error(query, "say what a query gives back: `answer = Answer`"),
        (None, Some(answer)) => diag.error(answer, "say what is asked: `query = Query`"),
        _ => {}
    }
    let ident = &item.ident;
    let own: Type = syn::parse_quote!(#ident);
    let of_variants = variants.is_some();
    Some(Derived {
        runtime: model::runtime_crate(args.path("crate")),
        command: if of_variants { Some(own.clone()) } else { args.ty("command").cloned() },
        machine: args.ty("machine").filter(|_| of_variants).cloned().unwrap_or(own),
        variants,
        output: args.ty("output").cloned(),
        query: args.ty("query").cloned(),
        answer: args.ty("answer").cloned(),
        version: args.expr("version").cloned(),
        snapshots: args.expr("snapshots").cloned(),
        migrations: args.migrations("migrate_from"),
        generics: item.generics,
        broken: false,
    })
}

/// A command and the method that stands for it.
fn variant(variant: &syn::Variant, diag: &Diag) -> Option<Variant> {
    let before = diag.count();
    let mut context = false;
    for attribute in variant.attrs.iter().filter(|attribute| attribute.path().is_ident("state_machine")) {
        let args = Args::parse(&grammar::VARIANT, super::inside(attribute, diag), Some(attribute), diag);
        context |= args.key("context").is_some();
    }
    if let Some(cfg) = variant.attrs.iter().find(|attribute| attribute.path().is_ident("cfg")) {
        diag.error(cfg, "a command cannot depend on `cfg`: members of one group would not understand each other");
    }
    let name = model::snake(&model::plain(&variant.ident));
    let Some(method) = model::method_ident(&name, variant.ident.span()) else {
        diag.error(&variant.ident, format!("no method can be called `{name}`, so no command with a method can"));
        return None;
    };
    (diag.count() == before).then(|| Variant {
        method,
        ident: variant.ident.clone(),
        fields: variant.fields.clone(),
        context,
    })
}
