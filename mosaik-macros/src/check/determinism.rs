//! What a command and a `fold` must not do: look at the clock, at randomness, or at the environment. Found by the words that
//! such code is made of, there and in what is called of the same impl; what other functions hide, nobody sees here.
//!
//! Names that a body imports for itself are followed, also under another name (`use std::time::Instant as Clock`). What the file
//! imports outside of the impl is not in the tokens that a macro is given.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::UseTree;

use crate::{
    diag::Diag,
    model::{Fold, Helper, Method},
};

/// The world that a command must not look at, and the order that nothing has twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum World {
    Clock,
    Randomness,
    Environment,
    Order,
}

/// `Type::function` whatever path leads to it.
const CALLS: &[(&str, &[&str], World)] = &[
    ("Instant", &["now"], World::Clock),
    ("SystemTime", &["now"], World::Clock),
    ("Utc", &["now"], World::Clock),
    ("Local", &["now"], World::Clock),
    ("OffsetDateTime", &["now_utc", "now_local"], World::Clock),
    ("Uuid", &["new_v4", "now_v7"], World::Randomness),
    ("RandomState", &["new"], World::Randomness),
    ("GroupKey", &["random"], World::Randomness),
    ("NetworkId", &["random"], World::Randomness),
    (
        "rand",
        &["rng", "thread_rng", "random", "random_range", "random_bool", "random_ratio", "random_iter", "fill"],
        World::Randomness,
    ),
    ("std", &["env"], World::Environment),
    ("std", &["fs"], World::Environment),
    (
        "env",
        &["var", "var_os", "vars", "vars_os", "args", "args_os", "current_dir", "current_exe", "temp_dir", "home_dir"],
        World::Environment,
    ),
    ("fs", &["read", "read_to_string", "read_dir", "write", "metadata"], World::Environment),
    ("File", &["open", "create"], World::Environment),
    ("process", &["id"], World::Environment),
    ("thread", &["current", "sleep"], World::Environment),
];

/// Words that mean it wherever they stand.
const WORDS: &[(&str, World)] = &[
    ("thread_rng", World::Randomness),
    ("ThreadRng", World::Randomness),
    ("OsRng", World::Randomness),
    ("SysRng", World::Randomness),
    ("from_entropy", World::Randomness),
    ("from_os_rng", World::Randomness),
    ("getrandom", World::Randomness),
    ("fastrand", World::Randomness),
    ("HashMap", World::Order),
    ("HashSet", World::Order),
];

/// Looks at a command and, through them, at the functions of the same impl that it calls; at each of those once.
pub(super) fn command(method: &Method, helpers: &[Helper], looked_at: &mut BTreeSet<String>, diag: &Diag) {
    let judged = Judged::Command(&method.signature.ident);
    reach(judged, &method.body, helpers, looked_at, diag);
    for guard in method.transitions.iter().filter_map(|transition| transition.guard.as_ref()) {
        reach(judged, &guard.function.to_token_stream(), helpers, looked_at, diag);
    }
}

/// Looks at a `fold` and at the functions of the same impl that it calls.
pub(super) fn fold(fold: &Fold, helpers: &[Helper], diag: &Diag) {
    reach(Judged::Fold, &fold.body, helpers, &mut BTreeSet::new(), diag);
}

/// On whose behalf a body is looked at.
#[derive(Clone, Copy)]
enum Judged<'a> {
    Command(&'a Ident),
    Fold,
}

fn reach(judged: Judged<'_>, body: &TokenStream, helpers: &[Helper], looked_at: &mut BTreeSet<String>, diag: &Diag) {
    look(body, judged, diag);
    let mut calls = called(body);
    while let Some(call) = calls.pop() {
        let helper = helpers.iter().find(|helper| helper.ident == call && !helper.excused);
        if let Some(helper) = helper
            && looked_at.insert(call)
        {
            look(&helper.body, judged, diag);
            calls.extend(called(&helper.body));
        }
    }
}

/// The last words of everything that looks like a call of a method or an associated function.
fn called(body: &TokenStream) -> Vec<String> {
    let trees: Vec<TokenTree> = body.clone().into_iter().collect();
    let mut calls = Vec::new();
    for (at, tree) in trees.iter().enumerate() {
        match tree {
            TokenTree::Group(group) => calls.extend(called(&group.stream())),
            TokenTree::Ident(word) => {
                let before = at.checked_sub(1).and_then(|before| trees.get(before));
                if matches!(before, Some(TokenTree::Punct(punct)) if matches!(punct.as_char(), '.' | ':')) {
                    calls.push(word.to_string());
                }
            }
            _ => {}
        }
    }
    calls
}

fn look(body: &TokenStream, judged: Judged<'_>, diag: &Diag) {
    for Found { tokens, world } in find(body) {
        let what = crate::tokens::canonical(tokens.clone());
        match judged {
            Judged::Command(_) if world == World::Order => {}
            Judged::Command(name) => diag.error(tokens, in_command(name, &what, world)),
            Judged::Fold => diag.error(tokens, in_fold(&what, world)),
        }
    }
}

const fn does(world: World) -> &'static str {
    match world {
        World::Clock => "reads the clock",
        World::Randomness => "is random",
        World::Environment => "looks at the environment of one process",
        World::Order => "has another order on every node",
    }
}

fn in_command(name: &Ident, what: &str, world: World) -> String {
    let instead = match world {
        World::Clock => {
            "take the time as an argument, or the agreed one: `ctx: &ApplyContext` as a parameter, `ctx.time()` in the body"
        }
        World::Randomness => {
            "take the value as an argument, or seed a generator with the agreed `ctx.seed()`: `ctx: &ApplyContext` as a \
             parameter"
        }
        World::Environment | World::Order => "read it before the call and pass it as an argument",
    };
    format!(
        "a command does the same at every member and in every replay, but `{what}` {}: {instead}; if it cannot change the \
         machine or what `{name}` returns, say so on the command: `#[mosaik(nondeterministic = \"..\")]`",
        does(world)
    )
}

fn in_fold(what: &str, world: World) -> String {
    let instead = match world {
        World::Clock => "put the time into the delta",
        World::Randomness => "put the value into the delta",
        World::Environment => "put what it says into the delta",
        World::Order if what.contains("HashSet") => "use a `BTreeSet`",
        World::Order => "use a `BTreeMap`",
    };
    format!(
        "`fold` makes the same state of the same deltas on every node, but `{what}` {}: {instead}; if it cannot change the \
         state, say so where it stands: `#[mosaik(nondeterministic = \"..\")]` on the function",
        does(world)
    )
}

struct Found {
    tokens: TokenStream,
    world: World,
}

/// What names stand for that a body imports: the words of the path.
type Imports = BTreeMap<String, Vec<Ident>>;

fn find(body: &TokenStream) -> Vec<Found> {
    let mut imports = Imports::new();
    collect(body, &mut imports);
    search(body, &imports)
}

/// All imports of a body. Which block each is in makes no difference: a name that means the world in one is not well chosen for
/// something else in another.
fn collect(body: &TokenStream, imports: &mut Imports) {
    let trees: Vec<TokenTree> = body.clone().into_iter().collect();
    let mut at = 0;
    while at < trees.len() {
        match &trees[at] {
            TokenTree::Group(group) => collect(&group.stream(), imports),
            TokenTree::Ident(word) if word == "use" => {
                let end = end_of_statement(&trees, at);
                let tree = trees[at + 1..end].iter().cloned().collect();
                // What is no import is the compiler's to complain about.
                if let Ok(tree) = syn::parse2::<UseTree>(tree) {
                    flatten(&tree, &mut Vec::new(), imports);
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
}

/// Where the statement that begins at `at` has its semicolon.
fn end_of_statement(trees: &[TokenTree], at: usize) -> usize {
    let is_end = |tree: &TokenTree| matches!(tree, TokenTree::Punct(end) if end.as_char() == ';');
    trees[at..].iter().position(is_end).map_or(trees.len(), |end| at + end)
}

fn flatten(tree: &UseTree, path: &mut Vec<Ident>, imports: &mut Imports) {
    let mut named = |name: &Ident, last: &Ident| {
        let last = (last != "self").then(|| last.clone());
        imports.insert(name.to_string(), path.iter().cloned().chain(last).collect());
    };
    match tree {
        UseTree::Path(part) => {
            path.push(part.ident.clone());
            flatten(&part.tree, path, imports);
            path.pop();
        }
        UseTree::Name(part) if part.ident == "self" => {
            if let Some(name) = path.last().cloned() {
                named(&name, &part.ident);
            }
        }
        UseTree::Name(part) => named(&part.ident, &part.ident),
        UseTree::Rename(part) => named(&part.rename, &part.ident),
        UseTree::Group(group) => group.items.iter().for_each(|item| flatten(item, path, imports)),
        UseTree::Glob(_) => {}
    }
}

/// The path with what its first word stands for in its place.
fn resolved(path: &[Ident], imports: &Imports) -> Vec<Ident> {
    let mut path = path.to_vec();
    // An import may begin with the name of another one; none needs more steps than there are.
    for _ in 0..=imports.len() {
        let Some(known) = path.first().and_then(|first| imports.get(&first.to_string())) else { break };
        if path.starts_with(known) {
            break;
        }
        path.splice(..1, known.iter().cloned());
    }
    path
}

fn search(body: &TokenStream, imports: &Imports) -> Vec<Found> {
    let trees: Vec<TokenTree> = body.clone().into_iter().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < trees.len() {
        match &trees[at] {
            TokenTree::Group(group) => {
                found.extend(search(&group.stream(), imports));
                at += 1;
            }
            // What is imported is seen where it is used.
            TokenTree::Ident(word) if word == "use" => at = end_of_statement(&trees, at),
            TokenTree::Ident(_) => {
                let path = path(&trees[at..]);
                let method = at > 0 && matches!(&trees[at - 1], TokenTree::Punct(dot) if dot.as_char() == '.');
                let next = &trees[at + 3 * (path.len() - 1) + 1..];
                let judged = judge(&path, method, next);
                let hidden = || {
                    let resolved = resolved(&path, imports);
                    let renamed = !method && resolved != path;
                    let found = renamed.then(|| judge(&resolved, false, next)).flatten()?;
                    // Where it stands, as it is written there.
                    Some(Found { tokens: whole(&path), ..found })
                };
                found.extend(judged.or_else(hidden));
                at += 3 * (path.len() - 1) + 1;
            }
            _ => at += 1,
        }
    }
    found
}

/// The words of the path that begins here: each is an identifier, between them stand two colons.
fn path(trees: &[TokenTree]) -> Vec<Ident> {
    let colon = |tree: Option<&TokenTree>| matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(TokenTree::Ident(word)) = trees.get(at) {
        words.push(word.clone());
        if !(colon(trees.get(at + 1)) && colon(trees.get(at + 2))) {
            break;
        }
        at += 3;
    }
    words
}

/// What is wrong with a path, from its tokens on; `method` when a dot stands before it.
fn judge(path: &[Ident], method: bool, next: &[TokenTree]) -> Option<Found> {
    let called = || {
        let next = next.first();
        matches!(next, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
    };
    let empty_call = || matches!(next.first(), Some(TokenTree::Group(group)) if group.stream().is_empty());
    if method {
        let elapsed = path.first().is_some_and(|word| word == "elapsed") && called() && empty_call();
        return elapsed.then(|| Found { tokens: whole(path), world: World::Clock });
    }
    let pair = path.windows(2).find_map(|pair| {
        CALLS
            .iter()
            .find(|(first, seconds, _)| pair[0] == first && seconds.iter().any(|second| pair[1] == second))
            .map(|(.., world)| *world)
    });
    let word = || {
        let of = |word: &Ident| WORDS.iter().find(|(known, _)| word == known).map(|(_, world)| *world);
        path.iter().find_map(of)
    };
    // Imported: `use rand::random;`.
    let random = || (path.len() == 1 && path[0] == "random" && called()).then_some(World::Randomness);
    let world = pair.or_else(word).or_else(random)?;
    Some(Found { tokens: whole(path), world })
}

fn whole(path: &[Ident]) -> TokenStream {
    let mut tokens = TokenStream::new();
    for (index, word) in path.iter().enumerate() {
        if index > 0 {
            // The colons get the word's place: an error spans from the first token to the last.
            tokens.extend(crate::tokens::at(quote::quote!(::), word.span()));
        }
        word.to_tokens(&mut tokens);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worlds(code: &str) -> Vec<World> {
        let tokens: TokenStream = code.parse().unwrap_or_default();
        find(&tokens).into_iter().map(|found| found.world).collect()
    }

    #[test]
    fn the_world_is_seen_however_it_is_written() {
        for code in
            ["Instant::now()", "std::time::SystemTime::now()", "{ if a { (Utc::now(), 1) } }", "start.elapsed()"]
        {
            assert_eq!(worlds(code), [World::Clock], "{code}");
        }
        for code in
            ["rand::random::<u8>()", "thread_rng().gen()", "rand::thread_rng()", "random()", "vec![Uuid::new_v4()]"]
        {
            assert_eq!(worlds(code), [World::Randomness], "{code}");
        }
        for code in ["std::env::var(\"A\")", "env::args()", "std::fs::read(p)", "std::process::id()"] {
            assert_eq!(worlds(code), [World::Environment], "{code}");
        }
    }

    #[test]
    fn another_name_hides_nothing() {
        for code in [
            "use std::time::Instant as Clock; Clock::now()",
            "use std::time::{self as t, Duration}; t::SystemTime::now()",
            "if a { use chrono::{Local as Here}; Here::now() }",
            "use std::time as t; use t::Instant as Clock; Clock::now()",
        ] {
            assert_eq!(worlds(code), [World::Clock], "{code}");
        }
        for code in ["use rand::{random as dice}; dice::<u8>()", "use rand as dice; dice::random()"] {
            assert_eq!(worlds(code), [World::Randomness], "{code}");
        }
        for code in ["use std::env::var; var(\"A\")", "use std::env::var as look; look(\"A\")"] {
            assert_eq!(worlds(code), [World::Environment], "{code}");
        }
        assert_eq!(worlds("use std::collections::{HashMap as Map, BTreeMap}; Map::new()"), [World::Order]);
    }

    #[test]
    fn what_is_deterministic_is_left_alone() {
        for code in [
            "self.rng.random()",
            "StdRng::from_seed(ctx.seed()).random_range(1..6)",
            "rand::rngs::StdRng::seed_from_u64(1)",
            "env!(\"A\")",
            "self.now()",
            "\"Instant::now()\"",
            "self.env.var",
            "let now = ctx.time();",
            "let random = 1;",
            "use std::time::Duration as Time; Time::from_secs(1)",
            "use std::cmp::{max as now, min}; now(1, min(2, 3))",
            "use a as b; use b as a; a::now()",
            "use self::now as later; later()",
        ] {
            assert_eq!(worlds(code), [], "{code}");
        }
    }
}
