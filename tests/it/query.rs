//! `image-export-operator query`: one poll from the command line, without a cluster.

use crate::harness::{PATIENCE, PROJECT, key};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};
use testbed::{
    ims::{self, Answer, Gate, Job, Simulator, Target, User},
    process::{self, Supervised},
};

const PASSWORD: &str = "canary-password-of-query";

/// A simulator with a user, and a folder with a `clouds.yaml` for it.
struct Workspace {
    sim: Simulator,
    folder: PathBuf,
    scale: Option<&'static str>,
}

impl Workspace {
    fn new(name: &str) -> Self {
        let sim = Simulator::start(ims::Config::default()).expect("a simulator");
        sim.put_user(User::new("ieo", "OTC1", PASSWORD).project(PROJECT, "eu-de_images"));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("query-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let workspace = Self {
            sim,
            folder,
            scale: None,
        };
        workspace.write(
            "clouds.yaml",
            &format!("clouds: {{{}}}", workspace.cloud("otc", PASSWORD)),
        );
        workspace
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

    /// `query` in the folder.
    fn command(&self, arguments: &[&str]) -> Command {
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
        command
    }

    fn query(&self, arguments: &[&str]) -> Completed {
        Completed(self.command(arguments).output().expect("the program runs"))
    }

    fn query_job(&self, job: &str, more: &[&str]) -> Completed {
        let mut arguments = vec!["--allow-http", "--project", PROJECT, "--job", job];
        arguments.extend(more);
        self.query(&arguments)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // A folder that cannot be removed stays below the target folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Completed(Output);

impl Completed {
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

/// `src/query` has the table of outcomes.
#[test]
fn an_outcome_ends_the_program_with_its_exit_code() {
    let workspace = Workspace::new("codes");
    workspace.sim.put_job(Job::new(PROJECT, "success"));
    workspace
        .sim
        .put_job(Job::new(PROJECT, "fail").fails("IMG.0148", "The bucket does not exist."));
    let down = Answer::preset("unavailable");
    workspace.sim.script_forever(key("down"), down);
    for (job, code, reason) in [
        ("success", 0, "JobSucceeded"),
        ("fail", 3, "JobFailed"),
        ("unknown", 5, "JobNotFound"),
        ("down", 7, "Pending"),
    ] {
        let completed = workspace.query_job(job, &["-o", "json"]);
        assert_eq!(
            (completed.code(), &*completed.errors()),
            (code, ""),
            "{job}"
        );
        assert_eq!(ready(&completed.json()).0, reason);
        let text = workspace.query_job(job, &[]);
        assert_eq!((text.code(), &*text.errors()), (code, ""), "{job}");
        let printed = text.text();
        assert!(printed.contains(&format!("({reason})")), "{printed}");
    }
}

#[test]
fn keys_that_are_not_read_are_named_on_standard_error() {
    let workspace = Workspace::new("ignored");
    let yaml = workspace.cloud("otc", PASSWORD);
    let yaml = yaml.replace("{auth: {", "{networks: [], auth: {system_scope: all, ");
    let file = workspace.write("clouds.yaml", &format!("clouds: {{{yaml}}}"));
    workspace.sim.put_job(Job::new(PROJECT, "j1"));
    let completed = workspace.query_job("j1", &["-o", "json"]);
    assert_eq!(completed.code(), 0);
    assert_eq!(completed.json()["status"]["status"], "SUCCESS");
    let name = file.file_name().expect("a name").display();
    let note = format!(
        "Note: these keys of cloud \"otc\" in {name} are not read: networks, auth.system_scope\n"
    );
    assert_eq!(completed.errors(), note);
}

#[test]
fn errors_of_the_file_or_the_command_are_printed_on_standard_error() {
    let workspace = Workspace::new("wrong");
    let two = format!(
        "clouds: {{{}, {}}}",
        workspace.cloud("otc", PASSWORD),
        workspace.cloud("wrong", "canary-no")
    );
    let two = workspace.write("two.yaml", &two);
    let two = two.to_str().expect("a path");
    let (job, project) = (["--job", "j1"], ["--project", PROJECT]);
    for (arguments, code, error) in [
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
        let completed = workspace.query(&arguments);
        assert_eq!(
            (completed.code(), completed.text().as_str()),
            (code, ""),
            "{arguments:?}"
        );
        assert!(completed.errors().contains(error), "{}", completed.errors());
    }
    for (cloud, cause) in [
        ("wrong", "rejects the login"),
        ("none", "has no cloud \"none\"; it has otc, wrong"),
    ] {
        let completed = workspace.query_job(
            "j1",
            &["--clouds-yaml", two, "--cloud", cloud, "-o", "json"],
        );
        assert_eq!(completed.code(), 6);
        let json = completed.json();
        let message = json["classification"]["message"]
            .as_str()
            .expect("a message");
        assert!(
            message.contains(cause) && message.contains(&format!("file {two}")),
            "{message}"
        );
        assert!(!message.contains("canary"), "{message}");
    }
    let closed = workspace.query(&["--project", PROJECT, "--job", "j1", "-o", "json"]);
    assert_eq!(closed.code(), 8);
    assert!(closed.text().contains("--allow-http"), "{}", closed.text());
}

#[test]
fn waiting_ends_with_the_job_and_prints_each_change_on_standard_error() {
    let workspace = Workspace::new("wait");
    workspace.sim.put_job(Job::new(PROJECT, "job"));
    let before = ["init", "init", "running", "running"].map(Answer::preset);
    workspace.sim.script(key("job"), before);
    let completed = workspace.query_job("job", &["--wait", "--poll-period", "1", "-o", "json"]);
    assert_eq!(completed.code(), 0);
    assert_eq!(completed.json()["answer"]["status"], "SUCCESS");
    let statuses: Vec<_> = completed
        .errors()
        .lines()
        .filter_map(|line| line.split_once(' ').map(|(_, status)| status.to_owned()))
        .collect();
    assert_eq!(statuses, ["INIT", "RUNNING", "SUCCESS"]);
    assert_eq!(workspace.sim.logins(), 1);
}

#[test]
fn waiting_continues_through_transient_failures_and_ends_at_a_rejected_login() {
    let workspace = Workspace::new("outlast");
    workspace.sim.put_job(Job::new(PROJECT, "job"));
    workspace.sim.script(
        key("job"),
        [Answer::preset("unavailable"), Answer::preset("html")],
    );
    let completed = workspace.query_job("job", &["--wait", "--poll-period", "1"]);
    assert_eq!(completed.code(), 0, "{}", completed.errors());
    assert!(
        completed.errors().contains("answered 503"),
        "{}",
        completed.errors()
    );

    workspace.sim.script_forever(
        Target::Login,
        Answer::keystone_error(401, "Unauthorized", "no"),
    );
    let completed = workspace.query_job("job", &["--wait", "--poll-period", "1"]);
    assert_eq!(completed.code(), 6, "{}", completed.errors());
}

#[test]
fn an_end_stays_an_end_whatever_the_cloud_answers_afterwards() {
    let mut workspace = Workspace::new("end");
    workspace.scale = Some("0.05");
    let success = r#"{"job_id":"{job_id}","status":"SUCCESS"}"#;
    workspace
        .sim
        .script(key("job"), [Answer::json(200, success)]);
    // The simulator has no such job, so every later poll is answered 404.
    let completed = workspace.query_job("job", &["--wait", "--poll-period", "1", "-o", "json"]);
    assert_eq!(completed.code(), 0, "{}", completed.errors());
    let json = completed.json();
    assert_eq!(json["classification"]["result"], "success");
    assert_eq!(ready(&json).0, "ImageIDMissing");
}

#[test]
fn a_clouds_yaml_from_a_pipe_is_read_once() {
    let workspace = Workspace::new("pipe");
    workspace.sim.put_job(Job::new(PROJECT, "job"));
    let script = r#"cat clouds.yaml | "$0" query --clouds-yaml /dev/stdin --allow-http --project "$1" --job job"#;
    let output = Command::new("sh")
        .args([
            "-c",
            script,
            env!("CARGO_BIN_EXE_image-export-operator"),
            PROJECT,
        ])
        .current_dir(&workspace.folder)
        .env_remove("OS_CLOUD")
        .output()
        .expect("a shell");
    let completed = Completed(output);
    assert_eq!(completed.code(), 0, "{}", completed.errors());
}

#[test]
fn the_newer_path_is_used_and_clouds_yaml_is_found_where_openstack_tools_keep_it() {
    let workspace = Workspace::new("places");
    workspace.sim.put_job(Job::new(PROJECT, "job"));
    assert_eq!(
        workspace
            .query_job("job", &["--job-path", "cloudimages"])
            .code(),
        0
    );
    let paths: Vec<_> = workspace
        .sim
        .requests()
        .into_iter()
        .map(|r| r.path)
        .collect();
    assert!(
        paths.contains(&"/v1/cloudimages/job/job".to_owned()),
        "{paths:?}"
    );

    // In the place where OpenStack tools keep it.
    let home = workspace.folder.join(".config/openstack");
    std::fs::create_dir_all(&home).expect("a folder");
    let file = workspace.folder.join("clouds.yaml");
    std::fs::rename(&file, home.join("clouds.yaml")).expect("moved");
    assert_eq!(workspace.query_job("job", &[]).code(), 0);
    std::fs::remove_file(home.join("clouds.yaml")).expect("removed");
    let none = workspace.query_job("job", &[]);
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
    let workspace = Workspace::new("verbose");
    let body =
        format!(r#"{{"job_id":"{{job_id}}","status":"FAIL","fail_reason":"it was {PASSWORD}"}}"#);
    workspace
        .sim
        .script_forever(key("job"), Answer::json(200, body));
    let completed = workspace.query_job("job", &["--log-level", "trace"]);
    assert_eq!(completed.code(), 3);
    for printed in [completed.text(), completed.errors()] {
        assert!(!printed.contains(PASSWORD), "{printed}");
    }
    assert!(
        completed.text().contains("it was [redacted]"),
        "{}",
        completed.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_at_once() {
    let workspace = Workspace::new("signal");
    let gate = Gate::new();
    let job = Job::new(PROJECT, "job");
    workspace
        .sim
        .script(job.key(), [Answer::pass().held_by(&gate)]);
    workspace.sim.put_job(job);
    let command = workspace.command(&[
        "--allow-http",
        "--project",
        PROJECT,
        "--job",
        "job",
        "--wait",
    ]);
    let output = Supervised::spawn(
        &command,
        process::Output::Merged(workspace.folder.join("log")),
    );
    let process = output.expect("it starts");
    gate.arrived(1).await;
    // Not SIGINT, which a shell ignores for what it starts in the background; `query` handles neither.
    process.terminate();
    assert_eq!(process.wait(PATIENCE), Some(128 + 15));
}
