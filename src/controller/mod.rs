//! The operator in a cluster: the control loop, and all I/O around it.
//!
//! [`Controller::run`] is the loop. It feeds the tracker and never awaits the network: the `runner`
//! starts one task per effect, and each task ends by sending exactly one input. `watch` sends the
//! inputs from the API server, `events` posts Kubernetes Events.

mod credentials;
mod election;
mod events;
#[cfg(test)]
mod fake;
mod guarded;
mod patch;
mod poll;
mod runner;
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

    /// Updates gauges, drops unused credentials, and logs that the API server rejects every call. Costs a
    /// pass over all objects.
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
mod tests {
    use super::{fake::*, *};
    use crate::telemetry::Captured;
    use serde_json::{Value, json};
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    };
    use tokio::time::sleep;

    /// Answers a list with these objects, a watch not at all, and anything else as `answer` says.
    fn server(
        objects: Value,
        mut answer: impl FnMut(&Sent) -> Reply + Send + 'static,
    ) -> (Controller, Arc<Mutex<Vec<Sent>>>) {
        let (client, sent) = api_server(move |sent| {
            if sent.line.contains("watch=true") {
                Reply::Never
            } else if sent.line.contains("/imageexportjobs?") {
                let list = json!({ "metadata": { "resourceVersion": "9" }, "items": objects });
                Reply::json(200, &list)
            } else {
                answer(sent)
            }
        });
        (controller(client), sent)
    }

    /// The object, whose Secret does not exist; a write, which is answered by this.
    fn one_write(reply: Reply) -> (Controller, Arc<Mutex<Vec<Sent>>>) {
        server(json!([object(&json!({}))]), move |sent| {
            if sent.line.starts_with("PATCH ") {
                reply.clone()
            } else if sent.line.contains("/secrets/") {
                Reply::failure(404, &json!(null))
            } else {
                Reply::Never
            }
        })
    }

    fn lines(sent: &Mutex<Vec<Sent>>, beginning: &str) -> usize {
        let sent = sent.lock().unwrap();
        sent.iter()
            .filter(|sent| sent.line.starts_with(beginning))
            .count()
    }

    /// Stops the controller after `time`; returns how long it took to stop.
    async fn stop_after(time: Duration, controller: Controller) -> Duration {
        let stop = CancellationToken::new();
        let running = tokio::spawn(controller.run(stop.clone()));
        sleep(time).await;
        stop.cancel();
        let stopped = Instant::now();
        running.await.unwrap();
        stopped.elapsed()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn with_nothing_to_write_it_stops_at_once() {
        let (nothing_answers, _) = always(Reply::Never);
        let (no_objects, _) = server(json!([]), |_| Reply::Never);
        let (secret_unread, _) = server(json!([object(&json!({}))]), |_| Reply::Never);
        for controller in [controller(nothing_answers), no_objects, secret_unread] {
            assert_eq!(stop_after(SECOND, controller).await, Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_in_flight_is_waited_for_and_its_event_is_dropped() {
        let written = Reply::json(200, &object(&json!({})));
        let late = Reply::After(7 * SECOND, Box::new(written));
        let (controller, sent) = one_write(late);
        let metrics = controller.metrics.clone();
        let took = stop_after(5 * SECOND, controller).await;
        assert!((SECOND..=7 * SECOND).contains(&took), "{took:?}");
        assert_eq!(lines(&sent, "PATCH "), 1);
        assert_eq!(lines(&sent, "GET /api/v1/namespaces/ns/secrets/otc"), 1);
        let counted = "imageexport_events_total{result=\"dropped\"} 1\n";
        assert!(metrics.encode().contains(counted), "{}", metrics.encode());
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_that_cannot_be_written_is_given_up_within_15_seconds() {
        for reply in [Reply::Never, Reply::Lost, Reply::failure(500, &json!(null))] {
            let (controller, sent) = one_write(reply);
            let took = stop_after(12 * SECOND, controller).await;
            assert_eq!(took, 14 * SECOND);
            assert!(lines(&sent, "PATCH ") >= 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_is_not_posted_does_not_keep_it_from_stopping() {
        let (controller, sent) = one_write(Reply::json(200, &object(&json!({}))));
        assert_eq!(stop_after(12 * SECOND, controller).await, Duration::ZERO);
        assert!(lines(&sent, "POST /apis/events.k8s.io/") >= 1);
    }

    #[tokio::test(start_paused = true)]
    async fn polls_in_flight_have_a_second_to_end() {
        for (poll, expected) in [(SECOND / 2, SECOND / 2), (SECOND * 60, SECOND)] {
            let (client, _) = always(Reply::Never);
            let mut control = ControlLoop::new(controller(client), election::endless());
            control.turn(&mut Vec::new());
            control.runner.polls.spawn(sleep(poll));
            let started = Instant::now();
            control.drain().await;
            // Timers have a resolution of a millisecond.
            assert_eq!(started.elapsed().as_millis(), expected.as_millis());
        }
    }

    /// The messages of this module with these counts of what is pending.
    fn messages(log: &Captured) -> Vec<String> {
        let lines = log.of("");
        let lines = lines.iter().map(|line| {
            let message = line["message"].as_str().unwrap();
            format!(
                "{} {message} {} {}",
                line["level"].as_str().unwrap(),
                line["polls"],
                line["api_calls"]
            )
        });
        lines.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_pending_at_the_end_is_logged() {
        let (log, _guard) = Captured::start();
        let (controller, _) = server(json!([object(&json!({}))]), |_| Reply::Never);
        stop_after(SECOND, controller).await;
        let stopping = "INFO shutting down null null".to_owned();
        let repeated = "INFO the next start repeats what is in flight 0 1".to_owned();
        assert_eq!(messages(&log), [stopping.clone(), repeated]);

        let (log, _guard) = Captured::start();
        let (controller, _) = one_write(Reply::Never);
        stop_after(12 * SECOND, controller).await;
        let given_up = "WARN gave up waiting after 14 s: the next start writes the statuses that are not \
                        written 0 1";
        assert_eq!(messages(&log), [stopping.clone(), given_up.to_owned()]);

        let (log, _guard) = Captured::start();
        let (controller, _) = server(json!([]), |_| Reply::Never);
        stop_after(SECOND, controller).await;
        assert_eq!(messages(&log), [stopping]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_does_not_decode_is_logged_and_an_event_of_it_posted() {
        let (log, _guard) = Captured::start();
        let mut object = object(&json!({}));
        object["spec"] = json!({});
        let (controller, sent) = server(json!([object]), |_| Reply::Never);
        stop_after(SECOND, controller).await;
        let logged = log.of("::transitions");
        assert_eq!(logged.len(), 1, "{logged:?}");
        let note =
            "This object is not followed, because it cannot be read: missing field `projectID`.";
        assert_eq!(
            (&logged[0]["level"], &logged[0]["message"]),
            (&"WARN".into(), &note.into())
        );
        assert_eq!(lines(&sent, "POST /apis/events.k8s.io/"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn each_namespace_has_a_watch_and_all_of_them_have_to_be_listed() {
        let list = "/apis/imageexport.dev/v1alpha1/namespaces/two/imageexportjobs?&limit";
        for (answers, ready) in [(true, true), (false, false)] {
            let (client, sent) = api_server(move |sent| {
                if sent.line.contains("watch=true") || sent.line.contains(list) && !answers {
                    return Reply::Never;
                }
                let list = json!({ "metadata": { "resourceVersion": "9" }, "items": [] });
                Reply::json(200, &list)
            });
            let mut controller = controller(client);
            controller.namespaces = vec!["one".to_owned(), "two".to_owned()];
            let health = controller.health.clone();
            stop_after(SECOND, controller).await;
            assert_eq!(health.ready().is_ok(), ready);
            assert_eq!(lines(&sent, &format!("GET {list}")), 1);
            let one = "GET /apis/imageexport.dev/v1alpha1/namespaces/one/imageexportjobs?&";
            // A list and a watch.
            assert_eq!(lines(&sent, one), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_it_runs_it_is_live_and_ready_and_its_gauges_are_up_to_date() {
        let (controller, _) = one_write(Reply::json(200, &object(&json!({}))));
        let (health, metrics) = (controller.health.clone(), controller.metrics.clone());
        assert!(health.ready().is_err());
        let stop = CancellationToken::new();
        let running = tokio::spawn(controller.run(stop.clone()));
        sleep(2 * SECOND).await;
        assert_eq!(health.ready(), Ok(()));
        // Through 10 minutes without any input.
        for _ in 0..600 {
            sleep(SECOND).await;
            assert_eq!(health.live(), Ok(()));
        }
        let text = metrics.encode();
        for line in [
            "imageexport_objects{reason=\"CredentialsNotFound\"} 1\n",
            "imageexport_status_writes_total{result=\"written\"} 1\n",
            "imageexport_status_writes_in_flight 0\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        stop.cancel();
        running.await.unwrap();
    }

    /// Rights are taken away while a watch is open, for ten minutes.
    #[tokio::test(start_paused = true)]
    async fn without_rights_it_is_not_ready_says_so_once_a_minute_and_recovers_by_itself() {
        let (log, _guard) = Captured::start();
        let may = Arc::new(AtomicBool::new(true));
        let allowed = may.clone();
        let controller = observed(move |sent| {
            if !allowed.load(Ordering::Relaxed) {
                Reply::failure(403, &json!(null))
            } else if sent.line.contains("watch=true") {
                Reply::After(50 * SECOND, Box::new(Reply::Text(200, String::new())))
            } else if sent.line.contains("/imageexportjobs?") {
                Reply::json(
                    200,
                    &json!({ "metadata": { "resourceVersion": "9" }, "items": [] }),
                )
            } else {
                Reply::failure(404, &json!(null))
            }
        });
        let health = controller.health.clone();
        let stop = CancellationToken::new();
        let running = tokio::spawn(controller.run(stop.clone()));
        let warnings = || {
            let lines = log.of("").into_iter();
            let messages = lines.map(|line| line["message"].as_str().unwrap().to_owned());
            messages
                .filter(|line| line.contains("rejected every call"))
                .collect::<Vec<_>>()
        };
        sleep(2 * SECOND).await;
        assert_eq!((health.ready(), warnings().len()), (Ok(()), 0));

        may.store(false, Ordering::Relaxed);
        sleep(60 * SECOND).await;
        assert_eq!(
            health.ready(),
            Ok(()),
            "the watch was open for most of the time"
        );
        sleep(540 * SECOND).await;
        let problem = health.ready().unwrap_err();
        assert!(
            problem.ends_with("s (403): apply the RBAC in deploy/"),
            "{problem}"
        );
        // From about the third minute on.
        let lines = warnings();
        assert!((7..=9).contains(&lines.len()), "{lines:?}");

        may.store(true, Ordering::Relaxed);
        // The pause before the next watch, and its time here until it is answered.
        sleep(100 * SECOND).await;
        let said = warnings().len();
        sleep(200 * SECOND).await;
        assert_eq!((health.ready(), warnings().len()), (Ok(()), said));
        stop.cancel();
        running.await.unwrap();
    }

    /// The API server answers every call with an error, for six minutes.
    #[tokio::test(start_paused = true)]
    async fn it_is_not_ready_once_no_watch_was_accepted_for_5_minutes_and_recovers_by_itself() {
        let fails = Arc::new(AtomicBool::new(false));
        let failing = fails.clone();
        let controller = observed(move |sent| {
            if failing.load(Ordering::Relaxed) {
                Reply::failure(503, &json!(null))
            } else if sent.line.contains("watch=true") {
                Reply::After(50 * SECOND, Box::new(Reply::Text(200, String::new())))
            } else {
                let list = json!({ "metadata": { "resourceVersion": "9" }, "items": [] });
                Reply::json(200, &list)
            }
        });
        let health = controller.health.clone();
        let stop = CancellationToken::new();
        let running = tokio::spawn(controller.run(stop.clone()));
        // While no object changes, only the watches that are accepted anew show that all is well.
        for _ in 0..10 {
            sleep(60 * SECOND).await;
            assert_eq!(health.ready(), Ok(()));
        }
        fails.store(true, Ordering::Relaxed);
        sleep(240 * SECOND).await;
        assert_eq!(health.ready(), Ok(()));
        sleep(120 * SECOND).await;
        let problem = health.ready().unwrap_err();
        let names =
            "all namespaces: the API server answered 503: changes of objects have not been seen";
        assert!(problem.starts_with(names), "{problem}");
        assert_eq!(health.live(), Ok(()), "a restart does not help");
        fails.store(false, Ordering::Relaxed);
        sleep(70 * SECOND).await;
        assert_eq!(health.ready(), Ok(()));
        stop.cancel();
        running.await.unwrap();
    }
}
