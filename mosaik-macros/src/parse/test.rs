//! Reads `#[mosaik::test]` on an `async fn`.

use proc_macro2::{Span, TokenStream};
use syn::{Expr, ExprPath, Ident, ItemFn};

use super::{args::Args, grammar};
use crate::{
    diag::{Diag, closest, listed},
    model::{self, Test},
};

/// Kinds of faults, with the runtime's names for them.
const FAULTS: [(&str, &str); 3] = [("kill", "Kill"), ("partition", "Partition"), ("pause", "Pause")];

pub(crate) fn test(attribute: TokenStream, item: TokenStream, diag: &Diag) -> Option<Test> {
    let args = Args::parse(&grammar::TEST, attribute, None, diag);
    let item: ItemFn =
        super::item(grammar::TEST.name, "`async fn name(cluster: Cluster<App>)`", super::test_body(item), diag)?;
    Some(Test {
        runtime: model::runtime_crate(args.path("crate")),
        function: item.sig,
        seeds: args.expr("seeds").cloned(),
        faults: elements(&args, "faults", diag).into_iter().filter_map(|fault| kind(&fault, diag)).collect(),
        with: elements(&args, "with", diag).into_iter().filter_map(|count| counted(&count, diag)).collect(),
        durable: args.key("durable").is_some(),
        at: Span::call_site(),
    })
}

fn elements(args: &Args, key: &str, diag: &Diag) -> Vec<Expr> {
    match args.expr(key) {
        None => Vec::new(),
        Some(Expr::Array(array)) => array.elems.iter().cloned().collect(),
        Some(other) => {
            let known = grammar::TEST.keys.iter().find(|known| known.name == key);
            let usage = known.map_or_else(String::new, |known| known.kind.usage(known.name));
            diag.error(other, format!("expected {usage}"));
            Vec::new()
        }
    }
}

fn kind(fault: &Expr, diag: &Diag) -> Option<(&'static str, Ident)> {
    let word = match fault {
        Expr::Path(path) => path.path.get_ident().cloned(),
        _ => None,
    };
    let known = word.as_ref().and_then(|word| FAULTS.iter().find(|(name, _)| word == name));
    if let (Some((_, kind)), Some(word)) = (known, &word) {
        return Some((kind, word.clone()));
    }
    let names = FAULTS.map(|(name, _)| name);
    let guess = word.and_then(|word| closest(&word.to_string(), names));
    let hint = guess.map_or_else(String::new, |best| format!("did you mean `{best}`? "));
    diag.error(fault, format!("{hint}the kinds of faults are {}", listed(names)));
    None
}

fn counted(count: &Expr, diag: &Diag) -> Option<(ExprPath, Expr)> {
    if let Expr::Assign(assign) = count
        && let Expr::Path(role) = &*assign.left
    {
        return Some((role.clone(), (*assign.right).clone()));
    }
    diag.error(count, "say how many nodes there are of a role: `Sensor = 3`");
    None
}
