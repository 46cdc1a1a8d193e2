//! Rules for `#[mosaik::node]`.

use syn::Type;

use crate::{
    diag::Diag,
    model::{self, Node, Shape, Source},
};

/// Flags that every generated main has; a role's own flag of that name could not be told apart.
const RESERVED: &[&str] = &[
    "network",
    "secret",
    "bootstrap",
    "listen",
    "data-dir",
    "tag",
    "log",
    "mdns",
    "metrics",
    "for",
    "help",
    "version",
];

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
    for field in &node.fields {
        if let Type::Reference(ty) = &field.ty {
            diag.error(ty, "a role owns its fields: it lives as long as its node");
        }
        let Source::Arg { shape, default } = &field.source else { continue };
        let flag = model::kebab(&model::plain(&field.ident));
        if RESERVED.contains(&flag.as_str()) {
            diag.error(
                &field.ident,
                format!(
                    "`--{flag}` is a flag of every generated main: give the field another name, such as `{}_{}`",
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
