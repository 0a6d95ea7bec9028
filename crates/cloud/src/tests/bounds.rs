//! How much a tenant, or a server that a tenant names, can make this crate hold.

use super::{
    credential,
    fake_cloud::{Cloud, PROJECT, client, granted, query, query_in, running},
    grant, lab, parse, strict,
};
use crate::{
    CloudOptions, EndpointPolicy,
    config::{MAX_CACERT_BYTES, MAX_CLOUDS_YAML_BYTES, MAX_FIELD_BYTES, MAX_TOKEN_BYTES},
    ims::job,
    wire::error_body::ErrorBody,
};
use allocation_counter::measure;
use image_export_model::{ConfigurationReason, JobId, Outcome};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

const KIB: usize = 1024;
/// Allocations of a poll: those of a present build and a tenth.
const MOST_WITH_TOKEN: u64 = 20;
const MOST_WITH_KEYS: u64 = 47;
const LARGEST_POLL: usize = 4096;

fn otc(lines: &str) -> String {
    format!("clouds:\n  otc: {{auth_type: aksk, region_name: eu-de, {lines}}}\n")
}

fn error(yaml: &str, cacert: Option<&str>) -> String {
    let error = parse(yaml.as_bytes(), cacert, &lab()).unwrap_err();
    assert_eq!(error.reason, ConfigurationReason::CredentialsInvalid);
    assert!(error.message.len() <= 512 && !error.message.contains("xxx"));
    error.message.to_string()
}

#[test]
fn a_file_and_each_of_its_texts_have_a_longest_length() {
    let x = |length| "x".repeat(length);
    let keys = otc("ak: AK, sk: s");
    let fits = format!("{keys}#{}", x(MAX_CLOUDS_YAML_BYTES - keys.len() - 1));
    assert!(credential(&fits).is_ok());
    assert_eq!(
        error(&format!("{fits}x"), None),
        "key clouds.yaml of Secret team-a/otc has 65537 bytes, and at most 65536 are read; keep only the entries that are used"
    );
    for (line, longest) in [
        ("ak: AK, sk: TEXT", MAX_FIELD_BYTES),
        ("ak: AK, sk: s, auth: {password: TEXT}", MAX_FIELD_BYTES),
        ("ak: AK, sk: s, project_id: TEXT", MAX_FIELD_BYTES),
        ("ak: AK, sk: s, security_token: TEXT", MAX_TOKEN_BYTES),
        ("ak: AK, sk: s, auth: {token: TEXT}", MAX_TOKEN_BYTES),
    ] {
        let with = |length| otc(&line.replace("TEXT", &x(length)));
        assert!(credential(&with(longest)).is_ok(), "{line}");
        let error = error(&with(longest + 1), None);
        let words = format!(" has {} bytes, and at most {longest} are read", longest + 1);
        assert!(
            error.contains("clouds.otc.") && error.ends_with(&words),
            "{error}"
        );
    }
    assert_eq!(
        error(&keys, Some(&x(MAX_CACERT_BYTES + 1))),
        "key cacert of Secret team-a/otc has 65537 bytes, and at most 65536 are read; name only authorities that the system does not trust"
    );
    let names = [
        "username",
        "user_id",
        "project_name",
        "project_id",
        "domain_name",
        "domain_id",
    ];
    let many = names
        .map(|name| format!("{name}: {}", x(MAX_FIELD_BYTES)))
        .join(", ");
    let all = format!("ak: AK, sk: s, {many}, auth: {{{many}}}");
    assert_eq!(
        error(&otc(&all), None),
        "in clouds.yaml of Secret team-a/otc, the texts of clouds.otc have 49164 bytes together, and at most 40960 are read"
    );
    // Other entries may hold what they like.
    let other = format!("{keys}  other: {{password: {}}}\n", x(50 * KIB));
    assert!(credential(&other).is_ok());
}

/// Aliases stand for copies, which may neither be kept nor be read without end.
#[test]
fn a_file_cannot_unfold() {
    let refused = "repeats too much by aliases";
    // One long text, again and again.
    let long = format!("c0: &a {{ak: X, sk: {}}}", "x".repeat(50 * KIB));
    let again: Vec<_> = (1..70).map(|n| format!("c{n}: *a")).collect();
    let many = format!("clouds: {{{long}, {}, otc: *a}}", again.join(", "));
    // Maps within maps, each of which the parser keeps for itself.
    let texts = vec!["x"; 20_000].join(",");
    let open: Vec<_> = (0..60).map(|n| format!("{{a: &b{n} ")).collect();
    let open = open.concat();
    let nested = format!("x: {open}[{texts}]{}\nclouds: {{}}", "}".repeat(60));
    // Lists of lists of lists.
    let mut lists = vec!["a0: &a0 [x, x, x, x, x, x, x, x]".to_owned()];
    for n in 1..6 {
        let before = vec![format!("*a{}", n - 1); 8].join(", ");
        lists.push(format!("a{n}: &a{n} [{before}]"));
    }
    let lists = format!("{}\nclouds: {{otc: *a5}}", lists.join("\n"));
    for yaml in [many, nested, lists] {
        assert!(yaml.len() <= MAX_CLOUDS_YAML_BYTES, "{}", yaml.len());
        let mut message = String::new();
        let info = measure(|| message = error(&yaml, None));
        assert!(message.contains(refused), "{message}");
        assert!(info.bytes_max < 8 << 20, "{info:?}");
    }
    // What people write: defaults for 100 entries.
    let defaults = "x: &d {auth_type: aksk, region_name: eu-de, ak: AK, sk: s}";
    let entries: Vec<_> = (0..100).map(|n| format!("c{n}: {{<<: *d}}")).collect();
    let yaml = format!("{defaults}\nclouds: {{{}, otc: *d}}", entries.join(", "));
    assert!(credential(&yaml).is_ok());
}

#[test]
fn a_credential_holds_each_of_its_texts_once_and_says_how_much_it_holds() {
    let x = |length| "x".repeat(length);
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&authority).unwrap().pem();
    let bundle = pem.repeat(MAX_CACERT_BYTES / pem.len());
    let usual = otc("ak: AK, sk: some-secret-key");
    let longest = otc(&format!(
        "ak: AK, sk: {}, security_token: {}",
        x(MAX_FIELD_BYTES),
        x(MAX_TOKEN_BYTES)
    ));
    for (yaml, cacert, most) in [
        (&usual, None, 4 * KIB),
        (&longest, None, 42 * KIB),
        (&usual, Some(&*bundle), 68 * KIB),
        (&longest, Some(&*bundle), 106 * KIB),
    ] {
        let options = lab();
        let mut kept = None;
        let info = measure(|| kept = parse(yaml.as_bytes(), cacert, &options).ok());
        let told = kept.as_ref().expect("a credential").bytes();
        let held = size_of_val(&kept) + usize::try_from(info.bytes_current).unwrap();
        println!(
            "{} + {:?} bytes: {held} held, {told} told, {info:?}",
            yaml.len(),
            cacert.map(str::len)
        );
        assert!(held <= most, "{held}");
        assert!(
            held <= told && told <= held + 3 * KIB,
            "{held} held, {told} told"
        );
    }
}

/// Bodies of the longest length that unfold as far as any.
fn worst_bodies() -> Vec<Vec<u8>> {
    const LENGTH: usize = 256 * KIB;
    let filled = |start: &str, item: &str, end: &str| {
        let items = (LENGTH - start.len() - end.len()) / item.len();
        format!("{start}{}{end}", item.repeat(items)).into_bytes()
    };
    let job = r#"{"job_id":"job","status":"FAIL""#;
    vec![
        filled(&format!("{job},"), r#""":0,"#, r#""x":0}"#),
        filled(&format!(r#"{job},"x":["#), "{},", "0]}"),
        filled(&format!(r#"{job},"x":["#), "[],", "0]}"),
        filled(&format!(r#"{job},"x":"#), "[", ""),
        filled(&format!(r#"{job},"x":{{"#), r#""":{},"#, r#""x":0}}"#),
        filled(&format!(r#"{job},"entities":{{"results":["#), "{},", "0]}}"),
        filled(
            &format!(r#"{job},"entities":{{"results":["#),
            r#"{"error":{"code":"1"}},"#,
            "0]}}",
        ),
        filled(
            &format!(r#"{job},"entities":{{"__data_images":["#),
            r#""?","#,
            "0]}}",
        ),
        filled(&format!("{job},"), r#""entities":{},"#, r#""x":0}"#),
        filled(&format!(r#"{job},"fail_reason":"\n"#), "x", r#""}"#),
        filled(&format!(r#"{job},"fail_reason":""#), r"\n", r#""}"#),
        filled(&format!(r#"{job},"fail_reason":""#), "\u{200b}", r#""}"#),
        filled(r#"{"error":{"message":"\n"#, "x", r#""}}"#),
        filled(r#"{"error":{"#, r#""":0,"#, r#""x":0}}"#),
        filled("", "\u{ff}", ""),
        vec![0xff; LENGTH],
    ]
}

#[test]
fn no_answer_unfolds_when_it_is_read() {
    let (job_id, redactor) = ("job".parse::<JobId>().unwrap(), grant().redactor);
    for body in worst_bodies() {
        let job = measure(|| drop(job::parse(&body, &job_id, &redactor)));
        let error = measure(|| drop(ErrorBody::parse(500, &body, &redactor)));
        let start = String::from_utf8_lossy(&body[..48]);
        println!(
            "{start}…: {} and {} bytes at most",
            job.bytes_max, error.bytes_max
        );
        for info in [job, error] {
            assert!(info.bytes_max <= 2 * body.len() as u64, "{start}: {info:?}");
        }
    }
}

#[test]
fn entries_that_accept_any_certificate_are_refused_where_the_administrator_says_so() {
    let strict = |required| CloudOptions {
        policy: Arc::new(EndpointPolicy {
            require_verified_tls: required,
            ..EndpointPolicy::clone(&strict().policy)
        }),
        ..CloudOptions::default()
    };
    for (line, field) in [
        ("verify: false", Some("verify")),
        ("insecure: yes", Some("insecure")),
        ("verify: /etc/ca.pem", None),
        ("verify: true, insecure: false", None),
    ] {
        let yaml = otc(&format!("ak: AK, sk: s, {line}"));
        let parse = |required| parse(yaml.as_bytes(), None, &strict(required));
        assert!(parse(false).is_ok(), "{line}");
        let Some(field) = field else {
            assert!(parse(true).is_ok(), "{line}");
            continue;
        };
        let error = parse(true).unwrap_err();
        assert_eq!(error.reason, ConfigurationReason::EndpointNotAllowed);
        assert_eq!(
            *error.message,
            format!(
                "clouds.otc.{field} in Secret team-a/otc accepts any certificate, which --require-verified-tls forbids; remove it, and add the authority of the server as cacert"
            )
        );
    }
}

/// However its projects come and go, and however long its tokens are, a namespace keeps so many alone: the newest.
#[tokio::test]
async fn tokens_of_ever_new_projects_are_kept_within_a_bound() {
    const PROJECTS: usize = 140;
    let login = |n: usize| {
        let project = if n > PROJECTS { 1 } else { n };
        let lifetime = Duration::from_secs(3600);
        let mut answer = granted(n, &format!("p{project}"), lifetime, &Value::Null);
        let token = format!("{n}-{}", "t".repeat(31 * KIB));
        let headers = answer.headers_mut();
        headers.insert("x-subject-token", token.parse().unwrap());
        answer
    };
    let cloud = Cloud::start(login, |_| running()).await;
    let (client, credential) = (client(), cloud.overridden());
    let signs_in = async |n: usize| {
        let poll = query_in(&client, &credential, &format!("p{n}")).await;
        assert!(matches!(poll.outcome, Outcome::Answered(_)), "{poll:?}");
        poll.signed_in
    };
    for n in 1..=PROJECTS {
        assert!(signs_in(n).await, "{n}");
    }
    assert!(!signs_in(PROJECTS).await, "the newest is kept");
    assert!(signs_in(1).await, "the oldest has made room");
}

/// What a poll allocates is what it costs most beside system calls, and is the same on each machine.
#[test]
fn a_poll_without_a_change_allocates_little() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    // The server's allocations are those of another thread.
    let (sender, started) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let login = |_| granted(1, PROJECT, Duration::from_secs(3600), &Value::Null);
            let cloud = Cloud::start(login, |_| running()).await;
            sender.send(cloud.overridden()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    let with_login = started.recv().unwrap();
    let url = with_login.entry.image_endpoint.as_ref().unwrap().as_str();
    let with_keys = credential(&format!(
        "clouds: {{otc: {{ak: AK, sk: some-secret-key, image_endpoint_override: '{url}'}}}}"
    ))
    .unwrap();
    let (client, runtime) = (client(), runtime());
    // It is moved several times before it runs.
    let size = size_of_val(&query(&client, &with_keys));
    println!("a poll is a future of {size} bytes");
    assert!(size <= LARGEST_POLL);
    for (credential, most) in [(&with_login, MOST_WITH_TOKEN), (&with_keys, MOST_WITH_KEYS)] {
        let poll = || {
            let poll = runtime.block_on(query(&client, credential));
            assert!(matches!(poll.outcome, Outcome::Answered(_)), "{poll:?}");
        };
        for _ in 0..3 {
            poll();
        }
        let info = measure(|| (0..100).for_each(|_| poll()));
        let (count, bytes) = (info.count_total / 100, info.bytes_total / 100);
        println!("{count} allocations with {bytes} bytes for a poll");
        assert!(count <= most, "{info:?}");
    }
}
