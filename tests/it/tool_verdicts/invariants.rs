//! Invariants of each version of an object, and of each step from one version to the next.

use super::{condition, conditions, describe, is_acknowledged};
use serde_json::{Value, json};

/// The types that the operator owns.
const OWNED: [&str; 4] = ["Ready", "Succeeded", "Reconciling", "Stalled"];

/// The fields of an end, which never change after it.
const END_FIELDS: [&str; 5] = [
    "status",
    "imageID",
    "failReason",
    "errorCode",
    "completionTime",
];

/// The invariants that the versions of one object, oldest first, break.
pub fn broken(versions: &[Value]) -> Vec<String> {
    let mut broken = Vec::new();
    for object in versions {
        let found = broken_in_version(object);
        broken.extend(
            found
                .iter()
                .map(|what| format!("{}: {what}", describe(object))),
        );
    }
    for pair in versions.windows(2) {
        let found = broken_in_step(&pair[0], &pair[1]);
        broken.extend(
            found
                .iter()
                .map(|what| format!("{}: {what}", describe(&pair[1]))),
        );
    }
    broken
}

fn broken_in_version(object: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let present = OWNED.map(|type_| !condition(object, type_).is_null());
    let [ready, succeeded, reconciling, stalled] = present;
    if reconciling && stalled {
        broken.push("Reconciling and Stalled together".to_owned());
    }
    let seen = object["status"]["observedGeneration"].as_i64() >= Some(0);
    if seen && !(ready && succeeded) {
        broken.push("Ready or Succeeded is missing".to_owned());
    }
    if !seen && present.contains(&true) {
        broken.push("an owned condition without observedGeneration".to_owned());
    }
    for type_ in ["Reconciling", "Stalled"] {
        let condition = condition(object, type_);
        if !condition.is_null() && condition["status"] != "True" {
            broken.push(format!("{type_} is present and not True"));
        }
    }
    broken
}

fn broken_in_step(before: &Value, after: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    if without_unowned(before) != without_unowned(after) {
        let generation = &after["metadata"]["generation"];
        let behind = OWNED.iter().any(|type_| {
            let condition = condition(after, type_);
            !condition.is_null() && condition["observedGeneration"] != *generation
        });
        if behind || !is_acknowledged(after) {
            broken.push("written for another generation than the present one".to_owned());
        }
    }
    for type_ in OWNED {
        let (old, new) = (condition(before, type_), condition(after, type_));
        if old.is_null() || new.is_null() {
            continue;
        }
        let moved = old["lastTransitionTime"] != new["lastTransitionTime"];
        if moved && old["status"] == new["status"] {
            broken.push(format!("lastTransitionTime of {type_} moved alone"));
        }
    }
    if is_final(before) && end(before) != end(after) {
        broken.push(format!("the end was {}", end(before)));
    }
    broken
}

/// The status without the conditions owned by others.
fn without_unowned(object: &Value) -> Value {
    let mut status = object["status"].clone();
    let conditions: Vec<&Value> = conditions(object)
        .filter(|condition| OWNED.iter().any(|type_| condition["type"] == *type_))
        .collect();
    let conditions = json!(conditions);
    if status.is_object() {
        status["conditions"] = conditions;
    }
    status
}

fn is_final(object: &Value) -> bool {
    !object["status"]["completionTime"].is_null()
}

/// Everything that belongs to an end, except for generations.
fn end(object: &Value) -> Value {
    let facts = END_FIELDS.map(|field| object["status"][field].clone());
    let conditions = OWNED.map(|type_| {
        let mut condition = condition(object, type_).clone();
        if let Some(condition) = condition.as_object_mut() {
            condition.remove("observedGeneration");
        }
        condition
    });
    json!([facts, conditions])
}

#[test]
fn a_broken_invariant_is_noticed() {
    let condition = |type_: &str, status: &str, since: i64| {
        json!({
            "type": type_, "status": status, "observedGeneration": 1, "reason": "R",
            "message": "m", "lastTransitionTime": since,
        })
    };
    let object = |observed: i64, job_status: &str, conditions: &[Value]| {
        json!({
            "metadata": { "generation": 1 },
            "status": {
                "observedGeneration": observed, "status": job_status, "conditions": conditions,
                "completionTime": if job_status == "RUNNING" { Value::Null } else { json!("now") },
            },
        })
    };
    let (ready, succeeded) = (
        condition("Ready", "Unknown", 1),
        condition("Succeeded", "Unknown", 1),
    );
    let both = [ready.clone(), succeeded.clone()];
    let good = object(1, "RUNNING", &both);
    assert!(broken(&[good.clone(), good.clone()]).is_empty());
    let with = |more: &[Value]| [&both[..], more].concat();
    for (expected, versions) in [
        (
            "together",
            vec![object(
                1,
                "RUNNING",
                &with(&[
                    condition("Reconciling", "True", 1),
                    condition("Stalled", "True", 1),
                ]),
            )],
        ),
        (
            "not True",
            vec![object(
                1,
                "RUNNING",
                &with(&[condition("Stalled", "False", 1)]),
            )],
        ),
        ("missing", vec![object(1, "RUNNING", &[ready])]),
        (
            "without observedGeneration",
            vec![object(-1, "RUNNING", &both)],
        ),
        (
            "another generation",
            vec![good.clone(), object(2, "SUCCESS", &both)],
        ),
        (
            "moved alone",
            vec![
                good.clone(),
                object(1, "RUNNING", &[condition("Ready", "Unknown", 2), succeeded]),
            ],
        ),
        (
            "the end was",
            vec![object(1, "SUCCESS", &both), object(1, "FAIL", &both)],
        ),
    ] {
        let broken = broken(&versions);
        assert!(
            broken.iter().any(|found| found.contains(expected)),
            "{expected}: {broken:?}"
        );
    }
}
