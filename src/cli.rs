//! The command line. It is part of the library so that other programs can be the operator: the
//! quick start re-executes itself as one.

#![allow(
    clippy::doc_markdown,
    reason = "doc comments of arguments are the text of --help"
)]
use crate::controller::Controller;
use crate::query::{self, Question};
use crate::telemetry::{self, Health, LogFilter, LogFormat, Metrics};
use anyhow::Context;
use clap::{
    Args, Parser, Subcommand,
    builder::{BoolishValueParser, PossibleValuesParser, TypedValueParser},
};
use image_export_api::{JobId, crd};
use image_export_cloud::{
    CloudClient, CloudOptions, EndpointPolicy, JobPath, PUBLIC_CLOUDS, Pacing, parse_allowed_host,
};
use image_export_core::Config;
use kube::{client::ClientBuilder, config::KubeConfigOptions};
use std::{
    ffi::OsString, io::Write, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tower::timeout::TimeoutLayer;

/// Bound on the time to the first byte of the API server's answer; kube has none of its own.
const API_TIMEOUT: Duration = Duration::from_secs(15);
/// Bound on silence within an answer. Longer than a watch without events lasts.
const API_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Speeds up (below 1) or slows down every time of the operator. For tests of the operator only.
const TIME_SCALE: &str = "IMAGE_EXPORT_TIME_SCALE";

/// Follows image jobs of Open Telekom Cloud and Huawei Cloud to their end, on behalf of
/// `ImageExportJob` objects.
///
/// For each ImageExportJob the operator asks the cloud about the job that the object names and
/// writes what it learns into the object's status, until the job has ended. It never starts,
/// changes or cancels a job.
///
/// Without a subcommand it does what `run` does.
#[derive(Parser)]
#[command(
    name = "image-export-operator",
    version,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator
    ///
    /// The cluster is the one of the kubeconfig that KUBECONFIG names (else ~/.kube/config), or the
    /// one that the operator runs in. It stops on SIGTERM or SIGINT, after polls and writes under way
    /// have ended or 15 seconds have passed.
    Run(Box<RunArgs>),
    /// Ask about one job by hand
    ///
    /// Signs in and asks as the operator would, with a clouds.yaml of yours, and prints the answer,
    /// how it was classified, and what the status of an ImageExportJob for the job would be. The
    /// result alone goes to standard output, everything else to standard error.
    #[command(after_help = QUERY_HELP)]
    Query(Box<QueryArgs>),
    /// Print the CustomResourceDefinition as YAML
    Crd,
}

const QUERY_HELP: &str = "\
Exit codes:
  0  the job has succeeded
  1  nothing could be asked: the file, the name of the cloud or the project is missing
  2  wrong usage
  3  the job has failed
  4  the job has not ended
  5  the cloud knows no such job
  6  credentials are missing, wrong or not sufficient
  7  the cloud cannot be reached, is in trouble or asks to wait
  8  the endpoint or the request is at fault

With --wait, a job that is not found, an outage and throttling are waited out as the operator does
it: a missing job for 5 minutes. Credentials, endpoints and requests at fault end the wait.";

#[derive(Args)]
struct QueryArgs {
    /// The clouds.yaml. Default: $OS_CLIENT_CONFIG_FILE, else clouds.yaml in the working folder, in
    /// ~/.config/openstack or in /etc/openstack
    #[arg(long, value_name = "FILE")]
    clouds_yaml: Option<PathBuf>,

    /// Entry of the clouds.yaml. Default: the only one
    #[arg(long, value_name = "NAME", env = "OS_CLOUD")]
    cloud: Option<String>,

    /// Project (tenant) id of the job. Default: the project_id of the entry
    #[arg(long, value_name = "ID")]
    project: Option<String>,

    /// Id of the job
    #[arg(long, value_name = "ID")]
    job: JobId,

    #[command(flatten)]
    options: CloudArgs,

    /// Form of the result
    #[arg(short, long, value_name = "FORM", default_value = "text", value_parser = ["text", "json"])]
    output: String,

    /// Ask again until the job has ended, with progress on standard error
    #[arg(long)]
    wait: bool,

    /// Seconds between two questions while waiting (1 to 86400)
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    poll_period: u64,

    /// error, warn, info, debug or trace, or a filter like info,image_export_operator=debug
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    log_level: LogFilter,
}

#[derive(Args)]
struct RunArgs {
    /// Follow the objects of this namespace only; may be given several times. Default: all
    #[arg(
        long = "namespace",
        value_name = "NS",
        env = "IMAGE_EXPORT_NAMESPACES",
        value_delimiter = ',',
        value_parser = namespace
    )]
    namespaces: Vec<String>,

    /// Seconds between two polls of a healthy job (1 to 86400). An object's
    /// spec.pollPeriodSeconds overrides it
    #[arg(long, value_name = "SECONDS", env = "IMAGE_EXPORT_POLL_PERIOD", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    poll_period: u64,

    /// Polls a second, at most, for each endpoint and project (0.1 to 1000). The cloud's own limit
    /// is shared with everything else that calls it for the project
    #[arg(long, value_name = "RATE", env = "IMAGE_EXPORT_POLLS_PER_SECOND", default_value = "10",
          value_parser = rate)]
    polls_per_second: f64,

    #[command(flatten)]
    cloud: CloudArgs,

    /// Where /healthz, /readyz and /metrics are served. Port 0 takes a free one, which is logged
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "IMAGE_EXPORT_HTTP_LISTEN",
        default_value = "0.0.0.0:8080"
    )]
    http_listen: SocketAddr,

    /// Form of the log, which goes to standard error
    #[arg(long, env = "IMAGE_EXPORT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// error, warn, info, debug or trace, or a filter like info,image_export_operator=debug
    #[arg(
        long,
        value_name = "LEVEL",
        env = "IMAGE_EXPORT_LOG_LEVEL",
        default_value = "info"
    )]
    log_level: LogFilter,
}

/// How clouds are talked to.
#[derive(Args)]
struct CloudArgs {
    /// Permit plain http, loopback addresses and any host for identity service and cloud. For labs
    /// only: passwords and tokens then cross the network readable
    #[arg(long, env = "IMAGE_EXPORT_ALLOW_HTTP", value_parser = BoolishValueParser::new())]
    allow_http: bool,

    /// Host that credentials may name, with all hosts below it; may be given several times.
    /// Replaces the default, which are the domains of the public clouds
    #[arg(
        long = "allow-host",
        value_name = "HOST",
        env = "IMAGE_EXPORT_ALLOWED_HOSTS",
        value_delimiter = ',',
        value_parser = parse_allowed_host,
        default_values = PUBLIC_CLOUDS
    )]
    allowed_hosts: Vec<String>,

    /// Path of the job query, where a cloud entry does not say otherwise (image_job_path):
    /// /v1/{project_id}/jobs/{job_id} or the newer /v1/cloudimages/job/{job_id}
    #[arg(long, value_name = "PATH", env = "IMAGE_EXPORT_JOB_PATH", default_value = JobPath::NAMES[0],
          value_parser = PossibleValuesParser::new(JobPath::NAMES).try_map(|name| name.parse::<JobPath>()))]
    job_path: JobPath,
}

impl CloudArgs {
    fn options(&self) -> CloudOptions {
        CloudOptions {
            policy: Arc::new(EndpointPolicy {
                allow_http: self.allow_http,
                allowed_hosts: self.allowed_hosts.clone(),
            }),
            job_path: self.job_path,
            ..CloudOptions::default()
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.1..=1000.0).contains(&rate) => Ok(rate),
        _ => Err("not a number from 0.1 to 1000".to_owned()),
    }
}

/// The name of a namespace is a label of RFC 1123.
fn namespace(text: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let sound = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if sound {
        Ok(text.to_owned())
    } else {
        Err("not the name of a namespace".to_owned())
    }
}

/// The whole program: does what `arguments` say, the first of which is the program's name, and
/// returns when the operator has stopped. Where they cannot be understood, or ask for help, it says
/// so and exits the process.
///
/// It starts a runtime, the log and the TLS provider of its own: call it once, outside of any
/// runtime.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let cli = Cli::parse_from(arguments);
    match cli.command {
        Some(Command::Crd) => {
            print!("{}", crd::yaml());
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Query(arguments)) => query(*arguments),
        Some(Command::Run(arguments)) => run(*arguments),
        None => run(cli.run),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn query(arguments: QueryArgs) -> anyhow::Result<ExitCode> {
    telemetry::init_logging(LogFormat::Text, arguments.log_level);
    install_tls_provider()?;
    let cloud = CloudClient::new(arguments.options.options())
        .context("the cloud client cannot be built")?;
    let mut config = Config {
        poll_period: Duration::from_secs(arguments.poll_period),
        // Somebody is waiting at the terminal.
        first_poll_spread: Duration::ZERO,
        ..Config::default()
    };
    if let Some(factor) = time_scale()? {
        config = config.scaled(factor);
    }
    let question = Question {
        file: arguments.clouds_yaml.map_or_else(query::find, Ok)?,
        cloud: arguments.cloud,
        project: arguments.project,
        job: arguments.job,
        config,
    };
    let report = match query::ask(cloud, question, arguments.wait).await {
        Ok(report) => report,
        Err(error) => {
            let code = error.exit_code();
            eprintln!("Error: {error}");
            return Ok(ExitCode::from(code));
        }
    };
    let text = match arguments.output.as_str() {
        "json" => report.json() + "\n",
        _ => report.to_string(),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("the result cannot be written")?;
    Ok(ExitCode::from(report.exit() as u8))
}

fn install_tls_provider() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("another TLS provider is installed already")
}

#[tokio::main]
async fn run(arguments: RunArgs) -> anyhow::Result<ExitCode> {
    telemetry::init_logging(arguments.log_format, arguments.log_level.clone());
    install_tls_provider()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    if arguments.cloud.allow_http {
        tracing::warn!(
            "--allow-http: passwords and tokens may cross the network readable, to any host"
        );
    }
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
    let (config, pacing) = config(&arguments)?;
    let cloud = CloudClient::new(CloudOptions {
        pacing: Arc::new(pacing),
        observer: metrics.clone(),
        ..arguments.cloud.options()
    })
    .context("the cloud client cannot be built")?;
    let client = client().await?;

    let server = telemetry::bind(arguments.http_listen, health.clone(), metrics.clone())
        .await
        .with_context(|| format!("--http-listen {}", arguments.http_listen))?;
    tracing::info!(address = %server.address()?, "serving /healthz, /readyz and /metrics");
    tokio::spawn(server.serve());

    let controller = Controller {
        client,
        cloud,
        namespaces: each_once(arguments.namespaces),
        config,
        metrics,
        health,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    controller
        .run(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn config(arguments: &RunArgs) -> anyhow::Result<(Config, Pacing)> {
    let pacing = Pacing::default();
    let config = Config {
        poll_period: Duration::from_secs(arguments.poll_period),
        quota_rate: arguments.polls_per_second,
        quota_burst: 2.0 * arguments.polls_per_second,
        ..Config::default()
    };
    Ok(match time_scale()? {
        Some(factor) => (config.scaled(factor), pacing.scaled(factor)),
        None => (config, pacing),
    })
}

/// The factor of [`TIME_SCALE`], which is logged.
fn time_scale() -> anyhow::Result<Option<f64>> {
    let Ok(factor) = std::env::var(TIME_SCALE) else {
        return Ok(None);
    };
    let factor: f64 = factor
        .parse()
        .with_context(|| format!("{TIME_SCALE}={factor}"))?;
    anyhow::ensure!(
        (0.001..=1000.0).contains(&factor),
        "{TIME_SCALE}={factor}: not from 0.001 to 1000"
    );
    tracing::warn!(
        factor,
        "{TIME_SCALE} is set: periods and graces are not those of production"
    );
    Ok(Some(factor))
}

/// In the order given: two watches of one namespace would undo each other's lists.
fn each_once(given: Vec<String>) -> Vec<String> {
    let mut namespaces: Vec<String> = Vec::new();
    for namespace in given {
        if !namespaces.contains(&namespace) {
            namespaces.push(namespace);
        }
    }
    namespaces
}

/// The cluster that KUBECONFIG names, else that of ~/.kube/config, else the one we run in. A file
/// that is named and cannot be used is an error: another cluster than the one meant would be worse.
async fn cluster() -> anyhow::Result<kube::Config> {
    match std::env::var_os("KUBECONFIG").filter(|files| !files.is_empty()) {
        Some(files) => kube::Config::from_kubeconfig(&KubeConfigOptions::default())
            .await
            .with_context(|| format!("KUBECONFIG={}", files.display())),
        None => kube::Config::infer()
            .await
            .context("no cluster: set KUBECONFIG, or run inside one"),
    }
}

async fn client() -> anyhow::Result<kube::Client> {
    let mut config = cluster().await?;
    // The tracker paces and repeats; a retry inside the client would hide trouble for minutes.
    config.default_retry = false;
    config.read_timeout = Some(API_READ_TIMEOUT);
    config.reset_reader_on_write = true;
    config.headers.push((
        http::header::USER_AGENT,
        http::HeaderValue::from_static(concat!(
            "image-export-operator/",
            env!("CARGO_PKG_VERSION")
        )),
    ));
    tracing::info!(url = %config.cluster_url, "using this API server");
    let builder = ClientBuilder::try_from(config).context("the API client cannot be built")?;
    Ok(builder.with_layer(&TimeoutLayer::new(API_TIMEOUT)).build())
}
