//! Rules for `#[mosaik::test]`.

use syn::{Expr, ExprLit, FnArg, Lit};

use crate::{diag::Diag, model::Test, tokens::canonical};

pub(crate) fn test(test: &Test, diag: &Diag) {
    let function = &test.function;
    if function.asyncness.is_none() {
        diag.error(function.fn_token, "a test of an app is async: `async fn name(cluster: Cluster<App>)`");
    }
    super::no_generics(&function.generics, "a test has no generic parameters: nobody could choose them", diag);
    let mut inputs = function.inputs.iter();
    match inputs.next() {
        None => {
            diag.error_at(test.at, "the test takes the app that it is about: `async fn name(cluster: Cluster<App>)`");
        }
        Some(FnArg::Receiver(receiver)) => diag.error(receiver, "a test is a free function"),
        Some(FnArg::Typed(_)) => {}
    }
    for extra in inputs {
        diag.error(extra, "a test takes the cluster and nothing else");
    }
    match &test.seeds {
        Some(Expr::Lit(ExprLit { lit: Lit::Int(number), .. })) if is_zero(number) => {
            diag.error(number, "with zero seeds the test would never run");
        }
        Some(Expr::Lit(ExprLit { lit: Lit::Int(_), .. })) => {}
        Some(Expr::Lit(other)) => diag.error(other, "expected a number of seeds: `seeds = 200`"),
        _ => {}
    }
    let mut seen = Vec::new();
    for (_, word) in &test.faults {
        if seen.contains(&word) {
            diag.error(word, format!("`{word}` is given twice"));
        }
        seen.push(word);
    }
    let mut roles = Vec::new();
    for (role, _) in &test.with {
        let name = canonical(quote::quote!(#role));
        if roles.contains(&name) {
            diag.error(role, format!("`{name}` is given twice"));
        }
        roles.push(name);
    }
}

fn is_zero(number: &syn::LitInt) -> bool {
    number.base10_parse::<u64>().is_ok_and(|number| number == 0)
}
