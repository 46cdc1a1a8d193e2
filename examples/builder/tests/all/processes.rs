//! The promise, shown with processes: whatever leader is killed, each acknowledged transaction is in exactly one block.
//!
//! `BUILDER_KILLS` says how many leaders are killed; `BUILDER_DATA` names a directory with files of JSON in which transactions of a
//! real block are at `/execution_payload/transactions`, to be sent as well.

use std::{
    env, fs,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
    thread,
    time::Instant,
};

use builder::envelope::Order;
use serde_json::{Value, json};

use crate::{
    common::{assert_each_once, dynamic, legacy, orders, transactions},
    pipeline::{Pipeline, Process, Rpc, wait},
};

#[test]
fn each_is_in_exactly_one_block_whoever_is_killed() {
    let kills = env::var("BUILDER_KILLS").map_or(3, |kills| kills.parse().expect("a number"));
    let mut pipeline = Pipeline::start();
    let (all, begun) = (everything(), Instant::now());
    let (orders, rpcs) = (orders(&all), pipeline.rpcs());
    let watch = pipeline.watch(&["--from", "1"]);
    let acknowledged = AtomicUsize::new(0);
    // One intake and one thread for each sender's transactions, which are to come in order.
    thread::scope(|scope| {
        let senders = rpcs.iter().map(|rpc| {
            let (jobs, chunks) = channel::<Vec<(&String, &Order)>>();
            let acknowledged = &acknowledged;
            scope.spawn(move || chunks.iter().for_each(|chunk| send(*rpc, &chunk, acknowledged)));
            jobs
        });
        let senders: Vec<_> = senders.collect();
        let pairs: Vec<_> = all.iter().zip(&orders).collect();
        let each = pairs.len().div_ceil(kills);
        assert_eq!(pairs.chunks(each).len(), kills, "transactions cannot be dealt out to so many");
        for (number, chunk) in pairs.chunks(each).enumerate() {
            let mut jobs = vec![Vec::new(); senders.len()];
            chunk.iter().for_each(|pair| jobs[usize::from(pair.1.sender[19]) % senders.len()].push(*pair));
            jobs.into_iter().zip(&senders).for_each(|(job, sender)| sender.send(job).expect("a thread"));
            // While they come in.
            let some = number * each + chunk.len() / 3;
            wait("some of them", || (acknowledged.load(Ordering::Relaxed) >= some).then_some(()));
            pipeline.kill(pipeline.leader());
        }
    });
    let accepted = begun.elapsed();
    let blocks = wait("all in blocks", || Some(blocks(&watch, 1)).filter(|blocks| count(blocks) >= orders.len()));
    let numbers = blocks.len();
    assert_each_once(&orders, &blocks);
    println!(
        "{} transactions were accepted within {accepted:?} while {kills} leaders were killed, and are in {numbers} blocks of at most {}",
        orders.len(),
        blocks.iter().map(Vec::len).max().unwrap_or_default(),
    );
    for ((raw, order), rpc) in all.iter().zip(&orders).zip(rpcs.iter().cycle()).step_by(9) {
        assert_eq!(rpc.call("eth_sendRawTransaction", &json!([raw])), Ok(json!(order.hash)), "known, answered alike");
    }
    whoever_comes_late_is_told(&mut pipeline, &blocks);
}

/// All members lose their memory, not their data; then one watches from the beginning, and one from its own.
fn whoever_comes_late_is_told(pipeline: &mut Pipeline, before: &[Vec<String>]) {
    pipeline.kill_all();
    pipeline.restart_all();
    let (late, replay) = (pipeline.watch(&[]), pipeline.watch(&["--from", "1"]));
    wait("the past", || Some(blocks(&replay, 1)).filter(|blocks| blocks.len() >= before.len()));
    let missed = wait("what was missed", || late.printed().first().cloned());
    assert_eq!(missed, json!({"missed": [1, before.len()]}));
    let raw = legacy(200, 0, 1, Some(1));
    let hash = until_accepted(pipeline.rpcs()[0], &raw);
    let number = before.len() as u64 + 1;
    let next = wait("the next block", || late.printed().get(1).cloned());
    assert_eq!(next, json!({"block": number, "txs": [hash]}));
    let replayed = wait("it in the replay", || Some(blocks(&replay, 1)).filter(|blocks| blocks.len() > before.len()));
    assert_eq!(&replayed[..before.len()], before, "nothing is sealed twice or changes");
    assert_eq!(pipeline.rpcs()[1].call("eth_blockNumber", &json!([])), Ok(json!(format!("{number:#x}"))));
}

#[test]
fn the_intake_says_what_it_does_not_take() {
    let mut pipeline = Pipeline::start();
    let rpc = pipeline.rpcs()[0];
    until_accepted(rpc, &legacy(1, 5, 1, None));
    wait("a block", || (rpc.call("eth_blockNumber", &json!([])) == Ok(json!("0x1"))).then_some(()));
    let send = |raw: &str| rpc.call("eth_sendRawTransaction", &json!([raw])).map_err(|error| error["code"].clone());
    let refused = rpc.call("eth_sendRawTransaction", &json!([legacy(1, 4, 1, None)])).expect_err("nonce");
    assert_eq!(refused, json!({"code": -32000, "message": "nonce too low"}));
    assert_eq!(send(&legacy(1, 5, 2, None)), Err(json!(-32000)), "another one of the same nonce");
    assert_eq!(send(&dynamic(1, 6, 1, 30_000_001, vec![])), Err(json!(-32000)));
    assert_eq!(send("0x1234"), Err(json!(-32602)));
    assert_eq!(rpc.call("eth_call", &json!([])).map_err(|error| error["code"].clone()), Err(json!(-32601)));
    let post = |body: &str| -> Value { serde_json::from_str(&rpc.post(body).expect("answers")).expect("JSON") };
    assert_eq!(post("{")["error"]["code"], -32700);
    assert_eq!(post("[]")["error"]["code"], -32600);
    assert_eq!(post(r#"[{"jsonrpc":"2.0","id":"a","method":"eth_blockNumber"},1]"#)[0]["id"], "a");
    let notification = r#"{"jsonrpc":"2.0","method":"eth_blockNumber"}"#;
    assert_eq!(rpc.post(notification).expect("answers"), "");
    pipeline.kill_all();
    let alone = [send(&legacy(1, 7, 1, None)), rpc.call("eth_blockNumber", &json!([]))];
    alone.iter().for_each(|answer| assert!(answer.is_err(), "{answer:?}"));
    pipeline.restart_all();
    assert!(until_accepted(rpc, &legacy(1, 7, 1, None)).is_string());
}

/// The transactions of these tests, and those of the data if there are some.
fn everything() -> Vec<String> {
    let mut all = transactions();
    if let Ok(dir) = env::var("BUILDER_DATA") {
        let files = fs::read_dir(dir).expect("a directory").map(|file| file.expect("a file").path());
        for file in files.filter(|file| file.extension().is_some_and(|it| it == "json")) {
            let data: Value = serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON");
            let found = data.pointer("/execution_payload/transactions").and_then(Value::as_array);
            all.extend(found.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
        }
    }
    all
}

/// Sends the first half as a batch and the others one by one, until all are accepted; counts them.
fn send(rpc: Rpc, chunk: &[(&String, &Order)], acknowledged: &AtomicUsize) {
    let (batch, single) = chunk.split_at(chunk.len() / 2);
    let raw: Vec<String> = batch.iter().map(|(raw, _)| (*raw).clone()).collect();
    if !raw.is_empty() {
        for (answer, (raw, order)) in rpc.batch(&raw).into_iter().zip(batch) {
            let hash = answer.unwrap_or_else(|error| {
                assert!(is_no_answer(&error), "{error}");
                until_accepted(rpc, raw)
            });
            assert_eq!(hash, json!(order.hash));
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
    for (raw, order) in single {
        assert_eq!(until_accepted(rpc, raw), json!(order.hash));
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends it until the pool has acknowledged it; its hash.
fn until_accepted(rpc: Rpc, raw: &str) -> Value {
    wait("accepted", || match rpc.call("eth_sendRawTransaction", &json!([raw])) {
        Ok(hash) => Some(hash),
        Err(error) => {
            assert!(is_no_answer(&error), "{error}");
            None
        }
    })
}

/// Whether the pool was not there for 5 s, which is no refusal.
fn is_no_answer(error: &Value) -> bool {
    error["code"] == -32000 && error["message"].as_str().is_some_and(|message| message.contains("within 5s"))
}

/// The blocks that were printed, which are numbered from this on without holes.
fn blocks(watch: &Process, first: u64) -> Vec<Vec<String>> {
    let numbered = watch.printed().into_iter().zip(first..).map(|(line, number)| {
        assert_eq!(line["block"], number, "{line}");
        serde_json::from_value(line["txs"].clone()).expect("hashes")
    });
    numbered.collect()
}

fn count(blocks: &[Vec<String>]) -> usize {
    blocks.iter().map(Vec::len).sum()
}
