//! The shell around the tracker: the only place that knows everything and does I/O.
//!
//! One loop feeds the tracker and starts one task per effect, each with its own time-out and with
//! panics contained; every task ends by sending exactly one input. The loop itself never awaits
//! the network.

mod credentials;
mod events;
mod poll;
mod watch;
mod write;
use crate::telemetry::{Health, LogGate, Metrics};
use credentials::CredentialStore;
use futures::FutureExt;
use image_export_cloud::{CloudClient, POLL_TIMEOUT};
use image_export_core::{
    Config, CredentialError, Effect, FetchResult, INVALID_OBJECT, Input, Now, Output, Source,
    Tracker, WriteResult, WriteTicket,
};
use image_export_model::{Failure, FailureKind, Observation, Outcome, Stage};
use jiff::Timestamp;
use kube::Client;
use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// Longest pause between two turns of the loop: what `/healthz` and the gauges live on.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Inputs handled before effects are carried out.
const BATCH: usize = 256;
/// How long polls and writes in flight may take to end on shutdown.
const DRAIN: Duration = Duration::from_secs(15);
/// How often it is looked whether they have.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// What the controller works with.
pub struct Controller {
    /// Connection to the API server, with its own time-outs and without retries of its own.
    pub client: Client,
    /// Connection to clouds.
    pub cloud: CloudClient,
    /// Namespaces to watch; none: all.
    pub namespaces: Vec<String>,
    /// The tracker's numbers.
    pub config: Config,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// What `/healthz` and `/readyz` tell.
    pub health: Arc<Health>,
}

impl Controller {
    /// Runs until `shutdown` completes, then lets what is in flight end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let sources = u16::try_from(self.namespaces.len().max(1)).unwrap_or(u16::MAX);
        let (watch_sender, mut watched) = mpsc::channel(BATCH);
        let mut watches = watch::spawn(&self, &watch_sender);
        let (sender, mut results) = mpsc::unbounded_channel();
        let mut shell = Shell {
            tracker: Tracker::new(self.config.clone(), now(Instant::now())),
            started: Instant::now(),
            output: Output::default(),
            store: Arc::new(CredentialStore::default()),
            gate: Arc::new(LogGate::default()),
            events: events::spawn(self.client.clone(), self.metrics.clone()),
            sender,
            in_flight: 0,
            draining: false,
            sources,
            controller: self,
        };
        shell.feed(Input::Leading(true));

        tokio::pin!(shutdown);
        let mut drained_by = None;
        let mut beat = Instant::now();
        loop {
            let wake = shell.next_wake(beat + HEARTBEAT, drained_by);
            tokio::select! {
                biased;
                () = &mut shutdown, if drained_by.is_none() => {
                    tracing::info!("shutting down");
                    watches.abort_all();
                    shell.draining = true;
                    drained_by = Some(Instant::now() + DRAIN);
                }
                Some(input) = results.recv() => {
                    shell.take_result(input);
                    while let Ok(input) = results.try_recv() {
                        shell.take_result(input);
                    }
                }
                Some(input) = watched.recv(), if drained_by.is_none() => {
                    shell.feed(input);
                    for _ in 1..BATCH {
                        let Ok(input) = watched.try_recv() else { break };
                        shell.feed(input);
                    }
                }
                () = tokio::time::sleep_until(wake) => shell.feed(Input::Tick),
            }
            shell.carry_out();
            shell.turned();
            if beat.elapsed() >= HEARTBEAT {
                beat = Instant::now();
                shell.report();
            }
            if let Some(by) = drained_by
                && (shell.is_drained() || Instant::now() >= by)
            {
                if !shell.is_drained() {
                    tracing::warn!(in_flight = shell.in_flight, "gave up waiting at shutdown");
                }
                return;
            }
        }
    }
}

fn now(started: Instant) -> Now {
    Now {
        mono: started.elapsed(),
        wall: Timestamp::now(),
    }
}

struct Shell {
    controller: Controller,
    tracker: Tracker,
    started: Instant,
    output: Output,
    store: Arc<CredentialStore>,
    /// Bounds what refused writes and polls in trouble log.
    gate: Arc<LogGate>,
    events: events::Queue,
    sender: mpsc::UnboundedSender<Input>,
    /// Tasks that have not sent their input yet.
    in_flight: usize,
    /// Shutting down: nothing new is asked, what was learned is still written.
    draining: bool,
    sources: u16,
}

impl Shell {
    fn feed(&mut self, input: Input) {
        self.tracker
            .handle(now(self.started), input, &mut self.output);
    }

    fn take_result(&mut self, input: Input) {
        self.in_flight -= 1;
        self.feed(input);
    }

    /// Whether all that was asked is answered, written and announced.
    fn is_drained(&self) -> bool {
        self.in_flight == 0 && self.events.is_empty() && !self.tracker.has_unwritten()
    }

    fn next_wake(&self, heartbeat: Instant, drained_by: Option<Instant>) -> Instant {
        let due = self
            .tracker
            .next_deadline()
            .map(|deadline| self.started + deadline);
        // Nobody tells when the last Event is posted.
        let soon = drained_by.map(|by| by.min(Instant::now() + DRAIN_STEP));
        [due, soon]
            .into_iter()
            .flatten()
            .fold(heartbeat, Instant::min)
    }

    /// After each turn of the loop: cheap.
    fn turned(&self) {
        let health = &self.controller.health;
        health.beat();
        if !health.is_listed() && self.tracker.has_listed(self.sources) {
            health.set_listed();
        }
    }

    /// Now and then: costs a pass over all objects.
    fn report(&self) {
        let (census, cloud) = (
            self.tracker.census(now(self.started)),
            &self.controller.cloud,
        );
        self.controller.metrics.take(&census, cloud.open_breakers());
        self.store.purge();
    }

    fn carry_out(&mut self) {
        for effect in std::mem::take(&mut self.output.effects) {
            match effect {
                Effect::Poll(_) | Effect::ReadCredential(_) if self.draining => {}
                Effect::Poll(request) => {
                    let ticket = request.ticket.clone();
                    let task = poll::poll(
                        self.controller.cloud.clone(),
                        self.store.clone(),
                        self.controller.metrics.clone(),
                        self.gate.clone(),
                        *request,
                    );
                    self.spawn(POLL_TIMEOUT, task, move |observation| {
                        Input::Polled(ticket, observation.unwrap_or_else(observation_of_fault))
                    });
                }
                Effect::ReadCredential(reference) => {
                    let task = credentials::read(
                        self.controller.client.clone(),
                        self.store.clone(),
                        self.controller.metrics.clone(),
                        self.controller.cloud.clone(),
                        reference.clone(),
                    );
                    self.spawn(credentials::TIMEOUT, task, move |result| {
                        let result = result.unwrap_or_else(|fault| {
                            Err(CredentialError::Unavailable(fault.failure()))
                        });
                        Input::CredentialRead(reference, result)
                    });
                }
                Effect::WriteStatus(write) => {
                    let ticket = write.ticket.clone();
                    let task = write::write(
                        self.controller.client.clone(),
                        self.controller.metrics.clone(),
                        self.gate.clone(),
                        *write,
                    );
                    self.spawn_write(ticket, task);
                }
                Effect::Delete(deletion) => {
                    let ticket = deletion.ticket.clone();
                    let task = write::delete(
                        self.controller.client.clone(),
                        self.controller.metrics.clone(),
                        self.gate.clone(),
                        *deletion,
                    );
                    self.spawn_write(ticket, task);
                }
                Effect::Fetch(ticket, key) => {
                    let task = write::fetch(self.controller.client.clone(), key);
                    self.spawn(write::TIMEOUT, task, move |result| {
                        Input::Fetched(ticket, result.unwrap_or(FetchResult::Failed))
                    });
                }
            }
        }
        for event in std::mem::take(&mut self.output.events) {
            // Nothing else shows it to those who look at the operator: no status, no metric.
            if event.reason == INVALID_OBJECT {
                tracing::warn!(object = %event.key, "{}", event.note);
            }
            self.events.push(event);
        }
    }

    fn spawn_write(
        &mut self,
        ticket: WriteTicket,
        task: impl Future<Output = WriteResult> + Send + 'static,
    ) {
        self.spawn(write::TIMEOUT, task, move |result| {
            Input::Wrote(ticket, result.unwrap_or(WriteResult::Unknown))
        });
    }

    /// Runs a task that ends by sending exactly one input, whatever happens to it.
    fn spawn<T: Send + 'static>(
        &mut self,
        timeout: Duration,
        task: impl Future<Output = T> + Send + 'static,
        into_input: impl FnOnce(Result<T, Fault>) -> Input + Send + 'static,
    ) {
        self.in_flight += 1;
        let sender = self.sender.clone();
        let metrics = self.controller.metrics.clone();
        tokio::spawn(async move {
            let result =
                match tokio::time::timeout(timeout, AssertUnwindSafe(task).catch_unwind()).await {
                    Ok(Ok(value)) => Ok(value),
                    Ok(Err(_)) => {
                        metrics.task_panicked();
                        Err(Fault::Panicked)
                    }
                    Err(_) => Err(Fault::TimedOut),
                };
            // Fails only where the loop has ended, and then nobody waits for it.
            let _ = sender.send(into_input(result));
        });
    }
}

/// A task that did not come to a result of its own.
#[derive(Clone, Copy, Debug)]
enum Fault {
    TimedOut,
    Panicked,
}

impl Fault {
    fn failure(self) -> Failure {
        let (kind, message) = match self {
            Self::TimedOut => (FailureKind::Timeout, "it took too long"),
            Self::Panicked => (
                FailureKind::Internal,
                "the operator met a fault of its own, see its log",
            ),
        };
        Failure {
            kind,
            stage: Stage::Login,
            message: message.into(),
        }
    }
}

fn observation_of_fault(fault: Fault) -> Observation {
    Observation {
        outcome: Outcome::Failed(fault.failure()),
        retry_after: None,
        endpoint: None,
        requests: 1,
        signed_in: false,
        request_id: None,
    }
}

/// The number of a watch.
fn source(index: usize) -> Source {
    Source(u16::try_from(index).unwrap_or(u16::MAX))
}
