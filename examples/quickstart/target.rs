//! The Kubernetes API that the tour runs on: one of its own, or the user's cluster, which is left as it was.

use crate::environment::{NAMESPACE, OPERATOR, deploy};
use anyhow::{Context, bail, ensure};
use serde_json::json;
use std::{
    env,
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};
use testbed::kubernetes::{Binaries, Cluster, Kubectl};

const CRD: &str = "imageexportjobs.imageexport.dev";
const JOBS: &str = "imageexportjobs.imageexport.dev";

/// Where the tour runs.
pub enum Target {
    /// An API server that ends with this process.
    Own(Box<Cluster>),
    /// A cluster that the user named.
    Given(Given),
}

/// A cluster of the user's.
pub struct Given {
    kubectl: PathBuf,
    /// Of this run: copies of kubeconfigs, the operator's log.
    folder: PathBuf,
    /// Whether anything in the cluster is to be removed.
    is_used: AtomicBool,
}

impl Target {
    /// Starts an API server.
    pub fn start() -> anyhow::Result<Self> {
        let cluster = Cluster::start_with(Binaries::locate()?)?;
        Ok(Self::Own(Box::new(cluster)))
    }

    /// The cluster of this context of the user's kubeconfig.
    pub fn given(context: &str) -> anyhow::Result<Self> {
        let kubectl = match env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .map(|folder| folder.join("kubectl"))
            .find(|program| program.is_file())
        {
            Some(kubectl) => kubectl,
            None => Binaries::locate()?.kubectl(),
        };
        // Alone, and with all files in it: what the user changes meanwhile does not lead elsewhere.
        let view = [
            "config",
            "view",
            "--minify",
            "--flatten",
            "--output=json",
            "--context",
        ];
        let output = Command::new(&kubectl).args(view).arg(context).output()?;
        let problem = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "--context {context}: {}",
            problem.trim()
        );
        let folder =
            env::temp_dir().join(format!("image-export-quickstart-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let given = Given {
            kubectl,
            folder,
            is_used: AtomicBool::new(false),
        };
        write_private(&given.admin(), &output.stdout)?;
        let target = Self::Given(given);
        target.kubectl(["version"]).success()?;
        let crd = target.kubectl(["get", "crd", CRD, "--ignore-not-found", "--output=name"]);
        if !crd.success()?.trim().is_empty() {
            bail!(
                "the cluster of context {context} has ImageExportJobs already, and maybe an operator that \
                 would follow those of the quick start: take another cluster, or, if nobody uses them, \
                 delete the CRD: kubectl --context {context} delete crd {CRD}"
            );
        }
        Ok(target)
    }

    /// Installs CRD, `ServiceAccount` and rights, and creates the namespace, as an administrator would.
    pub fn install(&self) -> anyhow::Result<()> {
        match self {
            Self::Own(_) => {
                self.kubectl(["apply", "--server-side", "-k"])
                    .args([deploy()])
                    .success()?;
                self.kubectl(["create", "namespace", NAMESPACE]).success()?;
            }
            Self::Given(given) => {
                self.kubectl(["create", "namespace", NAMESPACE]).success()?;
                given.is_used.store(true, Ordering::Relaxed);
                let crds = deploy().with_file_name("crds");
                self.kubectl(["apply", "--server-side", "-k"])
                    .args([crds])
                    .success()?;
                self.kubectl([
                    "create",
                    "serviceaccount",
                    OPERATOR,
                    "--namespace",
                    NAMESPACE,
                ])
                .success()?;
                let role = deploy().join("namespaced/role.yaml");
                let role = fs::read_to_string(&role)
                    .with_context(|| format!("reading {}", role.display()))?
                    .replace("namespace: team-a", &format!("namespace: {NAMESPACE}"))
                    .replace(
                        "namespace: image-export-operator",
                        &format!("namespace: {NAMESPACE}"),
                    );
                self.kubectl(["apply", "--server-side", "-f", "-"])
                    .stdin(role)
                    .success()?;
            }
        }
        self.kubectl(["wait", "--for=condition=Established", "--timeout=30s"])
            .args([format!("crd/{CRD}")])
            .success()?;
        // From here on, kubectl with this kubeconfig needs no --namespace.
        self.kubectl(["config", "set-context", "--current"])
            .args(["--namespace", NAMESPACE])
            .success()?;
        Ok(())
    }

    /// Removes everything from a cluster of the user's.
    pub fn remove(&self) -> anyhow::Result<()> {
        let Self::Given(given) = self else {
            return Ok(());
        };
        if !given.is_used.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        self.kubectl([
            "delete",
            "namespace",
            NAMESPACE,
            "--ignore-not-found",
            "--wait=false",
        ])
        .success()?;
        self.kubectl([
            "delete",
            JOBS,
            "--all",
            "--ignore-not-found",
            "--namespace",
            NAMESPACE,
        ])
        .success()?;
        let others = self
            .kubectl(["get", JOBS, "--all-namespaces", "--output=name"])
            .success()?;
        ensure!(
            others.trim().is_empty(),
            "the CRD {CRD} stays, because somebody has created ImageExportJobs meanwhile"
        );
        self.kubectl(["delete", "crd", CRD, "--ignore-not-found", "--wait=false"])
            .success()?;
        Ok(())
    }

    /// A kubectl command as administrator.
    pub fn kubectl(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Kubectl {
        match self {
            Self::Own(cluster) => cluster.kubectl(args),
            Self::Given(given) => {
                let cache = given.folder.join("kubectl-cache");
                Kubectl::new(given.kubectl.clone(), given.admin(), cache).args(args)
            }
        }
    }

    /// The kubectl program.
    pub fn kubectl_path(&self) -> PathBuf {
        match self {
            Self::Own(cluster) => cluster.kubectl_path(),
            Self::Given(given) => given.kubectl.clone(),
        }
    }

    /// Kubeconfig of the administrator, with the tour's namespace.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        match self {
            Self::Own(cluster) => cluster.admin_kubeconfig().to_owned(),
            Self::Given(given) => given.admin(),
        }
    }

    /// Kubeconfig of the operator's `ServiceAccount`.
    pub fn operator_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let given = match self {
            Self::Own(cluster) => {
                return cluster.kubeconfig_for_service_account(OPERATOR, OPERATOR);
            }
            Self::Given(given) => given,
        };
        let token = self
            .kubectl(["create", "token", OPERATOR, "--namespace", NAMESPACE])
            .success()?;
        let mut kubeconfig = self.kubectl(["config", "view", "--raw"]).json()?;
        kubeconfig["users"][0]["user"] = json!({ "token": token.trim() });
        let file = given.folder.join("operator.kubeconfig");
        write_private(&file, kubeconfig.to_string().as_bytes())?;
        Ok(file)
    }
}

impl Given {
    fn admin(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // It holds credentials. Nobody reads what is left of it.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn write_private(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)?;
    Ok(file.write_all(content)?)
}
