//! How deployment tools read an object under each reason and at each moment of its lifecycle: their
//! own code judges objects that were read back from the API server as JSON, so that no type of the
//! operator's stands in between. The expected verdicts are in `table`, the tools in `testbed::judges`.

mod fixtures;
mod idle;
mod invariants;
mod kubectl;
mod lifecycles;
mod random_operations;
mod record;
mod table;

use serde_json::Value;
use testbed::judges::{ArgoHealth, Judges, Kstatus, ToolVerdict};

/// What an object means to a tool that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Its status was not written for its present spec.
    Unacknowledged,
    InProgress,
    Stalled,
    Succeeded,
    Suspended,
}

impl Meaning {
    /// By the reason of `Ready`; `JobNotFound` also by its status.
    fn of(object: &Value) -> Self {
        let ready = condition(object, "Ready");
        match ready["reason"].as_str() {
            _ if !is_acknowledged(object) => Self::Unacknowledged,
            Some("JobSucceeded") => Self::Succeeded,
            Some("ImageIDMissing" | "JobFailed" | "DeadlineExceeded") => Self::Stalled,
            Some("JobNotFound") if ready["status"] == "False" => Self::Stalled,
            Some("Suspended") => Self::Suspended,
            Some(_) => Self::InProgress,
            None => panic!("acknowledged without a reason: {object:#}"),
        }
    }

    fn kstatus(self) -> Kstatus {
        match self {
            Self::Unacknowledged | Self::InProgress | Self::Suspended => Kstatus::InProgress,
            Self::Stalled => Kstatus::Failed,
            Self::Succeeded => Kstatus::Current,
        }
    }

    fn argo(self) -> ArgoHealth {
        match self {
            Self::Unacknowledged | Self::InProgress => ArgoHealth::Progressing,
            Self::Stalled => ArgoHealth::Degraded,
            Self::Succeeded => ArgoHealth::Healthy,
            Self::Suspended => ArgoHealth::Suspended,
        }
    }

    /// The failures of the one of Flux's two checkers that applies.
    fn flux_failures(self, verdict: &ToolVerdict) -> &[String] {
        match self {
            Self::InProgress => &verdict.flux_in_progress,
            Self::Stalled | Self::Succeeded | Self::Suspended => &verdict.flux_at_rest,
            Self::Unacknowledged => &[],
        }
    }
}

fn is_acknowledged(object: &Value) -> bool {
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

/// The condition of that type; null where there is none.
fn condition<'o>(object: &'o Value, type_: &str) -> &'o Value {
    conditions(object)
        .find(|condition| condition["type"] == type_)
        .unwrap_or(&Value::Null)
}

fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
}

/// An object in a line, for the messages of failing tests.
fn describe(object: &Value) -> String {
    let ready = condition(object, "Ready");
    format!(
        "{} (version {}, generation {}, observed {}, Ready {} {})",
        object["metadata"]["name"],
        object["metadata"]["resourceVersion"],
        object["metadata"]["generation"],
        object["status"]["observedGeneration"],
        ready["status"],
        ready["reason"],
    )
}

fn judge(objects: &[Value]) -> Vec<ToolVerdict> {
    let judges = Judges::shared().expect("the tools");
    judges.judge(objects).expect("their verdicts")
}

/// Panics with every broken invariant and every wrong tool verdict on the versions of one object.
fn assert_valid(versions: &[Value]) {
    let mut wrong = invariants::broken(versions);
    for (object, verdict) in versions.iter().zip(judge(versions)) {
        for error in wrong_verdicts(object, &verdict) {
            wrong.push(format!("{}: {error}", describe(object)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The tools whose verdict on one version is wrong.
fn wrong_verdicts(object: &Value, verdict: &ToolVerdict) -> Vec<String> {
    let meaning = Meaning::of(object);
    let mut wrong = Vec::new();
    for (tool, verdict) in [
        ("kstatus", &verdict.kstatus),
        ("kstatus of Flux", &verdict.flux_kstatus),
    ] {
        if verdict.status != meaning.kstatus() {
            wrong.push(format!("{tool} reads {meaning:?} as {verdict:?}"));
        }
    }
    let argo = &verdict.argo;
    if argo.status != meaning.argo() {
        wrong.push(format!("Argo CD reads {meaning:?} as {argo:?}"));
    }
    let failures = meaning.flux_failures(verdict);
    if !failures.is_empty() {
        wrong.push(format!("Flux's checker finds {failures:?} in {meaning:?}"));
    }
    // Whatever the conditions are, only the cloud's own SUCCESS makes an object good.
    let kstatus = [verdict.kstatus.status, verdict.flux_kstatus.status];
    let ended_well = object["status"]["status"] == "SUCCESS" && is_acknowledged(object);
    let read_as_good = kstatus.contains(&Kstatus::Current) || argo.status == ArgoHealth::Healthy;
    if read_as_good && !ended_well {
        wrong.push("read as good without an acknowledged SUCCESS".to_owned());
    }
    wrong
}
