//! One attack: an operator of its own, the neighbours, and a hostile tenant.

use crate::{
    harness::{Launch, OPERATOR_NAMESPACE, Operator, PATIENCE, client, cluster, condition},
    neighbours::{Neighbours, New, SHARED},
    tenant::{LABEL, Tenant, put_secret, secret},
    window::Window,
};
use futures::StreamExt;
use image_export_api::ImageExportJob;
use k8s_openapi::{
    api::{core::v1::Namespace, events::v1::Event},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use testbed::{
    ims::{End, Job, JobKey},
    process,
};
use tokio::{
    sync::MutexGuard,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

/// A second of the operator is so long: the neighbours' period of 5 s is half a second. Time-outs of connections and
/// calls are not scaled, which makes those who hold them worse neighbours than they are.
pub const SCALE: f64 = 0.1;
/// Length of a window: eight periods of the neighbours.
const WINDOW: Duration = Duration::from_secs(4);
/// What a new object has not got so long after the window counts as lost.
const LOST: Duration = Duration::from_secs(30);
/// What a busy machine adds to the start of a process, and to a list of much more.
const SLOW_START: Duration = Duration::from_secs(15);

/// The memory limit in `deploy/operator/deployment.yaml`.
const MEMORY: u64 = 128 * 1024 * 1024;
/// Name of the window that begins when a killed operator has started again.
const AFTER_RESTART: &str = "after a restart";

/// One trial at a time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// When each object of a neighbour, by `namespace/name`, showed its first status.
type FirstStatuses = Arc<Mutex<HashMap<String, Instant>>>;

/// An operator, the neighbours and a hostile tenant.
pub struct Trial {
    // In the order of dropping: the turn ends last.
    attackers: JoinSet<()>,
    pub operator: Operator,
    pub tenant: Tenant,
    pub neighbours: &'static Neighbours,
    pub admin: Client,
    name: String,
    launch: (f64, Vec<String>),
    first_statuses: FirstStatuses,
    /// How long a start takes until all neighbours are polled.
    start: Duration,
    harm: Vec<String>,
    _turn: MutexGuard<'static, ()>,
}

impl Trial {
    /// With an operator that has no further arguments.
    pub async fn begin(name: &str) -> Self {
        Self::begin_with(name, SCALE, &[]).await
    }

    /// With another length of the operator's second, or further arguments.
    pub async fn begin_with(name: &str, scale: f64, arguments: &[&str]) -> Self {
        let turn = TURN.lock().await;
        let neighbours = Neighbours::meet().await;
        let admin = client(cluster()).await;
        let tenant = Tenant::new(name).await;
        neighbours
            .cloud
            .add_token(tenant.token.as_str(), Some(&tenant.project));
        let url = neighbours.cloud.url();
        let clouds = crate::tenant::with_token(&url, &tenant.token, "");
        tenant.put_clouds("otc", clouds).await;

        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        let launch = (scale, arguments.collect());
        let started = Instant::now();
        let operator = launch_operator(name, &launch);
        let polled = timeout(PATIENCE, neighbours.polled_again()).await;
        polled.expect("the operator polls all neighbours");
        Self {
            attackers: JoinSet::new(),
            operator,
            tenant,
            neighbours,
            first_statuses: watch_first_statuses(&admin),
            admin,
            name: name.to_owned(),
            launch,
            start: started.elapsed(),
            harm: Vec::new(),
            _turn: turn,
        }
    }

    /// Repeats an act in so many tasks until the trial ends. It gets a number that grows; returns how often it ended.
    pub fn keep<F, Act>(&mut self, tasks: usize, act: F) -> Arc<AtomicU64>
    where
        F: Fn(u64) -> Act + Clone + Send + Sync + 'static,
        Act: Future<Output = ()> + Send,
    {
        let (begun, ended) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        for _ in 0..tasks {
            let (begun, ended, act) = (begun.clone(), ended.clone(), act.clone());
            self.attackers.spawn(async move {
                loop {
                    act(begun.fetch_add(1, Ordering::Relaxed)).await;
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        ended
    }

    /// Measures what the neighbours get in a window of time.
    pub async fn window(&self, name: &'static str) -> Window {
        let begin = Instant::now();
        let control = tokio::spawn(slowness(self.admin.clone(), begin + WINDOW));
        let mut new = self.neighbours.create_new(&self.admin).await;
        sleep_until((begin + WINDOW / 2).into()).await;
        new.extend(self.neighbours.create_new(&self.admin).await);
        sleep_until((begin + WINDOW).into()).await;
        let (polls, longest_gap) = self.polls(begin);
        Window {
            name,
            machine: control.await.expect("no panic"),
            polls,
            longest_gap,
            first_status: self.slowest_first_status(&new).await,
            event: self.slowest_event(&new).await,
            peak_memory: self.peak_memory(),
        }
    }

    /// Restarts the operator and measures.
    pub async fn window_after_restart(&mut self) -> Window {
        self.restart().await;
        self.window(AFTER_RESTART).await
    }

    /// Kills the operator (SIGKILL), unless that was done, and starts it again. Returns once all neighbours are polled.
    pub async fn restart(&mut self) {
        self.operator.kill();
        let started = Instant::now();
        self.operator = launch_operator(&self.name, &self.launch);
        let limit = self.start.mul_f64(1.2) + SLOW_START;
        let polled = self.neighbours.polled_again();
        if timeout(limit + LOST, polled).await.is_err() || started.elapsed() > limit {
            self.harm.push(format!(
                "{:.1?} after the restart not all neighbours were polled; it was {:.1?}",
                started.elapsed(),
                self.start
            ));
        }
    }

    /// Ends the trial. Fails if a neighbour got less than in the quiet window, three times in a row while the attack
    /// goes on, if the operator had too much memory, or if its probe fails.
    pub async fn end(self, quiet: &Window, attacked: &[&Window]) {
        println!("{quiet}");
        let mut trial = self;
        for window in attacked {
            println!("{window}");
            let peak = window.peak_memory;
            trial.expect(peak <= MEMORY, || format!("{} MiB of memory", peak >> 20));
            // A busy machine does harm in one window, an attack in each.
            let mut harm = window.harm(quiet);
            for _ in 0..2 {
                if harm.is_empty() {
                    break;
                }
                println!("{}", harm.join("\n"));
                let again = if window.name == AFTER_RESTART {
                    trial.window_after_restart().await
                } else {
                    trial.window(window.name).await
                };
                println!("{again}");
                harm = again.harm(quiet);
            }
            trial.harm.extend(harm);
        }
        trial.end_without_windows().await;
    }

    /// The same where nothing was measured.
    pub async fn end_without_windows(mut self) {
        self.expect(self.is_healthy().await, || "/healthz fails".to_owned());
        let peak = self.peak_memory();
        self.expect(peak <= MEMORY, || format!("{} MiB of memory", peak >> 20));
        self.attackers.shutdown().await;
        assert!(
            self.harm.is_empty(),
            "{}:\n{}\nthe operator's log\n{}",
            self.name,
            self.harm.join("\n"),
            self.operator.last_words()
        );
    }

    /// Whether the probe is answered as soon as the kubelet expects it: one of three probes, 10 s apart.
    async fn is_healthy(&self) -> bool {
        let url = format!("{}/healthz", self.operator.url().await);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(30) {
            let answer = timeout(Duration::from_secs(5), reqwest::get(&url)).await;
            if answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status() == 200)) {
                return true;
            }
            sleep(Duration::from_millis(200)).await;
        }
        false
    }

    /// Waits until each object of the tenant gives this reason with a message that contains this text.
    pub async fn tenant_is_told(&mut self, reason: &str, text: &str) {
        let jobs: Api<ImageExportJob> = Api::namespaced(self.admin.clone(), &self.tenant.namespace);
        let started = Instant::now();
        loop {
            let objects = jobs.list(&ListParams::default()).await.expect("objects");
            let other = objects.into_iter().find_map(|object| {
                let status = object.status.unwrap_or_default();
                let ready = condition(&status, "Ready").cloned();
                let fits = ready
                    .as_ref()
                    .is_some_and(|ready| ready.reason == reason && ready.message.contains(text));
                (!fits).then(|| ready.map(|ready| (ready.reason, ready.message)))
            });
            let Some(other) = other else { return };
            if started.elapsed() > LOST {
                let problem =
                    format!("an object of the tenant is not {reason} ({text}): {other:?}");
                return self.harm.push(problem);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Notes a problem, which fails the trial at its end, unless this holds.
    pub fn expect(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.harm.push(problem());
        }
    }

    /// Creates an object of the first neighbour, for this trial alone, that follows a running job with a Secret of its
    /// own.
    pub async fn follow_for_a_neighbour(&self, name: &str, clouds: String) -> JobKey {
        let neighbour = &self.neighbours.all[0];
        let secrets = Api::namespaced(self.admin.clone(), &neighbour.namespace);
        put_secret(&secrets, name, &[("clouds.yaml", clouds)]).await;
        let job = Job::new(&neighbour.project, name).ends(End::Never);
        let key = job.key();
        self.neighbours.cloud.put_job(job);
        let mut spec = secret(name);
        spec["projectID"] = neighbour.project.as_str().into();
        let object = self.tenant.object(name, spec);
        neighbour.create_object(&self.admin, &object).await;
        key
    }

    /// Expects that object to be polled until its job is running, within this time.
    pub async fn expect_running(&mut self, key: &JobKey, within: Duration) {
        let namespace = &self.neighbours.all[0].namespace;
        let jobs: Api<ImageExportJob> = Api::namespaced(self.admin.clone(), namespace);
        let started = Instant::now();
        loop {
            let object = jobs.get(&key.job).await.expect("it is there");
            let status = object.status.unwrap_or_default();
            let ready = condition(&status, "Ready");
            if ready.is_some_and(|ready| ready.reason == "JobRunning") {
                return;
            }
            if started.elapsed() > within {
                let ready = ready.map(|ready| (&ready.reason, &ready.message));
                let problem = format!("{} of a neighbour after {within:.1?}: {ready:?}", key.job);
                return self.harm.push(problem);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Polls of the running jobs by neighbour, and the longest time in which one of the jobs was not polled.
    fn polls(&self, begin: Instant) -> (Vec<usize>, Duration) {
        let from = (begin - self.neighbours.cloud_started).as_secs_f64();
        let to = from + WINDOW.as_secs_f64();
        let mut polls: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for request in self.neighbours.cloud.requests() {
            // What is not answered with 200 is an attacker's, without the right to the job.
            if (from..to).contains(&request.at_seconds) && request.status == Some(200) {
                let times = polls.entry(request.path).or_default();
                times.push(request.at_seconds);
            }
        }
        let mut longest_gap: f64 = 0.0;
        let by_neighbour = self.neighbours.all.iter().map(|neighbour| {
            let mut count = 0;
            for key in neighbour.steady() {
                let times = polls.remove(&key.to_string()).unwrap_or_default();
                count += times.len();
                let times: Vec<f64> = [from].into_iter().chain(times).chain([to]).collect();
                let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
                longest_gap = gaps.fold(longest_gap, f64::max);
            }
            count
        });
        let by_neighbour = by_neighbour.collect();
        (by_neighbour, Duration::from_secs_f64(longest_gap))
    }

    async fn slowest_first_status(&self, new: &[New]) -> Option<Duration> {
        let deadline = Instant::now() + LOST;
        loop {
            let waits: Option<Vec<Duration>> = {
                let shown = self.first_statuses.lock().expect("no panic under the lock");
                let wait = |new: &New| {
                    let shown = shown.get(&format!("{}/{}", new.namespace, new.name))?;
                    Some(shown.saturating_duration_since(new.created))
                };
                new.iter().map(wait).collect()
            };
            if waits.is_some() || Instant::now() > deadline {
                return waits?.into_iter().max();
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn slowest_event(&self, new: &[New]) -> Option<Duration> {
        let deadline = Instant::now() + LOST;
        loop {
            let mut posted: HashMap<String, Timestamp> = HashMap::new();
            for neighbour in &self.neighbours.all {
                let events: Api<Event> = Api::namespaced(self.admin.clone(), &neighbour.namespace);
                let events = events.list(&ListParams::default()).await.expect("events");
                let ends = events
                    .into_iter()
                    .filter(|event| event.reason.as_deref() == Some("JobSucceeded"));
                posted.extend(ends.filter_map(|event| {
                    let name = event.regarding?.name?;
                    Some((
                        format!("{}/{name}", neighbour.namespace),
                        event.event_time?.0,
                    ))
                }));
            }
            let wait = |new: &New| {
                let posted = posted.get(&format!("{}/{}", new.namespace, new.name))?;
                Some(Duration::try_from(posted.duration_since(new.created_at)).unwrap_or_default())
            };
            let waits: Option<Vec<Duration>> = new.iter().map(wait).collect();
            if waits.is_some() || Instant::now() > deadline {
                return waits?.into_iter().max();
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The most memory that the process has had, in bytes.
    fn peak_memory(&self) -> u64 {
        process::memory(self.operator.pid(), "VmHWM").expect("the operator runs")
    }
}

/// An operator for the objects of the neighbours and of this trial.
fn launch_operator(name: &str, (scale, arguments): &(f64, Vec<String>)) -> Operator {
    let launch = Launch {
        log_level: "info",
        scale: *scale,
        ..Launch::default()
    };
    let selector = format!("{LABEL} in ({SHARED}, {name})");
    let mut all = vec!["--watch-label-selector", selector.as_str()];
    all.extend(arguments.iter().map(String::as_str));
    Operator::start_as(cluster(), launch, &all)
}

/// The longest that this process waited for its turn, and for a read from the API server, until `end`.
async fn slowness(client: Client, end: Instant) -> Duration {
    const PAUSE: Duration = Duration::from_millis(20);
    let namespaces: Api<Namespace> = Api::all(client);
    let mut longest = Duration::ZERO;
    while Instant::now() < end {
        let started = Instant::now();
        sleep(PAUSE).await;
        // A failure takes its time as well.
        let _ = namespaces.get_opt(OPERATOR_NAMESPACE).await;
        longest = longest.max(started.elapsed().saturating_sub(PAUSE));
    }
    longest
}

fn watch_first_statuses(client: &Client) -> FirstStatuses {
    let jobs: Api<ImageExportJob> = Api::all(client.clone());
    let config = watcher::Config::default().labels(&format!("{LABEL}={SHARED}"));
    let shown = FirstStatuses::default();
    let into = shown.clone();
    tokio::spawn(async move {
        let mut objects = watcher(jobs, config)
            .default_backoff()
            .touched_objects()
            .boxed();
        while let Some(object) = objects.next().await {
            // An error is an interruption of the watch, which begins anew.
            let Ok(object) = object else { continue };
            let has_status = object
                .status
                .is_some_and(|status| !status.conditions.is_empty());
            if let (true, Some(namespace), Some(name)) =
                (has_status, object.metadata.namespace, object.metadata.name)
            {
                let mut shown = into.lock().expect("no panic under the lock");
                shown
                    .entry(format!("{namespace}/{name}"))
                    .or_insert_with(Instant::now);
            }
        }
    });
    shown
}

/// Waits until a count has reached a number.
pub async fn until(count: &AtomicU64, least: u64) {
    let started = Instant::now();
    while count.load(Ordering::Relaxed) < least {
        assert!(started.elapsed() < PATIENCE, "timed out: {least} acts");
        sleep(Duration::from_millis(20)).await;
    }
}
