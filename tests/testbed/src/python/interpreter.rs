//! The Python that an environment is made with, and what to install where it will not do.

use anyhow::{Context, bail, ensure};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The version that the pinned packages require.
const OLDEST: (u32, u32) = (3, 11);

/// Prints one line each: major, minor and full version, platform, where it is installed, and whether
/// it can make environments. Must run on any Python, however old.
const PROBE: &str = "
import sys
try:
    import sysconfig
    platform, prefix = sysconfig.get_platform(), sys.base_prefix
except Exception:
    platform, prefix = sys.platform, sys.prefix
try:
    import ensurepip, venv
    able = 'yes'
except ImportError:
    able = 'no'
print('%d\\n%d\\n%s\\n%s\\n%s\\n%s' % (
    sys.version_info[0], sys.version_info[1], sys.version.split()[0], platform, prefix, able))
";

/// A Python that can make an environment for the pinned packages.
#[derive(Clone, Debug)]
pub(super) struct Interpreter {
    pub(super) program: PathBuf,
    /// For example `3.11.7`.
    pub(super) version: String,
    /// For example `linux-x86_64`.
    pub(super) platform: String,
    /// Where it is installed; two of the same version are not the same.
    pub(super) prefix: String,
}

impl Interpreter {
    /// Asks `program` what it is.
    pub(super) fn probe(program: &Path) -> anyhow::Result<Self> {
        let (major, minor) = OLDEST;
        let name = program.display();
        let output = Command::new(program)
            .args(["-I", "-c", PROBE])
            .stdin(Stdio::null())
            .output();
        let output = match output {
            Ok(output) if output.status.success() => output,
            // Python 2 has no -I.
            Ok(_) => bail!(
                "{name} is no Python {major}.{minor} or newer, which the testbed needs: {}",
                newer()
            ),
            Err(_) => bail!(
                "the testbed needs Python {major}.{minor} or newer and cannot run {name}: \
                 install it (apt-get install python3 python3-venv), or {}",
                newer()
            ),
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let parse = || {
            let mut lines = text.lines();
            let found = (
                lines.next()?.parse::<u32>().ok()?,
                lines.next()?.parse::<u32>().ok()?,
            );
            let mut next = || lines.next().map(str::to_owned);
            Some((found, next()?, next()?, next()?, next()?))
        };
        let (found, version, platform, prefix, able) =
            parse().with_context(|| format!("{name} does not answer as Python does: {text:?}"))?;
        ensure!(
            found >= OLDEST,
            "{name} is Python {version}, and the testbed needs {major}.{minor} or newer: {}",
            newer()
        );
        ensure!(
            able == "yes",
            "{name} (Python {version}) cannot make virtual environments: install its venv module \
             (apt-get install python3-venv)"
        );
        Ok(Self {
            program: program.to_owned(),
            version,
            platform,
            prefix,
        })
    }
}

fn newer() -> String {
    format!("set {} to a newer one", super::environment::PYTHON)
}
