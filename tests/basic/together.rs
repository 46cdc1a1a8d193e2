//! Handlers with `concurrency = n`: how many calls share a role, in which order they begin, and what becomes of them when one fails,
//! when another handler is due and when the role ends.

#![allow(clippy::unused_self, reason = "handlers as users may write them")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mosaik::{
    node::{RoleError, RoleHandle, spawn},
    prelude::*,
    testing::{Sim, eventually},
};

const NETWORK: NetworkId = NetworkId::from_name("together");
const SOON: Duration = Duration::from_secs(30);
/// How long a call takes.
const CALL: Duration = Duration::from_millis(200);

#[mosaik::stream(name = "together.jobs")]
#[derive(Clone, Debug, PartialEq)]
pub struct Job(u64);

#[mosaik::stream(name = "together.more-jobs")]
#[derive(Clone, Debug, PartialEq)]
pub struct More(u64);

#[mosaik::stream(name = "together.results")]
#[derive(Clone, Debug, PartialEq)]
pub struct Finished(u64);

/// What calls leave behind.
#[derive(Default)]
struct Seen {
    under_way: AtomicUsize,
    most: AtomicUsize,
    begun: Mutex<Vec<u64>>,
    alone: AtomicUsize,
    stopped: AtomicUsize,
}

impl Seen {
    fn begin(&self, number: u64) {
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        self.begun.lock().expect("not poisoned").push(number);
    }

    fn end(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    fn begun(&self) -> Vec<u64> {
        self.begun.lock().expect("not poisoned").clone()
    }
}

/// Counts a call as ended, also when it is dropped or panics.
struct Guard<'a>(&'a Seen);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[mosaik::node]
struct Worker {
    jobs: Consumer<Job>,
    results: Producer<Finished>,
    #[mosaik(default)]
    seen: Arc<Seen>,
    #[mosaik(default)]
    handled: u64,
}

#[mosaik::handlers]
impl Worker {
    #[on(jobs, concurrency = 4, emit = results)]
    async fn work(&self, Job(number): Job, _from: PeerId) -> Result<Finished, String> {
        self.seen.begin(number);
        let _guard = Guard(&self.seen);
        // Later ones are done sooner.
        tokio::time::sleep(CALL - Duration::from_millis(number % 4 * 40)).await;
        match number {
            5 => Err(String::from("number five")),
            6 => panic!("number six"),
            _ => Ok(Finished(number)),
        }
    }

    #[every("150ms")]
    fn alone(&mut self) {
        assert_eq!(self.seen.under_way.load(Ordering::Relaxed), 0, "it has the role for itself");
        self.handled += 1;
        self.seen.alone.fetch_add(1, Ordering::Relaxed);
    }

    #[ready]
    fn ready(&self) -> bool {
        true
    }

    #[stop]
    fn stop(&mut self) {
        self.seen.stopped.fetch_add(1 + self.seen.under_way.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

fn worker(net: &Network) -> (RoleHandle, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let results = Finished::producer(net).build().expect("builds");
    let role = Worker { jobs: Job::consumer(net).build(), results, seen: seen.clone(), handled: 0 };
    (spawn(net, role), seen)
}

async fn nodes(sim: &Sim) -> (Network, Network) {
    let build = |name| sim.node(name).builder(NETWORK).build();
    (build("a").await.expect("builds"), build("b").await.expect("builds"))
}

#[test]
fn so_many_calls_share_the_role_and_failures_are_contained() {
    Sim::run(3, |sim| async move {
        let (a, b) = nodes(&sim).await;
        let (role, seen) = worker(&b);
        let mut results = Finished::consumer(&a).build();
        let jobs = Job::producer(&a).build().expect("builds");
        jobs.when().online().await;
        results.when().subscribed().await;
        for number in 0..40 {
            jobs.send(Job(number)).await.expect("there is a consumer");
        }
        let mut got = Vec::new();
        while got.len() < 38 {
            let next = tokio::time::timeout(SOON, results.recv()).await.expect("in time");
            got.push(next.expect("goes on").0);
        }
        assert_eq!(seen.most.load(Ordering::Relaxed), 4);
        assert_eq!(seen.begun(), (0..40).collect::<Vec<_>>(), "calls begin in the order of the items");
        assert!(!got.is_sorted(), "and end in another: {got:?}");
        got.sort_unstable();
        assert_eq!(got, (0..40).filter(|number| ![5, 6].contains(number)).collect::<Vec<_>>());
        let status = role.status();
        assert_eq!((status.errors, status.panics, status.emitted), (1, 1, 38));
        assert!(status.ready, "{status:?}");
        let alone = seen.alone.load(Ordering::Relaxed);
        assert!(alone >= 4, "others are not kept waiting: {alone}");
        role.stop().await.expect("stops");
    });
}

#[test]
fn calls_under_way_get_their_time_at_the_end_and_are_dropped_then() {
    Sim::run(4, |sim| async move {
        let (a, b) = nodes(&sim).await;
        let (role, seen) = worker(&b);
        let jobs = Job::producer(&a).build().expect("builds");
        jobs.when().online().await;
        for number in 0..3 {
            jobs.send(Job(number)).await.expect("there is a consumer");
        }
        assert!(eventually(SOON, || seen.under_way.load(Ordering::Relaxed) == 3).await);
        role.stop().await.expect("stops");
        assert_eq!(seen.stopped.load(Ordering::Relaxed), 1, "once, when no call was under way");
        assert_eq!(role.status().handled, 3 + seen.alone.load(Ordering::Relaxed) as u64 + 1);
    });
}

#[mosaik::node]
struct Strict {
    jobs: Consumer<Job>,
    #[mosaik(arg)]
    busy: bool,
    #[mosaik(only_if = busy)]
    more: Option<Consumer<More>>,
    #[mosaik(default)]
    seen: Arc<Seen>,
}

#[mosaik::handlers]
impl Strict {
    #[on(jobs, concurrency = 8, on_error = stop)]
    async fn work(&self, job: Job) -> Result<(), String> {
        self.seen.begin(job.0);
        let _guard = Guard(&self.seen);
        if job.0 == 2 {
            return Err(String::from("number two"));
        }
        tokio::time::sleep(Duration::from_hours(1)).await;
        Ok(())
    }

    #[on(more, concurrency = 2)]
    async fn work_more(&self, job: More) {
        self.seen.begin(100 + job.0);
        let _guard = Guard(&self.seen);
        tokio::time::sleep(CALL).await;
    }

    #[stop]
    fn stop(&mut self) {
        self.seen.stopped.fetch_add(1 + self.seen.under_way.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[test]
fn one_that_fails_ends_the_role_and_the_others() {
    Sim::run(5, |sim| async move {
        let (a, b) = nodes(&sim).await;
        let seen = Arc::new(Seen::default());
        let role = Strict { jobs: Job::consumer(&b).build(), busy: false, more: None, seen: seen.clone() };
        let role = spawn(&b, role);
        let jobs = Job::producer(&a).build().expect("builds");
        jobs.when().online().await;
        for number in 0..3 {
            jobs.send(Job(number)).await.expect("there is a consumer");
        }
        let ended = tokio::time::timeout(SOON, role.ended()).await.expect("within the time that calls get");
        assert!(
            matches!(&ended, Err(RoleError::Handler { handler: "work", error, .. }) if error == "number two"),
            "{ended:?}"
        );
        assert_eq!((seen.under_way.load(Ordering::Relaxed), seen.stopped.load(Ordering::Relaxed)), (0, 1));
    });
}

#[test]
fn handlers_of_two_fields_share_the_role() {
    Sim::run(6, |sim| async move {
        let (a, b) = nodes(&sim).await;
        let seen = Arc::new(Seen::default());
        let more = Some(More::consumer(&b).build());
        let role = spawn(&b, Strict { jobs: Job::consumer(&b).build(), busy: true, more, seen: seen.clone() });
        let (jobs, more) = (Job::producer(&a).build().expect("builds"), More::producer(&a).build().expect("builds"));
        jobs.when().online().await;
        more.when().online().await;
        jobs.send(Job(0)).await.expect("there is a consumer");
        for number in 0..6 {
            more.send(More(number)).await.expect("there is a consumer");
        }
        assert!(eventually(SOON, || seen.begun().len() == 7).await, "{:?}", seen.begun());
        assert_eq!(seen.most.load(Ordering::Relaxed), 3, "one of the first and two of the second");
        drop(role);
    });
}
