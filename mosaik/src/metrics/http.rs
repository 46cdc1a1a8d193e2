//! The HTTP server of the metrics: it answers `GET /metrics` and nothing else.
//!
//! Everything is bounded: connections at a time, the length of a request, and the time that one may take.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// Connections that are served at a time; further ones wait in the socket's queue.
const MAX_CONNECTIONS: usize = 16;
/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 8 << 10;
/// How long a connection may take for one request and its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after an error of the socket, such as too many open files.
const RETRY: Duration = Duration::from_secs(1);
/// The text format of Prometheus, <https://prometheus.io/docs/instrumenting/exposition_formats/>.
const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What is answered to a scraper.
pub(super) type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// A socket that listens at the address.
pub(super) fn listen(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, addr))
}

/// Serves while it is polled.
pub(super) async fn serve(listener: TcpListener, render: Render) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = connections.next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((connection, peer)) => {
                    let served = timeout(TIMEOUT, answer(connection, render.clone()));
                    connections.push(async move {
                        match served.await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => tracing::debug!(%peer, %error, "a scrape of metrics failed"),
                            Err(_) => tracing::debug!(%peer, "a scrape of metrics took too long"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "metrics cannot be served for now");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

/// One request of one connection.
async fn answer(connection: TcpStream, render: Render) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&request, &render);
        async { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).keep_alive(false).max_buf_size(MAX_HEAD);
    server.serve_connection(TokioIo::new(connection), service).await
}

fn respond(request: &Request<Incoming>, render: &Render) -> Response<String> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics" | "/") => (StatusCode::OK, render()),
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, FORMAT);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(addr: SocketAddr, request: &str) -> String {
        let mut connection = TcpStream::connect(addr).await.expect("connects");
        connection.write_all(request.as_bytes()).await.expect("asks");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("is answered");
        answer
    }

    #[tokio::test]
    async fn a_scraper_is_answered_and_others_are_refused() {
        let (listener, addr) = listen(([127, 0, 0, 1], 0).into()).expect("listens");
        let serving = serve(listener, Arc::new(|| "a_metric 1\n".to_owned()));
        let asking = async {
            let answer = ask(addr, "GET /metrics?x=1 HTTP/1.1\r\nHost: here\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("version=0.0.4"), "{answer}");
            assert!(answer.ends_with("\r\n\r\na_metric 1\n"), "{answer}");
            for (request, status) in [
                ("GET /other HTTP/1.1\r\n\r\n".to_owned(), "404"),
                ("POST /metrics HTTP/1.1\r\n\r\n".to_owned(), "405"),
                (format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD)), "431"),
            ] {
                let answer = ask(addr, &request).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            }
        };
        tokio::select! {
            () = serving => panic!("it ended"),
            () = asking => {}
        }
    }
}
