//! The operators that are compared, and how each is started.

use crate::process::Running;
use anyhow::{Context, bail};
use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// An operator in one of its forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    pub program: Program,
    /// Whether it is tuned for many objects; the operator knows but one form.
    pub tuned: bool,
    /// Whether each object has an instant of its own within the period; else polls come as they come.
    pub strewn: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The n-th build of the operator that is measured.
    Operator(usize),
    KubeRs,
    ControllerRuntime,
    Kopf,
}

impl Subject {
    pub const OPERATOR: Self = Self::plain(Program::Operator(0));

    const fn plain(program: Program) -> Self {
        Self {
            program,
            tuned: false,
            strewn: false,
        }
    }

    pub const fn strewn(self) -> Self {
        Self {
            strewn: true,
            ..self
        }
    }

    pub fn is_operator(self) -> bool {
        matches!(self.program, Program::Operator(_))
    }

    /// Those that are asked for, or all, in the order of the tables.
    pub fn select(operators: usize, peers: &[String]) -> anyhow::Result<Vec<Self>> {
        let all: Vec<_> = [
            (Program::KubeRs, true),
            (Program::KubeRs, false),
            (Program::ControllerRuntime, true),
            (Program::ControllerRuntime, false),
            (Program::Kopf, false),
        ]
        .map(|(program, tuned)| Self {
            tuned,
            ..Self::plain(program)
        })
        .to_vec();
        let named = |subject: &Self| subject.to_string().replace(' ', "-");
        for peer in peers {
            if peer != "none" && !all.iter().any(|subject| named(subject) == *peer) {
                let names: Vec<_> = all.iter().map(named).collect();
                bail!("no peer is called {peer}, but {} or none", names.join(", "));
            }
        }
        let wanted = |subject: &Self| peers.is_empty() || peers.contains(&named(subject));
        let operators = (0..operators).map(|n| Self::plain(Program::Operator(n)));
        Ok(operators.chain(all.into_iter().filter(wanted)).collect())
    }
}

/// As in tables and results.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.program {
            Program::Operator(0) => f.write_str("operator")?,
            Program::Operator(n) => write!(f, "operator {}", n + 1)?,
            Program::KubeRs => f.write_str("kube-rs")?,
            Program::ControllerRuntime => f.write_str("controller-runtime")?,
            Program::Kopf => f.write_str("kopf")?,
        }
        if self.tuned {
            f.write_str(" tuned")?;
        }
        if self.strewn {
            f.write_str(" strewn")?;
        }
        Ok(())
    }
}

/// How an operator is to poll.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Seconds between two polls of an object.
    pub period: u64,
    /// Polls a second of one project, at most; peers know no such bound.
    pub polls_per_second: u32,
    pub adaptive: bool,
    /// Watches this namespace alone, where it is the operator.
    pub namespace: Option<&'static str>,
    /// Runs on this processor alone.
    pub processor: Option<u32>,
}

impl Launch {
    pub fn every(period: u64) -> Self {
        Self {
            period,
            polls_per_second: 1000,
            adaptive: false,
            namespace: None,
            processor: None,
        }
    }
}

/// Everything to start a subject with.
pub struct Starter {
    pub operators: Vec<PathBuf>,
    /// Further arguments of the operator.
    pub further: Vec<String>,
    pub kube_rs: PathBuf,
    pub controller_runtime: Option<PathBuf>,
    pub python: Option<PathBuf>,
    pub cloud: String,
}

impl Starter {
    pub fn start(
        &self,
        subject: Subject,
        launch: &Launch,
        kubeconfig: &Path,
    ) -> anyhow::Result<Running> {
        let mut command = match launch.processor {
            Some(processor) => {
                let mut taskset = Command::new("taskset");
                taskset.args(["--cpu-list", &processor.to_string()]);
                taskset.arg(self.program(subject)?);
                taskset
            }
            None => Command::new(self.program(subject)?),
        };
        command.env("KUBECONFIG", kubeconfig);
        if subject.is_operator() {
            self.operator(&mut command, launch);
        } else {
            if subject.tuned {
                command.arg("--tuned");
            }
            if subject.program == Program::Kopf {
                command.args([
                    "-I",
                    "-B",
                    "-m",
                    "kopf",
                    "run",
                    "--all-namespaces",
                    "--quiet",
                ]);
                command.arg(source("kopf/operator.py"));
            }
            command
                .env("CLOUD_URL", &self.cloud)
                .env("CLOUD_TOKEN", "bench")
                .env("POLL_PERIOD", launch.period.to_string())
                .env("POLL_STREWN", subject.strewn.to_string());
        }
        Running::start(&command)
    }

    fn operator(&self, command: &mut Command, launch: &Launch) {
        let mode = if launch.adaptive { "adaptive" } else { "fixed" };
        command
            .args(["run", "--http-listen=127.0.0.1:0", "--log-level=error"])
            .arg("--allow-http")
            .arg(format!("--poll-period={}", launch.period))
            .arg(format!("--poll-mode={mode}"))
            .arg(format!("--polls-per-second={}", launch.polls_per_second));
        if let Some(namespace) = launch.namespace {
            command.arg(format!("--namespace={namespace}"));
        }
        command.args(&self.further);
    }

    fn program(&self, subject: Subject) -> anyhow::Result<&Path> {
        let program = match subject.program {
            Program::Operator(n) => self.operators.get(n),
            Program::KubeRs => Some(&self.kube_rs),
            Program::ControllerRuntime => self.controller_runtime.as_ref(),
            Program::Kopf => self.python.as_ref(),
        };
        Ok(program.with_context(|| format!("no {subject}"))?)
    }
}

/// A file of the peers.
pub fn source(path: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    folder.join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_chosen_by_name() {
        let names = |operators, peers: &[&str]| -> anyhow::Result<Vec<String>> {
            let peers: Vec<_> = peers.iter().map(ToString::to_string).collect();
            let subjects = Subject::select(operators, &peers)?;
            Ok(subjects.iter().map(ToString::to_string).collect())
        };
        assert_eq!(names(1, &[]).unwrap().len(), 6);
        assert_eq!(
            names(2, &["kube-rs-tuned"]).unwrap(),
            ["operator", "operator 2", "kube-rs tuned"]
        );
        assert_eq!(names(1, &["none"]).unwrap(), ["operator"]);
        assert!(names(1, &["kube"]).is_err());
    }
}
