//! A member of a group that owns a stream, for the tests in `owned`: `feed --secret .. --listen .. --data-dir .. --rate ..
//! --bootstrap ..`, each flag with a value. While it leads it sends items at that rate, per second, until its stdin ends.
//! Then it waits to be killed.
//!
//! It prints, each on a line of its own: `leads` or `follows` with the time of the wall clock, `applied` with the place in the log up to
//! which it has everything, `settled` with its life, a range of item numbers and what became of those (`committed`, `refused`, or `unknown`, also when not all of
//! them had the same fate), and at the end `done`.

use std::{
    env,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use mosaik::{
    prelude::*,
    streams::{Committed, SendErrorKind},
};
use mosaik_tests::feed::{Item, KEY, NETWORK, STREAM};
use tokio::{
    io::{self, AsyncReadExt},
    time::{Instant, sleep},
};

/// How often items are sent.
const TICK: Duration = Duration::from_millis(1);
/// How often it is said how far a member is.
const SAY: Duration = Duration::from_millis(20);
/// What was not sent for longer than this is not made up for.
const AT_MOST: Duration = Duration::from_millis(100);
/// How often it is looked what became of them.
const LOOK: Duration = Duration::from_millis(5);

#[expect(clippy::disallowed_methods, reason = "one clock for all processes of the test")]
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Says when this member leads and when it does not.
async fn say_who_leads(group: &Group<NoOp>) {
    loop {
        group.when().is_leader().await;
        println!("leads {}", wall_clock().as_micros());
        group.when().is_follower().await;
        println!("follows {}", wall_clock().as_micros());
    }
}

/// Says up to where it has applied the log, while it knows a leader.
async fn say_how_far(group: &Group<NoOp>) {
    loop {
        group.when().is_online().await;
        println!("applied {}", group.committed());
        sleep(SAY).await;
    }
}

/// Sends while it leads, so many items per second, until stdin ends.
async fn feed(group: &Group<NoOp>, items: &Producer<[u8; 32]>, life: u64, rate: u64) -> anyhow::Result<()> {
    let (mut number, mut due, mut looked) = (0, 0, Instant::now());
    loop {
        group.when().is_leader().await;
        sleep(TICK).await;
        // Millionths of an item.
        due += rate * u64::try_from(looked.elapsed().min(AT_MOST).as_micros())?;
        looked = Instant::now();
        while due >= 1_000_000 {
            due -= 1_000_000;
            let item = Item { life, number, sent: wall_clock() };
            match items.send(item.to_bytes()).await {
                Ok(()) => number += 1,
                // Not at all, or not any more.
                Err(error) if matches!(error.kind(), SendErrorKind::NotLeader) => {
                    due = 0;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Says what became of the items of which it was not said before.
async fn settle(items: &Producer<[u8; 32]>, life: u64, before: &mut Committed) {
    let now = items.committed().await;
    let fate = match (now.committed - before.committed, now.refused - before.refused, now.unknown - before.unknown) {
        (0, 0, 0) => return,
        (_, 0, 0) => "committed",
        (0, _, 0) => "refused",
        _ => "unknown",
    };
    println!("settled {life} {} {} {fate}", before.all(), now.all());
    *before = now;
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let life = u64::try_from(wall_clock().as_micros())?;
    let words: Vec<String> = env::args().skip(1).collect();
    let all = |flag: &'static str| words.chunks(2).filter(move |it| it[0] == flag).filter_map(|it| it.get(1)).cloned();
    let one = |flag: &'static str| all(flag).next().context(flag);
    let mut builder = Network::builder(NetworkId::from(NETWORK))
        .with_secret_key(one("--secret")?.parse()?)
        .with_listen(one("--listen")?.parse()?)
        .with_data_dir(one("--data-dir")?);
    for contact in all("--bootstrap") {
        builder = builder.with_bootstrap(contact.as_str());
    }
    let network = builder.build().await?;
    let group = network.groups().with_key(GroupKey::from_secret(KEY)).with_state_machine(NoOp);
    let group = group.with_size(3).with_timing(Timing::lan()).join().await?;
    let items = network.streams().producer::<[u8; 32]>().with_stream_id(STREAM).owned_by(&group).build()?;
    let rate = one("--rate")?.parse()?;
    let mut settled = Committed::default();
    let settling = async {
        loop {
            settle(&items, life, &mut settled).await;
            sleep(LOOK).await;
        }
    };
    let (mut stdin, mut end) = (io::stdin(), Vec::new());
    tokio::select! {
        () = say_how_far(&group) => {}
        () = say_who_leads(&group) => {}
        () = settling => {}
        ended = feed(&group, &items, life, rate) => ended?,
        ended = stdin.read_to_end(&mut end) => drop(ended?),
    }
    settle(&items, life, &mut settled).await;
    println!("done");
    std::future::pending().await
}
