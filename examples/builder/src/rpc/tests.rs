//! What is no call, and how that is said.

use super::*;

/// The code of the error, for a body with one request.
fn code(body: &str) -> i32 {
    match read(body.as_bytes()) {
        Err(Failure(code, _)) => code,
        Ok(Requests::One(request)) => request.call.err().map_or(0, |Failure(code, _)| code),
        Ok(Requests::Many(batch)) => panic!("a batch of {}", batch.len()),
    }
}

fn id(body: &str) -> Option<Value> {
    match read(body.as_bytes()) {
        Ok(Requests::One(request)) => request.id,
        _ => panic!("no single request: {body}"),
    }
}

#[test]
fn errors_have_the_codes_of_json_rpc() {
    for body in ["", "{", "hello", "[1,", "\u{feff}1"] {
        assert_eq!(code(body), Failure::PARSE, "{body}");
    }
    for body in ["1", "{}", "[]", "null", r#"{"method":"eth_blockNumber","id":1}"#, r#"{"jsonrpc":"2.0","id":1}"#] {
        assert_eq!(code(body), Failure::INVALID, "{body}");
    }
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":{},"method":"eth_blockNumber"}"#), Failure::INVALID);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[1]}"#), Failure::METHOD);
    let params = |method: &str, params: &str| {
        code(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#))
    };
    for bad in
        ["[]", "{}", "7", "null", "[7]", r#"["0x"]"#, r#"["12"]"#, r#"["0x1"]"#, r#"["0xzz"]"#, r#"["0x02","0x"]"#]
    {
        assert_eq!(params("eth_sendRawTransaction", bad), Failure::PARAMS, "{bad}");
    }
    assert_eq!(params("eth_blockNumber", "[1]"), Failure::PARAMS);
    assert_eq!(params("eth_blockNumber", "[]"), 0);
    assert_eq!(params("eth_blockNumber", "null"), 0);
}

#[test]
fn an_answer_has_the_id_of_its_request() {
    let with = |id: &str| format!(r#"{{"jsonrpc":"2.0","method":"eth_blockNumber"{id}}}"#);
    assert_eq!(id(&with(r#","id":7"#)), Some(json!(7)));
    assert_eq!(id(&with(r#","id":"a""#)), Some(json!("a")));
    assert_eq!(id(&with(r#","id":null"#)), Some(Value::Null));
    assert_eq!(id(&with(r#","id":[]"#)), Some(Value::Null));
    assert_eq!(id(&with("")), None, "a notification has no answer");
    assert_eq!(id(r#"{"id":7}"#), Some(json!(7)));
}

#[test]
fn a_batch_has_a_limit_and_each_of_it_its_own_error() {
    let Ok(Requests::Many(batch)) = read(br#"[1,{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber"}]"#) else {
        panic!("no batch");
    };
    assert_eq!(batch.iter().map(|request| request.call.is_ok()).collect::<Vec<_>>(), [false, true]);
    let long = json!(vec![1; MAX_BATCH + 1]).to_string();
    assert_eq!(read(long.as_bytes()).err().map(|Failure(code, _)| code), Some(Failure::INVALID));
}
