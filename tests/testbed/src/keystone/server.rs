//! One Keystone in a folder and on a port of its own.

use super::{
    api::Api,
    settings::{self, configuration_file},
    template::Template,
};
use crate::{
    process::{Output, Supervised, last_lines},
    python::{Environment, script},
    scratch::Scratch,
};
use anyhow::{Context, bail, ensure};
use std::{
    fs,
    time::{Duration, Instant},
};

/// About 3 s on two idle cores; many testbeds may start at once on slower machines.
const READY_TIMEOUT: Duration = Duration::from_mins(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How to start a [`Keystone`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Lifetime of tokens; whole seconds, at least one. Default 1 h.
    pub token_lifetime: Duration,
    /// The region of the catalog's entries. Default `eu-de`. A database is prepared for each one.
    pub region: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            token_lifetime: Duration::from_hours(1),
            region: "eu-de".to_owned(),
        }
    }
}

/// A running Keystone with a database and keys of its own. Dropping it ends the program and removes
/// its folder; so does the end of the process, however it ends.
#[derive(Debug)]
pub struct Keystone {
    // In the order of dropping: the folder last.
    server: Supervised,
    pub(super) api: Api,
    pub(super) region: String,
    _scratch: Scratch,
}

impl Keystone {
    /// Finds or installs the program (see [`Environment::locate`]), starts it, and returns when it
    /// accepts requests. Errors show the last lines of the log of what failed.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        ensure!(
            config.token_lifetime >= Duration::from_secs(1),
            "the lifetime of tokens is in whole seconds, not {:?}",
            config.token_lifetime
        );
        let environment = Environment::locate()?;
        let template = Template::obtain(&environment, &config.region)?;
        let scratch = Scratch::new()?;
        let folder = scratch.path();
        settings::write(folder, config.token_lifetime)?;
        fs::copy(template.database(), settings::database(folder))
            .context("copying the prepared Keystone database")?;

        let mut command = environment.command();
        command
            .arg(script("keystone_server.py"))
            .env("OS_KEYSTONE_CONFIG_FILES", configuration_file(folder));
        let output = Output::Split {
            stdout: folder.join("url"),
            stderr: folder.join("log"),
        };
        let server = Supervised::spawn(&command, output).context("starting Keystone")?;
        let url = base_url(&server)?;
        Ok(Self {
            server,
            api: Api::new(format!("{url}/v3"), template.admin_password()?)?,
            region: config.region,
            _scratch: scratch,
        })
    }

    /// What stands in a clouds.yaml as `auth_url`, for example `http://127.0.0.1:40123/v3`.
    #[must_use]
    pub fn url(&self) -> &str {
        self.api.url()
    }

    /// The region of the catalog's entries.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }
}

/// What the program prints once it listens.
fn base_url(server: &Supervised) -> anyhow::Result<String> {
    let start = Instant::now();
    loop {
        let printed = fs::read_to_string(server.output().stdout()).unwrap_or_default();
        if let Some((url, _)) = printed.split_once('\n') {
            return Ok(url.to_owned());
        }
        let log = || last_lines(server.output().stderr(), 20);
        if let Some(code) = server.wait(POLL_INTERVAL) {
            bail!(
                "Keystone ended with code {code} before it was ready; last lines of its log:\n{}",
                log()
            );
        }
        ensure!(
            start.elapsed() < READY_TIMEOUT,
            "Keystone was not ready after {} s; last lines of its log:\n{}",
            READY_TIMEOUT.as_secs(),
            log()
        );
    }
}
