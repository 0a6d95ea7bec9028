//! A simulator of the Image Management Service: the asynchronous job query on both its paths, the
//! gateway's guard before it, and as much identity service as logins need.
//!
//! Tests run it in their own process ([`Simulator`]), people as a program (`ims-simulator`). It is
//! driven by the wall clock. Each request is logged, then met by a scripted answer if there is one
//! ([`Simulator::script`]), else served from the jobs, users and keys that the simulator was given.
//! `docs/simulator.md` is its manual.

mod admin;
mod answer;
mod gate;
mod iam;
mod job;
mod line;
mod log;
mod preset;
mod quota;
mod refusal;
mod script;
mod server;
mod service;
mod signature;
mod validation;
mod visit;

pub use self::{
    admin::admin_routes,
    answer::Answer,
    gate::Gate,
    iam::{AccessKey, Agency, ApplicationCredential, Project, SIGNATURE_WINDOW, User},
    job::{End, Job, JobKey, Layout, Start},
    log::{Counters, Credential, RequestRecord},
    preset::{PRESETS, Preset},
    quota::Quota,
    script::{OutageStart, Target},
    signature::{SignatureError, verify_signature},
};
use self::{
    iam::Rules,
    line::{Lines, Takeover},
    server::Shared,
    validation::Keystone,
};
use anyhow::{Context, ensure};
use axum::Router;
use k8s_openapi::jiff::SignedDuration;
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
    /// Lifetime of tokens from logins. Default 24 h.
    pub token_lifetime: Duration,
    /// Tokens from logins are at least so long, in characters. Default 0: as they are.
    pub token_length: usize,
    /// The users that may log in. Default none.
    pub users: Vec<User>,
    /// URL of a real Keystone, ending in `/v3`, that validates tokens which the simulator has not issued.
    pub keystone: Option<String>,
    /// How many job queries of each project pass. Default any number.
    pub quota: Option<Quota>,
    /// How long an access key is locked after the sixth wrong signature in a row. Default 5 min.
    pub key_lock: Duration,
    /// How long an account is locked after the sixth wrong password in a row; `None`: not at all.
    /// Default 5 min.
    pub account_lock: Option<Duration>,
}

/// Length of a lock of an access key, as published; the same for accounts.
const LOCK: Duration = Duration::from_secs(5 * 60);

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            allow_remote: false,
            region: "eu-de".to_owned(),
            token_lifetime: Duration::from_hours(24),
            token_length: 0,
            users: Vec::new(),
            keystone: None,
            quota: None,
            key_lock: LOCK,
            account_lock: Some(LOCK),
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
        let keystone = config.keystone.as_deref().map(Keystone::new).transpose()?;
        let rules = Rules {
            token_lifetime: config.token_lifetime,
            token_length: config.token_length,
            key_lock: config.key_lock,
            account_lock: config.account_lock,
            clock_offset: SignedDuration::ZERO,
        };
        let listener = TcpListener::bind(config.listen)
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(
            reachable(address).to_string(),
            config.region,
            keystone,
            config.users,
            rules,
            config.quota,
        ));
        let router = Router::new()
            .nest("/admin", admin::router())
            .fallback(server::serve)
            .with_state(Arc::clone(&shared))
            .into_make_service_with_connect_info::<Takeover>();
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
                        _ = axum::serve(Lines(listener), router).into_future() => {}
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

    /// The URL of a job's query on the newer path, which leaves the project to the credential.
    #[must_use]
    pub fn newer_job_url(&self, key: &JobKey) -> String {
        format!("{}/v1/cloudimages/job/{}", self.url(), key.job)
    }

    /// `auth_url` for logins: the real Keystone's if there is one, else the simulator's own.
    #[must_use]
    pub fn auth_url(&self) -> String {
        match &self.shared.keystone {
            Some(keystone) => keystone.url().to_owned(),
            None => format!("{}/v3", self.url()),
        }
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

    /// Adds an application credential, or replaces the one with the same id.
    pub fn add_application_credential(&self, credential: ApplicationCredential) {
        self.shared.iam().add_credential(credential);
    }

    /// Deletes an application credential. Its tokens stay valid.
    pub fn remove_application_credential(&self, id: &str) {
        self.shared.iam().remove_credential(id);
    }

    /// Adds an agency, or replaces the one with the same name and domain.
    pub fn add_agency(&self, agency: Agency) {
        self.shared.iam().add_agency(agency);
    }

    /// Accepts requests signed with this key; replaces the one with the same access key.
    pub fn add_key(&self, key: AccessKey) {
        self.shared.iam().add_key(key);
    }

    /// Forgets a key.
    pub fn remove_key(&self, access_key: &str) {
        self.shared.iam().remove_key(access_key);
    }

    /// Disables a key, so that it seems not to exist, or enables it again.
    pub fn set_key_enabled(&self, access_key: &str, enabled: bool) {
        self.shared.iam().enable_key(access_key, enabled);
    }

    /// Ends the locks of all access keys and accounts.
    pub fn unlock(&self) {
        self.shared.iam().unlock();
    }

    /// Sets the clock that dates of signatures are compared with so much ahead of the real one.
    pub fn set_clock_offset(&self, offset: SignedDuration) {
        self.shared.iam().rules.clock_offset = offset;
    }

    /// Lets so many job queries of each project pass per period; `None` ends that. Periods begin anew.
    pub fn set_quota(&self, quota: impl Into<Option<Quota>>) {
        *self.shared.throttle() = quota::Throttle::new(quota.into());
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

    /// Sets the lifetime of tokens that are issued from now on.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.shared.iam().rules.token_lifetime = lifetime;
    }

    /// Makes tokens that are issued from now on at least so long, in characters.
    pub fn set_token_length(&self, characters: usize) {
        self.shared.iam().rules.token_length = characters;
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
        self.shared.counters()
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
            // `self` owns the sender, so the wait cannot fail.
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
