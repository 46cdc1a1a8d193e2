//! The smallest server of HTTP/1.1 that a scraper needs: it answers `GET /metrics` and nothing else.
//!
//! Everything is bounded: connections at a time, the length of a request, and the time that one may take.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use futures::{StreamExt, stream::FuturesUnordered};

/// Connections that are served at a time; further ones wait in the socket's queue.
const MAX_CONNECTIONS: usize = 16;
/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 8 << 10;
/// How long a connection may take for one request and its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause after an error of the socket, such as too many open files.
const RETRY: Duration = Duration::from_secs(1);

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
                    let answer = timeout(PATIENCE, answer(connection, render.clone()));
                    connections.push(async move {
                        match answer.await {
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

async fn answer(mut connection: TcpStream, render: Render) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 1024];
        let read = connection.read(&mut part).await?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(&part[..read]);
        if head.len() > MAX_HEAD {
            return respond(&mut connection, "431 Request Header Fields Too Large", "").await;
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    match (method, path) {
        ("GET" | "HEAD", "/metrics" | "/") => {
            let body = if method == "GET" { render() } else { String::new() };
            respond(&mut connection, "200 OK", &body).await
        }
        ("GET" | "HEAD", _) => respond(&mut connection, "404 Not Found", "metrics are at /metrics\n").await,
        _ => respond(&mut connection, "405 Method Not Allowed", "").await,
    }
}

async fn respond(connection: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body.as_bytes()).await?;
    connection.shutdown().await
}

#[cfg(test)]
mod tests {
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
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\na_metric 1\n"), "{answer}");
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
