//! A client that others wrote certifies the testbed: otcextensions logs in at a real Keystone, finds
//! the simulator in its catalog, and waits for jobs there.

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use testbed::{
    ims::{Answer, Config, JobKey, Simulator},
    keystone::{self, Keystone, User},
    process::{Output, Supervised},
    python::Environment,
};

const DOMAIN: &str = "OTC00000000001000000101";
const PROJECT_NAME: &str = "eu-de_images";

#[tokio::test]
async fn otcextensions_waits_until_a_job_has_succeeded_or_failed() {
    let cloud = Cloud::start().await;
    let job = cloud.job(
        "9a175ac892fa134201930039db1a27b1",
        ["INIT", "RUNNING", "SUCCESS"],
    );
    let (code, stdout, stderr) = cloud.wait_for(&job);
    assert_eq!(code, 0, "{stderr}");
    let seen: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(seen["status"], "SUCCESS");
    assert_eq!(seen["job_id"], *job.job);
    assert_eq!(seen["job_type"], "imsNativeExportImageJob");
    assert_eq!(
        seen["entities"]["image_id"],
        "1ab4df10-fe18-48b7-91c9-53695fcd9df5"
    );
    assert_eq!(cloud.simulator.polls(&job), 3);

    let job = cloud.job("ff80808280c204e30180d2784c3c0d86", ["RUNNING", "FAIL"]);
    let (code, _, stderr) = cloud.wait_for(&job);
    assert_eq!(code, 1, "{stderr}");
    let expected = format!("RuntimeError: Asynchronous job {} failed.", job.job);
    assert!(stderr.contains(&expected), "{stderr}");
    assert_eq!(cloud.simulator.polls(&job), 2);
}

/// Keystone, the simulator in its catalog, and somebody who may log in.
struct Cloud {
    keystone: Keystone,
    simulator: Simulator,
    user: User,
    project: String,
}

impl Cloud {
    async fn start() -> Self {
        let keystone = Keystone::start(keystone::Config::default()).unwrap();
        let simulator = Simulator::start(Config::default()).unwrap();
        keystone.set_image_endpoint(&simulator.url()).await.unwrap();
        let project = keystone.create_project(PROJECT_NAME, DOMAIN).await.unwrap();
        let user = keystone
            .create_user("kay", DOMAIN, "correct horse", &[&project])
            .await
            .unwrap();
        Self {
            keystone,
            simulator,
            user,
            project,
        }
    }

    /// A job that is in one status after the other, a query each.
    fn job<const N: usize>(&self, id: &str, statuses: [&str; N]) -> JobKey {
        let key = JobKey::new(&self.project, id);
        let answers = statuses.map(|status| {
            let body = json!({
                "job_id": id,
                "job_type": "imsNativeExportImageJob",
                "begin_time": "2024-11-06T06:46:51.929Z",
                "end_time": if status == "SUCCESS" { "2024-11-06T06:49:53.657Z" } else { "" },
                "status": status,
                "error_code": null,
                "fail_reason": null,
                "entities": { "image_id": "1ab4df10-fe18-48b7-91c9-53695fcd9df5" },
            });
            Answer::json(200, body.to_string())
        });
        self.simulator.script(key.clone(), answers);
        key
    }

    /// Runs the client until it has seen the job end: exit code, stdout, stderr.
    fn wait_for(&self, job: &JobKey) -> (i32, String, String) {
        let home = folder(&job.job);
        let clouds = home.join("clouds.yaml");
        fs::write(&clouds, self.clouds_yaml()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/wait_for_job.py");
        let mut command = Environment::locate().unwrap().command();
        command
            .arg(script)
            .arg(&job.job)
            .env("OS_CLIENT_CONFIG_FILE", clouds)
            .env("HOME", &home);
        let (stdout, stderr) = (home.join("stdout"), home.join("stderr"));
        let output = Output::Split {
            stdout: stdout.clone(),
            stderr: stderr.clone(),
        };
        let client = Supervised::spawn(&command, output).unwrap();
        let code = client.wait(Duration::from_secs(60));
        let text = |file| fs::read_to_string(file).unwrap();
        let (stdout, stderr) = (text(stdout), text(stderr));
        (code.expect(&stderr), stdout, stderr)
    }

    /// JSON is YAML.
    fn clouds_yaml(&self) -> String {
        json!({ "clouds": { "otc": {
            "region_name": self.keystone.region(),
            "auth": {
                "auth_url": self.keystone.url(),
                "username": self.user.name,
                "password": self.user.password.expose_secret(),
                "user_domain_name": DOMAIN,
                "project_name": PROJECT_NAME,
                "project_domain_name": DOMAIN,
            },
        } } })
        .to_string()
    }
}

/// A new empty folder.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("independent-client")
        .join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}
