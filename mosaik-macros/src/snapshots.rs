//! What each attribute expands to, kept as text in `mosaik-macros/snapshots`: a change of generated code is seen when it is reviewed.
//!
//! `MOSAIK_SNAPSHOTS=write cargo test -p mosaik-macros` writes the texts anew; read the difference before committing. Lines break
//! after semicolons and commas within braces, as a formatter would have them.

use std::{env, fs, path::Path};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::quote;

use crate::{check, diag::Diag, expand, parse, tokens};

/// Lines that a role of usual size may make of itself.
const MOST_LINES_OF_A_ROLE: usize = 150;

/// Parses, checks and expands; what is wrong ends the test.
fn expanded<T>(
    parse: impl FnOnce(&Diag) -> Option<T>,
    check: impl FnOnce(&mut T, &Diag),
    expand: impl FnOnce(&T) -> TokenStream,
) -> TokenStream {
    let diag = Diag::new();
    let model = parse(&diag).map(|mut model| {
        check(&mut model, &diag);
        model
    });
    let errors = diag.finish();
    assert!(errors.is_empty(), "{errors}");
    expand(&model.expect("could be read"))
}

fn stream(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let again = item.clone();
    expanded(
        |diag| parse::stream(attribute, item, diag),
        |it, diag| check::stream(it, diag),
        |it| expand::stream(it, again),
    )
}

fn node(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expanded(|diag| parse::node(attribute, item, diag), |it, diag| check::node(it, diag), expand::node)
}

fn handlers(item: TokenStream) -> TokenStream {
    expanded(|diag| parse::handlers(quote!(), item, diag), check::handlers, expand::handlers)
}

fn machine(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expanded(|diag| parse::machine(attribute, item, diag), check::machine, expand::machine)
}

/// Code with line breaks.
fn text(code: TokenStream) -> String {
    let mut out = String::new();
    print(code, 0, &mut out);
    let lines = out.lines().map(str::trim_end).filter(|line| !line.trim().is_empty());
    lines.fold(String::new(), |text, line| text + line + "\n")
}

fn print(code: TokenStream, depth: usize, out: &mut String) {
    // Between two words and on, what has no break of its own: printed as one piece.
    let mut piece = TokenStream::new();
    let flush = |piece: &mut TokenStream, out: &mut String| {
        out.push_str(&tokens::canonical(std::mem::take(piece)));
    };
    for tree in code {
        match tree {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !group.stream().is_empty() => {
                flush(&mut piece, out);
                out.push_str(" {");
                line(depth + 1, out);
                print(group.stream(), depth + 1, out);
                line(depth, out);
                out.push('}');
                line(depth, out);
            }
            TokenTree::Punct(punct) if matches!(punct.as_char(), ';' | ',') && depth > 0 => {
                flush(&mut piece, out);
                out.push(punct.as_char());
                line(depth, out);
            }
            other => piece.extend([other]),
        }
    }
    flush(&mut piece, out);
}

fn line(depth: usize, out: &mut String) {
    out.push('\n');
    out.push_str(&"    ".repeat(depth));
}

fn compare(name: &str, code: TokenStream) {
    let (text, file) = (text(code), Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots").join(name));
    if env::var_os("MOSAIK_SNAPSHOTS").is_some_and(|how| how == "write") {
        fs::create_dir_all(file.parent().expect("is in a folder")).expect("is made");
        fs::write(&file, &text).expect("is written");
    }
    let known = fs::read_to_string(&file).unwrap_or_default();
    let differs = text.lines().zip(known.lines()).position(|(now, then)| now != then);
    assert!(
        text == known,
        "{name} differs from line {:?} on: MOSAIK_SNAPSHOTS=write writes it anew",
        differs.map(|at| at + 1)
    );
}

#[test]
fn a_stream() {
    let attribute = quote!(name = "readings", key = |item| item.sensor, retain = last_per_key(1));
    compare(
        "stream.txt",
        stream(
            attribute,
            quote!(
                /** One. */
                pub struct Reading {
                    pub sensor: u32,
                    pub celsius: f32,
                }
            ),
        ),
    );
}

/// A role as they are: two streams in, two out, flags, state.
fn role() -> TokenStream {
    quote! {
        /// Raises an alarm.
        pub struct Watch {
            #[mosaik(deadline = "5s")]
            readings: Consumer<Reading>,
            limits: Consumer<Limit>,
            #[mosaik(accept_if = Self::may_read(zone), on_lag = drop_oldest, buffer = "1024 items, 4MiB")]
            alarms: Producer<Alarm>,
            #[mosaik(only_if = averaging)]
            averages: Option<Producer<Average>>,
            #[mosaik(arg)]
            averaging: bool,
            /// Where.
            #[mosaik(arg, default = "eu")]
            zone: String,
            #[mosaik(default)]
            hottest: Option<f32>,
        }
    }
}

fn methods() -> TokenStream {
    quote! {
        impl Watch {
            #[start]
            async fn begin(&mut self) -> Result<(), String> { Ok(()) }

            #[on(readings)]
            fn check(&mut self, reading: Reading, from: PeerId) {}

            #[on(limits, concurrency = 8, on_error = restart)]
            async fn limit(&self, limit: Limit) -> Result<(), String> { Ok(()) }

            #[on(readings.late)]
            fn late(&mut self, silent: Duration) {}

            #[every("1m", emit = alarms)]
            fn alarm(&mut self) -> Option<Alarm> { None }

            #[ready]
            fn ready(&self) -> bool { true }
        }
    }
}

#[test]
fn a_role() {
    compare("node.txt", node(quote!(tags = ["watch"]), role()));
    compare("handlers.txt", handlers(methods()));
}

#[test]
fn a_role_is_not_long() {
    let lines =
        text(node(quote!(tags = ["watch"]), role())).lines().count() + text(handlers(methods())).lines().count();
    assert!(lines <= MOST_LINES_OF_A_ROLE, "{lines} lines");
}

#[test]
fn a_machine() {
    let item = quote! {
        impl Ledger {
            /// Returns the new balance.
            #[command]
            fn deposit(&mut self, account: &str, amount: u64) -> u64 { 0 }
            #[query]
            fn balance(&self, account: &str) -> u64 { 0 }
        }
    };
    compare("state_machine.txt", machine(quote!(version = 1), item));
}

#[test]
fn a_machine_with_states() {
    let attribute =
        quote!(states = Stage { Open, Filled, Expired }, state = stage, since = entered, terminal = [Filled, Expired]);
    let item = quote! {
        impl Order {
            #[transition(Placed: Open -> Filled, if = Self::enough)]
            fn fill(&mut self, quantity: u64) -> u64 { 0 }
            #[transition(Placed: Open -> Open)]
            fn part(&mut self, quantity: u64) -> u64 { 0 }
            #[transition(Open -> Expired, after = "30s")]
            fn expire(&mut self, ctx: &ApplyContext) -> Result<(), String> { Ok(()) }
        }
    };
    compare("states.txt", machine(attribute, item));
}
