//! Members under `cfg` and `cfg_attr`. An attribute macro sees both before the compiler has judged them, so what is generated
//! for a member repeats its conditions; a member whose helper attributes depend on one is read once for each way it can turn
//! out.

use syn::{Attribute, Meta, Token, parse::Parser, parse_quote, punctuated::Punctuated};

/// One way in which the attributes of a member can turn out.
#[derive(Clone, Default)]
pub(super) struct Way {
    /// When it does, and when the member exists at all.
    pub(super) cfgs: Vec<Attribute>,
    /// Our helper attributes.
    pub(super) helpers: Vec<Attribute>,
}

/// Every way; without a `cfg_attr` that has helpers in it, one.
pub(super) fn ways(attributes: &[Attribute], helpers: &[&str]) -> Vec<Way> {
    let is_ours = |attribute: &Attribute| helpers.iter().any(|helper| attribute.path().is_ident(helper));
    let mut ways = vec![Way::default()];
    for attribute in attributes {
        if attribute.path().is_ident("cfg") {
            ways.iter_mut().for_each(|way| way.cfgs.push(attribute.clone()));
        } else if is_ours(attribute) {
            ways.iter_mut().for_each(|way| way.helpers.push(attribute.clone()));
        } else if let Some((condition, inner)) = conditional(attribute) {
            let inner: Vec<Attribute> =
                inner.into_iter().filter(|each| is_ours(each) || each.path().is_ident("cfg")).collect();
            if inner.is_empty() {
                continue;
            }
            let mut without = ways.clone();
            without.iter_mut().for_each(|way| way.cfgs.push(parse_quote!(#[cfg(not(#condition))])));
            for way in &mut ways {
                way.cfgs.push(parse_quote!(#[cfg(#condition)]));
                let (cfgs, helpers): (Vec<_>, Vec<_>) =
                    inner.iter().cloned().partition(|each| each.path().is_ident("cfg"));
                way.cfgs.extend(cfgs);
                way.helpers.extend(helpers);
            }
            ways.extend(without);
        }
    }
    ways
}

/// The condition of a `cfg_attr` and the attributes that depend on it; what is malformed the compiler reports itself.
fn conditional(attribute: &Attribute) -> Option<(Meta, Vec<Attribute>)> {
    let Meta::List(list) = &attribute.meta else { return None };
    if !list.path.is_ident("cfg_attr") {
        return None;
    }
    let parts = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(list.tokens.clone()).ok()?;
    let mut parts = parts.into_iter();
    let condition = parts.next()?;
    Some((condition, parts.map(|meta| parse_quote!(#[#meta])).collect()))
}

#[cfg(test)]
mod tests {
    use quote::{ToTokens, quote};
    use syn::Field;

    use super::*;

    fn shown(field: &Field) -> Vec<String> {
        let text = |attributes: &[Attribute]| {
            attributes.iter().map(|each| each.to_token_stream().to_string().replace(' ', "")).collect::<String>()
        };
        ways(&field.attrs, &["mosaik"]).iter().map(|way| text(&way.cfgs) + "|" + &text(&way.helpers)).collect()
    }

    #[test]
    fn helpers_under_a_condition_are_read_both_ways() {
        let field: Field = parse_quote!(#[cfg(a)] #[cfg_attr(b, mosaik(arg), doc = "x")] #[allow(c)] field: u8);
        assert_eq!(shown(&field), ["#[cfg(a)]#[cfg(b)]|#[mosaik(arg)]", "#[cfg(a)]#[cfg(not(b))]|"]);
    }

    #[test]
    fn other_conditions_change_nothing() {
        let field: Field = parse_quote!(#[cfg_attr(b, allow(c))] #[mosaik(default)] field: u8);
        assert_eq!(shown(&field), ["|#[mosaik(default)]"]);
        assert_eq!(quote!(#field).to_string().matches("cfg_attr").count(), 1);
    }
}
