//! Tool verdicts: how deployment tools read an `ImageExportJob`, computed by their own code. That is
//! the Go program of `tests/judges`, built once into the testbed's cache. Tests decide which verdicts
//! are right.

use crate::{cache::hash, golang::Build, kubernetes::Lookup};
use anyhow::{Context, anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};

const PROGRAM: &str = "judges";

const REMEDY: &str = "install Go 1.26 or newer (https://go.dev/doc/install)";

const FLAGS: [&str; 4] = ["-mod=readonly", "-trimpath", "-ldflags", "-s -w"];

/// The verdicts of all tools on one object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolVerdict {
    /// Kubernetes' kstatus (`sigs.k8s.io/cli-utils`).
    pub kstatus: KstatusVerdict,
    /// Flux's edition of kstatus (`github.com/fluxcd/cli-utils`), which Helm 4 uses, too.
    pub flux_kstatus: KstatusVerdict,
    /// The failures of Flux's conditions checker for objects in progress; empty is a pass.
    pub flux_in_progress: Vec<String>,
    /// The failures of Flux's conditions checker for objects at rest; empty is a pass.
    pub flux_at_rest: Vec<String>,
    /// What Argo CD shows with the shipped health.lua.
    pub argo: ArgoVerdict,
    /// The actions that Argo CD offers, in the order of their names.
    pub argo_actions: Vec<String>,
}

/// A verdict of kstatus.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KstatusVerdict {
    /// What a waiting tool acts on.
    pub status: Kstatus,
    /// The message for people.
    pub message: String,
}

/// A verdict of Argo CD.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ArgoVerdict {
    /// The health that a sync wave waits for.
    pub status: ArgoHealth,
    /// The message for people.
    pub message: String,
}

/// The states of kstatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Kstatus {
    /// Not there yet: a wait goes on.
    InProgress,
    /// A wait ends with an error.
    Failed,
    /// A wait ends well.
    Current,
    /// The object is being deleted.
    Terminating,
    /// The object does not exist.
    NotFound,
    /// No state could be computed.
    Unknown,
}

/// The health states of Argo CD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ArgoHealth {
    /// No health could be computed; also where the script returns a health that does not exist.
    Unknown,
    /// Not there yet.
    Progressing,
    /// Paused on purpose.
    Suspended,
    /// It works.
    Healthy,
    /// Broken.
    Degraded,
    /// Not in the cluster.
    Missing,
}

/// The built program.
#[derive(Debug)]
pub struct Judges {
    program: PathBuf,
    customization: PathBuf,
}

impl Judges {
    /// The judges with the shipped scripts for Argo CD. The first call builds them if the testbed's
    /// cache has none: about two minutes on two cores, with progress lines on stderr. Errors name
    /// what to install.
    pub fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceLock<Result<Judges, String>> = OnceLock::new();
        SHARED
            .get_or_init(|| Self::locate().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow!("{error}"))
    }

    fn locate() -> anyhow::Result<Self> {
        let cache = Lookup::from_env().cache_folder().context(
            "no place for the testbed's programs: set IMAGE_EXPORT_TESTBED_CACHE to a folder, \
             or HOME",
        )?;
        let module = repository().join("tests/judges");
        let flags = FLAGS.map(str::to_owned);
        let key = key(&module, &flags)?;
        let build = Build {
            module: &module,
            what: "the judges of readiness",
            takes: "about 2 minutes",
            key: &key,
            flags: &flags,
            programs: &[(PROGRAM, ".")],
            remedy: REMEDY,
        };
        build.ensure(&cache)?;
        Ok(Self {
            program: cache.join(key).join(PROGRAM),
            customization: repository().join(
                "deploy/gitops/argocd/resource_customizations/imageexport.dev/ImageExportJob",
            ),
        })
    }

    /// The folder of the shipped scripts for Argo CD and their tests.
    #[must_use]
    pub fn customization(&self) -> &Path {
        &self.customization
    }

    /// One verdict for each object, in their order. Errors where an object is not a Kubernetes
    /// object, or a script of Argo CD's fails on it.
    pub fn judge(&self, objects: &[Value]) -> anyhow::Result<Vec<ToolVerdict>> {
        let input = serde_json::to_vec(objects)?;
        self.verdicts(&[], input, objects.len())
    }

    /// [`Self::judge`] for objects in YAML files, one in each.
    pub fn judge_files(&self, files: &[PathBuf]) -> anyhow::Result<Vec<ToolVerdict>> {
        ensure!(!files.is_empty(), "no files");
        self.verdicts(files, Vec::new(), files.len())
    }

    fn verdicts(
        &self,
        files: &[PathBuf],
        stdin: Vec<u8>,
        count: usize,
    ) -> anyhow::Result<Vec<ToolVerdict>> {
        let mut command = Command::new(&self.program);
        command.arg("--argocd").arg(&self.customization).args(files);
        let output = run(&mut command, stdin)?;
        ensure!(output.status.success(), "{}", failure(&output));
        let verdicts: Vec<ToolVerdict> = serde_json::Deserializer::from_slice(&output.stdout)
            .into_iter()
            .collect::<Result<_, _>>()
            .context("a verdict that cannot be read")?;
        let found = verdicts.len();
        ensure!(found == count, "{found} verdicts on {count} objects");
        Ok(verdicts)
    }

    /// Runs the tests beside a customization's scripts. `Ok` is the summary, an error holds each
    /// deviation.
    pub fn argocd_test(&self, customization: &Path) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("argocd-test").arg(customization);
        let output = run(&mut command, Vec::new())?;
        ensure!(output.status.success(), "{}", failure(&output));
        Ok(text(&output.stdout))
    }

    /// Waits for live `ImageExportJob`s as Flux's kustomize-controller does, but polls each second.
    /// The inner result is Flux's own: ready, or the error that a Kustomization would show.
    pub fn flux_wait(
        &self,
        kubeconfig: &Path,
        namespace: &str,
        names: &[&str],
        timeout: Duration,
    ) -> anyhow::Result<Result<(), String>> {
        let mut command = Command::new(&self.program);
        command
            .arg("flux-wait")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["-n", namespace, "--timeout"])
            .arg(format!("{}ms", timeout.as_millis()))
            .args(names);
        let output = run(&mut command, Vec::new())?;
        match output.status.code() {
            Some(0) => Ok(Ok(())),
            Some(1) => Ok(Err(text(&output.stdout))),
            _ => bail!("{}", failure(&output)),
        }
    }
}

/// The cache key of the program: the module's sources, the flags and the platform. Tests and nested
/// modules are not part of the program.
fn key(module: &Path, flags: &[String]) -> anyhow::Result<String> {
    let mut files = vec![module.join("go.mod"), module.join("go.sum")];
    go_sources(module, &mut files)?;
    files.sort();
    let mut parts = flags.to_vec();
    for file in files {
        let content =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(module).unwrap_or(&file);
        parts.extend([name.to_string_lossy().into_owned(), content]);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (os, arch) = (env::consts::OS, env::consts::ARCH);
    Ok(format!("judges-{os}-{arch}-{:016x}", hash(&parts)))
}

fn go_sources(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !path.join("go.mod").exists() {
            go_sources(&path, found)?;
        } else if name.ends_with(".go") && !name.ends_with("_test.go") {
            found.push(path);
        }
    }
    Ok(())
}

fn run(command: &mut Command, stdin: Vec<u8>) -> anyhow::Result<Output> {
    let program = command.get_program().to_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let mut input = child.stdin.take().context("the judges have no stdin")?;
    // A thread of its own, as verdicts may fill their pipe before all objects are read. A program
    // that exits without reading reports that by its exit code.
    let writer = thread::spawn(move || {
        let _ = input.write_all(&stdin);
    });
    let output = child.wait_with_output().context("waiting for the judges")?;
    let _ = writer.join();
    Ok(output)
}

fn failure(output: &Output) -> String {
    let printed = [text(&output.stdout), text(&output.stderr)].join("\n");
    format!("the judges: {}: {}", output.status, printed.trim())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_key_names_flags_and_sources_but_neither_tests_nor_nested_modules() {
        let module = Scratch::new().unwrap();
        let write = |name: &str, content: &str| {
            let file = module.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        };
        let key = |flag: &str| key(module.path(), &[flag.to_owned()]).unwrap();
        for name in ["go.mod", "go.sum", "main.go", "argo/lua.go"] {
            write(name, "1");
        }
        let first = key("-trimpath");
        for name in [
            "main_test.go",
            "argocd/go.mod",
            "argocd/health.go",
            "README.md",
        ] {
            write(name, "2");
            assert_eq!(key("-trimpath"), first, "{name}");
        }
        assert_ne!(key("-race"), first);
        for name in ["go.mod", "go.sum", "main.go", "argo/lua.go", "argo/new.go"] {
            write(name, "2");
            assert_ne!(key("-trimpath"), first, "{name}");
            write(name, "1");
        }
    }
}
