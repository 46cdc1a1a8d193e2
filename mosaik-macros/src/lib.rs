//! The attributes of mosaik. Use them through the `mosaik` crate, which re-exports them: `#[mosaik::stream]`.
//!
//! One declaration goes through one room after the other: `parse` reads tokens into the `model`, `check` judges it,
//! `expand` prints code; `diag` collects what is wrong on the way and `fallback` stands in for what could not be
//! expanded. The user's item is emitted again in every case, token for token, without our helper attributes; a stream's gets
//! serde attributes, on the type and on its fields of bytes.

mod check;
mod derive;
mod diag;
mod expand;
mod fallback;
mod model;
mod parse;
mod tokens;

use proc_macro::TokenStream;
use quote::quote;

use crate::{derive::Which, diag::Diag};

/// Declares a stream: a struct or an enum whose values travel from producers to consumers.
///
/// * `name = "readings"`: the stream's name in the network; by default the type's identifier. Moving or renaming the
///   type does not change a stream that has a name.
/// * `key = |item| item.field`, or the path of a function: what an item is about, for `last_per_key` and producers that
///   conflate. It returns an owned value.
/// * `retain = last(100)`, `last_per_key(1)` (needs `key`), `keyframe(Frame::is_key)` or `window("64MiB", "30s")`: what every
///   producer of the stream keeps for consumers that come late. Its builder may say something else.
/// * `codec = "postcard"` or `"messagepack"`: the format of every item. Without it postcard is used for what it carries.
/// * `of = Type`: the items are of that type, which may be of another crate; the declaration is a unit struct,
///   `struct Transactions;`, that names the stream: a `Producer<Transactions>` sends values of that type.
/// * `evolve = "append"`: the type may grow by fields that a reader can do without, and by variants; two programs with unlike
///   versions of it understand each other. Items are written with names. `"strict"`, the default: both have the same shape.
/// * `serde = manual`: adds no serde derive. For impls written by hand and for derives that stand *above* the attribute,
///   which it cannot see. The type's serde container name should then be the stream's name.
/// * `crate = path`: where the `mosaik` crate is, when it is not `::mosaik`.
///
/// Derives `Serialize` and `Deserialize`, except those that a derive *below* the attribute names, and sets
/// `#[serde(rename = "name")]`. The type gets `T::producer(&net)` and `T::consumer(&net)`, which return the runtime's
/// builders, and a fingerprint of its shape (fields that are `Vec<u8>` or `Option<Vec<u8>>` are written as bytes), by which two programs that disagree about it find out. A stream is one
/// concrete type: no generic parameters, and no field under `cfg`.
///
/// ```
/// use mosaik::{node::StreamType, prelude::*};
///
/// /// One temperature sample.
/// #[mosaik::stream(name = "readings")]
/// #[derive(Clone, Debug)]
/// pub struct Reading {
///     pub sensor: u32,
///     pub celsius: f32,
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let net = Network::new("weather").await?;
/// let producer = Reading::producer(&net).with_max_consumers(4).build()?;
/// let consumer = Reading::consumer(&net).build();
/// # let _ = (producer, consumer);
/// # Ok(())
/// # }
/// assert_eq!(Reading::STREAM.id, StreamId::from("readings"));
/// ```
#[proc_macro_attribute]
pub fn stream(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let stream = parse::stream(attribute.into(), item.clone(), &diag);
    if let Some(stream) = &stream {
        check::stream(stream, &diag);
    }
    let (broken, errors) = (diag.count() > 0, diag.finish());
    let expansion = match stream {
        None => item,
        Some(stream) if broken && !stream.generics.params.is_empty() => fallback::stream(&stream, item),
        Some(stream) => expand::stream(&stream, item),
    };
    quote!(#errors #expansion).into()
}

/// Declares a role: a struct whose fields are the streams that it produces and consumes, its groups and stores, its flags
/// and its state.
///
/// * `name = "sensor"`: the role's name on the command line and in the graph; by default the type's identifier in
///   kebab case.
/// * `tags = ["sensor", EU]`: tags that a node with this role announces; literals or `&'static str` constants.
/// * `crate = path`: where the `mosaik` crate is, when it is not `::mosaik`.
///
/// What an endpoint is says its type: `Producer<T>`, `Consumer<T>`, `Replica<M>`, `Primary<V>` or `StoreReplica<V>`;
/// aliases work. Any other field says where its value comes from:
///
/// * `#[mosaik(arg)]`: a required flag, `--min-celsius` for `min_celsius`, of any `FromStr` type; its doc comment is
///   the flag's help. `Option<T>` may be absent, `Vec<T>` may be repeated, `bool` is a switch.
/// * `#[mosaik(arg, default = 7)]`: a flag with a default; a string literal is read as if given on the command line.
/// * `#[mosaik(default)]`, `#[mosaik(default = expression)]`: not a flag; `Default::default()` or the expression.
///
/// An endpoint's field may say how it is set up, as the runtime's builders do:
///
/// * a producer: `accept_if = Self::may_read`, `max_consumers = 4`, `online_when = "2 with tag eu"`, `egress = "8MiB/s"`,
///   `buffer = "1024 items, 4MiB"`, `on_lag = drop_oldest`, `replay = "1MiB"`, `replay_pace = "16MiB/s"`, `lifespan = "1s"`,
///   `undelivered = Self::back`;
/// * a consumer: `subscribe_if = |peer| ..`, `deadline = "5s"`, `backoff = "50ms..2s"`, `live_only`,
///   `prefer = [zone, latency]`, `fanin = 2`;
/// * a member of a group: `role = observer`, `timing = lan`, `log_limit = "64MiB"`;
/// * a primary of a store: `accept_if`, `buffer`, `replay`; a replica: `subscribe_if`.
///
/// A predicate may take fields of the role before the peer, `Self::may_read(zone)`; it gets copies of them. With
/// `only_if = flag` (or `!flag`, or `Self::wanted(flag)`) on an `Option` of an endpoint, that is `None` when the condition does
/// not hold. `#[cfg]` and `#[cfg_attr]` on fields are honoured.
///
/// ```
/// use mosaik::{node::Role, prelude::*};
///
/// #[mosaik::stream]
/// pub struct Reading(f32);
///
/// /// Warns of frost.
/// #[mosaik::node(tags = ["alarm"])]
/// pub struct Alarm {
///     /// Below this it warns.
///     #[mosaik(arg, default = 4.0)]
///     min_celsius: f32,
///     #[mosaik(default)]
///     warned: u64,
///     readings: Consumer<Reading>,
/// }
///
/// assert_eq!(Alarm::ROLE.args[0].flag, "min-celsius");
/// ```
#[proc_macro_attribute]
pub fn node(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let node = parse::node(attribute.into(), item.clone(), &diag);
    if let Some(node) = &node {
        check::node(node, &diag);
    }
    let (broken, errors) = (diag.count() > 0, diag.finish());
    let generated = match node {
        None => proc_macro2::TokenStream::new(),
        Some(node) if broken => fallback::node(&node),
        Some(node) => expand::node(&node),
    };
    let item = tokens::without_helpers(item, &|name| tokens::FIELD_HELPERS.contains(&name));
    quote!(#errors #item #generated).into()
}

/// Makes methods of a role's inherent impl its handlers. They run one at a time on the role's state.
///
/// * `#[on(field)] fn f(&mut self, item: T)` or `(&mut self, item: T, from: PeerId)`: for every item that arrives on a
///   consumer field.
/// * `#[on(field)] fn f(&mut self, state: Versioned<V>)`: with the newest state whenever that of a field of type
///   `StoreReplica<V>` has changed; what changes meanwhile is one call.
/// * `#[on(field.connected)] fn f(&mut self, producer: PeerId)`, `#[on(field.disconnected)] fn f(&mut self, reason:
///   DisconnectReason)`, `#[on(field.gap)] fn f(&mut self, gap: Gap)`, `#[on(field.late, after = "5s")] fn f(&mut self, silent:
///   Duration)`: what else a consumer is told; all but the first may take `from: PeerId` as well.
/// * `#[on(a, b)]`: for several fields alike.
/// * `#[every("500ms")] fn f(&mut self)`: once per period, first after one period; runs that are missed are skipped.
/// * `#[start]`: once, before any other; an error ends the role. `#[stop]`: once, at a graceful end.
/// * `#[ready] fn f(&self) -> bool`: whether the role is ready, asked after every handler and ten times a second.
///
/// With `emit = field` what the handler returns goes out on a producer field: an item, an `Option` or a `Vec` of it, or a `Result`
/// of one of them. An item for which there is no room, or nobody, is dropped and counted. `on_error = log` (the default),
/// `restart` or `stop` says what an error or a panic of an `on` or `every` handler does to the role.
///
/// Handlers are `fn` or `async fn`, take `&mut self` or `&self`, and return nothing or a `Result` whose error is
/// `Display`. An error or a panic is logged and counted. At shutdown an async handler that does
/// not end within 250 ms, or a stop handler within 500 ms, is dropped at its current `await`.
///
/// ```
/// use mosaik::prelude::*;
///
/// #[mosaik::stream]
/// pub struct Reading(f32);
///
/// #[mosaik::stream]
/// pub struct Average(f32);
///
/// #[mosaik::node]
/// pub struct Averager {
///     readings: Consumer<Reading>,
///     averages: Producer<Average>,
///     #[mosaik(default)]
///     last: Vec<f32>,
/// }
///
/// #[mosaik::handlers]
/// impl Averager {
///     #[on(readings)]
///     fn collect(&mut self, reading: Reading, from: PeerId) -> Result<(), String> {
///         if !reading.0.is_finite() {
///             return Err(format!("{from} measured {}", reading.0));
///         }
///         self.last.push(reading.0);
///         Ok(())
///     }
///
///     #[every("10s", emit = averages)]
///     fn average(&mut self) -> Option<Average> {
///         let last = std::mem::take(&mut self.last);
///         (!last.is_empty()).then(|| Average(last.iter().sum::<f32>() / last.len() as f32))
///     }
/// }
/// ```
#[proc_macro_attribute]
pub fn handlers(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let mut handlers = parse::handlers(attribute.into(), item.clone(), &diag);
    if let Some(handlers) = &mut handlers {
        check::handlers(handlers, &diag);
    }
    let errors = diag.finish();
    let generated = handlers.filter(|each| each.generics.params.is_empty()).map(|each| expand::handlers(&each));
    let misspelt = parse::misspelt_helpers(item.clone(), tokens::METHOD_HELPERS);
    let is_helper = |name: &str| tokens::METHOD_HELPERS.contains(&name) || misspelt.iter().any(|word| word == name);
    let item = tokens::without_helpers(item, &is_helper);
    quote!(#errors #item #generated).into()
}

/// Declares a group: a state machine that several nodes keep equal, and how they find and know each other. Goes on the
/// machine's struct; `#[mosaik::state_machine]` on its impl says what it does.
///
/// * `key = env("LEDGER_KEY")`: the secret that the members share, here from an environment variable;
///   `key = secret("..")` makes it from a text, and any other expression is a `GroupKey`. Required.
/// * `name = "ledger"`: the machine's name, with the key the group's identity; by default the type's identifier.
/// * `size = 3`: how many members must agree before the group exists. Without it a lone member founds it, and others
///   join.
/// * `initial = expression`: the machine that a member begins with, the same for all; by default `Default::default()`.
/// * `crate = path`: where the `mosaik` crate is, when it is not `::mosaik`.
///
/// A `HashMap` or `HashSet` among the fields is an error, because its order differs from member to member;
/// `#[mosaik(nondeterministic = "why it does no harm")]` on the field excuses it. A machine that is `Serialize` and
/// `Deserialize` has snapshots, so its log does not grow for ever; one that is `Clone` as well encodes them beside the
/// applying of further commands. See [`state_machine`](macro@state_machine) for an example.
#[proc_macro_attribute]
pub fn group(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let group = parse::group(attribute.into(), item.clone(), &diag);
    if let Some(group) = &group {
        check::group(group, &diag);
    }
    let (broken, errors) = (diag.count() > 0, diag.finish());
    let generated = match group {
        None => proc_macro2::TokenStream::new(),
        Some(group) if broken => fallback::group(&group),
        Some(group) => expand::group(&group),
    };
    let item = tokens::without_field_helpers(item);
    quote!(#errors #item #generated).into()
}

/// Makes the methods of a machine's inherent impl its commands and queries.
///
/// * `#[command] fn f(&mut self, ..) -> T`: changes the machine, at every member, in one order. It may take
///   `ctx: &ApplyContext` beside its arguments, for the agreed time and the agreed seed of randomness.
/// * `#[query] fn f(&self, ..) -> T`: looks at it, at one member.
/// * `version = 1`: members of different versions refuse each other, so raise it when what a command does changes; by
///   default 0. A change of commands, their arguments or results is noticed without it.
/// * `snapshots = expression`: a `Snapshots<Self>`; by default serde's, if the machine has them.
/// * `crate = path`: where the `mosaik` crate is, when it is not `::mosaik`.
///
/// Arguments and results are serde types. An argument `&str`, `&[T]` or `&T` is stored owned and lent to the method. A
/// role's field `ledger: Replica<Ledger>` then has one `async` method per command, and for each query one method whose
/// result asks with `.strong().await` or `.weak().await`. The types `LedgerCommand`, `LedgerOutput`, `LedgerQuery`,
/// `LedgerAnswer` and `LedgerClient` are generated beside the impl.
///
/// A command that reads the clock, randomness or the environment is an error: it would differ from member to member.
/// `#[mosaik(nondeterministic = "why it does no harm")]` on the command excuses it.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use mosaik::prelude::*;
///
/// #[derive(Default, Clone, Serialize, Deserialize)]
/// #[mosaik::group(name = "ledger", key = env("LEDGER_KEY"), size = 3)]
/// pub struct Ledger {
///     balances: BTreeMap<String, u64>,
/// }
///
/// #[mosaik::state_machine(version = 1)]
/// impl Ledger {
///     /// Returns the new balance.
///     #[command]
///     fn deposit(&mut self, account: String, amount: u64) -> u64 {
///         let balance = self.balances.entry(account).or_default();
///         *balance = balance.saturating_add(amount);
///         *balance
///     }
///
///     #[query]
///     fn balance(&self, account: &str) -> u64 {
///         self.balances.get(account).copied().unwrap_or_default()
///     }
/// }
///
/// # async fn example(ledger: Replica<Ledger>) -> Result<(), Box<dyn std::error::Error>> {
/// let balance = ledger.deposit("alice".into(), 5).await?;
/// assert!(ledger.balance("alice").strong().await? >= balance);
/// # Ok(())
/// # }
/// ```
#[proc_macro_attribute]
pub fn state_machine(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let mut machine = parse::machine(attribute.into(), item.clone(), &diag);
    if let Some(machine) = &mut machine {
        check::machine(machine, &diag);
    }
    let errors = diag.finish();
    let generated = machine.filter(|each| each.generics.params.is_empty()).map(|each| expand::machine(&each));
    let misspelt = parse::misspelt_helpers(item.clone(), tokens::MACHINE_HELPERS);
    let is_helper = |name: &str| tokens::MACHINE_HELPERS.contains(&name) || misspelt.iter().any(|word| word == name);
    let item = tokens::without_helpers(item, &is_helper);
    quote!(#errors #item #generated).into()
}

/// Makes a struct with `#[mosaik::group]` a state machine whose commands are a type of its own, usually an enum.
///
/// `#[state_machine(..)]` says which types they are, and the inherent methods `on_command` and `on_query` what they do:
///
/// * `command = Command`: what changes the machine. Required; `fn on_command(&mut self, Command, &ApplyContext) -> Output`.
/// * `output = Output`: what a command gives back; by default `()`.
/// * `query = Query, answer = Answer`: what is asked and what is answered; `fn on_query(&self, Query) -> Answer`.
/// * `version`, `snapshots`, `crate`: as for [`state_machine`](macro@state_machine).
///
/// A `Replica` of it has the methods `execute(command)` and `query(query)`.
///
/// ```
/// use mosaik::prelude::*;
///
/// #[derive(Serialize, Deserialize)]
/// pub enum Step {
///     Up(u32),
///     Down,
/// }
///
/// #[derive(Default, Clone, Serialize, Deserialize, StateMachine)]
/// #[state_machine(command = Step, output = u32, query = (), answer = u32)]
/// #[mosaik::group(name = "stairs", key = env("STAIRS_KEY"))]
/// pub struct Stairs(u32);
///
/// impl Stairs {
///     fn on_command(&mut self, step: Step, _ctx: &ApplyContext) -> u32 {
///         self.0 = match step {
///             Step::Up(by) => self.0.saturating_add(by),
///             Step::Down => self.0.saturating_sub(1),
///         };
///         self.0
///     }
///
///     fn on_query(&self, (): ()) -> u32 {
///         self.0
///     }
/// }
///
/// # async fn example(stairs: Replica<Stairs>) -> Result<(), Box<dyn std::error::Error>> {
/// let height = stairs.execute(Step::Up(3)).await?;
/// assert!(stairs.query(()).strong().await? >= height);
/// # Ok(())
/// # }
/// ```
#[proc_macro_derive(StateMachine, attributes(state_machine, mosaik))]
pub fn derive_state_machine(item: TokenStream) -> TokenStream {
    let diag = Diag::new();
    let mut derived = parse::derived(item.into(), &diag);
    if let Some(derived) = &mut derived {
        check::derived(derived, &diag);
    }
    let errors = diag.finish();
    let expansion = derived.filter(|each| each.generics.params.is_empty()).map(|each| expand::derived(&each));
    quote!(#errors #expansion).into()
}

/// Declares a store: a state that one node changes by deltas and any number of nodes follow. Goes on the inherent impl of the
/// state, which has a method `fn fold(&mut self, delta: Delta)`.
///
/// * `name = "prices"`: the store's name in the network; by default the type's identifier.
/// * `version = 1`: a primary and replicas of different versions refuse each other, so raise it when the state's fields
///   change or `fold` does something else; by default 0. A delta of another type is noticed without it.
/// * `crate = path`: where the `mosaik` crate is, when it is not `::mosaik`.
///
/// The state is `Clone`, `Default`, `Serialize` and `Deserialize`, the delta `Clone` and serde. The attribute implements
/// `View` in terms of `fold` and adds `T::primary(&net)` and `T::replica(&net)`, which return the runtime's builders. In a
/// role, a field of type `Primary<T>` or `StoreReplica<T>` is an end of the store.
///
/// A `fold` that reads the clock, randomness or the environment, or walks over a `HashMap`, is an error: nodes would not
/// agree. `#[mosaik(nondeterministic = "why it does no harm")]` on the function excuses it.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use mosaik::prelude::*;
///
/// #[derive(Clone, Serialize, Deserialize)]
/// pub struct Quote {
///     pub symbol: String,
///     pub cents: u64,
/// }
///
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// pub struct Prices(BTreeMap<String, u64>);
///
/// #[mosaik::store(name = "prices", version = 1)]
/// impl Prices {
///     fn fold(&mut self, quote: Quote) {
///         self.0.insert(quote.symbol, quote.cents);
///     }
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let net = Network::new("market").await?;
/// let prices = Prices::primary(&net).build()?;
/// prices.apply(Quote { symbol: "ABC".into(), cents: 1999 }).await?;
/// assert_eq!(prices.read().0["ABC"], 1999);
/// # Ok(())
/// # }
/// ```
#[proc_macro_attribute]
pub fn store(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let mut store = parse::store(attribute.into(), item.clone(), &diag);
    if let Some(store) = &mut store {
        check::store(store, &diag);
    }
    let errors = diag.finish();
    let generated = store.filter(|each| each.generics.params.is_empty()).map(|each| expand::store(&each));
    let item = tokens::without_helpers(item, &|name| tokens::FIELD_HELPERS.contains(&name));
    quote!(#errors #item #generated).into()
}

/// Declares an app: its name and its roles, on a unit struct. `main()` is then its whole command line, and
/// `App::GRAPH` its data flow as a constant.
///
/// * `name = "weather"`: the app's name; by default the type's identifier in kebab case. The default network is
///   derived from it.
/// * `roles = [Sensor, Display]`: the roles; their names must differ, and streams of one name must have one shape.
/// * `crate = path`: where the `mosaik` crate is, when it is not `::mosaik`.
///
/// ```no_run
/// use mosaik::prelude::*;
///
/// #[mosaik::node]
/// pub struct Idle {}
///
/// #[mosaik::handlers]
/// impl Idle {}
///
/// #[mosaik::app(name = "weather", roles = [Idle])]
/// pub struct Weather;
///
/// fn main() -> std::process::ExitCode {
///     Weather::main()
/// }
/// ```
#[proc_macro_attribute]
pub fn app(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let mut app = parse::app(attribute.into(), item.clone(), &diag);
    if let Some(app) = &mut app {
        check::app(app, &diag);
    }
    let errors = diag.finish();
    let generated = app.map(|app| expand::app(&app));
    quote!(#errors #item #generated).into()
}

/// Makes an `async fn main(net: Network)` a program with the common flags (`--network`, `--secret`, `--bootstrap`, ..):
/// the node is set up from them, a signal ends it gracefully, and an `Err` is printed with its causes and ends the
/// process with status 1.
///
/// * `name = "weather"`: the program's name, from which the default network is derived; by default the package's name.
/// * `tags = ["sensor"]`: tags that the node announces.
/// * `crate = path`: where the `mosaik` crate is, when it is not `::mosaik`.
///
/// ```no_run
/// use mosaik::prelude::*;
///
/// #[mosaik::main(name = "weather", tags = ["observer"])]
/// async fn main(net: Network) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     let mut numbers = net.streams().consume::<u64>();
///     while let Some(number) = numbers.next().await {
///         println!("{number}");
///     }
///     Ok(())
/// }
/// ```
#[proc_macro_attribute]
pub fn main(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let main = parse::main(attribute.into(), item.clone(), &diag);
    if let Some(main) = &main {
        check::main(main, &diag);
    }
    let (broken, errors) = (diag.count() > 0, diag.finish());
    let expansion = match main {
        Some(main) if !broken => expand::main(&main, &item),
        // The function stays, for the editor; a real `main` beside it keeps the compiler from missing one.
        _ => quote!(const _: () = { #[allow(dead_code)] #item }; fn main() {}),
    };
    quote!(#errors #expansion).into()
}

/// Makes an `async fn name(cluster: Cluster<App>)` a test of an app: in simulations, one for each seed, in virtual time. Needs the
/// feature `testing`.
///
/// * `seeds = 200`: how many; by default 1. `MOSAIK_SEED=17` runs that one alone.
/// * `faults = [kill, partition, pause]`: what happens to nodes, drawn from the seed: up to eight faults within 30 s, each
///   undone after up to 15 s. `cluster.calm().await` waits until they are over. By default none.
/// * `with = [Sensor = 3]`: how many nodes there are of a role; by default one, or as many as a group of the role declares.
/// * `durable`: nodes keep a data directory over restarts.
/// * `crate = path`: where the `mosaik` crate is, when it is not `::mosaik`.
///
/// It returns nothing or a `Result` whose error is `Display`. A seed that fails is printed, with its faults and the fewest of
/// them with which it still fails.
///
/// ```
/// use mosaik::{prelude::*, testing::Cluster};
///
/// #[mosaik::stream]
/// pub struct Tick(u64);
///
/// #[mosaik::node]
/// pub struct Clock {
///     ticks: Producer<Tick>,
/// }
///
/// #[mosaik::handlers]
/// impl Clock {
///     #[every("1s", emit = ticks)]
///     fn tick(&self) -> Tick {
///         Tick(1)
///     }
/// }
///
/// #[mosaik::app(roles = [Clock])]
/// pub struct Clocks;
///
/// #[mosaik::test(seeds = 20, faults = [kill, partition], with = [Clock = 2])]
/// async fn clocks_tick_after_faults(cluster: Cluster<Clocks>) {
///     let mut ticks = cluster.tap::<Tick>();
///     cluster.calm().await;
///     assert!(ticks.recv().await.is_some());
/// }
/// ```
#[proc_macro_attribute]
pub fn test(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let (diag, item) = (Diag::new(), proc_macro2::TokenStream::from(item));
    let test = parse::test(attribute.into(), item.clone(), &diag);
    if let Some(test) = &test {
        check::test(test, &diag);
    }
    let (broken, errors) = (diag.count() > 0, diag.finish());
    let expansion = match test {
        Some(test) if !broken => expand::test(&test, item),
        // The function stays, for the editor.
        _ => quote!(const _: () = { #[allow(dead_code)] #item };),
    };
    quote!(#errors #expansion).into()
}

/// Serde's `Serialize` for crates that do not depend on serde; part of the prelude. All `#[serde(..)]` attributes work,
/// except `remote`. With a dependency on serde, its own derive does as well.
#[proc_macro_derive(Serialize, attributes(serde))]
pub fn serialize(item: TokenStream) -> TokenStream {
    derived(Which::Serialize, item)
}

/// Serde's `Deserialize` for crates that do not depend on serde; part of the prelude. All `#[serde(..)]` attributes work,
/// except `remote`; a generic type whose parameter needs more than `Deserialize`, as with `#[serde(default)]`, says so in a
/// `where` clause. With a dependency on serde, its own derive does as well.
#[proc_macro_derive(Deserialize, attributes(serde))]
pub fn deserialize(item: TokenStream) -> TokenStream {
    derived(Which::Deserialize, item)
}

fn derived(which: Which, item: TokenStream) -> TokenStream {
    let diag = Diag::new();
    let expansion = derive::derive(which, item.into(), &diag);
    let errors = diag.finish();
    quote!(#errors #expansion).into()
}
