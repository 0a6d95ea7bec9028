//! What holds in each version of an object, and between each and the next, whatever happens.

use super::{condition, conditions, describe, is_acknowledged};
use serde_json::{Value, json};

const OURS: [&str; 4] = ["Ready", "Succeeded", "Reconciling", "Stalled"];

/// What the cloud said about an end, which is never said otherwise again.
const FACTS: [&str; 5] = [
    "status",
    "imageID",
    "failReason",
    "errorCode",
    "completionTime",
];

/// The laws that the versions of one object, oldest first, break.
pub fn broken(versions: &[Value]) -> Vec<String> {
    let mut broken = Vec::new();
    for object in versions {
        let laws = of_a_version(object);
        broken.extend(
            laws.iter()
                .map(|law| format!("{}: {law}", describe(object))),
        );
    }
    for pair in versions.windows(2) {
        let laws = of_a_step(&pair[0], &pair[1]);
        broken.extend(
            laws.iter()
                .map(|law| format!("{}: {law}", describe(&pair[1]))),
        );
    }
    broken
}

fn of_a_version(object: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let present = OURS.map(|type_| !condition(object, type_).is_null());
    let [ready, succeeded, reconciling, stalled] = present;
    if reconciling && stalled {
        broken.push("Reconciling and Stalled together".to_owned());
    }
    let seen = object["status"]["observedGeneration"].as_i64() >= Some(0);
    if seen && !(ready && succeeded) {
        broken.push("Ready or Succeeded is missing".to_owned());
    }
    if !seen && present.contains(&true) {
        broken.push("a condition of ours without observedGeneration".to_owned());
    }
    for type_ in ["Reconciling", "Stalled"] {
        let condition = condition(object, type_);
        if !condition.is_null() && condition["status"] != "True" {
            broken.push(format!("{type_} is present and not True"));
        }
    }
    broken
}

fn of_a_step(before: &Value, after: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    if ours(before) != ours(after) {
        let generation = &after["metadata"]["generation"];
        let behind = OURS.iter().any(|type_| {
            let condition = condition(after, type_);
            !condition.is_null() && condition["observedGeneration"] != *generation
        });
        if behind || !is_acknowledged(after) {
            broken.push("written for another generation than the present one".to_owned());
        }
    }
    for type_ in OURS {
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

/// The status without conditions of others.
fn ours(object: &Value) -> Value {
    let mut status = object["status"].clone();
    let conditions: Vec<&Value> = conditions(object)
        .filter(|condition| OURS.iter().any(|type_| condition["type"] == *type_))
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

/// All that an end consists of, generations aside.
fn end(object: &Value) -> Value {
    let facts = FACTS.map(|field| object["status"][field].clone());
    let conditions = OURS.map(|type_| {
        let mut condition = condition(object, type_).clone();
        if let Some(condition) = condition.as_object_mut() {
            condition.remove("observedGeneration");
        }
        condition
    });
    json!([facts, conditions])
}

#[test]
fn a_broken_law_is_noticed() {
    let condition = |type_: &str, status: &str, since: i64| {
        json!({
            "type": type_, "status": status, "observedGeneration": 1, "reason": "R",
            "message": "m", "lastTransitionTime": since,
        })
    };
    let object = |observed: i64, word: &str, conditions: &[Value]| {
        json!({
            "metadata": { "generation": 1 },
            "status": {
                "observedGeneration": observed, "status": word, "conditions": conditions,
                "completionTime": if word == "RUNNING" { Value::Null } else { json!("now") },
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
    for (law, versions) in [
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
            broken.iter().any(|said| said.contains(law)),
            "{law}: {broken:?}"
        );
    }
}
