//! Kubeconfigs and proxies as kubectl reads them.

use super::*;
use std::{
    env::join_paths,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// A folder of files, deleted at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = format!("image-export-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(folder.join(".kube")).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        std::fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A kubeconfig with this current context, and one of this name that leads to `server`.
fn kubeconfig(current: &str, name: &str, server: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Config, current-context: '{current}', \
         contexts: [{{name: {name}, context: {{cluster: {name}, user: nobody}}}}], \
         clusters: [{{name: {name}, cluster: {server}}}]}}"
    )
}

fn list(files: &[&Path]) -> OsString {
    join_paths(files).unwrap()
}

/// The server of the files, or the error.
fn server(variable: &OsString, home: Option<&Path>) -> Result<String, String> {
    let (kubeconfig, origin) = match kubeconfig::find(variable, home) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok("none".to_owned()),
        Err(error) => return Err(format!("{error:#}")),
    };
    let config = kubeconfig::config(kubeconfig).context(origin);
    let config = config.map_err(|error| format!("{error:#}"))?;
    Ok(config
        .cluster_url
        .to_string()
        .trim_end_matches('/')
        .to_owned())
}

#[test]
fn of_a_list_of_kubeconfigs_missing_ones_are_skipped_and_the_first_value_wins() {
    let folder = Folder::new("list");
    let missing = folder.0.join("missing");
    let good = folder.file("good", &kubeconfig("a", "a", "{server: 'https://a'}"));
    let other = folder.file("other", &kubeconfig("b", "b", "{server: 'https://b'}"));
    // As `kubectl config set-cluster` leaves it.
    let unset = folder.file("unset", &kubeconfig("", "c", "{server: 'https://c'}"));
    let split = folder.file(
        "split",
        "{apiVersion: v1, kind: Config, current-context: b}",
    );
    let empty = Path::new("");
    for (files, expected) in [
        (&[&*missing, &*good][..], "https://a"),
        (&[&good, &missing], "https://a"),
        (&[empty, &good, empty], "https://a"),
        (&[&good, &other], "https://a"),
        (&[&other, &good, &other], "https://b"),
        (&[&unset, &other], "https://b"),
        (&[&split, &good, &other], "https://b"),
    ] {
        assert_eq!(
            server(&list(files), None).as_deref(),
            Ok(expected),
            "{files:?}"
        );
    }
}

#[test]
fn a_kubeconfig_that_names_no_cluster_is_a_clear_error() {
    let folder = Folder::new("errors");
    let missing = folder.0.join("missing");
    let also = folder.0.join("also-missing");
    let unset = folder.file("unset", &kubeconfig("", "c", "{server: 'https://c'}"));
    let absent = folder.file("absent", &kubeconfig("b", "c", "{server: 'https://c'}"));
    let no_server = folder.file("no-server", &kubeconfig("c", "c", "{}"));
    let broken = folder.file("broken", "clusters: [");
    for (files, problem) in [
        (&[&*missing][..], "no such file"),
        (&[&missing, &also], "no such file"),
        (&[&unset], "it has no current-context"),
        (&[&absent], "it has no context \"b\""),
        (&[&no_server], "server \"\" of cluster \"c\""),
        (&[&missing, &broken], "failed to parse kubeconfig YAML"),
        (&[&folder.0, &absent], "failed to read kubeconfig"),
    ] {
        let variable = list(files);
        let error = server(&variable, None).unwrap_err();
        let origin = format!("KUBECONFIG={}: ", variable.display());
        assert!(
            error.starts_with(&origin) && error.contains(problem),
            "{error}"
        );
    }
}

#[test]
fn an_empty_variable_leaves_the_kubeconfig_of_the_home() {
    let folder = Folder::new("home");
    let home = Some(folder.0.as_path());
    for variable in ["", ":", "::"] {
        let variable = variable.into();
        assert_eq!(server(&variable, None).as_deref(), Ok("none"));
        assert_eq!(server(&variable, home).as_deref(), Ok("none"), "no file");
        folder.file(".kube/config", "{apiVersion: v1, kind: Config}");
        assert_eq!(server(&variable, home).as_deref(), Ok("none"), "no context");
        folder.file(
            ".kube/config",
            &kubeconfig("a", "a", "{server: 'https://a'}"),
        );
        assert_eq!(server(&variable, home).as_deref(), Ok("https://a"));
        folder.file(".kube/config", "clusters: [");
        assert!(server(&variable, home).is_err());
        std::fs::remove_file(folder.0.join(".kube/config")).unwrap();
    }
}

/// What is in the fields of a cluster and its user.
#[test]
fn the_fields_of_a_cluster_are_read_as_kube_reads_them() {
    let folder = Folder::new("fields");
    let pem = "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n";
    folder.file("ca.pem", pem);
    let cluster =
        "{server: 'https://a:6443', certificate-authority: ca.pem, tls-server-name: name}";
    let config = |cluster: &str| {
        let file = folder.file("config", &kubeconfig("a", "a", cluster));
        let (kubeconfig, _) = kubeconfig::find(file.as_os_str(), None).unwrap().unwrap();
        kubeconfig::config(kubeconfig).unwrap()
    };
    let read = config(cluster);
    assert_eq!(read.root_cert, Some(vec![vec![0, 1, 2]]));
    assert_eq!(read.tls_server_name.as_deref(), Some("name"));
    assert!(!read.accept_invalid_certs && read.proxy_url.is_none());
    let read = config(
        "{server: 'https://a', insecure-skip-tls-verify: true, proxy-url: '', tls-server-name: ''}",
    );
    assert!(
        read.accept_invalid_certs && read.proxy_url.is_none() && read.tls_server_name.is_none()
    );
    assert_eq!(read.root_cert, None);
}

/// The proxy of the kube client, or "".
fn way(server: &str, proxy_url: &str, variables: &[(&str, &str)]) -> String {
    let proxies = Proxies::read(|name| {
        let found = variables.iter().find(|(variable, _)| *variable == name)?;
        Some(found.1.to_owned())
    });
    let mut config = Config::new(server.parse().unwrap());
    config.proxy_url = (!proxy_url.is_empty()).then(|| proxy_url.parse().unwrap());
    route(&mut config, &server.parse().unwrap(), &proxies.unwrap()).unwrap();
    let way = config.proxy_url.map(|proxy| proxy.to_string());
    way.unwrap_or_default()
}

#[test]
fn the_api_server_is_reached_as_the_environment_says_unless_its_kubeconfig_names_a_proxy() {
    const PROXY: (&str, &str) = ("HTTPS_PROXY", "http://127.0.0.1:18121");
    let server = "https://10.96.0.1:6443";
    let through = "http://127.0.0.1:18121/";
    assert_eq!(way(server, "", &[]), "");
    assert_eq!(way(server, "", &[PROXY]), through);
    assert_eq!(
        way(server, "", &[("all_proxy", "127.0.0.1:18121")]),
        through
    );
    for no_proxy in [
        "10.96.0.1",
        "10.0.0.0/8",
        "localhost,10.96.0.1,",
        "*",
        "10.96.0.1:6443",
    ] {
        let variables = [PROXY, ("NO_PROXY", no_proxy)];
        assert_eq!(way(server, "", &variables), "", "{no_proxy}");
        // As in kubectl, NO_PROXY is about the proxies of the environment.
        assert_eq!(
            way(server, "http://own:1", &variables),
            "http://own:1/",
            "{no_proxy}"
        );
    }
    // kube's own reading compares NO_PROXY with the proxy's address.
    assert_eq!(
        way(server, "", &[PROXY, ("NO_PROXY", "127.0.0.1")]),
        through
    );
    assert_eq!(way("https://127.0.0.1:6443", "", &[PROXY]), "");
    assert_eq!(way(server, "socks5h://own", &[]), "socks5://own:1080/");
}

#[test]
fn the_namespace_is_that_of_the_context() {
    for (namespace, expected) in [(", namespace: team-a", "team-a"), ("", "default")] {
        let text = kubeconfig("x", "x", "{server: 'https://127.0.0.1:6443'}");
        let text = text.replace("user: nobody", &format!("user: nobody{namespace}"));
        let folder = Folder::new(&format!("namespace-{expected}"));
        let file = folder.file("config", &text);
        let found = kubeconfig::find(&list(&[&file]), None).unwrap().unwrap();
        let config = kubeconfig::config(found.0).unwrap();
        assert_eq!(config.default_namespace, expected);
    }
}
