//! What deployment tools make of each row of the conditions table and of each moment of an object's
//! life: their own code judges objects that were read back from the API server as JSON, so that no
//! type of the operator's stands in between. The table itself is in `rows`, the judges in `testbed`.

mod bag;
mod kubectl;
mod laws;
mod lives;
mod quiet;
mod record;
mod rows;
mod stage;

use serde_json::Value;
use testbed::{
    ims::{End, Job},
    judges::{ArgoHealth, Judges, Kstatus, Verdict},
};

/// What an object amounts to for somebody who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// Its status is not about its present spec.
    Unacknowledged,
    InMotion,
    Stalled,
    Succeeded,
    Suspended,
}

impl Stand {
    /// By the reason that `Ready` gives; rows 7 and 7a share one.
    fn of(object: &Value) -> Self {
        let ready = condition(object, "Ready");
        match ready["reason"].as_str() {
            _ if !is_acknowledged(object) => Self::Unacknowledged,
            Some("JobSucceeded") => Self::Succeeded,
            Some("ImageIDMissing" | "JobFailed" | "DeadlineExceeded") => Self::Stalled,
            Some("JobNotFound") if ready["status"] == "False" => Self::Stalled,
            Some("Suspended") => Self::Suspended,
            Some(_) => Self::InMotion,
            None => panic!("acknowledged without a reason: {object:#}"),
        }
    }

    fn kstatus(self) -> Kstatus {
        match self {
            Self::Unacknowledged | Self::InMotion | Self::Suspended => Kstatus::InProgress,
            Self::Stalled => Kstatus::Failed,
            Self::Succeeded => Kstatus::Current,
        }
    }

    fn argo(self) -> ArgoHealth {
        match self {
            Self::Unacknowledged | Self::InMotion => ArgoHealth::Progressing,
            Self::Stalled => ArgoHealth::Degraded,
            Self::Succeeded => ArgoHealth::Healthy,
            Self::Suspended => ArgoHealth::Suspended,
        }
    }

    /// What Flux's checker may hold against an object that stands so.
    fn against(self, verdict: &Verdict) -> &[String] {
        match self {
            Self::InMotion => &verdict.flux_in_progress,
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

fn judge(objects: &[Value]) -> Vec<Verdict> {
    let judges = Judges::shared().expect("the judges");
    judges.judge(objects).expect("their verdicts")
}

/// Judges versions of one object and panics with everything that is wrong about them.
fn assert_all_is_right(versions: &[Value]) {
    let mut wrong = laws::broken(versions);
    for (object, verdict) in versions.iter().zip(judge(versions)) {
        for complaint in misjudged(object, &verdict) {
            wrong.push(format!("{}: {complaint}", describe(object)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is wrong about the verdict on one version.
fn misjudged(object: &Value, verdict: &Verdict) -> Vec<String> {
    let stand = Stand::of(object);
    let mut wrong = Vec::new();
    for (judge, said) in [
        ("kstatus", &verdict.kstatus),
        ("kstatus of Flux", &verdict.flux_kstatus),
    ] {
        if said.status != stand.kstatus() {
            wrong.push(format!("{judge} says {said:?} of {stand:?}"));
        }
    }
    let argo = &verdict.argo;
    if argo.status != stand.argo() {
        wrong.push(format!("Argo CD says {argo:?} of {stand:?}"));
    }
    let against = stand.against(verdict);
    if !against.is_empty() {
        wrong.push(format!("Flux's checker says {against:?} of {stand:?}"));
    }
    // Whatever the conditions say, the cloud's own word is what an end rests on.
    let said = [verdict.kstatus.status, verdict.flux_kstatus.status];
    let ended_well = object["status"]["status"] == "SUCCESS" && is_acknowledged(object);
    let called_good = said.contains(&Kstatus::Current) || argo.status == ArgoHealth::Healthy;
    if called_good && !ended_well {
        wrong.push("called good without an acknowledged SUCCESS".to_owned());
    }
    wrong
}

fn running(job: &str) -> Job {
    Job::new(crate::harness::PROJECT, job).ends(End::Never)
}
