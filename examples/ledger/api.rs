//! The server of a branch: lines of JSON in, lines of JSON out. It knows the ledger by its client alone.

use std::{collections::BTreeMap, io, time::Duration};

use bytes::{Buf, BytesMut};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
    stream::FuturesUnordered,
};
use mosaik::{
    groups::{Outcome, Role},
    prelude::*,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{Answer, Ledger, Origin};

/// Connections at the same time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// What a request may take when it does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What a request may take at most.
const MAX_TIMEOUT: Duration = Duration::from_mins(1);
/// Requests of one connection that are under way at the same time; further ones wait in the socket.
const MAX_CALLS: usize = 1024;
/// The longest line in bytes.
const MAX_LINE: usize = 64 << 10;
/// Answers that a connection has not taken yet, bytes; beyond that nothing more is read from it.
const MAX_UNSENT: usize = 1 << 20;
/// The longest name of an account or a session in bytes.
const MAX_NAME: usize = 256;

/// What is under way when the branch ends gets so long; then it is answered that nothing is known of it.
const LAST_CALLS: Duration = Duration::from_millis(300);
/// A client gets so long to take its last answers.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// Resolves when the branch ends.
pub type Ending = Shared<BoxFuture<'static, ()>>;

/// The branch ends when the other half of the channel is dropped.
pub fn ending(open: oneshot::Receiver<()>) -> Ending {
    open.map(drop).boxed().shared()
}

/// Serves every client that connects, until the branch ends and all have their answers, or it is dropped.
pub async fn accept(listener: TcpListener, ledger: Replica<Ledger>, mut ending: Ending) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = &mut ending => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let connection = Connection::new(ledger.clone(), ending.clone());
                    connections.spawn(async move {
                        if let Err(error) = connection.serve(stream).await {
                            eprintln!("api connection: {error}");
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, usually: others will close.
                    eprintln!("api: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One client: requests that are under way, lines that are yet to be read and answers that are yet to be sent.
struct Connection {
    ledger: Replica<Ledger>,
    ending: Ending,
    calls: FuturesUnordered<BoxFuture<'static, (u64, Value)>>,
    /// The id of each call under way, and what is known of it if it is given up.
    open: BTreeMap<u64, (Value, Outcome)>,
    begun: u64,
    received: BytesMut,
    unsent: BytesMut,
    /// The end of a line that was too long has not come yet.
    skipping: bool,
    /// Nothing more is read.
    ended: bool,
    /// The branch ends: when calls that are still under way are given up.
    last_calls: Option<Instant>,
}

impl Connection {
    fn new(ledger: Replica<Ledger>, ending: Ending) -> Self {
        Self {
            ledger,
            ending,
            calls: FuturesUnordered::new(),
            open: BTreeMap::new(),
            begun: 0,
            received: BytesMut::new(),
            unsent: BytesMut::new(),
            skipping: false,
            ended: false,
            last_calls: None,
        }
    }

    /// Serves the connection until the client has closed its side, or the branch ends, and the client has all answers.
    async fn serve(mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.into_split();
        let mut ending = self.ending.clone();
        loop {
            self.take_lines();
            if self.ended && self.calls.is_empty() && self.unsent.is_empty() {
                break;
            }
            let has_room = self.calls.len() < MAX_CALLS && self.unsent.len() < MAX_UNSENT;
            let last_calls = self.last_calls;
            tokio::select! {
                biased;
                () = &mut ending, if last_calls.is_none() => {
                    self.ended = true;
                    self.last_calls = Some(Instant::now() + LAST_CALLS);
                }
                () = sleep_until(last_calls.unwrap_or_else(Instant::now)), if last_calls.is_some() => {
                    self.give_up();
                    let _ = timeout(LAST_ANSWERS, writer.write_all(&self.unsent)).await;
                    break;
                }
                Some((call, answer)) = self.calls.next(), if !self.calls.is_empty() => {
                    self.open.remove(&call);
                    self.answer(&answer);
                }
                sent = writer.write(&self.unsent), if !self.unsent.is_empty() => match sent? {
                    0 => return Ok(()),
                    sent => self.unsent.advance(sent),
                },
                read = reader.read_buf(&mut self.received), if has_room && !self.ended => {
                    if read? == 0 {
                        self.ended = true;
                        // The last line may lack its end.
                        self.received.extend_from_slice(b"\n");
                    }
                }
            }
        }
        writer.shutdown().await?;
        if self.last_calls.is_some() {
            // Closing with requests unread would reset the connection, and with it the last answers.
            let _ = timeout(LAST_ANSWERS, discard(&mut reader)).await;
        }
        Ok(())
    }

    /// The branch ends before these calls have.
    fn give_up(&mut self) {
        for (id, outcome) in std::mem::take(&mut self.open).into_values() {
            self.answer(&with_id(id, failed("the branch ends", outcome)));
        }
        self.calls.clear();
    }

    /// Begins every request whose line is there, while there is room.
    fn take_lines(&mut self) {
        while self.calls.len() < MAX_CALLS {
            let Some(end) = self.received.iter().position(|byte| *byte == b'\n') else { break };
            let line = self.received.split_to(end + 1);
            if std::mem::take(&mut self.skipping) || line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            self.begin(&line);
        }
        if self.received.len() > MAX_LINE && !self.received.contains(&b'\n') {
            self.received.clear();
            if !std::mem::replace(&mut self.skipping, true) {
                self.answer(&json!({"error": format!("a line has at most {MAX_LINE} bytes")}));
            }
        }
    }

    fn begin(&mut self, line: &[u8]) {
        match Request::parse(line) {
            Ok(request) => {
                self.begun += 1;
                let call = self.begun;
                self.open.insert(call, (request.id.clone(), request.operation.outcome_unanswered()));
                self.calls.push(request.perform(self.ledger.clone()).map(move |answer| (call, answer)).boxed());
            }
            Err(answer) => self.answer(&answer),
        }
    }

    fn answer(&mut self, answer: &Value) {
        self.unsent.extend_from_slice(answer.to_string().as_bytes());
        self.unsent.extend_from_slice(b"\n");
    }
}

/// Reads until the client has closed its side.
async fn discard(reader: &mut OwnedReadHalf) -> io::Result<()> {
    let mut nothing = [0; 4096];
    while reader.read(&mut nothing).await? > 0 {}
    Ok(())
}

/// One line of a client.
struct Request {
    id: Value,
    timeout: Duration,
    origin: Option<Origin>,
    operation: Operation,
}

#[derive(Deserialize)]
struct Envelope {
    timeout_ms: Option<u64>,
    session: Option<String>,
    seq: Option<u64>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Deposit {
        account: String,
        amount: u64,
    },
    Transfer {
        from: String,
        to: String,
        amount: u64,
    },
    Cas {
        account: String,
        expect: u64,
        set: u64,
    },
    Balance {
        account: String,
        #[serde(default)]
        consistency: Freshness,
    },
    Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Freshness {
    #[default]
    Strong,
    Weak,
}

/// The fields of an answer beside its `id`.
type Fields = serde_json::Map<String, Value>;

impl Request {
    /// Reads a line; the error is the answer to it.
    fn parse(line: &[u8]) -> Result<Self, Value> {
        let value: Value = serde_json::from_slice(line).map_err(|error| json!({"error": error.to_string()}))?;
        let id = value.get("id").cloned().unwrap_or(Value::Null);
        Self::understand(id.clone(), value).map_err(|error| with_id(id, failed(&error, Outcome::None)))
    }

    fn understand(id: Value, value: Value) -> Result<Self, String> {
        if !value.is_object() {
            return Err(String::from("a request is a JSON object"));
        }
        let envelope: Envelope = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
        let operation: Operation = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let origin = match (envelope.session, envelope.seq) {
            (Some(session), Some(seq)) => Some(Origin { session, seq }),
            (None, None) => None,
            _ => return Err(String::from("`session` and `seq` go together")),
        };
        let session = origin.iter().map(|origin| &origin.session);
        if operation.accounts().into_iter().chain(session).any(|name| name.len() > MAX_NAME) {
            return Err(format!("a name has at most {MAX_NAME} bytes"));
        }
        let timeout = envelope.timeout_ms.map_or(TIMEOUT, Duration::from_millis).min(MAX_TIMEOUT);
        Ok(Self { id, timeout, origin, operation })
    }

    async fn perform(self, ledger: Replica<Ledger>) -> Value {
        let Self { id, timeout, origin, operation } = self;
        let ledger = Replica::from(ledger.group().with_timeout(timeout));
        let done = match operation {
            Operation::Deposit { account, amount } => ledger.deposit(origin, account, amount).await.map(answered),
            Operation::Transfer { from, to, amount } => ledger.transfer(origin, from, to, amount).await.map(answered),
            Operation::Cas { account, expect, set } => ledger.cas(origin, account, expect, set).await.map(answered),
            Operation::Balance { account, consistency } => {
                let balance = ledger.balance(&account);
                match consistency {
                    Freshness::Strong => balance.strong().await,
                    Freshness::Weak => balance.weak().await,
                }
                .map(ok)
            }
            Operation::Status => Ok(ok(status(&ledger))),
        };
        with_id(id, done.unwrap_or_else(|error| failed(&error, error.outcome())))
    }
}

impl Operation {
    /// What is known when there is no answer.
    const fn outcome_unanswered(&self) -> Outcome {
        match self {
            Self::Balance { .. } | Self::Status => Outcome::None,
            Self::Deposit { .. } | Self::Transfer { .. } | Self::Cas { .. } => Outcome::Unknown,
        }
    }

    fn accounts(&self) -> Vec<&String> {
        match self {
            Self::Deposit { account, .. } | Self::Cas { account, .. } | Self::Balance { account, .. } => vec![account],
            Self::Transfer { from, to, .. } => vec![from, to],
            Self::Status => vec![],
        }
    }
}

fn answered(answer: Answer) -> Fields {
    match answer {
        Answer::Balance(balance) => ok(balance),
        Answer::Swapped(swapped) => ok(swapped),
        Answer::Transferred => ok(()),
        Answer::Overdraft => fields("fail", "overdraft"),
        Answer::Overflow => fields("fail", "overflow"),
        Answer::TooOld => failed("`seq` is below what is remembered of the session", Outcome::Unknown),
        Answer::TooManySessions => failed("there is no room for another session", Outcome::None),
    }
}

fn ok(value: impl Serialize) -> Fields {
    fields("ok", value)
}

fn failed(error: &(impl ToString + ?Sized), outcome: Outcome) -> Fields {
    let outcome = match outcome {
        Outcome::None => "none",
        Outcome::Unknown => "unknown",
    };
    let mut fields = fields("error", error.to_string());
    fields.insert(String::from("outcome"), outcome.into());
    fields
}

fn fields(key: &str, value: impl Serialize) -> Fields {
    // Numbers, texts and what is JSON already: all of them are.
    let value = serde_json::to_value(value).unwrap_or(Value::Null);
    Fields::from_iter([(String::from(key), value)])
}

fn with_id(id: Value, mut fields: Fields) -> Value {
    if !id.is_null() {
        fields.insert(String::from("id"), id);
    }
    Value::Object(fields)
}

fn status(ledger: &Replica<Ledger>) -> Value {
    let status = ledger.group().status();
    let role = match status.role() {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        // An observer learns for ever.
        _ => "learner",
    };
    let members = status.members().iter().map(|member| {
        // A wall clock that is wrong by more than a second, milliseconds: the leader knows it of every member.
        let skew = member.clock_skew();
        json!({"id": member.id().to_string(), "kind": member.kind().to_string(), "lag": member.lag(), "clock_skew_ms": skew})
    });
    json!({
        "role": role,
        "leader": status.leader().map(|leader| leader.to_string()),
        "term": status.term(),
        "committed": status.committed(),
        "members": members.collect::<Vec<_>>(),
        "why": status.why_offline().map(ToString::to_string),
    })
}
