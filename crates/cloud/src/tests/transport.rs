//! What the network may do to a poll: faults D9, E8, E9, E10 and their like.

use super::{
    cloud::{Cloud, JOB, PROJECT, accept, client, respond, running},
    credential,
};
use crate::Credential;
use axum::body::Body;
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use image_export_model::{ConfigurationReason, Failure, FailureKind, Observation, Outcome, Stage};
use std::{convert::Infallible, io::Write, time::Duration};
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

#[tokio::test]
async fn e8_a_redirect_is_never_followed() {
    let elsewhere = Cloud::start(accept, |_| running()).await;
    let target = elsewhere.url.clone();
    let redirect = move |_: &super::cloud::Seen| {
        let mut response = respond(307, "");
        response
            .headers_mut()
            .insert("location", format!("{target}/v1/x").parse().unwrap());
        response
    };
    let cloud = Cloud::start(accept, redirect).await;
    let poll = client().query(&cloud.overridden(), PROJECT, JOB).await;
    let Outcome::Misconfigured(refusal) = &poll.outcome else {
        panic!("{poll:?}")
    };
    assert_eq!(refusal.reason, ConfigurationReason::EndpointInvalid);
    assert!(!refusal.message.contains(&elsewhere.url), "{refusal:?}");
    assert!(elsewhere.queries().is_empty());
}

#[tokio::test]
async fn e10_a_body_is_read_up_to_its_limit_whatever_its_form() {
    let padded = |len: usize| {
        format!(
            r#"{{"job_id":"{JOB}","status":"RUNNING","x":"{}"}}"#,
            "x".repeat(len)
        )
    };
    let fits = padded(255 * 1024);
    let cloud = Cloud::start(accept, move |_| respond(200, fits.clone())).await;
    let poll = client().query(&cloud.overridden(), PROJECT, JOB).await;
    assert_eq!(poll.outcome.category(), "answered");

    let too_long = padded(256 * 1024);
    let cloud = Cloud::start(accept, move |_| respond(200, too_long.clone())).await;
    let poll = client().query(&cloud.overridden(), PROJECT, JOB).await;
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
    let poll = client().query(&cloud.overridden(), PROJECT, JOB).await;
    assert_eq!(failure(&poll).kind, FailureKind::Malformed);
}

/// A poll answered with these bytes, said to be encoded like this.
async fn encoded_answer(coding: &'static str, bytes: Vec<u8>) -> Observation {
    let answer = move |_: &super::cloud::Seen| {
        let mut response = respond(200, bytes.clone());
        response
            .headers_mut()
            .insert("content-encoding", coding.parse().unwrap());
        response
    };
    let cloud = Cloud::start(accept, answer).await;
    client().query(&cloud.overridden(), PROJECT, JOB).await
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

#[tokio::test]
async fn e10_a_compressed_body_is_unpacked_up_to_the_limit_though_nobody_asked_for_it() {
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
async fn e10_an_encoding_that_cannot_be_undone_is_a_malformed_answer() {
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
async fn d9_a_dead_pooled_connection_costs_one_request_more() {
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
    let first = client.query(&credential, PROJECT, JOB).await;
    assert_eq!((first.outcome.category(), first.requests), ("answered", 1));
    let second = client.query(&credential, PROJECT, JOB).await;
    assert_eq!(
        (second.outcome.category(), second.requests),
        ("answered", 2),
        "{second:?}"
    );
}

#[tokio::test]
async fn a_server_that_always_hangs_up_is_asked_twice_and_no_more() {
    let url =
        raw_server(|_, mut connection| async move { read_request(&mut connection).await }).await;
    let poll = client().query(&given(&url), PROJECT, JOB).await;
    assert_eq!(
        (failure(&poll).kind, poll.requests, poll.endpoint.is_none()),
        (FailureKind::Network, 2, true)
    );
}

#[tokio::test]
async fn e9_a_trickling_answer_ends_with_the_total_time() {
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
        let started = std::time::Instant::now();
        let poll = client().query(&given(&url), PROJECT, JOB).await;
        assert_eq!(failure(&poll).kind, FailureKind::Timeout, "{poll:?}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn e11_an_answer_that_is_cut_off() {
    let url = raw_server(|_, mut connection| async move {
        read_request(&mut connection).await;
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"job_id\":";
        connection.write_all(cut).await.unwrap();
    })
    .await;
    let poll = client().query(&given(&url), PROJECT, JOB).await;
    assert_eq!(failure(&poll).kind, FailureKind::Network);
    assert_eq!(
        poll.requests, 1,
        "an answer that began is not asked for again"
    );
}

#[tokio::test]
async fn a_closed_port_and_a_server_without_tls_are_named() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let poll = client()
        .query(&given(&format!("http://{closed}")), PROJECT, JOB)
        .await;
    assert_eq!(failure(&poll).kind, FailureKind::Network);
    assert_eq!(
        &*failure(&poll).message,
        format!("{closed} cannot be reached: connection refused")
    );
    assert_eq!((poll.endpoint, poll.requests), (None, 1));

    let cloud = Cloud::start(accept, |_| running()).await;
    let tls = cloud.url.replace("http://", "https://");
    let poll = client().query(&given(&tls), PROJECT, JOB).await;
    assert_eq!(failure(&poll).kind, FailureKind::Network);
    assert!(
        failure(&poll).message.ends_with("the TLS handshake failed"),
        "{poll:?}"
    );
}

#[tokio::test]
async fn a_host_that_does_not_resolve_is_named() {
    // ".invalid" never resolves (RFC 2606); proxies of the environment would hide that.
    if ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        return;
    }
    let poll = client()
        .query(&given("https://ims.invalid"), PROJECT, JOB)
        .await;
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

#[tokio::test]
async fn h4_an_id_that_is_none_never_reaches_a_url() {
    let cloud = Cloud::start(accept, |_| running()).await;
    let (client, credential) = (client(), cloud.overridden());
    for id in ["", "../x", "a%2fb", "a?b", "a\nb", &"x".repeat(65)] {
        for poll in [
            client.query(&credential, PROJECT, id).await,
            client.query(&credential, id, JOB).await,
        ] {
            assert_eq!(poll.outcome.category(), "request_rejected");
            assert_eq!(poll.requests, 0);
        }
    }
    assert!(cloud.logins().is_empty() && cloud.queries().is_empty());
}
