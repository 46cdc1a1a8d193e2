//! Reads `#[serde(..)]` attributes. What they write and do not read, or the other way round, cannot be carried: an error at the
//! attribute. What lies in functions (`with`, `serialize_with`) is found when a value is written.

use proc_macro2::TokenStream;
use syn::{Attribute, Fields, Ident, LitStr, Path, Token, Type, ext::IdentExt, meta::ParseNestedMeta};

use crate::{diag::Diag, model};

/// Shows every key of the `#[serde(..)]` attributes to a function, which says whether it has read the key's value.
pub(crate) fn serde_keys(
    attributes: &[syn::Attribute],
    mut read: impl FnMut(&syn::meta::ParseNestedMeta<'_>) -> syn::Result<bool>,
) {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        // Serde reports what is malformed here.
        let _ = attribute.parse_nested_meta(|meta| {
            if read(&meta)? {
                return Ok(());
            }
            if meta.input.peek(syn::Token![=]) {
                meta.value()?.parse::<syn::Expr>()?;
            } else if meta.input.peek(syn::token::Paren) {
                let inside;
                syn::parenthesized!(inside in meta.input);
                inside.parse::<TokenStream>()?;
            }
            Ok(())
        });
    }
}

/// What the attributes of one field, variant or type say of its two directions.
#[derive(Default)]
struct Directions {
    skip: bool,
    default: bool,
    skip_serializing: Option<Path>,
    skip_serializing_if: Option<Path>,
    skip_deserializing: Option<Path>,
    /// The names that it is written and read by, if they are given apart, and where.
    renamed: Option<(Path, [Option<LitStr>; 2])>,
    aliases: Vec<String>,
}

impl Directions {
    fn read(attributes: &[Attribute]) -> Self {
        let mut own = Self::default();
        serde_keys(attributes, |meta| {
            let path = || Some(meta.path.clone());
            let Some(key) = meta.path.get_ident().map(Ident::to_string) else { return Ok(false) };
            match key.as_str() {
                "skip" => own.skip = true,
                "default" => own.default = true,
                "skip_serializing" => own.skip_serializing = path(),
                "skip_serializing_if" => own.skip_serializing_if = path(),
                "skip_deserializing" => own.skip_deserializing = path(),
                "alias" => {
                    own.aliases.push(meta.value()?.parse::<LitStr>()?.value());
                    return Ok(true);
                }
                "rename" | "rename_all" | "rename_all_fields" if meta.input.peek(syn::token::Paren) => {
                    own.renamed = Some((meta.path.clone(), names(meta)?));
                    return Ok(true);
                }
                _ => {}
            }
            Ok(false)
        });
        own
    }

    /// Names that differ in the two directions; `plain` is the one that it has otherwise.
    fn names(&self, plain: &str, diag: &Diag) {
        let Some((at, [written, read])) = &self.renamed else { return };
        let name = |name: &Option<LitStr>| name.as_ref().map_or_else(|| plain.to_owned(), LitStr::value);
        let (written, read) = (name(written), name(read));
        if written != read && !self.aliases.contains(&written) {
            diag.error(
                at,
                format!("it is written as \"{written}\" and read as \"{read}\": give it one name for both directions"),
            );
        }
    }
}

/// `(serialize = "..", deserialize = "..")`.
fn names(meta: &ParseNestedMeta<'_>) -> syn::Result<[Option<LitStr>; 2]> {
    let mut names = [None, None];
    let inside;
    syn::parenthesized!(inside in meta.input);
    while !inside.is_empty() {
        let key = inside.call(Ident::parse_any)?;
        inside.parse::<Token![=]>()?;
        let value: LitStr = inside.parse()?;
        names[usize::from(key != "serialize")] = Some(value);
        if !inside.is_empty() {
            inside.parse::<Token![,]>()?;
        }
    }
    Ok(names)
}

/// Reports fields that are not carried both ways. The attributes are those of the type or variant that they are in.
pub(super) fn check_fields(container: &[Attribute], fields: &Fields, diag: &Diag) {
    let all_default = Directions::read(container).default;
    for field in fields {
        let own = Directions::read(&field.attrs);
        if own.skip {
            continue;
        }
        let missing = all_default || own.default || is_option(&field.ty);
        match (&own.skip_serializing, &own.skip_deserializing) {
            (Some(at), None) if !missing => diag.error(
                at,
                "the field is read, but not written, so that nothing could be read back: add `default`, or write `skip` if it \
                 is no part of the value",
            ),
            (None, Some(at)) => diag.error(
                at,
                "the field is written, but not read: every value would come back without it. Write `skip` if it is no part of \
                 the value",
            ),
            _ => {}
        }
        if let (Some(at), false) = (&own.skip_serializing_if, missing) {
            diag.error(at, "a value that leaves the field out could not be read back: add `default`");
        }
        if let Some(ident) = &field.ident {
            own.names(&model::plain(ident), diag);
        }
    }
}

/// Reports a type or variant that is not carried both ways by its own attributes.
pub(super) fn check_item(ident: &Ident, attributes: &[Attribute], is_variant: bool, diag: &Diag) {
    let own = Directions::read(attributes);
    own.names(&model::plain(ident), diag);
    if let (true, false, None, Some(at)) = (is_variant, own.skip, &own.skip_serializing, &own.skip_deserializing) {
        diag.error(at, "the variant is written, but not read: write `skip` if it is never sent");
    }
}

fn is_option(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Option"))
}
