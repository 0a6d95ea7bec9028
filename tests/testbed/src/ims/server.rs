//! The HTTP side: which request is for whom, and in which order things get a say.
//!
//! First the log, then the scripts, then the services. A second path of the job query would be one
//! more line in [`route`].

use super::{
    Answer, Job, JobKey, User,
    iam::Iam,
    job::wall_clock,
    log::{Credential, Kind, Log},
    preset,
    script::Scripts,
};
use axum::{
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use k8s_openapi::jiff::Timestamp;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Longest login request read, bytes.
const LOGIN_LIMIT: usize = 64 * 1024;

struct Life {
    job: Job,
    /// `None` until a job that starts at the first query is first asked for.
    began: Option<(Instant, Timestamp)>,
}

/// Everything the simulator knows. Its locks are never held together, nor across an await.
pub(super) struct Shared {
    started: Instant,
    /// Host and port, for catalogs of clients that send no Host header.
    authority: String,
    region: String,
    jobs: Mutex<HashMap<JobKey, Life>>,
    scripts: Mutex<Scripts>,
    iam: Mutex<Iam>,
    log: Mutex<Log>,
    arrivals: watch::Sender<()>,
}

impl Shared {
    pub(super) fn new(
        authority: String,
        region: String,
        users: Vec<User>,
        lifetime: Duration,
    ) -> Self {
        Self {
            started: Instant::now(),
            authority,
            region,
            jobs: Mutex::default(),
            scripts: Mutex::default(),
            iam: Mutex::new(Iam::new(users, lifetime)),
            log: Mutex::default(),
            arrivals: watch::Sender::default(),
        }
    }

    pub(super) fn scripts(&self) -> MutexGuard<'_, Scripts> {
        lock(&self.scripts)
    }

    pub(super) fn iam(&self) -> MutexGuard<'_, Iam> {
        lock(&self.iam)
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// A signal for each arrival.
    pub(super) fn arrivals(&self) -> watch::Receiver<()> {
        self.arrivals.subscribe()
    }

    pub(super) fn put_job(&self, job: Job) {
        let began = match job.start {
            super::Start::Creation => Some((Instant::now(), wall_clock())),
            super::Start::FirstQuery => None,
        };
        lock(&self.jobs).insert(job.key.clone(), Life { job, began });
    }

    /// Whether there was such a job.
    pub(super) fn remove_job(&self, key: &JobKey) -> bool {
        lock(&self.jobs).remove(key).is_some()
    }

    fn job_body(&self, key: &JobKey) -> Option<String> {
        let mut jobs = lock(&self.jobs);
        let life = jobs.get_mut(key)?;
        let (since, began) = *life
            .began
            .get_or_insert_with(|| (Instant::now(), wall_clock()));
        Some(life.job.body(began, since.elapsed()))
    }
}

/// A test that panicked with a lock held has failed anyway; the others go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Route {
    Poll(JobKey),
    Login { catalog: bool },
    Revoke,
    Unknown,
}

fn route(request: &Request) -> Route {
    let path = request.uri().path();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match (request.method(), segments.as_slice()) {
        (&Method::GET, ["v1", project, "jobs", job]) => Route::Poll(JobKey::new(*project, *job)),
        (&Method::POST, ["v3", "auth", "tokens"]) => {
            let query = request.uri().query().unwrap_or_default();
            let named = |part: &str| part == "nocatalog" || part.starts_with("nocatalog=");
            Route::Login {
                catalog: !query.split('&').any(named),
            }
        }
        (&Method::DELETE, ["v3", "auth", "tokens"]) => Route::Revoke,
        _ => Route::Unknown,
    }
}

/// Answers everything but the admin API.
pub(super) async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let route = route(&request);
    let visit = Visit::begin(&shared, &route, &request);
    let mut response = answer(&shared, &route, request).await;
    let id = format!("{:032x}", visit.number);
    response
        .headers_mut()
        .entry("X-Request-Id")
        .or_insert(HeaderValue::try_from(id).expect("hexadecimal digits are a header value"));
    visit.end(response.status());
    response
}

async fn answer(shared: &Shared, route: &Route, request: Request) -> Response {
    let now = Instant::now();
    let (job_id, scripted) = match route {
        Route::Poll(key) => (key.job.as_str(), shared.scripts().next_for_job(key, now)),
        Route::Login { .. } => ("", shared.scripts().next_for_login(now)),
        Route::Revoke | Route::Unknown => ("", None),
    };
    if let Some(scripted) = scripted
        && let Some(response) = scripted.play(job_id).await
    {
        return response;
    }
    let served = match route {
        Route::Poll(key) => poll(shared, key, request.headers()),
        Route::Login { catalog } => match login(shared, request, *catalog).await {
            Ok(response) => return response,
            Err(refusal) => refusal,
        },
        Route::Revoke => revoke(shared, request.headers()),
        Route::Unknown => preset::api_not_published(),
    };
    served
        .play(job_id)
        .await
        .expect("the services always answer themselves")
}

fn poll(shared: &Shared, key: &JobKey, headers: &HeaderMap) -> Answer {
    if let Err(refusal) = shared.iam().authorize(headers, &key.project) {
        return refusal;
    }
    shared
        .job_body(key)
        .map_or_else(preset::job_not_found, |body| Answer::json(200, body))
}

async fn login(shared: &Shared, request: Request, catalog: bool) -> Result<Response, Answer> {
    // The catalog names the simulator as the client reached it.
    let authority = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or(&shared.authority);
    let image_url = catalog.then(|| format!("http://{authority}"));
    let body = to_bytes(request.into_body(), LOGIN_LIMIT)
        .await
        .map_err(|error| {
            Answer::keystone_error(413, "Request Entity Too Large", &error.to_string())
        })?;
    let issued = shared
        .iam()
        .login(&body, image_url.as_deref(), &shared.region)?;
    shared.log().counters.tokens_issued += 1;
    let mut token =
        HeaderValue::try_from(issued.token).expect("issued tokens are plain characters");
    token.set_sensitive(true);
    let mut response = (StatusCode::CREATED, axum::Json(issued.body)).into_response();
    response.headers_mut().insert("X-Subject-Token", token);
    Ok(response)
}

/// A valid token may revoke itself or another.
fn revoke(shared: &Shared, headers: &HeaderMap) -> Answer {
    let mut iam = shared.iam();
    let subject = headers
        .get("x-subject-token")
        .and_then(|token| token.to_str().ok())
        .unwrap_or_default();
    match iam.credential(headers) {
        Credential::FixedToken | Credential::IssuedToken if iam.revoke(subject) => {
            Answer::status(204)
        }
        Credential::FixedToken | Credential::IssuedToken => Answer::preset("iam-not-found"),
        _ => preset::login_refused(),
    }
}

/// A request in work: logged when it comes and, however that happens, when it ends.
struct Visit {
    shared: Arc<Shared>,
    kind: Kind,
    number: u64,
    method: Method,
    path: String,
    credential: Credential,
    since: Instant,
    status: Option<StatusCode>,
}

impl Visit {
    fn begin(shared: &Arc<Shared>, route: &Route, request: &Request) -> Self {
        let kind = match route {
            Route::Poll(key) => Kind::Poll(key.clone()),
            Route::Login { .. } => Kind::Login,
            Route::Revoke | Route::Unknown => Kind::Other,
        };
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let credential = shared.iam().credential(request.headers());
        let number = shared.log().arrived(
            &kind,
            shared.started.elapsed(),
            method.as_str(),
            &path,
            credential,
        );
        shared.arrivals.send_replace(());
        Self {
            shared: Arc::clone(shared),
            kind,
            number,
            method,
            path,
            credential,
            since: Instant::now(),
            status: None,
        }
    }

    fn end(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let status = self.status.map(|status| status.as_u16());
        self.shared.log().ended(&self.kind, self.number, status);
        tracing::info!(
            method = %self.method,
            path = self.path,
            credential = ?self.credential,
            status,
            milliseconds = self.since.elapsed().as_millis(),
            "request"
        );
    }
}
