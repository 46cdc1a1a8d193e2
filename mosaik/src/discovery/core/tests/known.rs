//! Rules about peers that are known and not there, about relayed words, about addresses, and about two nodes with one key.

use std::{collections::BTreeSet, net::IpAddr};

use iroh::TransportAddr;

use super::*;

/// Dials that have begun, by when they fail.
type UnderWay = BTreeSet<(Now, PeerId)>;

/// Lets time pass; every dial fails after 3 s. Who was dialled, when and why.
fn dialled_until(core: &mut Core, now: Now, until: Now) -> Vec<(Now, PeerId, Purpose)> {
    dialled_on(core, &mut UnderWay::new(), now, until)
}

fn dialled_on(core: &mut Core, under_way: &mut UnderWay, mut now: Now, until: Now) -> Vec<(Now, PeerId, Purpose)> {
    let mut dialled = Vec::new();
    loop {
        for output in core.take_outputs() {
            if let Output::Dial { target, purpose } = output {
                dialled.push((now, target.peer, purpose));
                under_way.insert((now + secs(3), target.peer));
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

fn remembered(n: u8, met: bool) -> (EndpointAddr, bool) {
    (EndpointAddr::from(id(n)).with_ip_addr(([10, 0, 0, n], 1).into()), met)
}

#[test]
fn remembered_peers_are_all_tried_at_once_and_then_for_ever() {
    let mut core = core(0);
    let peers = (1..=40).map(|n| remembered(n, true)).collect();
    core.step(Input::Remembered(peers), T0);
    let end = T0 + secs(2 * 3600);
    let dialled = dialled_until(&mut core, T0, end);
    let of = |n: u8| dialled.iter().filter(move |dial| dial.1 == id(n)).map(|dial| dial.0);
    for n in 1..=40 {
        let times: Vec<Now> = of(n).collect();
        assert!(times[0] <= T0 + secs(10), "{n} is tried first after {:?}", times[0].saturating_sub(T0));
        let longest = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().expect("many");
        assert!(longest < secs(60), "{n} is left alone for {longest:?}");
        assert!(times.last().is_some_and(|last| *last + secs(60) > end), "{n} is given up");
    }
}

#[test]
fn peers_that_somebody_made_up_do_not_keep_a_known_one_from_being_found() {
    let mut core = core(0);
    // Somebody who is live, so that the search is rationed.
    let friend = record(1, 5, 0, 1, secs(0));
    learn(&mut core, friend.clone(), T0);
    let mut peers: Vec<_> = (10..=250).map(|n| remembered(n, false)).collect();
    peers.push(remembered(2, true));
    core.step(Input::Remembered(peers), T0);
    let (mut found, mut under_way) = (Vec::new(), UnderWay::new());
    for beat in 0..180 {
        let now = T0 + secs(beat * 10);
        let sign = Sign { hint: hint_of(&friend.entry, 1, 2 + beat, Kind::Alive), age: secs(0) };
        core.step(Input::Hint { sign, from: id(1) }, now);
        found.extend(dialled_on(&mut core, &mut under_way, now, now + secs(10)));
    }
    let known: Vec<Now> = found.iter().filter(|dial| dial.1 == id(2)).map(|dial| dial.0).collect();
    assert!(known[0] < T0 + secs(5), "it is the first: {:?}", known[0].saturating_sub(T0));
    assert!(known.len() >= 30, "{} times in half an hour", known.len());
    let made_up = found.iter().filter(|dial| dial.2 == Purpose::Lost && dial.1 != id(2)).count();
    assert!((100..3000).contains(&made_up), "{made_up} dials to the others in half an hour");
}

#[test]
fn who_never_answered_makes_room_for_who_did() {
    let config = Config::builder().with_max_lost(3).build();
    let mut core = core_with(0, 1, config);
    let peers =
        vec![remembered(1, true), remembered(2, false), remembered(3, true), remembered(4, false), remembered(5, true)];
    core.step(Input::Remembered(peers), T0);
    // Three places: those that were named first, until a peer departs that was met.
    let kept: BTreeSet<PeerId> = core.to_remember(9).iter().map(|(addr, _)| addr.id.into()).collect();
    assert_eq!(kept, [id(1), id(2), id(3)].into());
    learn(&mut core, record(6, 5, 0, 1, secs(0)), T0);
    step(&mut core, Input::Dialled { peer: id(6), reached: true }, T0);
    core.peers.get_mut(id(6).as_bytes()).expect("is live").met = true;
    run_until(&mut core, T0 + secs(60));
    let kept: BTreeSet<PeerId> = core.to_remember(9).iter().map(|(addr, _)| addr.id.into()).collect();
    assert_eq!(kept, [id(1), id(3), id(6)].into());
}

#[test]
fn what_is_remembered_is_bounded_and_has_room_for_the_lost() {
    let mut core = core(0);
    (1..=100).for_each(|n| _ = learn(&mut core, record(n, 5, 0, 1, secs(0)), T0));
    core.step(Input::Remembered((101..=200).map(|n| remembered(n, true)).collect()), T0);
    let kept = core.to_remember(40);
    let live = kept.iter().filter(|(addr, _)| core.catalog().contains(PeerId::from(addr.id))).count();
    assert_eq!((kept.len(), live), (40, 30));
    assert_eq!(core.to_remember(1000).len(), 200);
    let long = TransportAddr::Relay(format!("https://{}.example", "x".repeat(300)).parse().expect("a URL"));
    let ports = (1..100).map(|port| TransportAddr::Ip(([10, 0, 0, 1], port).into()));
    let many = EndpointAddr::from_parts(id(201).into(), ports.chain([long.clone()]));
    core.step(Input::Remembered(vec![(many, true)]), T0);
    let (kept, _) =
        core.to_remember(1000).into_iter().find(|(addr, _)| PeerId::from(addr.id) == id(201)).expect("kept");
    assert!(kept.addrs.len() <= 16 && !kept.addrs.contains(&long), "{} addresses", kept.addrs.len());
}

#[test]
fn one_who_said_farewell_is_looked_for_rarely_and_for_ever() {
    let mut core = core(0);
    let alive = record(1, 5, 3, 7, secs(0));
    learn(&mut core, alive.clone(), T0);
    told(&mut core, hint_of(&alive.entry, 1, 8, Kind::Departed), 1, T0);
    let dialled = dialled_until(&mut core, T0, T0 + secs(24 * 3600));
    let lost = dialled.iter().filter(|dial| dial.2 == Purpose::Lost);
    let times: Vec<Now> = lost.map(|dial| dial.0).collect();
    assert!((200..600).contains(&times.len()), "{} dials a day", times.len());
    assert!(times.last().is_some_and(|last| *last > T0 + secs(23 * 3600)));
}

#[test]
fn one_who_was_reached_and_found_no_room_is_looked_for_again() {
    let full = Config::builder().with_max_peers(1).build();
    let mut core = core_with(0, 1, full);
    learn(&mut core, record(1, 5, 0, 1, secs(0)), T0);
    core.step(Input::Remembered(vec![remembered(2, true)]), T0);
    let (mut now, mut full) = (T0, 0);
    for _ in 0..3 {
        assert!(dials(&core.take_outputs(), Purpose::Lost).contains(&id(2)));
        let outputs = step(&mut core, Input::Records(vec![record(2, 5, 0, 1, secs(0))]), now);
        full += outputs.iter().filter(|output| matches!(output, Output::Notice(Notice::Full { .. }))).count();
        core.step(Input::Dialled { peer: id(2), reached: true }, now);
        now = core.next_search().expect("it is sought");
        core.step(Input::Tick, now);
    }
    assert_eq!(full, 1, "that is told once a minute");
}

#[test]
fn a_peer_that_is_busy_is_there() {
    let mut core = core(0);
    learn(&mut core, record(1, 5, 0, 1, secs(0)), T0);
    step(&mut core, Input::ConnectionLost(id(1)), T0 + secs(2));
    let outputs = step(&mut core, Input::Refused(id(1)), T0 + secs(5));
    assert_eq!((departed(&outputs), version(&core, 1)), (None, Some((5, 0))));
    // A contact that was refused is tried again.
    core.step(Input::Contact { target: EndpointAddr::from(id(2)).into(), attempts: None }, T0 + secs(5));
    core.take_outputs();
    step(&mut core, Input::Refused(id(2)), T0 + secs(5));
    assert!(!core.in_touch(id(2)));
    assert_eq!(dials(&run_until(&mut core, T0 + secs(7)), Purpose::Contact), [id(2)]);
}

/// A hint of a peer's lease that another one passes on, so long after it was issued.
fn relayed(core: &mut Core, hint: Hint, age: Duration, now: Now) -> Vec<Output> {
    step(core, Input::Hint { sign: Sign { hint, age }, from: id(2) }, now)
}

#[test]
fn a_relayed_hint_renews_a_lease_for_what_is_left_of_it() {
    let alive = record(1, 5, 0, 1, secs(0));
    // Issued just now: for all of it.
    let mut core = core(0);
    learn(&mut core, alive.clone(), T0);
    relayed(&mut core, hint_of(&alive.entry, 1, 2, Kind::Alive), secs(0), T0 + secs(10));
    assert_eq!(departed(&run_until(&mut core, T0 + secs(24))), None, "10 s + 15 s is not over");
    assert_eq!(departed(&run_until(&mut core, T0 + secs(26))), Some(DepartReason::Expired));
    // Issued some time ago: until 15 s after that.
    let mut core = super::core(0);
    learn(&mut core, alive.clone(), T0);
    relayed(&mut core, hint_of(&alive.entry, 1, 2, Kind::Alive), secs(6), T0 + secs(10));
    assert_eq!(departed(&run_until(&mut core, T0 + secs(18))), None);
    assert_eq!(departed(&run_until(&mut core, T0 + secs(20))), Some(DepartReason::Expired), "4 s + 15 s");
    // Older than what is known, or than its lease: not at all.
    for age in [secs(12), secs(15), secs(1000)] {
        let mut core = super::core(0);
        learn(&mut core, alive.clone(), T0);
        relayed(&mut core, hint_of(&alive.entry, 1, 2, Kind::Alive), age, T0 + secs(10));
        assert_eq!(departed(&run_until(&mut core, T0 + secs(14))), None);
        assert_eq!(departed(&run_until(&mut core, T0 + secs(16))), Some(DepartReason::Expired), "{age:?} ago");
    }
}

#[test]
fn a_relayed_hint_of_a_newer_entry_counts_from_when_it_was_issued() {
    let alive = record(1, 5, 0, 1, secs(0));
    let newer = entry(1, 5, 1);
    let mut core = core(0);
    learn(&mut core, alive, T0);
    relayed(&mut core, hint_of(&newer, 1, 2, Kind::Alive), secs(6), T0 + secs(10));
    assert_eq!(departed(&run_until(&mut core, T0 + secs(18))), None);
    assert_eq!(departed(&run_until(&mut core, T0 + secs(20))), Some(DepartReason::Expired));
}

#[test]
fn an_entry_that_somebody_else_shows_renews_nothing() {
    let alive = record(1, 5, 0, 1, secs(0));
    let mut core = core(0);
    learn(&mut core, alive.clone(), T0);
    for second in 1..15 {
        core.offer(alive.entry.clone(), id(2), T0 + secs(second)).expect("is the newest");
    }
    assert_eq!(departed(&run_until(&mut core, T0 + secs(16))), Some(DepartReason::Expired));
    // Nor does it bring back the one that expired.
    assert_eq!(core.offer(alive.entry.clone(), id(2), T0 + secs(17)), Err(EntryError::Departed));
    // Of a newer version one is asked itself, and believed for a third of a lease until then.
    core.offer(entry(1, 5, 1), id(2), T0 + secs(20)).expect("is news");
    assert_eq!(departed(&run_until(&mut core, T0 + secs(24))), None);
    assert_eq!(departed(&run_until(&mut core, T0 + secs(26))), Some(DepartReason::Expired));
    // From its owner it is a sign of life.
    core.offer(entry(1, 5, 2), id(1), T0 + secs(30)).expect("is news");
    core.offer(entry(1, 5, 2), id(1), T0 + secs(40)).expect("is the newest");
    assert_eq!(departed(&run_until(&mut core, T0 + secs(54))), None);
}

/// Runs a session between two cores; what the initiator was asked for.
fn session(a: &mut Core, b: &mut Core, now: Now) -> Vec<[u8; 32]> {
    let sync::Message::Open { root, me, silent } = a.sync_open(now) else { panic!("opens") };
    let opener = me.verify(NET).expect("honest");
    let sync::Message::Buckets { digests, .. } = b.sync_greet(root, &opener.hint, &silent, now) else {
        return Vec::new();
    };
    let mut asked = Vec::new();
    for offer in a.sync_offers(&digests) {
        let sync::Message::Offer { buckets, items, .. } = offer else { panic!("offers") };
        for delta in b.sync_delta(&buckets, &items, now) {
            let sync::Message::Delta { records, wants, .. } = delta else { panic!("answers") };
            a.step(Input::Records(records.iter().map(|it| it.verify(NET).expect("honest")).collect()), now);
            for page in a.sync_records(&wants, now) {
                let sync::Message::Records { records, .. } = page else { panic!("answers") };
                b.step(Input::Records(records.iter().map(|it| it.verify(NET).expect("honest")).collect()), now);
            }
            asked.extend(wants);
        }
    }
    asked
}

#[test]
fn in_a_session_either_side_takes_what_is_newer_at_the_other() {
    let (mut a, mut b) = (core(1), core(2));
    // Newer at the initiator, newer at the responder, only at one, the same at both.
    for (core, seqs) in
        [(&mut a, [Some(4), Some(3), Some(1), None, Some(7)]), (&mut b, [Some(3), Some(4), None, Some(1), Some(7)])]
    {
        for (n, seq) in (10..).zip(seqs) {
            if let Some(seq) = seq {
                learn(core, record(n, 5, seq, 1, secs(0)), T0);
            }
        }
    }
    let asked: BTreeSet<[u8; 32]> = session(&mut a, &mut b, T0).into_iter().collect();
    let wanted = [id(1), id(10), id(12)].map(|peer| *peer.as_bytes());
    assert_eq!(asked, wanted.into(), "the responder asks for what is newer or missing, and for nothing else");
    for core in [&a, &b] {
        let versions = [10, 11, 12, 13, 14].map(|n| version(core, n));
        assert_eq!(versions, [4, 4, 1, 1, 7].map(|seq| Some((5, seq))));
    }
    assert_eq!(a.catalog().root(), b.catalog().root());
    assert_eq!(session(&mut a, &mut b, T0), Vec::<[u8; 32]>::new());
}

fn forty(port: u16) -> EndpointAddr {
    let places = (1..=40).map(|n| TransportAddr::Ip(([10, 0, 0, n], port).into()));
    EndpointAddr::from_parts(id(0).into(), places)
}

#[test]
fn a_host_with_forty_addresses_announces_the_best_ones_and_says_so_once() {
    let said = LocalEntry::new(forty(1));
    let mut core = Core::new(said, 1, NET, secret(0), Config::default(), [0; 32], T0).expect("starts");
    let listed = |core: &Core| core.catalog().local().addr().addrs.clone();
    assert_eq!(listed(&core).len(), 32);
    let left_out = |outputs: &[Output]| {
        let of = |output: &Output| match output {
            Output::Notice(Notice::LeftOut { left_out, .. }) => Some(left_out.len()),
            _ => None,
        };
        outputs.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(left_out(&core.take_outputs()), [8]);
    // One of those that were left out is where others come to, and one that everybody can see is added later.
    let reached: BTreeSet<IpAddr> = [IpAddr::from([10, 0, 0, 40])].into();
    let global = TransportAddr::Ip(([93, 184, 216, 34], 1).into());
    let mut addr = forty(1);
    addr.addrs.insert(global.clone());
    let outputs = step(&mut core, Input::Addr { addr, reached: reached.clone() }, T0 + secs(5));
    let now = listed(&core);
    assert!(now.contains(&TransportAddr::Ip(([10, 0, 0, 40], 1).into())) && now.contains(&global), "{now:?}");
    assert_eq!((now.len(), left_out(&outputs)), (32, vec![]), "told once");
    // Addresses that change are not dropped, and the others are not announced anew each time.
    let before = listed(&core);
    let outputs = step(&mut core, Input::Addr { addr: forty(1), reached: reached.clone() }, T0 + secs(10));
    assert_eq!((before.difference(&listed(&core)).count(), left_out(&outputs)), (1, vec![]));
    step(&mut core, Input::Addr { addr: forty(2), reached }, T0 + secs(15));
    assert!(listed(&core).iter().all(|place| matches!(place, TransportAddr::Ip(socket) if socket.port() == 2)));
}

#[test]
fn addresses_are_ranked_by_who_can_reach_them() {
    let ip = |text: &str| TransportAddr::Ip(format!("{text}:1").parse().expect("an address"));
    let texts = [
        "0.0.0.0",
        "127.0.0.1",
        "169.254.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "8.8.8.8",
        "[fe80::1]",
        "[fd00::1]",
        "[2001:db8::1]",
    ];
    let relay = TransportAddr::Relay("https://relay.example".parse().expect("a URL"));
    let addr = EndpointAddr::from_parts(id(0).into(), texts.map(ip).into_iter().chain([relay.clone()]));
    let best = |max, reached: &[&str]| {
        let reached = reached.iter().map(|text| text.parse().expect("an address")).collect();
        super::super::addrs::choose(addr.clone(), &reached, &BTreeSet::new(), max).0.addrs
    };
    assert_eq!(best(3, &[]), [relay.clone(), ip("8.8.8.8"), ip("[2001:db8::1]")].into());
    assert_eq!(
        best(2, &["192.168.0.1", "127.0.0.1"]),
        [relay, ip("192.168.0.1")].into(),
        "loopback is of no use to others"
    );
    assert!(!best(9, &[]).contains(&ip("0.0.0.0")));
    assert_eq!(best(10, &[]).len(), 10);
}

#[test]
fn an_entry_that_is_nearly_full_lists_fewer_addresses() {
    let mut core = core(0);
    core.try_update_local(|said| (0..512).for_each(|n| said.produces.insert(format!("p{n}"), Some([7; 32]))), T0)
        .expect("fits");
    core.try_update_local(|said| (0..440).for_each(|n| said.consumes.insert(format!("c{n}"), Some([7; 32]))), T0)
        .expect("fits");
    let long = |n: u8| TransportAddr::Relay(format!("https://{n}.{}.example", "x".repeat(200)).parse().expect("a URL"));
    let addr = EndpointAddr::from_parts(id(0).into(), (0..32).map(long));
    let outputs = step(&mut core, Input::Addr { addr, reached: BTreeSet::new() }, T0);
    let listed = core.catalog().local().addr().addrs.len();
    assert!((1..32).contains(&listed), "{listed} are listed");
    assert!(outputs.iter().any(|output| matches!(output, Output::Notice(Notice::LeftOut { .. }))));
}

/// An entry of the peer `n` at an address.
fn at(n: u8, run_id: u64, port: u16) -> PeerEntry {
    let said = LocalEntry::new(EndpointAddr::from(id(n)).with_ip_addr(([10, 0, 0, n], port).into()));
    said.sign(Version { run_id, seq: 0 }, NET, &secret(n)).expect("small")
}

fn alive(n: u8, run_id: u64, port: u16, beat: u64) -> Record {
    let entry = at(n, run_id, port);
    let hint = hint_of(&entry, n, beat, Kind::Alive);
    Record { entry, sign: Sign { hint, age: secs(0) } }
}

fn notices(outputs: &[Output]) -> Vec<&Notice> {
    outputs.iter().filter_map(|output| if let Output::Notice(notice) = output { Some(notice) } else { None }).collect()
}

#[test]
fn a_peer_of_two_nodes_with_one_key_names_both() {
    let mut core = core(0);
    let mut outputs = Vec::new();
    for (n, run) in (1000..1010).enumerate() {
        let port = 1 + u16::try_from(n % 2).expect("small");
        outputs.extend(learn(&mut core, alive(1, run, port, 1), T0 + secs(n as u64)));
    }
    let [Notice::Twins { peer, one, other }] = notices(&outputs)[..] else { panic!("{:?}", notices(&outputs)) };
    let both: BTreeSet<&TransportAddr> = one.addrs.iter().chain(&other.addrs).collect();
    assert_eq!((*peer, both.len()), (id(1), 2), "once a minute, with both addresses");
    assert_eq!(notices(&learn(&mut core, alive(1, 1010, 1, 1), T0 + secs(120))).len(), 0, "one outbid is none");
}

#[test]
fn restarts_and_moves_of_one_node_are_no_twins() {
    let mut core = core(0);
    let mut outputs = Vec::new();
    for n in 0..20u16 {
        // A restart each second, now here, now there; the run is the wall clock in microseconds.
        let run = 1_700_000_000_000_000 + u64::from(n) * 1_000_000;
        outputs.extend(learn(&mut core, alive(1, run, 1 + n % 2, 1), T0 + secs(n.into())));
    }
    assert_eq!(notices(&outputs), Vec::<&Notice>::new());
    // A clock that went back: the earlier self is outbid, once by each of its versions at most.
    let mut core = super::core(0);
    let mut outputs = learn(&mut core, record(0, 9, 4, 30, secs(0)), T0);
    outputs.extend(learn(&mut core, record(0, 9, 5, 31, secs(0)), T0 + secs(2)));
    assert_eq!((core.adoptions(), notices(&outputs).len()), (1, 0));
}

#[test]
fn a_node_with_a_twin_names_both_addresses() {
    let mut core = core(0);
    let mut outputs = Vec::new();
    for second in 0..10 {
        let run = core.catalog().local().version().run_id + 1;
        outputs.extend(learn(&mut core, alive(0, run, 7, 1), T0 + secs(2 * second)));
    }
    let [Notice::Rival { here, there: Some(there) }] = notices(&outputs)[..] else { panic!("{:?}", notices(&outputs)) };
    assert_eq!((here, there), (core.catalog().local().addr(), at(0, 1, 7).addr()));
}

#[test]
fn a_node_that_only_hears_hints_of_its_twin_asks_where_it_is() {
    let mut core = core(0);
    let (mut outputs, mut asked) = (Vec::new(), 0);
    for second in 0..10 {
        let run = core.catalog().local().version().run_id + 1;
        let twin = at(0, run, 7);
        let stepped = told(&mut core, hint_of(&twin, 0, 1, Kind::Alive), 3, T0 + secs(2 * second));
        for output in &stepped {
            if let Output::Pull { request, from, .. } = output {
                asked += 1;
                assert_eq!(PeerId::from(from.id), id(3));
                let answer = Record {
                    sign: Sign { hint: hint_of(&twin, 0, 1, Kind::Alive), age: secs(0) },
                    entry: twin.clone(),
                };
                outputs.extend(learn(&mut core, answer, T0 + secs(2 * second)));
                core.step(Input::Pulled { request: *request }, T0 + secs(2 * second));
            }
        }
        outputs.extend(stepped);
    }
    let [Notice::Rival { there: Some(there), .. }] = notices(&outputs)[..] else { panic!("{:?}", notices(&outputs)) };
    assert_eq!(there, at(0, 1, 7).addr());
    assert!(asked >= 2);
}

#[test]
fn an_entry_of_the_same_version_that_differs_is_outbid() {
    // Two runs that began at one moment of a clock that stands still.
    let mut core = core_with(0, 0, Config::default());
    let other = alive(0, 0, 7, 0);
    assert_ne!(other.entry.digest(), core.catalog().local().digest());
    learn(&mut core, other, T0);
    assert_eq!(core.catalog().local().version(), Version { run_id: 1, seq: 0 });
}

#[test]
fn contacts_and_their_addresses_are_bounded() {
    let mut core = core(0);
    let key = |n: u32| PeerId::from(SecretKey::from_bytes(blake3::hash(&n.to_le_bytes()).as_bytes()).public());
    let mut outputs = Vec::new();
    for n in 0..300 {
        outputs.extend(step(
            &mut core,
            Input::Contact { target: EndpointAddr::from(key(n)).into(), attempts: Some(3) },
            T0,
        ));
    }
    assert_eq!(core.contacts.len(), 256);
    assert_eq!(notices(&outputs).len(), 1, "and that is told, once a minute");
    for port in 1..1000 {
        let addr = EndpointAddr::from(key(1)).with_ip_addr(([10, 0, 0, 1], port).into());
        step(&mut core, Input::Contact { target: addr.into(), attempts: Some(3) }, T0);
    }
    assert!(core.dialling[&key(1)].tried.addrs.len() <= 64);
}

#[test]
fn the_search_and_first_contacts_do_not_keep_the_rounds_from_being_made() {
    let mut core = core(0);
    for n in 10..60 {
        core.step(Input::Contact { target: EndpointAddr::from(id(n)).into(), attempts: None }, T0);
    }
    core.step(Input::Remembered((60..=250).map(|n| remembered(n, true)).collect()), T0);
    learn(&mut core, record(1, 5, 0, 1, secs(0)), T0);
    let dialled = dialled_until(&mut core, T0, T0 + secs(9));
    assert!(dialled.iter().any(|dial| dial.1 == id(1) && dial.2 == Purpose::Round));
}
