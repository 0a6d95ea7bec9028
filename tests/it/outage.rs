//! An API server that is down, does not know the CRD, or denies access. These tests share an API
//! server of their own, one test at a time.

use crate::harness::{
    CRD, Launch, OPERATOR_NAMESPACE, Operator, PATIENCE, PROJECT, Team, eventually, install, key,
    running,
};
use serde_json::json;
use std::{
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant},
};
use testbed::{
    ims::{End, Job},
    kubernetes::Cluster,
};
use tokio::sync::{Mutex, MutexGuard};

const NAME: &str = "image-export-operator";

/// The API server that tests may stop, running and with `deploy/` applied; no other test uses it
/// until the guard is dropped.
pub async fn own_cluster() -> (MutexGuard<'static, ()>, &'static Cluster) {
    static TURN: Mutex<()> = Mutex::const_new(());
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let turn = TURN.lock().await;
    let cluster = CLUSTER.get_or_init(|| Cluster::start().expect("a cluster"));
    cluster.start_api_server().expect("it runs again");
    install(cluster);
    (turn, cluster)
}

fn kubeconfig(cluster: &Cluster) -> PathBuf {
    cluster
        .kubeconfig_for_service_account(OPERATOR_NAMESPACE, NAME)
        .expect("a token for the operator")
}

/// Waits until the operator, which follows all namespaces, answers `/readyz` like this.
async fn until_ready_is(operator: &Operator, wanted: (u16, &str)) {
    let started = Instant::now();
    loop {
        let (status, body) = operator.get("/readyz").await;
        if (status, body.as_str()) == wanted {
            return;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "waited for /readyz to be {wanted:?}, it is {status} {body}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The lines of the log that hold all these texts.
fn lines(operator: &Operator, texts: &[&str]) -> usize {
    operator
        .log()
        .lines()
        .filter(|line| texts.iter().all(|text| line.contains(text)))
        .count()
}

/// One error is one line a minute, and this error began after `started`.
fn assert_at_most_one_a_minute(operator: &Operator, texts: &[&str], started: Instant) {
    let (lines, minutes) = (lines(operator, texts), started.elapsed().as_secs() / 60);
    assert!(lines as u64 <= 1 + minutes, "{lines} lines of {texts:?}");
}

/// The same for an error that has been reported.
fn assert_one_a_minute(operator: &Operator, texts: &[&str], started: Instant) {
    assert!(lines(operator, texts) >= 1, "no line of {texts:?}");
    assert_at_most_one_a_minute(operator, texts, started);
}

/// Checks that a cluster works again: the operator follows a job to its end.
async fn follow_one(cluster: &'static Cluster, name: &str) -> Team {
    let team = Team::without_operator_on(cluster, name).await;
    team.follow(Job::new(PROJECT, "works")).await;
    team.until_reason("works", "JobSucceeded").await;
    team
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_down_polls_go_on_and_their_outcomes_are_written_later() {
    let (_turn, cluster) = own_cluster().await;
    let mut team = Team::without_operator_on(cluster, "down").await;
    // An answer that comes too late is asked for again: time for it, on a busy machine too.
    team.start_operator_as(Launch::for_graces(), &[]);
    let names = ["good", "bad", "open"];
    for name in names {
        team.follow(Job::new(PROJECT, name).ends(End::Never)).await;
    }
    for name in names {
        team.until_reason(name, "JobRunning").await;
    }

    let started = Instant::now();
    cluster.stop_api_server().expect("it stops");
    team.sim.put_job(Job::new(PROJECT, "good"));
    team.sim
        .put_job(Job::new(PROJECT, "bad").fails("IMG.0148", "No bucket."));
    // A poll that arrives from now on is answered with the end, and is the last one.
    let before: Vec<u64> = names.iter().map(|name| team.polls(name)).collect();
    team.sim.polled(&key("open"), before[2] + 15).await;
    for (name, before) in names.into_iter().zip(before).take(2) {
        let further = team.polls(name) - before;
        assert!(
            further <= 1,
            "{name}: a job whose end is known is no longer polled: {further} polls"
        );
    }
    for probe in ["/healthz", "/readyz"] {
        let answer = team.operator().get(probe).await;
        assert_eq!(answer, (200, "ok\n".to_owned()), "{probe}");
    }
    assert_eq!(team.writes("good"), 1);

    cluster.start_api_server().expect("it runs again");
    team.until_reason("good", "JobSucceeded").await;
    team.until_reason("bad", "JobFailed").await;
    assert_eq!(team.course("good"), ["JobRunning", "JobSucceeded"]);
    assert_eq!(team.course("bad"), ["JobRunning", "JobFailed"]);
    assert_eq!((team.writes("good"), team.writes("bad")), (2, 2));
    assert_eq!(team.writes("open"), 1, "it has been running all the time");
    assert_at_most_one_a_minute(team.operator(), &["watch failed", "unreachable"], started);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_started_while_the_api_server_is_down_waits_for_it() {
    let (_turn, cluster) = own_cluster().await;
    let kubeconfig = kubeconfig(cluster);
    cluster.stop_api_server().expect("it stops");
    let started = Instant::now();
    let operator = Operator::start_with(&kubeconfig, &["--poll-period", "10"]);
    let problem = "all namespaces: the API server does not answer\n";
    until_ready_is(&operator, (503, problem)).await;
    assert_eq!(operator.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_one_a_minute(&operator, &["WARN", problem.trim_end()], started);

    cluster.start_api_server().expect("it runs again");
    until_ready_is(&operator, (200, "ok\n")).await;
    follow_one(cluster, "back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_crd_the_operator_is_not_ready_says_why_and_works_once_it_is_applied() {
    let (_turn, cluster) = own_cluster().await;
    cluster
        .kubectl(["delete", "crd", CRD])
        .success()
        .expect("deleted");
    let started = Instant::now();
    let operator = Operator::start_with(&kubeconfig(cluster), &["--poll-period", "10"]);
    let problem = "all namespaces: the API server does not know ImageExportJobs: apply the CRD \
                   imageexportjobs.imageexport.dev, which is in crds/\n";
    until_ready_is(&operator, (503, problem)).await;
    assert_eq!(operator.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_one_a_minute(&operator, &["WARN", problem.trim_end()], started);

    install(cluster);
    until_ready_is(&operator, (200, "ok\n")).await;
    // Without --namespace it follows the objects of each.
    let one = follow_one(cluster, "one").await;
    let other = follow_one(cluster, "other").await;
    assert_ne!(one.namespace, other.namespace);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_rights_the_operator_says_which_and_works_once_it_has_them() {
    let (_turn, cluster) = own_cluster().await;
    cluster
        .kubectl(["delete", "clusterrolebinding", NAME])
        .success()
        .expect("deleted");
    until_may(cluster, "list", CRD, false).await;
    let started = Instant::now();
    let operator = Operator::start_with(&kubeconfig(cluster), &["--poll-period", "10"]);
    let problem = "all namespaces: the operator may not list or watch ImageExportJobs: apply the \
                   RBAC in deploy/\n";
    until_ready_is(&operator, (503, problem)).await;
    assert_one_a_minute(&operator, &["WARN", problem.trim_end()], started);

    install(cluster);
    until_ready_is(&operator, (200, "ok\n")).await;
    follow_one(cluster, "granted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_that_may_not_be_written_are_written_once_they_may() {
    let (_turn, cluster) = own_cluster().await;
    let mut team = Team::without_operator_on(cluster, "forbidden").await;
    team.start_operator();
    let names = ["one", "two", "three"];
    let started = Instant::now();
    set_status_verbs(cluster, &["get"]);
    until_may(cluster, "update", "imageexportjobs/status", false).await;
    for name in names {
        team.follow(Job::new(PROJECT, name)).await;
    }
    let rejected = r#"imageexport_status_writes_total{result="refused"}"#;
    team.operator().until_metric(rejected, 9.0).await;
    // The same error of all objects.
    assert_one_a_minute(team.operator(), &["WARN", "write rejected", "403"], started);

    set_status_verbs(cluster, &["update", "patch"]);
    for name in names {
        team.until_reason(name, "JobSucceeded").await;
        assert_eq!((team.writes(name), team.polls(name)), (1, 1), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_whose_rights_are_taken_away_is_not_ready_until_they_are_given_back() {
    let (_turn, cluster) = own_cluster().await;
    let operator = Operator::start_with(&kubeconfig(cluster), &["--poll-period", "10"]);
    until_ready_is(&operator, (200, "ok\n")).await;
    follow_one(cluster, "before").await;

    let started = Instant::now();
    cluster
        .kubectl(["delete", "clusterrolebinding", NAME])
        .success()
        .expect("deleted");
    // Its watch stays open for up to 50 s.
    let problem = loop {
        let (status, body) = operator.get("/readyz").await;
        if status == 503 {
            break body;
        }
        assert!(started.elapsed() < PATIENCE, "it is still ready");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert!(started.elapsed() >= Duration::from_secs(60));
    let begin = "the API server has rejected every call of the operator for ";
    let end = " s (403): apply the RBAC in deploy/\n";
    assert!(
        problem.starts_with(begin) && problem.ends_with(end),
        "{problem}"
    );
    assert_eq!(operator.get("/healthz").await, (200, "ok\n".to_owned()));
    eventually("the line", || {
        (lines(&operator, &["WARN", begin]) > 0).then_some(())
    })
    .await;
    assert_one_a_minute(&operator, &["WARN", begin], started);

    install(cluster);
    until_ready_is(&operator, (200, "ok\n")).await;
    follow_one(cluster, "after").await;
}

fn set_status_verbs(cluster: &Cluster, verbs: &[&str]) {
    let role = cluster
        .kubectl(["get", "clusterrole", NAME])
        .json()
        .expect("a role");
    let rules = role["rules"].as_array().expect("rules");
    let place = rules
        .iter()
        .position(|rule| rule["resources"][0] == "imageexportjobs/status")
        .expect("a rule for the status");
    let path = format!("/rules/{place}/verbs");
    let patch = json!([{ "op": "replace", "path": path, "value": verbs }]).to_string();
    cluster
        .kubectl(["patch", "clusterrole", NAME, "--type=json", "--patch"])
        .args([patch])
        .success()
        .expect("patched");
}

/// Waits until a change of the operator's rights is in effect.
async fn until_may(cluster: &Cluster, verb: &str, resource: &str, wanted: bool) {
    let account = format!("--as=system:serviceaccount:{OPERATOR_NAMESPACE}:{NAME}");
    eventually("the change of rights", || {
        let output = cluster
            .kubectl([
                "auth",
                "can-i",
                verb,
                resource,
                "--all-namespaces",
                &account,
            ])
            .run()
            .expect("kubectl runs");
        (output.status.success() == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_down_the_operator_stops_and_a_second_signal_ends_it_at_once() {
    let (_turn, cluster) = own_cluster().await;
    let mut team = Team::without_operator_on(cluster, "signals").await;
    team.follow(running("job")).await;
    for code in [0, 143, 130] {
        cluster.start_api_server().expect("it runs again");
        team.start_operator();
        let polls = team.polls("job");
        team.sim.polled(&key("job"), polls + 1).await;
        team.until_reason("job", "JobRunning").await;
        cluster.stop_api_server().expect("it stops");
        if code != 0 {
            // Its end cannot be written.
            let polls = team.polls("job");
            team.sim.put_job(Job::new(PROJECT, "job"));
            team.sim.polled(&key("job"), polls + 1).await;
        }

        team.operator().stop();
        if code != 0 {
            eventually("it is shutting down", || {
                let log = team.operator().log();
                log.contains("shutting down").then_some(())
            })
            .await;
            if code == 143 {
                team.operator().stop();
            } else {
                team.operator().interrupt();
            }
        }
        assert_eq!(team.operator().ended(), code);
        let log = team.operator().log();
        assert!(!log.contains("gave up waiting"), "{log}");
        team.sim.put_job(running("job"));
    }
}
