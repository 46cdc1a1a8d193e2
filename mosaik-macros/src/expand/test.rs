//! `#[mosaik::test]`: the user's test inside one that the test harness knows, which runs it with every seed.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Ident, ReturnType, spanned::Spanned};

use crate::{model::Test, tokens::split_attributes};

pub(crate) fn test(test: &Test, item: TokenStream) -> TokenStream {
    let Test { runtime, durable, .. } = test;
    let name = &test.function.ident;
    let plain = crate::model::plain(name);
    // Attributes such as `#[ignore]` are those of the test that the harness sees.
    let (attributes, function) = split_attributes(item);
    let seeds = test.seeds.as_ref().map_or_else(|| quote!(1), |seeds| quote!(#seeds));
    let faults = test.faults.iter().map(|(kind, word)| {
        let kind = Ident::new(kind, word.span());
        quote!(#runtime::testing::FaultKind::#kind)
    });
    let with = test.with.iter().map(|(role, count)| {
        let runtime = super::at(runtime, role.span());
        quote_spanned!(role.span()=> (<#role as #runtime::node::Role>::ROLE.name, #count))
    });
    let span = match &test.function.output {
        ReturnType::Default => name.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    let moved = super::at(runtime, span);
    let run = quote_spanned!(span=> #moved::testing::run(PLAN, #name));
    quote! {
        #attributes
        #[::core::prelude::v1::test]
        fn #name() {
            #function

            const PLAN: &#runtime::testing::Plan = &#runtime::testing::Plan {
                name: ::core::concat!(::core::module_path!(), "::", #plain),
                seeds: #seeds,
                faults: &[#(#faults),*],
                roles: &[#(#with),*],
                durable: #durable,
            };
            #run
        }
    }
}
