//! The body of a 200: published examples, constructed failures, and everything that can be wrong.

use super::{CANARY, grant};
use crate::{
    ims::job::{InvalidJob, parse},
    wire::text::Redactor,
};
use image_export_model::{JobAnswer, JobState};
use proptest::prelude::*;
use serde_json::{Value, json};

const JOB: &str = "9a175ac892fa134201930039db1a27b1";

fn read(body: &[u8], job_id: &str) -> Result<JobAnswer, InvalidJob> {
    parse(body, &job_id.parse().unwrap(), &grant().redactor)
}

/// A RUNNING answer with `changes` laid over it.
pub(super) fn answer(changes: &Value) -> Result<JobAnswer, InvalidJob> {
    let mut body = json!({"job_id": JOB, "status": "RUNNING"});
    let fields = body.as_object_mut().unwrap();
    fields.extend(changes.as_object().unwrap().clone());
    read(body.to_string().as_bytes(), JOB)
}

fn time(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

#[test]
fn the_documented_example() {
    let body = br#"{"status":"SUCCESS","entities":{"image_id":"e9e91bff-14b6-4a0b-8377-4ed0813e3360"},"job_id":"ff8080814dbd65d7014dbe0d84db0013","job_type":"createImageByInstance","begin_time":"04-Jun-2015 18:11:06:586","end_time":"","error_code":null,"fail_reason":null}"#;
    assert_eq!(
        read(body, "ff8080814dbd65d7014dbe0d84db0013"),
        Ok(JobAnswer {
            state: JobState::Success,
            job_type: Some("createImageByInstance".into()),
            image_id: Some("e9e91bff-14b6-4a0b-8377-4ed0813e3360".into()),
            fail_reason: None,
            error_code: None,
            percent: None,
            begin_time: Some(time("2015-06-04T18:11:06.586Z")),
            end_time: None,
        })
    );
}

#[test]
fn an_export_that_ended_well() {
    let body = br#"{"job_id":"9a175ac892fa134201930039db1a27b1","job_type":"imsNativeExportImageJob","begin_time":"2024-11-06T06:46:51.929Z","end_time":"2024-11-06T06:49:53.657Z","status":"SUCCESS","error_code":null,"fail_reason":null,"entities":{"image_id":"1ab4df10-fe18-48b7-91c9-53695fcd9df5"}}"#;
    let answer = read(body, JOB).unwrap();
    assert_eq!(answer.state, JobState::Success);
    assert_eq!(answer.job_type.as_deref(), Some("imsNativeExportImageJob"));
    assert_eq!(
        answer.image_id.as_deref(),
        Some("1ab4df10-fe18-48b7-91c9-53695fcd9df5")
    );
    assert_eq!(answer.begin_time, Some(time("2024-11-06T06:46:51.929Z")));
    assert_eq!(answer.end_time, Some(time("2024-11-06T06:49:53.657Z")));
}

#[test]
fn an_export_with_progress() {
    let body = br#"{"job_id":"9a175ac79d2a54ad019d2d0a1f074696","job_type":"imsNativeExportImageJob","begin_time":"2026-03-27T01:17:50.446Z","end_time":"2026-03-27T01:57:11.143Z","status":"SUCCESS","error_code":null,"fail_reason":null,"entities":{"image_name":"name","image_id":"698a61e2-abde-4151-a778-f9035e214c92","process_percent":1,"current_task":""}}"#;
    let answer = read(body, "9a175ac79d2a54ad019d2d0a1f074696").unwrap();
    assert_eq!(
        answer.image_id.as_deref(),
        Some("698a61e2-abde-4151-a778-f9035e214c92")
    );
    assert_eq!(answer.percent, Some(100));
}

#[test]
fn a_copy_at_work() {
    let body = br#"{"job_id":"ff80808280c204e30180d2784c3c0d86","job_type":"imsCopyImageInRegionJob","begin_time":"2022-05-17T14:42:20.859Z","end_time":"","status":"RUNNING","error_code":null,"fail_reason":null,"entities":{"image_name":"d0d2e701-dfc4-4520-9247-f92907f38eb0","process_percent":0.40,"current_task":"CopyImageInRegionTask:","subJobId":"ff80808280ca6cd30180d278b9db0221","image_id":"498cc67e-7795-482c-8c47-32bcece2d7ec"}}"#;
    let answer = read(body, "ff80808280c204e30180d2784c3c0d86").unwrap();
    assert_eq!((answer.state, answer.end_time), (JobState::Running, None));
    assert_eq!(answer.percent, Some(40));
}

#[test]
fn a_percentage_is_a_fraction_or_nothing() {
    for hundredths in 0..=100u8 {
        let body = format!(
            r#"{{"job_id":"{JOB}","status":"RUNNING","entities":{{"process_percent":{}}}}}"#,
            f64::from(hundredths) / 100.0
        );
        let answer = read(body.as_bytes(), JOB).unwrap();
        assert_eq!(answer.percent, Some(hundredths), "{body}");
    }
    for odd in [
        json!(40),
        json!(-0.1),
        json!(1.01),
        json!("0.4"),
        json!(null),
        json!([0.4]),
    ] {
        let running = json!({"status": "RUNNING", "entities": {"process_percent": odd}});
        assert_eq!(answer(&running).unwrap().percent, None, "{odd}");
    }
}

#[test]
fn a_constructed_fail_keeps_reason_and_code() {
    let failed =
        answer(&json!({"status": "FAIL", "error_code": "IMG.0148", "fail_reason": "no space"}))
            .unwrap();
    assert_eq!(failed.state, JobState::Fail);
    assert_eq!(failed.error_code.as_deref(), Some("IMG.0148"));
    assert_eq!(failed.fail_reason.as_deref(), Some("no space"));
}

#[test]
fn job_statuses_compare_without_case_and_unknown_ones_stay_raw() {
    for (word, state) in [
        ("INIT", JobState::Init),
        (" running ", JobState::Running),
        ("success", JobState::Success),
        ("FAIL", JobState::Fail),
        ("failed", JobState::Fail),
        (
            "PENDING_PAYMENT",
            JobState::Unrecognized("PENDING_PAYMENT".into()),
        ),
        (" Rollback\u{0}", JobState::Unrecognized("Rollback".into())),
        ("SUCCESSFUL", JobState::Unrecognized("SUCCESSFUL".into())),
        ("SUCCESS!", JobState::Unrecognized("SUCCESS!".into())),
        (
            "PARTIAL_FAIL",
            JobState::Unrecognized("PARTIAL_FAIL".into()),
        ),
        ("FAI\u{7}LING", JobState::Unrecognized("FAILING".into())),
        // Not the words that are left once what cannot be seen is removed.
        ("SUC\u{200b}CESS", JobState::Unrecognized("SUCCESS?".into())),
        ("success\u{0}", JobState::Unrecognized("success?".into())),
        ("\u{feff}FAIL", JobState::Unrecognized("FAIL?".into())),
        ("Fai\u{ad}led", JobState::Unrecognized("Failed?".into())),
        ("IN\u{202e}IT", JobState::Unrecognized("INIT?".into())),
        ("RUN\u{7f}NING", JobState::Unrecognized("RUNNING?".into())),
    ] {
        assert_eq!(
            answer(&json!({"status": word})).unwrap().state,
            state,
            "{word}"
        );
    }
    let cut = format!("SUCCESS{}X", " ".repeat(64));
    assert_eq!(
        answer(&json!({"status": cut})).unwrap().state,
        JobState::Unrecognized("SUCCESS?".into())
    );
    let JobState::Unrecognized(raw) = answer(&json!({"status": "ä".repeat(99)})).unwrap().state
    else {
        panic!("not raw");
    };
    assert_eq!(raw.chars().count(), 64);
}

#[test]
fn an_answer_must_name_the_job_and_have_a_status() {
    for (changes, why) in [
        (json!({"job_id": "other"}), InvalidJob::OtherJob),
        (json!({"job_id": JOB.to_uppercase()}), InvalidJob::OtherJob),
        (
            json!({"job_id": format!("{JOB}-longer")}),
            InvalidJob::OtherJob,
        ),
        (
            json!({"job_id": format!("{JOB}\u{200b}")}),
            InvalidJob::OtherJob,
        ),
        (json!({"job_id": " "}), InvalidJob::NoJobId),
        (json!({"job_id": [JOB]}), InvalidJob::NoJobId),
        (json!({"job_id": ""}), InvalidJob::NoJobId),
        (json!({"job_id": null}), InvalidJob::NoJobId),
        (json!({"job_id": 7}), InvalidJob::NoJobId),
        (json!({"status": ""}), InvalidJob::NoStatus),
        (json!({"status": " \u{0}"}), InvalidJob::NoStatus),
        (json!({"status": null}), InvalidJob::NoStatus),
        (json!({"status": ["SUCCESS"]}), InvalidJob::NoStatus),
        (json!({"status": 1}), InvalidJob::NoStatus),
    ] {
        assert_eq!(answer(&changes), Err(why), "{changes}");
    }
    assert!(
        answer(&json!({"job_id": format!(" {JOB} ")})).is_ok(),
        "ids are trimmed"
    );
}

#[test]
fn a_success_is_one_whatever_else_the_answer_reports() {
    let odd = answer(&json!({
        "status": "SUCCESS", "end_time": "", "error_code": "IMG.0001",
        "entities": {"image_id": "image", "process_percent": 0.20},
    }))
    .unwrap();
    assert_eq!((odd.state, odd.end_time), (JobState::Success, None));
    assert_eq!(odd.image_id.as_deref(), Some("image"));
    assert_eq!(odd.error_code.as_deref(), Some("IMG.0001"));
    let done = json!({"status": "RUNNING", "entities": {"process_percent": 1}});
    assert_eq!(answer(&done).unwrap().state, JobState::Running);
}

#[test]
fn any_job_type_is_read_and_none_is_needed() {
    for (job_type, expected) in [
        (
            json!("imsCopyImageInRegionJob"),
            Some("imsCopyImageInRegionJob"),
        ),
        (json!("somethingNew"), Some("somethingNew")),
        (json!(""), None),
        (json!(null), None),
        (json!([]), None),
    ] {
        let read = answer(&json!({"status": "SUCCESS", "job_type": job_type})).unwrap();
        assert_eq!(read.state, JobState::Success, "{job_type}");
        assert_eq!(read.job_type.as_deref(), expected, "{job_type}");
    }
}

#[test]
fn both_time_formats_give_the_same_time() {
    for text in ["04-Jun-2015 18:11:06:586", "2015-06-04T18:11:06.586Z"] {
        let read = answer(&json!({"begin_time": text, "end_time": ""})).unwrap();
        let begun = Some(time("2015-06-04T18:11:06.586Z"));
        assert_eq!((read.begin_time, read.end_time), (begun, None), "{text}");
    }
}

#[test]
fn bodies_that_are_no_json_object() {
    let deep = "[".repeat(10_000);
    let cut = format!(r#"{{"job_id":"{JOB}","status":"SUC"#);
    for body in [
        "",
        "<html>",
        "NaN",
        &deep,
        &cut,
        "{\"job_id\":\"\u{0}",
        r#"{"status":NaN}"#,
    ] {
        assert_eq!(
            read(body.as_bytes(), JOB),
            Err(InvalidJob::NotJson),
            "{body:.20}"
        );
    }
    assert_eq!(
        read(b"{\"job_id\":\"\xff\xfe\"}", JOB),
        Err(InvalidJob::OtherJob)
    );
    for body in ["null", "[]", "\"SUCCESS\"", "5"] {
        assert_eq!(
            read(body.as_bytes(), JOB),
            Err(InvalidJob::NotAnObject),
            "{body}"
        );
    }
}

#[test]
fn a_byte_order_mark_and_duplicate_keys_are_tolerated() {
    let body =
        format!("\u{feff}{{\"job_id\":\"{JOB}\",\"status\":\"INIT\",\"status\":\"RUNNING\"}}");
    assert_eq!(read(body.as_bytes(), JOB).unwrap().state, JobState::Running);
}

#[test]
fn a_text_that_was_cut_within_a_character_does_not_hide_an_end() {
    let head =
        format!("{{\"job_id\":\"{JOB}\",\"status\":\"FAIL\",\"fail_reason\":\"disk full \u{e9}");
    let mut body = head.into_bytes();
    body.pop();
    body.extend(b"\"}");
    let answer = read(&body, JOB).unwrap();
    assert_eq!(answer.state, JobState::Fail);
    assert_eq!(answer.fail_reason.as_deref(), Some("disk full \u{fffd}"));
    body.pop();
    assert_eq!(read(&body, JOB), Err(InvalidJob::NotJson));
}

#[test]
fn wrong_types_of_optional_fields_do_not_invalidate_the_answer() {
    let read = answer(&json!({
        "job_type": 5, "begin_time": 5, "end_time": {}, "error_code": 42, "fail_reason": ["x"], "entities": [1],
    })).unwrap();
    assert_eq!(read.job_type.as_deref(), Some("5"));
    assert_eq!(read.error_code.as_deref(), Some("42"));
    assert_eq!(
        (
            read.fail_reason,
            read.begin_time,
            read.end_time,
            read.image_id
        ),
        (None, None, None, None)
    );
    for entities in [
        json!(null),
        json!("x"),
        json!([]),
        json!(7),
        json!({"image_id": 7}),
        json!({"image_id": ["x"], "results": {"image_id": "x"}, "sub_jobs_result": "x"}),
        json!({"results": [7, null, [], {"image_id": {}}], "sub_jobs_result": [{"entities": 7}]}),
        json!({"results": {}, "sub_jobs_result": [null, 1, {"entities": 3}]}),
    ] {
        assert_eq!(
            answer(&json!({"entities": entities})).unwrap().image_id,
            None
        );
    }
}

#[test]
fn texts_are_stripped_bounded_and_redacted() {
    let long = answer(&json!({"fail_reason": "ä".repeat(4096), "error_code": "x".repeat(99), "job_type": "y".repeat(999)})).unwrap();
    let reason = long.fail_reason.unwrap();
    assert!(
        reason.len() <= 1024 && reason.ends_with('…'),
        "{}",
        reason.len()
    );
    assert!(long.error_code.unwrap().len() <= 64);
    assert!(long.job_type.unwrap().len() <= 128);

    let echo = json!(format!("token {CANARY} at <b>\u{202e}"));
    let echoing = answer(&json!({
        "status": CANARY, "fail_reason": echo, "error_code": CANARY, "job_type": CANARY,
        "entities": {"image_id": CANARY},
    }))
    .unwrap();
    assert!(!format!("{echoing:?}").contains(CANARY), "{echoing:?}");
    assert_eq!(
        echoing.fail_reason.as_deref(),
        Some("token [redacted] at <b>")
    );
}

/// What an answer means does not depend on the secrets that it is compared with.
#[test]
fn no_secret_changes_what_an_answer_means() {
    const IMAGE: &str = "e9e91bff-14b6-4a0b-8377-4ed0813e3360";
    let answer = |status: &str, image_id: &str, secret: &str| {
        let body = json!({
            "job_id": JOB, "status": status, "job_type": "imsAddImageMembersJob",
            "entities": {"image_id": image_id},
        });
        let redactor = Redactor::new([&secret.into()]);
        parse(
            body.to_string().as_bytes(),
            &JOB.parse().unwrap(),
            &redactor,
        )
        .unwrap()
    };
    for status in ["INIT", "RUNNING", "SUCCESS", "FAIL", "FAILED"] {
        let plain = answer(status, IMAGE, "");
        for secret in [
            "INIT",
            "running",
            "SUCCESS",
            "SUCC",
            "CESS",
            "fail",
            "FAILED",
            "RUN",
            "UNNI",
            "e9e91bf",
            "14b6",
            "4a0b",
            JOB,
            "imsAddImageMembersJob",
            "ImageMembers",
            "Image",
        ] {
            assert_eq!(answer(status, IMAGE, secret), plain, "{status} {secret}");
        }
        // An id that holds a long secret is not shown.
        for secret in [IMAGE, "4ed0813e3360"] {
            let hidden = answer(status, IMAGE, secret);
            assert_eq!((hidden.state, hidden.image_id), (plain.state.clone(), None));
        }
        let short = answer(status, "hunter2", "hunter2").image_id;
        assert_eq!(short.as_deref(), Some("hunter2"));
    }
    let odd = answer("SUCCESScanary-7f3a", IMAGE, CANARY).state;
    assert_eq!(odd, JobState::Unrecognized("SUCCESS[redacted]".into()));
    let odd = answer("canary\u{200b}-7f3a", IMAGE, CANARY).state;
    assert_eq!(odd, JobState::Unrecognized("[redacted]".into()));
}

#[test]
fn a_job_type_is_one_that_has_no_image_letter_for_letter() {
    for (job_type, expected) in [
        (" imsDelImageMembersJob ", "imsDelImageMembersJob"),
        ("imsDel\u{200b}ImageMembersJob", "imsDelImageMembersJob?"),
        ("imsDelImageMembersJobs", "imsDelImageMembersJobs"),
    ] {
        let read = answer(&json!({"job_type": job_type})).unwrap();
        assert_eq!(read.job_type.as_deref(), Some(expected));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = read(&body, JOB);
    }

    #[test]
    fn no_values_make_the_parser_panic_or_break_its_bounds(
        status in any::<String>(), reason in any::<String>(), begin in any::<String>(), code in any::<f64>(),
    ) {
        let changes = json!({"status": status, "fail_reason": reason, "begin_time": begin, "error_code": code});
        if let Ok(read) = answer(&changes) {
            prop_assert!(read.fail_reason.is_none_or(|text| text.len() <= 1024));
            prop_assert!(read.error_code.is_none_or(|text| text.len() <= 64));
        }
    }
}
