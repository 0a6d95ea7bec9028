//! The HTTP side: routes, and the order in which scripts, rules and services answer.
//!
//! First the log, then the scripts, then the services of [`super::service`].

use super::{
    Counters, Job, JobKey, Quota, User,
    answer::RequestFacts,
    gate::Gate,
    iam::{Iam, Rules},
    job::wall_clock,
    line::Takeover,
    log::Log,
    quota::Throttle,
    script::Scripts,
    service,
    validation::Keystone,
    visit::Visit,
};
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method},
    response::Response,
};
use k8s_openapi::jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

struct Life {
    job: Job,
    /// `None` until the first query of a job that starts with it.
    began: Option<(Instant, Timestamp)>,
}

/// The state of the simulator. Its locks are never held together, nor across an await.
pub(super) struct Shared {
    started: Instant,
    /// Host and port, for catalogs of clients that send no Host header.
    pub(super) authority: String,
    pub(super) region: String,
    pub(super) keystone: Option<Keystone>,
    jobs: Mutex<HashMap<JobKey, Life>>,
    scripts: Mutex<Scripts>,
    gates: Mutex<BTreeMap<String, Gate>>,
    iam: Mutex<Iam>,
    throttle: Mutex<Throttle>,
    log: Mutex<Log>,
    arrivals: watch::Sender<()>,
}

impl Shared {
    pub(super) fn new(
        authority: String,
        region: String,
        keystone: Option<Keystone>,
        users: Vec<User>,
        rules: Rules,
        quota: Option<Quota>,
    ) -> Self {
        Self {
            started: Instant::now(),
            authority,
            region,
            keystone,
            jobs: Mutex::default(),
            scripts: Mutex::default(),
            gates: Mutex::default(),
            iam: Mutex::new(Iam::new(users, rules)),
            throttle: Mutex::new(Throttle::new(quota)),
            log: Mutex::default(),
            arrivals: watch::Sender::default(),
        }
    }

    pub(super) fn scripts(&self) -> MutexGuard<'_, Scripts> {
        lock(&self.scripts)
    }

    pub(super) fn gates(&self) -> MutexGuard<'_, BTreeMap<String, Gate>> {
        lock(&self.gates)
    }

    pub(super) fn iam(&self) -> MutexGuard<'_, Iam> {
        lock(&self.iam)
    }

    pub(super) fn throttle(&self) -> MutexGuard<'_, Throttle> {
        lock(&self.throttle)
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    pub(super) fn counters(&self) -> Counters {
        let sums = self.iam().sums();
        Counters {
            signature_failures: sums.signature_failures,
            key_locks: sums.key_locks,
            password_failures: sums.password_failures,
            account_locks: sums.account_locks,
            ..self.log().counters.clone()
        }
    }

    /// Time since the start.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn announce_arrival(&self) {
        self.arrivals.send_replace(());
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

    /// A project that has a job of this id.
    fn project_of(&self, job: &str) -> Option<String> {
        let jobs = lock(&self.jobs);
        let key = jobs.keys().find(|key| key.job == job)?;
        Some(key.project.clone())
    }

    pub(super) fn job_body(&self, key: &JobKey) -> Option<String> {
        let mut jobs = lock(&self.jobs);
        let entry = jobs.get_mut(key)?;
        let (since, began) = *entry
            .began
            .get_or_insert_with(|| (Instant::now(), wall_clock()));
        Some(entry.job.body(began, since.elapsed()))
    }
}

/// A test that panicked with a lock held has failed anyway; the others go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) enum Route {
    Poll {
        /// On the newer path, which names no project, the one that it is apparently about.
        key: JobKey,
        newer: bool,
    },
    Login {
        catalog: bool,
    },
    Revoke,
    Unknown,
}

fn route(shared: &Shared, request: &Request) -> Route {
    let path = request.uri().path();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match (request.method(), segments.as_slice()) {
        (&Method::GET, ["v1", "cloudimages", "job", job]) => {
            let project = shared.iam().apparent_project(request.headers());
            let project = project.or_else(|| shared.project_of(job));
            Route::Poll {
                key: JobKey::new(project.unwrap_or_default(), *job),
                newer: true,
            }
        }
        (&Method::GET, ["v1", project, "jobs", job]) => Route::Poll {
            key: JobKey::new(*project, *job),
            newer: false,
        },
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
pub(super) async fn serve(
    ConnectInfo(takeover): ConnectInfo<Takeover>,
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Response {
    let route = route(&shared, &request);
    let mut visit = Visit::begin(&shared, &route, &request);
    let facts = RequestFacts {
        job_id: match &route {
            Route::Poll { key, .. } => key.job.clone(),
            _ => String::new(),
        },
        token: text(request.headers(), "x-auth-token").to_owned(),
        takeover: Some(takeover),
    };
    let mut response = match scripted(&shared, &route, &facts).await {
        Some(response) => response,
        None => service::answer(&shared, &route, request, &facts, &mut visit).await,
    };
    let id = format!("{:032x}", visit.number);
    response
        .headers_mut()
        .entry("X-Request-Id")
        .or_insert(HeaderValue::try_from(id).expect("hexadecimal digits are a header value"));
    visit.end(response.status());
    response
}

async fn scripted(shared: &Shared, route: &Route, facts: &RequestFacts) -> Option<Response> {
    let now = Instant::now();
    let answer = match route {
        Route::Poll { key, .. } => shared.scripts().next_for_job(key, now),
        Route::Login { .. } => shared.scripts().next_for_login(now),
        Route::Revoke | Route::Unknown => None,
    };
    answer?.play(facts).await
}

/// The value of a header; empty where it is absent or no text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
