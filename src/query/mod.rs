//! `image-export-operator query`: queries one job by hand, with a `clouds.yaml` of the user's.
//!
//! It is the operator for a single object that no cluster holds: the same cloud client polls, the
//! same tracker schedules the polls and decides the status. Only the runtime around them differs.

mod file;
mod progress;
mod report;
mod runtime;
#[cfg(test)]
mod scratch;

use file::CloudsFile;
pub use file::{FileError, find};
use image_export_api::{CloudName, JobId, ProjectId};
use image_export_cloud::CloudClient;
use image_export_core::Config;
use image_export_model::{ConfigurationError, ConfigurationReason};
pub use report::{Exit, Report};
use runtime::{LocalRuntime, Target};
use std::{
    io::{Write as _, stderr},
    path::PathBuf,
};

/// Which job to query, and how.
#[derive(Clone, Debug)]
pub struct Query {
    /// The `clouds.yaml`.
    pub file: PathBuf,
    /// Its entry; `None`: the only one.
    pub cloud: Option<String>,
    /// Project of the job; `None`: the one that the entry names by id.
    pub project: Option<String>,
    /// The job.
    pub job: JobId,
    /// Periods and graces.
    pub config: Config,
}

/// Why no query can be sent.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// There is no file, or it cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// No cloud was named, and the file has several or none.
    #[error("{file} has {clouds}: name one with --cloud or OS_CLOUD")]
    WhichCloud {
        /// The file.
        file: String,
        /// The clouds in it.
        clouds: String,
    },
    /// A name that no `ImageExportJob` may hold.
    #[error("--cloud {0:?} is not a name that an ImageExportJob can hold")]
    CloudName(String),
    /// Neither the user nor the entry names a project.
    #[error("cloud {0:?} names no project_id: name the project of the job with --project")]
    WhichProject(String),
    /// The entry is invalid, and so is the project in it.
    #[error("{}", .0.message)]
    Misconfigured(ConfigurationError),
    /// A project that no `ImageExportJob` may hold.
    #[error("project {0:?} is not an id: 1 to 64 letters, digits, - and _")]
    ProjectId(String),
}

impl QueryError {
    /// The exit code: that of a report with the same error, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Misconfigured(error) => Exit::from(error.reason) as u8,
            _ => 1,
        }
    }
}

/// Polls once or, with `wait`, until the job has ended or only the user can help. Progress goes to
/// standard error.
pub async fn run(client: CloudClient, query: Query, wait: bool) -> Result<Report, QueryError> {
    let file = CloudsFile::open(query.file)?;
    let cloud = which_cloud(&client, &file, query.cloud)?;
    let credential = file.credential(&client, &cloud)?;
    if let Ok(credential) = &credential {
        warn_of_ignored_keys(&file, &cloud, credential.ignored_keys());
    }
    let project = match (query.project, credential) {
        (Some(named), _) => named,
        (None, Ok(credential)) => credential
            .project_id()
            .map(str::to_owned)
            .ok_or_else(|| QueryError::WhichProject(cloud.to_string()))?,
        (None, Err(error)) => return Err(QueryError::Misconfigured(error)),
    };
    let project: ProjectId = project
        .parse()
        .map_err(|_| QueryError::ProjectId(project.clone()))?;
    let target = Target {
        client,
        file,
        cloud,
        project,
        job: query.job,
        config: query.config,
    };
    let finished = LocalRuntime::run(&target, wait).await;
    Ok(Report::new(target.project, target.job, finished))
}

/// Names on standard error what has no effect: it may be a misspelt key.
fn warn_of_ignored_keys(file: &CloudsFile, cloud: &CloudName, keys: &[String]) {
    if !keys.is_empty() {
        let keys = keys.join(", ");
        let note = format!("Note: these keys of cloud \"{cloud}\" in {file} are not read: {keys}");
        // Nobody has to read it.
        let _ = writeln!(stderr(), "{note}");
    }
}

/// The named cloud, else the only one.
fn which_cloud(
    client: &CloudClient,
    file: &CloudsFile,
    named: Option<String>,
) -> Result<CloudName, QueryError> {
    let parse = |name: String| {
        name.parse::<CloudName>()
            .map_err(|_| QueryError::CloudName(name))
    };
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        return parse(name);
    }
    let names = file.names()?;
    let clouds = match names.as_slice() {
        [only] => return parse(only.clone()),
        [] => {
            // The file may not be YAML at all; parsing any entry of it reports that.
            match file.credential(client, &parse("cloud".to_owned())?)? {
                Err(error) if error.reason == ConfigurationReason::CredentialsInvalid => {
                    return Err(QueryError::Misconfigured(error));
                }
                _ => "no clouds".to_owned(),
            }
        }
        several => format!("the clouds {}", several.join(", ")),
    };
    Err(QueryError::WhichCloud {
        file: file.to_string(),
        clouds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_export_cloud::{CloudOptions, EndpointPolicy};
    use scratch::Scratch;
    use serde_json::{Value, json};
    use std::{path::Path, sync::Arc};
    use testbed::ims::{self, Answer, Job, JobKey, Simulator, User};

    const PROJECT: &str = "ac234de25c6741d2b1273da49eea1b9e";
    const PASSWORD: &str = "a-password";
    const RUNNING: &str = r#"{"job_id":"{job_id}","status":"RUNNING"}"#;

    /// A simulator, and a folder with a `clouds.yaml` for it.
    struct Cloud {
        sim: Simulator,
        folder: Scratch,
    }

    impl Cloud {
        fn new(name: &str) -> Self {
            let sim = Simulator::start(ims::Config::default()).unwrap();
            sim.put_user(User::new("ieo", "OTC1", PASSWORD).project(PROJECT, "eu-de_images"));
            sim.add_token("t", Some(PROJECT));
            let folder = Scratch::new(name);
            let cloud = Self { sim, folder };
            cloud.write(&format!("clouds: {{{}}}", cloud.entry("otc", "t", "")));
            cloud
        }

        fn entry(&self, name: &str, token: &str, auth: &str) -> String {
            format!(
                "{name}: {{auth_type: token, auth: {{token: {token}{auth}}}, image_endpoint_override: '{}'}}",
                self.sim.url()
            )
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("clouds.yaml")
        }

        fn write(&self, yaml: &str) {
            std::fs::write(self.path(), yaml).unwrap();
        }

        fn query(&self, job: &str) -> Query {
            let mut config = Config {
                first_poll_spread: std::time::Duration::ZERO,
                ..Config::default()
            };
            config = config.scaled(0.01);
            Query {
                file: self.path(),
                cloud: None,
                project: Some(PROJECT.to_owned()),
                job: job.parse().unwrap(),
                config,
            }
        }

        async fn run(&self, query: Query, wait: bool) -> Result<Report, QueryError> {
            run(client(), query, wait).await
        }

        async fn report(&self, job: &str, wait: bool) -> (Report, Value) {
            let report = self.run(self.query(job), wait).await.unwrap();
            let json = serde_json::from_str(&report.json()).unwrap();
            (report, json)
        }

        async fn error(&self, change: impl FnOnce(&mut Query)) -> (u8, String) {
            let mut query = self.query("j");
            change(&mut query);
            let error = self.run(query, false).await.unwrap_err();
            (error.exit_code(), error.to_string())
        }
    }

    fn client() -> CloudClient {
        // Fails where another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let policy = EndpointPolicy {
            allow_http: true,
            ..EndpointPolicy::default()
        };
        CloudClient::new(CloudOptions {
            policy: Arc::new(policy),
            ..CloudOptions::default()
        })
        .unwrap()
    }

    fn key(job: &str) -> JobKey {
        JobKey::new(PROJECT, job)
    }

    #[tokio::test]
    async fn each_outcome_has_its_exit_code_its_class_and_the_status_of_an_object() {
        let cloud = Cloud::new("outcomes");
        let script = |job: &str, answer| cloud.sim.script_forever(key(job), answer);
        cloud.sim.put_job(Job::new(PROJECT, "success"));
        cloud
            .sim
            .put_job(Job::new(PROJECT, "fail").fails("IMG.0148", "No bucket."));
        script(
            "init",
            Answer::json(200, r#"{"job_id":"{job_id}","status":"INIT"}"#),
        );
        script("running", Answer::json(200, RUNNING));
        script(
            "odd",
            Answer::json(200, r#"{"job_id":"{job_id}","status":"PAYING"}"#),
        );
        script("denied", Answer::ims_error(403, "IMG.0026", "no"));
        script("down", Answer::ims_error(503, "IMG.0023", "no"));
        script(
            "throttled",
            Answer::ims_error(429, "IMG.0060", "no").header("Retry-After", "7"),
        );
        script("path", Answer::gateway_error(404, "APIGW.0101", "no"));
        script("request", Answer::ims_error(400, "IMG.0024", "no"));
        for (job, exit, result, category, reason) in [
            ("success", 0, "success", "answered", "JobSucceeded"),
            ("fail", 3, "failed", "answered", "JobFailed"),
            ("init", 4, "running", "answered", "JobInitializing"),
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
                "path",
                8,
                "misdirected",
                "endpoint_invalid",
                "EndpointInvalid",
            ),
            (
                "request",
                8,
                "misdirected",
                "request_rejected",
                "RequestRejected",
            ),
        ] {
            let (report, json) = cloud.report(job, false).await;
            assert_eq!(report.exit() as u8, exit, "{job}");
            let class = &json["classification"];
            assert_eq!(
                (&class["result"], &class["category"]),
                (&result.into(), &category.into())
            );
            assert_eq!(json["answer"].is_null(), category != "answered", "{json}");
            assert_eq!(
                (&json["jobID"], &json["projectID"]),
                (&job.into(), &PROJECT.into())
            );
            let seconds = if job == "throttled" {
                json!(7)
            } else {
                json!(null)
            };
            assert_eq!(class["retryAfterSeconds"], seconds, "{json}");
            assert_eq!(json["status"]["observedGeneration"], 1);
            let text = report.to_string();
            assert!(text.contains(&format!("({reason})")), "{text}");
            assert_eq!(cloud.sim.polls(&key(job)), 1, "{job}");
        }
    }

    #[tokio::test]
    async fn the_text_names_what_the_json_holds() {
        let cloud = Cloud::new("text");
        let body = json!({
            "job_id": "j", "job_type": "imsNativeExportImageJob", "status": "FAIL",
            "begin_time": "2024-11-06T06:46:51.000Z", "end_time": "2024-11-06T06:49:53.000Z",
            "error_code": "IMG.0148", "fail_reason": "No bucket.",
            "entities": { "image_id": "an-image", "process_percent": 0.4 },
        });
        let answer = Answer::json(200, body.to_string()).header("X-Request-Id", "an-id");
        cloud.sim.script_forever(key("j"), answer);
        let (report, json) = cloud.report("j", false).await;
        let endpoint = cloud.sim.url().replace("http://", "");
        let message = json["status"]["conditions"][0]["message"].as_str().unwrap();
        let lines = [
            "job:          j".to_owned(),
            format!("project:      {PROJECT}"),
            "answer:       FAIL".to_owned(),
            "job type:     imsNativeExportImageJob".to_owned(),
            "image id:     an-image".to_owned(),
            "fail reason:  No bucket.".to_owned(),
            "error code:   IMG.0148".to_owned(),
            "progress:     40 %".to_owned(),
            "began:        2024-11-06T06:46:51Z".to_owned(),
            "ended:        2024-11-06T06:49:53Z".to_owned(),
            "class:        answered".to_owned(),
            format!("endpoint:     {endpoint}"),
            "request id:   an-id".to_owned(),
            String::new(),
            "An ImageExportJob for it would show:".to_owned(),
            "  Ready=False (JobFailed)".to_owned(),
            format!("    {message}"),
            "  Succeeded=False (JobFailed)".to_owned(),
            "  Stalled=True (JobFailed)".to_owned(),
        ];
        assert_eq!(report.to_string(), lines.map(|line| line + "\n").concat());
        assert_eq!(
            json["answer"],
            json!({
                "status": "FAIL", "jobType": "imsNativeExportImageJob", "imageID": "an-image",
                "failReason": "No bucket.", "errorCode": "IMG.0148", "percent": 40,
                "beginTime": "2024-11-06T06:46:51Z", "endTime": "2024-11-06T06:49:53Z",
            })
        );
        assert_eq!(
            json["classification"],
            json!({
                "result": "failed", "category": "answered", "endpoint": endpoint, "requestID": "an-id",
            })
        );
        assert_eq!(json["status"]["status"], "FAIL");
    }

    #[tokio::test]
    async fn waiting_ends_with_the_job_or_where_only_the_user_can_help() {
        let cloud = Cloud::new("wait");
        let answers = [
            Answer::ims_error(503, "IMG.0023", "no"),
            Answer::ims_error(429, "IMG.0060", "no"),
            Answer::json(200, RUNNING),
            Answer::json(200, RUNNING),
        ];
        cloud.sim.script(key("j"), answers);
        cloud.sim.put_job(Job::new(PROJECT, "j"));
        let (report, json) = cloud.report("j", true).await;
        assert_eq!(
            (report.exit(), cloud.sim.polls(&key("j"))),
            (Exit::Success, 5)
        );
        assert_eq!(json["status"]["status"], "SUCCESS");

        let answers = [
            Answer::json(200, RUNNING),
            Answer::ims_error(403, "IMG.0026", "no"),
        ];
        cloud.sim.script(key("denied"), answers);
        let (report, _) = cloud.report("denied", true).await;
        assert_eq!(
            (report.exit(), cloud.sim.polls(&key("denied"))),
            (Exit::NotAuthorized, 2)
        );

        // Stalled: not found for good.
        let (report, json) = cloud.report("unknown", true).await;
        assert_eq!(report.exit(), Exit::NotFound);
        assert!(cloud.sim.polls(&key("unknown")) >= 5);
        assert_eq!(json["status"]["conditions"][0]["status"], "False");
    }

    #[tokio::test]
    async fn an_end_that_was_reported_counts_whatever_is_polled_later() {
        for (status, code, category) in [
            (503, "IMG.0023", "http_error"),
            (403, "IMG.0026", "access_denied"),
        ] {
            let cloud = Cloud::new(category);
            let success = Answer::json(200, r#"{"job_id":"{job_id}","status":"SUCCESS"}"#);
            cloud.sim.script(key("j"), [success]);
            cloud
                .sim
                .script_forever(key("j"), Answer::ims_error(status, code, "no"));
            let (report, json) = cloud.report("j", true).await;
            assert_eq!(report.exit(), Exit::Success, "{json}");
            assert_eq!(json["classification"]["category"], category, "{json}");
        }
    }

    #[tokio::test]
    async fn a_login_is_kept_while_the_file_stays() {
        let cloud = Cloud::new("login");
        let url = cloud.sim.url();
        cloud.write(&format!(
            "clouds: {{otc: {{auth: {{auth_url: '{url}/v3', username: ieo, user_domain_name: OTC1, \
             password: {PASSWORD}}}, image_endpoint_override: '{url}'}}}}"
        ));
        cloud
            .sim
            .script(key("j"), vec![Answer::json(200, RUNNING); 3]);
        cloud.sim.put_job(Job::new(PROJECT, "j"));
        let (report, _) = cloud.report("j", true).await;
        assert_eq!(report.exit(), Exit::Success);
        assert_eq!((cloud.sim.polls(&key("j")), cloud.sim.logins()), (4, 1));
    }

    #[tokio::test]
    async fn what_keeps_a_query_from_being_sent_is_an_error() {
        let cloud = Cloud::new("errors");
        let path = cloud.path();
        let path = path.display();
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(
            cloud.error(|query| query.project = None).await,
            (
                1,
                "cloud \"otc\" names no project_id: name the project of the job with --project"
                    .to_owned()
            )
        );
        assert_eq!(
            cloud.error(|query| query.project = named("a b")).await,
            (
                1,
                "project \"a b\" is not an id: 1 to 64 letters, digits, - and _".to_owned()
            )
        );
        assert_eq!(
            cloud.error(|query| query.cloud = named("a b")).await,
            (
                1,
                "--cloud \"a b\" is not a name that an ImageExportJob can hold".to_owned()
            )
        );
        let absent = Path::new("/nonexistent/clouds.yaml");
        let (code, error) = cloud.error(|query| query.file = absent.to_owned()).await;
        assert_eq!(code, 1);
        assert!(
            error.starts_with("/nonexistent/clouds.yaml cannot be read: "),
            "{error}"
        );

        let two = [cloud.entry("otc", "t", ""), cloud.entry("other", "t", "")].join(", ");
        for (yaml, code, error) in [
            (
                format!("clouds: {{{two}}}"),
                1,
                format!("{path} has the clouds otc, other: name one with --cloud or OS_CLOUD"),
            ),
            (
                "clouds: {}".to_owned(),
                1,
                format!("{path} has no clouds: name one with --cloud or OS_CLOUD"),
            ),
        ] {
            cloud.write(&yaml);
            assert_eq!(cloud.error(|_| ()).await, (code, error));
        }
        cloud.write("clouds: [");
        let (code, error) = cloud.error(|_| ()).await;
        assert!(code == 6 && error.contains("YAML"), "{code} {error}");
        // Without a project, an invalid entry is an error; with one, an observation.
        cloud.write("clouds: {otc: {auth_type: token}}");
        let (code, error) = cloud.error(|query| query.project = None).await;
        assert!(code == 6 && error.contains("otc"), "{code} {error}");
        let (report, json) = cloud.report("j", true).await;
        assert_eq!(report.exit(), Exit::NotAuthorized);
        assert_eq!(json["classification"]["message"], error);
    }

    #[tokio::test]
    async fn the_cloud_and_the_project_may_be_named_or_come_from_the_file() {
        let cloud = Cloud::new("names");
        let project = format!(", project_id: {PROJECT}");
        let entries = [
            cloud.entry("wrong", "no", ""),
            cloud.entry("otc", "t", &project),
        ];
        cloud.write(&format!("clouds: {{{}}}", entries.join(", ")));
        cloud.sim.put_job(Job::new(PROJECT, "j"));
        let mut query = cloud.query("j");
        query.project = None;
        query.cloud = Some("otc".to_owned());
        let report = cloud.run(query, false).await.unwrap();
        assert_eq!(report.exit(), Exit::Success);
        // An empty name is none: the variable OS_CLOUD may be set to nothing.
        cloud.write(&format!("clouds: {{{}}}", entries[1]));
        let mut query = cloud.query("j");
        query.cloud = Some(String::new());
        assert_eq!(cloud.run(query, false).await.unwrap().exit(), Exit::Success);
    }

    #[test]
    fn each_reason_of_a_configuration_error_has_its_exit_code() {
        for (reason, exit) in [
            (
                ConfigurationReason::CredentialsNotFound,
                Exit::NotAuthorized,
            ),
            (ConfigurationReason::CredentialsInvalid, Exit::NotAuthorized),
            (ConfigurationReason::AccessDenied, Exit::NotAuthorized),
            (ConfigurationReason::EndpointInvalid, Exit::Misdirected),
            (ConfigurationReason::EndpointNotAllowed, Exit::Misdirected),
            (ConfigurationReason::RequestRejected, Exit::Misdirected),
        ] {
            assert_eq!(Exit::from(reason), exit);
        }
    }
}
