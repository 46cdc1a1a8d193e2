//! Reads `#[mosaik::stream]`: the attribute, the serde derives and attributes below it, and the declared shape.

use proc_macro2::TokenStream;
use syn::{
    Attribute, Expr, ExprLit, Fields, Generics, Ident, Item, Lit, LitStr, Meta, Path, Token, punctuated::Punctuated,
};

use super::{args::Args, grammar, retain, serde};
use crate::{
    diag::Diag,
    model::{self, Name, Stream},
    tokens::canonical,
};

/// What `codec` may say, and the variants of the runtime's `Format`.
const CODECS: [(&str, &str); 2] = [("postcard", "Postcard"), ("messagepack", "MessagePack")];
const CODEC: &str = "the codec is \"postcard\" or \"messagepack\"; without `codec` it is what the type asks for";
/// What `evolve` may say, and the variants of the runtime's `Evolve`.
const RULES: [(&str, &str); 2] = [("strict", "Strict"), ("append", "Append")];
const RULE: &str = "a stream or a store evolves \"strict\" (not at all, the default) or \"append\" (new fields with a default, new \
                    variants)";

pub(crate) fn stream(attribute: TokenStream, item: TokenStream, diag: &Diag) -> Option<Stream> {
    let args = Args::parse(&grammar::STREAM, attribute, None, diag);
    let expected = "a struct or an enum";
    let (attributes, ident, generics, body) = match super::item::<Item>(grammar::STREAM.name, expected, item, diag)? {
        Item::Struct(item) => {
            if let (Some(of), false) = (args.ty("of"), matches!(item.fields, Fields::Unit)) {
                diag.error(
                    of,
                    format!(
                        "a stream `of` another type has no fields: write `struct {};`, or leave `of` out",
                        item.ident
                    ),
                );
            }
            serde::check_item(&item.ident, &item.attrs, false, diag);
            serde::check_fields(&item.attrs, &item.fields, diag);
            let body = format!("struct{}", fields(&item.fields, diag));
            (item.attrs, item.ident, item.generics, body)
        }
        Item::Enum(item) => {
            if let Some(of) = args.ty("of") {
                diag.error(of, format!("a stream `of` another type is declared by a struct: `struct {};`", item.ident));
            }
            serde::check_item(&item.ident, &item.attrs, false, diag);
            for variant in &item.variants {
                serde::check_item(&variant.ident, &variant.attrs, true, diag);
                serde::check_fields(&variant.attrs, &variant.fields, diag);
            }
            let body = variants(&item.variants, diag);
            (item.attrs, item.ident, item.generics, body)
        }
        other => {
            diag.error(super::header(&other), format!("{} goes on {expected}", grammar::STREAM.name));
            return None;
        }
    };
    Some(assemble(&args, &attributes, ident, generics, &body, diag))
}

fn assemble(
    args: &Args,
    attributes: &[Attribute],
    ident: Ident,
    generics: Generics,
    body: &str,
    diag: &Diag,
) -> Stream {
    let manual = match args.word("serde") {
        None => false,
        Some(word) if word == "manual" => true,
        Some(word) => {
            diag.error(word, "the only value of `serde` is `manual`: no serde derive is added");
            false
        }
    };
    let of = args.ty("of").cloned();
    if args.ty("owner").is_some() {
        if let Some(key) = args.key("retain") {
            diag.error(key, "a stream with an `owner` keeps its newest items in the group: leave `retain` out");
        }
        if let Some(key) = args.key("replicated") {
            diag.error(key, "all members of the `owner` publish the same sequence already: leave `replicated` out");
        }
        if let Some(key) = args.key("key") {
            diag.error(key, "the members of the `owner` do not look into items: leave `key` out");
        }
    }
    if let (Some(_), Some(key)) = (&of, args.key("serde")) {
        diag.error(key, "a stream of another type has no serde code of its own: leave `serde` out");
    }
    let codec = args.text("codec").and_then(|text| chosen(text, &CODECS, CODEC, diag));
    let evolve = evolve(args, diag);
    if let (Some("Append"), Some("Postcard"), Some(text)) = (evolve, codec, args.text("codec")) {
        diag.error(text, "what may grow is written with names: `evolve = \"append\"` goes with \"messagepack\"");
    }
    let derives = derived(attributes);
    let has = |name: &str| derives.iter().any(|path| path.segments.last().is_some_and(|last| last.ident == name));
    let own = SerdeAttributes::read(attributes);
    if let (Some(name), Some(rename)) = (args.text("name"), &own.rename)
        && name.value() != rename.value()
    {
        diag.error(
            rename,
            format!("the stream is named \"{}\" by #[mosaik::stream] already: keep one of the two", name.value()),
        );
    }
    // Some serde derive sees the item after us: without one, nobody would know the attribute.
    let follows = of.is_none() && (!manual || has("Serialize") || has("Deserialize"));
    let name = Name::new(args.text("name").or(own.rename.as_ref()), &ident, str::to_owned);
    Stream {
        runtime: model::runtime_crate(args.path("crate")),
        docs: model::docs(attributes),
        derives: ["Serialize", "Deserialize"]
            .into_iter()
            .filter(|name| of.is_none() && !manual && !has(name))
            .collect(),
        codec,
        evolve,
        replicated: replicated(args, diag),
        follows,
        of,
        sets_crate: follows && !own.has_crate,
        sets_rename: follows && own.rename.is_none(),
        produce: args.texts("produce").to_vec(),
        consume: args.texts("consume").to_vec(),
        label: args.text("label").cloned(),
        owner: args.ty("owner").cloned(),
        key: args.expr("key").cloned(),
        retain: args.expr("retain").and_then(|expr| retain::retain(expr, diag)),
        shape: format!("{}{body}", serde_tokens(attributes)),
        name,
        ident,
        generics,
    }
}

/// Whether every producer publishes the same sequence.
fn replicated(args: &Args, diag: &Diag) -> bool {
    match args.expr("replicated") {
        None => false,
        Some(Expr::Lit(ExprLit { lit: Lit::Bool(said), .. })) => said.value,
        Some(other) => {
            diag.error(
                other,
                "`replicated = true` says that every producer of the stream publishes the same items in the same order",
            );
            false
        }
    }
}

/// What `evolve` says.
pub(super) fn evolve(args: &Args, diag: &Diag) -> Option<&'static str> {
    args.text("evolve").and_then(|text| chosen(text, &RULES, RULE, diag))
}

/// What a text names, one of a few words.
fn chosen(text: &LitStr, words: &[(&str, &'static str)], usage: &str, diag: &Diag) -> Option<&'static str> {
    let named = words.iter().find(|(word, _)| *word == text.value()).map(|(_, variant)| *variant);
    if named.is_none() {
        diag.error(text, usage);
    }
    named
}

/// Every path in the `#[derive(..)]` attributes that stand below ours.
fn derived(attributes: &[Attribute]) -> Vec<Path> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("derive"))
        .filter_map(|attribute| attribute.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated).ok())
        .flatten()
        .collect()
}

/// What the user's own `#[serde(..)]` attributes on the type decide already.
#[derive(Default)]
struct SerdeAttributes {
    rename: Option<LitStr>,
    has_crate: bool,
}

impl SerdeAttributes {
    fn read(attributes: &[Attribute]) -> Self {
        let mut own = Self::default();
        super::serde_keys(attributes, |meta| {
            own.has_crate |= meta.path.is_ident("crate");
            let is_rename = meta.path.is_ident("rename") && meta.input.peek(Token![=]);
            if is_rename {
                own.rename = Some(meta.value()?.parse()?);
            }
            Ok(is_rename)
        });
        own
    }
}

/// The shape is what both ends must agree on: names, types and serde attributes of all fields and variants in order,
/// with the type's own name left out (the stream is known by its name). It goes as deep as the tokens do: a change
/// inside a field's type is seen where that type is declared, not here.
fn fields(fields: &Fields, diag: &Diag) -> String {
    let described = |fields: &Punctuated<syn::Field, Token![,]>| {
        let described: Vec<String> = fields
            .iter()
            .map(|field| {
                no_cfg(&field.attrs, diag);
                let ty = &field.ty;
                let name = field.ident.as_ref().map_or_else(String::new, |ident| format!("{}:", model::plain(ident)));
                format!("{}{name}{}", serde_tokens(&field.attrs), canonical(quote::quote!(#ty)))
            })
            .collect();
        described.join(",")
    };
    match fields {
        Fields::Named(named) => format!("{{{}}}", described(&named.named)),
        Fields::Unnamed(unnamed) => format!("({})", described(&unnamed.unnamed)),
        Fields::Unit => String::new(),
    }
}

fn variants(variants: &Punctuated<syn::Variant, Token![,]>, diag: &Diag) -> String {
    let described: Vec<String> = variants
        .iter()
        .map(|variant| {
            no_cfg(&variant.attrs, diag);
            let name = model::plain(&variant.ident);
            format!("{}{name}{}", serde_tokens(&variant.attrs), fields(&variant.fields, diag))
        })
        .collect();
    format!("enum{{{}}}", described.join(","))
}

/// `#[serde(..)]` attributes as text: they decide what is on the wire. Names alone do not.
fn serde_tokens(attributes: &[Attribute]) -> String {
    let texts: Vec<String> = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("serde"))
        .filter_map(|attribute| match &attribute.meta {
            Meta::List(list) => Some(list.tokens.clone()),
            _ => None,
        })
        .map(canonical)
        .filter(|text| !text.starts_with("rename") && !text.starts_with("crate"))
        .map(|text| format!("#[{text}]"))
        .collect();
    texts.concat()
}

fn no_cfg(attributes: &[Attribute], diag: &Diag) {
    for attribute in attributes {
        if attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr") {
            diag.error(
                attribute,
                "a stream has one shape: under `cfg`, two builds of one program would not understand each other",
            );
        }
    }
}
