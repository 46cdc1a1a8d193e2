//! The ledger example in one process: what it answers, line by line, at three branches whose leader goes away.

#![expect(clippy::disallowed_methods, reason = "real sockets live in real time")]

use std::{net::SocketAddr, time::Duration};

use mosaik::prelude::*;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

#[path = "../../examples/ledger.rs"]
#[allow(dead_code, reason = "its command line is tested as a process")]
mod example;

use example::Ledger;

const SOON: Duration = Duration::from_secs(30);

/// A branch that is not started from the command line.
struct Branch {
    network: Network,
    ledger: Replica<Ledger>,
    api: SocketAddr,
    /// Dropped to end it.
    open: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Branch {
    async fn start(network_id: NetworkId, key: &GroupKey, size: u32) -> Self {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let network = Network::builder(network_id).with_listen(listen).build().await.expect("a node");
        let builder = network.groups().with_key(key.clone()).with_state_machine(Ledger::default()).with_size(size);
        let ledger = Replica::from(builder.join().await.expect("joins"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let api = listener.local_addr().expect("bound");
        let (open, ending) = oneshot::channel();
        let server = tokio::spawn(example::api::accept(listener, ledger.clone(), example::api::ending(ending)));
        Self { network, ledger, api, open: Some(open), server }
    }

    async fn client(&self) -> Client {
        let (reader, writer) = TcpStream::connect(self.api).await.expect("connects").into_split();
        Client { reader: BufReader::new(reader).lines(), writer }
    }
}

struct Client {
    reader: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Client {
    async fn send(&mut self, line: &str) {
        self.writer.write_all(format!("{line}\n").as_bytes()).await.expect("sends");
    }

    async fn receive(&mut self) -> Value {
        let line = timeout(SOON, self.reader.next_line()).await.expect("in time").expect("reads").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    async fn ask(&mut self, request: Value) -> Value {
        self.send(&request.to_string()).await;
        self.receive().await
    }
}

async fn branches(size: u32) -> Vec<Branch> {
    let (network_id, key) = (NetworkId::random(), GroupKey::random());
    let mut branches = Vec::new();
    for _ in 0..size {
        branches.push(Branch::start(network_id, &key, size).await);
    }
    for branch in &branches {
        let online = branch.ledger.group().when().is_online();
        timeout(SOON, online).await.expect("online in time");
    }
    branches
}

async fn shut_down(branches: Vec<Branch>) {
    for branch in branches {
        branch.network.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_answered_in_its_own_words() {
    let branches = branches(1).await;
    let mut client = branches[0].client().await;
    for (request, answer) in [
        (json!({"id": "c1-7", "op": "deposit", "account": "a", "amount": 5}), json!({"id": "c1-7", "ok": 5})),
        (json!({"id": 1, "op": "deposit", "account": "a", "amount": 7}), json!({"id": 1, "ok": 12})),
        (json!({"id": 2, "op": "transfer", "from": "a", "to": "b", "amount": 2}), json!({"id": 2, "ok": null})),
        (
            json!({"id": 3, "op": "transfer", "from": "b", "to": "a", "amount": 3}),
            json!({"id": 3, "fail": "overdraft"}),
        ),
        (json!({"id": 4, "op": "transfer", "from": "a", "to": "a", "amount": 10}), json!({"id": 4, "ok": null})),
        (json!({"id": 5, "op": "balance", "account": "a", "consistency": "strong"}), json!({"id": 5, "ok": 10})),
        (json!({"id": 6, "op": "balance", "account": "b", "consistency": "weak"}), json!({"id": 6, "ok": 2})),
        (json!({"id": 7, "op": "balance", "account": "never"}), json!({"id": 7, "ok": 0})),
        (json!({"id": 8, "op": "cas", "account": "a", "expect": 9, "set": 20}), json!({"id": 8, "ok": false})),
        (json!({"id": 9, "op": "cas", "account": "a", "expect": 10, "set": 20}), json!({"id": 9, "ok": true})),
        (json!({"id": 10, "op": "cas", "account": "new", "expect": 0, "set": 1}), json!({"id": 10, "ok": true})),
        (json!({"id": 11, "op": "deposit", "account": "a", "amount": u64::MAX}), json!({"id": 11, "fail": "overflow"})),
        (json!({"op": "deposit", "account": "a", "amount": 0}), json!({"ok": 20})),
    ] {
        assert_eq!(client.ask(request.clone()).await, answer, "{request}");
    }
    let status = client.ask(json!({"id": "s", "op": "status"})).await;
    let ok = &status["ok"];
    let me = branches[0].network.local().id().to_string();
    assert_eq!(
        (&status["id"], &ok["role"], &ok["leader"], &ok["why"]),
        (&json!("s"), &json!("leader"), &json!(me), &Value::Null)
    );
    assert!(ok["term"].as_u64() > Some(0) && ok["committed"].as_u64() > Some(9), "{status}");
    let [member] = ok["members"].as_array().expect("a list").as_slice() else { panic!("{status}") };
    assert_eq!((&member["id"], &member["kind"], member["lag"].is_u64()), (&json!(me), &json!("voter"), true));
    assert_eq!(status.to_string().matches("\"role\"").count(), 1);
    shut_down(branches).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_are_answered_and_the_connection_stays() {
    let branches = branches(1).await;
    let mut client = branches[0].client().await;
    let long = format!("{{\"id\":1,\"op\":\"{}\"}}", "x".repeat(100_000));
    for line in ["nonsense", "[1]", "{\"id\":1", "\u{1}", &long] {
        client.send(line).await;
        let answer = client.receive().await;
        assert!(answer["error"].is_string(), "{answer}");
    }
    for request in [
        json!({"id": 1, "op": "withdraw", "account": "a"}),
        json!({"id": 1, "op": "deposit", "account": "a"}),
        json!({"id": 1, "op": "deposit", "account": "a", "amount": -1}),
        json!({"id": 1, "op": "deposit", "account": "a", "amount": 1, "session": "s"}),
        json!({"id": 1, "op": "balance", "account": "x".repeat(300)}),
        json!({"id": 1}),
    ] {
        let answer = client.ask(request).await;
        assert!(answer["error"].is_string() && answer["id"] == 1 && answer["outcome"] == "none", "{answer}");
    }
    assert_eq!(client.ask(json!({"id": 2, "op": "balance", "account": "a"})).await, json!({"id": 2, "ok": 0}));
    client.writer.write_all(b"{\"id\":3,\"op\":\"balance\",\"account\":\"a\"}").await.expect("sends");
    client.writer.shutdown().await.expect("closes");
    assert_eq!(client.receive().await, json!({"id": 3, "ok": 0}), "the last line needs no end");
    shut_down(branches).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_at_another_branch_is_done_once() {
    let branches = branches(3).await;
    let deposit = json!({"id": 1, "op": "deposit", "account": "a", "amount": 5, "session": "c1", "seq": 7});
    for branch in &branches {
        let mut client = branch.client().await;
        assert_eq!(client.ask(deposit.clone()).await, json!({"id": 1, "ok": 5}));
    }
    let mut client = branches[1].client().await;
    for seq in 0..20 {
        let line = json!({"id": seq, "op": "deposit", "account": "b", "amount": 1, "session": "c2", "seq": seq});
        client.send(&line.to_string()).await;
    }
    let mut ids: Vec<u64> = Vec::new();
    for _ in 0..20 {
        let answer = client.receive().await;
        ids.push(answer["id"].as_u64().expect("its id"));
        assert!(answer["ok"].is_u64(), "{answer}");
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..20).collect::<Vec<_>>(), "one answer for each");
    let mut other = branches[2].client().await;
    let balance = json!({"id": 0, "op": "balance", "account": "b", "consistency": "strong"});
    assert_eq!(other.ask(balance).await, json!({"id": 0, "ok": 20}));
    shut_down(branches).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_go_on_without_the_leader_and_one_alone_does_nothing() {
    let mut branches = branches(3).await;
    let mut client = branches[0].client().await;
    assert_eq!(client.ask(json!({"op": "deposit", "account": "a", "amount": 5})).await, json!({"ok": 5}));

    let leader = branches.iter().position(|branch| branch.ledger.group().is_leader()).expect("a leader");
    drop(branches.remove(leader));
    let mut client = branches[0].client().await;
    let deadline = Instant::now() + SOON;
    let mut seq = 0;
    loop {
        seq += 1;
        let request =
            json!({"op": "deposit", "account": "a", "amount": 5, "session": "c", "seq": 1, "timeout_ms": 3000});
        let answer = client.ask(request).await;
        if answer == json!({"ok": 10}) {
            break;
        }
        assert!(answer["outcome"].is_string() && Instant::now() < deadline, "{answer} at the attempt {seq}");
        sleep(Duration::from_millis(50)).await;
    }

    drop(branches.pop());
    let request = json!({"id": 9, "op": "deposit", "account": "a", "amount": 5, "timeout_ms": 500});
    let answer = client.ask(request).await;
    assert!(answer["error"].is_string() && answer["outcome"].is_string(), "{answer}");
    let strong = client.ask(json!({"op": "balance", "account": "a", "timeout_ms": 500})).await;
    assert_eq!(strong["outcome"], "none", "{strong}");
    let weak = client.ask(json!({"op": "balance", "account": "a", "consistency": "weak"})).await;
    assert_eq!(weak, json!({"ok": 10}));
    loop {
        let status = client.ask(json!({"op": "status"})).await;
        if status["ok"]["why"].is_string() && status["ok"]["role"] != "leader" {
            break;
        }
        assert!(Instant::now() < deadline, "{status}");
        sleep(Duration::from_millis(50)).await;
    }
    shut_down(branches).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_ends_answers_what_is_under_way() {
    let mut branches = branches(3).await;
    let mut branch = branches.remove(0);
    let mut client = branch.client().await;
    // A busy connection: whatever was begun is answered, and then the connection ends.
    for seq in 0..200 {
        client.send(&json!({"id": seq, "op": "deposit", "account": "a", "amount": 1}).to_string()).await;
    }
    assert!(client.receive().await["ok"].is_u64());
    branch.open = None;
    let mut answers = 1;
    while let Some(line) = timeout(SOON, client.reader.next_line()).await.expect("in time").expect("no reset") {
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        assert!(answer["ok"].is_u64(), "{answer}");
        answers += 1;
    }
    timeout(SOON, &mut branch.server).await.expect("ends in time").expect("no panic");
    assert!(answers > 1, "only what was not read yet goes without an answer");
    assert!(TcpStream::connect(branch.api).await.is_err(), "it listens no more");

    // Nothing can be decided: the answer says so, soon.
    let mut alone = branches.remove(0);
    drop((branch, branches));
    let mut client = alone.client().await;
    client.send(&json!({"id": "d", "op": "deposit", "account": "a", "amount": 1}).to_string()).await;
    client.send(&json!({"id": "b", "op": "balance", "account": "a"}).to_string()).await;
    sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    alone.open = None;
    let mut answers = [client.receive().await, client.receive().await];
    answers.sort_by_key(|answer| answer["id"].to_string());
    let found = answers.each_ref().map(|answer| (answer["id"].as_str(), answer["outcome"].as_str()));
    assert_eq!(found, [(Some("b"), Some("none")), (Some("d"), Some("unknown"))]);
    timeout(SOON, &mut alone.server).await.expect("ends in time").expect("no panic");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    alone.network.shutdown().await;
}

mod sessions {
    use mosaik::groups::StateMachine;

    use super::example::*;
    use super::*;

    fn deposit(session: &str, seq: u64) -> LedgerCommand {
        let origin = Some(Origin { session: session.into(), seq });
        LedgerCommand::Deposit { origin, account: "a".into(), amount: 1 }
    }

    fn answer(ledger: &mut Ledger, command: LedgerCommand, seconds: u64) -> Answer {
        let ctx = ApplyContext::at(seconds).with_time(Duration::from_secs(seconds));
        let LedgerOutput::Deposit(answer) = ledger.apply(command, &ctx) else { panic!("another answer") };
        answer
    }

    #[test]
    fn what_was_forgotten_is_refused_and_never_done_again() {
        let mut ledger = Ledger::default();
        for seq in 1..=2000 {
            assert_eq!(answer(&mut ledger, deposit("c", seq), 1), Answer::Balance(seq));
        }
        assert_eq!(answer(&mut ledger, deposit("c", 2000), 1), Answer::Balance(2000), "remembered");
        assert_eq!(answer(&mut ledger, deposit("c", 3), 1), Answer::TooOld);
        assert_eq!(answer(&mut ledger, deposit("d", 3), 1), Answer::Balance(2001), "another session");
    }

    #[test]
    fn sessions_end_by_the_groups_own_time_and_never_early() {
        let mut ledger = Ledger::default();
        for session in 0..16_384 {
            answer(&mut ledger, deposit(&session.to_string(), 1), 10);
        }
        assert_eq!(answer(&mut ledger, deposit("late", 1), 3609), Answer::TooManySessions);
        assert_eq!(answer(&mut ledger, deposit("0", 1), 3609), Answer::Balance(1), "remembered, and used");
        assert_eq!(answer(&mut ledger, deposit("late", 1), 3610), Answer::Balance(16_385), "the others are over");
        assert_eq!(answer(&mut ledger, deposit("0", 1), 3610), Answer::Balance(1), "this one is not");
    }
}
