//! The kubeconfig, found and merged as kubectl does. Not by kube's loader, which ends at the first file
//! that does not exist, and at spellings of `NO_PROXY` that curl and Go accept.

use anyhow::{Context, bail};
use kube::{
    Config,
    config::{ExecAuthCluster, Kubeconfig, KubeconfigError},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    ffi::OsStr,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// The kubeconfig of the files in `variable`, else that in `home`, with where it comes from. `None`: there is
/// none, and none was named.
pub(super) fn find(
    variable: &OsStr,
    home: Option<&Path>,
) -> anyhow::Result<Option<(Kubeconfig, String)>> {
    let files: Vec<_> = std::env::split_paths(variable).collect();
    let mut files = files
        .iter()
        .filter(|file| !file.as_os_str().is_empty())
        .peekable();
    if files.peek().is_some() {
        let origin = format!("KUBECONFIG={}", variable.display());
        let kubeconfig = merge(files.map(PathBuf::as_path)).context(origin.clone())?;
        return Ok(Some((kubeconfig, origin)));
    }
    let Some(file) = home.map(|home| home.join(".kube/config")) else {
        return Ok(None);
    };
    let origin = file.display().to_string();
    match Kubeconfig::read_from(&file) {
        // Often the home of another user, in a container.
        Err(KubeconfigError::ReadConfig(..)) => Ok(None),
        Err(error) => Err(error).context(origin),
        // kubectl leaves such a file behind; it names no cluster.
        Ok(kubeconfig) => Ok(Some((kubeconfig, origin)).filter(|found| has_context(&found.0))),
    }
}

/// The first file with a value wins; files that do not exist are skipped, unless none exists.
fn merge<'a>(files: impl Iterator<Item = &'a Path>) -> anyhow::Result<Kubeconfig> {
    let mut merged = None;
    for file in files {
        let mut next = match Kubeconfig::read_from(file) {
            Err(KubeconfigError::ReadConfig(error, _)) if error.kind() == ErrorKind::NotFound => {
                tracing::info!(file = %file.display(), "this kubeconfig does not exist");
                continue;
            }
            next => next?,
        };
        if !has_context(&next) {
            // An empty one, as kubectl writes it, would win over that of a later file.
            next.current_context = None;
        }
        merged = Some(merged.unwrap_or_else(Kubeconfig::default).merge(next)?);
    }
    merged.context("no such file")
}

fn has_context(kubeconfig: &Kubeconfig) -> bool {
    kubeconfig
        .current_context
        .as_ref()
        .is_some_and(|context| !context.is_empty())
}

/// The cluster, user and namespace of the current context, with the `proxy-url` as it stands there.
pub(super) fn config(kubeconfig: Kubeconfig) -> anyhow::Result<Config> {
    let Some(name) = kubeconfig.current_context.filter(|name| !name.is_empty()) else {
        bail!("it has no current-context: choose one with kubectl config use-context");
    };
    let mut contexts = kubeconfig.contexts.into_iter();
    let context = contexts
        .find(|context| context.name == name)
        .and_then(|named| named.context);
    let context = context.with_context(|| format!("it has no context {name:?}"))?;
    let name = context.cluster;
    let mut clusters = kubeconfig.clusters.into_iter();
    let cluster = clusters
        .find(|cluster| cluster.name == name)
        .and_then(|named| named.cluster);
    let cluster = cluster.with_context(|| format!("it has no cluster {name:?}"))?;
    // kubectl takes a user that is missing for one without credentials.
    let mut users = kubeconfig.auth_infos.into_iter();
    let user = users.find(|user| Some(&user.name) == context.user.as_ref());

    let server = cluster.server.as_deref().unwrap_or_default();
    let server = server
        .parse()
        .with_context(|| format!("server {server:?} of cluster {name:?}"))?;
    let mut config = Config::new(server);
    // Reads the certificates, wherever they are.
    let details = ExecAuthCluster::try_from(&cluster)?;
    if let Some(pem) = &details.certificate_authority_data {
        let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.context("certificate-authority")?;
        config.root_cert = Some(certificates.iter().map(|der| der.to_vec()).collect());
    }
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(namespace) = given(context.namespace) {
        config.default_namespace = namespace;
    }
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or_default();
    config.tls_server_name = given(cluster.tls_server_name);
    let proxy = given(cluster.proxy_url).map(|proxy| proxy.parse());
    config.proxy_url = proxy.transpose().ok().context("proxy-url is not a URL")?;
    config.auth_info = user.and_then(|user| user.auth_info).unwrap_or_default();
    if let Some(exec) = &mut config.auth_info.exec
        && exec.provide_cluster_info
    {
        exec.cluster = Some(details);
    }
    Ok(config)
}
