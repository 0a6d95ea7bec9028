//! Programs that are built from Go modules of this repository and kept in the testbed's cache: the
//! environment they are built in, and the steps of one build. Which ones, and from what, their users
//! know.

use crate::{
    cache,
    process::{self, Supervised, last_lines},
    progress::{Progress, say, seconds},
};
use anyhow::{Context, bail, ensure};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);

/// One Go module's programs of one version.
#[derive(Debug)]
pub(crate) struct Build<'a> {
    /// The folder of go.mod.
    pub(crate) module: &'a Path,
    /// What is built, for people: "Kubernetes v1.36.3".
    pub(crate) what: &'a str,
    /// How long it takes, for people: "about 5 minutes".
    pub(crate) takes: &'a str,
    /// Names the content: programs under the same key are the same.
    pub(crate) key: &'a str,
    /// Flags of `go build`.
    pub(crate) flags: &'a [String],
    /// The programs: file name and Go package.
    pub(crate) programs: &'a [(&'a str, &'a str)],
    /// What helps where there is no Go, or it cannot build this.
    pub(crate) remedy: &'a str,
}

impl Build<'_> {
    /// Makes sure that all programs are in the folder named like the key in the cache. Processes that
    /// come at the same time wait for the first one.
    pub(crate) fn ensure(&self, cache: &Path) -> anyhow::Result<()> {
        let folder = cache.join(self.key);
        if self.missing(&folder).is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let _lock = cache::lock(
            &cache.join(format!("{}.lock", self.key)),
            &format!("builds {}", self.what),
        )?;
        let missing = self.missing(&folder);
        if missing.is_empty() {
            return Ok(());
        }
        self.build(&folder, &missing)
    }

    fn missing(&self, folder: &Path) -> Vec<(&str, &str)> {
        let programs = self.programs.iter().copied();
        programs
            .filter(|(name, _)| !folder.join(name).is_file())
            .collect()
    }

    fn build(&self, folder: &Path, programs: &[(&str, &str)]) -> anyhow::Result<()> {
        let go = Command::new("go")
            .arg("version")
            .stdin(Stdio::null())
            .output();
        if !go.is_ok_and(|output| output.status.success()) {
            bail!("the testbed cannot build {}: {}", self.what, self.remedy);
        }
        let names: Vec<&str> = programs.iter().map(|(name, _)| *name).collect();
        say(&format!(
            "building {} ({}) with Go; this happens once and takes {} on 2 cores",
            self.what,
            names.join(", "),
            self.takes
        ));
        let mut progress = Progress::new(format!("building {}", self.what), PROGRESS_INTERVAL);
        for (name, package) in programs {
            self.build_program(folder, name, package, &mut progress)?;
        }
        let took = seconds(progress.elapsed());
        say(&format!("built {} in {took}", self.what));
        Ok(())
    }

    /// Builds under another name and renames, so a file of the right name is always whole.
    fn build_program(
        &self,
        folder: &Path,
        name: &str,
        package: &str,
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        let unfinished = folder.join(format!("{name}.unfinished"));
        let log = folder.join(format!("{name}.log"));
        let _ = fs::remove_file(&log);
        let mut command = Command::new("go");
        command
            .arg("build")
            .args(self.flags)
            .arg("-o")
            .arg(&unfinished)
            .arg(package)
            .current_dir(self.module)
            .env("CGO_ENABLED", "0")
            // Settings for the developer's own Go work must not change what is built here.
            .env("GOWORK", "off")
            .env_remove("GOFLAGS")
            .env_remove("GOOS")
            .env_remove("GOARCH");
        let build = Supervised::spawn(&command, process::Output::Merged(log.clone()))
            .context("starting go build")?;
        let code = loop {
            if let Some(code) = build.wait(Duration::from_millis(500)) {
                break code;
            }
            progress.tick();
        };
        ensure!(
            code == 0,
            "go build of {name} ended with code {code}:\n{}\nIf this Go is too old or cannot \
             reach a module proxy, {}",
            last_lines(&log, 20),
            self.remedy
        );
        let finished = folder.join(name);
        fs::rename(&unfinished, &finished)
            .with_context(|| format!("renaming {}", unfinished.display()))?;
        let _ = fs::remove_file(&log);
        Ok(())
    }
}
