//! A private folder that vanishes with its owner, or with the process if that comes first.

use anyhow::Context;
use std::{
    fs::DirBuilder,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio, id},
    sync::atomic::{AtomicU32, Ordering},
};

/// Blocks on stdin; at its end removes the folder named by the first argument. Programs of a
/// killed process may need a moment to stop writing there, hence the further tries.
const JANITOR: &str = r#"
while read -r _; do :; done
for _ in 1 2 3 4 5; do
    rm -rf -- "$1" && exit
    sleep 1
done
"#;

/// A new folder below the system's temporary folder, readable by its owner only.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    janitor: Child,
}

impl Scratch {
    pub(crate) fn new() -> anyhow::Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let base = std::env::temp_dir();
        let path = loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("image-export-testbed-{}-{number}", id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => break path,
                // Left behind by an earlier process with our id.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("creating {}", path.display()));
                }
            }
        };
        let janitor = Command::new("/bin/sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(&path)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting /bin/sh")?;
        Ok(Self { path, janitor })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        // Reaps it; a folder that could not be removed is left to the system.
        let _ = self.janitor.wait();
    }
}
