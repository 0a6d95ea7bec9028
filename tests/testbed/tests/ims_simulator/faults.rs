//! Scripted answers, outages, and each named fault as a client sees it.

use crate::{PROJECT, client, error, finished_job, query, query_json, simulator};
use serde_json::Value;
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};
use testbed::ims::{Answer, Gate, JobKey, OutageStart, PRESETS, Target};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn queued_answers_come_one_for_each_request_and_then_the_job_answers_again() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    simulator.script(
        key.clone(),
        [Answer::status(503), Answer::pass(), Answer::status(500)],
    );
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(query(&simulator, &key).await.status().as_u16());
    }
    assert_eq!(statuses, [503, 200, 500, 200]);
}

#[tokio::test]
async fn a_script_answers_for_its_job_alone_and_precedes_that_for_all_jobs() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let other = JobKey::new("p", "j");
    simulator.script_forever(key.clone(), Answer::status(500));
    simulator.script_forever(Target::Jobs, Answer::status(503));
    for _ in 0..2 {
        assert_eq!(query(&simulator, &key).await.status(), 500);
        assert_eq!(query(&simulator, &other).await.status(), 503);
    }
    simulator.clear_script(key.clone());
    assert_eq!(query(&simulator, &key).await.status(), 503);
    simulator.clear_script(Target::Jobs);
    assert_eq!(query(&simulator, &key).await.status(), 200);
}

#[tokio::test]
async fn status_headers_and_body_are_sent_as_scripted() {
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "j");
    let body = &b"\xff{job_id}\x00"[..];
    simulator.script(
        key.clone(),
        [Answer::status(299)
            .header("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT")
            .header("X-Request-Id", "mine")
            .body(body)],
    );
    let response = query(&simulator, &key).await;
    assert_eq!(response.status(), 299);
    assert_eq!(
        response.headers()["retry-after"],
        "Wed, 21 Oct 2015 07:28:00 GMT"
    );
    assert_eq!(response.headers()["x-request-id"], "mine");
    assert_eq!(response.bytes().await.unwrap(), body);
}

#[tokio::test]
async fn an_answer_may_be_late_or_held_by_a_gate() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    simulator.script(key.clone(), [Answer::pass().after(SHORT)]);
    let started = Instant::now();
    assert_eq!(query(&simulator, &key).await.status(), 200);
    assert!(started.elapsed() >= SHORT);

    let gate = Gate::new();
    let held = Answer::status(504).held_by(&gate);
    simulator.script(key.clone(), [held.clone(), held]);
    let release = async {
        gate.arrived(2).await;
        assert_eq!(gate.waiting(), 2);
        gate.open();
    };
    let (first, second, ()) =
        tokio::join!(query(&simulator, &key), query(&simulator, &key), release);
    assert_eq!(
        [first.status().as_u16(), second.status().as_u16()],
        [504, 504]
    );
    assert_eq!(gate.waiting(), 0);
    assert_eq!(simulator.counters().peak_polls_in_flight, 2);
}

#[tokio::test]
async fn a_hanging_request_is_logged_without_a_status() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    simulator.script(key.clone(), [Answer::hang()]);
    // The client goes away once its request has arrived.
    let asking = tokio::spawn(client().get(simulator.job_url(&key)).send());
    simulator.polled(&key, 1).await;
    assert!(!asking.is_finished());
    asking.abort();
    // The server notices a moment later that the client has gone.
    while simulator.counters().unanswered == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(simulator.requests()[0].status, None);
}

#[tokio::test]
async fn a_cut_body_breaks_after_the_headers() {
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "j");
    simulator.script(
        key.clone(),
        [Answer::status(200).body("0123456789").cut_after(4)],
    );
    let mut response = query(&simulator, &key).await;
    assert_eq!(
        (response.status().as_u16(), response.content_length()),
        (200, Some(10))
    );
    assert_eq!(response.chunk().await.unwrap().unwrap(), "0123");
    assert!(response.chunk().await.is_err());
}

#[tokio::test]
async fn a_body_may_drip_or_never_end() {
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "j");
    let every = Duration::from_millis(50);
    simulator.script(
        key.clone(),
        [
            Answer::status(200).body("abcd").drip(every),
            Answer::preset("endless"),
        ],
    );
    let started = Instant::now();
    assert_eq!(query(&simulator, &key).await.text().await.unwrap(), "abcd");
    assert!(started.elapsed() >= every * 4);

    let mut endless = query(&simulator, &key).await;
    let mut got = 0;
    while got < 1024 * 1024 {
        got += endless.chunk().await.unwrap().unwrap().len();
    }
}

#[tokio::test]
async fn an_outage_lasts_for_its_time_from_the_first_query_on() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let lasts = Duration::from_secs(1);
    let down = Answer::preset("unavailable");
    simulator.outage(Target::Jobs, down.clone(), lasts, OutageStart::FirstQuery);
    tokio::time::sleep(lasts).await;
    let first = Instant::now();
    assert_eq!(query(&simulator, &key).await.status(), 503);
    while query(&simulator, &key).await.status() == 503 {}
    assert!(first.elapsed() >= lasts);
    assert_eq!(query(&simulator, &key).await.status(), 200);

    let long = Duration::from_hours(1);
    simulator.outage(Target::Jobs, down.clone(), long, OutageStart::Now);
    assert_eq!(query(&simulator, &key).await.status(), 503);
    simulator.outage(Target::Jobs, down, SHORT, OutageStart::Now);
    tokio::time::sleep(SHORT).await;
    assert_eq!(query(&simulator, &key).await.status(), 200);
}

#[test]
fn presets_have_distinct_names() {
    let names: HashSet<_> = PRESETS.iter().map(|preset| preset.name).collect();
    assert_eq!(names.len(), PRESETS.len());
    for preset in PRESETS {
        assert!(Answer::find_preset(preset.name).is_some());
        assert!(!preset.about.is_empty());
    }
    assert!(Answer::find_preset("no-such-fault").is_none());
}

#[tokio::test]
async fn documented_errors_have_their_status_and_code() {
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "j");
    for (preset, status, code) in [
        ("img-0023", 400, "IMG.0023"),
        ("img-0024", 400, "IMG.0024"),
        ("img-0030", 400, "IMG.0030"),
        ("img-0060", 400, "IMG.0060"),
        ("img-0087", 400, "IMG.0087"),
        ("img-0026", 403, "IMG.0026"),
        ("img-0026-as-400", 400, "IMG.0026"),
        ("token-expired", 401, "APIGW.0307"),
        ("token-missing", 401, "APIGW.0301"),
        ("token-undecryptable", 401, "APIGW.0301"),
        ("signature-expired", 401, "APIGW.0301"),
        ("signature-wrong", 401, "APIGW.0301"),
        ("ak-unknown", 401, "APIGW.0301"),
        ("unauthorized", 401, "401"),
        ("forbidden", 403, "403"),
        ("job-not-found", 404, "IMG.0121"),
        ("api-not-published", 404, "APIGW.0101"),
        ("throttled", 429, "APIGW.0308"),
        ("throttled-retry-after", 429, "APIGW.0308"),
        ("throttled-503", 503, "APIGW.0308"),
        ("internal-error", 500, "500"),
        ("unavailable", 503, "503"),
        ("ak-locked", 401, "APIGW.0301"),
        ("security-token-wrong", 401, "APIGW.0301"),
        ("iam-unavailable", 503, "APIGW.0613"),
        ("iam-locked", 401, "401"),
    ] {
        simulator.script(key.clone(), [Answer::preset(preset)]);
        let answered = error(query(&simulator, &key).await).await;
        assert_eq!(answered, (status, code.to_owned()), "{preset}");
    }
}

#[tokio::test]
async fn the_three_error_shapes_are_byte_for_byte_as_published() {
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "j");
    for (preset, body) in [
        (
            "img-0024",
            r#"{"error":{"message":"The imagetype is invalid.","code":"IMG.0024"}}"#,
        ),
        (
            "throttled",
            r#"{"error_msg":"The throttling threshold has been reached: policy ip over ratelimit,limit:5,time:5 second","error_code":"APIGW.0308","request_id":"c50619de20b0e70590f57a99dbed044f"}"#,
        ),
        (
            "unauthorized",
            r#"{"error":{"message":"Unauthorized.","code":401,"title":"Unauthorized"}}"#,
        ),
    ] {
        simulator.script(key.clone(), [Answer::preset(preset)]);
        assert_eq!(query(&simulator, &key).await.text().await.unwrap(), body);
    }
}

#[tokio::test]
async fn passing_trouble_may_come_without_json() {
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "j");
    for (preset, status, header, value) in [
        ("bad-gateway", 502, "content-type", "text/html"),
        ("gateway-timeout", 504, "content-type", "text/html"),
        ("html", 200, "content-type", "text/html"),
        ("unavailable-retry-after", 503, "retry-after", "2"),
        ("redirect", 302, "location", "http://elsewhere.invalid/"),
        ("throttled-retry-after", 429, "retry-after", "2"),
        (
            "throttled-retry-after-huge",
            429,
            "retry-after",
            "99999999999999999999",
        ),
        ("throttled-retry-after-negative", 429, "retry-after", "-5"),
        ("throttled-retry-after-garbage", 429, "retry-after", "soon"),
        ("status-405", 405, "allow", "POST"),
        ("status-407", 407, "proxy-authenticate", "Basic"),
        ("gzip", 200, "content-encoding", "gzip"),
        ("one-gib", 200, "content-length", "1073741824"),
        ("length-too-short", 200, "content-length", "20"),
        ("second-answer", 200, "content-length", "2"),
    ] {
        simulator.script(key.clone(), [Answer::preset(preset)]);
        let response = query(&simulator, &key).await;
        assert_eq!(response.status(), status, "{preset}");
        assert_eq!(response.headers()[header], value, "{preset}");
    }
}

#[tokio::test]
async fn malformed_presets_do_not_parse_and_unusual_ones_are_of_the_requested_job() {
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "the-job");
    for preset in [
        "empty",
        "truncated-json",
        "html",
        "bad-utf8",
        "nan",
        "deep",
        "cut",
        "bom",
        "gzip",
        "gzip-bomb",
        "length-too-long",
        "length-too-short",
    ] {
        simulator.script(key.clone(), [Answer::preset(preset)]);
        let response = query(&simulator, &key).await;
        assert_eq!(response.status(), 200, "{preset}");
        assert!(response.json::<Value>().await.is_err(), "{preset}");
    }
    for preset in [
        "no-status",
        "null-status",
        "empty-status",
        "number-status",
        "wrong-types",
        "duplicate-keys",
        "unknown-status",
        "lower-case-success",
        "success",
        "success-no-image",
        "success-with-error",
        "running",
        "init",
        "fail",
        "fail-null-reason",
        "fail-in-entities",
        "failed",
        "fail-huge-reason",
        "sub-job-failed",
        "array-status",
        "success-old-times",
        "success-other-type",
        "fail-reason-1-mib",
        "fail-own-token",
    ] {
        simulator.script(key.clone(), [Answer::preset(preset)]);
        let body = query_json(&simulator, &key).await;
        assert_eq!(body["job_id"], "the-job", "{preset}");
    }
    for preset in ["other-job", "no-job-id", "number-job-id"] {
        simulator.script(key.clone(), [Answer::preset(preset)]);
        assert_ne!(query_json(&simulator, &key).await["job_id"], "the-job");
    }
}

#[tokio::test]
async fn undocumented_http_statuses_come_with_a_success_where_they_may_have_a_body() {
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "the-job");
    for status in [206, 299, 999] {
        simulator.script(key.clone(), [Answer::preset(&format!("status-{status}"))]);
        let response = query(&simulator, &key).await;
        assert_eq!(response.status(), status);
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (&body["status"], &body["job_id"]),
            (&"SUCCESS".into(), &"the-job".into())
        );
    }
    for status in [405, 406, 407, 408, 409, 501] {
        simulator.script(key.clone(), [Answer::preset(&format!("status-{status}"))]);
        assert_eq!(query(&simulator, &key).await.status(), status);
    }
}

#[tokio::test]
async fn a_retry_after_may_be_a_date_ahead() {
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "j");
    simulator.script(key.clone(), [Answer::preset("throttled-retry-after-date")]);
    let now = || k8s_openapi::jiff::Timestamp::now().as_second();
    let before = now();
    let response = query(&simulator, &key).await;
    let date = response.headers()["retry-after"]
        .to_str()
        .unwrap()
        .to_owned();
    let date = k8s_openapi::jiff::fmt::rfc2822::parse(&date).unwrap();
    let date = date.timestamp().as_second();
    assert!((before + 1..=now() + 2).contains(&date), "{date}");
}

#[tokio::test]
async fn raw_bytes_replace_an_answer() {
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "the-job");
    let every = Duration::from_millis(20);
    let head = "HTTP/1.1 299 Odd\r\nX-Job: {job_id}\r\n\r\n";
    simulator.script(key.clone(), [Answer::raw(head).drip(every)]);
    let started = Instant::now();
    let response = query(&simulator, &key).await;
    assert_eq!(response.status(), 299);
    assert_eq!(response.headers()["x-job"], "the-job");
    let bytes = u32::try_from(head.len()).unwrap();
    assert!(started.elapsed() >= every * (bytes - 1));

    for preset in ["no-http", "closed", "length-twice", "huge-head"] {
        simulator.script(key.clone(), [Answer::preset(preset)]);
        let failed = client().get(simulator.job_url(&key)).send().await;
        assert!(failed.is_err(), "{preset}");
    }
    simulator.script(key.clone(), [Answer::preset("drip-head")]);
    let slow = client().get(simulator.job_url(&key)).timeout(SHORT).send();
    assert!(slow.await.unwrap_err().is_timeout());
    let key = finished_job(&simulator);
    assert_eq!(
        query(&simulator, &key).await.status(),
        200,
        "others are unharmed"
    );
}

#[tokio::test]
async fn a_second_answer_follows_without_a_request() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "the-job");
    simulator.script(key.clone(), [Answer::preset("second-answer")]);
    let address = simulator.url().replace("http://", "");
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let request = format!("GET {key} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = String::new();
    stream.read_to_string(&mut received).await.unwrap();
    assert_eq!(received.matches("HTTP/1.1 200 OK").count(), 2, "{received}");
    assert!(
        received.contains(r#""job_id":"the-job","status":"SUCCESS""#),
        "{received}"
    );
}

#[tokio::test]
async fn a_reason_may_be_long_have_control_characters_or_the_callers_own_token() {
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "j");
    for (preset, least) in [
        ("fail-huge-reason", 100 * 1024),
        ("fail-reason-1-mib", 1000 * 1024),
    ] {
        simulator.script(key.clone(), [Answer::preset(preset)]);
        let body = query(&simulator, &key).await.bytes().await.unwrap();
        assert!(body.len() > least, "{preset}: {}", body.len());
        let body: Value = serde_json::from_slice(&body).unwrap();
        let reason = body["fail_reason"].as_str().unwrap();
        assert!(reason.starts_with("<b>bold</b>\u{7}\u{1b}[31m"), "{preset}");
    }
    simulator.script(key.clone(), [Answer::preset("fail-own-token")]);
    let body = query_json(&simulator, &key).await;
    assert_eq!(
        body["fail_reason"],
        format!("cannot read with {}", crate::TOKEN)
    );
}

#[tokio::test]
async fn logins_may_bring_a_token_that_is_missing_or_too_long() {
    let simulator = simulator();
    let login = async |preset: &str| {
        simulator.script(Target::Login, [Answer::preset(preset)]);
        let url = format!("{}/v3/auth/tokens", simulator.url());
        client().post(url).body("{}").send().await.unwrap()
    };
    let response = login("iam-no-token").await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers().get("x-subject-token"), None);
    let response = login("iam-long-token").await;
    assert_eq!(response.headers()["x-subject-token"].len(), 64 * 1024);
}

#[tokio::test]
async fn a_gzip_bomb_is_small_until_it_is_unpacked() {
    use std::io::Read;
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "j");
    simulator.script(key.clone(), [Answer::preset("gzip-bomb")]);
    let packed = query(&simulator, &key).await.bytes().await.unwrap();
    assert!(packed.len() < 128 * 1024, "{}", packed.len());
    let mut unpacked = flate2::read::GzDecoder::new(&packed[..]);
    let size = std::io::copy(&mut unpacked.by_ref().take(u64::MAX), &mut std::io::sink()).unwrap();
    assert!(size > 64 * 1024 * 1024, "{size}");
}
