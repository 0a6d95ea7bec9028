//! One kubectl command: built step by step, run once, and read as a test needs it.

use anyhow::{Context, ensure};
use std::{
    ffi::{OsStr, OsString},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
};

/// A kubectl command that has not run yet. It uses the cluster, and nothing of the developer's
/// own kubeconfig, preferences and caches.
#[must_use = "a command does nothing until it is run"]
#[derive(Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
    args: Vec<OsString>,
    stdin: Vec<u8>,
}

/// What a finished kubectl command left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout; invalid UTF-8 is replaced.
    pub stdout: String,
    /// Its stderr; invalid UTF-8 is replaced.
    pub stderr: String,
}

impl Kubectl {
    /// A command of this program with this kubeconfig; `cache` is a folder for what kubectl keeps.
    pub fn new(program: PathBuf, kubeconfig: PathBuf, cache: PathBuf) -> Self {
        Self {
            program,
            kubeconfig,
            cache,
            args: Vec::new(),
            stdin: Vec::new(),
        }
    }

    /// Appends arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Acts with another kubeconfig than the administrator's.
    pub fn kubeconfig(mut self, file: &Path) -> Self {
        file.clone_into(&mut self.kubeconfig);
        self
    }

    /// What the command reads from stdin, as in `apply -f -`; empty by default.
    pub fn stdin(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.stdin = content.into();
        self
    }

    /// Runs the command to its end, whatever exit code that has. Errors only where it cannot run.
    pub fn run(self) -> anyhow::Result<Output> {
        let mut child = Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(&self.args)
            .env_remove("KUBECONFIG")
            .env("KUBECTL_KUBERC", "false")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let mut input = child.stdin.take().context("kubectl has no stdin")?;
        let stdin = self.stdin;
        // A thread of its own: kubectl may print more than a pipe holds before it has read all.
        // It may also end without reading, which its exit code reports better than this write.
        let writer = thread::spawn(move || {
            let _ = input.write_all(&stdin);
        });
        let output = child.wait_with_output().context("waiting for kubectl")?;
        let _ = writer.join();
        Ok(Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs the command, which must succeed, and returns its stdout. The error names the command
    /// and holds its stderr.
    pub fn success(self) -> anyhow::Result<String> {
        let command = self.describe();
        let output = self.run()?;
        ensure!(
            output.status.success(),
            "{command}: {}: {}",
            output.status,
            output.stderr.trim()
        );
        Ok(output.stdout)
    }

    /// Runs the command, which must fail, and returns its stderr.
    pub fn failure(self) -> anyhow::Result<String> {
        let command = self.describe();
        let output = self.run()?;
        ensure!(
            !output.status.success(),
            "{command} succeeded, which it must not"
        );
        Ok(output.stderr)
    }

    /// Runs the command with `--output=json`, which must succeed, and parses its stdout.
    pub fn json(self) -> anyhow::Result<serde_json::Value> {
        let command = self.describe();
        let stdout = self.args(["--output=json"]).success()?;
        serde_json::from_str(&stdout).with_context(|| format!("{command} printed no JSON"))
    }

    fn describe(&self) -> String {
        self.args.iter().fold("kubectl".into(), |mut line, arg| {
            line.push(' ');
            line.push_str(&arg.to_string_lossy());
            line
        })
    }
}
