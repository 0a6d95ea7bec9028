//! `image-export-operator query`: from the arguments to the printed result.

use super::{args::QueryArgs, install_tls_provider, run_on, signals, time_scale};
use crate::{
    query::{self, Query},
    telemetry::{self, LogFormat},
};
use anyhow::Context;
use image_export_cloud::CloudClient;
use image_export_core::{Config, PollMode};
use std::{
    io::{ErrorKind, Write, stderr, stdout},
    process::ExitCode,
    time::Duration,
};
use tokio::runtime::Builder;

pub(super) fn query(arguments: QueryArgs) -> anyhow::Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    run_on(runtime, query_once(arguments))
}

async fn query_once(arguments: QueryArgs) -> anyhow::Result<ExitCode> {
    signals::end_on_signal_as_init()?;
    telemetry::init_logging(LogFormat::Text, arguments.log_level);
    install_tls_provider()?;
    let mut options = arguments.options.options()?;
    let mut config = Config {
        poll_mode: PollMode::Fixed,
        poll_period: Duration::from_secs(arguments.poll_period),
        // Somebody is waiting at the terminal.
        first_poll_spread: Duration::ZERO,
        ..Config::default()
    };
    time_scale::apply(&mut config, &mut options)?;
    let query = Query {
        file: arguments.clouds_yaml.map_or_else(query::find, Ok)?,
        cloud: arguments.cloud,
        project: arguments.project,
        job: arguments.job,
        config,
    };
    let cloud = CloudClient::new(options).context("the cloud client cannot be built")?;
    let report = match query::run(cloud, query, arguments.wait).await {
        Ok(report) => report,
        Err(error) => {
            // Who closed it reads the exit code.
            let _ = writeln!(stderr(), "Error: {error}");
            return Ok(ExitCode::from(error.exit_code()));
        }
    };
    let text = match arguments.output.as_str() {
        "json" => report.json() + "\n",
        _ => report.to_string(),
    };
    match stdout().write_all(text.as_bytes()) {
        // Whoever reads it has read enough, and has the exit code.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.context("the result cannot be written")?,
    }
    Ok(ExitCode::from(report.exit() as u8))
}
