//! A cloud of two endpoints on loopback, scripted by closures: `/v3/auth/tokens` and the job query.
//!
//! It shows requests as they arrive, with headers and the bodies of logins. The simulator of `testbed`
//! (used by `tests/` of this crate) behaves like a cloud instead, and by design records no secrets.

use super::{credential, lab};
use crate::{CloudClient, CloudOptions, Credential};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, Method, Response, Uri},
};
use image_export_model::{Caller, JobId, Observation, ProjectId};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

pub(super) const PROJECT: &str = "ac234de25c6741d2b1273da49eea1b9e";
pub(super) const JOB: &str = "ff8080814dbd65d7014dbe0d84db0013";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Seen {
    pub(super) fn token(&self) -> &str {
        self.headers["x-auth-token"].to_str().unwrap()
    }
}

/// The running cloud with all it has seen.
pub(super) struct Cloud {
    pub(super) url: String,
    logins: Arc<Mutex<Vec<Seen>>>,
    queries: Arc<Mutex<Vec<Seen>>>,
}

impl Cloud {
    /// `login` gets the login's number from 1 on; `query` gets each query.
    pub(super) async fn start(
        login: impl Fn(usize) -> Response<Body> + Send + Sync + 'static,
        query: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (logins, queries) = <(Arc<Mutex<Vec<Seen>>>, Arc<Mutex<Vec<Seen>>>)>::default();
        let (seen_logins, seen_queries) = (Arc::clone(&logins), Arc::clone(&queries));
        let script = Arc::new((login, query));
        let app = Router::new().fallback(move |request: Request| {
            let (logins, queries, script) = (
                Arc::clone(&seen_logins),
                Arc::clone(&seen_queries),
                Arc::clone(&script),
            );
            async move {
                let (head, body) = request.into_parts();
                let body = to_bytes(body, 1 << 20).await.unwrap();
                let seen = Seen {
                    uri: head.uri,
                    headers: head.headers,
                    body: serde_json::from_slice(&body).unwrap_or_default(),
                };
                if head.method == Method::POST {
                    let number = {
                        let mut logins = logins.lock().unwrap();
                        logins.push(seen);
                        logins.len()
                    };
                    // Long enough for all other polls to arrive meanwhile.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    script.0(number)
                } else {
                    queries.lock().unwrap().push(seen.clone());
                    script.1(&seen)
                }
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url,
            logins,
            queries,
        }
    }

    pub(super) fn logins(&self) -> Vec<Seen> {
        self.logins.lock().unwrap().clone()
    }

    pub(super) fn queries(&self) -> Vec<Seen> {
        self.queries.lock().unwrap().clone()
    }

    /// A password entry for this cloud with the given further lines.
    pub(super) fn credential(&self, more: &str) -> Credential {
        let url = &self.url;
        let auth = "username: alice, password: canary-7f3a, user_domain_name: OTC1";
        credential(&format!(
            "clouds: {{otc: {{auth: {{auth_url: {url}, {auth}}}, {more}}}}}"
        ))
        .unwrap()
    }

    /// The same with this cloud as its `image_endpoint_override`.
    pub(super) fn overridden(&self) -> Credential {
        self.credential(&format!("image_endpoint_override: {}", self.url))
    }

    /// A catalog with this cloud as the image service of each region.
    pub(super) fn catalog(url: &str, regions: &[&str]) -> Value {
        let endpoints: Vec<_> = regions
            .iter()
            .map(|region| json!({"interface": "public", "region": region, "url": format!("{url}/{region}/v2")}))
            .collect();
        json!([{"type": "compute", "endpoints": []}, {"type": "image", "endpoints": endpoints}])
    }
}

/// Polls [`JOB`] of [`PROJECT`].
pub(super) async fn query(client: &CloudClient, credential: &Credential) -> Observation {
    query_in(client, credential, PROJECT).await
}

/// Polls [`JOB`] of another project.
pub(super) async fn query_in(
    client: &CloudClient,
    credential: &Credential,
    project: &str,
) -> Observation {
    let (project, job): (ProjectId, JobId) = (project.parse().unwrap(), JOB.parse().unwrap());
    let caller = Caller::default();
    client.query(credential, &project, &job, &caller).await
}

/// A client of a lab.
pub(super) fn client() -> CloudClient {
    client_with(lab())
}

pub(super) fn client_with(options: CloudOptions) -> CloudClient {
    let _ = rustls::crypto::ring::default_provider().install_default();
    CloudClient::new(options).unwrap()
}

pub(super) fn respond(status: u16, body: impl Into<Body>) -> Response<Body> {
    Response::builder()
        .status(status)
        .body(body.into())
        .unwrap()
}

/// An accepted login: `token-N` for `project`, valid for `lifetime`.
pub(super) fn granted(
    number: usize,
    project: &str,
    lifetime: Duration,
    catalog: &Value,
) -> Response<Body> {
    let now = Timestamp::now();
    let body = json!({"token": {
        "issued_at": now.to_string(),
        "expires_at": (now + lifetime).to_string(),
        "project": {"id": project, "name": "eu-de_team"},
        "user": {"id": "alice-id", "name": "alice", "domain": {"id": "otc1-id", "name": "OTC1"}},
        "catalog": catalog,
    }});
    let mut response = respond(201, body.to_string());
    response.headers_mut().insert(
        "x-subject-token",
        format!("token-{number}").parse().unwrap(),
    );
    response
}

/// [`granted`] for an hour, for our project, without a catalog.
pub(super) fn accept(number: usize) -> Response<Body> {
    granted(number, PROJECT, Duration::from_secs(3600), &Value::Null)
}

pub(super) fn running() -> Response<Body> {
    respond(200, json!({"job_id": JOB, "status": "RUNNING"}).to_string())
}
