//! Reads `#[derive(StateMachine)]` and its `#[state_machine(..)]`. The fields are the business of `#[mosaik::group]`, which
//! every machine has.

use proc_macro2::TokenStream;
use syn::{Data, DeriveInput};

use super::{args::Args, grammar};
use crate::{
    diag::Diag,
    model::{self, Derived},
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
        diag.error(data.union_token, "a machine is a struct or an enum");
        return None;
    }
    let mut helpers = item.attrs.iter().filter(|attribute| attribute.path().is_ident("state_machine"));
    let Some(helper) = helpers.next() else {
        diag.error(
            &item.ident,
            "say what its commands are: `#[state_machine(command = Command, output = Output)]` below the derive",
        );
        return None;
    };
    let args = Args::parse(&grammar::DERIVED, super::inside(helper, diag), Some(helper), diag);
    if let Some(second) = helpers.next() {
        diag.error(second, "put all keys into one #[state_machine(..)]");
    }
    if args.ty("command").is_none() {
        diag.error(helper, "say what its commands are: `command = Command`, a type of yours, usually an enum");
    }
    match (args.key("query"), args.key("answer")) {
        (Some(query), None) => diag.error(query, "say what a query gives back: `answer = Answer`"),
        (None, Some(answer)) => diag.error(answer, "say what is asked: `query = Query`"),
        _ => {}
    }
    Some(Derived {
        runtime: model::runtime_crate(args.path("crate")),
        command: args.ty("command").cloned(),
        output: args.ty("output").cloned(),
        query: args.ty("query").cloned(),
        answer: args.ty("answer").cloned(),
        version: args.expr("version").cloned(),
        snapshots: args.expr("snapshots").cloned(),
        migrations: args.migrations("migrate_from"),
        ident: item.ident,
        generics: item.generics,
        broken: false,
    })
}
