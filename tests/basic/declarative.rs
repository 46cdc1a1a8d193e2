//! What the attributes expand to, and roles at work on a simulated network.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use mosaik::{
    network::Network,
    node::{ArgValues, Direction, Handlers, Role, RoleHandle, Setup, StreamType, spawn},
    prelude::*,
    streams::Buffer,
    testing::{Sim, eventually},
};

const NETWORK: NetworkId = NetworkId::from_name("declarative");
const SOON: Duration = Duration::from_secs(30);

/// Two nodes of a simulated network.
fn two_nodes<F: Future<Output = ()>>(scenario: impl FnOnce(Network, Network) -> F) {
    Sim::run(7, |sim| async move {
        let build = |name| sim.node(name).builder(NETWORK).build();
        let (a, b) = (build("a").await.expect("a"), build("b").await.expect("b"));
        scenario(a.clone(), b.clone()).await;
        a.shutdown().await;
        b.shutdown().await;
    });
}

/// Starts a role as the generated main does.
async fn start<R: Handlers>(net: &Network, flags: &[&str]) -> RoleHandle {
    let values = ArgValues::parse(&R::ROLE, flags).expect("the flags fit");
    spawn(net, R::open(&mut Setup::new(net, &values)).await.expect("the role opens"))
}

mod streams {
    use super::*;

    #[mosaik::stream(name = "ticks")]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Tick {
        pub at: u64,
    }

    mod moved {
        #[mosaik::stream(name = "ticks")]
        pub struct Renamed {
            pub at: u64,
        }
    }

    #[mosaik::stream]
    #[derive(Serialize, Deserialize, Clone)]
    struct DerivedBelow {
        at: u64,
    }

    #[mosaik::stream(name = "half")]
    #[derive(Serialize)]
    enum HalfDerived {
        #[serde(rename = "b")]
        A(u8),
        C {
            d: Vec<Vec<u8>>,
        },
        E,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename = "above", crate = "mosaik::__private::serde")]
    #[mosaik::stream(name = "above", serde = manual)]
    struct DerivedAbove {
        at: u64,
    }

    #[mosaik::stream]
    #[serde(rename = "renamed")]
    struct OwnRename;

    #[test]
    fn a_name_is_the_identity_wherever_the_type_lives() {
        assert_eq!(Tick::STREAM.id, StreamId::from("ticks"));
        assert_eq!(StreamId::of::<Tick>(), Tick::STREAM.id, "serde agrees");
        assert_eq!(moved::Renamed::STREAM.id, Tick::STREAM.id);
        assert_eq!(moved::Renamed::STREAM.schema, Tick::STREAM.schema, "the type's own name is not part of its shape");
    }

    #[test]
    fn without_a_name_it_is_the_identifier() {
        assert_eq!(DerivedBelow::STREAM.name, "DerivedBelow");
        assert_eq!(StreamId::of::<DerivedBelow>(), DerivedBelow::STREAM.id);
    }

    #[test]
    fn derives_are_completed_and_serde_attributes_respected() {
        assert_eq!(StreamId::of::<HalfDerived>(), HalfDerived::STREAM.id);
        assert_eq!(StreamId::of::<DerivedAbove>(), DerivedAbove::STREAM.id);
        assert_eq!((OwnRename::STREAM.name, StreamId::of::<OwnRename>()), ("renamed", OwnRename::STREAM.id));
    }

    mod other {
        /// Another version of it.
        #[mosaik::stream(name = "ticks")]
        pub struct Tick {
            pub at: u32,
        }
    }

    #[test]
    fn ends_that_disagree_about_the_shape_are_told_so() {
        two_nodes(|a, b| async move {
            let producer = Tick::producer(&a).build().expect("builds");
            let consumer = other::Tick::consumer(&b).build();
            let mut events = consumer.events();
            let told = async {
                while let Some(event) = events.next().await {
                    if let mosaik::streams::Event::Incompatible { what, ours, theirs, .. } = event {
                        return [what, ours, theirs];
                    }
                }
                Default::default()
            };
            let told = tokio::time::timeout(SOON, told).await.expect("an event");
            // The first difference, by its path.
            assert_eq!(told, ["schema", "ticks.at: u32", "ticks.at: u64"]);
            assert!(!producer.is_online());
        });
    }

    #[test]
    fn the_shape_is_the_declaration_in_canonical_text() {
        assert_eq!(HalfDerived::STREAM.shape, "enum{A(u8),C{d:Vec<Vec<u8>>},E}");
        assert_ne!(HalfDerived::STREAM.schema, Tick::STREAM.schema);
    }
}

/// Nothing of the user's scope may change what generated code means, and the crate may have another name.
mod hygiene {
    #![expect(dead_code, non_snake_case, reason = "names that shadow what generated code might use")]

    mod deep {
        pub use ::mosaik as elsewhere;
    }

    struct Result;
    struct Option;
    struct Box;
    struct String;
    struct Vec;
    struct Self_;
    trait Default {}
    trait Send {}
    mod core {}
    mod std {}
    mod mosaik {}
    mod serde {}
    fn Ok() {}
    fn Err() {}
    fn Some() {}
    fn role() {}
    fn item() {}
    fn table() {}

    #[deep::elsewhere::stream(crate = deep::elsewhere)]
    pub struct Value {
        pub r#type: i32,
    }

    #[deep::elsewhere::node(crate = deep::elsewhere)]
    pub struct Unscoped {
        r#in: deep::elsewhere::prelude::Consumer<Value>,
        out: deep::elsewhere::prelude::Producer<Value>,
        #[mosaik(arg, default = 1)]
        r#loop: i32,
        #[mosaik(default)]
        role: i32,
    }

    #[deep::elsewhere::handlers(crate = deep::elsewhere)]
    impl Unscoped {
        #[on(r#in)]
        async fn item(&mut self, item: Value, from: deep::elsewhere::PeerId) {
            let _ = (item, from, self.r#loop);
            ::core::future::ready(()).await;
        }

        #[every("1h", emit = out)]
        fn r#match(&self) -> ::core::option::Option<Value> {
            let _ = &self.r#in;
            ::core::option::Option::None
        }
    }

    #[deep::elsewhere::app(roles = [Unscoped], crate = deep::elsewhere)]
    pub struct App;

    #[test]
    fn raw_identifiers_lose_their_prefix() {
        use ::mosaik::node::Role;
        assert_eq!(Unscoped::ROLE.endpoints[0].field, "in");
        assert_eq!(Unscoped::ROLE.args[0].flag, "loop");
    }
}

mod roles {
    use super::{streams::Tick, *};

    pub type Ticks = Producer<Tick>;

    /// Sends ticks.
    ///
    /// More about it.
    #[mosaik::node(name = "clock", tags = ["clock", ZONE])]
    pub struct Clock {
        /// Where to begin.
        #[mosaik(arg, default = 40 + 2)]
        first_tick: u64,
        #[mosaik(arg)]
        label: Option<String>,
        #[mosaik(arg)]
        peer: Vec<PeerId>,
        #[mosaik(arg)]
        quiet: bool,
        #[mosaik(arg, default = "127.0.0.1:80")]
        addr: std::net::SocketAddr,
        #[mosaik(default)]
        sent: u64,
        #[mosaik(default = String::from("state"))]
        state: String,
        ticks: Ticks,
    }

    const ZONE: &str = "eu";

    #[mosaik::handlers]
    impl Clock {
        #[every("100ms", emit = ticks)]
        fn tick(&mut self) -> Tick {
            self.sent += 1;
            Tick { at: self.first_tick + self.sent }
        }
    }

    #[mosaik::node]
    pub struct Idle {}

    #[mosaik::handlers]
    impl Idle {}

    /// An app.
    #[mosaik::app(name = "clocks", roles = [Clock, Idle])]
    pub struct Clocks;

    #[test]
    fn direction_comes_from_the_type_also_through_an_alias() {
        let [endpoint] = Clock::ROLE.endpoints else { panic!("one endpoint") };
        let (direction, stream) = endpoint.stream().expect("a stream");
        assert_eq!((endpoint.field, direction, stream.name), ("ticks", Direction::Produces, "ticks"));
        assert_eq!(*stream, Tick::STREAM);
    }

    #[test]
    fn a_role_is_data() {
        let tags: Vec<_> = Clock::ROLE.tags.iter().map(|tag| (tag.name, tag.tag)).collect();
        assert_eq!(tags, [("clock", Tag::from("clock")), ("eu", Tag::from("eu"))]);
        assert_eq!((Clock::ROLE.name, Idle::ROLE.name), ("clock", "idle"));
        assert_eq!(Clock::ROLE.doc, "Sends ticks.\n\nMore about it.");
        let flags: Vec<_> = Clock::ROLE.args.iter().map(|arg| arg.flag).collect();
        assert_eq!(flags, ["first-tick", "label", "peer", "quiet", "addr"]);
    }

    #[test]
    fn the_graph_is_a_constant_and_tells_what_is_missing() {
        const ROLES: usize = Clocks::GRAPH.roles.len();
        assert_eq!(ROLES, 2);
        let warnings: Vec<_> = Clocks::GRAPH.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(warnings, ["stream \"ticks\" is produced by clock and consumed by nobody"]);
        assert_eq!(
            Clocks::GRAPH.to_mermaid(),
            "flowchart LR\n    r0[\"clock\"]\n    r1[\"idle\"]\n    s0([\"ticks\"])\n    r0 --> s0\n"
        );
        assert!(Clocks::GRAPH.to_dot().contains("r0 -> s0;"));
        assert!(
            Clocks::GRAPH.to_json().contains("{\"field\":\"ticks\",\"direction\":\"produces\",\"stream\":\"ticks\",\"declared\":{\"optional\":false,\"options\":{},\"file\":\"")
        );
        assert!(Clocks::GRAPH.to_listing().contains("clock: Sends ticks.\n    tags      clock, eu\n"));
    }

    #[test]
    fn flags_become_fields() {
        two_nodes(|net, _| async move {
            let id = net.local().id();
            let flags = ["--label", "l", "--quiet", "--addr", "[::1]:5", "--peer", &id.to_string()];
            let values = ArgValues::parse(&Clock::ROLE, flags).expect("fits");
            let clock = Clock::open(&mut Setup::new(&net, &values)).await.expect("opens");
            assert_eq!((clock.first_tick, clock.label.as_deref(), clock.quiet), (42, Some("l"), true));
            assert_eq!((clock.addr.to_string(), clock.peer, clock.state), ("[::1]:5".into(), vec![id], "state".into()));
            let defaults = ArgValues::parse(&Clock::ROLE, ["--first-tick=7"; 1]).expect("fits");
            drop(clock.ticks);
            let clock = Clock::open(&mut Setup::new(&net, &defaults)).await.expect("opens");
            assert_eq!((clock.first_tick, clock.label, clock.quiet, clock.peer), (7, None, false, vec![]));
            assert_eq!(clock.addr.to_string(), "127.0.0.1:80");
            assert!(ArgValues::parse(&Clock::ROLE, ["--addr", "nowhere"]).is_err());
        });
    }

    #[test]
    fn a_second_producer_of_a_stream_is_refused_by_name() {
        two_nodes(|net, _| async move {
            let _first = start::<Clock>(&net, &[]).await;
            let values = ArgValues::parse(&Clock::ROLE, [""; 0]).expect("fits");
            let error = Clock::open(&mut Setup::new(&net, &values)).await.err();
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("`ticks`") && error.contains("\"ticks\""), "{error}");
        });
    }
}

mod handlers {
    use super::{roles::Clock, streams::Tick, *};

    type Log = Arc<Mutex<Vec<String>>>;

    fn note(log: &Log, line: impl Into<String>) {
        log.lock().expect("no panic while noting").push(line.into());
    }

    fn has(log: &Log, line: &str) -> bool {
        log.lock().expect("no panic while noting").iter().any(|known| known == line)
    }

    #[mosaik::node]
    struct Display {
        ticks: Consumer<Tick>,
        #[mosaik(default)]
        log: Log,
        #[mosaik(default)]
        busy: bool,
    }

    #[mosaik::handlers]
    impl Display {
        #[start]
        async fn begin(&mut self) {
            tokio::task::yield_now().await;
            note(&self.log, "start");
        }

        #[on(ticks)]
        async fn show(&mut self, tick: Tick, from: PeerId) -> Result<(), String> {
            assert!(!std::mem::replace(&mut self.busy, true), "handlers run one at a time");
            tokio::time::sleep(Duration::from_millis(30)).await;
            self.busy = false;
            note(&self.log, format!("{} {from}", tick.at));
            match tick.at % 3 {
                0 => Err(format!("{} cannot be shown", tick.at)),
                1 => panic!("{} must not be shown", tick.at),
                _ => Ok(()),
            }
        }

        #[every("10ms")]
        fn look(&self) {
            assert!(!self.busy, "handlers run one at a time");
            note(&self.log, "look");
        }

        #[stop]
        fn end(&mut self) -> Result<(), &'static str> {
            note(&self.log, "stop");
            Err("this is only reported")
        }

        #[cfg(not(test))]
        #[every("10ms")]
        fn not_in_this_build(&self) {
            std::process::abort();
        }

        /// Not a handler.
        fn make(net: &Network) -> (Self, Log) {
            let log = Log::default();
            (Self { ticks: Tick::consumer(net).build(), log: log.clone(), busy: false }, log)
        }
    }

    #[test]
    fn items_arrive_in_order_and_failures_are_contained() {
        two_nodes(|a, b| async move {
            let (display, log) = Display::make(&b);
            let display = spawn(&b, display);
            let clock = start::<Clock>(&a, &["--first-tick", "0"]).await;
            assert!(eventually(SOON, || display.status().panics >= 2 && display.status().errors >= 2).await);
            display.stop().await.expect("stops");
            clock.stop().await.expect("stops");
            let log = log.lock().expect("not poisoned").clone();
            assert_eq!(
                (log.first().map(String::as_str), log.last().map(String::as_str)),
                (Some("start"), Some("stop"))
            );
            assert!(log.iter().any(|line| line == "look"), "periodic handlers take turns with a busy stream");
            let id = a.local().id();
            let shown: Vec<u64> =
                log.iter().filter_map(|line| line.strip_suffix(&format!(" {id}"))?.parse().ok()).collect();
            assert!(shown.len() >= 4 && shown.is_sorted_by(|one, next| *next == one + 1), "{shown:?}");
        });
    }

    #[mosaik::node]
    struct Watch {
        ticks: Consumer<Tick>,
        #[mosaik(default)]
        log: Log,
    }

    #[mosaik::handlers]
    impl Watch {
        #[on(ticks)]
        fn count(&self, Tick { at }: Tick) {
            note(&self.log, format!("tick {at}"));
        }

        #[on(ticks.gap)]
        async fn hole(&mut self, gap: Gap, from: PeerId) -> Result<(), String> {
            tokio::task::yield_now().await;
            note(&self.log, format!("missed {} from {} of {from}: {:?}", gap.missed(), gap.from, gap.reason));
            Err("this is only reported".into())
        }

        #[on(ticks.late, after = "3s")]
        fn silence(&self, silent: Duration) {
            note(&self.log, format!("silent {}", silent.as_secs()));
        }
    }

    /// A role is told of holes, and of a feed that stops while all looks well: once, and again after it went on.
    #[test]
    fn gaps_and_lateness_are_handled() {
        Sim::run(8, |sim| async move {
            let (a, b) = (sim.node("a"), sim.node("b"));
            let (na, nb) = (a.builder(NETWORK).build().await.expect("a"), b.builder(NETWORK).build().await.expect("b"));
            let log = Log::default();
            let watch = spawn(&nb, Watch { ticks: Tick::consumer(&nb).build(), log: log.clone() });
            let ticks = Tick::producer(&na).online_when(|c| c.minimum_of(0)).with_replay(Buffer::none()).build();
            let ticks = ticks.expect("the only one");
            ticks.when().subscribed().await;
            for at in 0..4 {
                ticks.send(Tick { at }).await.expect("sent");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            assert!(!has(&log, "silent 3"));
            assert!(eventually(SOON, || has(&log, "silent 3")).await);
            tokio::time::sleep(Duration::from_secs(10)).await;
            sim.partition(std::slice::from_ref(&a), std::slice::from_ref(&b));
            ticks.when().unsubscribed().await;
            for at in 4..9 {
                ticks.send(Tick { at }).await.expect("sent");
            }
            sim.heal();
            ticks.when().subscribed().await;
            ticks.send(Tick { at: 9 }).await.expect("sent");
            let gap = format!("missed 5 from 4 of {}: Reconnected", na.local().id());
            assert!(eventually(SOON, || has(&log, &gap) && has(&log, "tick 9")).await);
            let times = |line: &str| log.lock().expect("not poisoned").iter().filter(|known| *known == line).count();
            assert_eq!(times("silent 3"), 1, "once until the next item");
            assert!(eventually(SOON, || times("silent 3") == 2).await);
            assert_eq!(watch.status().errors, 1);
        });
    }

    #[test]
    fn what_is_emitted_to_nobody_is_dropped_and_counted() {
        two_nodes(|a, b| async move {
            let clock = start::<Clock>(&a, &[]).await;
            assert!(eventually(SOON, || clock.status().dropped >= 3).await);
            assert_eq!(clock.status().emitted, 0);
            let mut ticks = Tick::consumer(&b).build();
            let first = ticks.recv().await.expect("a tick");
            assert!(first.at > 45, "dropped ones are not kept: {first:?}");
            assert!(eventually(SOON, || clock.status().emitted >= 1).await);
            let status = clock.status();
            assert_eq!(status.handled, status.emitted + status.dropped);
        });
    }

    #[mosaik::node]
    struct Picky {
        ticks: Producer<Tick>,
        #[mosaik(default)]
        calls: u64,
    }

    #[mosaik::handlers]
    impl Picky {
        /// An item, nothing, an error and a panic in turn.
        #[every("5ms", emit = ticks)]
        async fn maybe(&mut self) -> Result<Option<Tick>, std::io::Error> {
            self.calls += 1;
            tokio::task::yield_now().await;
            match self.calls % 4 {
                0 => Ok(Some(Tick { at: self.calls })),
                1 => Ok(None),
                2 => Err(std::io::Error::other("no tick")),
                _ => panic!("no tick at all"),
            }
        }
    }

    #[test]
    fn what_a_handler_returns_decides_what_is_emitted() {
        two_nodes(|a, b| async move {
            let mut ticks = Tick::consumer(&b).build();
            let picky = start::<Picky>(&a, &[]).await;
            let first = ticks.recv().await.expect("a tick").at;
            assert_eq!(ticks.recv().await.map(|tick| tick.at), Some(first + 4));
            let status = picky.status();
            assert!(status.panics > 0 && status.errors > 0 && status.emitted >= 2, "{status:?}");
        });
    }

    #[mosaik::stream]
    #[derive(Debug, PartialEq)]
    struct Double(u64);

    /// Handlers that use the role's own endpoints, and take their items apart.
    #[mosaik::node]
    struct Doubler {
        ticks: Consumer<Tick>,
        doubles: Producer<Double>,
    }

    #[mosaik::handlers]
    impl Doubler {
        #[on(ticks)]
        async fn double(&self, Tick { mut at }: Tick) -> Result<(), impl std::fmt::Display> {
            at *= 2;
            self.doubles.send(Double(at)).await
        }
    }

    #[test]
    fn a_handler_can_send_on_the_role_s_own_producers() {
        two_nodes(|a, b| async move {
            let (_clock, _doubler) =
                (start::<Clock>(&a, &["--first-tick", "0"]).await, start::<Doubler>(&b, &[]).await);
            let mut doubles = Double::consumer(&a).build();
            let Double(first) = doubles.recv().await.expect("a double");
            assert_eq!(doubles.recv().await, Some(Double(first + 2)));
        });
    }

    #[mosaik::node]
    struct Failing {
        #[mosaik(arg)]
        panics: bool,
        #[mosaik(default)]
        log: Log,
    }

    #[mosaik::handlers]
    impl Failing {
        #[start]
        fn begin(&self) -> Result<(), String> {
            assert!(!self.panics, "a bad day");
            Err("no disk".into())
        }

        #[stop]
        fn end(&self) {
            note(&self.log, "stop");
        }
    }

    #[test]
    fn a_role_whose_start_fails_does_not_run() {
        two_nodes(|net, _| async move {
            for (flags, why) in [(&[][..], "no disk"), (&["--panics"], "a bad day")] {
                let error = start::<Failing>(&net, flags).await.ended().await.expect_err("did not start").to_string();
                assert!(error.contains("`begin`") && error.contains(why), "{error}");
            }
        });
    }

    #[mosaik::node]
    struct Slow {
        #[mosaik(default)]
        log: Log,
    }

    #[mosaik::handlers]
    impl Slow {
        #[every("1ms")]
        async fn wait(&mut self) {
            note(&self.log, "waiting");
            std::future::pending::<()>().await;
        }

        #[stop]
        async fn end(&mut self) {
            note(&self.log, "stop");
            std::future::pending::<()>().await;
        }
    }

    #[test]
    fn a_handler_that_does_not_end_cannot_hold_a_role() {
        two_nodes(|net, _| async move {
            let log = Log::default();
            let slow = spawn(&net, Slow { log: log.clone() });
            assert!(eventually(SOON, || has(&log, "waiting")).await);
            tokio::time::timeout(Duration::from_millis(1100), slow.stop()).await.expect("in time").expect("stops");
            assert!(has(&log, "stop"));
        });
    }

    #[test]
    fn the_end_of_the_node_stops_its_roles() {
        two_nodes(|net, _| async move {
            let log = Log::default();
            let slow = spawn(&net, Slow { log: log.clone() });
            assert!(eventually(SOON, || has(&log, "waiting")).await);
            net.shutdown().await;
            slow.ended().await.expect("stopped");
            assert!(has(&log, "stop"), "the stop handler ran");
        });
    }
}
