//! Rules for `#[mosaik::group]`.

use syn::{Expr, ExprLit, ExprUnary, Lit, Type, UnOp, visit::Visit};

use crate::{
    diag::Diag,
    model::{Group, StateField},
};

/// More founders than this never agree on anything quickly, and nobody needs them.
const MAX_SIZE: u32 = 255;

pub(crate) fn group(group: &Group, diag: &Diag) {
    super::no_generics(
        &group.generics,
        "a machine is one concrete type: its name and its key say which group this is",
        diag,
    );
    if let Err(problem) = super::printable(&group.name.text) {
        diag.error_at(group.name.span, format!("the name of the group {problem}"));
    }
    super::grants(&group.member, diag);
    super::grants(&group.call, diag);
    super::labels(group.label.as_slice(), diag);
    if let Some(size) = &group.size {
        let usage = format!("`size` is the number of founders, from 1 to {MAX_SIZE}, usually 3 or 5");
        match size {
            Expr::Lit(ExprLit { lit: Lit::Int(number), .. })
                if number.base10_parse().is_ok_and(|number: u32| (1..=MAX_SIZE).contains(&number)) => {}
            Expr::Lit(_) | Expr::Unary(ExprUnary { op: UnOp::Neg(_), .. }) => diag.error(size, usage),
            _ => {}
        }
    }
    state(&group.fields, diag);
}

/// The fields of a machine: what has a random order or cannot be copied to another member is not state.
fn state(fields: &[StateField], diag: &Diag) {
    for field in fields.iter().filter(|field| !field.excused) {
        unordered(&field.ty, "on the field", diag);
        References { diag }.visit_type(&field.ty);
    }
}

/// Reports collections whose order differs from member to member; `place` is where the excuse goes.
pub(super) fn unordered(ty: &Type, place: &'static str, diag: &Diag) {
    Unordered { place, diag }.visit_type(ty);
}

struct Unordered<'a> {
    place: &'static str,
    diag: &'a Diag,
}

impl<'ast> Visit<'ast> for Unordered<'_> {
    fn visit_path_segment(&mut self, segment: &'ast syn::PathSegment) {
        let ordered = match segment.ident.to_string().as_str() {
            "HashMap" => Some("BTreeMap"),
            "HashSet" => Some("BTreeSet"),
            _ => None,
        };
        if let Some(ordered) = ordered {
            let found = &segment.ident;
            self.diag.error(
                found,
                format!(
                    "a `{found}` has another order at every member, so what is read from it can differ: use a \
                     `{ordered}`; if its order is never seen, say so {}: `#[mosaik(nondeterministic = \"only looked up by \
                     key\")]`",
                    self.place
                ),
            );
        }
        syn::visit::visit_path_segment(self, segment);
    }
}

struct References<'a> {
    diag: &'a Diag,
}

impl<'ast> Visit<'ast> for References<'_> {
    fn visit_type(&mut self, ty: &'ast Type) {
        if let Type::Reference(reference) = ty {
            self.diag.error(reference, "a machine owns its state: it is kept, copied to other members and restored");
        }
        syn::visit::visit_type(self, ty);
    }
}
