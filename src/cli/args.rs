//! The arguments. Their doc comments are the text of --help.

#![allow(
    clippy::doc_markdown,
    reason = "doc comments of arguments are the text of --help"
)]
use crate::telemetry::{LogFilter, LogFormat};
use clap::{
    Args, Parser, Subcommand,
    builder::{
        BoolishValueParser, NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser,
    },
};
use image_export_api::JobId;
use image_export_cloud::{
    AllowedHost, CloudOptions, EndpointPolicy, InvalidProxy, JobPath, PUBLIC_CLOUDS, Proxies,
};
use image_export_core::PollMode;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};

/// Follows image jobs of Open Telekom Cloud and Huawei Cloud to their end, on behalf of
/// `ImageExportJob` objects.
///
/// For each ImageExportJob the operator polls the job that the object names and writes the result
/// into the object's status, until the job has ended. It never starts, changes or cancels a job.
///
/// The default subcommand is `run`.
#[derive(Parser)]
#[command(
    name = "image-export-operator",
    version,
    args_conflicts_with_subcommands = true
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run the operator
    ///
    /// The cluster is the one of the kubeconfig that KUBECONFIG names (else ~/.kube/config), or the
    /// one that the operator runs in. Of the files that KUBECONFIG lists, those that do not exist are
    /// skipped. HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are read as curl and kubectl read them,
    /// for the cluster and for clouds. An environment variable that is empty counts as unset.
    ///
    /// On SIGTERM or SIGINT it ends with 0 once all statuses are
    /// written, within 15 seconds; polls in flight have a second. Another signal ends it at once, with
    /// 143 (SIGTERM) or 130 (SIGINT).
    Run(Box<RunArgs>),
    /// Query one job by hand
    ///
    /// Signs in and polls as the operator does, with a clouds.yaml of yours. Prints the answer, its
    /// class, and the status that an ImageExportJob for the job would have. The result alone goes to
    /// standard output, everything else to standard error.
    #[command(after_help = QUERY_HELP)]
    Query(Box<QueryArgs>),
    /// Print the CustomResourceDefinition as YAML
    Crd,
}

const QUERY_HELP: &str = "\
Exit codes:
  0  the job has succeeded
  1  nothing was sent: the file, the name of the cloud or the project is missing; or the result
     cannot be written
  2  wrong usage
  3  the job has failed
  4  the job has not ended
  5  the cloud finds no such job
  6  credentials are missing, wrong or not sufficient
  7  the cloud cannot be reached, fails or throttles
  8  the endpoint or the request is invalid

As the operator does, --wait outlasts outages, throttling, and 5 minutes in which the job is not
found. Invalid credentials, endpoints and requests end the wait, but for a file that was valid when
the wait began: it may be being edited.";

#[derive(Args)]
pub(super) struct QueryArgs {
    /// The clouds.yaml. Default: $OS_CLIENT_CONFIG_FILE, else clouds.yaml in the working folder, in
    /// ~/.config/openstack or in /etc/openstack
    #[arg(long, value_name = "FILE")]
    pub(super) clouds_yaml: Option<PathBuf>,

    /// Entry of the clouds.yaml. Default: the only one
    #[arg(long, value_name = "NAME", env = "OS_CLOUD")]
    pub(super) cloud: Option<String>,

    /// Project (tenant) id of the job. Default: the project_id of the entry
    #[arg(long, value_name = "ID")]
    pub(super) project: Option<String>,

    /// Id of the job
    #[arg(long, value_name = "ID")]
    pub(super) job: JobId,

    #[command(flatten)]
    pub(super) options: CloudArgs,

    /// Form of the result
    #[arg(short, long, value_name = "FORM", default_value = "text", value_parser = ["text", "json"])]
    pub(super) output: String,

    /// Poll until the job has ended, with progress on standard error
    #[arg(long)]
    pub(super) wait: bool,

    /// Seconds between two polls while waiting (1 to 86400)
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) poll_period: u64,

    /// error, warn, info, debug or trace, or a filter like info,image_export=debug. The names of the
    /// operator's own log targets begin with image_export
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    pub(super) log_level: LogFilter,
}

#[derive(Args)]
pub(super) struct RunArgs {
    /// Follow the objects of this namespace only, or of each in a list with commas; may be given several
    /// times. Default: all
    #[arg(
        long = "namespace",
        value_name = "NS",
        env = "IMAGE_EXPORT_NAMESPACES",
        value_parser = |list: &str| List::parse(list, namespace)
    )]
    pub(super) namespaces: Vec<List>,

    /// Follow only objects with these labels, in the syntax of kubectl's --selector. Several installations
    /// share a cluster so, each with its own Lease. Default: all
    #[arg(
        long,
        value_name = "SELECTOR",
        env = "IMAGE_EXPORT_WATCH_LABEL_SELECTOR",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(super) watch_label_selector: Option<String>,

    /// Poll and write only while this process holds a Lease; another with this flag and the same Lease
    /// stands by and takes over when it ends
    #[arg(long, env = "IMAGE_EXPORT_LEADER_ELECT", value_parser = BoolishValueParser::new())]
    pub(super) leader_elect: bool,

    /// Namespace of the Lease. Default: $POD_NAMESPACE, else that of the kubeconfig's context
    #[arg(
        long,
        value_name = "NS",
        env = "IMAGE_EXPORT_LEADER_ELECT_NAMESPACE",
        value_parser = namespace
    )]
    pub(super) leader_elect_namespace: Option<String>,

    /// Name of the Lease. Installations that serve different objects need different Leases. Default:
    /// image-export-operator, and with --watch-label-selector a name of that selector's own
    #[arg(
        long,
        value_name = "NAME",
        env = "IMAGE_EXPORT_LEADER_ELECT_LEASE",
        value_parser = lease
    )]
    pub(super) leader_elect_lease: Option<String>,

    /// Seconds between two polls of a healthy job (1 to 86400). An object's
    /// spec.pollPeriodSeconds overrides it
    #[arg(long, value_name = "SECONDS", env = "IMAGE_EXPORT_POLL_PERIOD", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) poll_period: u64,

    /// adaptive: a job is polled more often when it is more likely to end, and as often as in the
    /// fixed mode on average; at most 1.25 periods lie between two polls. fixed: one period always
    #[arg(long, value_name = "MODE", env = "IMAGE_EXPORT_POLL_MODE", default_value = "adaptive",
          value_parser = poll_mode())]
    pub(super) poll_mode: PollMode,

    /// Polls a second, at most, for each endpoint and project (0.1 to 1000). The cloud's own limit
    /// is shared with everything else that calls it for the project
    #[arg(long, value_name = "RATE", env = "IMAGE_EXPORT_POLLS_PER_SECOND", default_value = "10",
          value_parser = rate)]
    pub(super) polls_per_second: f64,

    /// Polls a second, at most, for each endpoint, whatever the project (0.1 to 10000). Default: ten times
    /// --polls-per-second
    #[arg(long, value_name = "RATE", env = "IMAGE_EXPORT_HOST_POLLS_PER_SECOND", value_parser = host_rate)]
    pub(super) host_polls_per_second: Option<f64>,

    #[command(flatten)]
    pub(super) cloud: CloudArgs,

    /// Where /healthz, /readyz and /metrics are served. [::] is all addresses of IPv6 and IPv4, or of
    /// IPv4 alone where the machine has no IPv6. Port 0 takes a free one, which is logged
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "IMAGE_EXPORT_HTTP_LISTEN",
        default_value = "[::]:8080"
    )]
    pub(super) http_listen: SocketAddr,

    /// Form of the log, which goes to standard error
    #[arg(long, env = "IMAGE_EXPORT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,

    /// error, warn, info, debug or trace, or a filter like info,image_export=debug. The names of the
    /// operator's own log targets begin with image_export
    #[arg(
        long,
        value_name = "LEVEL",
        env = "IMAGE_EXPORT_LOG_LEVEL",
        default_value = "info"
    )]
    pub(super) log_level: LogFilter,
}

/// How the operator and `query` connect to clouds.
#[derive(Args)]
pub(super) struct CloudArgs {
    /// Permit plain http, loopback addresses, any host and any port for identity service and cloud. For
    /// labs only: passwords and tokens then cross the network readable
    #[arg(long, env = "IMAGE_EXPORT_ALLOW_HTTP", value_parser = BoolishValueParser::new())]
    pub(super) allow_http: bool,

    /// Host that credentials may name, with all hosts below it, on port 443 unless HOST:PORT names another,
    /// or a list of them with commas; may be given several times. A * within a name stands for one region.
    /// Replaces the default, which are the identity and image services of the public clouds
    #[arg(
        long = "allow-host",
        value_name = "HOST",
        env = "IMAGE_EXPORT_ALLOWED_HOSTS",
        value_parser = |list: &str| List::parse(list, str::parse::<AllowedHost>),
        default_values = PUBLIC_CLOUDS
    )]
    pub(super) allowed_hosts: Vec<List<AllowedHost>>,

    /// Refuse credentials that accept any certificate of a server (verify: false or insecure: true)
    #[arg(
        long,
        env = "IMAGE_EXPORT_REQUIRE_VERIFIED_TLS",
        value_parser = BoolishValueParser::new()
    )]
    pub(super) require_verified_tls: bool,

    /// Path of the job query, unless the cloud entry sets image_job_path:
    /// /v1/{project_id}/jobs/{job_id} or the newer /v1/cloudimages/job/{job_id}
    #[arg(long, value_name = "PATH", env = "IMAGE_EXPORT_JOB_PATH", default_value = JobPath::NAMES[0],
          value_parser = PossibleValuesParser::new(JobPath::NAMES).try_map(|name| name.parse::<JobPath>()))]
    pub(super) job_path: JobPath,
}

impl CloudArgs {
    /// These, and the proxies of the environment.
    pub(super) fn options(&self) -> Result<CloudOptions, InvalidProxy> {
        let allowed_hosts = self.allowed_hosts.iter().flat_map(|list| list.0.clone());
        Ok(CloudOptions {
            policy: Arc::new(EndpointPolicy {
                allow_http: self.allow_http,
                allowed_hosts: allowed_hosts.collect(),
                require_verified_tls: self.require_verified_tls,
            }),
            job_path: self.job_path,
            proxies: Arc::new(Proxies::from_env()?),
            ..CloudOptions::default()
        })
    }
}

/// One value of a flag: elements with commas between them. Spaces around them are ignored, and so are
/// empty elements where there is another.
#[derive(Clone)]
pub(super) struct List<T = String>(pub(super) Vec<T>);

impl<T> List<T> {
    fn parse<E>(text: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<Self, E> {
        let elements = text.split(',').map(str::trim);
        let elements: Vec<&str> = elements.filter(|element| !element.is_empty()).collect();
        if elements.is_empty() {
            return parse("").map(|element| Self(vec![element]));
        }
        elements
            .into_iter()
            .map(parse)
            .collect::<Result<_, E>>()
            .map(Self)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 1000.0)
}

fn host_rate(text: &str) -> Result<f64, String> {
    number(text, 10_000.0)
}

fn number(text: &str, most: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.1..=most).contains(&number) => Ok(number),
        _ => Err(format!("not a number from 0.1 to {most}")),
    }
}

fn poll_mode() -> impl TypedValueParser<Value = PollMode> {
    PossibleValuesParser::new(["adaptive", "fixed"]).map(|mode| match mode.as_str() {
        "fixed" => PollMode::Fixed,
        _ => PollMode::Adaptive,
    })
}

/// The name of a namespace is a label of RFC 1123.
fn namespace(text: &str) -> Result<String, String> {
    let valid = text.len() <= 63 && is_label(text);
    valid
        .then(|| text.to_owned())
        .ok_or_else(|| "not the name of a namespace".to_owned())
}

/// The name of a Lease is a subdomain of RFC 1123.
fn lease(text: &str) -> Result<String, String> {
    let valid = text.len() <= 253 && text.split('.').all(is_label);
    valid
        .then(|| text.to_owned())
        .ok_or_else(|| "not the name of a Lease".to_owned())
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}
