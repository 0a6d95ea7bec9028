//! Two replicas with `--leader-elect`, and installations that share a cluster by labels.

use crate::{
    harness::{
        Launch, OPERATOR_NAMESPACE, Operator, PATIENCE, PROJECT, Team, cluster, eventually, key,
        running,
    },
    outage::own_cluster,
};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};
use testbed::{
    ims::{End, Job},
    kubernetes::Cluster,
};
use tokio::time::{sleep, timeout};

/// The arguments of an operator for one namespace, with its Lease there.
pub fn elected_in(namespace: &str) -> [&str; 7] {
    [
        "--namespace",
        namespace,
        "--poll-period",
        "10",
        "--leader-elect",
        "--leader-elect-namespace",
        namespace,
    ]
}

const NAME: &str = "image-export-operator";
const ACCOUNT: &str = "system:serviceaccount:image-export-operator:image-export-operator";

/// A namespace with two operators, one of which leads by a Lease in that namespace.
struct Pair {
    team: Team,
    leases: Api<Lease>,
    leader: Operator,
    standby: Operator,
}

impl Pair {
    /// `late`: options of the process that stands by.
    async fn start(name: &str, early: Launch<'_>, late: Launch<'_>) -> Self {
        let team = Team::without_operator(name).await;
        allow_lease(cluster(), &team.namespace);
        let start = |launch| candidate(cluster(), &team.namespace, launch);
        let leader = start(early);
        until_log(&leader, "this process leads").await;
        let standby = start(late);
        until_log(&standby, "standing by").await;
        let leases = Api::namespaced(team.client.clone(), &team.namespace);
        team.follow(running("job")).await;
        team.until_reason("job", "JobRunning").await;
        // It has listed, and read the Secret, before anything happens to the leader.
        let usable = r#"imageexport_credentials{state="usable"}"#;
        standby.until_metric(usable, 1.0).await;
        Self {
            team,
            leases,
            leader,
            standby,
        }
    }

    async fn lease(&self) -> Lease {
        self.leases.get(NAME).await.expect("the Lease")
    }

    async fn holder(&self) -> String {
        let spec = self.lease().await.spec.expect("a spec");
        spec.holder_identity.unwrap_or_default()
    }

    /// Waits until the job is polled again; prints for how long it was not.
    async fn until_polled(&self, what: &str) {
        let polls = self.team.polls("job");
        self.team.sim.polled(&key("job"), polls + 2).await;
        let times: Vec<_> = self
            .team
            .sim
            .requests()
            .iter()
            .map(|r| r.at_seconds)
            .collect();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        let gap = gaps.fold(0.0, f64::max);
        println!("{what}: no poll for {gap:.1} s");
    }

    /// Ends the job; its end is reported once, and it is not polled afterwards.
    async fn ends_once(&self) {
        self.team.sim.put_job(Job::new(PROJECT, "job"));
        self.team.until_reason("job", "JobSucceeded").await;
        let polls = self.team.polls("job");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(self.team.polls("job"), polls);
        assert_eq!(self.team.course("job"), ["JobRunning", "JobSucceeded"]);
    }
}

fn candidate(cluster: &Cluster, namespace: &str, launch: Launch<'_>) -> Operator {
    Operator::start_as(cluster, launch, &elected_in(namespace))
}

/// The rules of the shipped Role, in another namespace.
fn allow_lease(cluster: &Cluster, namespace: &str) {
    for (role, verbs, resource) in [
        ("create-lease", "create", "leases"),
        ("hold-lease", "get,update", "leases"),
    ] {
        let verb = format!("--verb={verbs}");
        let resource = format!("--resource={resource}.coordination.k8s.io");
        let user = format!("--user={ACCOUNT}");
        let role_of = format!("--role={role}");
        for arguments in [
            ["create", "role", role, "-n", namespace, &verb, &resource],
            [
                "create",
                "rolebinding",
                role,
                "-n",
                namespace,
                &role_of,
                &user,
            ],
        ] {
            cluster.kubectl(arguments).success().expect("created");
        }
    }
}

async fn until_log(operator: &Operator, text: &str) {
    let found = || operator.log().contains(text).then_some(());
    eventually(&format!("{text:?} in the log"), found).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_gives_the_lease_up_and_the_standby_goes_on() {
    let pair = Pair::start("sigterm", Launch::default(), Launch::default()).await;
    let before = pair.lease().await.spec.expect("a spec");
    assert_eq!(pair.leader.terminate(), 0);
    assert!(pair.leader.log().contains("gave up the Lease"));
    until_log(&pair.standby, "this process leads").await;
    pair.until_polled("SIGTERM").await;
    let after = pair.lease().await.spec.expect("a spec");
    assert_eq!(after.lease_duration_seconds, Some(15));
    assert_eq!(
        after.lease_transitions,
        before.lease_transitions.map(|n| n + 1)
    );
    assert_ne!(after.holder_identity, before.holder_identity);
    pair.ends_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_crashes_is_replaced_and_no_finished_job_is_polled_again() {
    let pair = Pair::start("sigkill", Launch::default(), Launch::default()).await;
    pair.team.follow(Job::new(PROJECT, "done")).await;
    pair.team.until_reason("done", "JobSucceeded").await;
    // An Event that still waits when the process is killed is lost.
    let posted = async {
        while pair.team.events("done").await.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, posted)
        .await
        .expect("the Event is posted");
    let polls = pair.team.polls("done");
    pair.leader.kill();
    until_log(&pair.standby, "this process leads").await;
    pair.until_polled("SIGKILL").await;
    pair.ends_once().await;
    assert_eq!(pair.team.polls("done"), polls);
    assert_eq!(pair.team.events("done").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_sends_nothing_more_when_it_goes_on() {
    let pair = Pair::start("sigstop", Launch::default(), Launch::default()).await;
    pair.leader.pause();
    until_log(&pair.standby, "this process leads").await;
    pair.until_polled("SIGSTOP").await;
    pair.leader.resume();
    until_log(&pair.leader, "this process leads no longer").await;
    let before = sent(&pair.leader).await;
    until_log(&pair.leader, "standing by").await;
    pair.ends_once().await;
    assert_eq!(sent(&pair.leader).await, before);
    let repairs = pair
        .standby
        .metric("imageexport_status_repairs_total")
        .await;
    assert!(repairs < 1.0, "{repairs} repairs");
}

/// Polls and status writes of a process.
async fn sent(operator: &Operator) -> Vec<String> {
    let (_, metrics) = operator.get("/metrics").await;
    let counts = |line: &&str| {
        line.starts_with("imageexport_poll_requests_total ")
            || line.starts_with("imageexport_status_writes_total{")
    };
    metrics.lines().filter(counts).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_deleted_or_edited_is_put_right() {
    let pair = Pair::start("edited", Launch::default(), Launch::default()).await;
    let holder = pair.holder().await;
    pair.leases
        .delete(NAME, &DeleteParams::default())
        .await
        .expect("deleted");
    let started = Instant::now();
    let held = loop {
        if let Some(lease) = pair.leases.get_opt(NAME).await.expect("an answer") {
            break lease.spec.and_then(|spec| spec.holder_identity);
        }
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(
        held.as_deref(),
        Some(&*holder),
        "created again by its holder"
    );

    let edit = json!({ "spec": { "holderIdentity": "somebody", "leaseDurationSeconds": 3 } });
    let edit = Patch::Merge(edit);
    let params = PatchParams::default();
    pair.leases
        .patch(NAME, &params, &edit)
        .await
        .expect("edited");
    until_log(&pair.leader, "this process leads no longer").await;
    pair.until_polled("Lease edited").await;
    assert_ne!(pair.holder().await, "somebody");
    pair.ends_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_an_hour_off_changes_nothing() {
    let shim = clock_shim();
    for offset in ["3600", "-3600"] {
        let environment = [
            ("LD_PRELOAD", shim.to_str().expect("UTF-8")),
            ("CLOCK_OFFSET", offset),
        ];
        let off = Launch {
            environment: &environment,
            ..Launch::default()
        };
        let pair = Pair::start("clock", off, Launch::default()).await;
        let renewed = pair.lease().await.spec.and_then(|spec| spec.renew_time);
        let age = Timestamp::now().duration_since(renewed.expect("a time").0);
        assert!(age.abs().as_secs() > 3000, "the clock is off: {age:?}");
        let holder = pair.holder().await;
        // Longer than the Lease lasts.
        tokio::time::sleep(Duration::from_secs(18)).await;
        assert_eq!(pair.holder().await, holder);
        pair.leader.kill();
        until_log(&pair.standby, "this process leads").await;
        pair.until_polled("SIGKILL, clock an hour off").await;
    }
}

/// A library that shifts the time of day of the program that loads it by `CLOCK_OFFSET` seconds.
fn clock_shim() -> &'static Path {
    const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *time) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, time);
    const char *offset = getenv("CLOCK_OFFSET");
    if (id == CLOCK_REALTIME && offset) time->tv_sec += atol(offset);
    return result;
}
"#;
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = folder.join(format!("clock-{}.c", std::process::id()));
        let library = source.with_extension("so");
        std::fs::write(&source, SOURCE).expect("written");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .arg("-ldl");
        let status = compiler
            .status()
            .expect("a C compiler: install gcc or clang");
        assert!(status.success());
        library
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_nobody_leads_and_afterwards_one_does() {
    let (_turn, cluster) = own_cluster().await;
    let team = Team::without_operator_on(cluster, "lease-outage").await;
    let arguments = ["--poll-period", "10", "--leader-elect"];
    let namespace = [("POD_NAMESPACE", OPERATOR_NAMESPACE)];
    let launch = Launch {
        environment: &namespace,
        ..Launch::default()
    };
    // The namespace of the Lease by the environment, as in a Pod, and by the kubeconfig.
    let operators =
        [launch, Launch::default()].map(|launch| Operator::start_as(cluster, launch, &arguments));
    team.follow(running("job")).await;
    team.until_reason("job", "JobRunning").await;
    let lost = |operator: &Operator| operator.log().contains("this process leads no longer");

    cluster.stop_api_server().expect("stopped");
    eventually("the end of the term", || {
        operators.iter().any(lost).then_some(())
    })
    .await;
    let polls = team.polls("job");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        team.polls("job"),
        polls,
        "without a leader nothing is polled"
    );
    cluster.start_api_server().expect("started");
    team.sim.polled(&key("job"), polls + 3).await;
    team.sim.put_job(Job::new(PROJECT, "job"));
    team.until_reason("job", "JobSucceeded").await;
    assert_eq!(team.course("job"), ["JobRunning", "JobSucceeded"]);

    // Without the flag a process acts at once, and says what that means to the person who started it.
    let bare = Operator::start_with(cluster.admin_kubeconfig(), &[]);
    until_log(&bare, "another operator leads").await;
    let join = "--leader-elect --leader-elect-namespace=image-export-operator";
    until_log(&bare, join).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn installations_with_other_labels_follow_other_objects_under_leases_of_their_own() {
    let team = Team::without_operator("shards").await;
    allow_lease(cluster(), &team.namespace);
    let shard = |selector: &str, further: &[&str]| {
        let selected = ["--watch-label-selector", selector];
        let arguments = [&elected_in(&team.namespace)[..], &selected, further].concat();
        Operator::start(cluster(), &arguments)
    };
    let one = shard("shard=one", &[]);
    let named = ["--leader-elect-lease", "the-rest"];
    let rest = shard("shard notin (one),!ignored", &named);
    for job in ["a", "b", "c"] {
        team.sim.put_job(Job::new(PROJECT, job).ends(End::Never));
    }
    let label = |labels: Value| json!({ "metadata": { "labels": labels } });
    team.create("a").await;
    team.patch("a", label(json!({ "shard": "one" }))).await;
    team.create("b").await;
    team.create("c").await;
    team.patch("c", label(json!({ "ignored": "" }))).await;
    team.until_reason("a", "JobRunning").await;
    team.until_reason("b", "JobRunning").await;
    let followed = r#"imageexport_objects{reason="JobRunning"}"#;
    one.until_metric(followed, 1.0).await;
    rest.until_metric(followed, 1.0).await;
    let leases: Api<Lease> = Api::namespaced(team.client.clone(), &team.namespace);
    let leases = leases
        .list(&kube::api::ListParams::default())
        .await
        .expect("listed");
    let mut names: Vec<_> = leases
        .items
        .into_iter()
        .filter_map(|l| l.metadata.name)
        .collect();
    names.sort();
    // printf %s 'shard=one' | sha256sum | cut -c1-8
    assert_eq!(names, ["image-export-operator-d8536a4a", "the-rest"]);
    // An object that moves on is followed by the other.
    team.patch("b", label(json!({ "shard": "one" }))).await;
    one.until_metric(followed, 2.0).await;
    team.sim.put_job(Job::new(PROJECT, "b"));
    team.until_reason("b", "JobSucceeded").await;

    let invalid = shard("shard in one", &[]);
    let ready = eventually_ready(&invalid).await;
    assert!(ready.contains("400"), "{ready}");
}

/// What keeps an operator from being ready.
async fn eventually_ready(operator: &Operator) -> String {
    let started = Instant::now();
    loop {
        let (status, body) = operator.get("/readyz").await;
        if status == 503 && body.contains("API server answered") {
            return body;
        }
        assert!(started.elapsed() < PATIENCE, "{status} {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
