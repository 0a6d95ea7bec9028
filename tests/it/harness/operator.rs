//! The operator as a process.

use super::{GRACE_SCALE, OPERATOR_NAMESPACE, PATIENCE, SCALE, eventually, install_tls_provider};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use testbed::{
    kubernetes::Cluster,
    process::{Output, Supervised, last_lines},
};

/// The folder of the operators' logs, one per test process.
fn logs() -> &'static Path {
    static LOGS: OnceLock<PathBuf> = OnceLock::new();
    LOGS.get_or_init(|| {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("logs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for logs");
        folder
    })
}

/// Options of an operator process.
#[derive(Clone, Copy)]
pub struct Launch<'a> {
    /// With `--allow-http`, without which no simulator can be reached.
    pub allow_http: bool,
    pub log_level: &'a str,
    /// Factor of its durations.
    pub scale: f64,
    /// Further environment variables.
    pub environment: &'a [(&'a str, &'a str)],
    /// Another binary than that of this version.
    pub program: Option<&'a Path>,
}

impl Launch<'_> {
    /// For tests in which a grace has to pass: [`GRACE_SCALE`].
    pub fn for_graces() -> Self {
        Self {
            scale: GRACE_SCALE,
            ..Self::default()
        }
    }
}

impl Default for Launch<'_> {
    fn default() -> Self {
        Self {
            allow_http: true,
            log_level: "info,image_export=debug",
            scale: SCALE,
            environment: &[],
            program: None,
        }
    }
}

/// A running operator.
pub struct Operator {
    process: Supervised,
    log: PathBuf,
}

impl Operator {
    /// Starts the real binary under its own `ServiceAccount`.
    pub fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        Self::start_as(cluster, Launch::default(), arguments)
    }

    /// The same with options.
    pub fn start_as(cluster: &Cluster, launch: Launch<'_>, arguments: &[&str]) -> Self {
        let kubeconfig = cluster
            .kubeconfig_for_service_account(OPERATOR_NAMESPACE, "image-export-operator")
            .expect("a token for the operator");
        Self::launch(&kubeconfig, launch, arguments)
    }

    /// Starts the real binary with a given kubeconfig.
    pub fn start_with(kubeconfig: &Path, arguments: &[&str]) -> Self {
        Self::launch(kubeconfig, Launch::default(), arguments)
    }

    /// The same with options.
    pub fn launch(kubeconfig: &Path, launch: Launch<'_>, arguments: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let log = logs().join(format!(
            "operator-{}.log",
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        let own = Path::new(env!("CARGO_BIN_EXE_image-export-operator"));
        let mut command = Command::new(launch.program.unwrap_or(own));
        command
            .arg("run")
            .args(["--http-listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--log-level", launch.log_level])
            .args(launch.allow_http.then_some("--allow-http"))
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("IMAGE_EXPORT_TIME_SCALE", launch.scale.to_string())
            .envs(launch.environment.iter().copied());
        let process =
            Supervised::spawn(&command, Output::Merged(log.clone())).expect("the operator starts");
        Self { process, log }
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.process.kill();
        self.process.wait(PATIENCE).expect("a killed process exits");
    }

    /// Stops the process (SIGSTOP), as a starved or suspended machine would, until [`Self::resume`].
    pub fn pause(&self) {
        self.signal("STOP");
    }

    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "kill -s {name}");
    }

    /// SIGINT, as Ctrl-C sends it, without waiting for the exit.
    pub fn interrupt(&self) {
        self.signal("INT");
    }

    /// SIGTERM, without waiting for the exit.
    pub fn stop(&self) {
        self.process.terminate();
    }

    /// SIGTERM; waits for the exit and returns its code.
    pub fn terminate(&self) -> i32 {
        self.process.terminate();
        self.process
            .wait(PATIENCE)
            .expect("the operator exits on SIGTERM")
    }

    /// Exit code of an operator that exits by itself.
    pub fn ended(&self) -> i32 {
        self.process
            .wait(PATIENCE)
            .expect("the operator exits by itself")
    }

    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// The last lines of its log.
    pub fn last_words(&self) -> String {
        last_lines(&self.log, 25)
    }

    /// Its whole log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `http://127.0.0.1:PORT` of its probes.
    pub async fn url(&self) -> String {
        let line = eventually("the address of the probes", || {
            self.log()
                .lines()
                .find(|line| line.contains("serving /healthz"))
                .map(str::to_owned)
        })
        .await;
        let line: Value = serde_json::from_str(&line).expect("a JSON line");
        format!("http://{}", line["address"].as_str().expect("an address"))
    }

    /// A GET of one of its probes: status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        install_tls_provider();
        let url = format!("{}{path}", self.url().await);
        let response = reqwest::get(url).await.expect("an answer");
        (
            response.status().as_u16(),
            response.text().await.expect("a body"),
        )
    }

    /// Value of a metric, 0 where it has none yet.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// Waits until a metric has at least this value; returns it.
    pub async fn until_metric(&self, series: &str, least: f64) -> f64 {
        let started = Instant::now();
        loop {
            let value = self.metric(series).await;
            if value >= least {
                return value;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "timed out: {series} is {value}, not {least}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
