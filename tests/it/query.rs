//! `image-export-operator query`: one question by hand, without a cluster.

use crate::harness::{PROJECT, key};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};
use testbed::ims::{self, Answer, End, Job, Simulator, Start, Target, User};

const PASSWORD: &str = "canary-password-of-query";

/// A simulator with a user, and a `clouds.yaml` for it in a folder of its own.
struct Desk {
    sim: Simulator,
    folder: PathBuf,
    scale: Option<&'static str>,
}

impl Desk {
    fn new(name: &str) -> Self {
        let sim = Simulator::start(ims::Config::default()).expect("a simulator");
        sim.put_user(User::new("ieo", "OTC1", PASSWORD).project(PROJECT, "eu-de_images"));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("query-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let desk = Self {
            sim,
            folder,
            scale: None,
        };
        desk.write(
            "clouds.yaml",
            &format!("clouds: {{{}}}", desk.cloud("otc", PASSWORD)),
        );
        desk
    }

    fn cloud(&self, name: &str, password: &str) -> String {
        let url = self.sim.url();
        format!(
            "{name}: {{auth: {{auth_url: '{url}/v3', username: ieo, user_domain_name: OTC1, password: {password}}}}}"
        )
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// Asks with the `clouds.yaml` in the working folder.
    fn query(&self, arguments: &[&str]) -> Answered {
        let mut command = Command::new(env!("CARGO_BIN_EXE_image-export-operator"));
        command
            .arg("query")
            .args(arguments)
            .current_dir(&self.folder)
            .env("HOME", &self.folder)
            .envs(self.scale.map(|scale| ("IMAGE_EXPORT_TIME_SCALE", scale)))
            .env_remove("OS_CLOUD")
            .env_remove("OS_CLIENT_CONFIG_FILE")
            .env_remove("XDG_CONFIG_HOME");
        Answered(command.output().expect("the program runs"))
    }

    fn ask(&self, job: &str, more: &[&str]) -> Answered {
        let mut arguments = vec!["--allow-http", "--project", PROJECT, "--job", job];
        arguments.extend(more);
        self.query(&arguments)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // What cannot be removed stays below the target folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Answered(Output);

impl Answered {
    fn code(&self) -> i32 {
        assert!(!self.errors().contains("panicked"), "{}", self.errors());
        self.0.status.code().expect("it ends by itself")
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("text")
    }

    fn errors(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).expect("text")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.0.stdout).expect("standard output holds JSON alone")
    }
}

fn ready(json: &Value) -> (&str, &str) {
    let conditions = json["status"]["conditions"].as_array().expect("conditions");
    let ready = conditions.iter().find(|c| c["type"] == "Ready");
    let ready = ready.expect("a Ready condition");
    (
        ready["reason"].as_str().expect("a reason"),
        ready["message"].as_str().expect("a message"),
    )
}

#[test]
fn each_end_has_its_exit_code_its_classification_and_the_status_an_object_would_get() {
    let desk = Desk::new("codes");
    let answers = |job: &str, answer: Answer| desk.sim.script_forever(key(job), answer);
    desk.sim.put_job(Job::new(PROJECT, "success"));
    desk.sim
        .put_job(Job::new(PROJECT, "fail").fails("IMG.0148", "The bucket does not exist."));
    desk.sim
        .put_job(Job::new(PROJECT, "running").ends(End::Never));
    answers(
        "odd",
        Answer::json(200, r#"{"job_id":"{job_id}","status":"PENDING_PAYMENT"}"#),
    );
    answers("denied", Answer::ims_error(403, "IMG.0026", "no"));
    answers("down", Answer::preset("unavailable"));
    answers("throttled", Answer::preset("throttled"));
    answers("wrong-path", Answer::gateway_error(404, "APIGW.0101", "no"));
    answers("bad-request", Answer::ims_error(400, "IMG.0024", "no"));
    for (job, code, result, category, reason) in [
        ("success", 0, "success", "answered", "JobSucceeded"),
        ("fail", 3, "failed", "answered", "JobFailed"),
        ("running", 4, "running", "answered", "JobRunning"),
        ("odd", 4, "running", "answered", "JobStatusUnrecognized"),
        ("unknown", 5, "not_found", "not_found", "JobNotFound"),
        (
            "denied",
            6,
            "not_authorized",
            "access_denied",
            "AccessDenied",
        ),
        ("down", 7, "unreachable", "http_error", "Pending"),
        ("throttled", 7, "unreachable", "throttled", "Pending"),
        (
            "wrong-path",
            8,
            "misdirected",
            "endpoint_invalid",
            "EndpointInvalid",
        ),
        (
            "bad-request",
            8,
            "misdirected",
            "request_rejected",
            "RequestRejected",
        ),
    ] {
        let answered = desk.ask(job, &["-o", "json"]);
        assert_eq!(
            (answered.code(), answered.errors().as_str()),
            (code, ""),
            "{job}"
        );
        let json = answered.json();
        assert_eq!(json["jobID"], job);
        assert_eq!(json["projectID"], PROJECT);
        assert_eq!(json["classification"]["result"], result, "{json}");
        assert_eq!(json["classification"]["category"], category, "{json}");
        assert_eq!(ready(&json).0, reason, "{json}");
        assert_eq!(json["status"]["observedGeneration"], 1);
        assert_eq!(json["answer"].is_null(), category != "answered");
        let text = desk.ask(job, &[]);
        assert_eq!((text.code(), text.errors().as_str()), (code, ""), "{job}");
        assert!(
            text.text().contains(&format!("({reason})")),
            "{}",
            text.text()
        );
    }
    let fail = desk.ask("fail", &["-o", "json"]).json();
    assert_eq!(fail["answer"]["errorCode"], "IMG.0148");
    assert_eq!(fail["status"]["failReason"], "The bucket does not exist.");
}

#[test]
fn what_is_wrong_with_the_file_or_the_command_is_said_on_standard_error() {
    let desk = Desk::new("wrong");
    let two = format!(
        "clouds: {{{}, {}}}",
        desk.cloud("otc", PASSWORD),
        desk.cloud("wrong", "canary-no")
    );
    let two = desk.write("two.yaml", &two);
    let two = two.to_str().expect("a path");
    let (job, project) = (["--job", "j1"], ["--project", PROJECT]);
    for (arguments, code, words) in [
        (
            vec!["--clouds-yaml", "absent.yaml", job[0], job[1]],
            1,
            "absent.yaml cannot be read",
        ),
        (
            vec!["--clouds-yaml", two, job[0], job[1]],
            1,
            "has the clouds otc, wrong: name one with --cloud or OS_CLOUD",
        ),
        (
            vec![job[0], job[1]],
            8,
            "start the operator with --allow-http",
        ),
        (
            vec!["--allow-http", job[0], job[1]],
            1,
            "cloud \"otc\" names no project_id: name the project of the job with --project",
        ),
        (vec![project[0], project[1]], 2, "--job"),
        (vec!["--job", "../x", project[0], project[1]], 2, "--job"),
        (
            vec!["--job", "j1", "--project", "a b", "--allow-http"],
            1,
            "is not an id",
        ),
        (vec!["--job", "j1", "-o", "xml"], 2, "xml"),
    ] {
        let answered = desk.query(&arguments);
        assert_eq!(
            (answered.code(), answered.text().as_str()),
            (code, ""),
            "{arguments:?}"
        );
        assert!(answered.errors().contains(words), "{}", answered.errors());
    }
    for (cloud, words) in [
        ("wrong", "rejects the login"),
        ("none", "has no cloud \"none\"; it has otc, wrong"),
    ] {
        let answered = desk.ask(
            "j1",
            &["--clouds-yaml", two, "--cloud", cloud, "-o", "json"],
        );
        assert_eq!(answered.code(), 6);
        let json = answered.json();
        let said = json["classification"]["message"]
            .as_str()
            .expect("a message");
        assert!(
            said.contains(words) && said.contains(&format!("file {two}")),
            "{said}"
        );
        assert!(!said.contains("canary"), "{said}");
    }
    let closed = desk.query(&["--project", PROJECT, "--job", "j1", "-o", "json"]);
    assert_eq!(closed.code(), 8);
    assert!(closed.text().contains("--allow-http"), "{}", closed.text());
}

#[test]
fn waiting_ends_with_the_job_and_tells_each_change_on_standard_error() {
    let desk = Desk::new("wait");
    let job = Job::new(PROJECT, "job")
        .starts(Start::FirstQuery)
        .init_for(Duration::from_millis(1500))
        .running_for(Duration::from_secs(2));
    desk.sim.put_job(job);
    let answered = desk.ask("job", &["--wait", "--poll-period", "1", "-o", "json"]);
    assert_eq!(answered.code(), 0);
    assert_eq!(answered.json()["answer"]["status"], "SUCCESS");
    let words: Vec<_> = answered
        .errors()
        .lines()
        .filter_map(|line| line.split_once(' ').map(|(_, word)| word.to_owned()))
        .collect();
    assert_eq!(words, ["INIT", "RUNNING", "SUCCESS"]);
    assert_eq!(desk.sim.logins(), 1);
}

#[test]
fn waiting_outlasts_trouble_that_passes_and_ends_at_trouble_that_does_not() {
    let desk = Desk::new("outlast");
    desk.sim.put_job(Job::new(PROJECT, "job"));
    desk.sim.script(
        key("job"),
        [Answer::preset("unavailable"), Answer::preset("html")],
    );
    let answered = desk.ask("job", &["--wait", "--poll-period", "1"]);
    assert_eq!(answered.code(), 0, "{}", answered.errors());
    assert!(
        answered.errors().contains("answered 503"),
        "{}",
        answered.errors()
    );

    desk.sim.script_forever(
        Target::Login,
        Answer::keystone_error(401, "Unauthorized", "no"),
    );
    let answered = desk.ask("job", &["--wait", "--poll-period", "1"]);
    assert_eq!(answered.code(), 6, "{}", answered.errors());
}

#[test]
fn an_end_stays_an_end_whatever_is_answered_after_it() {
    let mut desk = Desk::new("end");
    desk.scale = Some("0.05");
    let success = r#"{"job_id":"{job_id}","status":"SUCCESS"}"#;
    desk.sim.script(key("job"), [Answer::json(200, success)]);
    // No such job from then on, and so no image id either.
    let answered = desk.ask("job", &["--wait", "--poll-period", "1", "-o", "json"]);
    assert_eq!(answered.code(), 0, "{}", answered.errors());
    let json = answered.json();
    assert_eq!(json["classification"]["result"], "success");
    assert_eq!(ready(&json).0, "ImageIDMissing");
}

#[test]
fn a_file_that_is_no_file_is_read_once() {
    let desk = Desk::new("pipe");
    desk.sim.put_job(Job::new(PROJECT, "job"));
    let script = r#"cat clouds.yaml | "$0" query --clouds-yaml /dev/stdin --allow-http --project "$1" --job job"#;
    let output = Command::new("sh")
        .args([
            "-c",
            script,
            env!("CARGO_BIN_EXE_image-export-operator"),
            PROJECT,
        ])
        .current_dir(&desk.folder)
        .env_remove("OS_CLOUD")
        .output()
        .expect("a shell");
    let answered = Answered(output);
    assert_eq!(answered.code(), 0, "{}", answered.errors());
}

#[test]
fn the_newer_path_and_the_places_of_the_file() {
    let desk = Desk::new("places");
    desk.sim.put_job(Job::new(PROJECT, "job"));
    assert_eq!(desk.ask("job", &["--job-path", "cloudimages"]).code(), 0);
    let paths: Vec<_> = desk.sim.requests().into_iter().map(|r| r.path).collect();
    assert!(
        paths.contains(&"/v1/cloudimages/job/job".to_owned()),
        "{paths:?}"
    );

    // Not in the working folder, but where OpenStack tools keep it.
    let home = desk.folder.join(".config/openstack");
    std::fs::create_dir_all(&home).expect("a folder");
    let file = desk.folder.join("clouds.yaml");
    std::fs::rename(&file, home.join("clouds.yaml")).expect("moved");
    assert_eq!(desk.ask("job", &[]).code(), 0);
    std::fs::remove_file(home.join("clouds.yaml")).expect("removed");
    let none = desk.ask("job", &[]);
    assert_eq!(none.code(), 1);
    assert!(
        none.errors()
            .contains("there is no clouds.yaml; name one with --clouds-yaml"),
        "{}",
        none.errors()
    );
}

#[test]
fn no_secret_is_printed_at_the_most_verbose_level() {
    let desk = Desk::new("verbose");
    let body =
        format!(r#"{{"job_id":"{{job_id}}","status":"FAIL","fail_reason":"it was {PASSWORD}"}}"#);
    desk.sim.script_forever(key("job"), Answer::json(200, body));
    let answered = desk.ask("job", &["--log-level", "trace"]);
    assert_eq!(answered.code(), 3);
    for printed in [answered.text(), answered.errors()] {
        assert!(!printed.contains(PASSWORD), "{printed}");
    }
    assert!(
        answered.text().contains("it was [redacted]"),
        "{}",
        answered.text()
    );
}
