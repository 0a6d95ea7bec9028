//! A simulator of the Image Management Service: the asynchronous job query, and as much identity
//! service as a password login needs.
//!
//! Tests run it in their own process ([`Simulator`]), people as a program (`ims-simulator`). It is
//! driven by the wall clock. Each request is logged, then met by a scripted answer if there is one
//! ([`Simulator::script`]), else served from the jobs and users that the simulator was given.
//!
//! Not simulated yet: AK/SK signatures, the newer path of the job query, and validation of tokens by
//! a real Keystone.

mod admin;
mod answer;
mod iam;
mod job;
mod log;
mod preset;
mod script;
mod server;

use self::server::Shared;
pub use self::{
    answer::{Answer, Gate},
    iam::{Project, User},
    job::{End, Job, JobKey, Layout, Start},
    log::{Counters, Credential, RequestRecord},
    preset::{PRESETS, Preset},
    script::{OutageStart, Target},
};
use anyhow::{Context, ensure};
use axum::Router;
use secrecy::SecretString;
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;

/// How to start a [`Simulator`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to serve at; port 0 takes a free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// Whether `listen` may be an address that other machines reach. The admin API has no password.
    pub allow_remote: bool,
    /// Region of the catalog's endpoint. Default `eu-de`.
    pub region: String,
    /// How long tokens from logins live. Default 24 h.
    pub token_lifetime: Duration,
    /// Who may log in. Default nobody.
    pub users: Vec<User>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            allow_remote: false,
            region: "eu-de".to_owned(),
            token_lifetime: Duration::from_hours(24),
            users: Vec::new(),
        }
    }
}

/// A running simulator, on a thread of its own. Stops when dropped.
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Simulator {
    /// Starts to serve. Connections are accepted as soon as this returns.
    ///
    /// Fails if the address is taken, or not loopback without `allow_remote`.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        ensure!(
            config.listen.ip().is_loopback() || config.allow_remote,
            "{} is reachable from other machines and the admin API has no password: \
             allow that explicitly, or listen on 127.0.0.1",
            config.listen
        );
        let listener = TcpListener::bind(config.listen)
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(
            reachable(address).to_string(),
            config.region,
            config.users,
            config.token_lifetime,
        ));
        let router = Router::new()
            .nest("/admin", admin::router())
            .fallback(server::serve)
            .with_state(Arc::clone(&shared));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("ims-simulator".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let listener = tokio::net::TcpListener::from_std(listener)
                        .expect("a fresh listener joins a fresh runtime");
                    tokio::select! {
                        _ = axum::serve(listener, router).into_future() => {}
                        _ = stopped => {}
                    }
                });
                // Dropping the runtime here ends hanging answers too.
            })?;
        Ok(Self {
            shared,
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// `http://127.0.0.1:PORT`, without a final slash: the endpoint for the job query. The identity
    /// service is at `/v3` below it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", reachable(self.address))
    }

    /// The URL of a job's query.
    #[must_use]
    pub fn job_url(&self, key: &JobKey) -> String {
        format!("{}{key}", self.url())
    }

    /// Adds a job, or starts it anew.
    pub fn put_job(&self, job: Job) {
        self.shared.put_job(job);
    }

    /// Forgets a job, as the cloud does after a while.
    pub fn remove_job(&self, key: &JobKey) {
        self.shared.remove_job(key);
    }

    /// Queues answers: each meets one request, in this order, before anything else is consulted.
    pub fn script(&self, on: impl Into<Target>, answers: impl IntoIterator<Item = Answer>) {
        self.shared.scripts().enqueue(on.into(), answers);
    }

    /// Answers like this from now on, once the queue is empty and no outage lasts.
    pub fn script_forever(&self, on: impl Into<Target>, answer: Answer) {
        self.shared.scripts().forever(on.into(), answer);
    }

    /// Answers like this for so long, once the queue is empty.
    pub fn outage(
        &self,
        on: impl Into<Target>,
        answer: Answer,
        lasts: Duration,
        start: OutageStart,
    ) {
        self.shared
            .scripts()
            .outage(on.into(), answer, lasts, start);
    }

    /// Takes back what was scripted for `on`.
    pub fn clear_script(&self, on: impl Into<Target>) {
        self.shared.scripts().clear(&on.into());
    }

    /// Adds a user, or replaces the one with the same id (a changed password, other projects).
    pub fn put_user(&self, user: User) {
        self.shared.iam().add_user(user);
    }

    /// Accepts this token for the project, or for all projects, until it is revoked.
    pub fn add_token(&self, token: impl Into<SecretString>, project: Option<&str>) {
        self.shared.iam().add_fixed_token(&token.into(), project);
    }

    /// Revokes a token, fixed or issued.
    pub fn revoke_token(&self, token: &str) {
        self.shared.iam().revoke(token);
    }

    /// Revokes all tokens that logins gave out.
    pub fn revoke_issued_tokens(&self) {
        self.shared.iam().revoke_issued();
    }

    /// Sets how long tokens live that are issued from now on.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.shared.iam().set_lifetime(lifetime);
    }

    /// Queries of this job that arrived so far.
    #[must_use]
    pub fn polls(&self, key: &JobKey) -> u64 {
        self.shared.log().polls_of(key)
    }

    /// Logins that arrived so far, granted or not.
    #[must_use]
    pub fn logins(&self) -> u64 {
        self.shared.log().counters.logins
    }

    /// All sums.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.log().counters.clone()
    }

    /// The latest 100,000 requests, oldest first. The admin API is not among them.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.shared.log().requests()
    }

    /// Returns once `count` queries of this job have arrived.
    pub async fn polled(&self, key: &JobKey, count: u64) {
        let mut arrivals = self.shared.arrivals();
        while self.polls(key) < count {
            // The sender lives in `self`, so the wait cannot fail.
            let _ = arrivals.changed().await;
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has already been printed.
            let _ = thread.join();
        }
    }
}

/// Where a client on this machine reaches a listener that may listen everywhere.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
    } else {
        address
    }
}
