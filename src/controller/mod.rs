//! The operator in a cluster: the control loop, and all I/O around it.
//!
//! [`Controller::run`] is the loop. It feeds the tracker and never awaits the network: the `runner`
//! starts one task per effect, and each task ends by sending exactly one input. `watch` sends the
//! inputs from the API server, `events` posts Kubernetes Events.

mod body;
mod credentials;
mod election;
mod events;
#[cfg(test)]
mod fake;
mod guarded;
mod poll;
mod runner;
mod status_request;
mod transitions;
mod watch;
mod write;

use crate::telemetry::{Health, LogGate, Metrics};
use election::{Election, Terms};
pub use election::{LEASE, LeaseName};
use image_export_cloud::CloudClient;
use image_export_core::{Config, Input, Now, Output, Tracker};
use jiff::Timestamp;
use kube::Client;
use runner::Runner;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use transitions::Transitions;

/// Longest pause between two turns of the loop; gauges are updated as often, and `/healthz` needs
/// the turns.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Inputs of one channel that are handled before their effects start.
const BATCH: usize = 256;
/// How long statuses may take to be written on shutdown.
const DRAIN: Duration = Duration::from_secs(14);
/// How long polls in flight may take to end on shutdown. The next start repeats those that do not.
const LAST_POLLS: Duration = Duration::from_secs(1);

/// What the controller works with.
pub struct Controller {
    /// Connection to the API server, with its own timeouts and without retries of its own.
    pub client: Client,
    /// Connection to clouds.
    pub cloud: CloudClient,
    /// Namespaces to watch; empty means all.
    pub namespaces: Vec<String>,
    /// Labels of the objects to watch, in the API server's syntax; `None` means all.
    pub label_selector: Option<String>,
    /// The Lease whose holder leads.
    pub lease: LeaseName,
    /// Whether this process acts only while it holds the Lease. Without, it always acts.
    pub leader_elect: bool,
    /// The tracker's numbers.
    pub config: Config,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// The state that `/healthz` and `/readyz` report.
    pub health: Arc<Health>,
}

impl Controller {
    /// Runs until `stop` is cancelled and no status is left to be written.
    ///
    /// The process ends in these steps:
    /// 1. SIGTERM or SIGINT cancels `stop` (`cli::signals`).
    /// 2. The watches end, and the tracker sends no further poll, read of a Secret or deletion.
    /// 3. [`ControlLoop::drain`] gives polls in flight a second to end, and writes the statuses that follow
    ///    from them.
    /// 4. After that, or after 14 s, Events that are still queued are dropped, the Lease is given up, this
    ///    function returns, and the process exits with 0. The next leader repeats whatever is still pending,
    ///    except Events.
    pub async fn run(self, stop: CancellationToken) {
        // The sender stays here, so that the channel outlives a watch.
        let (watch_sender, mut watched) = mpsc::channel(BATCH);
        watch::spawn(&self, &watch_sender, &stop);
        let (election, terms) = self.stand();
        let mut control = ControlLoop::new(self, terms);
        let mut inputs = Vec::new();
        let mut watch_inputs = Vec::new();
        control.turn(&mut inputs);
        loop {
            let wake = control.next_wake();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = control.results.recv_many(&mut inputs, BATCH) => {}
                _ = watched.recv_many(&mut watch_inputs, BATCH) => {}
                () = election::changed(&mut control.terms) => {}
                () = sleep_until(wake) => {}
            }
            inputs.append(&mut watch_inputs);
            control.turn(&mut inputs);
        }
        tracing::info!("shutting down");
        let drained = timeout(DRAIN, control.drain()).await;
        control.transitions.sum_up_now();
        control.report_pending(drained.is_ok());
        control.events.end().await;
        if let Some(election) = election {
            election.release().await;
        }
    }

    /// Stands for leadership, or leads without an election.
    fn stand(&self) -> (Option<Election>, Terms) {
        let (client, lease) = (self.client.clone(), self.lease.clone());
        if self.leader_elect {
            let (election, terms) = Election::start(client, lease, self.health.clone());
            return (Some(election), terms);
        }
        tokio::spawn(election::warn_of_leader(client, lease));
        (None, election::endless())
    }
}

struct ControlLoop {
    tracker: Tracker,
    started: Instant,
    /// When gauges were last updated.
    reported: Instant,
    /// Number of watches.
    sources: u16,
    /// The present term of this process.
    terms: Terms,
    /// Number of the term in which the tracker leads.
    leading: Option<u64>,
    /// Name of the Lease, where there is an election.
    lease: Option<String>,
    runner: Runner,
    /// Inputs from the runner's tasks.
    results: mpsc::UnboundedReceiver<Input>,
    events: events::Queue,
    transitions: Transitions,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    gate: LogGate,
}

impl ControlLoop {
    fn new(controller: Controller, terms: Terms) -> Self {
        let started = Instant::now();
        let (sender, results) = mpsc::unbounded_channel();
        let metrics = controller.metrics.clone();
        metrics.set_max_polls(controller.config.polls_in_flight);
        let lease = controller
            .leader_elect
            .then(|| controller.lease.name.clone());
        Self {
            tracker: Tracker::new(controller.config.clone(), now(started)),
            started,
            reported: started,
            sources: u16::try_from(controller.namespaces.len().max(1)).unwrap_or(u16::MAX),
            events: events::Queue::start(controller.client.clone(), controller.metrics.clone()),
            transitions: Transitions::new(metrics.clone()),
            metrics,
            health: controller.health.clone(),
            gate: LogGate::default(),
            runner: Runner::new(controller, sender, terms.clone()),
            terms,
            leading: None,
            lease,
            results,
        }
    }

    /// One turn of the loop: the tracker handles all `inputs`, or a tick where there are none, and its
    /// effects start.
    fn turn(&mut self, inputs: &mut Vec<Input>) {
        self.apply_term(inputs);
        if inputs.is_empty() {
            inputs.push(Input::Tick);
        }
        let mut output = Output::default();
        for input in inputs.drain(..) {
            self.tracker.handle(now(self.started), input, &mut output);
        }
        for effect in output.effects {
            self.runner.start(effect);
        }
        for transition in &output.transitions {
            self.transitions.apply(transition);
        }
        for event in output.events {
            self.transitions.apply_event(&event);
            self.events.push(event);
        }
        self.health.beat();
        if !self.health.is_listed() && self.tracker.has_listed(self.sources) {
            self.health.set_listed();
        }
        if self.reported.elapsed() >= HEARTBEAT {
            self.report();
        }
    }

    /// The end of a term comes before anything else, its begin after what is already known.
    fn apply_term(&mut self, inputs: &mut Vec<Input>) {
        let term = *self.terms.borrow_and_update();
        let term = term
            .filter(|term| term.is_running())
            .map(|term| term.number);
        if let Some(lease) = &self.lease {
            self.metrics.set_leader(lease, term.is_some());
        }
        if term == self.leading {
            return;
        }
        if self.leading.is_some() {
            inputs.insert(0, Input::Leading(false));
        }
        if term.is_some() {
            inputs.push(Input::Leading(true));
        }
        self.leading = term;
        self.runner.begin_term(term);
    }

    /// Updates gauges, drops unused credentials, and logs that the API server rejects every call.
    fn report(&mut self) {
        self.reported = Instant::now();
        if let Some(problem) = self.health.rejection()
            && self.gate.opens("api_rejected")
        {
            tracing::warn!("{problem}");
        }
        let census = self.tracker.census(now(self.started));
        self.metrics.update(&census, self.runner.open_breakers());
        self.runner.purge_credentials();
        self.transitions.sum_up();
    }

    fn next_wake(&self) -> Instant {
        let heartbeat = self.reported + HEARTBEAT;
        let deadline = self.tracker.next_deadline().map(|at| self.started + at);
        // Where the term has ended already, the next turn has applied it.
        let term = *self.terms.borrow();
        let term_end = term
            .filter(|_| self.leading.is_some())
            .and_then(|term| term.until);
        [deadline, term_end]
            .into_iter()
            .flatten()
            .fold(heartbeat, Instant::min)
    }

    /// Returns when no status is unwritten, and no poll is in flight or [`LAST_POLLS`] have passed.
    async fn drain(&mut self) {
        let last_polls = Instant::now() + LAST_POLLS;
        let mut inputs = vec![Input::Stopping];
        loop {
            self.turn(&mut inputs);
            // A poll sends its input before it ends: once all have ended, all inputs are in the channel.
            let polling = self.runner.is_polling() && Instant::now() < last_polls;
            if !polling && self.results.is_empty() && !self.tracker.has_unwritten() {
                break;
            }
            let wake = self.next_wake();
            tokio::select! {
                biased;
                _ = self.results.recv_many(&mut inputs, BATCH) => {}
                () = self.runner.polled(), if polling => {}
                () = sleep_until(last_polls), if polling => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    fn report_pending(&self, drained: bool) {
        let (polls, api_calls) = (self.runner.polls.len(), self.runner.api_calls.len());
        if !drained {
            tracing::warn!(
                polls,
                api_calls,
                "gave up waiting after {} s: the next start writes the statuses that are not written",
                DRAIN.as_secs()
            );
        } else if polls + api_calls > 0 {
            tracing::info!(polls, api_calls, "the next start repeats what is in flight");
        }
    }
}

fn now(started: Instant) -> Now {
    Now {
        mono: started.elapsed(),
        wall: Timestamp::now(),
    }
}

#[cfg(test)]
mod tests;
