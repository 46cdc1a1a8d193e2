//! Tests of the core without IO: rules one by one here, whole networks of cores under faults in `world`.

mod known;
mod world;

use std::time::Duration;

use iroh::{EndpointAddr, SecretKey};

use super::{
    super::{
        config::Config,
        entry::{EntryError, LocalEntry, PeerEntry, Version},
        events::{DepartReason, Event},
        hint::{Hint, Kind},
    },
    Core, Input, Notice, Now, Output, Purpose, Record, Sign, Want, sync,
};
use crate::primitives::{NetworkId, PeerId, Tag};

const NET: NetworkId = NetworkId::from_name("core tests");
const T0: Now = Duration::from_hours(1);
const TTL: Duration = Duration::from_secs(15);

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

fn id(n: u8) -> PeerId {
    secret(n).public().into()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn core_with(n: u8, run_id: u64, config: Config) -> Core {
    let said = LocalEntry::new(EndpointAddr::from(id(n)));
    Core::new(said, run_id, NET, secret(n), config, [n; 32], T0).expect("small")
}

fn core(n: u8) -> Core {
    core_with(n, 1, Config::default())
}

fn entry(n: u8, run_id: u64, seq: u64) -> PeerEntry {
    let mut said = LocalEntry::new(EndpointAddr::from(id(n)));
    said.tags.insert(format!("{run_id}.{seq}"));
    said.sign(Version { run_id, seq }, NET, &secret(n)).expect("small")
}

fn hint_of(entry: &PeerEntry, n: u8, beat: u64, kind: Kind) -> Hint {
    Hint::sign(entry, beat, TTL, kind, NET, &secret(n))
}

fn record(n: u8, run_id: u64, seq: u64, beat: u64, age: Duration) -> Record {
    let entry = entry(n, run_id, seq);
    let hint = hint_of(&entry, n, beat, Kind::Alive);
    Record { entry, sign: Sign { hint, age } }
}

fn step(core: &mut Core, input: Input, now: Now) -> Vec<Output> {
    core.step(input, now);
    core.take_outputs()
}

fn learn(core: &mut Core, record: Record, now: Now) -> Vec<Output> {
    step(core, Input::Records(vec![record]), now)
}

fn told(core: &mut Core, hint: Hint, from: u8, now: Now) -> Vec<Output> {
    step(core, Input::Hint { sign: Sign { hint, age: Duration::ZERO }, from: id(from) }, now)
}

fn version(core: &Core, n: u8) -> Option<(u64, u64)> {
    core.catalog().get(id(n)).map(|entry| (entry.version().run_id, entry.version().seq))
}

fn departed(outputs: &[Output]) -> Option<DepartReason> {
    outputs.iter().find_map(|output| match output {
        Output::Event(Event::PeerDeparted(departed)) => Some(departed.reason()),
        _ => None,
    })
}

fn dials(outputs: &[Output], purpose: Purpose) -> Vec<PeerId> {
    let dial = |output: &Output| match output {
        Output::Dial { target, purpose: p } if *p == purpose => Some(target.peer),
        _ => None,
    };
    outputs.iter().filter_map(dial).collect()
}

/// Ticks whenever the core wants to be, until a moment.
fn run_until(core: &mut Core, until: Now) -> Vec<Output> {
    let mut outputs = Vec::new();
    while core.next_deadline() <= until {
        let now = core.next_deadline();
        outputs.extend(step(core, Input::Tick, now));
    }
    outputs
}

/// Lets time pass in a world where nobody answers: every dial fails after 3 s. When whom was dialled and why.
fn all_dials_fail(core: &mut Core, until: Now, at_most: usize) -> Vec<(Now, Purpose)> {
    let (mut dialled, mut under_way) = (Vec::new(), std::collections::BTreeSet::new());
    let mut now = T0;
    loop {
        for output in core.take_outputs() {
            if let Output::Dial { target, purpose } = output {
                dialled.push((now, purpose));
                under_way.insert((now + secs(3), target.peer));
                assert!(under_way.len() <= at_most, "too many dials at once");
            }
        }
        let failure = under_way.first().copied().filter(|(at, _)| *at <= core.next_deadline());
        now = failure.map_or(core.next_deadline(), |(at, _)| at);
        if now > until {
            return dialled;
        }
        match failure {
            Some(failed) => {
                under_way.remove(&failed);
                core.step(Input::Dialled { peer: failed.1, reached: false }, now);
            }
            None => core.step(Input::Tick, now),
        }
    }
}

fn places(core: &mut Core, addr: &EndpointAddr) -> Vec<Output> {
    step(core, Input::Contact { target: addr.clone().into(), attempts: Some(1) }, T0)
}

#[test]
fn a_peer_that_is_dialled_in_vain_is_also_looked_for_where_it_moved() {
    let mut core = core(9);
    let at = |port| EndpointAddr::from(id(1)).with_ip_addr(([127, 0, 0, 1], port).into());
    assert_eq!(dials(&places(&mut core, &at(1)), Purpose::Contact), [id(1)]);
    assert_eq!(places(&mut core, &at(2)), [Output::Reach(at(2).into())]);
    assert_eq!(places(&mut core, &at(2)), [], "that is under way");
}

#[test]
fn only_a_higher_version_replaces_an_entry() {
    let mut core = core(0);
    learn(&mut core, record(1, 5, 1, 1, secs(0)), T0);
    assert_eq!(version(&core, 1), Some((5, 1)));
    assert_eq!(learn(&mut core, record(1, 5, 0, 9, secs(0)), T0).len(), 0, "stale");
    assert_eq!(learn(&mut core, record(1, 4, 9, 9, secs(0)), T0).len(), 0, "an older run");
    assert_eq!(version(&core, 1), Some((5, 1)));
    let outputs = learn(&mut core, record(1, 5, 2, 2, secs(0)), T0);
    assert!(matches!(&outputs[..], [Output::Event(Event::PeerUpdated(entry))] if entry.version().seq == 2));
    learn(&mut core, record(1, 6, 0, 0, secs(0)), T0);
    assert_eq!(version(&core, 1), Some((6, 0)));
}

#[test]
fn a_peer_that_was_started_anew_elsewhere_has_moved() {
    let at = |run_id: u64, port: u16| {
        let addr = EndpointAddr::from(id(1)).with_ip_addr(([127, 0, 0, 1], port).into());
        let entry = LocalEntry::new(addr).sign(Version { run_id, seq: 0 }, NET, &secret(1)).expect("small");
        let hint = hint_of(&entry, 1, 1, Kind::Alive);
        Record { entry, sign: Sign { hint, age: Duration::ZERO } }
    };
    let moved = |run: u64, port: u16| {
        let mut core = core(0);
        learn(&mut core, at(5, 1), T0);
        let outputs = learn(&mut core, at(run, port), T0);
        outputs.into_iter().any(|output| matches!(output, Output::Moved(to) if to.id == id(1).into()))
    };
    assert!(moved(5_000, 2));
    assert!(!moved(5_000, 1), "where it was before");
    assert!(!moved(6, 2), "two nodes with one key outbid each other by little");
}

#[test]
fn a_record_whose_hint_is_of_another_entry_is_not_believed() {
    let mut core = core(0);
    let mut forged = record(1, 5, 1, 1, secs(0));
    forged.sign = record(1, 5, 2, 2, secs(0)).sign;
    learn(&mut core, forged.clone(), T0);
    forged.sign = record(2, 5, 1, 1, secs(0)).sign;
    learn(&mut core, forged, T0);
    assert_eq!(version(&core, 1), None);
}

#[test]
fn a_lease_is_renewed_by_newer_beats_only_and_then_expires() {
    let mut core = core(0);
    let alive = record(1, 5, 0, 1, secs(0));
    learn(&mut core, alive.clone(), T0);
    let root = core.catalog().root();
    let newer = hint_of(&alive.entry, 1, 2, Kind::Alive);
    told(&mut core, newer, 1, T0 + secs(8));
    assert_eq!(core.catalog().root(), root, "renewal changes nothing in the catalog");
    told(&mut core, newer, 1, T0 + secs(14));
    told(&mut core, alive.sign.hint, 1, T0 + secs(14));
    let outputs = run_until(&mut core, T0 + secs(22));
    assert_eq!(departed(&outputs), None, "8 s + 15 s is not over");
    let outputs = run_until(&mut core, T0 + secs(24));
    assert_eq!(departed(&outputs), Some(DepartReason::Expired), "replays have not renewed it");
}

#[test]
fn an_old_record_does_not_resurrect_what_expired_and_its_age_counts() {
    let mut core = core(0);
    learn(&mut core, record(1, 5, 0, 1, secs(15)), T0);
    assert_eq!(version(&core, 1), None, "expired on the way");
    learn(&mut core, record(1, 5, 0, 1, secs(12)), T0);
    assert_eq!(
        departed(&run_until(&mut core, T0 + secs(4))),
        Some(DepartReason::Expired),
        "after the 3 s that were left"
    );
    learn(&mut core, record(1, 5, 0, 1, secs(2)), T0 + secs(4));
    assert_eq!(version(&core, 1), None, "the same beat, wherever it comes from");
    learn(&mut core, record(1, 5, 0, 2, secs(2)), T0 + secs(4));
    assert_eq!(version(&core, 1), Some((5, 0)), "a newer beat: it lives");
}

#[test]
fn after_a_farewell_only_another_run_is_believed() {
    let mut core = core(0);
    let alive = record(1, 5, 3, 7, secs(0));
    learn(&mut core, alive.clone(), T0);
    let outputs = told(&mut core, hint_of(&alive.entry, 1, 8, Kind::Departed), 2, T0);
    assert_eq!(departed(&outputs), Some(DepartReason::Left));
    learn(&mut core, record(1, 5, 3, 9, secs(0)), T0);
    learn(&mut core, record(1, 5, 4, 10, secs(0)), T0);
    assert_eq!(version(&core, 1), None);
    assert_eq!(core.offer(entry(1, 5, 4), id(1), T0), Err(EntryError::Departed));
    assert_eq!(dials(&run_until(&mut core, T0 + secs(120)), Purpose::Lost), [], "nobody looks for it");
    learn(&mut core, record(1, 6, 0, 0, secs(0)), T0 + secs(120));
    assert_eq!(version(&core, 1), Some((6, 0)));
    told(&mut core, hint_of(&alive.entry, 1, 8, Kind::Departed), 2, T0 + secs(121));
    assert_eq!(version(&core, 1), Some((6, 0)), "the old farewell again");
}

#[test]
fn a_farewell_that_comes_before_the_entry_is_remembered() {
    let mut core = core(0);
    let alive = record(1, 5, 0, 1, secs(0));
    told(&mut core, hint_of(&alive.entry, 1, 2, Kind::Departed), 2, T0);
    learn(&mut core, alive, T0);
    assert_eq!(version(&core, 1), None);
}

#[test]
fn a_lost_connection_is_dialled_at_once_and_a_failed_dial_is_a_departure() {
    let mut core = core(0);
    learn(&mut core, record(1, 5, 0, 1, secs(0)), T0);
    let outputs = step(&mut core, Input::ConnectionLost(id(1)), T0 + secs(2));
    // The first sync round may have dialled it already; its outcome then counts.
    let dialled = dials(&outputs, Purpose::Suspect).len() + usize::from(core.dialling.contains_key(&id(1)));
    assert!(dialled > 0);
    let outputs = step(&mut core, Input::Dialled { peer: id(1), reached: false }, T0 + secs(5));
    assert_eq!(departed(&outputs), Some(DepartReason::Unreachable));
    let outputs = run_until(&mut core, T0 + secs(8));
    assert_eq!(dials(&outputs, Purpose::Lost), [id(1)], "and it is looked for");
}

#[test]
fn a_suspect_of_which_others_hear_is_kept_and_one_that_answers_too() {
    let mut core = core(0);
    let alive = record(1, 5, 0, 1, secs(0));
    for reached in [false, true] {
        learn(&mut core, alive.clone(), T0);
        step(&mut core, Input::ConnectionLost(id(1)), T0 + secs(1));
        if !reached {
            told(&mut core, hint_of(&alive.entry, 1, 2, Kind::Alive), 2, T0 + secs(2));
        }
        let outputs = step(&mut core, Input::Dialled { peer: id(1), reached }, T0 + secs(3));
        assert_eq!((departed(&outputs), version(&core, 1)), (None, Some((5, 0))));
    }
}

#[test]
fn a_silent_peer_is_asked_directly_before_its_lease_ends() {
    let mut core = core(0);
    learn(&mut core, record(1, 5, 0, 1, secs(0)), T0);
    step(&mut core, Input::Dialled { peer: id(1), reached: true }, T0);
    let mut asked = false;
    while core.next_deadline() < T0 + TTL {
        let now = core.next_deadline();
        for output in step(&mut core, Input::Tick, now) {
            if let Output::Dial { target, purpose } = output {
                asked |= purpose == Purpose::Silent && now >= T0 + secs(10);
                step(&mut core, Input::Dialled { peer: target.peer, reached: false }, now);
            }
        }
    }
    assert!(asked);
    assert_eq!(version(&core, 1), Some((5, 0)), "a failed question is no proof");
}

#[test]
fn lost_peers_are_dialled_ever_more_rarely_a_few_at_a_time_and_memory_is_bounded() {
    let config = Config::builder().with_max_lost(20).with_sync_every(secs(10_000)).build();
    let mut core = core_with(0, 1, config);
    for n in 1..=60 {
        learn(&mut core, record(n, 5, 0, 1, secs(0)), T0);
    }
    assert_eq!(core.catalog().len(), 61);
    let dialled = all_dials_fail(&mut core, T0 + secs(600), 16 + 4 + 4);
    let dialled: Vec<Now> = dialled.into_iter().filter(|dial| dial.1 == Purpose::Lost).map(|dial| dial.0).collect();
    assert_eq!((core.catalog().len(), core.gone.len(), core.search.len()), (1, 20, 20));
    let late = dialled.iter().filter(|at| **at > T0 + secs(300)).count();
    assert!((20..=300).contains(&late), "{late} dials of 20 lost peers in five minutes");
    run_until(&mut core, T0 + Config::default().forget_after + secs(60));
    assert_eq!((core.gone.len(), core.search.len()), (0, 20), "versions are forgotten, peers are not");
}

#[test]
fn a_bootstrap_peer_is_dialled_for_ever_quickly_at_first() {
    let mut core = core(0);
    core.step(Input::Contact { target: EndpointAddr::from(id(1)).into(), attempts: None }, T0);
    let at: Vec<Now> = all_dials_fail(&mut core, T0 + secs(600), 1).into_iter().map(|dial| dial.0).collect();
    let pauses: Vec<Duration> = at.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    assert!(at.first().is_some_and(|first| *first < T0 + secs(1)));
    // Each attempt takes 3 s of the pause between two.
    let (quick, slow): (Vec<_>, Vec<_>) = pauses.iter().zip(&at).partition(|(_, at)| **at + secs(3) < T0 + secs(60));
    assert!(quick.iter().all(|(pause, _)| **pause <= secs(4)), "{quick:?}");
    assert!(slow.iter().all(|(pause, _)| **pause <= secs(8) && **pause > secs(5)), "{slow:?}");
    assert!(quick.len() > 10 && slow.len() > 60);
}

#[test]
fn who_lacks_a_version_asks_whoever_told_of_it_and_then_the_next() {
    let mut core = core(0);
    let news = record(9, 5, 0, 1, secs(0));
    let asked = |outputs: &[Output]| -> Vec<(u64, PeerId)> {
        let pull = |output: &Output| match output {
            Output::Pull { request, from, .. } => Some((*request, from.id.into())),
            _ => None,
        };
        outputs.iter().filter_map(pull).collect()
    };
    let first = asked(&told(&mut core, news.sign.hint, 1, T0));
    assert_eq!(first.iter().map(|(_, from)| *from).collect::<Vec<_>>(), [id(1)]);
    let newer = hint_of(&news.entry, 9, 2, Kind::Alive);
    assert_eq!(asked(&told(&mut core, newer, 2, T0)), [], "one question at a time");
    assert!(core.pulls.expects(&Want { peer: *id(9).as_bytes(), version: news.entry.version() }, id(2)));
    assert!(!core.pulls.expects(&Want { peer: *id(9).as_bytes(), version: news.entry.version() }, id(1)));
    let second = asked(&step(&mut core, Input::Pulled { request: first[0].0 }, T0));
    assert_eq!(second.iter().map(|(_, from)| *from).collect::<Vec<_>>(), [id(2)]);
    learn(&mut core, news.clone(), T0 + secs(12));
    assert_eq!(version(&core, 9), Some((5, 0)));
    assert_eq!(asked(&step(&mut core, Input::Pulled { request: second[0].0 }, T0 + secs(12))), []);
    assert_eq!(core.peers[id(9).as_bytes()].hint, Some(newer), "the newer of the two hints holds");
}

#[test]
fn an_offered_entry_counts_at_once_and_its_owner_is_asked_for_a_hint() {
    let mut core = core(0);
    assert_eq!(core.offer(entry(1, 5, 1), id(1), T0).map(|entry| entry.version().seq), Ok(1));
    let (offered, known) = (Version { run_id: 5, seq: 0 }, Version { run_id: 5, seq: 1 });
    assert_eq!(core.offer(entry(1, 5, 0), id(1), T0), Err(EntryError::Stale { offered, known }));
    assert_eq!(core.offer(entry(0, 5, 0), id(1), T0), Err(EntryError::Own));
    let outputs = step(&mut core, Input::Tick, T0);
    assert!(outputs.iter().any(|o| matches!(o, Output::Pull { from, .. } if PeerId::from(from.id) == id(1))));
    let full = Config::builder().with_max_peers(1).build();
    let mut core = core_with(0, 1, full);
    assert!(core.offer(entry(1, 5, 1), id(1), T0).is_ok());
    assert_eq!(core.offer(entry(2, 5, 1), id(2), T0), Err(EntryError::Full));
    learn(&mut core, record(3, 5, 0, 0, secs(0)), T0);
    assert_eq!((core.catalog().len(), core.refused_full()), (2, 2));
}

#[test]
fn a_node_that_meets_a_newer_self_outbids_it_and_two_clones_do_so_at_a_bounded_pace() {
    let mut core = core_with(0, 1, Config::default());
    learn(&mut core, record(0, 9, 4, 30, secs(0)), T0);
    let local = core.catalog().local().clone();
    assert!(local.version() > Version { run_id: 9, seq: 4 });
    assert_eq!(core.local_record(T0).sign.hint.order().0, local.version());
    for n in 0..100 {
        let theirs = Version { run_id: core.catalog().local().version().run_id + 1, seq: 0 };
        learn(&mut core, record(0, theirs.run_id, 0, 1000 + n, secs(0)), T0 + Duration::from_millis(100 * n));
    }
    assert!((5..=12).contains(&core.adoptions()), "{} in ten seconds", core.adoptions());
}

#[test]
fn a_local_change_is_in_the_catalog_on_return_and_too_much_is_refused_whole() {
    let mut core = core(0);
    step(&mut core, Input::Tick, T0);
    core.try_update_local(|said| _ = said.tags.insert("x"), T0 + secs(1)).expect("small");
    assert!(core.catalog().local().tags().contains("x"));
    let outputs = step(&mut core, Input::Tick, T0 + secs(1));
    let news = |output: &Output| matches!(output, Output::Broadcast { hint, news: true } if hint.version.seq == 1);
    assert_eq!(outputs.iter().filter(|output| news(output)).count(), 1);
    core.try_update_local(|said| _ = said.tags.insert("x"), T0 + secs(1)).expect("small");
    assert_eq!(core.catalog().local().version().seq, 1, "no change, no version");
    let many = |said: &mut LocalEntry| (0..300).for_each(|n| _ = said.tags.insert(Tag::from(format!("{n}"))));
    assert!(matches!(core.try_update_local(many, T0), Err(EntryError::TooMany { what: "tags", .. })));
    assert_eq!(core.catalog().local().tags().len(), 1);
}

/// The next round of anti-entropy and when it begins; its peer is reached and brings these records.
fn round(core: &mut Core, brings: Vec<Record>) -> (Now, Vec<Output>) {
    loop {
        let now = core.next_deadline();
        if let [peer] = dials(&step(core, Input::Tick, now), Purpose::Round)[..] {
            core.step(Input::Records(brings), now);
            return (now, step(core, Input::Dialled { peer, reached: true }, now));
        }
    }
}

#[test]
fn rounds_of_anti_entropy_come_sooner_at_first() {
    let config = Config { lease: secs(600), ..Config::default() };
    let every = config.sync_every.as_secs_f64();
    let mut core = core_with(1, 1, config);
    let mut other = record(2, 1, 0, 1, Duration::ZERO);
    other.sign.hint = Hint::sign(&other.entry, 1, secs(600), Kind::Alive, NET, &secret(2));
    learn(&mut core, other, T0);
    let mut before = T0;
    for part in [16.0, 8.0, 4.0, 2.0, 1.0, 1.0] {
        let (now, _) = round(&mut core, Vec::new());
        let pause = now.saturating_sub(before).as_secs_f64() * part / every;
        assert!((0.79..1.21).contains(&pause), "{pause} of a {part}th");
        before = now;
    }
}

#[test]
fn who_learns_in_a_round_of_peers_that_no_hint_told_of_joins_the_overlay_there() {
    let mut core = core(1);
    learn(&mut core, record(2, 1, 0, 1, Duration::ZERO), T0);
    let joins = |outputs: &[Output]| outputs.iter().filter(|it| matches!(it, Output::Join { .. })).count();
    step(&mut core, Input::NeighborUp(id(2)), T0);
    let known = record(3, 1, 0, 1, Duration::ZERO);
    told(&mut core, known.sign.hint, 2, T0);
    assert_eq!(joins(&round(&mut core, vec![known]).1), 0, "gossip told of it and the entry was on its way");
    let (now, outputs) = round(&mut core, vec![record(4, 1, 0, 1, Duration::ZERO)]);
    assert_eq!(joins(&outputs), 1, "the overlay is in two, at {now:?}");
    assert_eq!(joins(&round(&mut core, vec![record(4, 1, 0, 2, Duration::ZERO)]).1), 0);
}

#[test]
fn a_hint_about_a_new_entry_is_news_for_a_while_however_the_entry_came() {
    let mut core = core(1);
    let news = record(2, 1, 0, 1, Duration::ZERO);
    learn(&mut core, news.clone(), T0);
    let (later, sign) =
        (T0 + secs(1), |beat| Sign { hint: hint_of(&news.entry, 2, beat, Kind::Alive), age: Duration::ZERO });
    assert!(core.on_gossip(sign(1), id(3), T0), "neighbours may lack it");
    assert!(!core.on_gossip(sign(2), id(3), later));
    assert!(core.on_gossip(record(2, 1, 1, 3, Duration::ZERO).sign, id(3), later), "another version");
}

#[test]
fn a_sync_of_equal_catalogs_is_constant_and_its_frames_stay_under_the_limit() {
    let size = |message: &sync::Message| postcard::to_allocvec(message).expect("encodes").len();
    let (mut a, mut b) = (core(0), core(1));
    for n in 2..=250 {
        let record = record(n, 5, 0, 1, secs(1));
        learn(&mut a, record.clone(), T0);
        learn(&mut b, record, T0);
    }
    let (ours, theirs) = (a.local_record(T0), b.local_record(T0));
    learn(&mut a, theirs, T0);
    learn(&mut b, ours, T0);
    let sync::Message::Open { root, .. } = a.sync_open(T0) else { panic!("opens") };
    let greeting = b.sync_greet(root, &a.local_record(T0).sign.hint, &[], T0);
    assert!(matches!(greeting, sync::Message::Same { .. }));
    assert!(size(&a.sync_open(T0)) < 250 && size(&greeting) < 250);

    let mut big = LocalEntry::new(EndpointAddr::from(id(1)));
    (0..500).for_each(|n| big.produces.insert(format!("{n}"), Some([7; 32])));
    (0..400).for_each(|n| big.consumes.insert(format!("{n}"), Some([7; 32])));
    let big = big.sign(Version { run_id: 5, seq: 1 }, NET, &secret(1)).expect("within the limits");
    let sign = Sign { hint: hint_of(&big, 1, 1, Kind::Alive), age: secs(0) };
    let wire = sync::WireRecord::from(&Record { entry: big, sign });
    let pages = sync::pages(vec![wire; 20]);
    assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), 20);
    for records in pages {
        let frame = size(&sync::Message::Delta { records, signs: Vec::new(), wants: Vec::new(), more: true });
        assert!(frame < sync::MAX_FRAME);
    }
}

#[test]
fn forged_and_foreign_entries_and_hints_do_not_verify() {
    let entry = entry(1, 5, 0);
    let hint = hint_of(&entry, 1, 1, Kind::Alive);
    let other = NetworkId::from("another network");
    assert_eq!(entry.signed().verify(NET), Ok(entry.clone()));
    assert_eq!(entry.signed().verify(other), Err(EntryError::BadSignature), "signed for one network");
    assert_eq!(Hint::verify(&hint.to_bytes(), NET), Ok(hint));
    assert!(Hint::verify(&hint.to_bytes(), other).is_err());
    let mut bytes = postcard::to_allocvec(entry.signed()).expect("encodes");
    for at in 0..bytes.len() {
        bytes[at] ^= 0x40;
        if let Ok(forged) = postcard::from_bytes::<super::super::entry::SignedEntry>(&bytes) {
            assert!(forged.verify(NET).is_err(), "byte {at}");
        }
        bytes[at] ^= 0x40;
    }
    let mut bytes = hint.to_bytes();
    for at in 0..bytes.len() {
        bytes[at] ^= 0x40;
        assert!(Hint::verify(&bytes, NET).is_err(), "byte {at}");
        bytes[at] ^= 0x40;
    }
    assert!(Hint::verify(&bytes[1..], NET).is_err());
}
