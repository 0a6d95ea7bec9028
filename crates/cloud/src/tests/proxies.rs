//! Polls through a proxy of this file's own, on loopback.

use super::{
    CANARY, credential,
    fake_cloud::{Cloud, JOB, PROJECT, accept, client_with, query, running},
    lab, tls,
};
use crate::{CloudClient, CloudOptions, Proxies};
use image_export_model::{FailureKind, Outcome, Stage};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

const HOST: &str = "ims.eu-de.otc.t-systems.com";

/// A proxy with the requests that it got.
struct FakeProxy {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

/// What a proxy does with a CONNECT.
#[derive(Clone)]
enum Does {
    /// These bytes.
    Answer(&'static str),
    /// A connection to this port.
    Tunnel(u16),
    Nothing,
}

impl FakeProxy {
    async fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = requests.clone();
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(connection, does.clone(), seen.clone()));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut connection: TcpStream, does: Does, seen: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(connection.read_u8().await.unwrap());
    }
    seen.lock()
        .unwrap()
        .push(String::from_utf8(request).unwrap());
    match does {
        Does::Answer(answer) => connection.write_all(answer.as_bytes()).await.unwrap(),
        Does::Nothing => std::future::pending().await,
        Does::Tunnel(port) => {
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
            connection.write_all(established).await.unwrap();
            let _ = copy_bidirectional(&mut connection, &mut server).await;
        }
    }
}

/// A SOCKS 5 proxy that leads to `port`; the request of its one connection is the task's result.
async fn socks_proxy(port: u16) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut offer = [0; 3];
        connection.read_exact(&mut offer).await.unwrap();
        assert_eq!(offer, [5, 1, 0], "no authentication is offered alone");
        connection.write_all(&[5, 0]).await.unwrap();
        let mut request = [0; 256];
        let length = connection.read(&mut request).await.unwrap();
        let established = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        connection.write_all(&established).await.unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let _ = copy_bidirectional(&mut connection, &mut server).await;
        request[..length].to_vec()
    });
    (address, task)
}

/// A client of an environment in which this proxy leads to https. It is as patient as the slowest machine needs.
fn behind(proxy: &str) -> CloudClient {
    behind_for(proxy, Duration::from_secs(60))
}

/// The same with this patience for a connection.
fn behind_for(proxy: &str, patience: Duration) -> CloudClient {
    let variable = |name: &str| (name == "HTTPS_PROXY").then(|| proxy.to_owned());
    client_with(CloudOptions {
        proxies: Arc::new(Proxies::read(variable).unwrap()),
        connect_timeout: patience,
        request_timeout: Duration::from_secs(90),
        ..lab()
    })
}

/// The message of a poll at [`HOST`], or of the login for it.
async fn message(proxy: &str, stage: Stage) -> (FailureKind, String) {
    message_of(&behind(proxy), stage).await
}

/// The same with this client.
async fn message_of(client: &CloudClient, stage: Stage) -> (FailureKind, String) {
    let entry = match stage {
        Stage::Query => format!(
            "auth_type: token, auth: {{token: t}}, image_endpoint_override: 'https://{HOST}'"
        ),
        Stage::Login => format!(
            "auth: {{auth_url: 'https://{HOST}/v3', username: a, password: b-c-d-e, user_domain_name: D}}"
        ),
    };
    let credential = credential(&format!("clouds: {{otc: {{{entry}}}}}")).unwrap();
    let poll = query(client, &credential).await;
    let Outcome::Failed(failure) = &poll.outcome else {
        panic!("{poll:?}")
    };
    assert_eq!(failure.stage, stage);
    (failure.kind, failure.message.to_string())
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_its_number_and_without_its_user() {
    for (answer, number, asked) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            " (407)",
            1,
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
            " (403)",
            2,
        ),
        ("HTTP/1.0 502 Bad Gateway\r\n\r\n", " (502)", 2),
        ("SSH-2.0-OpenSSH\r\n\r\n", "", 2),
    ] {
        for stage in [Stage::Query, Stage::Login] {
            let proxy = FakeProxy::start(Does::Answer(answer)).await;
            let address = &proxy.address;
            let url = format!("http://user:{CANARY}@{address}");
            let refused = format!("proxy {address} refused the connection to {HOST}{number}");
            assert_eq!(message(&url, stage).await, (FailureKind::Network, refused));
            let requests = proxy.requests();
            assert_eq!(requests.len(), asked, "{answer}: {requests:?}");
            for request in requests {
                assert!(request.starts_with(&format!("CONNECT {HOST}:443 HTTP/1.1\r\n")));
                // "user:canary-7f3a"
                let user = "proxy-authorization: basic dxnlcjpjyw5hcnktn2yzyq==\r\n";
                assert!(request.to_lowercase().contains(user), "{request}");
            }
        }
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_hangs_up_or_is_silent_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    let refused = format!("proxy {closed} cannot be reached: connection refused");
    assert_eq!(
        message(&closed, Stage::Query).await,
        (FailureKind::Network, refused)
    );
    let unknown = message("proxy.invalid:3128", Stage::Query).await;
    assert_eq!(unknown.1, "proxy proxy.invalid:3128 cannot be reached");

    let proxy = FakeProxy::start(Does::Answer("")).await;
    let broke = format!("proxy {} broke the connection to {HOST}", proxy.address);
    assert_eq!(
        message(&proxy.address, Stage::Query).await,
        (FailureKind::Network, broke)
    );
    let proxy = FakeProxy::start(Does::Nothing).await;
    let address = &proxy.address;
    let silent = format!("{HOST} did not accept a connection through proxy {address} within 1 s");
    assert_eq!(
        message_of(&behind_for(address, Duration::from_secs(1)), Stage::Query).await,
        (FailureKind::Timeout, silent)
    );
}

#[tokio::test]
async fn a_poll_goes_through_the_tunnel_of_a_proxy() {
    let (credential, port) = tls::served_as(HOST).await;
    let proxy = FakeProxy::start(Does::Tunnel(port)).await;
    let poll = query(&behind(&proxy.address), &credential).await;
    assert_eq!(poll.outcome.category(), "answered", "{poll:?}");
    let requests = proxy.requests();
    assert_eq!(requests.len(), 1);
    assert!(
        requests[0].starts_with(&format!("CONNECT {HOST}:443 ")),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_poll_goes_through_a_socks_proxy_which_gets_the_name_or_the_address() {
    let named = [
        &[5, 1, 0, 3, 27][..],
        HOST.as_bytes(),
        &443_u16.to_be_bytes(),
    ]
    .concat();
    let addressed = [&[5, 1, 0, 1, 10, 1, 2, 3][..], &443_u16.to_be_bytes()].concat();
    for (scheme, host, expected) in [("socks5h", HOST, named), ("socks5", "10.1.2.3", addressed)] {
        let (credential, port) = tls::served_as(host).await;
        let (address, proxy) = socks_proxy(port).await;
        let poll = query(&behind(&format!("{scheme}://{address}")), &credential).await;
        assert_eq!(poll.outcome.category(), "answered", "{poll:?}");
        assert_eq!(proxy.await.unwrap(), expected, "{scheme}");
    }
}

/// The library would ask for port 443 whatever the scheme.
#[tokio::test]
async fn a_socks_proxy_is_asked_for_the_port_of_plain_http() {
    let cloud = Cloud::start(accept, |_| running()).await;
    let (address, proxy) =
        socks_proxy(cloud.url.rsplit(':').next().unwrap().parse().unwrap()).await;
    let url = format!("socks5://{address}");
    let variable = |name: &str| (name == "HTTP_PROXY").then(|| url.clone());
    let client = client_with(CloudOptions {
        proxies: Arc::new(Proxies::read(variable).unwrap()),
        ..lab()
    });
    let entry = "auth_type: token, auth: {token: t}, image_endpoint_override: 'http://10.1.2.3'";
    let credential = credential(&format!("clouds: {{otc: {{{entry}}}}}")).unwrap();
    let poll = query(&client, &credential).await;
    assert_eq!(poll.outcome.category(), "answered", "{poll:?}");
    drop((client, poll));
    let expected = [5, 1, 0, 1, 10, 1, 2, 3, 0, 80];
    assert_eq!(proxy.await.unwrap(), expected);
}

/// Without TLS the proxy itself gets the request, with its user.
#[tokio::test]
async fn a_poll_over_plain_http_names_the_server_to_its_proxy() {
    let body = format!(r#"{{"job_id":"{JOB}","status":"RUNNING"}}"#);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let proxy = FakeProxy::start(Does::Answer(answer.leak())).await;
    let url = format!("http://user:{CANARY}@{}", proxy.address);
    let variable = |name: &str| (name == "HTTP_PROXY").then(|| url.clone());
    let client = client_with(CloudOptions {
        proxies: Arc::new(Proxies::read(variable).unwrap()),
        ..lab()
    });
    let entry =
        format!("auth_type: token, auth: {{token: t}}, image_endpoint_override: 'http://{HOST}'");
    let credential = credential(&format!("clouds: {{otc: {{{entry}}}}}")).unwrap();
    let poll = query(&client, &credential).await;
    assert_eq!(poll.outcome.category(), "answered", "{poll:?}");
    let request = proxy.requests().remove(0);
    let start = format!("GET http://{HOST}/v1/{PROJECT}/jobs/{JOB} HTTP/1.1\r\n");
    assert!(request.starts_with(&start), "{request}");
    let user = "proxy-authorization: basic dxnlcjpjyw5hcnktn2yzyq==\r\n";
    assert!(request.to_lowercase().contains(user), "{request}");
}
