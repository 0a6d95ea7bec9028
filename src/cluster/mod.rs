//! The connection to the API server: which cluster it is, and which proxy leads there.

mod kubeconfig;
mod observed;

use crate::telemetry::{Health, Metrics};
use anyhow::Context;
use image_export_cloud::{Proxies, Proxy};
use kube::{Client, Config, client::ClientBuilder};
pub(crate) use observed::Observe;
use std::{sync::Arc, time::Duration};
use tower::{BoxError, timeout::TimeoutLayer, util::ThenLayer};
use url::{Position, Url};

/// Bound on the time to the first byte of the API server's answer; kube has none of its own.
const API_TIMEOUT: Duration = Duration::from_secs(15);
/// Bound on silence within an answer. Longer than a watch without events lasts.
const API_READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A client of the cluster that the environment names. `health` learns of each answer, `metrics` of each call.
pub fn connect(
    proxies: &Proxies,
    health: Arc<Health>,
    metrics: &Metrics,
) -> anyhow::Result<Client> {
    let mut config = cluster()?;
    let url: Url = config.cluster_url.to_string().parse()?;
    let proxy = route(&mut config, &url, proxies)?;
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
    let through = proxy.as_ref().map(tracing::field::display);
    tracing::info!(%url, proxy = through, "using this API server");
    let builder = ClientBuilder::try_from(config).context("the API client cannot be built")?;
    let calls = metrics.api_calls(&url[Position::BeforeHost..Position::AfterPort]);
    let blame = ThenLayer::new(move |result| name_proxy(result, proxy.clone(), url.clone()));
    let timeout = TimeoutLayer::new(API_TIMEOUT);
    let builder = builder.with_layer(&blame).with_layer(&timeout);
    Ok(builder.with_layer(&Observe { health, calls }).build())
}

/// The cluster that KUBECONFIG names, else that of ~/.kube/config, else the one the operator runs
/// in. A named file that cannot be used is an error: the next cluster in this order is not the one
/// that was meant.
fn cluster() -> anyhow::Result<Config> {
    let variable = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let home = std::env::home_dir();
    match kubeconfig::find(&variable, home.as_deref())? {
        Some((kubeconfig, origin)) => kubeconfig::config(kubeconfig).context(origin),
        None => Config::incluster().context("no cluster: set KUBECONFIG, or run inside one"),
    }
}

/// Has the API server reached through the `proxy-url` of the kubeconfig, as kubectl does, else as the
/// environment says. kube's own reading of `NO_PROXY` compares it with the proxy's address.
fn route(config: &mut Config, url: &Url, proxies: &Proxies) -> anyhow::Result<Option<Proxy>> {
    let proxy = match &config.proxy_url {
        Some(given) => {
            let proxy = Proxy::parse(&given.to_string());
            Some(proxy.context("the proxy-url of the kubeconfig names no usable proxy")?)
        }
        None => proxies.of(url).cloned(),
    };
    config.proxy_url = proxy.as_ref().map(|proxy| proxy.uri().clone());
    Ok(proxy)
}

/// Puts a sentence about the proxy in place of an error for which the proxy is to blame.
async fn name_proxy<R>(
    result: Result<R, BoxError>,
    proxy: Option<Proxy>,
    url: Url,
) -> Result<R, BoxError> {
    let Err(error) = result else {
        return result;
    };
    let problem = proxy
        .as_ref()
        .and_then(|proxy| proxy.problem(&*error, &url));
    match problem {
        Some(problem) => Err(problem.await.into()),
        None => Err(error),
    }
}

#[cfg(test)]
mod tests;
