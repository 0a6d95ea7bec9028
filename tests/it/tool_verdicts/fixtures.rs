//! One operator with an object in each situation of the conditions table at the same time. It runs
//! once; the tests of `table` examine the objects as they were read.

use super::{judge, record::Record};
use crate::harness::{GRACE_SCALE, Launch, PATIENCE, PROJECT, Team, key, running};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
    thread,
};
use testbed::{
    ims::{Answer, Job},
    judges::{Judges, ToolVerdict},
};
use tokio::time::timeout;

/// Its job succeeds, and its spec is changed while the operator is stopped.
const CHANGED: &str = "changed-after-success";

/// An object of an operator that was started without `--allow-http`.
const NOT_ALLOWED: &str = "endpoint-not-allowed";

/// The longest grace, that of `JobNotFound`, is 5 minutes by the operator's time: 15 s here.
const LAUNCH: Launch<'static> = Launch {
    environment: &[],
    program: None,
    allow_http: true,
    log_level: "info",
    scale: GRACE_SCALE,
};

/// The `kubectl wait` commands of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    Good,
    Bad,
    Either,
}

impl Wait {
    pub const ALL: [Self; 3] = [Self::Good, Self::Bad, Self::Either];

    pub fn flag(self) -> &'static str {
        match self {
            Self::Good => "--for=condition=Ready",
            Self::Bad => "--for=condition=Succeeded=False",
            Self::Either => "--for=jsonpath={.status.completionTime}",
        }
    }
}

/// An object as it was read back, and the tool verdicts on it.
pub struct Fixture {
    pub object: Value,
    pub verdict: ToolVerdict,
    /// The waits that returned at once.
    pub returned: BTreeSet<Wait>,
}

pub struct Fixtures {
    /// By the name of the object.
    pub objects: BTreeMap<String, Fixture>,
    /// All versions of each object.
    pub versions: Vec<Vec<Value>>,
}

/// The objects after the run. Panics in each test if the run did.
pub fn fixtures() -> &'static Fixtures {
    static FIXTURES: OnceLock<Option<Fixtures>> = OnceLock::new();
    FIXTURES
        .get_or_init(|| {
            // A runtime of its own, which does not end with the test that came first.
            let run = thread::spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(set_up())
            });
            run.join().ok()
        })
        .as_ref()
        .expect("the fixtures, whose panic is in the output of one of the tests")
}

/// How to bring an object to a reason.
struct Setup {
    name: &'static str,
    spec: Value,
    /// The simulator's job, if it has one.
    job: Option<Job>,
    /// The answers to its polls; the last one is repeated.
    answers: Vec<Answer>,
    reason: &'static str,
}

/// Every poll gets this answer.
fn answered(name: &'static str, answer: Answer, reason: &'static str) -> Setup {
    Setup {
        name,
        spec: json!({}),
        job: None,
        answers: vec![answer],
        reason,
    }
}

/// The simulator answers for this job.
fn simulated(name: &'static str, job: Job, reason: &'static str) -> Setup {
    Setup {
        job: Some(job),
        answers: Vec::new(),
        ..answered(name, Answer::hang(), reason)
    }
}

fn with_spec(spec: Value, setup: Setup) -> Setup {
    Setup { spec, ..setup }
}

fn secret(name: &str) -> Value {
    json!({ "cloudCredentialsRef": { "secretName": name, "cloudName": "otc" } })
}

/// Those that keep their reason.
fn setups() -> Vec<Setup> {
    let job = |name: &str| Job::new(PROJECT, name);
    vec![
        answered(
            "job-not-found-for-good",
            Answer::preset("job-not-found"),
            "JobNotFound",
        ),
        Setup {
            answers: vec![Answer::preset("running"), Answer::preset("unavailable")],
            ..answered("poll-failed", Answer::hang(), "PollFailed")
        },
        // With credentials that are not accepted yet, which pause no other's polls.
        with_spec(
            secret("throttled"),
            answered("poll-overdue", Answer::preset("throttled"), "PollOverdue"),
        ),
        with_spec(
            json!({ "deadlineSeconds": 300 }),
            simulated(
                "deadline-exceeded",
                running("deadline-exceeded"),
                "DeadlineExceeded",
            ),
        ),
        simulated(
            "image-id-missing",
            job("image-id-missing").without_image_id(),
            "ImageIDMissing",
        ),
        with_spec(
            secret("missing"),
            simulated(
                "credentials-not-found",
                job("credentials-not-found"),
                "CredentialsNotFound",
            ),
        ),
        with_spec(
            secret("rejected"),
            simulated(
                "credentials-invalid",
                job("credentials-invalid"),
                "CredentialsInvalid",
            ),
        ),
        answered("access-denied", Answer::preset("forbidden"), "AccessDenied"),
        answered(
            "endpoint-invalid",
            Answer::preset("api-not-published"),
            "EndpointInvalid",
        ),
        answered(
            "request-rejected",
            Answer::preset("status-405"),
            "RequestRejected",
        ),
        answered(
            "job-initializing",
            Answer::preset("init"),
            "JobInitializing",
        ),
        simulated("job-running", running("job-running"), "JobRunning"),
        simulated("job-succeeded", job("job-succeeded"), "JobSucceeded"),
        simulated(
            "job-succeeded-without-image",
            job("job-succeeded-without-image")
                .of_type("imsAddImageMembersJob")
                .without_image_id(),
            "JobSucceeded",
        ),
        simulated(
            "job-failed",
            job("job-failed").fails("IMG.0148", "The OBS bucket does not exist."),
            "JobFailed",
        ),
        answered(
            "job-status-unrecognized",
            Answer::preset("unknown-status"),
            "JobStatusUnrecognized",
        ),
        with_spec(
            json!({ "suspend": true }),
            simulated("suspended", job("suspended"), "Suspended"),
        ),
        simulated(CHANGED, job(CHANGED), "JobSucceeded"),
    ]
}

/// Those that keep their reason while their next poll hangs: for 20 s by the clock.
fn passing() -> Vec<Setup> {
    let once = |name, preset, reason| Setup {
        answers: vec![Answer::preset(preset), Answer::hang()],
        ..answered(name, Answer::hang(), reason)
    };
    vec![
        answered("pending", Answer::hang(), "Pending"),
        once("image-id-pending", "success-no-image", "ImageIDPending"),
        once(
            "job-not-found-within-the-grace",
            "job-not-found",
            "JobNotFound",
        ),
    ]
}

async fn set_up() -> Fixtures {
    // Building them may take minutes, and some objects keep their reason for seconds.
    Judges::shared().expect("the tools");
    let mut team = Team::without_operator("table").await;
    let record = Record::of(&team);
    team.start_operator_as(LAUNCH, &[]);
    team.put_secret(
        "rejected",
        &team.clouds_yaml().replace("canary-token", "rejected-token"),
    );
    team.put_secret("throttled", &team.clouds_yaml());
    let setups = setups();
    create(&team, &setups).await;
    let mut strict = Team::without_operator("table-strict").await;
    let strict_record = Record::of(&strict);
    strict.create("created").await;
    let unseen = fixture(&strict, "created");
    let launch = Launch {
        allow_http: false,
        ..LAUNCH
    };
    strict.start_operator_as(launch, &[]);
    strict.create(NOT_ALLOWED).await;

    in_time(async {
        for setup in &setups {
            record.until_reason(setup.name, setup.reason).await;
        }
        let stalled = |object: &Value| !super::condition(object, "Stalled").is_null();
        record
            .until("job-not-found-for-good", "stall", stalled)
            .await;
    })
    .await;
    let passing = passing();
    create(&team, &passing).await;
    in_time(async {
        for setup in &passing {
            record.until_reason(setup.name, setup.reason).await;
        }
    })
    .await;

    // While the operator is stopped, each object stays as it is.
    team.operator().pause();
    let mut fixtures = read_all(&team);
    team.patch(CHANGED, json!({ "spec": { "suspend": true } }))
        .await;
    fixtures.insert(CHANGED.to_owned(), fixture(&team, CHANGED));
    team.operator().resume();
    let acknowledged = |object: &Value| object["status"]["observedGeneration"] == 2;
    in_time(record.until(CHANGED, "be acknowledged", acknowledged)).await;
    fixtures.insert(
        "changed-after-success-and-acknowledged".to_owned(),
        fixture(&team, CHANGED),
    );

    fixtures.insert("created".to_owned(), unseen);
    in_time(strict_record.until_reason(NOT_ALLOWED, "EndpointNotAllowed")).await;
    fixtures.insert(NOT_ALLOWED.to_owned(), fixture(&strict, NOT_ALLOWED));

    let mut versions = record.all();
    versions.extend(strict_record.all());
    Fixtures {
        objects: fixtures,
        versions,
    }
}

/// Gives up in the end: a reason that is not reached fails in its own tests alone.
async fn in_time(work: impl Future) {
    let _ = timeout(PATIENCE / 2, work).await;
}

/// Creates the objects, with the answers to their polls.
async fn create(team: &Team, setups: &[Setup]) {
    for setup in setups {
        let mut answers = setup.answers.clone();
        if let Some(last) = answers.pop() {
            team.sim.script(key(setup.name), answers);
            team.sim.script_forever(key(setup.name), last);
        }
        if let Some(job) = &setup.job {
            team.sim.put_job(job.clone());
        }
        team.create_with(setup.name, setup.spec.clone()).await;
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

fn objects(team: &Team) -> Vec<Value> {
    let list = team.kubectl(&["get", "iej"]).json().expect("objects");
    list["items"].as_array().expect("a list").clone()
}

fn read_all(team: &Team) -> BTreeMap<String, Fixture> {
    let objects = objects(team);
    let returned = Wait::ALL.map(|wait| (wait, returned(team, "--all", wait)));
    let verdicts = judge(&objects);
    let fixtures = objects.into_iter().zip(verdicts).map(|(object, verdict)| {
        let name = name(&object).to_owned();
        let returned = returned
            .iter()
            .filter(|(_, names)| names.contains(&name))
            .map(|(wait, _)| *wait)
            .collect();
        let fixture = Fixture {
            object,
            verdict,
            returned,
        };
        (name, fixture)
    });
    fixtures.collect()
}

fn fixture(team: &Team, name: &str) -> Fixture {
    let object = team
        .kubectl(&["get", "iej", name])
        .json()
        .expect("an object");
    let verdict = judge(std::slice::from_ref(&object)).remove(0);
    let returned = Wait::ALL
        .into_iter()
        .filter(|wait| returned(team, name, *wait).contains(name))
        .collect();
    Fixture {
        object,
        verdict,
        returned,
    }
}

/// The objects for which `kubectl wait` succeeds at once.
fn returned(team: &Team, which: &str, wait: Wait) -> BTreeSet<String> {
    let output = team
        .kubectl(&["wait", "iej", which, wait.flag(), "--timeout=0"])
        .run()
        .expect("kubectl runs");
    let met = output.stdout.lines().filter_map(|line| {
        let (_, object) = line.strip_suffix(" condition met")?.split_once('/')?;
        Some(object.to_owned())
    });
    met.collect()
}
