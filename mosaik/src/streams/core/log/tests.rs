use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::streams::core::{
    frames::Between,
    lag::{GRACE, Room},
};

const LIMIT: Limit = Limit { items: 8, bytes: 1 << 20 };
const NO_RING: Limit = Limit { items: 0, bytes: 0 };

fn with(limit: Limit, policy: OnLag) -> Log {
    Log::new(Settings { policy, limit, ring: NO_RING, lifespan: None, keyed: false, switch: Switch::default() })
}

fn log() -> Log {
    with(LIMIT, OnLag::Disconnect)
}

fn framed(payload: &[u8]) -> Vec<u8> {
    [&u32::try_from(payload.len()).expect("small").to_le_bytes()[..], payload].concat()
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Appends while there is room, at most `n` items; how many went in.
fn fill(log: &mut Log, n: u64, now: Duration) -> u64 {
    let mut items = 0;
    while items < n && log.room(|| now) == Room::Yes {
        log.append(b"item", &mut Key::default());
        items += 1;
    }
    items
}

fn drain(log: &mut Log, id: SubId) -> u64 {
    let mut items = 0;
    while let Some(taken) = log.take(id, 1 << 20) {
        log.wrote(id, taken.bytes);
        items += taken.items;
    }
    items
}

#[test]
fn subscribers_share_the_bytes_and_memory_goes_with_the_last() {
    let mut log = log();
    log.join(1, None);
    log.join(2, None);
    log.append(b"one", &mut Key::default());
    let first = log.take(1, 1 << 20).expect("one item");
    let second = log.take(2, 1 << 20).expect("the same item");
    assert_eq!(first.chunks[0].as_ptr(), second.chunks[0].as_ptr());
    log.wrote(1, 3);
    assert_eq!(log.held(), 3);
    log.wrote(2, 3);
    assert_eq!(log.held(), 0);
    assert!(log.take(1, 1 << 20).is_none());
}

#[test]
fn a_new_subscriber_starts_at_the_head() {
    let mut log = log();
    log.join(1, None);
    log.append(b"before", &mut Key::default());
    assert_eq!(log.join(2, None), 1);
    log.append(b"after", &mut Key::default());
    let taken = log.take(2, 1 << 20).expect("one item");
    assert_eq!((taken.first_seq, taken.items, &taken.chunks[0][..]), (1, 1, &b"after"[..]));
}

#[test]
fn one_subscriber_sets_the_pace_and_is_never_expelled_here() {
    let mut log = log();
    log.join(1, None);
    assert_eq!(fill(&mut log, 100, at(0)), 8);
    assert_eq!(log.room(|| at(60_000)), Room::Wait { check_at: None });
    drain(&mut log, 1);
    assert_eq!(fill(&mut log, 100, at(60_000)), 8);
    assert!(log.expelled().is_empty());
}

#[test]
fn a_stalled_subscriber_goes_after_the_grace_when_another_is_low() {
    let mut log = log();
    log.join(1, None);
    log.join(2, None);
    fill(&mut log, 100, at(0));
    assert_eq!(log.room(|| at(0)), Room::Wait { check_at: None }, "both are full");
    drain(&mut log, 2);
    assert_eq!(log.room(|| at(10)), Room::Wait { check_at: Some(at(10) + GRACE) });
    assert_eq!(log.room(|| at(9) + GRACE), Room::Wait { check_at: Some(at(10) + GRACE) });
    assert_eq!(log.room(|| at(10) + GRACE), Room::Yes);
    assert_eq!(log.expelled(), [1]);
    assert_eq!(log.held(), 0, "its memory is free");
}

#[test]
fn who_still_has_something_to_take_is_no_reason_to_expel_a_full_one() {
    let mut log = log();
    log.join(1, None);
    fill(&mut log, 3, at(0));
    log.join(2, None);
    fill(&mut log, 100, at(0)); // 1 has 8, 2 has 5
    assert_eq!(log.room(|| at(60_000)), Room::Wait { check_at: None });
}

#[test]
fn a_slow_subscriber_that_drains_a_little_goes_too_if_later() {
    let mut log = with(Limit { items: 64, bytes: 1 << 20 }, OnLag::Disconnect);
    log.join(1, None);
    log.join(2, None);
    let mut now = 0;
    while log.expelled().is_empty() {
        fill(&mut log, 4, at(now));
        drain(&mut log, 2);
        let _ = log.room(|| at(now));
        now += 5;
        if let Room::Wait { .. } = log.room(|| at(now)) {
            let taken = log.take(1, 16).expect("it is full"); // 5 ms late every time, and only a little
            log.wrote(1, taken.bytes);
        }
        assert!(now < 5000, "it holds the other one up for ever");
    }
    assert!(now > 2000);
}

/// Equals that run in some order, always the same or at random, must all stay, whatever the size of their queues.
#[test]
fn equals_that_run_one_after_the_other_stay() {
    let mut rng = SmallRng::seed_from_u64(7);
    for items in [1, 2, 16, 1024] {
        for random in [false, true] {
            let mut log = with(Limit { items, bytes: 1 << 20 }, OnLag::Disconnect);
            let mut order: Vec<SubId> = (0..16).collect();
            order.iter().for_each(|id| _ = log.join(*id, None));
            let mut now = Duration::ZERO;
            for _ in 0..500 {
                fill(&mut log, 2048, now);
                if random {
                    order.sort_by_key(|_| rng.random::<u32>());
                }
                for id in &order {
                    now += Duration::from_micros(rng.random_range(0..200));
                    drain(&mut log, *id);
                    let _ = log.room(|| now);
                }
            }
            assert!(log.expelled().is_empty(), "queue of {items}");
        }
    }
}

/// The receiving ends are the bottleneck and drain at the same rate on average, but each by itself: all must stay. One that is
/// slower by a third must go.
#[test]
fn equals_whose_queues_drift_apart_stay_and_a_slower_one_goes() {
    for slow in [false, true] {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut log = with(Limit { items: 4096, bytes: 1 << 40 }, OnLag::Disconnect);
        (0..4).for_each(|id| _ = log.join(id, None));
        let mut allowance = [0i64; 4];
        let mut now = Duration::ZERO;
        let mut expelled = Vec::new();
        for _ in 0..60_000 {
            fill(&mut log, 64, now);
            now += Duration::from_micros(500);
            for id in 0..4u8 {
                let may = &mut allowance[usize::from(id)];
                *may = (*may + rng.random_range(0..if slow && id == 3 { 40 } else { 60 })).min(60);
                while *may > 0 {
                    let Some(taken) = log.take(id.into(), 64) else { break };
                    log.wrote(id.into(), taken.bytes);
                    let _ = log.room(|| now);
                    *may -= i64::try_from(taken.items).expect("few");
                }
            }
            expelled.extend(log.expelled());
        }
        assert_eq!(expelled, if slow { vec![3] } else { vec![] });
    }
}

#[test]
fn block_waits_for_the_slowest_and_then_closes_it() {
    let mut log = with(LIMIT, OnLag::Block(at(500)));
    log.join(1, None);
    log.join(2, None);
    fill(&mut log, 100, at(0));
    drain(&mut log, 2);
    assert_eq!(log.room(|| at(0)), Room::Wait { check_at: Some(at(500)) });
    assert_eq!(log.room(|| at(499)), Room::Wait { check_at: Some(at(500)) });
    drain(&mut log, 1);
    assert_eq!(log.room(|| at(499)), Room::Yes, "it moved in time");
    fill(&mut log, 100, at(499));
    drain(&mut log, 2);
    assert_eq!(log.room(|| at(600)), Room::Wait { check_at: Some(at(499 + 500)) });
    assert_eq!(log.room(|| at(999)), Room::Yes);
    assert_eq!(log.expelled(), [1]);
}

/// Takes one item whenever it has been full for a little less than is granted.
#[test]
fn block_closes_one_that_only_drips_and_keeps_one_that_keeps_up() {
    let patience = at(500);
    for per_turn in [1, 16] {
        let mut log = with(Limit { items: 32, bytes: 1 << 20 }, OnLag::Block(patience));
        log.join(1, None);
        log.join(2, None);
        let (mut now, mut sent) = (Duration::ZERO, 0);
        while now < at(20_000) && log.expelled.is_empty() {
            while log.expelled.is_empty() && fill(&mut log, 1, now) == 1 {
                drain(&mut log, 2); // ends the chunk: the other one takes items one by one
                sent += 1;
            }
            if !log.expelled.is_empty() {
                break;
            }
            now += at(490);
            for _ in 0..per_turn {
                let taken = log.take(1, 1).expect("it is full");
                log.wrote(1, taken.bytes);
            }
            let _ = log.room(|| now);
        }
        let stays = per_turn == 16;
        assert_eq!(log.expelled().is_empty(), stays, "{per_turn} at a time: {sent} items in {now:?}");
        assert!(stays || now <= at(1500), "it held the other one up for {now:?}");
    }
}

#[test]
fn what_nobody_took_is_handed_out_when_the_last_one_leaves() {
    let mut log = log();
    log.join(1, None);
    log.append(b"taken", &mut Key::default());
    log.take(1, 1 << 20);
    log.append(b"left", &mut Key::default());
    log.unsubscribe(1);
    assert_eq!(log.unclaimed(true), (1, vec![Bytes::from_static(b"left")]));
    assert_eq!(log.held(), 0);
    log.skip();
    assert_eq!(log.head(), 3);
    assert_eq!(log.join(2, None), 3);
    log.append(b"next", &mut Key::default());
    assert_eq!(log.take(2, 1 << 20).map(|taken| taken.first_seq), Some(3));
}

fn ring(items: u64) -> Log {
    let ring = Limit { items, bytes: 1 << 20 };
    let settings = Settings {
        policy: OnLag::Disconnect,
        limit: LIMIT,
        ring,
        lifespan: None,
        keyed: false,
        switch: Switch::default(),
    };
    Log::new(settings)
}

#[test]
fn who_comes_back_gets_what_the_ring_has_from_within_a_chunk() {
    let mut log = ring(4);
    log.join(1, None);
    for item in 0..6u8 {
        log.append(&framed(&[item]), &mut Key::default());
    }
    drain(&mut log, 1);
    assert_eq!(log.held(), 30, "one chunk, though it has more than four items");
    assert_eq!(log.join(2, Some(3)), 3);
    let taken = log.take(2, 1 << 20).expect("three items");
    log.wrote(2, taken.bytes);
    assert_eq!((taken.first_seq, taken.items, taken.before), (3, 3, Between::Nothing));
    assert_eq!(taken.chunks.concat(), [framed(&[3]), framed(&[4]), framed(&[5])].concat());
    assert_eq!(log.depth(2), Some((Depth::default(), Depth::default())), "what is repeated is no backlog");
    log.append(&framed(&[6]), &mut Key::default());
    assert_eq!(log.join(3, Some(0)), 0);
    drain(&mut log, 1);
    drain(&mut log, 2);
    drain(&mut log, 3);
    for item in 7..20 {
        log.append(&framed(&[item]), &mut Key::default());
        drain(&mut log, 1);
        drain(&mut log, 2);
        drain(&mut log, 3);
    }
    assert_eq!(log.held(), 4 * 5);
    assert_eq!(log.join(4, Some(0)), 16, "the rest is gone");
}

#[test]
fn what_is_sent_to_nobody_stays_in_the_ring_unless_it_is_handed_back() {
    let mut log = ring(10);
    log.join(1, None);
    log.append(&framed(b"a"), &mut Key::default());
    log.unsubscribe(1);
    assert_eq!(log.unclaimed(false), (1, vec![]));
    log.append(&framed(b"b"), &mut Key::default());
    assert_eq!(log.join(2, Some(0)), 0);
    assert_eq!(drain(&mut log, 2), 2);
    log.append(&framed(b"c"), &mut Key::default());
    log.unsubscribe(2);
    assert_eq!(log.unclaimed(true), (1, vec![Bytes::from(framed(b"c"))]));
    assert_eq!(log.join(3, Some(0)), 3, "the ring has no gap, so all of it is gone");
}

#[test]
fn what_a_conflation_kept_for_the_last_subscriber_is_handed_back() {
    let mut log = with(Limit { items: 4, bytes: 1 << 20 }, OnLag::Conflate);
    log.join(1, None);
    for item in 0..5u8 {
        assert_eq!(log.room(|| at(0)), Room::Yes);
        log.append(&framed(&[item]), &mut Key::new(&[item % 2]));
    }
    log.unsubscribe(1);
    let left: Vec<Bytes> = [2, 3, 4].into_iter().map(|item| framed(&[item]).into()).collect();
    assert_eq!(log.unclaimed(true), (5, left), "the last of each key before the fifth item, and that");
    log.join(2, None);
    log.append(&framed(&[5]), &mut Key::default());
    log.unsubscribe(2);
    assert_eq!(log.unclaimed(true), (1, vec![framed(&[5]).into()]));
}

/// Random appends, takes, partial writes, joins and leaves against a plain list of items.
#[test]
fn every_subscriber_gets_every_item_once_in_order() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let limit = Limit { items: 1 << 20, bytes: 1 << 40 };
        let mut log = with(limit, OnLag::Disconnect);
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let mut got: BTreeMap<SubId, (u64, Vec<u8>, usize)> = BTreeMap::new();
        for step in 0..400u64 {
            match rng.random_range(0..10) {
                0 if got.len() < 5 => {
                    let from = log.join(step, None);
                    assert_eq!(from, sent.len() as u64);
                    got.insert(step, (from, Vec::new(), 0));
                }
                1 if got.len() > 1 => {
                    let id = *got.keys().nth(rng.random_range(0..got.len())).expect("not empty");
                    got.remove(&id);
                    log.unsubscribe(id);
                }
                2..6 if !got.is_empty() => {
                    let len = if rng.random_range(0..20) == 0 { LARGE } else { rng.random_range(1..3000) };
                    let item = vec![rng.random(); len];
                    if len >= LARGE {
                        log.append_chunk(item.clone().into(), &mut Key::default());
                    } else {
                        log.append(&item, &mut Key::default());
                    }
                    sent.push(item);
                }
                _ if !got.is_empty() => {
                    let id = *got.keys().nth(rng.random_range(0..got.len())).expect("not empty");
                    let (from, bytes, unwritten) = got.get_mut(&id).expect("known");
                    if *unwritten > 0 {
                        let part = rng.random_range(1..=*unwritten);
                        log.wrote(id, part);
                        *unwritten -= part;
                    } else if let Some(taken) = log.take(id, rng.random_range(1..100_000)) {
                        let so_far = sent[usize::try_from(*from).expect("small")..].iter().scan(0, |sum, item| {
                            *sum += item.len();
                            Some(*sum)
                        });
                        let items = bytes.len();
                        let count = so_far.take_while(|end| *end <= items).count() as u64;
                        assert_eq!(taken.first_seq, *from + count);
                        taken.chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
                        *unwritten = taken.bytes;
                    }
                }
                _ => {}
            }
        }
        for (id, (from, mut bytes, unwritten)) in got {
            log.wrote(id, unwritten);
            while let Some(taken) = log.take(id, 1 << 16) {
                taken.chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
                log.wrote(id, taken.bytes);
            }
            assert_eq!(bytes, sent[usize::try_from(from).expect("small")..].concat(), "seed {seed}");
        }
        assert_eq!(log.held(), if log.subscribers() == 0 { log.held() } else { 0 }, "seed {seed}");
    }
}
