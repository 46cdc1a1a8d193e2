//! Ethereum's JSON-RPC over HTTP, as far as the intake speaks it: bodies to [`Call`]s with alloy's transactions, results to JSON.
//! Knows nothing of the network.

use std::{error::Error, io};

use alloy::consensus::TxEnvelope;
use axum::{
    Json, Router,
    body::to_bytes,
    extract,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::spawn_blocking};

use crate::envelope::{self, Order};

/// The longest body of an HTTP request, bytes.
pub const MAX_BODY: usize = 8 << 20;
/// Calls in a batch.
pub const MAX_BATCH: usize = 1_000;

/// Why a call has no result: the error's code and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub i32, pub String);

impl Failure {
    /// The body is not JSON.
    pub const PARSE: i32 = -32700;
    /// The JSON is not a request.
    pub const INVALID: i32 = -32600;
    /// There is no such method.
    pub const METHOD: i32 = -32601;
    /// The method does not take such parameters.
    pub const PARAMS: i32 = -32602;
    /// The call is sound and cannot be done.
    pub const SERVER: i32 = -32000;
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Self::SERVER, error.to_string())
    }
}

/// What is asked for.
#[derive(Debug)]
pub enum Call {
    /// `eth_sendRawTransaction`
    Send(Box<(Order, TxEnvelope)>),
    /// `eth_blockNumber`
    BlockNumber,
}

/// One request: what to do, or why there is nothing to do.
struct Request {
    /// What the answer is marked with; without it, nobody waits for an answer.
    id: Option<Value>,
    call: Result<Call, Failure>,
}

/// What a body has.
enum Requests {
    One(Request),
    Many(Vec<Request>),
}

/// Serves whoever connects. The calls of a batch are first polled in their order.
///
/// # Errors
/// When the socket fails.
pub async fn serve<F>(
    listener: TcpListener,
    calls: impl Fn(Call) -> F + Clone + Send + Sync + 'static,
) -> io::Result<()>
where
    F: Future<Output = Result<Value, Failure>> + Send,
{
    // Whatever the path, the method and the content type: the body counts.
    let router = Router::new().fallback(async move |request| handle(request, calls).await);
    axum::serve(listener, router).await
}

async fn handle<F>(request: extract::Request, calls: impl Fn(Call) -> F) -> Response
where
    F: Future<Output = Result<Value, Failure>> + Send,
{
    let fail = |failure| Json(answer(&Value::Null, Err(failure)));
    let body = match to_bytes(request.into_body(), MAX_BODY).await {
        Ok(body) => body,
        Err(error) => {
            let why = format!("a body of at most {MAX_BODY} bytes is read: {error}");
            return (StatusCode::PAYLOAD_TOO_LARGE, fail(Failure(Failure::INVALID, why))).into_response();
        }
    };
    let answer = async |Request { id, call }| {
        let result = match call {
            Ok(call) => calls(call).await,
            Err(failure) => Err(failure),
        };
        Some(answer(&id?, result))
    };
    // Senders are recovered: a millisecond for each.
    let requests = spawn_blocking(move || read(&body)).await;
    let answers = match requests.map_err(Failure::from).flatten() {
        Ok(Requests::One(request)) => answer(request).await,
        Ok(Requests::Many(batch)) => {
            let answers: Vec<_> = join_all(batch.into_iter().map(answer)).await.into_iter().flatten().collect();
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
        Err(failure) => return fail(failure).into_response(),
    };
    answers.map_or(StatusCode::NO_CONTENT.into_response(), |answers| Json(answers).into_response())
}

fn read(body: &[u8]) -> Result<Requests, Failure> {
    match serde_json::from_slice(body).map_err(|error| Failure(Failure::PARSE, error.to_string()))? {
        Value::Array(batch) if batch.is_empty() => Err(Failure(Failure::INVALID, "an empty batch".into())),
        Value::Array(batch) if batch.len() > MAX_BATCH => {
            Err(Failure(Failure::INVALID, format!("a batch of {} is over the limit of {MAX_BATCH}", batch.len())))
        }
        Value::Array(batch) => Ok(Requests::Many(batch.iter().map(request).collect())),
        single => Ok(Requests::One(request(&single))),
    }
}

fn request(value: &Value) -> Request {
    let id = value.get("id");
    let sound = id.is_none_or(|id| id.is_null() || id.is_string() || id.is_number());
    match (value["jsonrpc"].as_str(), value["method"].as_str()) {
        (Some("2.0"), Some(method)) if sound => Request { id: id.cloned(), call: call(method, &value["params"]) },
        _ => {
            let id = Some(id.filter(|_| sound).cloned().unwrap_or_default());
            let what = r#"a request has "jsonrpc":"2.0", a method, and an id that is a number or a text"#;
            Request { id, call: Err(Failure(Failure::INVALID, what.into())) }
        }
    }
}

fn call(method: &str, params: &Value) -> Result<Call, Failure> {
    let params = match params {
        Value::Null => Some(&[][..]),
        params => params.as_array().map(Vec::as_slice),
    };
    let takes = |what: &str| Err(Failure(Failure::PARAMS, format!("{method} takes {what}")));
    match (method, params) {
        ("eth_sendRawTransaction", Some([Value::String(raw)])) => match envelope::receive(raw) {
            Ok(received) => Ok(Call::Send(Box::new(received))),
            Err(error) if error.is_malformed() => Err(Failure(Failure::PARAMS, error.to_string())),
            Err(error) => Err(error.into()),
        },
        ("eth_sendRawTransaction", _) => takes("one parameter: a signed transaction in hex"),
        ("eth_blockNumber", Some([])) => Ok(Call::BlockNumber),
        ("eth_blockNumber", _) => takes("no parameters"),
        _ => Err(Failure(Failure::METHOD, format!("the method {method} does not exist"))),
    }
}

fn answer(id: &Value, result: Result<Value, Failure>) -> Value {
    match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(Failure(code, message)) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
        }
    }
}

#[cfg(test)]
mod tests;
