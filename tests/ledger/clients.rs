//! Clients that never stop, what they have seen, and whether that is linearizable.
//!
//! Accounts change with every fault, so that each account's history is short enough to be searched. Half of the writes
//! carry a session and are sent again, to other members, until they are answered; the other half are sent once, and what
//! their answer would have been is unknown when none comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use super::linear::{self, Action, Event};

const CLIENTS: usize = 6;
const ACCOUNTS: usize = 5;
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a client waits for an answer before it takes the connection for dead.
const PATIENCE: Duration = Duration::from_millis(2500);

/// An action from what was answered, and from the amount, the expected and the new balance that were asked for.
type ActionOf = fn(&Value, [u64; 3]) -> Action;
/// What happened, by account.
type History = Arc<Mutex<BTreeMap<String, Vec<Event>>>>;
/// What members answered instead of a result.
type Errors = Arc<Mutex<BTreeSet<String>>>;

pub struct Clients {
    started: Instant,
    stop: Arc<AtomicBool>,
    round: Arc<AtomicUsize>,
    history: History,
    errors: Errors,
    threads: Vec<JoinHandle<()>>,
}

struct Client {
    started: Instant,
    name: String,
    apis: Vec<SocketAddr>,
    at: usize,
    link: Option<(BufReader<TcpStream>, TcpStream)>,
    rng: SmallRng,
    seq: u64,
    errors: Errors,
}

impl Clients {
    pub fn start(apis: &[SocketAddr]) -> Self {
        let (started, stop, round) = (Instant::now(), Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (history, errors) = (History::default(), Errors::default());
        let client = |name: usize| {
            let mut client = Client {
                started,
                name: format!("c{name}"),
                apis: apis.to_vec(),
                at: name,
                link: None,
                rng: SmallRng::seed_from_u64(name as u64),
                seq: 0,
                errors: errors.clone(),
            };
            let (stop, round, history) = (stop.clone(), round.clone(), history.clone());
            let run = move || {
                while !stop.load(Ordering::Relaxed) {
                    client.act(round.load(Ordering::Relaxed), &history, &stop);
                    thread::park_timeout(PAUSE);
                }
            };
            thread::Builder::new().spawn(run).unwrap()
        };
        let threads = (0..CLIENTS).map(client).collect();
        Self { started, stop, round, history, errors, threads }
    }

    /// Other accounts from now on.
    pub fn next_round(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
    }

    pub fn now(&self) -> u64 {
        micros(self.started)
    }

    /// How long after `since` the first write ended that also began after it.
    pub fn first_write_after(&self, since: u64) -> Option<Duration> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let writes = history.values().flatten().filter(|event| !matches!(event.action, Action::Read { .. }));
        let end = writes.filter(|event| event.start >= since).filter_map(|event| event.end).min()?;
        Some(Duration::from_micros(end - since))
    }

    /// Waits for such a write.
    pub fn wait_for_write(&self, since: u64, within: Duration) -> Duration {
        let deadline = Instant::now() + within;
        loop {
            if let Some(took) = self.first_write_after(since) {
                return took;
            }
            assert!(Instant::now() < deadline, "no write is acknowledged within {within:?}");
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Everything that members have answered instead of a result.
    pub fn errors(&self) -> BTreeSet<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the clients and checks everything that they have seen. Returns how many operations there were, and how many of
    /// unknown outcome.
    pub fn check(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut all, mut unknown, mut too_large) = (0, 0, 0);
        for (account, events) in &*history {
            all += events.len();
            unknown += events.iter().filter(|event| event.end.is_none()).count();
            match linear::check(events) {
                Ok(linear) => assert!(linear, "account {account} is not linearizable: {events:#?}"),
                Err(_) => too_large += 1,
            }
        }
        assert!(all > 0 && too_large * 10 <= history.len(), "{too_large} of {} histories are too large", history.len());
        (all, unknown)
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap()
}

/// What came of a request.
enum Outcome {
    Answer(Value),
    /// It was certainly not applied and never will be.
    Nothing,
    Unknown,
}

impl Client {
    fn act(&mut self, round: usize, history: &History, stop: &AtomicBool) {
        let account = format!("r{round}-{}", self.rng.random_range(0..ACCOUNTS));
        let (expect, set) = (self.rng.random_range(0..20u64), self.rng.random_range(0..20u64));
        let amount = self.rng.random_range(1..1000u64);
        let (mut request, action): (Value, ActionOf) = match self.rng.random_range(0..10) {
            0..4 => (json!({"op": "balance", "account": account, "consistency": "strong"}), |answer, _| Action::Read {
                saw: answer.as_u64().unwrap_or(u64::MAX),
            }),
            4..8 => (json!({"op": "deposit", "account": account, "amount": amount}), |answer, [amount, ..]| {
                Action::Add { amount, sum: answer.as_u64() }
            }),
            _ => (
                json!({"op": "cas", "account": account, "expect": expect, "set": set}),
                |answer, [_, expect, value]| Action::Swap { expect, value, done: answer.as_bool() },
            ),
        };
        request["timeout_ms"] = json!(1000);
        let again = self.rng.random_bool(0.5);
        if again {
            self.seq += 1;
            request["session"] = json!(self.name);
            request["seq"] = json!(self.seq);
        }
        let start = micros(self.started);
        let outcome = loop {
            let outcome = self.ask(&request);
            if matches!(outcome, Outcome::Answer(_)) || !again || stop.load(Ordering::Relaxed) {
                break outcome;
            }
            thread::park_timeout(PAUSE);
        };
        let (answer, end) = match outcome {
            Outcome::Answer(answer) => (answer, Some(micros(self.started))),
            // One that was sent several times may have been applied the first time.
            Outcome::Nothing if !again => return,
            Outcome::Nothing | Outcome::Unknown => (Value::Null, None),
        };
        let action = action(&answer, [amount, expect, set]);
        if end.is_none() && matches!(action, Action::Read { .. }) {
            return;
        }
        let mut history = history.lock().unwrap_or_else(PoisonError::into_inner);
        history.entry(account).or_default().push(Event { start, end, action });
    }

    fn ask(&mut self, request: &Value) -> Outcome {
        let (reader, writer) = match &mut self.link {
            Some(link) => link,
            None => match self.connect() {
                Some(link) => self.link.insert(link),
                None => return Outcome::Nothing,
            },
        };
        let mut line = String::new();
        let asked = writer.write_all(format!("{request}\n").as_bytes()).and_then(|()| reader.read_line(&mut line));
        let answer: Option<Value> = asked.ok().and_then(|_| serde_json::from_str(&line).ok());
        let Some(mut answer) = answer else {
            self.leave();
            return Outcome::Unknown;
        };
        if let Some(ok) = answer.get_mut("ok") {
            return Outcome::Answer(ok.take());
        }
        let error = answer["error"].as_str().unwrap_or_default().to_owned();
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).insert(error);
        // Somebody else may do better.
        self.leave();
        match answer["outcome"].as_str() {
            Some("none") => Outcome::Nothing,
            Some("unknown") => Outcome::Unknown,
            _ => panic!("{request} is answered with {answer}"),
        }
    }

    fn connect(&mut self) -> Option<(BufReader<TcpStream>, TcpStream)> {
        let connected = TcpStream::connect_timeout(&self.apis[self.at % self.apis.len()], Duration::from_millis(300));
        let Ok(stream) = connected else {
            self.leave();
            return None;
        };
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some((BufReader::new(stream.try_clone().ok()?), stream))
    }

    fn leave(&mut self) {
        self.link = None;
        self.at += 1;
    }
}
