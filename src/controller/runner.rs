//! Runs effects: one task each, with a timeout and with panics caught. Each task ends by sending
//! exactly one input, and its span says on whose behalf it logs.

use super::{
    Controller,
    credentials::{self, CredentialStore},
    election::Terms,
    poll::{self, Origin},
    write::{self, Writer},
};
use crate::{
    contained::{contain, failure, log_panic},
    telemetry::{LogGate, Metrics},
};
use image_export_cloud::{CloudClient, POLL_TIMEOUT};
use image_export_core::{
    CredentialError, Deletion, Effect, FetchResult, Input, StatusWrite, WriteResult, WriteTicket,
};
use image_export_model::{Failure, FailureKind, Observation, Outcome};
use kube::Client;
use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
// Spans have the level of errors: whatever filter lets a line through shows its span too.
use tracing::{Instrument, Span, error_span};

pub(super) struct Runner {
    client: Client,
    cloud: CloudClient,
    credentials: Arc<CredentialStore>,
    writer: Writer,
    metrics: Arc<Metrics>,
    /// Bounds what polls and writes log about failures.
    gate: Arc<LogGate>,
    inputs: mpsc::UnboundedSender<Input>,
    terms: Terms,
    /// The term in which the tracker leads, until it ends.
    fence: Fence,
    /// Polls in flight.
    pub(super) polls: TaskTracker,
    /// Secret reads, writes, deletions and reads of objects in flight.
    pub(super) api_calls: TaskTracker,
}

impl Runner {
    pub(super) fn new(
        controller: Controller,
        inputs: mpsc::UnboundedSender<Input>,
        terms: Terms,
    ) -> Self {
        let gate = Arc::new(LogGate::default());
        Self {
            writer: Writer::new(
                controller.client.clone(),
                controller.metrics.clone(),
                gate.clone(),
            ),
            client: controller.client,
            cloud: controller.cloud,
            credentials: Arc::default(),
            metrics: controller.metrics,
            gate,
            inputs,
            fence: Fence::new(terms.clone(), None),
            terms,
            polls: TaskTracker::new(),
            api_calls: TaskTracker::new(),
        }
    }

    /// Ends what is in flight on behalf of the term before; effects from now on belong to this one.
    pub(super) fn begin_term(&mut self, number: Option<u64>) {
        let next = Fence::new(self.terms.clone(), number);
        std::mem::replace(&mut self.fence, next).ended.cancel();
    }

    /// Starts the task of an effect.
    pub(super) fn start(&self, effect: Effect) {
        match effect {
            Effect::Poll(request) => {
                let origin = Origin::of(&request);
                let ticket = request.ticket.clone();
                let poll = poll::poll(
                    self.cloud.clone(),
                    self.credentials.clone(),
                    self.metrics.clone(),
                    self.gate.clone(),
                    *request,
                );
                // Its future is large, and what follows would copy it several times.
                let poll = self.fence.clone().hold(Box::pin(poll));
                let into_input = move |result: Result<Result<Observation, Failure>, Failure>| {
                    let result = result.flatten();
                    let failed = |failure| Observation::of(Outcome::Failed(failure), 1);
                    Input::Polled(ticket, result.unwrap_or_else(failed))
                };
                let span = origin.span_of_steps();
                let on_panic = move || origin.log(log_panic);
                let task = self.task(span, POLL_TIMEOUT, poll, into_input, on_panic);
                self.polls.spawn(task);
            }
            Effect::ReadCredential(reference) => {
                let span = error_span!("read_secret", credential = %credentials::name(&reference));
                let read = credentials::read(
                    self.client.clone(),
                    self.credentials.clone(),
                    self.metrics.clone(),
                    self.cloud.clone(),
                    reference.clone(),
                );
                let limit = credentials::TIMEOUT;
                self.call_api(span, limit, read, move |result| {
                    let result = result.map_err(CredentialError::Unavailable).flatten();
                    Input::CredentialRead(reference, result)
                });
            }
            Effect::WriteStatus(write) => {
                let StatusWrite {
                    ticket,
                    key,
                    precondition,
                    status,
                } = *write;
                let span = error_span!("write_status", object = %key);
                let write = self.writer.clone().write(key, precondition, status);
                self.spawn_write(span, ticket, write);
            }
            Effect::Delete(deletion) => {
                let Deletion {
                    ticket,
                    key,
                    uid,
                    version,
                } = *deletion;
                let span = error_span!("delete", object = %key);
                let delete = self.writer.clone().delete(key, uid, version);
                self.spawn_write(span, ticket, delete);
            }
            Effect::Fetch(ticket, key) => {
                let span = error_span!("fetch", object = %key);
                let fetch = write::fetch(self.client.clone(), key);
                let fetch = self.fence.clone().hold(fetch);
                let limit = write::TIMEOUT;
                self.call_api(span, limit, fetch, move |result| {
                    Input::Fetched(ticket, result.flatten().unwrap_or(FetchResult::Failed))
                });
            }
        }
    }

    fn spawn_write(
        &self,
        span: Span,
        ticket: WriteTicket,
        write: impl Future<Output = WriteResult> + Send + 'static,
    ) {
        let limit = write::TIMEOUT;
        let write = self.fence.clone().hold(write);
        self.call_api(span, limit, write, move |result| {
            Input::Wrote(ticket, result.flatten().unwrap_or(WriteResult::Unknown))
        });
    }

    fn call_api<T: Send + 'static>(
        &self,
        span: Span,
        limit: Duration,
        call: impl Future<Output = T> + Send + 'static,
        into_input: impl FnOnce(Result<T, Failure>) -> Input + Send + 'static,
    ) {
        self.api_calls
            .spawn(self.task(span, limit, call, into_input, log_panic));
    }

    /// Runs `task` for at most `limit`; `into_input` makes an input of its result, or of a timeout or
    /// a panic.
    fn task<T: Send + 'static>(
        &self,
        span: Span,
        limit: Duration,
        task: impl Future<Output = T> + Send + 'static,
        into_input: impl FnOnce(Result<T, Failure>) -> Input + Send + 'static,
        log_panic: impl FnOnce() + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (inputs, metrics) = (self.inputs.clone(), self.metrics.clone());
        let task = async move {
            let on_panic = || {
                metrics.task_panicked();
                log_panic();
            };
            let result = contain(limit, task, on_panic).await;
            // Fails only after the loop has ended, when nobody waits for the input.
            let _ = inputs.send(into_input(result));
        };
        task.instrument(span)
    }

    pub(super) fn is_polling(&self) -> bool {
        !self.polls.is_empty()
    }

    /// Returns when no poll is in flight. Cancel-safe.
    pub(super) async fn polled(&self) {
        // A closed tracker still accepts tasks; only then does `wait` return.
        self.polls.close();
        self.polls.wait().await;
    }

    pub(super) fn open_breakers(&self) -> usize {
        self.cloud.open_breakers()
    }

    /// Drops the credentials that the tracker no longer needs.
    pub(super) fn purge_credentials(&self) {
        self.credentials.purge();
    }
}

/// Keeps tasks from sending anything after the term on whose behalf they run.
#[derive(Clone)]
struct Fence {
    terms: Terms,
    number: Option<u64>,
    /// Cancelled when the control loop has seen the end.
    ended: CancellationToken,
}

impl Fence {
    fn new(terms: Terms, number: Option<u64>) -> Self {
        Self {
            terms,
            number,
            ended: CancellationToken::new(),
        }
    }

    /// By the steady clock, whether or not the control loop has seen the end: the whole process may have been
    /// stopped meanwhile.
    fn is_open(&self) -> bool {
        let term = *self.terms.borrow();
        term.is_some_and(|term| Some(term.number) == self.number && term.is_running())
    }

    /// Runs `task` until the term ends, which is checked each time before the task goes on.
    async fn hold<T>(self, task: impl Future<Output = T>) -> Result<T, Failure> {
        let mut task = pin!(task);
        let mut ended = pin!(self.ended.cancelled());
        let result = poll_fn(|context| {
            if !self.is_open() || ended.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            task.as_mut().poll(context).map(Some)
        });
        let message = "this process leads no longer".to_owned();
        let ended = || failure(FailureKind::Internal, message);
        result.await.ok_or_else(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{
        election,
        fake::{self, Reply, always, object},
    };
    use image_export_core::{Config, Now, Output, Source, Tracker};
    use image_export_model::{JobAnswer, JobState};
    use serde_json::json;
    use tokio::time::Instant;

    /// A tracker in its own time, which starts with one object.
    struct Core {
        tracker: Tracker,
        now: Now,
        effects: Vec<Effect>,
    }

    impl Core {
        fn new() -> Self {
            let wall = "2024-11-06T06:50:00Z".parse().unwrap();
            let now = Now {
                mono: Duration::ZERO,
                wall,
            };
            let mut core = Self {
                tracker: Tracker::new(Config::default(), now),
                now,
                effects: Vec::new(),
            };
            core.handle(Input::Leading(true));
            core.handle(Input::ListStarted(Source(0)));
            let object = serde_json::from_value(object(&json!({}))).unwrap();
            core.handle(Input::Applied(Source(0), Box::new(object)));
            core.handle(Input::Listed(Source(0)));
            core
        }

        fn handle(&mut self, input: Input) {
            let mut output = Output::default();
            self.tracker.handle(self.now, input, &mut output);
            self.effects.append(&mut output.effects);
        }

        /// The next effect, whenever it comes.
        fn next(&mut self) -> Effect {
            while self.effects.is_empty() {
                let at = self.tracker.next_deadline().unwrap();
                let step = at.saturating_sub(self.now.mono);
                self.now.mono += step;
                self.now.wall += step;
                self.handle(Input::Tick);
            }
            self.effects.remove(0)
        }
    }

    /// One effect of each kind: a read of a Secret, a poll, a status write, a read that settles it, and a
    /// deletion.
    fn effects() -> Vec<Effect> {
        let mut core = Core::new();
        let mut effects = Vec::new();
        while effects.len() < 5 {
            let effect = core.next();
            match &effect {
                Effect::ReadCredential(reference) => {
                    core.handle(Input::CredentialRead(reference.clone(), Ok(1)));
                }
                Effect::Poll(poll) => {
                    let answer = JobAnswer {
                        state: JobState::Success,
                        job_type: None,
                        image_id: Some("an-image".into()),
                        fail_reason: None,
                        error_code: None,
                        percent: None,
                        begin_time: None,
                        end_time: None,
                    };
                    let outcome = Outcome::Answered(Box::new(answer));
                    let observation = Observation::of(outcome, 1);
                    core.handle(Input::Polled(poll.ticket.clone(), observation));
                }
                Effect::WriteStatus(write) => {
                    core.handle(Input::Wrote(write.ticket.clone(), WriteResult::Unknown));
                    let mut written = object(&serde_json::to_value(&write.status).unwrap());
                    written["metadata"]["resourceVersion"] = "8".into();
                    let fetch = core.next();
                    let Effect::Fetch(ticket, _) = &fetch else {
                        panic!("{fetch:?}");
                    };
                    let found = Box::new(serde_json::from_value(written).unwrap());
                    core.handle(Input::Fetched(ticket.clone(), FetchResult::Found(found)));
                    effects.push(effect);
                    effects.push(fetch);
                    continue;
                }
                Effect::Delete(_) => {}
                Effect::Fetch(..) => panic!("{effect:?}"),
            }
            effects.push(effect);
        }
        effects
    }

    struct Running {
        runner: Runner,
        results: mpsc::UnboundedReceiver<Input>,
        metrics: Arc<Metrics>,
    }

    fn runner(reply: Reply) -> Running {
        let controller = fake::controller(always(reply).0);
        let metrics = controller.metrics.clone();
        let (sender, results) = mpsc::unbounded_channel();
        let mut runner = Runner::new(controller, sender, election::endless());
        runner.begin_term(Some(1));
        Running {
            runner,
            results,
            metrics,
        }
    }

    /// The input of each effect with the time that it took, in seconds.
    async fn inputs(reply: Reply) -> (Vec<String>, Arc<Metrics>) {
        let mut running = runner(reply);
        let mut described = Vec::new();
        for effect in effects() {
            let started = Instant::now();
            running.runner.start(effect);
            let input = running.results.recv().await.unwrap();
            let seconds = started.elapsed().as_secs();
            described.push(format!("{} after {seconds} s", describe(&input)));
            running.runner.polls.close();
            running.runner.api_calls.close();
            tokio::join!(running.runner.polls.wait(), running.runner.api_calls.wait());
            assert!(running.results.try_recv().is_err(), "exactly one input");
        }
        (described, running.metrics)
    }

    fn describe(input: &Input) -> String {
        match input {
            Input::CredentialRead(_, Ok(_)) => "read".to_owned(),
            Input::CredentialRead(_, Err(CredentialError::Unavailable(failure))) => {
                format!("not read, {:?}: {}", failure.kind, failure.message)
            }
            Input::Polled(_, observation) => match &observation.outcome {
                Outcome::Failed(failure) => {
                    let requests = observation.requests;
                    format!("polled, {requests} requests: {}", failure.message)
                }
                other => format!("{other:?}"),
            },
            Input::Wrote(_, WriteResult::Written { version, .. }) => format!("wrote {version}"),
            Input::Wrote(_, result) => format!("{result:?}"),
            Input::Fetched(_, FetchResult::Found(object)) => {
                format!("found {:?}", object.metadata.uid)
            }
            other => format!("{other:?}"),
        }
    }

    /// The outcome of the poll in all of these tests: no credential was read.
    const UNREAD: &str = "polled, 0 requests: its credentials are being read again after 0 s";

    #[tokio::test(start_paused = true)]
    async fn each_call_that_hangs_for_15_seconds_or_panics_ends_by_one_input() {
        let timeout = "Timeout: no result within 15 s";
        let panic = "Internal: the operator hit an internal error; see its log";
        for (reply, unread, seconds, panics) in
            [(Reply::Never, timeout, 15, 0), (Reply::Panic, panic, 0, 4)]
        {
            let (mut inputs, metrics) = inputs(reply).await;
            let fetched = inputs.remove(3);
            let failed = format!(", Failed) after {seconds} s");
            let is_failure = fetched.starts_with("Fetched(") && fetched.ends_with(&failed);
            assert!(is_failure, "{fetched}");
            let unknown = format!("Unknown after {seconds} s");
            let expected = [
                &format!("not read, {unread} after {seconds} s"),
                UNREAD,
                &unknown,
                &unknown,
            ];
            assert_eq!(inputs, expected);
            let counted = format!("imageexport_task_panics_total {panics}\n");
            assert!(metrics.encode().contains(&counted));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_effect_is_answered_by_what_the_api_server_replies() {
        let (inputs, _) = inputs(Reply::json(200, &object(&json!({})))).await;
        let secret = "not read, Network: Secret ns/otc cannot be read";
        assert!(inputs[0].starts_with(secret), "{}", inputs[0]);
        assert_eq!(
            inputs[1..],
            [
                UNREAD,
                "wrote 7 after 0 s",
                "found Some(\"u-1\") after 0 s",
                "Deleted after 0 s",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn polls_are_counted_until_they_end() {
        let running = runner(Reply::Never);
        let runner = &running.runner;
        assert!(!runner.is_polling());
        runner
            .polls
            .spawn(tokio::time::sleep(Duration::from_secs(3)));
        assert!(runner.is_polling());
        let started = Instant::now();
        runner.polled().await;
        assert_eq!(started.elapsed().as_secs(), 3);
        assert!(!runner.is_polling());
    }
}
