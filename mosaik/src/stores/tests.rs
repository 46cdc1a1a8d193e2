//! Stores with what only their own module can do: disks that fill up, files written by hand, primaries that follow a script.

use std::{path::Path, pin::pin, sync::atomic::Ordering::SeqCst, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::{
    disk::{self, Disk, Origin, Part, file, word},
    faults,
    lineage::Run,
    protocol::{Message, Snapshot, fingerprint, named_deltas},
    serve::Snapshots,
    *,
};
use crate::{
    Network, NetworkId,
    network::{CloseCode, LinkError},
    primitives::{codec::Codec, watch},
    testing::{Sim, SimNode, eventually},
    trust::{Needed, Right},
};

const STORE: &str = "sums";

/// A sum that cannot bear 13.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    count: u64,
    sum: u64,
}

impl View for Sum {
    type Delta = u64;
    const NAME: &'static str = "sum";

    fn fold(&mut self, delta: u64) {
        self.count += 1;
        assert!(delta != 13, "no such value");
        self.sum += delta;
    }
}

fn sum(values: impl IntoIterator<Item = u64>) -> Sum {
    let mut sum = Sum::default();
    values.into_iter().for_each(|value| sum.fold(value));
    sum
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(Duration::from_mins(1), future).await.unwrap_or_else(|_| panic!("{what}: not within a minute"))
}

async fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(eventually(Duration::from_mins(1), holds).await, "{what}: not within a minute");
}

async fn start_in(node: &SimNode, id: NetworkId, dir: &Path) -> Network {
    node.restart(id).with_data_dir(dir).build().await.unwrap()
}

async fn crash(node: &SimNode) {
    node.crash();
    sleep(Duration::from_millis(1)).await;
}

fn lead(network: &Network) -> Primary<Sum> {
    network.stores().primary::<Sum>(STORE).durable().build().unwrap()
}

fn follow(network: &Network) -> StoreReplica<Sum> {
    network.stores().replica::<Sum>(STORE).durable().build()
}

/// The disk is full for a while: deltas wait, which is told, and go on when there is room.
#[test]
fn a_primary_waits_for_room_on_its_disk() {
    let dir = tempfile::tempdir().unwrap();
    let faults = faults::plant(&file(dir.path(), STORE.into(), Part::Primary));
    Sim::run(71, |sim| async move {
        let id = NetworkId::from("full disk");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (start_in(&a, id, dir.path()).await, b.builder(id).build().await.unwrap());
        let (primary, replica) = (lead(&na), nb.stores().replica::<Sum>(STORE).build());
        let first = soon("applied", primary.apply(1)).await.unwrap();
        soon("followed", replica.when().reaches(first)).await.unwrap();
        for round in 0..3 {
            faults.full.store(true, SeqCst);
            let mut waiting = pin!(primary.apply(10));
            let early = timeout(Duration::from_secs(20), waiting.as_mut()).await;
            assert!(early.is_err(), "round {round}: {early:?}");
            assert!(primary.trouble().is_some_and(|text| text.contains("full")), "{:?}", primary.trouble());
            let (primaries, _) = na.stores().inspect();
            assert!(primaries[0].trouble.is_some(), "an operator sees it");
            assert_eq!(
                (primary.read().count, replica.read().count),
                (1 + round, 1 + round),
                "nobody sees it before it is durable"
            );
            faults.full.store(false, SeqCst);
            let position = soon("goes on", waiting).await.unwrap();
            soon("followed", replica.when().reaches(position)).await.unwrap();
            assert_eq!(primary.trouble(), None);
        }
        let position = soon("applied", primary.apply(5)).await.unwrap();
        crash(&a).await;
        drop((primary, na));
        let primary = lead(&start_in(&a, id, dir.path()).await);
        assert_eq!((&*primary.read(), primary.read().position()), (&sum([1, 10, 10, 10, 5]), position));
    });
}

/// The same at a replica, which is as good as before meanwhile.
#[test]
fn a_replica_is_written_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let faults = faults::plant(&file(dir.path(), STORE.into(), Part::Replica));
    Sim::run(72, |sim| async move {
        let id = NetworkId::from("full disk of a replica");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (a.builder(id).build().await.unwrap(), start_in(&b, id, dir.path()).await);
        let primary = na.stores().primary::<Sum>(STORE).build().unwrap();
        let replica = follow(&nb);
        let position = soon("applied", primary.apply(1)).await.unwrap();
        soon("followed", replica.when().reaches(position)).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        faults.full.store(true, SeqCst);
        let position = soon("applied", primary.apply(2)).await.unwrap();
        soon("followed", replica.when().reaches(position)).await.unwrap();
        until("told", || replica.trouble().is_some_and(|text| text.contains("not on disk"))).await;
        assert!(matches!(replica.state(), ReplicaState::Synced { .. }));
        sleep(Duration::from_secs(10)).await;
        faults.full.store(false, SeqCst);
        until("good again", || replica.trouble().is_none()).await;
        crash(&b).await;
        drop((replica, nb));
        crash(&a).await;
        let replica = follow(&start_in(&b, id, dir.path()).await);
        assert_eq!((&*replica.read(), replica.read().position()), (&sum([1, 2]), position));
    });
}

/// A delta a second costs what a delta costs.
#[test]
fn a_replica_writes_deltas_and_not_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let faults = faults::plant(&file(dir.path(), "blob".into(), Part::Replica));
    #[derive(Clone, Default, Serialize, Deserialize)]
    struct Blob(Vec<u8>);
    impl View for Blob {
        type Delta = Vec<u8>;
        const NAME: &'static str = "blob";

        fn fold(&mut self, delta: Vec<u8>) {
            self.0.extend_from_slice(&delta);
        }
    }
    Sim::run(73, |sim| async move {
        let id = NetworkId::from("blob");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (a.builder(id).build().await.unwrap(), start_in(&b, id, dir.path()).await);
        let primary = na.stores().primary::<Blob>("blob").with_state(Blob(vec![7; 8 << 20])).build().unwrap();
        let replica = nb.stores().replica::<Blob>("blob").durable().build();
        soon("synced", replica.when().synced()).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        let before = faults.written.load(SeqCst);
        assert!(before > 8 << 20);
        for _ in 0..20 {
            soon("applied", primary.apply(vec![1; 10])).await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
        let written = faults.written.load(SeqCst) - before;
        assert!(written < 2 << 20, "{written} bytes for 20 deltas of 10 bytes");
        // Until they are as many as the state: then that takes their place, and the file does not grow without end.
        for _ in 0..40 {
            soon("applied", primary.apply(vec![1; 1 << 20])).await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
        sleep(Duration::from_secs(3)).await;
        let position = primary.read().position();
        crash(&b).await;
        drop((replica, nb));
        let nb = start_in(&b, id, dir.path()).await;
        let replica = nb.stores().replica::<Blob>("blob").durable().build();
        assert_eq!((replica.read().position(), replica.read().0.len()), (position, (48 << 20) + 200));
    });
}

/// A file whose deltas the view cannot fold any more, as a new build of it may find: they are named, and skipped on a word.
#[test]
fn an_unfoldable_file_names_its_deltas_and_opens_on_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), STORE.into(), Part::Primary);
    let begun = Position { epoch: 5, seq: 100 };
    let write = move || {
        let (disk, kept) = Disk::open::<Sum>(path.clone(), Part::Primary).unwrap();
        assert!(kept.is_none_or(|kept| kept.origin.lineage.parents() == [5]));
        disk.replace(None, begun, &Sum::default(), &Origin::default()).unwrap();
        let deltas: Vec<_> =
            [1u64, 13, 2, 13, 3].map(|delta| Codec::<u64>::of().marked(&delta, usize::MAX).unwrap()).into();
        disk.append(100, &deltas, None).unwrap();
        path.clone()
    };
    Sim::run(74, |sim| async move {
        let id = NetworkId::from("unfoldable");
        let a = sim.node("a");
        for by_file in [false, true] {
            let path = write();
            let na = start_in(&a, id, dir.path()).await;
            let builder = || na.stores().primary::<Sum>(STORE).durable();
            let error = builder().build().unwrap_err();
            let StoreError::Unfoldable { deltas, word, .. } = &error else { panic!("{error}") };
            assert_eq!(deltas, &[101, 103]);
            assert!(builder().skip_delta(101).build().is_err(), "not all of them");
            let primary = if by_file {
                assert_eq!(Path::new(word), disk::word(&path, "skip"));
                std::fs::write(word, "101\n103\n").unwrap();
                builder().build().unwrap()
            } else {
                builder().skip_delta(101).skip_delta(103).build().unwrap()
            };
            assert_eq!(*primary.read(), sum([1, 2, 3]));
            assert!(primary.read().position().epoch > 5, "replicas must not go on with the old history");
            let position = soon("applied", primary.apply(4)).await.unwrap();
            assert_eq!(position.seq, 1);
            crash(&a).await;
            drop((primary, na));
            let na = start_in(&a, id, dir.path()).await;
            let primary = lead(&na);
            assert_eq!((&*primary.read(), primary.read().position()), (&sum([1, 2, 3, 4]), position));
            crash(&a).await;
        }
    });
}

/// A replica whose file has such a delta begins before it.
#[test]
fn a_replica_begins_before_a_delta_that_it_cannot_fold() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), STORE.into(), Part::Replica);
    Sim::run(75, |sim| async move {
        let id = NetworkId::from("unfoldable at a replica");
        let (a, b) = (sim.node("a"), sim.node("b"));
        {
            let (disk, _) = Disk::open::<Sum>(path, Part::Replica).unwrap();
            let begun = Position { epoch: 5, seq: 0 };
            disk.replace(Some(a.id()), begun, &Sum::default(), &Origin::default()).unwrap();
            let deltas: Vec<_> =
                [1u64, 2, 13, 3].map(|delta| Codec::<u64>::of().marked(&delta, usize::MAX).unwrap()).into();
            disk.append(0, &deltas, None).unwrap();
        }
        let nb = start_in(&b, id, dir.path()).await;
        let replica = follow(&nb);
        assert_eq!((&*replica.read(), replica.read().position()), (&sum([1, 2]), Position { epoch: 5, seq: 2 }));
        let na = a.builder(id).build().await.unwrap();
        let primary = na.stores().primary::<Sum>(STORE).build().unwrap();
        let position = soon("applied", primary.apply(9)).await.unwrap();
        soon("followed", replica.when().reaches(position)).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        crash(&b).await;
        drop((replica, nb));
        let replica = follow(&start_in(&b, id, dir.path()).await);
        assert_eq!(*replica.read(), sum([9]));
    });
}

/// Another history takes the place of what a replica keeps only as told, and what was there can be put back.
#[test]
fn a_replica_goes_over_on_a_word_and_keeps_one_generation() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    Sim::run(76, |sim| async move {
        let id = NetworkId::from("generations");
        let [a, b, c] = ["a", "b", "c"].map(|name| sim.node(name));
        let [at_a, at_b, at_c] = dirs.each_ref().map(tempfile::TempDir::path);
        let (na, mut nb) = (start_in(&a, id, at_a).await, start_in(&b, id, at_b).await);
        let (primary, mut replica) = (lead(&na), follow(&nb));
        let mut first = Position::default();
        for value in 1..=5 {
            first = soon("applied", primary.apply(value)).await.unwrap();
        }
        soon("followed", replica.when().reaches(first)).await.unwrap();
        crash(&a).await;
        drop((primary, na));
        let nc = start_in(&c, id, at_c).await;
        let other = lead(&nc);
        let second = soon("applied", other.apply(100)).await.unwrap();
        let refused = ReplicaState::OtherHistory { primary: c.id() };
        for by_file in [true, false] {
            until("refused", || replica.state() == refused).await;
            let kept = file(at_b, STORE.into(), Part::Replica);
            let follow_word = word(&kept, "follow");
            let text = replica.trouble().unwrap();
            assert!(text.contains(&follow_word.display().to_string()), "{text}");
            assert_eq!(*replica.read(), sum(1..=5));
            if by_file {
                std::fs::write(&follow_word, "").unwrap();
            } else {
                replica.follow(c.id());
            }
            soon("as told", replica.when().reaches(second)).await.unwrap();
            assert_eq!(*replica.read(), sum([100]));
            assert!(!follow_word.exists(), "a word counts once");
            sleep(Duration::from_secs(3)).await;
            crash(&b).await;
            drop((replica, nb));
            std::fs::write(word(&kept, "restore"), "").unwrap();
            nb = start_in(&b, id, at_b).await;
            replica = follow(&nb);
            assert_eq!((&*replica.read(), replica.read().position()), (&sum(1..=5), first), "it is put back");
            assert!(!word(&kept, "restore").exists());
        }
    });
}

/// Who may not subscribe may not have the state either, whatever it asks with.
#[test]
fn a_peer_that_is_not_admitted_gets_no_snapshot() {
    Sim::run(77, |sim| async move {
        let id = NetworkId::from("no snapshot");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (a.builder(id).build().await.unwrap(), b.builder(id).build().await.unwrap());
        let closed = na.stores().primary::<Sum>(STORE).accept_if(|peer| peer.tags().contains("friend"));
        let closed = closed.build().unwrap();
        let Position { epoch, seq } = soon("applied", closed.apply(5)).await.unwrap();
        until("known", || na.discovery().catalog().get(b.id()).is_some()).await;
        let ask = Message::Ask { store: STORE.into(), epoch, at_least: 0 };
        let check = Message::Check { store: STORE.into(), epoch, next: seq, start: None };
        for friend in [false, true, false] {
            if friend {
                nb.discovery().add_tags(["friend"]);
            } else {
                nb.discovery().remove_tags(["friend"]);
            }
            let seen = || na.discovery().catalog().get(b.id()).is_some_and(|it| it.tags().contains("friend") == friend);
            until("announced", seen).await;
            for question in [&ask, &check] {
                let mut link = nb.node().open::<Snapshot>(&a.addr()).await.unwrap();
                link.send(question).await.unwrap();
                let answer = soon("answered", link.recv()).await;
                if friend {
                    assert!(matches!(answer, Ok(Some(Message::Head { .. } | Message::Checked { .. }))), "{answer:?}");
                } else {
                    assert!(matches!(answer, Err(LinkError::Closed(CloseCode::NotAllowed))), "{answer:?}");
                }
            }
        }
    });
}

/// A connection and the first delta on it are there at the same moment, and the snapshot has nothing of that delta: it must have
/// been held, which it is only if the connection is known first.
#[test]
fn a_connection_is_known_before_its_deltas() {
    for seed in 78..98 {
        Sim::run(seed, |sim| async move {
            let id = NetworkId::from("events first");
            let (a, b) = (sim.node("a"), sim.node("b"));
            let (na, nb) = (a.builder(id).build().await.unwrap(), b.builder(id).build().await.unwrap());
            let (registry, store) = (na.stores().0.clone(), StoreId::from(STORE));
            let producer = na.streams().producer::<u64>().with_stream_id(named_deltas(store));
            let producer =
                producer.with_fingerprint(fingerprint::<Sum>()).online_when(|c| c.minimum_of(0)).build().unwrap();
            let epoch = producer.epoch();
            let published = watch::Sender::new(Versioned::new(Sum::default(), Position { epoch, seq: 0 }));
            let run = Run { epoch, end: 0, lineage: None };
            let everybody = (Needed::nothing(Right::Replica), None);
            let snapshots = Snapshots::new::<Sum>(store, &published, everybody, run, registry.cancel.child_token());
            registry.add_primary(store, snapshots);
            let replica = nb.stores().replica::<Sum>(store).build();
            soon("subscribed", producer.when().subscribed().minimum_of(1)).await;
            b.pause(); // so that it gets all at once
            producer.send(7).await.unwrap();
            sleep(Duration::from_millis(300)).await;
            b.resume();
            soon("held", replica.when().reaches(Position { epoch, seq: 1 })).await.unwrap();
            assert_eq!(*replica.read(), sum([7]));
        });
    }
}
