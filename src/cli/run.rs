//! `image-export-operator run`: puts the parts of the operator together.

use super::{args::RunArgs, install_tls_provider, run_on, signals::stop_on_signal, time_scale};
use crate::{
    controller::Controller,
    telemetry::{self, Health, Metrics},
};
use anyhow::Context;
use image_export_cloud::{CloudClient, CloudOptions};
use image_export_core::Config;
use kube::{client::ClientBuilder, config::KubeConfigOptions};
use std::{collections::HashSet, process::ExitCode, sync::Arc, time::Duration};
use tokio::{net::TcpListener, runtime::Builder};
use tower::timeout::TimeoutLayer;

/// Bound on the time to the first byte of the API server's answer; kube has none of its own.
const API_TIMEOUT: Duration = Duration::from_secs(15);
/// Bound on silence within an answer. Longer than a watch without events lasts.
const API_READ_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn run(arguments: RunArgs) -> anyhow::Result<ExitCode> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    run_on(runtime, operate(arguments))
}

async fn operate(arguments: RunArgs) -> anyhow::Result<ExitCode> {
    telemetry::init_logging(arguments.log_format, arguments.log_level.clone());
    install_tls_provider()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    // First of all: a process with the id 1, as in a container, ignores signals that it does not handle.
    let stop = stop_on_signal()?;
    if let Some(controller) = stop.run_until_cancelled(start(arguments)).await {
        controller?.run(stop).await;
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Starts to serve the probes, and puts the controller together.
async fn start(arguments: RunArgs) -> anyhow::Result<Controller> {
    if arguments.cloud.allow_http {
        tracing::warn!(
            "--allow-http: passwords and tokens may cross the network readable, to any host"
        );
    }
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
    let mut config = Config {
        poll_period: Duration::from_secs(arguments.poll_period),
        quota_rate: arguments.polls_per_second,
        quota_burst: 2.0 * arguments.polls_per_second,
        ..Config::default()
    };
    let mut options = CloudOptions {
        observer: metrics.clone(),
        ..arguments.cloud.options()
    };
    time_scale::apply(&mut config, &mut options)?;
    let cloud = CloudClient::new(options).context("the cloud client cannot be built")?;
    let client = client().await?;

    let listener = TcpListener::bind(arguments.http_listen)
        .await
        .with_context(|| format!("--http-listen {}", arguments.http_listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
    tokio::spawn(telemetry::serve(listener, health.clone(), metrics.clone()));

    Ok(Controller {
        client,
        cloud,
        namespaces: without_duplicates(arguments.namespaces),
        config,
        metrics,
        health,
    })
}

/// Keeps the order. Two watches of one namespace would invalidate each other's lists.
fn without_duplicates(mut namespaces: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    namespaces.retain(|namespace| seen.insert(namespace.clone()));
    namespaces
}

async fn client() -> anyhow::Result<kube::Client> {
    let mut config = cluster().await?;
    // The tracker retries; retries inside the client would delay errors for minutes.
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

/// The cluster that KUBECONFIG names, else that of ~/.kube/config, else the one the operator runs
/// in. A named file that cannot be used is an error: the next cluster in this order is not the one
/// that was meant.
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
