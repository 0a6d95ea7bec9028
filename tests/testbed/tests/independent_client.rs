//! An independent client checks the testbed: otcextensions logs in at a real Keystone, finds
//! the simulator in its catalog, and waits for jobs there.

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use testbed::{
    ims::{Config, Job, JobKey, Simulator, Start},
    keystone::{self, Keystone, User},
    process::{Output, Supervised},
    python::Environment,
};

const DOMAIN: &str = "OTC00000000001000000101";
const PROJECT_NAME: &str = "eu-de_images";

#[tokio::test]
async fn otcextensions_waits_until_a_job_has_succeeded_or_failed() {
    let cloud = Cloud::start().await;
    let job = cloud.job("9a175ac892fa134201930039db1a27b1", |job| job);
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
    assert!(cloud.simulator.polls(&job) >= 2);

    let job = cloud.job("ff80808280c204e30180d2784c3c0d86", |job| {
        job.fails("IMG.0148", "The OBS bucket does not exist.")
    });
    let (code, _, stderr) = cloud.wait_for(&job);
    assert_eq!(code, 1, "{stderr}");
    let expected = format!("RuntimeError: Asynchronous job {} failed.", job.job);
    assert!(stderr.contains(&expected), "{stderr}");
    assert!(cloud.simulator.polls(&job) >= 2);
    let counters = cloud.simulator.counters();
    assert_eq!(counters.keystone_validations, counters.polls);
    assert_eq!(counters.answers.keys().collect::<Vec<_>>(), [&200]);
}

/// Keystone, the simulator in its catalog, and a user.
struct Cloud {
    keystone: Keystone,
    simulator: Simulator,
    user: User,
    project: String,
}

impl Cloud {
    async fn start() -> Self {
        let keystone = Keystone::start(keystone::Config::default()).unwrap();
        let simulator = Simulator::start(Config {
            keystone: Some(keystone.url().to_owned()),
            ..Config::default()
        })
        .unwrap();
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

    /// A job that starts with its first query.
    fn job(&self, id: &str, end: impl FnOnce(Job) -> Job) -> JobKey {
        let job = Job::new(self.project.as_str(), id)
            .starts(Start::FirstQuery)
            .init_for(Duration::from_millis(300))
            .running_for(Duration::from_millis(700));
        let job = end(job);
        let key = job.key();
        self.simulator.put_job(job);
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
        let code = client.wait(Duration::from_secs(300));
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
