//! Leader election: runs the core's elector against one Lease, and says until when this process may act.

use crate::telemetry::{Health, LogGate};
use futures::FutureExt;
use image_export_core::lease::{Elector, Lease as Seen, LeaseTimes, Reply, Request};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PostParams},
};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

/// Name of the Lease; an installation that follows only objects with some labels has one of its own.
pub const LEASE: &str = "image-export-operator";
/// Bound on one request. Two fit into the time in which a leader has to renew.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Bound on giving up the Lease at the end.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(900);
/// A Lease that was renewed more recently than this has a leader, if the clocks do not differ by more.
const RECENT: Duration = Duration::from_secs(60);

/// Which Lease, and where.
#[derive(Clone, Debug)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A time of leadership.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    /// Counts the terms of this process.
    pub(super) number: u64,
    /// When it ends, unless it is renewed; `None`: never.
    pub(super) until: Option<Instant>,
}

impl Term {
    /// Whether the process may still act.
    pub(super) fn is_running(self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// The present term, if any.
pub(super) type Terms = watch::Receiver<Option<Term>>;

/// The term of a process that leads without an election.
pub(super) fn endless() -> Terms {
    let term = Term {
        number: 1,
        until: None,
    };
    watch::channel(Some(term)).1
}

/// Returns when the election has changed the term. Cancel-safe.
pub(super) async fn changed(terms: &mut Terms) {
    if terms.changed().await.is_err() {
        // Without an election it never changes.
        std::future::pending::<()>().await;
    }
}

/// The candidacy of this process.
pub(super) struct Election {
    release: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Election {
    /// Starts to stand for leadership. Call it within a runtime.
    pub(super) fn start(client: Client, lease: LeaseName, health: Arc<Health>) -> (Self, Terms) {
        let identity = identity();
        tracing::info!(
            lease = %format!("{}/{}", lease.namespace, lease.name),
            %identity,
            "candidate for leadership"
        );
        let (release, released) = oneshot::channel();
        let (sender, terms) = watch::channel(None);
        let candidate = Candidate {
            api: Api::namespaced(client, &lease.namespace),
            elector: Elector::new(identity.as_str().into(), LeaseTimes::default()),
            identity,
            times: LeaseTimes::default(),
            lease,
            latest: None,
            started: Instant::now(),
            terms: sender,
            number: 0,
            rival: None,
            health,
            gate: LogGate::default(),
        };
        let health = candidate.health.clone();
        let run = async move {
            let run = AssertUnwindSafe(candidate.run(released));
            if run.catch_unwind().await.is_err() {
                let problem = "internal error: the election has ended; restart the Pod";
                tracing::error!("{problem}");
                health.set_election_problem(Some(problem.to_owned()));
            }
        };
        let task = tokio::spawn(run);
        (Self { release, task }, terms)
    }

    /// Gives up the Lease, so that another takes it at once.
    pub(super) async fn release(self) {
        // Fails where the task has panicked: the Lease then ends by itself.
        let _ = self.release.send(());
        if timeout(RELEASE_TIMEOUT, self.task).await.is_err() {
            tracing::warn!("the Lease could not be given up; another takes over when it ends");
        }
    }
}

struct Candidate {
    api: Api<Lease>,
    elector: Elector,
    identity: String,
    times: LeaseTimes,
    lease: LeaseName,
    /// As read or written last.
    latest: Option<Lease>,
    started: Instant,
    terms: watch::Sender<Option<Term>>,
    /// Terms that have begun.
    number: u64,
    /// Whom the log named last.
    rival: Option<Arc<str>>,
    health: Arc<Health>,
    gate: LogGate,
}

impl Candidate {
    async fn run(mut self, mut released: oneshot::Receiver<()>) {
        loop {
            let at = self.started.elapsed();
            if self.elector.end_term(at) {
                self.publish("the Lease could not be renewed in time");
            }
            match self.elector.next(at) {
                Request::Wait(next) => {
                    let term_end = self.elector.term().unwrap_or(Duration::MAX);
                    let wake = self.started + next.min(term_end);
                    tokio::select! {
                        () = sleep_until(wake) => {}
                        _ = &mut released => break,
                    }
                }
                request => {
                    let reply = timeout(REQUEST_TIMEOUT, self.send(request)).await;
                    let reply = reply.unwrap_or_else(|_| {
                        self.warn("leader election: the API server does not answer");
                        Reply::Failed
                    });
                    let is_reply = reply != Reply::Failed;
                    let at_reply = self.started.elapsed();
                    self.elector.apply(at, at_reply, reply);
                    // Where a write follows, that may be what is rejected.
                    if is_reply && matches!(self.elector.next(at_reply), Request::Wait(_)) {
                        self.health.set_election_problem(None);
                    }
                    self.publish("another process took the Lease");
                }
            }
        }
        if self.elector.release(self.started.elapsed()) {
            self.terms.send_replace(None);
            self.give_up().await;
        }
    }

    /// Shows the present term to the control loop.
    fn publish(&mut self, why_lost: &str) {
        let lease = format!("{}/{}", self.lease.namespace, self.lease.name);
        let until = self.elector.term().map(|end| self.started + end);
        let led = self.terms.borrow().is_some();
        match (led, until) {
            (false, Some(_)) => {
                self.number += 1;
                self.rival = None;
                tracing::info!(%lease, "this process leads");
            }
            (true, None) => tracing::warn!(%lease, "this process leads no longer: {why_lost}"),
            _ => {}
        }
        let rival = self.elector.rival();
        if until.is_none() && rival.is_some() && rival != self.rival.as_ref() {
            tracing::info!(%lease, leader = rival.map(|rival| &**rival), "standing by");
            self.rival = rival.cloned();
        }
        let number = self.number;
        let term = until.map(|until| Term {
            number,
            until: Some(until),
        });
        if led || term.is_some() {
            self.terms.send_replace(term);
        }
    }

    async fn send(&mut self, request: Request) -> Reply {
        let result = match request {
            Request::Wait(_) => return Reply::Failed,
            Request::Read => self.api.get(&self.lease.name).await,
            Request::Create => {
                let lease = self.held(true);
                self.api.create(&PostParams::default(), &lease).await
            }
            Request::Hold { takes_over } => {
                let lease = self.held(takes_over);
                let name = &self.lease.name;
                self.api.replace(name, &PostParams::default(), &lease).await
            }
        };
        match result {
            Ok(lease) => {
                let seen = seen(&lease);
                self.latest = Some(lease);
                match request {
                    Request::Read => Reply::Found(seen),
                    _ => Reply::Held(seen),
                }
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Reply::Conflict,
            Err(kube::Error::Api(status)) if status.code == 404 && request != Request::Create => {
                self.latest = None;
                Reply::Missing
            }
            Err(error) => {
                self.report(&error);
                Reply::Failed
            }
        }
    }

    /// The latest Lease, held by this process from now on.
    fn held(&self, takes_over: bool) -> Lease {
        let mut lease = self.latest.clone().unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.lease.name.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        if takes_over {
            let transitions = spec.lease_transitions.unwrap_or_default();
            spec.lease_transitions = Some(transitions.saturating_add(1));
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(self.times.duration.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }

    /// As client-go does: without a holder, and with the shortest duration.
    async fn give_up(&mut self) {
        let Some(mut lease) = self.latest.take() else {
            return;
        };
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..lease.spec.unwrap_or_default()
        });
        let params = PostParams::default();
        match self.api.replace(&self.lease.name, &params, &lease).await {
            Ok(_) => tracing::info!("gave up the Lease"),
            Err(error) => tracing::warn!(%error, "the Lease could not be given up"),
        }
    }

    fn report(&mut self, error: &kube::Error) {
        let LeaseName { namespace, name } = &self.lease;
        let (needs_action, problem) = match error {
            kube::Error::Api(status) => match status.code {
                403 => (
                    true,
                    "the operator may not read and write it: apply the Role in deploy/".to_owned(),
                ),
                404 => (
                    true,
                    "there is no such namespace: see --leader-elect-namespace".to_owned(),
                ),
                code => (false, format!("the API server answered {code}")),
            },
            // Somebody has written a time into it that is too late to be read, for example.
            kube::Error::SerdeError(error) => {
                (true, format!("it is not readable, delete it: {error}"))
            }
            error => (false, format!("the API server does not answer: {error}")),
        };
        let problem = format!("leader election by Lease {namespace}/{name}: {problem}");
        if needs_action && self.elector.term().is_none() {
            self.health.set_election_problem(Some(problem.clone()));
        }
        self.warn(&problem);
    }

    fn warn(&self, problem: &str) {
        if self.gate.opens("election") {
            tracing::warn!("{problem}");
        }
    }
}

/// What the elector compares of a Lease.
fn seen(lease: &Lease) -> Seen {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
    Seen {
        holder: holder.map(Arc::from),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        renewed: spec.renew_time.map(|time| time.0.to_string().into()),
    }
}

/// Unique to the process, and readable: the Pod's name, else that of the machine, and a random number.
fn identity() -> String {
    let name = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    let name = name.or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"));
    let name = name.unwrap_or_default();
    // Each `RandomState` has keys of its own.
    let random = RandomState::new().build_hasher().finish();
    format!("{}_{random:016x}", name.trim())
}

/// Warns where another process leads that this one, without leader election, does not see.
pub(super) async fn warn_of_leader(client: Client, own: LeaseName) {
    let named = ListParams::default().fields(&format!("metadata.name={}", own.name));
    // Whoever starts a second operator by hand may mostly list Leases, and seldom knows the namespace.
    let everywhere = Api::<Lease>::all(client.clone()).list(&named).await;
    let leases = if let Ok(list) = everywhere {
        list.items
    } else {
        let api = Api::<Lease>::namespaced(client, &own.namespace);
        let lease = api.get_opt(&own.name).await.ok().flatten();
        lease.into_iter().collect()
    };
    for lease in leases {
        let namespace = lease.metadata.namespace.clone().unwrap_or_default();
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let is_recent = renewed
            .is_some_and(|time| Timestamp::now().duration_since(time.0).unsigned_abs() < RECENT);
        if let Some(leader) = seen(&lease).holder.filter(|_| is_recent) {
            tracing::warn!(
                %leader,
                "another operator leads, by Lease {namespace}/{}: both poll every job and write every \
                 status. To join it, start this one with --leader-elect \
                 --leader-elect-namespace={namespace} --leader-elect-lease={}",
                own.name,
                own.name
            );
        }
    }
}

#[cfg(test)]
mod tests;
