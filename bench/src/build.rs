//! Builds what is compared: the operator and the peers in Rust beside this program, the others into the cache of the
//! tests' own programs. What is up to date is left as it is.

use crate::peers::{Program, Starter, Subject, source};
use anyhow::{Context, ensure};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};
use testbed::kubernetes::Lookup;

pub fn all(
    subjects: &[Subject],
    operators: &[PathBuf],
    further: &[String],
    cloud: &str,
) -> anyhow::Result<Starter> {
    let beside = env::current_exe()?;
    let beside = beside.parent().context("a folder")?;
    let needs = |program| subjects.iter().any(|subject| subject.program == program);
    if operators.is_empty() || needs(Program::KubeRs) {
        rust()?;
    }
    let operators = if operators.is_empty() {
        vec![beside.join("image-export-operator")]
    } else {
        operators.to_vec()
    };
    let cache = Lookup::from_env().cache_folder();
    let cache = cache.context("no place for the peers: set HOME")?;
    Ok(Starter {
        operators,
        further: further.to_vec(),
        kube_rs: beside.join("peer-kube-rs"),
        controller_runtime: needs(Program::ControllerRuntime)
            .then(|| go(&cache))
            .transpose()?,
        python: needs(Program::Kopf).then(|| python(&cache)).transpose()?,
        cloud: cloud.to_owned(),
    })
}

/// In the profile of this program.
fn rust() -> anyhow::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--locked"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    build.args(["--bin=image-export-operator", "--bin=peer-kube-rs"]);
    build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    run("the operator and the peer of kube-rs", &mut build)
}

fn go(cache: &Path) -> anyhow::Result<PathBuf> {
    let program = cache.join("bench-controller-runtime");
    let mut build = Command::new("go");
    build
        .args([
            "build",
            "-mod=readonly",
            "-trimpath",
            "-ldflags=-s -w",
            "-o",
        ])
        .args([program.as_os_str(), ".".as_ref()])
        .current_dir(source("controller-runtime"))
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env_remove("GOFLAGS");
    run("the peer of controller-runtime", &mut build)?;
    Ok(program)
}

/// A Python with exactly the required packages.
fn python(cache: &Path) -> anyhow::Result<PathBuf> {
    let folder = cache.join("bench-kopf");
    let python = folder.join("bin/python");
    let requirements = source("kopf/requirements.txt");
    let wanted = fs::read_to_string(&requirements)?;
    let installed = folder.join("requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) && python.exists() {
        return Ok(python);
    }
    let mut venv = Command::new("python3");
    venv.args(["-I", "-m", "venv", "--clear"]).arg(&folder);
    run("a Python environment", &mut venv)?;
    let pip = |args: &[&str]| {
        let mut pip = Command::new(&python);
        pip.args(["-I", "-m", "pip", "--no-input"]).args(args);
        pip
    };
    let mut install = pip(&["install", "--quiet", "--no-deps", "--requirement"]);
    run("kopf", install.arg(requirements))?;
    run("kopf's packages", &mut pip(&["check"]))?;
    fs::write(installed, wanted)?;
    Ok(python)
}

fn run(what: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("building {what}");
    let status = command.status();
    let status = status.with_context(|| command.get_program().display().to_string())?;
    ensure!(status.success(), "building {what}: {status}");
    Ok(())
}
