//! The virtual environment: where it is kept, how it is made, how programs run in it.

use super::interpreter::Interpreter;
use crate::{
    cache::{hash, lock},
    kubernetes::Lookup,
    process::{Output, Supervised, last_lines},
    progress::{Progress, say, seconds},
};
use anyhow::{Context, ensure};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Names the Python to use instead of `python3`.
pub(super) const PYTHON: &str = "IMAGE_EXPORT_TESTBED_PYTHON";

/// Present in an environment that is whole.
const COMPLETE: &str = "complete";

const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);

/// A virtual environment with the packages of `python/requirements.txt`, whole and ready.
#[derive(Clone, Debug)]
pub struct Environment {
    folder: PathBuf,
    key: String,
}

impl Environment {
    /// Finds the environment in the testbed's cache, and makes it where it is not there: about
    /// a minute on two cores, once per list of packages and Python, with progress lines on stderr.
    ///
    /// The Python is `$IMAGE_EXPORT_TESTBED_PYTHON`, else `python3`; the cache that of
    /// [`Lookup::cache_folder`]. Packages come from where pip is configured to take them.
    pub fn locate() -> anyhow::Result<Self> {
        let cache = Lookup::from_env().cache_folder().context(
            "no place for the testbed's Python packages: set IMAGE_EXPORT_TESTBED_CACHE to a \
             folder, or HOME",
        )?;
        let python = env::var_os(PYTHON).filter(|value| !value.is_empty());
        Self::resolve(Path::new(&python.unwrap_or("python3".into())), &cache)
    }

    /// [`Self::locate`] with the Python and the cache folder given.
    pub fn resolve(python: &Path, cache: &Path) -> anyhow::Result<Self> {
        let python = Interpreter::probe(python)?;
        let requirements = script("requirements.txt");
        let packages = fs::read_to_string(&requirements)
            .with_context(|| format!("reading {}", requirements.display()))?;
        let Interpreter {
            version, platform, ..
        } = &python;
        let hash = hash(&[&packages, version, platform, &python.prefix]);
        let key = format!("python-{version}-{platform}-{hash:016x}");
        let environment = Self {
            folder: cache.join(&key),
            key,
        };
        if !environment.is_whole() {
            fs::create_dir_all(cache).with_context(|| format!("creating {}", cache.display()))?;
            let _lock = lock(
                &cache.join(format!("{}.lock", environment.key)),
                "installs Python packages",
            )?;
            if !environment.is_whole() {
                environment.make(&python, &requirements)?;
            }
        }
        Ok(environment)
    }

    /// Names the packages and the Python; what is derived from them is kept under names that hold it.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A command of this environment's Python, to which a script and its arguments are to be added.
    /// It sees nothing of the developer's own Python packages, proxies and `OS_…` variables.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.program("python"));
        // Isolated: no PYTHON… variables, no packages of the user.
        command.arg("-I");
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            let proxy = name.to_ascii_lowercase().ends_with("_proxy");
            if proxy || name.starts_with("OS_") {
                command.env_remove(&*name);
            }
        }
        command
    }

    /// A program that a package brings, for example `keystone-manage`: a script for
    /// [`Self::command`].
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// The folder it is kept in, for what is made with it.
    pub(crate) fn cache(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    /// The link to the Python it was made with may have lost its end since.
    fn is_whole(&self) -> bool {
        self.folder.join(COMPLETE).is_file() && self.program("python").is_file()
    }

    /// Environments cannot be renamed, as their programs hold their path: the mark, written last,
    /// distinguishes a complete one from an interrupted installation.
    fn make(&self, python: &Interpreter, requirements: &Path) -> anyhow::Result<()> {
        say(&format!(
            "installing Keystone and otcextensions for Python {}; this happens once and takes \
             about a minute",
            python.version
        ));
        let start = Instant::now();
        let _ = fs::remove_file(self.folder.join(COMPLETE));
        let log = self.folder.with_file_name(format!("{}.log", self.key));
        let _ = fs::remove_file(&log);

        let mut create = Command::new(&python.program);
        create
            .args(["-I", "-m", "venv", "--clear"])
            .arg(&self.folder);
        run(
            &create,
            &log,
            "making a Python environment",
            "install Python's venv module (apt-get install python3-venv)",
        )?;
        let pip = |arguments: &[&str]| {
            let mut pip = Command::new(self.program("python"));
            pip.args(["-I", "-m", "pip", "--disable-pip-version-check"])
                .arg("--no-input")
                .args(arguments)
                .env_remove("PIP_USER")
                .env_remove("PIP_TARGET")
                .env_remove("PIP_PREFIX");
            pip
        };
        // Nothing but what is listed; that nothing is missing is checked afterwards.
        let mut install = pip(&["install", "--quiet", "--no-deps", "--requirement"]);
        install.arg(requirements);
        run(
            &install,
            &log,
            "installing Python packages",
            "where no package index can be reached, configure pip (PIP_INDEX_URL); where a package \
             had to be compiled, install a C compiler and Python's headers (apt-get install \
             build-essential python3-dev), or name a Python that it has a wheel for in \
             IMAGE_EXPORT_TESTBED_PYTHON",
        )?;
        run(
            &pip(&["check"]),
            &log,
            "checking Python packages",
            "complete python/requirements.txt for this Python",
        )?;
        fs::write(self.folder.join(COMPLETE), "")
            .with_context(|| format!("completing {}", self.folder.display()))?;
        let _ = fs::remove_file(&log);
        say(&format!(
            "installed Python packages in {}",
            seconds(start.elapsed())
        ));
        Ok(())
    }
}

/// A file of the folder `python` beside this crate.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("python")
        .join(name)
}

/// Runs a command to its end with its output in `log`; `what` is for progress lines. Fails, with the
/// end of the log and the remedy, where the command does.
pub(crate) fn run(command: &Command, log: &Path, what: &str, remedy: &str) -> anyhow::Result<()> {
    let child = Supervised::spawn(command, Output::Merged(log.to_owned()))
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let mut progress = Progress::new(what, PROGRESS_INTERVAL);
    let code = loop {
        if let Some(code) = child.wait(Duration::from_millis(500)) {
            break code;
        }
        progress.tick();
    };
    ensure!(
        code == 0,
        "{what} ended with code {code}:\n{}\nWhat may help: {remedy}",
        last_lines(log, 20)
    );
    Ok(())
}
