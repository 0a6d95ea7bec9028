//! The parts that the quick start runs: a Kubernetes API, a simulated cloud and the operator. All of
//! them end with this process, whatever ends it.

use crate::{OPERATOR_ARGUMENT, target::Target};
use anyhow::{Context, bail};
use image_export_api::ImageExportJob;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use testbed::{
    ims::{self, Simulator, User},
    process::{Output, Supervised, last_lines},
};

/// Namespace of the sample objects.
pub const NAMESPACE: &str = "image-export-quickstart";
/// The project of all sample objects.
pub const PROJECT: &str = "ac234de25c6741d2b1273da49eea1b9e";
/// Seconds between two polls of a job; the operator's default is 30.
pub const POLL_PERIOD: &str = "2";

/// Namespace and name of the `ServiceAccount` in `deploy/`.
pub const OPERATOR: &str = "image-export-operator";
/// The text that the Secrets have in place of the simulator's address.
const SIMULATOR_PLACEHOLDER: &str = "http://SIMULATOR";
/// Lines of the operator's log that an error shows.
const LOG_LINES: usize = 15;

/// `deploy/`, as a user has it.
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// A file or folder beside this one.
pub fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/quickstart")
        .join(name)
}

/// The simulated cloud, with the one user whom `credentials.yaml` names.
pub fn start_simulator() -> anyhow::Result<Simulator> {
    let user = User::new("quickstart", "quickstart", "known-to-the-simulator-only")
        .project(PROJECT, "eu-de_quickstart");
    Simulator::start(ims::Config {
        users: vec![user],
        ..ims::Config::default()
    })
}

/// Creates a Secret for the simulator from a file beside this one.
pub fn apply_secret(cluster: &Target, simulator: &Simulator, file: &str) -> anyhow::Result<()> {
    let file = sample(file);
    let secret = fs::read_to_string(&file)
        .with_context(|| format!("reading {}", file.display()))?
        .replace(SIMULATOR_PLACEHOLDER, &simulator.url());
    cluster
        .kubectl(["apply", "--server-side", "-f", "-"])
        .stdin(secret)
        .success()?;
    Ok(())
}

/// Creates the sample objects.
pub fn apply_objects(cluster: &Target) -> anyhow::Result<()> {
    cluster
        .kubectl(["apply", "--server-side", "-f"])
        .args([sample("objects")])
        .success()?;
    Ok(())
}

/// The objects, read with the administrator's rights.
pub async fn objects(cluster: &Target) -> anyhow::Result<Api<ImageExportJob>> {
    let kubeconfig = Kubeconfig::read_from(cluster.admin_kubeconfig())?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // The API server is on this machine, where no proxy of the environment reaches.
    config.proxy_url = None;
    Ok(Api::namespaced(Client::try_from(config)?, NAMESPACE))
}

/// The running operator.
pub struct Operator {
    process: Supervised,
    log: PathBuf,
}

impl Operator {
    /// Starts this program as the operator, under its own `ServiceAccount`.
    pub fn start(cluster: &Target) -> anyhow::Result<Self> {
        let kubeconfig = cluster.operator_kubeconfig()?;
        let log = kubeconfig.with_file_name("operator.log");
        let program = env::current_exe().context("finding this program's own file")?;
        let mut command = Command::new(program);
        command
            .args([OPERATOR_ARGUMENT, "run", "--allow-http"])
            .args(["--poll-period", POLL_PERIOD, "--namespace", NAMESPACE])
            .args(["--http-listen", "127.0.0.1:0"]);
        // Settings and proxies of the environment must not change the quick start.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("IMAGE_EXPORT_") || text.to_lowercase().ends_with("_proxy") {
                command.env_remove(&name);
            }
        }
        command.env("KUBECONFIG", kubeconfig);
        let process = Supervised::spawn(&command, Output::Merged(log.clone()))
            .context("starting the operator")?;
        Ok(Self { process, log })
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log.
    pub fn last_lines(&self) -> String {
        last_lines(&self.log, LOG_LINES)
    }

    /// An error once it has exited.
    pub fn check(&self) -> anyhow::Result<()> {
        if let Some(code) = self.process.wait(Duration::ZERO) {
            bail!(
                "the operator has exited with code {code}; last lines of its log:\n{}",
                self.last_lines()
            );
        }
        Ok(())
    }
}
