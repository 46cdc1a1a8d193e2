//! Options of endpoints on the fields of a role, fields and handlers under `cfg`, and what handlers can say beyond their event.
#![allow(
    clippy::unused_self,
    clippy::needless_pass_by_value,
    clippy::trivially_copy_pass_by_ref,
    clippy::ref_option,
    reason = "handlers and predicates have the signatures that they are declared with"
)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mosaik::{
    network::Network,
    node::{ArgValues, Graph, Handlers, OptionDecl, Role, RoleDecl, RoleEntry, RoleError, RoleHandle, Setup, spawn},
    prelude::*,
    testing::{Sim, eventually},
};

const SOON: Duration = Duration::from_secs(30);

/// Runs a scenario on a simulated network of these nodes, each with a tag that is its name.
fn nodes<F: Future<Output = ()>, const N: usize>(
    names: [&'static str; N],
    scenario: impl FnOnce(Sim, [Network; N]) -> F,
) {
    Sim::run(11, |sim| async move {
        let mut all = Vec::new();
        for name in names {
            all.push(sim.node(name).builder("options").with_tags([name]).build().await.expect("starts"));
        }
        let all: [Network; N] = all.try_into().expect("as many");
        scenario(sim, all).await;
    });
}

/// Starts a role as the generated main does.
async fn start<R: Handlers>(net: &Network, flags: &[&str]) -> RoleHandle {
    let values = ArgValues::parse(&R::ROLE, flags).expect("the flags fit");
    spawn(net, R::open(&mut Setup::new(net, &values)).await.expect("the role opens"))
}

type Log = Arc<Mutex<Vec<String>>>;

fn lines(log: &Log) -> Vec<String> {
    log.lock().expect("no panic while noting").clone()
}

fn note(log: &Log, line: impl Into<String>) {
    log.lock().expect("no panic while noting").push(line.into());
}

#[mosaik::stream(name = "quotes")]
#[derive(Clone, Debug, PartialEq)]
pub struct Quote(pub u64);

#[mosaik::stream(name = "sums")]
#[derive(Clone, Debug, PartialEq)]
pub struct Sum(pub u64);

mod settings {
    use super::*;

    const ROOM: Buffer = Buffer::none();

    #[mosaik::node]
    struct Guarded {
        #[mosaik(arg, default = "eu")]
        zone: String,
        #[mosaik(arg)]
        open: bool,
        #[mosaik(
            accept_if = Self::may_read(zone, open),
            max_consumers = 1,
            online_when = "1 with tag eu",
            egress = "8MiB/s",
            buffer = "16 items, 64KiB",
            on_lag = block("500ms"),
            replay = ROOM,
            replay_pace = "1MiB/s",
            lifespan = "1m",
        )]
        quotes: Producer<Quote>,
    }

    #[mosaik::handlers]
    impl Guarded {
        fn may_read(zone: &str, open: &bool, peer: &PeerEntry) -> bool {
            *open || peer.tags().contains(zone)
        }
    }

    #[test]
    fn a_predicate_takes_flags_of_the_role() {
        nodes(["here", "eu", "us"], |_, [here, eu, us]| async move {
            let _guarded = start::<Guarded>(&here, &[]).await;
            let (eu, us) = (Quote::consumer(&eu).build(), Quote::consumer(&us).build());
            assert!(eventually(SOON, || eu.producers().count() == 1).await);
            assert!(!eventually(Duration::from_secs(5), || us.producers().count() == 1).await, "it has no tag eu");
        });
        nodes(["here", "us"], |_, [here, us]| async move {
            let guarded = start::<Guarded>(&here, &["--open"]).await;
            let us = Quote::consumer(&us).build();
            assert!(eventually(SOON, || us.producers().count() == 1).await, "{:?}", guarded.status());
        });
    }

    #[test]
    fn room_and_conditions_are_set_at_the_builder() {
        nodes(["here", "eu", "us", "eu2"], |_, [here, eu, us, other]| async move {
            let values = ArgValues::parse(&Guarded::ROLE, ["--open"]).expect("fits");
            let guarded = Guarded::open(&mut Setup::new(&here, &values)).await.expect("opens");
            let us = Quote::consumer(&us).build();
            assert!(eventually(SOON, || us.producers().count() == 1).await);
            assert!(!guarded.quotes.is_online(), "online with one consumer that has the tag");
            drop(us);
            let eu = Quote::consumer(&eu).build();
            assert!(eventually(SOON, || guarded.quotes.is_online()).await);
            let second = Quote::consumer(&other).build();
            assert!(!eventually(Duration::from_secs(5), || second.producers().count() == 1).await, "one at a time");
            drop(eu);
            assert!(eventually(SOON, || second.producers().count() == 1).await);
        });
    }

    #[test]
    fn options_and_places_are_in_the_graph() {
        let [end] = Guarded::ROLE.endpoints else { panic!("one endpoint") };
        assert_eq!(end.options.len(), 9);
        assert_eq!(end.options[0], OptionDecl { key: "accept_if", value: "Self::may_read(zone,open)" });
        assert_eq!((end.option("egress"), end.option("on_lag")), (Some("8MiB/s"), Some("block(\"500ms\")")));
        assert_eq!(end.option("deadline"), None);
        assert!(end.place.file.ends_with("declared_options.rs"), "{}", end.place);
        let field =
            include_str!("declared_options.rs").lines().position(|line| line.contains("quotes: Producer<Quote>,"));
        assert_eq!(Some(end.place.line as usize), field.map(|before| before + 1), "the line of the field");
        let graph = Graph { app: "a", doc: "", version: None, roles: const { &[RoleEntry::of::<Guarded>()] } };
        assert!(graph.to_listing().contains("produces  quotes (Quote) [accept_if = "), "{}", graph.to_listing());
        assert!(graph.to_json().contains("\"max_consumers\":\"1\""), "{}", graph.to_json());
    }

    #[mosaik::node]
    struct Keeping {
        #[mosaik(retain = last_per_key(1), key = |quote| quote.0 % 2)]
        quotes: Producer<Quote>,
        #[mosaik(default)]
        sent: u64,
    }

    #[mosaik::handlers]
    impl Keeping {
        #[start]
        async fn send(&mut self) -> Result<(), String> {
            self.quotes.when().online().await;
            for number in 0..10 {
                self.quotes.send(Quote(number)).await.map_err(|error| error.to_string())?;
                self.sent += 1;
            }
            Ok(())
        }
    }

    #[test]
    fn what_is_kept_is_said_at_the_field() {
        nodes(["here", "first", "late"], |_, [here, first, late]| async move {
            let mut first = Quote::consumer(&first).build();
            let _keeping = start::<Keeping>(&here, &[]).await;
            for number in 0..10 {
                assert_eq!(first.recv().await, Some(Quote(number)));
            }
            let mut late = Quote::consumer(&late).build();
            let mut kept = [late.recv().await, late.recv().await];
            kept.sort_by_key(|quote| quote.as_ref().map(|quote| quote.0));
            assert_eq!(kept, [Some(Quote(8)), Some(Quote(9))], "the last of each key");
        });
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub struct Total(u64);

    #[mosaik::store(name = "options.total")]
    impl Total {
        fn fold(&mut self, by: u64) {
            self.0 += by;
        }
    }

    #[mosaik::node]
    struct Begun {
        #[mosaik(state = Total(40))]
        total: Primary<Total>,
    }

    #[test]
    fn a_store_begins_with_what_the_field_says() {
        nodes(["here", "there"], |_, [here, there]| async move {
            let values = ArgValues::parse(&Begun::ROLE, [""; 0]).expect("fits");
            let begun = Begun::open(&mut Setup::new(&here, &values)).await.expect("opens");
            begun.total.apply(2).await.expect("is applied");
            let replica = Total::replica(&there).build();
            assert!(eventually(SOON, || *replica.read() == Total(42)).await);
        });
    }

    #[mosaik::node]
    struct Lossy {
        #[mosaik(on_lag = drop_oldest, buffer = "4 items", replay = "1 item")]
        quotes: Producer<Quote>,
    }

    #[test]
    fn a_slow_consumer_of_a_lossy_producer_has_gaps() {
        nodes(["here", "there"], |_, [here, there]| async move {
            let values = ArgValues::parse(&Lossy::ROLE, [""; 0]).expect("fits");
            let lossy = Lossy::open(&mut Setup::new(&here, &values)).await.expect("opens");
            let mut slow = Quote::consumer(&there).build();
            lossy.quotes.when().subscribed().await;
            for number in 0..50_000 {
                lossy.quotes.send(Quote(number)).await.expect("never waits for room");
            }
            let mut last = 0;
            while last < 49_999 {
                last = slow.recv().await.expect("the newest stay").0;
            }
            assert!(slow.stats().drops() > 0, "{:?}", slow.stats());
        });
    }

    #[mosaik::node]
    struct Picky {
        #[mosaik(subscribe_if = |peer| !peer.tags().contains("us"), deadline = "3s", backoff = "10ms..1s", live_only)]
        quotes: Consumer<Quote>,
        #[mosaik(default)]
        log: Log,
    }

    #[mosaik::handlers]
    impl Picky {
        #[on(quotes)]
        fn take(&self, quote: Quote) {
            note(&self.log, quote.0.to_string());
        }

        #[on(quotes.late)]
        fn late(&self, silent: Duration) {
            note(&self.log, format!("late {}", silent.as_secs()));
        }
    }

    #[test]
    fn a_consumer_is_set_up_as_declared() {
        nodes(["here", "eu", "us"], |_, [here, eu, us]| async move {
            let values = ArgValues::parse(&Picky::ROLE, [""; 0]).expect("fits");
            let picky = Picky::open(&mut Setup::new(&here, &values)).await.expect("opens");
            let log = picky.log.clone();
            let _picky = spawn(&here, picky);
            let (eu, us) = (Quote::producer(&eu).build().expect("new"), Quote::producer(&us).build().expect("new"));
            eu.send(Quote(1)).await.expect("sent");
            assert!(eventually(SOON, || lines(&log).contains(&"late 3".into())).await, "{:?}", lines(&log));
            assert_eq!(lines(&log)[0], "1");
            assert!(!us.is_online(), "the consumer does not want it");
        });
    }
}

mod preferred {
    use super::*;

    #[mosaik::node]
    struct Choosy {
        #[mosaik(prefer = [by(Self::rank), tag("gold"), zone, latency], fanin = 2)]
        quotes: Consumer<Quote>,
    }

    impl Choosy {
        fn rank(peer: &PeerEntry) -> i64 {
            if peer.tags().contains("never") { -1 } else { 0 }
        }
    }

    #[mosaik::handlers]
    impl Choosy {}

    /// A preference that is an expression.
    #[mosaik::node]
    struct Written {
        #[mosaik(prefer = mosaik::streams::Prefer::zone().then(mosaik::streams::Prefer::latency()), fanin = 1)]
        quotes: Consumer<Quote>,
    }

    #[test]
    fn a_consumer_takes_whom_its_field_prefers() {
        nodes(["here", "gold", "silver", "never"], |_, [here, gold, silver, never]| async move {
            let producers: Vec<_> =
                [&gold, &silver, &never].map(|net| Quote::producer(net).build().expect("new")).into_iter().collect();
            let values = ArgValues::parse(&Choosy::ROLE, [""; 0]).expect("fits");
            let choosy = Choosy::open(&mut Setup::new(&here, &values)).await.expect("opens");
            let taken = |quotes: &Consumer<Quote>| {
                let mut all: Vec<_> = quotes.producers().map(|channel| channel.peer().id()).collect();
                all.sort_unstable();
                all
            };
            let mut wanted = vec![gold.local().id(), silver.local().id()];
            wanted.sort_unstable();
            assert!(eventually(SOON, || taken(&choosy.quotes) == wanted).await, "{:?}", taken(&choosy.quotes));
            let written = Written::open(&mut Setup::new(&here, &values)).await.expect("opens");
            assert!(eventually(SOON, || taken(&written.quotes).len() == 1).await);
            drop(producers);
        });
        let options = |role: &RoleDecl| role.endpoints[0].options.to_vec();
        let first = OptionDecl { key: "prefer", value: "[by(Self::rank),tag(\"gold\"),zone,latency]" };
        assert_eq!(options(&Choosy::ROLE), [first, OptionDecl { key: "fanin", value: "2" }]);
    }
}

mod optional {
    use super::*;

    #[mosaik::node]
    struct Maybe {
        #[mosaik(arg)]
        publish: bool,
        #[mosaik(arg)]
        from: Option<String>,
        #[mosaik(only_if = publish, max_consumers = 2)]
        sums: Option<Producer<Sum>>,
        #[mosaik(only_if = Self::wants(from))]
        quotes: Option<Consumer<Quote>>,
    }

    #[mosaik::handlers]
    impl Maybe {
        fn wants(from: &Option<String>) -> bool {
            from.is_some()
        }

        #[on(quotes, emit = sums)]
        fn sum(&self, quote: Quote) -> Vec<Sum> {
            vec![Sum(quote.0), Sum(quote.0 * 10)]
        }

        #[on(quotes.connected)]
        fn connected(&self, _producer: PeerId) {}
    }

    #[test]
    fn an_endpoint_is_there_when_its_condition_holds() {
        nodes(["here", "there"], |_, [here, there]| async move {
            let maybe = start::<Maybe>(&here, &["--publish", "--from", "x"]).await;
            let quotes = Quote::producer(&there).build().expect("new");
            let mut sums = Sum::consumer(&there).build();
            assert!(eventually(SOON, || sums.producers().count() == 1).await);
            quotes.send(Quote(7)).await.expect("sent");
            assert_eq!((sums.recv().await, sums.recv().await), (Some(Sum(7)), Some(Sum(70))));
            assert!(eventually(SOON, || maybe.status().emitted == 2).await, "{:?}", maybe.status());
        });
        nodes(["here", "there"], |_, [here, there]| async move {
            let maybe = start::<Maybe>(&here, &["--from", "x"]).await;
            let quotes = Quote::producer(&there).build().expect("new");
            quotes.send(Quote(7)).await.expect("sent");
            assert!(eventually(SOON, || maybe.status().dropped == 2).await, "no producer: {:?}", maybe.status());
        });
        nodes(["here", "there"], |_, [here, there]| async move {
            let _maybe = start::<Maybe>(&here, &["--publish"]).await;
            let quotes = Quote::producer(&there).build().expect("new");
            assert!(!eventually(Duration::from_secs(5), || quotes.is_online()).await, "nobody consumes");
        });
        assert!(Maybe::ROLE.endpoints.iter().all(|end| end.optional));
    }
}

mod returned {
    use super::*;

    #[mosaik::node]
    struct Sender {
        #[mosaik(online_when = "0", undelivered = Self::back)]
        quotes: Producer<Quote>,
        #[mosaik(default)]
        sent: u64,
        #[mosaik(default)]
        log: Log,
    }

    #[mosaik::handlers]
    impl Sender {
        #[every("10ms", emit = quotes)]
        fn send(&mut self) -> Option<Quote> {
            self.sent += 1;
            (self.sent <= 3).then_some(Quote(self.sent))
        }

        fn back(&mut self, quote: Quote) -> Result<(), String> {
            note(&self.log, format!("{} of {}", quote.0, self.sent.min(3)));
            if quote.0 == 2 { Err("this is only reported".into()) } else { Ok(()) }
        }
    }

    #[test]
    fn items_that_reached_nobody_come_back() {
        nodes(["here"], |_, [here]| async move {
            let values = ArgValues::parse(&Sender::ROLE, [""; 0]).expect("fits");
            let sender = Sender::open(&mut Setup::new(&here, &values)).await.expect("opens");
            let log = sender.log.clone();
            let sender = spawn(&here, sender);
            assert!(eventually(SOON, || lines(&log).len() == 3).await, "{:?}", lines(&log));
            let first: Vec<_> = lines(&log).iter().map(|line| line[..1].to_owned()).collect();
            assert_eq!(first, ["1", "2", "3"]);
            assert_eq!(sender.status().errors, 1);
        });
    }
}

mod members {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default, Clone, Serialize, Deserialize)]
    #[mosaik::group(name = "tally", key = secret("a key for the tests of options"))]
    pub struct Tally(u64);

    #[mosaik::state_machine]
    impl Tally {
        #[command]
        fn add(&mut self, by: u64) -> u64 {
            self.0 += by;
            self.0
        }
    }

    #[mosaik::node]
    struct Voter {
        #[mosaik(timing = lan)]
        tally: Replica<Tally>,
    }

    #[mosaik::node]
    struct Watcher {
        #[mosaik(role = observer, timing = lan, log_limit = "1MiB")]
        tally: Replica<Tally>,
    }

    #[test]
    fn a_member_has_the_declared_role_and_timing() {
        nodes(["here", "there"], |_, [here, there]| async move {
            let values = ArgValues::parse(&Voter::ROLE, [""; 0]).expect("fits");
            let watcher = Watcher::open(&mut Setup::new(&there, &values)).await.expect("joins");
            let voter = Voter::open(&mut Setup::new(&here, &values)).await.expect("joins");
            assert_eq!(voter.tally.add(5).await.expect("applied"), 5);
            assert_eq!(watcher.tally.add(6).await.expect("applied"), 11);
            let members = voter.tally.group().members();
            let kind =
                |id| members.iter().find(|member| member.id() == id).map(|member| format!("{:?}", member.kind()));
            assert_eq!(kind(there.local().id()).as_deref(), Some("Observer"), "{members:?}");
        });
    }

    #[mosaik::node]
    struct Able {
        tally: Replica<Tally>,
        #[mosaik(default)]
        able: Arc<AtomicBool>,
    }

    #[mosaik::handlers]
    impl Able {
        #[ready]
        fn is_able(&self) -> bool {
            self.able.load(Ordering::Relaxed)
        }
    }

    /// Leadership goes where a role is ready, and away from where it is not.
    #[test]
    fn a_group_hears_whether_its_members_are_ready() {
        nodes(["a", "b", "c"], |_, all| async move {
            let values = ArgValues::parse(&Able::ROLE, [""; 0]).expect("fits");
            let (mut able, mut groups, mut roles) = (Vec::new(), Vec::new(), Vec::new());
            for net in &all {
                let role = Able::open(&mut Setup::new(net, &values)).await.expect("joins");
                able.push(role.able.clone());
                groups.push(role.tally.group().clone());
                roles.push(spawn(net, role));
            }
            let leads = |n: usize| groups[n].leader() == Some(all[n].local().id());
            for n in [1, 2, 0] {
                able.iter().for_each(|each| each.store(false, Ordering::Relaxed));
                able[n].store(true, Ordering::Relaxed);
                assert!(eventually(Duration::from_mins(5), || leads(n)).await, "node {n}: {:?}", groups[n].leader());
                assert!(roles[n].is_ready());
            }
        });
    }
}

/// What does not apply to this build: `any()` never holds.
mod conditional {
    use super::*;

    #[mosaik::node]
    struct Both {
        #[cfg(not(any()))]
        quotes: Producer<Quote>,
        #[cfg(any())]
        missing: NoSuchType,
        #[cfg_attr(not(any()), mosaik(arg, default = 7))]
        #[cfg_attr(any(), mosaik(default))]
        #[cfg_attr(any(), no_such_attribute)]
        number: u8,
        #[cfg(any())]
        #[mosaik(arg)]
        gone: String,
    }

    #[mosaik::handlers]
    impl Both {
        #[cfg_attr(not(any()), every("10ms", emit = quotes))]
        fn tick(&self) -> Quote {
            Quote(self.number.into())
        }

        #[cfg(any())]
        #[on(missing)]
        fn not_built(&self, _: NoSuchType) {}
    }

    #[test]
    fn fields_and_handlers_follow_their_conditions() {
        assert_eq!(Both::ROLE.endpoints.len(), 1);
        assert_eq!(Both::ROLE.args.iter().map(|arg| arg.flag).collect::<Vec<_>>(), ["number"]);
        nodes(["here", "there"], |_, [here, there]| async move {
            let both = start::<Both>(&here, &["--number", "9"]).await;
            assert_eq!(Quote::consumer(&there).build().recv().await, Some(Quote(9)));
            assert_eq!(both.status().errors, 0);
        });
    }
}

mod handlers {
    use super::*;

    #[mosaik::stream(name = "left")]
    pub struct Left(u64);

    #[mosaik::node]
    struct Both {
        one: Consumer<Quote>,
        two: Consumer<Quote>,
        sums: Producer<Sum>,
        #[mosaik(default)]
        log: Log,
        #[mosaik(default)]
        seen: u64,
    }

    #[mosaik::handlers]
    impl Both {
        #[on(one, two, emit = sums)]
        async fn add(&mut self, quote: Quote, _from: PeerId) -> Result<Option<Sum>, String> {
            tokio::task::yield_now().await;
            self.seen += 1;
            Ok(self.seen.is_multiple_of(2).then_some(Sum(quote.0)))
        }

        #[on(one.connected)]
        fn connected(&mut self, producer: PeerId) {
            note(&self.log, format!("connected {producer}"));
        }

        #[on(one.disconnected)]
        fn disconnected(&mut self, reason: DisconnectReason, from: PeerId) {
            note(&self.log, format!("disconnected {from}: {reason}"));
        }

        #[ready]
        fn ready(&self) -> bool {
            self.seen >= 4 && self.sums.is_online()
        }
    }

    #[test]
    fn one_handler_takes_items_of_several_fields_and_tells_of_connections() {
        nodes(["here", "there"], |_, [here, there]| async move {
            let values = ArgValues::parse(&Both::ROLE, [""; 0]).expect("fits");
            let both = Both::open(&mut Setup::new(&here, &values)).await.expect("opens");
            let log = both.log.clone();
            let role = spawn(&here, both);
            let mut sums = Sum::consumer(&there).build();
            assert!(eventually(SOON, || sums.producers().count() == 1).await);
            let quotes = Quote::producer(&there).online_when(|c| c.minimum_of(2)).build().expect("new");
            quotes.send(Quote(5)).await.expect("sent");
            assert!(eventually(SOON, || role.status().handled >= 3).await);
            assert!(!role.is_ready(), "two of four items");
            quotes.send(Quote(6)).await.expect("sent");
            tokio::time::timeout(SOON, role.when_ready()).await.expect("ready");
            assert_eq!((sums.recv().await, sums.recv().await), (Some(Sum(5)), Some(Sum(6))));
            let id = there.local().id();
            assert_eq!(lines(&log), [format!("connected {id}")]);
            drop(sums);
            assert!(eventually(SOON, || !role.is_ready()).await, "asked again without any handler");
            there.shutdown().await;
            let told = |line: &String| line.starts_with(&format!("disconnected {id}: "));
            assert!(eventually(SOON, || lines(&log).iter().any(told)).await, "{:?}", lines(&log));
        });
    }

    #[mosaik::node]
    struct Fragile {
        quotes: Producer<Quote>,
        #[mosaik(arg, default = 3)]
        lives: u64,
        #[mosaik(default)]
        calls: u64,
    }

    #[mosaik::handlers]
    impl Fragile {
        #[every("10ms", on_error = restart, emit = quotes)]
        fn tick(&mut self) -> Quote {
            self.calls += 1;
            assert!(self.calls < self.lives, "worn out");
            Quote(self.calls)
        }
    }

    #[mosaik::app(roles = [Fragile, Proud])]
    struct Restarting;

    #[mosaik::node]
    struct Proud {
        #[mosaik(default)]
        log: Log,
    }

    #[mosaik::handlers]
    impl Proud {
        #[every("10ms", on_error = stop)]
        fn tick(&mut self) -> Result<(), &'static str> {
            Err("not again")
        }

        #[stop]
        fn end(&mut self) {
            note(&self.log, "stop");
        }
    }

    #[test]
    fn a_role_is_made_anew_when_its_handler_says_so() {
        use mosaik::testing::Cluster;
        Sim::run(3, |sim| async move {
            let cluster = Cluster::<Restarting>::in_sim(&sim).with::<Proud>(0);
            let cluster = cluster.with_args::<Fragile>(|_| vec!["--lives=300".into()]).start().await.expect("starts");
            let mut quotes = cluster.tap::<Quote>();
            let fragile = cluster.role::<Fragile>(0);
            let (mut lives, mut last) = (1, 0);
            while lives < 3 {
                let number = tokio::time::timeout(SOON, quotes.recv()).await.expect("in time").expect("goes on").0;
                lives += u32::from(number < last);
                last = number;
            }
            assert!(fragile.status().restarts >= 2 && fragile.status().panics >= 2, "{:?}", fragile.status());
            cluster.stop().await.expect("stops although it was made anew");
        });
    }

    #[test]
    fn a_role_ends_when_its_handler_says_so_or_when_nobody_can_make_it_anew() {
        nodes(["here", "there"], |_, [here, there]| async move {
            let log = Log::default();
            let proud = spawn(&here, Proud { log: log.clone() });
            let ended = tokio::time::timeout(SOON, proud.ended()).await.expect("ends");
            let Err(RoleError::Handler { handler, error, .. }) = ended else { panic!("{ended:?}") };
            assert_eq!((handler, &*error), ("tick", "not again"));
            assert_eq!(lines(&log), ["stop"], "its stop handler ran");
            let fragile = start::<Fragile>(&there, &["--lives", "1"]).await;
            let ended = tokio::time::timeout(SOON, fragile.ended()).await.expect("ends");
            assert!(matches!(&ended, Err(error) if error.to_string().contains("worn out")), "{ended:?}");
        });
    }
}
