//! Fields that are bytes: to serde a `Vec<u8>` is a sequence of numbers, each of which is encoded by itself. Fields of declared
//! types are written as bytes instead, which is the same on the wire in postcard and some twenty times faster.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Field, Fields, Item, parse_quote};

use crate::{parse, tokens::canonical};

/// `#[serde(with = "..")]` for a field of this type, if it is one of bytes.
pub(super) fn attribute(runtime: &TokenStream, ty: &impl ToTokens) -> Option<TokenStream> {
    let text = canonical(ty.to_token_stream());
    let is_bytes = matches!(text.as_str(), "Vec<u8>" | "Option<Vec<u8>>" | "std::vec::Vec<u8>" | "alloc::vec::Vec<u8>");
    let with = canonical(quote!(#runtime::__private::byte_field));
    is_bytes.then(|| quote!(#[serde(with = #with)]))
}

/// The struct or enum with that attribute on its fields of bytes; as it was written if there are none.
pub(super) fn fields(runtime: &TokenStream, item: TokenStream) -> TokenStream {
    let mut changed = false;
    let mut each = |fields: &mut Fields| fields.iter_mut().for_each(|field| changed |= mark(runtime, field));
    let marked = match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Struct(mut item)) => {
            each(&mut item.fields);
            item.into_token_stream()
        }
        Ok(Item::Enum(mut item)) => {
            item.variants.iter_mut().for_each(|variant| each(&mut variant.fields));
            item.into_token_stream()
        }
        _ => return item,
    };
    if changed { marked } else { item }
}

fn mark(runtime: &TokenStream, field: &mut Field) -> bool {
    let keys = serde_keys(field);
    let decided =
        |key: &String| matches!(key.as_str(), "with" | "serialize_with" | "deserialize_with" | "skip" | "flatten");
    let Some(attribute) = attribute(runtime, &field.ty).filter(|_| !keys.iter().any(decided)) else { return false };
    field.attrs.push(parse_quote!(#attribute));
    // A field with a function of its own must be there, unless it says otherwise.
    let is_option = canonical(field.ty.to_token_stream()).starts_with("Option");
    if is_option && !keys.iter().any(|key| key == "default") {
        field.attrs.push(parse_quote!(#[serde(default)]));
    }
    true
}

/// The keys of the field's own serde attributes.
fn serde_keys(field: &Field) -> Vec<String> {
    let mut keys = Vec::new();
    parse::serde_keys(&field.attrs, |meta| {
        keys.push(canonical(meta.path.to_token_stream()));
        Ok(false)
    });
    keys
}
