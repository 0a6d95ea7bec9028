//! What the network may do to a poll.

use super::{
    credential,
    fake_cloud::{Cloud, JOB, accept, client, client_with, query, respond, running},
    lab,
};
use crate::{CloudOptions, Credential, Observer, Operation, config::host_key};
use axum::body::Body;
use flate2::{Compression, write::GzEncoder};
use futures::{future::join_all, stream};
use image_export_model::{ConfigurationReason, Failure, FailureKind, Observation, Outcome, Stage};
use std::{
    convert::Infallible,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

fn failure(poll: &Observation) -> &Failure {
    let Outcome::Failed(failure) = &poll.outcome else {
        panic!("{poll:?}")
    };
    assert_eq!(failure.stage, Stage::Query);
    failure
}

/// An entry with a token and an endpoint: no login comes before the query.
fn given(url: &str) -> Credential {
    credential(&format!(
        "clouds: {{otc: {{auth_type: token, auth: {{token: some-token}}, image_endpoint_override: '{url}'}}}}"
    ))
    .unwrap()
}

/// A server below HTTP: `serve` gets each connection with its number from 1 on.
async fn raw_server<F>(serve: impl Fn(usize, TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 1.. {
            let (connection, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(number, connection));
        }
    });
    url
}

async fn read_request(connection: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let byte = connection.read_u8().await.unwrap();
        request.push(byte);
    }
}

async fn write_running(connection: &mut TcpStream) {
    let body = format!(r#"{{"job_id":"{JOB}","status":"RUNNING"}}"#);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    connection
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .unwrap();
}

/// How many connections 300 polls open that are due at once, of a server that answers after so many milliseconds; and how
/// long they take.
async fn burst(answers_after: u64) -> (usize, Duration) {
    let opened = Arc::new(AtomicUsize::new(0));
    let counted = opened.clone();
    let url = raw_server(move |_, mut connection| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            loop {
                read_request(&mut connection).await;
                tokio::time::sleep(Duration::from_millis(answers_after)).await;
                write_running(&mut connection).await;
            }
        }
    });
    let (client, credential) = (client(), given(&url.await));
    let started = Instant::now();
    let polls = (0..300).map(|_| query(&client, &credential));
    for poll in join_all(polls).await {
        assert!(matches!(poll.outcome, Outcome::Answered(_)), "{poll:?}");
    }
    (opened.load(Ordering::Relaxed), started.elapsed())
}

/// Polls that are due at once share connections; where answers take long, they do not wait for one another.
#[tokio::test]
async fn a_burst_of_polls_opens_few_connections_where_answers_come_soon() {
    let mut fewest = usize::MAX;
    // A machine that stops for a while has answers take long.
    for _ in 0..5 {
        fewest = fewest.min(burst(1).await.0);
        if fewest <= 40 {
            break;
        }
    }
    assert!(fewest <= 40, "{fewest} connections");
    let (opened, took) = burst(700).await;
    assert!((200..=300).contains(&opened), "{opened} connections");
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let elsewhere = Cloud::start(accept, |_| running()).await;
    for status in [300, 301, 302, 303, 304, 307, 308] {
        let target = elsewhere.url.clone();
        let redirect = move |_: &super::fake_cloud::Seen| {
            let mut response = respond(status, "");
            response
                .headers_mut()
                .insert("location", format!("{target}/v1/x").parse().unwrap());
            response
        };
        let cloud = Cloud::start(accept, redirect).await;
        let poll = query(&client(), &cloud.overridden()).await;
        let Outcome::Misconfigured(error) = &poll.outcome else {
            panic!("{poll:?}")
        };
        assert_eq!(error.reason, ConfigurationReason::EndpointInvalid);
        assert!(!error.message.contains(&elsewhere.url), "{error:?}");
    }
    assert!(elsewhere.queries().is_empty());
}

#[tokio::test]
async fn an_observation_reports_the_endpoint_and_its_retry_after() {
    for (status, header, category) in [
        (429, None, "throttled"),
        (429, Some("17"), "throttled"),
        (503, None, "http_error"),
        (503, Some("17"), "http_error"),
        (404, Some("17"), "endpoint_invalid"),
    ] {
        let answer = move |_: &super::fake_cloud::Seen| {
            let mut response = respond(status, "");
            let headers = response.headers_mut();
            headers.insert("x-request-id", "req-1".parse().unwrap());
            if let Some(seconds) = header {
                headers.insert("retry-after", seconds.parse().unwrap());
            }
            response
        };
        let cloud = Cloud::start(accept, answer).await;
        let poll = query(&client(), &cloud.overridden()).await;
        assert_eq!(poll.outcome.category(), category);
        let wait = header.map(|_| Duration::from_secs(17));
        assert_eq!(poll.retry_after, wait, "{status}");
        assert_eq!(poll.endpoint.as_deref(), cloud.url.strip_prefix("http://"));
        assert_eq!(poll.request_id.as_deref(), Some("req-1"));
        assert_eq!((poll.requests, poll.signed_in), (1, true));
    }
}

/// Records the requests that are reported.
#[derive(Debug, Default)]
struct Recorded(Mutex<Vec<(&'static str, &'static str)>>);

impl Observer for Recorded {
    fn request(&self, operation: Operation, class: &'static str, _: Duration) {
        self.0.lock().unwrap().push((operation.label(), class));
    }
}

#[tokio::test]
async fn each_request_is_reported_with_its_operation_and_class() {
    let cloud = Cloud::start(accept, |_| respond(429, "")).await;
    let recorded = Arc::new(Recorded::default());
    let client = client_with(CloudOptions {
        observer: recorded.clone(),
        ..lab()
    });
    query(&client, &cloud.overridden()).await;
    let requests = recorded.0.lock().unwrap().clone();
    assert_eq!(requests, [("login", "success"), ("job_query", "throttled")]);
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit_whatever_its_form() {
    let padded = |len: usize| {
        format!(
            r#"{{"job_id":"{JOB}","status":"RUNNING","x":"{}"}}"#,
            "x".repeat(len)
        )
    };
    let fits = padded(255 * 1024);
    let cloud = Cloud::start(accept, move |_| respond(200, fits.clone())).await;
    let poll = query(&client(), &cloud.overridden()).await;
    assert_eq!(poll.outcome.category(), "answered");

    let too_long = padded(256 * 1024);
    let cloud = Cloud::start(accept, move |_| respond(200, too_long.clone())).await;
    let poll = query(&client(), &cloud.overridden()).await;
    assert_eq!(failure(&poll).kind, FailureKind::Malformed);
    assert!(
        failure(&poll).message.ends_with("is longer than 256 KiB"),
        "{poll:?}"
    );

    let endless = || {
        Body::from_stream(stream::repeat_with(|| {
            Ok::<_, Infallible>(vec![b' '; 8192])
        }))
    };
    let cloud = Cloud::start(accept, move |_| respond(200, endless())).await;
    let poll = query(&client(), &cloud.overridden()).await;
    assert_eq!(failure(&poll).kind, FailureKind::Malformed);
}

/// A poll answered with these bytes, said to be encoded like this.
async fn encoded_answer(coding: &'static str, bytes: Vec<u8>) -> Observation {
    let answer = move |_: &super::fake_cloud::Seen| {
        let mut response = respond(200, bytes.clone());
        response
            .headers_mut()
            .insert("content-encoding", coding.parse().unwrap());
        response
    };
    let cloud = Cloud::start(accept, answer).await;
    query(&client(), &cloud.overridden()).await
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

#[tokio::test]
async fn an_unrequested_compression_is_unpacked_up_to_the_limit() {
    let body = format!(r#"{{"job_id":"{JOB}","status":"RUNNING"}}"#);
    let poll = encoded_answer("gzip", gzip(body.as_bytes())).await;
    assert_eq!(poll.outcome.category(), "answered");

    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 256 << 10, "it passes packed");
    let poll = encoded_answer("gzip", bomb).await;
    assert!(
        failure(&poll).message.contains("longer than 256 KiB"),
        "{poll:?}"
    );
}

#[tokio::test]
async fn an_encoding_that_cannot_be_decoded_is_a_malformed_answer() {
    for (coding, bytes) in [
        ("gzip", vec![0x1f, 0x8b, 8, 0]),
        ("br", vec![1, 2, 3]),
        ("gzip, gzip", gzip(b"{}")),
    ] {
        let poll = encoded_answer(coding, bytes).await;
        assert_eq!(failure(&poll).kind, FailureKind::Malformed, "{coding}");
    }
}

#[tokio::test]
async fn a_dead_pooled_connection_costs_one_request_more() {
    let url = raw_server(|number, mut connection| async move {
        read_request(&mut connection).await;
        write_running(&mut connection).await;
        // The first connection takes a second request and dies; the others live on.
        read_request(&mut connection).await;
        if number > 1 {
            write_running(&mut connection).await;
        }
    })
    .await;
    let (client, credential) = (client(), given(&url));
    let first = query(&client, &credential).await;
    assert_eq!((first.outcome.category(), first.requests), ("answered", 1));
    let second = query(&client, &credential).await;
    assert_eq!(
        (second.outcome.category(), second.requests),
        ("answered", 2),
        "{second:?}"
    );
}

/// Neither costs more than its bound.
#[tokio::test]
async fn interim_answers_and_headers_without_an_end_are_cut_off() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    let header = format!("x: {}\r\n", "x".repeat(1000));
    for (head, piece, problem) in [
        ("", interim, "sends more than 384 KiB without an answer"),
        (
            "HTTP/1.1 200 OK\r\n",
            header,
            "sends more than 64 KiB of headers",
        ),
    ] {
        let piece = Arc::new(piece);
        let url = raw_server(move |_, mut connection| {
            let piece = piece.clone();
            async move {
                read_request(&mut connection).await;
                connection.write_all(head.as_bytes()).await.unwrap();
                while connection.write_all(piece.as_bytes()).await.is_ok() {}
            }
        })
        .await;
        let poll = query(&client(), &given(&url)).await;
        assert_eq!(failure(&poll).kind, FailureKind::Network);
        assert!(failure(&poll).message.ends_with(problem), "{poll:?}");
    }
}

#[tokio::test]
async fn a_server_that_always_hangs_up_gets_two_requests() {
    let url =
        raw_server(|_, mut connection| async move { read_request(&mut connection).await }).await;
    let poll = query(&client(), &given(&url)).await;
    assert_eq!(
        (failure(&poll).kind, poll.requests, poll.endpoint.is_none()),
        (FailureKind::Network, 2, true)
    );
}

/// The cloud may have counted a signature whose answer was lost.
#[tokio::test]
async fn a_signature_is_sent_twice_only_if_its_key_was_accepted() {
    // Odd connections die without an answer, even ones answer once.
    let url = raw_server(|number, mut connection| async move {
        read_request(&mut connection).await;
        if number % 2 == 0 {
            write_running(&mut connection).await;
        }
    })
    .await;
    let keys = credential(&format!(
        "clouds: {{otc: {{ak: AK, sk: some-secret-key, image_endpoint_override: '{url}'}}}}"
    ))
    .unwrap();
    let client = client();
    let untried = query(&client, &keys).await;
    assert_eq!(
        (failure(&untried).kind, untried.requests),
        (FailureKind::Network, 1)
    );
    let accepted = query(&client, &keys).await;
    assert_eq!(
        (accepted.outcome.category(), accepted.requests),
        ("answered", 1)
    );
    let repeated = query(&client, &keys).await;
    assert_eq!(
        (repeated.outcome.category(), repeated.requests),
        ("answered", 2)
    );
}

#[tokio::test]
async fn a_trickling_answer_ends_with_the_total_time() {
    for head in [
        "HTTP/1.1 200 OK\r\nx: ",
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
    ] {
        let url = raw_server(move |_, mut connection| async move {
            read_request(&mut connection).await;
            connection.write_all(head.as_bytes()).await.unwrap();
            while connection.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        let client = client_with(CloudOptions {
            request_timeout: Duration::from_millis(800),
            ..lab()
        });
        let poll = query(&client, &given(&url)).await;
        assert_eq!(failure(&poll).kind, FailureKind::Timeout, "{poll:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_off() {
    let url = raw_server(|_, mut connection| async move {
        read_request(&mut connection).await;
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"job_id\":";
        connection.write_all(cut).await.unwrap();
    })
    .await;
    let poll = query(&client(), &given(&url)).await;
    assert_eq!(failure(&poll).kind, FailureKind::Network);
    assert_eq!(
        poll.requests, 1,
        "an answer that began is not requested again"
    );
}

#[tokio::test]
async fn a_closed_port_and_a_server_without_tls_are_named() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let poll = query(&client(), &given(&format!("http://{closed}"))).await;
    assert_eq!(failure(&poll).kind, FailureKind::Network);
    assert_eq!(
        &*failure(&poll).message,
        format!("{closed} cannot be reached: connection refused")
    );
    assert_eq!((poll.endpoint, poll.requests), (None, 1));
    assert_eq!(poll.queried, Some(host_key(&closed.to_string())));

    let cloud = Cloud::start(accept, |_| running()).await;
    let tls = cloud.url.replace("http://", "https://");
    let poll = query(&client(), &given(&tls)).await;
    assert_eq!(failure(&poll).kind, FailureKind::Network);
    assert!(
        failure(&poll).message.ends_with("the TLS handshake failed"),
        "{poll:?}"
    );
}

#[tokio::test]
async fn a_host_that_does_not_resolve_is_named() {
    // ".invalid" never resolves (RFC 2606).
    let poll = query(&client(), &given("https://ims.invalid")).await;
    assert!(
        matches!(
            failure(&poll).kind,
            FailureKind::Network | FailureKind::Timeout
        ),
        "{poll:?}"
    );
    assert!(
        failure(&poll).message.starts_with("ims.invalid "),
        "{poll:?}"
    );
}
