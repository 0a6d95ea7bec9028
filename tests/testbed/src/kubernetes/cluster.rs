//! One etcd and one kube-apiserver in a folder of their own, on ports of their own.

use super::{
    Binaries, Kubectl,
    identity::{Identity, write_private},
};
use crate::{
    process::{Output, Supervised, last_lines},
    progress::Progress,
    scratch::Scratch,
};
use anyhow::{Context, anyhow, bail, ensure};
use serde_json::json;
use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// Ready after about 4 s on two idle cores; many testbeds may start at once on slower machines.
const READY_TIMEOUT: Duration = Duration::from_mins(10);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A port that was free when the OS named it may be taken before the server listens on it.
const PORT_ATTEMPTS: u32 = 5;
/// Longer than any test run, so no test meets an expired token by accident.
const TOKEN_DURATION: &str = "24h";

/// A running Kubernetes API with RBAC and a store of its own. Dropping it ends both programs and
/// removes their folder; so does the end of the process, however it ends.
#[derive(Debug)]
pub struct Cluster {
    // In the order of dropping: the server before its store, the folder last.
    api_server: Mutex<Option<Supervised>>,
    etcd: Supervised,
    binaries: Binaries,
    settings: Settings,
    kubeconfigs: AtomicU32,
    scratch: Scratch,
}

/// What an API server is started with.
#[derive(Debug)]
struct Settings {
    identity: Identity,
    etcd_port: u16,
    port: u16,
    log: PathBuf,
    admin_kubeconfig: PathBuf,
}

impl Cluster {
    /// Finds or builds the programs (see [`Binaries::locate`]), starts them, and waits until the
    /// API server is ready. Errors show the last lines of the log of what failed.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(Binaries::locate()?)
    }

    /// [`Self::start`] with the programs given.
    pub fn start_with(binaries: Binaries) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let folder = scratch.path();
        let (identity, token) = Identity::create(folder)?;
        let (etcd, etcd_port) = retry_on_port_clash("etcd", free_port, |port| {
            start_etcd(&binaries, folder, port).map(|etcd| (etcd, port))
        })?;
        let (api_server, settings) = retry_on_port_clash("kube-apiserver", free_port, |port| {
            let settings = Settings {
                identity: identity.clone(),
                etcd_port,
                port,
                log: folder.join("kube-apiserver.log"),
                admin_kubeconfig: folder.join("admin.kubeconfig"),
            };
            let kubeconfig = settings.kubeconfig("default", &token);
            write_private(&settings.admin_kubeconfig, kubeconfig.as_bytes())?;
            let server = settings.start_api_server(&binaries, folder)?;
            Ok((server, settings))
        })?;
        Ok(Self {
            api_server: Mutex::new(Some(api_server)),
            etcd,
            binaries,
            settings,
            kubeconfigs: AtomicU32::new(0),
            scratch,
        })
    }

    /// Base URL of the API server, for example `https://127.0.0.1:41233`. It stays the same over
    /// stops and starts.
    #[must_use]
    pub fn url(&self) -> String {
        self.settings.url()
    }

    /// Kubeconfig of a member of `system:masters`, for setting tests up; the operator under test
    /// uses [`Self::kubeconfig_for_service_account`].
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.settings.admin_kubeconfig
    }

    /// A new token of an existing `ServiceAccount`, good for a day, in a new kubeconfig whose
    /// default namespace is `namespace`. It has the rights that RBAC grants the `ServiceAccount`: at first,
    /// next to nothing.
    pub fn kubeconfig_for_service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<PathBuf> {
        let token = self
            .kubectl(["create", "token", name, "--namespace", namespace])
            .args(["--duration", TOKEN_DURATION])
            .success()?;
        let number = self.kubeconfigs.fetch_add(1, Ordering::Relaxed);
        let file = self
            .scratch
            .path()
            .join(format!("{namespace}.{name}.{number}.kubeconfig"));
        let kubeconfig = self.settings.kubeconfig(namespace, token.trim());
        write_private(&file, kubeconfig.as_bytes())?;
        Ok(file)
    }

    /// A kubectl command as administrator.
    pub fn kubectl(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Kubectl {
        self.settings
            .kubectl(&self.binaries, self.scratch.path())
            .args(args)
    }

    /// Applies a folder of manifests as a user would, and waits until the CRD `crd` is established. An error also where
    /// kubectl warns.
    pub fn install(&self, manifests: &Path, crd: &str) -> anyhow::Result<()> {
        let apply = self.kubectl(["apply", "--server-side", "-k"]);
        let applied = apply.args([manifests]).run()?;
        ensure!(
            applied.status.success() && applied.stderr.is_empty(),
            "{}",
            applied.stderr
        );
        self.kubectl(["wait", "--for=condition=Established", "--timeout=5m", "crd"])
            .args([crd])
            .success()?;
        Ok(())
    }

    /// The kubectl program, for what [`Self::kubectl`] does not cover.
    #[must_use]
    pub fn kubectl_path(&self) -> PathBuf {
        self.binaries.kubectl()
    }

    /// Ends the API server at once, as a crash of its machine would: open watches break, and
    /// until [`Self::start_api_server`] connections are refused. What it acknowledged is kept.
    pub fn stop_api_server(&self) -> anyhow::Result<()> {
        if let Some(server) = self.lock_server().take() {
            server.kill();
            server
                .wait(Duration::from_mins(5))
                .context("kube-apiserver did not end within 5 min of SIGKILL")?;
        }
        Ok(())
    }

    /// Starts the API server again, on the same port, and waits until it is ready. Does nothing
    /// where it runs.
    pub fn start_api_server(&self) -> anyhow::Result<()> {
        let mut server = self.lock_server();
        if server.as_ref().is_some_and(Supervised::is_running) {
            return Ok(());
        }
        ensure!(
            self.etcd.is_running(),
            "etcd has ended; last lines of its log:\n{}",
            last_lines(self.etcd.output().stderr(), 20)
        );
        let settings = &self.settings;
        // A passing connection of some other process may have been given the port meanwhile.
        let started = retry_on_port_clash(
            "kube-apiserver",
            || Ok(settings.port),
            |_| settings.start_api_server(&self.binaries, self.scratch.path()),
        )?;
        *server = Some(started);
        Ok(())
    }

    fn lock_server(&self) -> MutexGuard<'_, Option<Supervised>> {
        self.api_server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settings {
    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn kubectl(&self, binaries: &Binaries, folder: &Path) -> Kubectl {
        Kubectl::new(
            binaries.kubectl(),
            self.admin_kubeconfig.clone(),
            folder.join("kubectl-cache"),
        )
    }

    /// JSON is YAML, and needs no care for what stands in a value.
    fn kubeconfig(&self, namespace: &str, token: &str) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "testbed",
            "clusters": [{
                "name": "testbed",
                "cluster": {
                    "server": self.url(),
                    "certificate-authority": self.identity.ca_certificate,
                },
            }],
            "users": [{ "name": "testbed", "user": { "token": token } }],
            "contexts": [{
                "name": "testbed",
                "context": { "cluster": "testbed", "user": "testbed", "namespace": namespace },
            }],
        })
        .to_string()
    }

    fn start_api_server(&self, binaries: &Binaries, folder: &Path) -> anyhow::Result<Supervised> {
        let identity = &self.identity;
        let mut command = Command::new(binaries.kube_apiserver());
        command
            .args(["--bind-address", "127.0.0.1"])
            .args(["--secure-port", &self.port.to_string()])
            .arg("--etcd-servers")
            .arg(format!("http://127.0.0.1:{}", self.etcd_port))
            .args(["--authorization-mode", "RBAC"])
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .args(["--service-cluster-ip-range", "10.0.0.0/24"])
            // Nothing here routes to the `kubernetes` Service, and a machine without a network
            // has no other address to advertise.
            .args(["--advertise-address", "127.0.0.1"])
            .args(["--endpoint-reconciler-type", "none"])
            .arg("--cert-dir")
            .arg(folder)
            .arg("--tls-cert-file")
            .arg(&identity.certificate)
            .arg("--tls-private-key-file")
            .arg(&identity.key)
            .arg("--service-account-key-file")
            .arg(&identity.service_account_public_key)
            .arg("--service-account-signing-key-file")
            .arg(&identity.service_account_key)
            .arg("--token-auth-file")
            .arg(&identity.tokens);
        let server = Supervised::spawn(&command, Output::Merged(self.log.clone()))
            .context("starting kube-apiserver")?;
        // Only the server of this cluster has a certificate that kubectl accepts here.
        wait_until_ready("kube-apiserver", &server, || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
                && self
                    .kubectl(binaries, folder)
                    .args(["get", "--raw", "/readyz"])
                    .run()
                    .is_ok_and(|output| output.status.success())
        })?;
        Ok(server)
    }
}

fn start_etcd(binaries: &Binaries, folder: &Path, port: u16) -> anyhow::Result<Supervised> {
    let url = format!("http://127.0.0.1:{port}");
    let log = folder.join(format!("etcd-{port}.log"));
    let mut command = Command::new(binaries.etcd());
    command
        .arg("--data-dir")
        .arg(folder.join("etcd"))
        .arg("--unsafe-no-fsync")
        .args(["--listen-client-urls", &url])
        .args(["--advertise-client-urls", &url])
        // No peers: any free port will do.
        .args(["--listen-peer-urls", "http://127.0.0.1:0"]);
    let etcd = Supervised::spawn(&command, Output::Merged(log.clone())).context("starting etcd")?;
    // Its own log, not its port: on a clash another cluster's etcd would answer there.
    wait_until_ready("etcd", &etcd, || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("ready to serve client requests"))
    })?;
    Ok(etcd)
}

fn wait_until_ready(
    name: &str,
    program: &Supervised,
    ready: impl Fn() -> bool,
) -> anyhow::Result<()> {
    let log = || last_lines(program.output().stderr(), 20);
    let mut progress = Progress::new(format!("waiting for {name}"), PROGRESS_INTERVAL);
    while !ready() {
        if let Some(code) = program.wait(POLL_INTERVAL) {
            bail!(
                "{name} ended with code {code} before it was ready; last lines of its log:\n{}",
                log()
            );
        }
        ensure!(
            progress.elapsed() < READY_TIMEOUT,
            "{name} was not ready after {} s; last lines of its log:\n{}",
            READY_TIMEOUT.as_secs(),
            log()
        );
        progress.tick();
    }
    Ok(())
}

/// Calls `start` with what `port` returns until it does not fail because that port is taken.
fn retry_on_port_clash<T>(
    name: &str,
    port: impl Fn() -> anyhow::Result<u16>,
    mut start: impl FnMut(u16) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut last = anyhow!("{name} was not started");
    for _ in 0..PORT_ATTEMPTS {
        match start(port()?) {
            Err(error) if error.to_string().contains("address already in use") => last = error,
            result => return result,
        }
    }
    Err(last.context(format!("{name} met a taken port {PORT_ATTEMPTS} times")))
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
    Ok(listener.local_addr()?.port())
}
