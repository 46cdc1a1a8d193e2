//! Rules for `#[mosaik::node]`.

use syn::{Expr, GenericArgument, Ident, PathArguments, PathSegment, Type};

use crate::{
    diag::{Diag, closest},
    model::{self, Field, Node, Setting, Shape, Source, To},
};

/// Flags that every generated main has; a role's own flag of that name could not be told apart.
const RESERVED: &[&str] = &[
    "network",
    "secret",
    "bootstrap",
    "listen",
    "data-dir",
    "local-lane",
    "tag",
    "log",
    "mdns",
    "metrics",
    "for",
    "help",
    "version",
];

/// The same of a main that runs a role with `attest`.
const ATTESTING: &[&str] = &["measurements", "collateral"];

pub(crate) fn node(node: &Node, diag: &Diag) {
    super::no_generics(
        &node.generics,
        "a role is one concrete type: it has one name on the command line and in the graph",
        diag,
    );
    super::command_name(&node.name, "a role", diag);
    if node.name.text == "help" {
        diag.error_at(node.name.span, "`run help` prints the help: give the role another name with `name = \"..\"`");
    }
    super::tags(&node.tags, diag);
    super::labels(&node.clears, diag);
    if let Some(file) = node.attest.as_ref().filter(|file| file.value().trim().is_empty()) {
        diag.error(
            file,
            "name the file that says what may run, which is read when the role starts: `attest = \"measurements.toml\"`",
        );
    }
    for field in &node.fields {
        if let Type::Reference(ty) = &field.ty {
            diag.error(ty, "a role owns its fields: it lives as long as its node");
        }
        if let Source::Endpoint { settings, only_if } = &field.source {
            endpoint(node, field, settings, only_if.as_ref(), diag);
        }
        let Source::Arg { shape, default } = &field.source else { continue };
        let flag = model::kebab(&model::plain(&field.ident));
        let attests = node.attest.is_some() && ATTESTING.contains(&flag.as_str());
        if attests || RESERVED.contains(&flag.as_str()) {
            let of = if attests { " of a role with `attest`" } else { "" };
            diag.error(
                &field.ident,
                format!(
                    "`--{flag}` is a flag of every generated main{of}: give the field another name, such as `{}_{}`",
                    node.name.text.replace('-', "_"),
                    model::plain(&field.ident)
                ),
            );
        }
        if default.is_some() && matches!(shape, Shape::Optional | Shape::Many) {
            diag.error(
                &field.ty,
                "without its flag this field is empty (`None` or no items): drop `default`, or the `Option` or `Vec`",
            );
        }
    }
}

/// The types of endpoints, by the names that they have in the prelude.
const ENDPOINTS: &[&str] = &["Producer", "Consumer", "Replica", "Client", "Primary", "StoreReplica"];

fn endpoint(node: &Node, field: &Field, settings: &[Setting], only_if: Option<&Expr>, diag: &Diag) {
    for setting in settings {
        if let To::Predicate { fields, .. } = &setting.to {
            fields.iter().for_each(|name| known(node, &setting.key.to_string(), name, diag));
        }
        if let To::Filter { value, .. } = &setting.to
            && let Some(name) = model::field_of(value)
        {
            known(node, "filter", name, diag);
        }
    }
    let Some(condition) = only_if else {
        if let Some(inner) = optional(&field.ty) {
            diag.error(
                &field.ty,
                format!(
                    "say when the `{inner}` is there: #[mosaik(only_if = flag)], where `flag` is a field of type `bool`"
                ),
            );
        }
        return;
    };
    let mut names: Vec<&Ident> = Vec::new();
    match condition {
        Expr::Call(call) => names.extend(call.args.iter().filter_map(ident)),
        Expr::Unary(not) => names.extend(ident(&not.expr)),
        other => names.extend(ident(other)),
    }
    names.into_iter().for_each(|name| known(node, "only_if", name, diag));
}

fn ident(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Path(path) => path.path.get_ident(),
        _ => None,
    }
}

/// What an option hands over exists before any endpoint is opened.
fn known(node: &Node, key: &str, name: &Ident, diag: &Diag) {
    let is_value = |field: &&Field| !matches!(field.source, Source::Endpoint { .. });
    match node.fields.iter().find(|field| field.ident == *name) {
        Some(field) if is_value(&field) => {}
        Some(_) => diag.error(
            name,
            format!("`{name}` is an endpoint, which is not open yet: `{key}` takes flags and state of the role"),
        ),
        None => {
            let names: Vec<String> = node.fields.iter().filter(is_value).map(|field| field.ident.to_string()).collect();
            let guess = closest(&name.to_string(), names.iter().map(String::as_str));
            let hint = guess.map_or_else(String::new, |best| format!(", did you mean `{best}`?"));
            diag.error(name, format!("the role has no field `{name}`{hint}"));
        }
    }
}

/// The name of the endpoint in an `Option`, as far as it can be told from how the type is written.
fn optional(ty: &Type) -> Option<String> {
    let last = |ty: &Type| match ty {
        Type::Path(path) => path.path.segments.last().cloned(),
        _ => None,
    };
    let PathSegment { ident, arguments: PathArguments::AngleBracketed(list) } = last(ty)? else { return None };
    let Some(GenericArgument::Type(inner)) = list.args.first().filter(|_| ident == "Option") else { return None };
    let inner = last(inner)?.ident.to_string();
    ENDPOINTS.contains(&inner.as_str()).then_some(inner)
}
