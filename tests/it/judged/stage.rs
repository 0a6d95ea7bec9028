//! One operator that has an object in each row of the conditions table at the same time. It is played
//! once; the tests of `rows` look at what it left.

use super::{judge, record::Record, running};
use crate::harness::{Launch, PROJECT, Team, key};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
    thread,
    time::Duration,
};
use testbed::{
    ims::{Answer, Job},
    judges::{Judges, Verdict},
};
use tokio::time::timeout;

/// A job of no row of its own: it finishes, and its spec is changed while the operator stands still.
const CHANGED: &str = "row-9";

/// The row of an operator that was started without `--allow-http`.
const NOT_ALLOWED: &str = "row-1b-not-allowed";

/// The longest grace, the one of row 7, is 5 minutes by the operator's time: 1.5 s here.
const LAUNCH: Launch<'static> = Launch {
    allow_http: true,
    log_level: "info",
    scale: 0.005,
};

/// The users' one-liners.
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

/// An object as it was read back, and what the tools said about it.
pub struct Scene {
    pub object: Value,
    pub verdict: Verdict,
    /// The waits that returned.
    pub returned: BTreeSet<Wait>,
}

pub struct Stage {
    pub scenes: BTreeMap<String, Scene>,
    /// All versions of each object.
    pub versions: Vec<Vec<Value>>,
}

/// The stage after its play. Panics in each test if the play broke off.
pub fn stage() -> &'static Stage {
    static STAGE: OnceLock<Option<Stage>> = OnceLock::new();
    STAGE
        .get_or_init(|| {
            // A runtime of its own, which does not end with the test that came first.
            let play = thread::spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(play())
            });
            play.join().ok()
        })
        .as_ref()
        .expect("the play, whose panic is in the output of one of the tests")
}

/// What has to happen to a row's object, and the reason that it has then.
struct Part {
    row: &'static str,
    spec: Value,
    /// The simulator's job, if it has one.
    job: Option<Job>,
    /// Answers before the last one, which comes for ever.
    answers: Vec<Answer>,
    reason: &'static str,
}

/// A part in which each answer is this one.
fn answered(row: &'static str, answer: Answer, reason: &'static str) -> Part {
    Part {
        row,
        spec: json!({}),
        job: None,
        answers: vec![answer],
        reason,
    }
}

/// A part in which the job itself decides.
fn living(row: &'static str, job: Job, reason: &'static str) -> Part {
    Part {
        job: Some(job),
        answers: Vec::new(),
        ..answered(row, Answer::hang(), reason)
    }
}

fn with_spec(spec: Value, part: Part) -> Part {
    Part { spec, ..part }
}

fn secret(name: &str) -> Value {
    json!({ "cloudCredentialsRef": { "secretName": name, "cloudName": "otc" } })
}

/// In the order in which they come on: those that take long first. An answer that hangs keeps a row
/// that would pass otherwise.
fn parts() -> Vec<Part> {
    let job = |name: &str| Job::new(PROJECT, name);
    let then_nothing = |row, name, reason| Part {
        answers: vec![Answer::preset(name), Answer::hang()],
        ..answered(row, Answer::hang(), reason)
    };
    vec![
        answered("row-7", Answer::preset("job-not-found"), "JobNotFound"),
        Part {
            answers: vec![Answer::preset("running"), Answer::preset("unavailable")],
            ..answered("row-3e", Answer::hang(), "PollFailed")
        },
        with_spec(
            json!({ "deadlineSeconds": 300 }),
            living("row-3d", running("row-3d"), "DeadlineExceeded"),
        ),
        living("row-4b", job("row-4b").without_image_id(), "ImageIDMissing"),
        with_spec(
            secret("missing"),
            living("row-1-missing", job("row-1-missing"), "CredentialsNotFound"),
        ),
        with_spec(
            secret("dead"),
            living("row-1-invalid", job("row-1-invalid"), "CredentialsInvalid"),
        ),
        answered("row-1-denied", Answer::preset("forbidden"), "AccessDenied"),
        answered(
            "row-1b-invalid",
            Answer::preset("api-not-published"),
            "EndpointInvalid",
        ),
        answered("row-1c", Answer::preset("status-405"), "RequestRejected"),
        answered("row-2", Answer::preset("init"), "JobInitializing"),
        living("row-3", running("row-3"), "JobRunning"),
        living("row-4", job("row-4"), "JobSucceeded"),
        living(
            "row-4-members",
            job("row-4-members")
                .of_type("imsAddImageMembersJob")
                .without_image_id(),
            "JobSucceeded",
        ),
        living(
            "row-5",
            job("row-5").fails("IMG.0148", "The OBS bucket does not exist."),
            "JobFailed",
        ),
        answered(
            "row-6",
            Answer::preset("unknown-status"),
            "JobStatusUnrecognized",
        ),
        with_spec(
            json!({ "suspend": true }),
            living("row-8", job("row-8"), "Suspended"),
        ),
        living(CHANGED, job(CHANGED), "JobSucceeded"),
        answered("row-0b", Answer::hang(), "Pending"),
        then_nothing("row-4a", "success-no-image", "ImageIDPending"),
        then_nothing("row-7a", "job-not-found", "JobNotFound"),
    ]
}

async fn play() -> Stage {
    // Building them may take minutes, in which rows pass that are to be held.
    Judges::shared().expect("the judges");
    let mut team = Team::without_operator("rows").await;
    let record = Record::of(&team);
    team.start_operator_as(LAUNCH, &[]);
    team.put_secret(
        "dead",
        &team.clouds_yaml().replace("canary-token", "dead-token"),
    );
    let parts = parts();
    for part in &parts {
        let mut answers = part.answers.clone();
        if let Some(last) = answers.pop() {
            team.sim.script(key(part.row), answers);
            team.sim.script_forever(key(part.row), last);
        }
        if let Some(job) = &part.job {
            team.sim.put_job(job.clone());
        }
        team.create_with(part.row, part.spec.clone()).await;
    }
    let mut strict = Team::without_operator("strict-rows").await;
    let strict_record = Record::of(&strict);
    strict.create("row-0").await;
    let unseen = scene(&strict, "row-0");
    let launch = Launch {
        allow_http: false,
        ..LAUNCH
    };
    strict.start_operator_as(launch, &[]);
    strict.create(NOT_ALLOWED).await;

    in_time(async {
        for part in &parts {
            record.until_reason(part.row, part.reason).await;
        }
        let stalled = |object: &Value| !super::condition(object, "Stalled").is_null();
        record.until("row-7", "stall", stalled).await;
    })
    .await;

    let mut scenes = scenes(&team);
    for later in objects(&team) {
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let name = name(&later);
        if version(&later) != version(&scenes[name].object) {
            scenes.remove(name);
        }
    }

    team.operator().pause();
    team.patch(CHANGED, json!({ "spec": { "suspend": true } }))
        .await;
    scenes.insert("row-9".to_owned(), scene(&team, CHANGED));
    team.operator().resume();
    let acknowledged = |object: &Value| object["status"]["observedGeneration"] == 2;
    in_time(record.until(CHANGED, "be acknowledged", acknowledged)).await;
    scenes.insert("row-9-acknowledged".to_owned(), scene(&team, CHANGED));

    scenes.insert("row-0".to_owned(), unseen);
    in_time(strict_record.until_reason(NOT_ALLOWED, "EndpointNotAllowed")).await;
    scenes.insert(NOT_ALLOWED.to_owned(), scene(&strict, NOT_ALLOWED));

    let mut versions = record.all();
    versions.extend(strict_record.all());
    Stage { scenes, versions }
}

/// Waits, but not for ever: a row that is not reached fails in its own tests alone.
async fn in_time(what: impl Future) {
    let _ = timeout(Duration::from_secs(20), what).await;
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

fn objects(team: &Team) -> Vec<Value> {
    let list = team.kubectl(&["get", "iej"]).json().expect("objects");
    list["items"].as_array().expect("a list").clone()
}

fn scenes(team: &Team) -> BTreeMap<String, Scene> {
    let objects = objects(team);
    let returned = Wait::ALL.map(|wait| (wait, returned(team, "--all", wait)));
    let verdicts = judge(&objects);
    let scenes = objects.into_iter().zip(verdicts).map(|(object, verdict)| {
        let name = name(&object).to_owned();
        let returned = returned
            .iter()
            .filter(|(_, names)| names.contains(&name))
            .map(|(wait, _)| *wait)
            .collect();
        let scene = Scene {
            object,
            verdict,
            returned,
        };
        (name, scene)
    });
    scenes.collect()
}

fn scene(team: &Team, name: &str) -> Scene {
    let object = team
        .kubectl(&["get", "iej", name])
        .json()
        .expect("an object");
    let verdict = judge(std::slice::from_ref(&object)).remove(0);
    let returned = Wait::ALL
        .into_iter()
        .filter(|wait| returned(team, name, *wait).contains(name))
        .collect();
    Scene {
        object,
        verdict,
        returned,
    }
}

/// The objects for which `kubectl wait` returns well at once.
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
