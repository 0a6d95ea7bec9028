//! TLS and HTTP/2, against a server of this file's own.

use super::{
    fake_cloud::{JOB, client, query},
    lab, parse,
};
use crate::Credential;
use h2::{Reason, server::SendResponse};
use http::Response;
use image_export_model::{FailureKind, Observation, Outcome};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Certifies servers; its certificate goes into the Secret.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A server's certificate and key.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn certifies(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}

/// A certificate of an authority that a server presents as its own, and its PEM.
fn self_signed_authority(name: &str) -> (Identity, String) {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let identity = Identity {
        chain: vec![certificate.der().clone()],
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    };
    (identity, certificate.pem())
}

/// Serves each TLS connection with `serve`; returns the port.
async fn start<F>(
    identity: Identity,
    protocols: &[&[u8]],
    serve: impl Fn(TlsStream<TcpStream>) -> F + Send + Sync + 'static,
) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            // A client that does not trust us goes away.
            if let Ok(stream) = acceptor.accept(connection).await {
                tokio::spawn(serve(stream));
            }
        }
    });
    port
}

fn running() -> String {
    format!(r#"{{"job_id":"{JOB}","status":"RUNNING"}}"#)
}

/// HTTP/1.1, one request a connection.
async fn http1(mut stream: TlsStream<TcpStream>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        request.push(byte);
    }
    let body = running();
    let length = body.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// An entry with a token for `https://{host}:{port}`.
fn credential(host: &str, port: u16, cacert: Option<&str>, more: &str) -> Credential {
    let yaml = format!(
        "clouds: {{otc: {{auth_type: token, auth: {{token: t}}, image_endpoint_override: 'https://{host}:{port}'{more}}}}}"
    );
    parse(yaml.as_bytes(), cacert, &lab()).unwrap()
}

/// A server with a certificate for `https://{host}`: a credential that trusts it, and its port.
pub(super) async fn served_as(host: &str) -> (Credential, u16) {
    let authority = Authority::new();
    let port = start(authority.certifies(host, |_| {}), &[], http1).await;
    (credential(host, 443, Some(&authority.pem()), ""), port)
}

fn network_failure(observation: &Observation) -> &str {
    match &observation.outcome {
        Outcome::Failed(failure) if failure.kind == FailureKind::Network => &failure.message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_trusted_are_told_apart() {
    let authority = Authority::new();
    let pem = authority.pem();
    let good = authority.certifies("127.0.0.1", |_| {});
    let expired = authority.certifies("127.0.0.1", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let early = authority.certifies("127.0.0.1", |params| {
        params.not_before = date_time_ymd(3000, 1, 1);
        params.not_after = date_time_ymd(3001, 1, 1);
    });
    let foreign = authority.certifies("ims.example.com", |_| {});
    let nameless = authority.certifies("127.0.0.1", |params| params.subject_alt_names.clear());
    let (own, own_pem) = self_signed_authority("127.0.0.1");
    let mut long = authority.certifies("127.0.0.1", |_| {});
    let others = (0..9).flat_map(|_| self_signed_authority("127.0.0.1").0.chain);
    long.chain.extend(others);
    for (identity, cacert, expected) in [
        (expired, Some(&*pem), "certificate has expired"),
        (early, Some(&*pem), "not valid yet"),
        (foreign, Some(&*pem), "for another host name"),
        (nameless, Some(&*pem), "names no host (subjectAltName)"),
        (
            own,
            Some(&own_pem),
            "that of an authority (CA:TRUE), which no server may present; give the server one",
        ),
        (long, Some(&*pem), "more than 8 certificates beside its own"),
        (
            good,
            None,
            "unknown authority; add that authority's certificate as cacert",
        ),
    ] {
        let port = start(identity, &[], http1).await;
        let poll = query(&client(), &credential("127.0.0.1", port, cacert, "")).await;
        let message = network_failure(&poll);
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn a_given_authority_is_trusted_and_so_is_any_without_verification() {
    let authority = Authority::new();
    let port = start(authority.certifies("127.0.0.1", |_| {}), &[], http1).await;
    let trusting = credential("127.0.0.1", port, Some(&authority.pem()), "");
    assert_eq!(
        query(&client(), &trusting).await.outcome.category(),
        "answered"
    );
    let careless = credential("127.0.0.1", port, None, ", verify: false");
    assert_eq!(
        query(&client(), &careless).await.outcome.category(),
        "answered"
    );

    // The trust of one credential does not extend to another.
    let client = client();
    query(&client, &trusting).await;
    network_failure(&query(&client, &credential("127.0.0.1", port, None, "")).await);
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_a_failure_of_the_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await;
        }
    });
    let poll = query(&client(), &credential("127.0.0.1", port, None, "")).await;
    assert!(
        network_failure(&poll).contains("TLS handshake failed"),
        "{poll:?}"
    );
}

/// What an HTTP/2 server does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Answer,
    /// Answers with 8 KiB, and from the second request on not before so many wait.
    AnswerTogether(usize),
    /// Answers and says that this connection takes no more.
    GoAway,
    Reset(Reason),
}

/// An HTTP/2 server; counts connections and requests.
#[derive(Default)]
struct Count {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

async fn http2(authority: &Authority, does: Does) -> (u16, Arc<Count>) {
    let count = Arc::new(Count::default());
    let counted = count.clone();
    let identity = authority.certifies("127.0.0.1", |_| {});
    let port = start(identity, &[b"h2", b"http/1.1"], move |stream| {
        let count = counted.clone();
        async move {
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            count.connections.fetch_add(1, Ordering::Relaxed);
            let Ok(mut connection) = h2::server::handshake(stream).await else {
                return;
            };
            let mut waiting = Vec::new();
            while let Some(Ok((_, respond))) = connection.accept().await {
                count.requests.fetch_add(1, Ordering::Relaxed);
                waiting.push(respond);
                let is_first = count.requests.load(Ordering::Relaxed) == 1;
                if matches!(does, Does::AnswerTogether(all) if !is_first && waiting.len() < all) {
                    continue;
                }
                for respond in waiting.drain(..) {
                    serve_stream(respond, does);
                }
                if does == Does::GoAway {
                    connection.graceful_shutdown();
                }
            }
        }
    })
    .await;
    (port, count)
}

fn serve_stream(mut respond: SendResponse<axum::body::Bytes>, does: Does) {
    match does {
        Does::Reset(reason) => respond.send_reset(reason),
        Does::Answer | Does::GoAway | Does::AnswerTogether(_) => {
            let length = if matches!(does, Does::AnswerTogether(_)) {
                8 * 1024
            } else {
                0
            };
            let answer = format!("{:length$}", running());
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(answer.into(), true).unwrap();
        }
    }
}

#[tokio::test]
async fn many_polls_share_one_http2_connection_where_it_is_offered() {
    let authority = Authority::new();
    let (port, count) = http2(&authority, Does::Answer).await;
    let (client, credential) = (
        client(),
        credential("127.0.0.1", port, Some(&authority.pem()), ""),
    );
    assert_eq!(
        query(&client, &credential).await.outcome.category(),
        "answered"
    );
    let polls = (0..50).map(|_| query(&client, &credential));
    for poll in futures::future::join_all(polls).await {
        assert_eq!(poll.outcome.category(), "answered");
    }
    assert_eq!(count.connections.load(Ordering::Relaxed), 1);
}

/// Nothing is sent while they arrive, so all of them together are what a server may send without being asked.
#[tokio::test]
async fn many_long_answers_on_one_http2_connection_are_no_flood() {
    let authority = Authority::new();
    let (port, count) = http2(&authority, Does::AnswerTogether(100)).await;
    let (client, credential) = (
        client(),
        credential("127.0.0.1", port, Some(&authority.pem()), ""),
    );
    query(&client, &credential).await;
    let polls = (0..100).map(|_| query(&client, &credential));
    for poll in futures::future::join_all(polls).await {
        assert_eq!(poll.outcome.category(), "answered", "{poll:?}");
        assert_eq!(poll.requests, 1);
    }
    assert_eq!(count.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn after_a_goaway_the_next_poll_opens_another_connection() {
    let authority = Authority::new();
    let (port, count) = http2(&authority, Does::GoAway).await;
    let (client, credential) = (
        client(),
        credential("127.0.0.1", port, Some(&authority.pem()), ""),
    );
    for _ in 0..5 {
        assert_eq!(
            query(&client, &credential).await.outcome.category(),
            "answered"
        );
    }
    assert_eq!(count.connections.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn resets_cost_two_requests_a_poll_and_are_transient() {
    let authority = Authority::new();
    for reason in [
        Reason::REFUSED_STREAM,
        Reason::ENHANCE_YOUR_CALM,
        Reason::INTERNAL_ERROR,
    ] {
        let (port, count) = http2(&authority, Does::Reset(reason)).await;
        let (client, credential) = (
            client(),
            credential("127.0.0.1", port, Some(&authority.pem()), ""),
        );
        for n in 1..=10 {
            let poll = query(&client, &credential).await;
            network_failure(&poll);
            assert_eq!(poll.requests, 2);
            assert_eq!(count.requests.load(Ordering::Relaxed), 2 * n, "{reason:?}");
        }
    }
}
