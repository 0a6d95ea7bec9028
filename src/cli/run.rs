//! `image-export-operator run`: puts the parts of the operator together.

use super::{args::RunArgs, install_tls_provider, run_on, signals::stop_on_signal, time_scale};
use crate::{
    cluster,
    controller::{Controller, LEASE, LeaseName},
    telemetry::{self, Health, Metrics},
};
use anyhow::Context;
use image_export_cloud::{CloudClient, CloudOptions};
use image_export_core::Config;
use sha2::{Digest, Sha256};
use std::{collections::HashSet, process::ExitCode, sync::Arc, time::Duration};
use tokio::runtime::Builder;

/// The longest that a write of a former leader may be under way: the time-out of a call.
const TAKEOVER_GRACE: Duration = Duration::from_secs(20);

pub(super) fn run(arguments: RunArgs) -> anyhow::Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    run_on(runtime, operate(arguments))
}

async fn operate(arguments: RunArgs) -> anyhow::Result<ExitCode> {
    telemetry::init_logging(arguments.log_format, arguments.log_level.clone());
    install_tls_provider()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    // First of all: a process with the id 1, as in a container, ignores signals that it does not handle.
    let stop = stop_on_signal()?;
    start(arguments)?.run(stop).await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Starts to serve the probes, and puts the controller together.
fn start(arguments: RunArgs) -> anyhow::Result<Controller> {
    if arguments.cloud.allow_http {
        tracing::warn!(
            "--allow-http: passwords and tokens may cross the network readable, to any host"
        );
    }
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
    let rate = arguments.polls_per_second;
    let host_rate = arguments.host_polls_per_second.unwrap_or(10.0 * rate);
    let mut config = Config {
        poll_mode: arguments.poll_mode,
        poll_period: Duration::from_secs(arguments.poll_period),
        quota_rate: rate,
        quota_burst: 2.0 * rate,
        host_rate,
        host_burst: 2.0 * host_rate,
        unproven_rate: 2.0 * rate,
        unproven_burst: 4.0 * rate,
        takeover_grace: if arguments.leader_elect {
            TAKEOVER_GRACE
        } else {
            Duration::ZERO
        },
        ..Config::default()
    };
    let mut options = CloudOptions {
        observer: metrics.clone(),
        ..arguments.cloud.options()?
    };
    time_scale::apply(&mut config, &mut options)?;
    let client = cluster::connect(&options.proxies, health.clone(), &metrics)?;
    let cloud = CloudClient::new(options).context("the cloud client cannot be built")?;

    let lease = lease_name(&arguments, &client);
    let listener = telemetry::listen(arguments.http_listen)
        .with_context(|| format!("--http-listen {}", arguments.http_listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
    tokio::spawn(telemetry::serve(listener, health.clone(), metrics.clone()));

    Ok(Controller {
        client,
        cloud,
        label_selector: arguments.watch_label_selector,
        lease,
        leader_elect: arguments.leader_elect,
        namespaces: without_duplicates(arguments.namespaces.into_iter().flat_map(|list| list.0)),
        config,
        metrics,
        health,
    })
}

fn lease_name(arguments: &RunArgs, client: &kube::Client) -> LeaseName {
    let given = arguments.leader_elect_namespace.clone();
    let pod = std::env::var("POD_NAMESPACE").ok();
    let namespace = given.or_else(|| pod.filter(|namespace| !namespace.is_empty()));
    LeaseName {
        namespace: namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
        name: match (
            &arguments.leader_elect_lease,
            &arguments.watch_label_selector,
        ) {
            (Some(name), _) => name.clone(),
            (None, None) => LEASE.to_owned(),
            (None, Some(selector)) => {
                let hash = Sha256::digest(selector);
                let hash = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
                format!("{LEASE}-{hash:08x}")
            }
        },
    }
}

/// Keeps the order. Two watches of one namespace would invalidate each other's lists.
fn without_duplicates(namespaces: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = HashSet::new();
    let first = namespaces.filter(|namespace| seen.insert(namespace.clone()));
    first.collect()
}
