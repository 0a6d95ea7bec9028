//! The database that every Keystone starts with: the schema, an administrator, the catalog's entry
//! for Keystone itself. Making it takes ten seconds, so it is kept in the testbed's cache.

use super::settings::{self, CONFIGURATION, configuration_file, random_hex, write_private};
use crate::{
    cache::{hash, lock},
    python::{Environment, run},
    scratch::Scratch,
};
use anyhow::Context;
use secrecy::SecretString;
use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Stands for the base URL, which the server sets when it has its port.
const URL: &str = "$(public_endpoint)s/v3";

const REMEDY: &str = "this Python may not suit Keystone: name another one in \
    IMAGE_EXPORT_TESTBED_PYTHON";

/// A prepared database and its administrator's password.
pub(super) struct Template {
    folder: PathBuf,
}

impl Template {
    /// The one for this region from the cache, made first if it is not there.
    pub(super) fn obtain(environment: &Environment, region: &str) -> anyhow::Result<Self> {
        let hash = hash(&[environment.key(), CONFIGURATION, URL, region]);
        let cache = environment.cache();
        let key = format!("keystone-{hash:016x}");
        let template = Self {
            folder: cache.join(&key),
        };
        if !template.folder.is_dir() {
            let lock_file = cache.join(format!("{key}.lock"));
            let _lock = lock(&lock_file, "prepares a Keystone database")?;
            if !template.folder.is_dir() {
                let unfinished = cache.join(format!("{key}.unfinished"));
                make(environment, region, &unfinished)?;
                fs::rename(&unfinished, &template.folder)
                    .with_context(|| format!("renaming {}", unfinished.display()))?;
            }
        }
        Ok(template)
    }

    /// The file to copy.
    pub(super) fn database(&self) -> PathBuf {
        settings::database(&self.folder)
    }

    /// The password of `admin` in the domain `default`.
    pub(super) fn admin_password(&self) -> anyhow::Result<SecretString> {
        let file = password_file(&self.folder);
        let password =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(password.into())
    }
}

fn make(environment: &Environment, region: &str, folder: &Path) -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    settings::write(scratch.path(), Duration::from_hours(1))?;
    let manage = |subcommand| {
        let mut command = environment.command();
        command
            .arg(environment.program("keystone-manage"))
            .arg("--config-file")
            .arg(configuration_file(scratch.path()))
            .arg(subcommand);
        command
    };
    let what = "preparing a Keystone database";
    let log = scratch.path().join("log");
    run(&manage("db_sync"), &log, what, REMEDY)?;
    let password = random_hex(32)?;
    let mut bootstrap = manage("bootstrap");
    bootstrap
        .args(["--bootstrap-region-id", region])
        .args(["--bootstrap-public-url", URL])
        .env("OS_BOOTSTRAP_PASSWORD", &password);
    run(&bootstrap, &log, what, REMEDY)?;

    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("creating {}", folder.display()))?;
    fs::copy(
        settings::database(scratch.path()),
        settings::database(folder),
    )
    .context("keeping the Keystone database")?;
    write_private(&password_file(folder), &password)
}

fn password_file(folder: &Path) -> PathBuf {
    folder.join("admin-password")
}
