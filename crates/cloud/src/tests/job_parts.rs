//! Where an answer keeps an image id, a reason and a code, and which of them count: those of its parts do by
//! the status of the part.

use super::job::answer;
use serde_json::{Value, json};

fn image_of(entities: &Value) -> Option<String> {
    let success = json!({"status": "SUCCESS", "entities": entities});
    let image_id = answer(&success).unwrap().image_id;
    image_id.map(|id| id.to_string())
}

/// What a job that failed shows: its code, and its reason.
fn error_of(changes: &Value) -> (Option<String>, Option<String>) {
    let mut changes = changes.clone();
    changes["status"] = json!("FAIL");
    let failed = answer(&changes).unwrap();
    let text = |text: Option<std::sync::Arc<str>>| text.map(|text| text.to_string());
    (text(failed.error_code), text(failed.fail_reason))
}

#[test]
fn the_image_id_comes_from_these_places_in_this_order() {
    // From the last place to the first.
    let places = [
        ("__data_images", json!({"image_id": "in-an-object"})),
        (
            "sub_jobs_result",
            json!([{"entities": {}}, {"entities": {"image_id": "sub-job"}}]),
        ),
        (
            "results",
            json!([{"image_id": ""}, {"image_id": "result"}, {"image_id": "third"}]),
        ),
        ("__data_images", json!("data")),
        ("image_id", json!(" own ")),
    ];
    let mut entities = json!({"image_id": "", "results": [], "sub_jobs_result": null});
    assert_eq!(image_of(&entities), None);
    for ((place, value), expected) in
        places
            .into_iter()
            .zip(["in-an-object", "sub-job", "result", "data", "own"])
    {
        entities[place] = value;
        assert_eq!(image_of(&entities).as_deref(), Some(expected), "{entities}");
    }
    for no_id in [
        json!("no id!"),
        json!("../../etc"),
        json!("im\u{200b}age"),
        json!("x".repeat(65)),
        json!(null),
        json!(7),
    ] {
        for place in ["image_id", "__data_images"] {
            assert_eq!(image_of(&json!({place: no_id})), None, "{place} {no_id}");
        }
    }
}

#[test]
fn data_images_are_an_id_or_a_list() {
    for (images, expected) in [
        (json!("good"), Some("good")),
        (json!(" good "), Some("good")),
        (json!("good,other"), Some("good")),
        (json!(", good"), Some("good")),
        (json!(["good", "other"]), Some("good")),
        (json!([null, 7, "", "good"]), Some("good")),
        (json!({"image_id": "good"}), Some("good")),
        (
            json!([{"image_id": "good"}, {"image_id": "other"}]),
            Some("good"),
        ),
        (
            json!([{"image_id": "bad", "status": "FAIL"}, {"image_id": "good", "status": "SUCCESS"}]),
            Some("good"),
        ),
        (json!({"image_id": "bad", "status": "FAIL"}), None),
        (json!([["nested"]]), None),
        (json!(""), None),
        (json!({}), None),
    ] {
        let found = image_of(&json!({"__data_images": images}));
        assert_eq!(found.as_deref(), expected, "{images}");
    }
}

/// Of a part that is said to have failed, runs, or has a status that is not known, no image is known to exist.
#[test]
fn a_part_yields_its_image_only_with_the_status_success_or_none() {
    for (status, counts) in [
        (json!("SUCCESS"), true),
        (json!("success"), true),
        (json!(" Success "), true),
        (json!(null), true),
        (json!(""), true),
        (json!(" "), true),
        (json!("FAIL"), false),
        (json!("fail"), false),
        (json!("Failed"), false),
        (json!("RUNNING"), false),
        (json!("INIT"), false),
        (json!("ROLLBACK"), false),
        (json!("SUC\u{200b}CESS"), false),
        (json!(1), false),
        (json!(true), false),
        (json!(["SUCCESS"]), false),
        (json!({"message": "SUCCESS"}), false),
    ] {
        for list in ["results", "sub_jobs_result", "__data_images"] {
            for part in [
                json!({"status": status, "image_id": "first"}),
                json!({"status": status, "entities": {"image_id": "first"}}),
            ] {
                let other = json!({"status": "SUCCESS", "image_id": "second"});
                let entities = json!({list: [part, other]});
                let expected = if counts { "first" } else { "second" };
                assert_eq!(image_of(&entities).as_deref(), Some(expected), "{entities}");
                let alone = image_of(&json!({list: [part]}));
                assert_eq!(alone.is_some(), counts, "{part}");
            }
        }
    }
    let absent = json!({"results": [{"image_id": "first"}]});
    assert_eq!(image_of(&absent).as_deref(), Some("first"));
}

/// An export may have repeated a sub-job, on the same image.
#[test]
fn a_failed_part_does_not_hide_the_own_image_of_the_job() {
    let failed = json!([{"status": "FAIL", "entities": {"image_id": "source"}}]);
    let entities = json!({"image_id": "source", "sub_jobs_result": failed});
    assert_eq!(image_of(&entities).as_deref(), Some("source"));
}

#[test]
fn published_answers_with_parts() {
    let ova = json!({"sub_jobs_result": [
        {"job_id": "9a175ac79d2a54ad019d4c37b9772673", "job_type": "imsImportImageJob", "status": "SUCCESS", "error_code": null, "fail_reason": null,
         "entities": {"image_name": "name", "image_id": "6d0c5c0e-5505-4ba8-ab65-7e78efe77130"}},
        {"job_id": "9a175ac79d2a54ad019d4c37b9862674", "job_type": "imsImportDataImageJob", "status": "SUCCESS", "error_code": null, "fail_reason": null,
         "entities": {"image_name": "name", "image_id": "3e0c2b6c-e56f-435a-bcb5-e6a45cccdd75"}},
    ]});
    let volumes = json!({
        "sub_jobs_result": [
            {"job_id": "9a175ac792fa12d20193003205b22be1", "job_type": "imsCopyVolumeToImageJob", "status": "SUCCESS", "error_code": null, "fail_reason": null,
             "entities": {"image_name": "test", "image_id": "bfb2de92-e7b9-4820-9522-416d8f2c812a"}},
        ],
        "sub_jobs_list": ["9a175ac792fa12d20193003205b22be1"],
    });
    let members = json!({"results": [{"image_id": "30e55148-deb9-4923-adb9-91618de16ba0", "status": "success"}]});
    for (entities, expected) in [
        // The system disk comes first, then the data disks.
        (ova, "6d0c5c0e-5505-4ba8-ab65-7e78efe77130"),
        (volumes, "bfb2de92-e7b9-4820-9522-416d8f2c812a"),
        (members, "30e55148-deb9-4923-adb9-91618de16ba0"),
    ] {
        assert_eq!(image_of(&entities).as_deref(), Some(expected), "{entities}");
    }
    assert_eq!(image_of(&json!({"results": []})), None);
}

#[test]
fn reason_and_code_come_from_these_places_in_this_order() {
    let part = json!({"status": "FAIL", "error_code": "IMG.1", "fail_reason": "part"});
    let mut job = json!({"entities": {"alarm_code": "IMG.0"}});
    let mut shows = |pointer: &str, values: &[(&str, Value)], code: &str, reason: Option<&str>| {
        for (name, value) in values {
            job.pointer_mut(pointer).unwrap()[*name] = value.clone();
        }
        let expected = (Some(code.to_owned()), reason.map(str::to_owned));
        assert_eq!(error_of(&job), expected, "{job}");
    };
    let text = |text: &str| json!(text);
    // From the last place to the first.
    shows("", &[], "IMG.0", None);
    shows(
        "/entities",
        &[("sub_jobs_result", json!([part]))],
        "IMG.1",
        Some("part"),
    );
    shows(
        "/entities",
        &[
            ("addition_error_code", text("IMG.2")),
            ("addition_error_msg", text("addition")),
        ],
        "IMG.2",
        Some("addition"),
    );
    shows(
        "/entities",
        &[("error_msg", text("message"))],
        "IMG.2",
        Some("message"),
    );
    shows(
        "/entities",
        &[("error", json!({"code": "IMG.3", "message": "object"}))],
        "IMG.3",
        Some("object"),
    );
    shows(
        "/entities",
        &[("error", text("text")), ("error_code", text("IMG.4"))],
        "IMG.4",
        Some("text"),
    );
    shows(
        "/entities",
        &[("fail_reason", text("inner"))],
        "IMG.4",
        Some("inner"),
    );
    // What is absent may be written so.
    let absent = [("fail_reason", text("null")), ("error_code", json!(0))];
    shows("", &absent, "IMG.4", Some("inner"));
    shows(
        "",
        &[("error_msg", text("outer message"))],
        "IMG.4",
        Some("outer message"),
    );
    shows(
        "",
        &[
            ("fail_reason", text("outer")),
            ("error_code", text("IMG.5")),
        ],
        "IMG.5",
        Some("outer"),
    );
}

#[test]
fn a_failed_job_without_a_reason_shows_that_of_a_failed_part() {
    let cases = [
        (
            json!([{"status": "SUCCESS"}, {"status": "FAIL", "error_code": "IMG.0148", "fail_reason": "no bucket"}]),
            (Some("IMG.0148"), Some("no bucket")),
        ),
        (
            json!([{"status": "Failed", "entities": {"error_code": "IMG.0148", "error": "no bucket"}}]),
            (Some("IMG.0148"), Some("no bucket")),
        ),
        // Code and reason are of one part, the first that gives a reason.
        (
            json!([{"status": "FAIL", "error_code": "IMG.1"}, {"status": "FAIL", "error_code": "IMG.2", "fail_reason": "two"}]),
            (Some("IMG.2"), Some("two")),
        ),
        (
            json!([{"status": "FAIL", "error_code": "IMG.1"}, {"status": "FAIL", "fail_reason": "two"}]),
            (None, Some("two")),
        ),
        (
            json!([{"status": "FAIL"}, {"status": "FAIL", "error_code": "IMG.2"}]),
            (Some("IMG.2"), None),
        ),
        (
            json!([{"error_code": "IMG.1", "fail_reason": "of a part without a status"}]),
            (Some("IMG.1"), Some("of a part without a status")),
        ),
        // What a part reports that has not failed is not why the job failed.
        (
            json!([{"status": "SUCCESS", "error_code": "IMG.1", "fail_reason": "was repeated"}]),
            (None, None),
        ),
        (
            json!([{"status": "RUNNING", "fail_reason": "x"}]),
            (None, None),
        ),
        (json!(["x", null, 7, []]), (None, None)),
    ];
    for (parts, (code, reason)) in cases {
        for list in ["results", "sub_jobs_result"] {
            for own in [json!({}), json!({"error_code": null, "fail_reason": ""})] {
                let mut job = own;
                job["entities"] = json!({list: parts});
                let expected = (code.map(str::to_owned), reason.map(str::to_owned));
                assert_eq!(error_of(&job), expected, "{job}");
            }
        }
    }
    // What the job gives itself stays.
    let part = json!([{"status": "FAIL", "error_code": "IMG.1", "fail_reason": "part"}]);
    let entities = json!({"sub_jobs_result": part});
    for (own, code, reason) in [
        (json!({"error_code": "IMG.9"}), "IMG.9", "part"),
        (json!({"fail_reason": "own"}), "IMG.1", "own"),
        (
            json!({"error_code": "IMG.9", "fail_reason": "own"}),
            "IMG.9",
            "own",
        ),
    ] {
        let mut job = own;
        job["entities"] = entities.clone();
        let expected = (Some(code.to_owned()), Some(reason.to_owned()));
        assert_eq!(error_of(&job), expected, "{job}");
    }
    // A job that has not failed has no reason of a part.
    for status in ["RUNNING", "SUCCESS", "ROLLBACK"] {
        let other = answer(&json!({"status": status, "entities": entities})).unwrap();
        assert_eq!((other.fail_reason, other.error_code), (None, None));
    }
}
