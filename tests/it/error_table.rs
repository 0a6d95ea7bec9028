//! Each row of the cloud's documented errors, in each documented body shape: the condition that an
//! object gets, and what it says. `query` shows it, which goes the operator's own way.

use crate::harness::{PROJECT, TOKEN, key};
use serde_json::{Value, json};
use std::{path::Path, process::Command};
use testbed::ims::{self, Answer, Simulator};

/// The three documented shapes of an error; in the third the code is the HTTP status where the
/// service has none of its own.
fn shapes(code: &str, text: &str) -> [String; 3] {
    [
        json!({"error": {"message": text, "code": code}}),
        json!({"error_msg": text, "error_code": code, "request_id": "c50619de20b0e70590f57a99dbed044f"}),
        json!({"error": {"message": text, "code": code, "title": "A Title"}}),
    ]
    .map(|body| body.to_string())
}

/// Answers, the condition's reason, and what follows the host's name in its message. `Pending` is
/// what a new object shows while polls fail; the words are then those of the classification.
#[rustfmt::skip]
const ROWS: [(u16, &str, &str, &str, &str); 22] = [
    (400, "IMG.0030", "x", "CredentialsInvalid", " rejects the token of {me} (400 IMG.0030: project id and token do not match), which was given"),
    (400, "IMG.0087", "x", "CredentialsInvalid", " rejects the token of {me} (400 IMG.0087: the token is wrong), which was given"),
    (400, "IMG.0060", "x", "Pending", ""),
    (429, "APIGW.0308", "The throttling threshold has been reached: policy ip over ratelimit,limit:5,time:5 second", "Pending", ""),
    (400, "APIG.0308", "x", "Pending", ""),
    (403, "APIGW.0308", "x", "Pending", ""),
    (429, "IMG.0001", "x", "Pending", ""),
    (400, "IMG.0023", "x", "Pending", " answered 400 IMG.0023"),
    (400, "IMG.0024", "The imagetype is invalid.", "RequestRejected", " refused the request (400 IMG.0024); check projectID and jobID"),
    (401, "APIGW.0307", "The token must be updated.", "CredentialsInvalid", " rejects the token of {me} (401 APIGW.0307: the token has expired or belongs to another region), which was given"),
    (401, "APIGW.0301", "Incorrect IAM authentication information: decrypt token fail", "CredentialsInvalid", " rejects the token of {me} (401 APIGW.0301: the token is dead or belongs to another cloud)"),
    (401, "APIG.0301", "Incorrect IAM authentication information: verify aksk signature fail", "CredentialsInvalid", " rejects the token of {me} (401 APIGW.0301: the secret key does not fit the access key)"),
    (401, "401", "Unauthorized.", "CredentialsInvalid", " rejects the token of {me} (401), which was given"),
    (403, "IMG.0026", "x", "AccessDenied", " denies access (403 IMG.0026); grant the user a role that may read IMS jobs in this project"),
    (403, "APIGW.0302", "x", "AccessDenied", " denies access (403 APIGW.0302)"),
    (404, "APIGW.0101", "x", "EndpointInvalid", " does not offer the image job API (404 APIGW.0101); check the endpoint"),
    (404, "IMG.0027", "x", "JobNotFound", ""),
    (405, "IMG.0001", "x", "RequestRejected", " refused the request (405 IMG.0001)"),
    (500, "IMG.0001", "x", "Pending", " answered 500 IMG.0001"),
    (503, "APIGW.0201", "x", "Pending", " answered 503 APIGW.0201"),
    (504, "504", "x", "Pending", " answered 504"),
    (302, "IMG.0001", "x", "EndpointInvalid", " redirects to another address (302 IMG.0001), which is never followed"),
];

#[test]
fn each_documented_error_in_each_body_shape_gives_its_condition_and_message() {
    let sim = Simulator::start(ims::Config::default()).expect("a simulator");
    sim.add_token(TOKEN, None);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("error-table-{}.yaml", std::process::id()));
    let url = sim.url();
    std::fs::write(
        &file,
        format!("clouds: {{otc: {{auth_type: token, auth: {{token: {TOKEN}}}, image_endpoint_override: '{url}'}}}}"),
    )
    .expect("a file");
    let me = format!("cloud \"otc\" in file {}", file.display());
    for (status, code, text, reason, words) in ROWS {
        for body in shapes(code, text) {
            sim.script(key("job"), [Answer::status(status).body(body.clone())]);
            let json = query(&file);
            let ready = &json["status"]["conditions"][0];
            assert_eq!(ready["type"], "Ready");
            assert_eq!(ready["reason"], reason, "{status} {body}");
            let said = match reason {
                "Pending" if words.is_empty() => {
                    assert_eq!(
                        json["classification"]["category"], "throttled",
                        "{status} {body}"
                    );
                    continue;
                }
                "Pending" => &json["classification"]["message"],
                _ => &ready["message"],
            };
            let said = said.as_str().expect("a message");
            let host = url.replace("http://", "");
            let expected = match words {
                "" => "The cloud does not know job job at the moment.".to_owned(),
                words => format!("{host}{}", words.replace("{me}", &me)),
            };
            assert!(
                said.contains(&expected),
                "{status} {body}:\n{said}\n{expected}"
            );
        }
    }
    std::fs::remove_file(file).expect("removed");
}

fn query(file: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_image-export-operator"))
        .args([
            "query",
            "--allow-http",
            "-o",
            "json",
            "--project",
            PROJECT,
            "--job",
            "job",
        ])
        .arg("--clouds-yaml")
        .arg(file)
        .output()
        .expect("the program runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {errors}"))
}
