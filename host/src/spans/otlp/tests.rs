//! Requests to a collector on a real connection.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::plan::{OtlpEndpoint, Sampler, SpanBatch};

fn otlp(port: u16) -> Otlp {
    let second = Duration::from_secs(1);
    Otlp {
        protocol: OtlpProtocol::Http,
        endpoint: OtlpEndpoint {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port,
            path: "/v1/traces".to_owned(),
        },
        headers: Vec::new(),
        timeout: 10 * second,
        ca: None,
        resource: Vec::new(),
        sampler: Sampler {
            by_parent: true,
            ratio: 1.0,
        },
        batch: SpanBatch {
            queue_max: 1,
            export_max: 1,
            delay: second,
            timeout: second,
        },
    }
}

/// Takes a connection, and answers each request on it with the next of these. Then it closes the connection.
async fn take(listener: &TcpListener, answers: &[&str]) {
    let (mut stream, _) = listener.accept().await.expect("it listens");
    let mut request = Vec::new();
    for answer in answers {
        // Its body is `spans`.
        while !request.ends_with(b"spans") {
            assert_ne!(stream.read_buf(&mut request).await.expect("a request comes"), 0);
        }
        request.clear();
        let whole = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(whole.as_bytes()).await.expect("it waits");
    }
}

#[tokio::test]
async fn a_connection_is_kept_and_a_request_on_one_that_was_closed_goes_over_another_one_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let port = listener.local_addr().expect("it listens").port();
    let collector = Collector::new(&otlp(port)).expect("there are no certificates to read");
    let asks = async {
        let mut kept = None;
        let mut sent = Vec::new();
        for _ in 0..5 {
            let answer = collector.send(&mut kept, Bytes::from_static(b"spans")).await;
            sent.push(answer.map(drop).map_err(|refused| (refused.why, refused.passes)));
        }
        sent
    };
    let answers = async {
        take(&listener, &["200 OK", "503 Service Unavailable", "200 OK"]).await;
        take(&listener, &["200 OK\r\nConnection: close"]).await;
        take(&listener, &["200 OK"]).await;
    };
    let (sent, ()) = tokio::join!(asks, answers);
    let unavailable = Err(("HTTP status 503 Service Unavailable".to_owned(), true));
    assert_eq!(sent, [Ok(()), unavailable, Ok(()), Ok(()), Ok(())]);
}
