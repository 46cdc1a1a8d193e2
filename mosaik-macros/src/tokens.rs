//! Works on token trees where a syntax tree would lose what the user wrote: takes our helper attributes out of an item
//! and leaves every other token as it is, prints types in one canonical spelling. Used by all stages; knows no rule.

use proc_macro2::{Delimiter, Group, Ident, Spacing, Span, TokenStream, TokenTree};

/// Helper attributes inside a `#[mosaik::node]` struct.
pub(crate) const FIELD_HELPERS: &[&str] = &["mosaik"];
/// Helper attributes inside a `#[mosaik::handlers]` impl.
pub(crate) const METHOD_HELPERS: &[&str] = &["on", "every", "start", "stop", "ready"];
/// Helper attributes inside a `#[mosaik::state_machine]` impl.
pub(crate) const MACHINE_HELPERS: &[&str] = &["command", "query", "transition", "mosaik"];

/// The item without the helper attributes on its members. Bodies of members are never looked into.
pub(crate) fn without_helpers(item: TokenStream, is_helper: &dyn Fn(&str) -> bool) -> TokenStream {
    map_members(item, &|members| strip(members, is_helper))
}

/// A struct or an enum without the helper attributes on its fields, whatever kind of fields they are.
pub(crate) fn without_field_helpers(item: TokenStream) -> TokenStream {
    let trees = strip(item, &|name| FIELD_HELPERS.contains(&name)).into_iter().map(|tree| match &tree {
        TokenTree::Group(group) if matches!(group.delimiter(), Delimiter::Brace | Delimiter::Parenthesis) => {
            regroup(group, without_field_helpers(group.stream()))
        }
        _ => tree,
    });
    trees.collect()
}

/// The item with every `fn` body emptied, so that unfinished code inside a body cannot keep the rest from being
/// understood.
pub(crate) fn without_bodies(item: TokenStream) -> TokenStream {
    map_members(item, &empty_bodies)
}

/// Applies `edit` to the contents of the item's braces.
fn map_members(item: TokenStream, edit: &dyn Fn(TokenStream) -> TokenStream) -> TokenStream {
    let mut trees: Vec<TokenTree> = item.into_iter().collect();
    if let Some(TokenTree::Group(group)) = trees.last()
        && group.delimiter() == Delimiter::Brace
    {
        let members = regroup(group, edit(group.stream()));
        trees.pop();
        trees.push(members);
    }
    trees.into_iter().collect()
}

fn strip(members: TokenStream, is_helper: &dyn Fn(&str) -> bool) -> TokenStream {
    let mut out = Vec::new();
    let mut trees = members.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let is_hash = matches!(&tree, TokenTree::Punct(punct) if punct.as_char() == '#');
        let name = trees.peek().filter(|_| is_hash).and_then(attribute_name);
        if name.as_deref().is_some_and(is_helper) {
            trees.next();
        } else if name.as_deref() == Some("cfg_attr") {
            let attribute = trees.next();
            if let Some(attribute) = attribute.and_then(|attribute| without_conditional(attribute, is_helper)) {
                out.extend([tree, attribute]);
            }
        } else {
            out.push(tree);
        }
    }
    out.into_iter().collect()
}

/// The brackets of a `cfg_attr` without the helper attributes in it; nothing if there were no others.
fn without_conditional(attribute: TokenTree, is_helper: &dyn Fn(&str) -> bool) -> Option<TokenTree> {
    let TokenTree::Group(brackets) = &attribute else { return Some(attribute) };
    let mut trees: Vec<TokenTree> = brackets.stream().into_iter().collect();
    let Some(TokenTree::Group(inside)) = trees.pop() else { return Some(attribute) };
    let mut parts: Vec<Vec<TokenTree>> = vec![Vec::new()];
    for tree in inside.stream() {
        match &tree {
            TokenTree::Punct(punct) if punct.as_char() == ',' => parts.push(Vec::new()),
            _ => parts.last_mut()?.push(tree),
        }
    }
    parts.retain(|part| !part.is_empty());
    let before = parts.len();
    let mut first = true;
    parts.retain(|part| {
        let condition = std::mem::take(&mut first);
        condition || !matches!(part.first(), Some(TokenTree::Ident(name)) if is_helper(&name.to_string()))
    });
    match parts.len() {
        left if left == before => Some(attribute),
        0 | 1 => None,
        _ => {
            let parts = parts.into_iter().map(|part| part.into_iter().collect::<TokenStream>());
            trees.push(regroup(&inside, quote::quote!(#(#parts),*)));
            Some(regroup(brackets, trees.into_iter().collect()))
        }
    }
}

/// The name of a one-word attribute, from the brackets after its `#`.
fn attribute_name(tree: &TokenTree) -> Option<String> {
    let TokenTree::Group(group) = tree else { return None };
    if group.delimiter() != Delimiter::Bracket {
        return None;
    }
    let mut trees = group.stream().into_iter();
    match (trees.next(), trees.next()) {
        (Some(TokenTree::Ident(name)), None | Some(TokenTree::Group(_))) => Some(name.to_string()),
        (Some(TokenTree::Ident(name)), Some(TokenTree::Punct(equals))) if equals.as_char() == '=' => {
            Some(name.to_string())
        }
        _ => None,
    }
}

fn empty_bodies(members: TokenStream) -> TokenStream {
    let mut in_fn = false;
    members
        .into_iter()
        .map(|tree| match &tree {
            TokenTree::Ident(word) if word == "fn" => {
                in_fn = true;
                tree
            }
            TokenTree::Group(group) if in_fn && group.delimiter() == Delimiter::Brace => {
                in_fn = false;
                regroup(group, TokenStream::new())
            }
            _ => tree,
        })
        .collect()
}

/// The bodies of an item's functions, each with the function's name.
pub(crate) fn bodies(item: TokenStream) -> Vec<(Ident, TokenStream)> {
    let Some(TokenTree::Group(group)) = item.into_iter().last() else { return Vec::new() };
    let mut bodies = Vec::new();
    let (mut name, mut after_fn) = (None, false);
    for tree in group.stream() {
        match tree {
            TokenTree::Ident(word) if after_fn => {
                name = Some(word);
                after_fn = false;
            }
            TokenTree::Ident(word) => after_fn = word == "fn",
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                bodies.extend(name.take().map(|name| (name, group.stream())));
            }
            _ => after_fn = false,
        }
    }
    bodies
}

/// The tokens moved to where an error about what follows them should be shown: an expression is marked from its first
/// token on.
pub(crate) fn at(tokens: TokenStream, span: Span) -> TokenStream {
    let moved = tokens.into_iter().map(|mut tree| {
        tree.set_span(span);
        tree
    });
    moved.collect()
}

fn regroup(group: &Group, stream: TokenStream) -> TokenTree {
    let mut new = Group::new(group.delimiter(), stream);
    new.set_span(group.span());
    TokenTree::Group(new)
}

/// Splits an item into its outer attributes and everything from the visibility on.
pub(crate) fn split_attributes(item: TokenStream) -> (TokenStream, TokenStream) {
    let mut attributes = Vec::new();
    let mut trees = item.into_iter().peekable();
    while matches!(trees.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == '#') {
        attributes.extend(trees.next());
        attributes.extend(trees.next());
    }
    (attributes.into_iter().collect(), trees.collect())
}

/// The tokens as text that depends on the tokens only: the compiler's own printing changes between releases, and a
/// fingerprint may not. One space between two words, none elsewhere; a trailing comma does not count.
pub(crate) fn canonical(tokens: TokenStream) -> String {
    let mut text = String::new();
    print(tokens, &mut text);
    text
}

fn print(tokens: TokenStream, text: &mut String) {
    let mut trees = tokens.into_iter().peekable();
    while let Some(tree) = trees.next() {
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                text.push_str(open);
                print(group.stream(), text);
                text.push_str(close);
            }
            TokenTree::Punct(punct) => {
                let trailing = punct.as_char() == ',' && trees.peek().is_none();
                if !trailing {
                    text.push(punct.as_char());
                }
                // `a = -1` and `a =- 1` must differ, `Vec<Vec<u8>>` must not depend on how `>>` was lexed.
                if punct.spacing() == Spacing::Alone && !matches!(punct.as_char(), '<' | '>' | ',' | ':' | '&' | '\'') {
                    text.push(' ');
                }
            }
            TokenTree::Ident(_) | TokenTree::Literal(_) => {
                if text.ends_with(|last: char| last.is_alphanumeric() || last == '_' || last == '"') {
                    text.push(' ');
                }
                text.push_str(&tree.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    #[test]
    fn helpers_go_and_everything_else_stays() {
        let item = quote! {
            #[derive(Debug)] impl A { #[on(x)] #[inline] fn on(&self) { #[on(y)] let a = 1; } #[path::on(x)] const C: u8 = 1; }
        };
        let want = quote! {
            #[derive(Debug)] impl A { #[inline] fn on(&self) { #[on(y)] let a = 1; } #[path::on(x)] const C: u8 = 1; }
        };
        let got = without_helpers(item, &|name| METHOD_HELPERS.contains(&name));
        assert_eq!(got.to_string(), want.to_string());
    }

    #[test]
    fn helpers_under_a_condition_go_too() {
        let item = quote! { struct A { #[cfg_attr(a, mosaik(arg))] b: u8, #[cfg_attr(c, doc = "d", mosaik, e)] f: u8, #[cfg_attr(g, h)] i: u8 } };
        let want = quote! { struct A { b: u8, #[cfg_attr(c, doc = "d", e)] f: u8, #[cfg_attr(g, h)] i: u8 } };
        assert_eq!(without_helpers(item, &|name| FIELD_HELPERS.contains(&name)).to_string(), want.to_string());
    }

    #[test]
    fn bodies_are_emptied() {
        let item = quote! { impl A { const C: u8 = { 1 }; fn f(&self) -> [u8; { 2 }] { self. } fn g() {} } };
        let want = quote! { impl A { const C: u8 = { 1 }; fn f(&self) -> [u8; { 2 }] {} fn g() {} } };
        assert_eq!(without_bodies(item).to_string(), want.to_string());
    }

    #[test]
    fn bodies_are_found_by_name() {
        let item = quote! { impl A { const F: fn() = { g }; fn f(&self) -> [u8; { 2 }] { 1 } fn g() { 2 } } };
        let found: Vec<_> = bodies(item).into_iter().map(|(name, body)| format!("{name} {body}")).collect();
        assert_eq!(found, ["f 1", "g 2"]);
    }

    #[test]
    fn attributes_are_split_off() {
        let (attributes, rest) = split_attributes(quote! { #[a] #[doc = "b"] pub struct C; });
        assert_eq!(attributes.to_string(), quote! { #[a] #[doc = "b"] }.to_string());
        assert_eq!(rest.to_string(), quote! { pub struct C; }.to_string());
    }

    #[test]
    fn canonical_text_is_the_same_however_it_was_typed() {
        let text = |source: &str| canonical(source.parse().unwrap_or_default());
        assert_eq!(text("Vec<Vec<u8>>"), text("Vec < Vec < u8 > >"));
        assert_eq!(text("&'static mut str"), "&'static mut str");
        assert_eq!(text("(u8, u16,)"), text("(u8,u16)"));
        assert_ne!(text("dyn A"), text("dynA"));
    }
}
