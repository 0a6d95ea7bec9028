//! An API server for unit tests, without a network: it records each request and answers as the test says.

use super::{Controller, LEASE, LeaseName};
use crate::{
    cluster::Observe,
    telemetry::{Health, Metrics},
};
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use image_export_cloud::{CloudClient, CloudOptions, EndpointPolicy};
use image_export_core::Config;
use kube::{
    Client,
    client::{Body, ClientBuilder},
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tower::{BoxError, Service};

/// A request as it was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// `GET /api/v1/…`, with the query.
    pub(super) line: String,
    pub(super) headers: HeaderMap,
    /// `null` where there is none.
    pub(super) body: Value,
}

/// What a request is answered with.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// A status and a body.
    Text(u16, String),
    /// The connection is lost.
    Lost,
    /// Nothing, ever.
    Never,
    /// The client's own code panics.
    Panic,
    /// Another reply, after this time.
    After(Duration, Box<Reply>),
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::Text(status, body.to_string())
    }

    /// A failure in the form of the API server, with `details`.
    pub(super) fn failure(code: u16, details: &Value) -> Self {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
            "message": "", "reason": "", "details": details,
        });
        Self::json(code, &status)
    }
}

/// A client, and the requests that it has sent.
pub(super) fn api_server(
    answer: impl FnMut(&Sent) -> Reply + Send + 'static,
) -> (Client, Arc<Mutex<Vec<Sent>>>) {
    let server = ApiServer {
        answer: Arc::new(Mutex::new(answer)),
        sent: Arc::default(),
    };
    let sent = server.sent.clone();
    (Client::new(server, "default"), sent)
}

/// A controller with such a client, whose health learns of each answer.
pub(super) fn observed(answer: impl FnMut(&Sent) -> Reply + Send + 'static) -> Controller {
    let server = ApiServer {
        answer: Arc::new(Mutex::new(answer)),
        sent: Arc::default(),
    };
    let health = Arc::<Health>::default();
    let metrics = Arc::<Metrics>::default();
    let observe = Observe {
        health: health.clone(),
        calls: metrics.api_calls("api.test"),
    };
    let builder = ClientBuilder::new(server, "default").with_layer(&observe);
    Controller {
        metrics,
        health,
        ..controller(builder.build())
    }
}

/// A client with one answer for all requests.
pub(super) fn always(reply: Reply) -> (Client, Arc<Mutex<Vec<Sent>>>) {
    api_server(move |_| reply.clone())
}

struct ApiServer<F> {
    answer: Arc<Mutex<F>>,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl<F: FnMut(&Sent) -> Reply + Send + 'static> Service<Request<Body>> for ApiServer<F> {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, log) = (self.answer.clone(), self.sent.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let sent = Sent {
                line: format!("{} {}", parts.method, parts.uri),
                headers: parts.headers,
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            let mut reply = (answer.lock().unwrap())(&sent);
            log.lock().unwrap().push(sent);
            loop {
                match reply {
                    Reply::After(time, next) => {
                        tokio::time::sleep(time).await;
                        reply = *next;
                    }
                    Reply::Text(status, body) => {
                        let response = Response::builder().status(status);
                        return Ok(response.body(Body::from(body.into_bytes()))?);
                    }
                    Reply::Lost => return Err("the connection is lost".into()),
                    Reply::Never => return std::future::pending().await,
                    Reply::Panic => panic!("a panic of the client"),
                }
            }
        })
    }
}

/// The object `ns/x` as the API server shows it, with this status.
pub(super) fn object(status: &Value) -> Value {
    json!({
        "apiVersion": "imageexport.dev/v1alpha1", "kind": "ImageExportJob",
        "metadata": {
            "namespace": "ns", "name": "x", "uid": "u-1", "resourceVersion": "7", "generation": 1,
            "creationTimestamp": "2024-11-06T06:46:51Z",
        },
        "spec": {
            "projectID": "p", "jobID": "j", "ttlSecondsAfterFinished": 0,
            "cloudCredentialsRef": { "secretName": "otc", "cloudName": "otc" },
        },
        "status": status,
    })
}

/// A controller of all namespaces with this client and the defaults.
pub(super) fn controller(client: Client) -> Controller {
    Controller {
        client,
        cloud: cloud(),
        namespaces: Vec::new(),
        label_selector: None,
        lease: LeaseName {
            namespace: "ns".to_owned(),
            name: LEASE.to_owned(),
        },
        leader_elect: false,
        config: Config::default(),
        metrics: Arc::default(),
        health: Arc::default(),
    }
}

/// A client that may reach a simulator.
pub(super) fn cloud() -> CloudClient {
    // Fails where another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let policy = EndpointPolicy {
        allow_http: true,
        ..EndpointPolicy::default()
    };
    let options = CloudOptions {
        policy: Arc::new(policy),
        ..CloudOptions::default()
    };
    CloudClient::new(options).unwrap()
}
