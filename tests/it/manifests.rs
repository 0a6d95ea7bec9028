//! The Helm chart and the kustomizations agree, and the API server accepts what they make.
//!
//! `deploy/check --update` writes what Helm makes of the chart into `deploy/chart/tests/golden`. Of the other
//! files that follow from one another, `RECORD=1 cargo test --test it manifests` writes those that follow.

use crate::{
    harness::{Operator, PROJECT, Team, cluster},
    repository::{find, kustomize, read, root},
};
use image_export_api::conditions::reasons;
use serde_json::{Value, json};
use std::{collections::BTreeMap, env, fmt::Write as _, fs, process::Command};
use testbed::{
    ims::Job,
    kubernetes::{Cluster, Output},
};

const NAME: &str = "image-export-operator";
const IMAGE: &str = "ghcr.io/image-export-operator/image-export-operator";
const VALUES: &str = "deploy/chart/values.yaml";

/// Compares a file with what it has to be, or writes it.
fn assert_recorded(path: &str, wanted: &str) {
    if env::var_os("RECORD").is_some() {
        fs::write(root().join(path), wanted).expect("the file can be written");
    }
    assert!(
        read(path) == wanted,
        "{path} is out of date: RECORD=1 cargo test --test it manifests"
    );
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What Helm made of the chart.
fn golden(name: &str) -> Vec<Value> {
    let text = read(&format!("deploy/chart/tests/golden/{name}.yaml"));
    serde_saphyr::from_multiple(&text).expect("YAML")
}

/// The objects without what Helm adds to each, by kind, namespace and name.
fn comparable(objects: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    let objects = objects.into_iter().map(|mut object| {
        remove_what_helm_adds(&mut object);
        let place = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = [&object["kind"], &place["namespace"], &place["name"]].map(text);
        (key.join(" "), object)
    });
    objects.collect()
}

fn remove_what_helm_adds(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for key in [
                "app.kubernetes.io/instance",
                "app.kubernetes.io/managed-by",
                "app.kubernetes.io/version",
                "helm.sh/chart",
                "helm.sh/resource-policy",
            ] {
                fields.remove(key);
            }
            fields.values_mut().for_each(remove_what_helm_adds);
            // Of the CRD's annotations nothing is left.
            fields.retain(|key, field| key != "annotations" || *field != json!({}));
        }
        Value::Array(items) => items.iter_mut().for_each(remove_what_helm_adds),
        _ => {}
    }
}

/// Those of a kustomization, without the namespace, which Helm does not create.
fn kustomized(folder: &str) -> BTreeMap<String, Value> {
    let mut objects = comparable(kustomize(folder).into_values());
    objects.remove(&format!("Namespace  {NAME}"));
    objects
}

#[test]
fn the_chart_and_the_kustomizations_make_the_same_objects() {
    for (chart, folder) in [("default", "deploy"), ("namespaced", "deploy/namespaced")] {
        let (chart, folder) = (comparable(golden(chart)), kustomized(folder));
        let keys = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&chart), keys(&folder));
        for (key, object) in &chart {
            assert_eq!(object, &folder[key], "{key}");
        }
    }
}

#[test]
fn the_chart_and_the_kustomize_components_make_the_same_objects() {
    let chart = comparable(golden("components"));
    for (folder, kind) in [
        ("deploy/monitoring", "PodMonitor"),
        ("deploy/network-policy", "NetworkPolicy"),
    ] {
        let key = format!("{kind} {NAME} {NAME}");
        assert_eq!(chart[&key], kustomized(folder)[&key], "{folder}");
    }
}

#[test]
fn the_kustomize_component_has_the_charts_alerts_and_dashboard() {
    let rules = read("deploy/chart/files/alerts.yaml");
    let head = "\
# Made of ../chart/files/alerts.yaml; do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: image-export-operator
  namespace: image-export-operator
  labels:
    app.kubernetes.io/component: operator
spec:
";
    let mut wanted = head.to_owned();
    for line in rules
        .lines()
        .skip_while(|line| !line.starts_with("groups:"))
    {
        let indent = if line.is_empty() { "" } else { "  " };
        writeln!(wanted, "{indent}{line}").expect("a string");
    }
    assert_recorded("deploy/monitoring/prometheus-rule.yaml", &wanted);

    let objects = kustomize("deploy/monitoring");
    let rule = find(&objects, "PrometheusRule", NAME).expect("it");
    assert_eq!(rule["spec"], yaml("deploy/chart/files/alerts.yaml"));
    let dashboard = format!("{NAME}-dashboard");
    let dashboard = find(&objects, "ConfigMap", &dashboard).expect("it");
    let file = read("deploy/chart/files/dashboard.json");
    assert_eq!(dashboard["data"]["image-export-operator.json"], file);
}

#[test]
fn the_charts_crd_is_the_committed_one() {
    let crd = read("crds/imageexportjobs.imageexport.dev.yaml");
    assert_recorded("deploy/chart/files/crd.yaml", &crd);
}

#[test]
fn chart_and_kustomization_name_the_image_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = yaml("deploy/chart/Chart.yaml");
    assert_eq!(chart["version"], version);
    assert_eq!(chart["appVersion"], version);
    assert_eq!(yaml(VALUES)["image"]["repository"], IMAGE);
    let whole = kustomize("deploy");
    let deployment = find(&whole, "Deployment", NAME).expect("it");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], format!("{IMAGE}:v{version}"));
}

/// Without a cluster it ends with 1; wrong usage is 2.
#[test]
fn the_operator_understands_each_argument_that_the_chart_gives_it() {
    for name in ["default", "namespaced", "everything"] {
        let objects = golden(name);
        let mut deployments = objects
            .iter()
            .filter(|object| object["kind"] == "Deployment");
        let deployment = deployments.next().expect("a Deployment");
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let arguments = container["args"].as_array().expect("arguments");
        let output = Command::new(env!("CARGO_BIN_EXE_image-export-operator"))
            .args(arguments.iter().filter_map(Value::as_str))
            .env("KUBECONFIG", "/nonexistent")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
    }
}

/// The rows of the table of values: each value with a comment above it, and all that is below it.
fn table_of_values() -> String {
    let values = yaml(VALUES);
    let mut table = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    let mut path: Vec<String> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    // The indentation of a value whose fields are described by its own comment.
    let mut described = None;
    let text = read(VALUES);
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if let Some(text) = content.strip_prefix('#') {
            comment.push(text.trim());
            continue;
        }
        if content.is_empty() {
            comment.clear();
            continue;
        }
        if described.is_some_and(|above| indent > above) {
            continue;
        }
        described = None;
        let key = content.split(':').next().unwrap_or_default();
        path.truncate(indent / 2);
        path.push(key.to_owned());
        let value = path.iter().fold(&values, |value, key| &value[key.as_str()]);
        if comment.is_empty() {
            let is_a_group = value.as_object().is_some_and(|fields| !fields.is_empty());
            assert!(is_a_group, "{VALUES}: {} has no comment", path.join("."));
        } else {
            let (path, meaning) = (path.join("."), comment.join(" "));
            writeln!(table, "| `{path}` | `{value}` | {meaning} |").expect("a string");
            described = Some(indent);
        }
        comment.clear();
    }
    table
}

#[test]
fn the_charts_readme_has_each_value_with_its_default() {
    const PATH: &str = "deploy/chart/README.md";
    let readme = read(PATH);
    let (before, _) = readme.split_once("| value |").expect("the table");
    assert_recorded(PATH, &format!("{before}{}", table_of_values()));
}

/// Helm rejects values that the schema does not know; this finds what only the schema knows.
#[test]
fn the_charts_schema_and_values_have_the_same_names() {
    fn compare(path: &str, schema: &Value, values: &Value) {
        if schema["additionalProperties"] != false {
            return;
        }
        let names = |fields: &Value| -> Vec<String> {
            let fields = fields.as_object().into_iter().flatten();
            let mut names: Vec<_> = fields.map(|(name, _)| name.clone()).collect();
            // Charts that have this one as a dependency set it.
            names.retain(|name| name != "global");
            names.sort();
            names
        };
        assert_eq!(names(&schema["properties"]), names(values), "{path}");
        for name in names(values) {
            compare(
                &format!("{path}.{name}"),
                &schema["properties"][&name],
                &values[&name],
            );
        }
    }
    let schema = read("deploy/chart/values.schema.json");
    let schema = serde_json::from_str(&schema).expect("JSON");
    compare("", &schema, &yaml(VALUES));
}

/// A namespace with the labels of `deploy/`'s, so that the API server warns of Pods that are not restricted.
fn restricted_namespace(cluster: &Cluster, name: &str) {
    let labels = ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}"));
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": { &labels[0]: "restricted", &labels[1]: "restricted" },
        },
    });
    cluster
        .kubectl(["apply", "--server-side", "-f", "-"])
        .stdin(namespace.to_string())
        .success()
        .expect("a namespace");
}

pub fn apply(cluster: &Cluster, arguments: &[&str], objects: &[Value]) -> Output {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    cluster
        .kubectl(["apply", "--server-side", "--validate=strict", "-f", "-"])
        .args(arguments)
        .stdin(list.to_string())
        .run()
        .expect("kubectl runs")
}

/// Puts the operator of these objects into another namespace than that of `deploy/`.
fn moved(objects: impl IntoIterator<Item = Value>, namespace: &str) -> Vec<Value> {
    fn replace(value: &mut Value, namespace: &str) {
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    if key == "namespace" && field == NAME {
                        *field = json!(namespace);
                    } else {
                        replace(field, namespace);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| replace(item, namespace)),
            _ => {}
        }
    }
    let objects = objects.into_iter().map(|mut object| {
        replace(&mut object, namespace);
        object
    });
    objects.collect()
}

#[test]
fn the_api_server_accepts_all_that_chart_and_kustomizations_make_without_a_warning() {
    const NAMESPACE: &str = "manifests";
    let cluster = cluster();
    for namespace in [NAMESPACE, "team-a", "leases"] {
        restricted_namespace(cluster, namespace);
    }
    let folders = [
        "deploy/namespaced",
        "deploy/network-policy",
        "deploy/rbac/cluster",
    ];
    let folders = folders.map(|folder| (folder, kustomize(folder).into_values().collect()));
    let charts = ["default", "namespaced", "everything", "components"];
    let charts = charts.map(|name| (name, golden(name)));
    for (name, objects) in folders.into_iter().chain(charts) {
        let mut objects = moved(objects, NAMESPACE);
        // This API server does not have the CRDs of the Prometheus Operator.
        objects.retain(|object| object["apiVersion"] != "monitoring.coreos.com/v1");
        let output = apply(cluster, &["--dry-run=server"], &objects);
        assert!(output.status.success(), "{name}: {}", output.stderr);
        assert_eq!(output.stderr, "", "{name}");
    }
}

/// The rights of `namespaced/`, and none of `deploy/`.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_with_the_charts_rights_in_one_namespace_serves_that_one() {
    let mut team = Team::without_operator("namespaced").await;
    let rights: Vec<Value> = golden("namespaced")
        .into_iter()
        .filter(|object| {
            ["Role", "RoleBinding", "ServiceAccount"]
                .map(|kind| json!(kind))
                .contains(&object["kind"])
        })
        .map(|object| {
            let text = object.to_string().replace("team-a", &team.namespace);
            serde_json::from_str(&text).expect("JSON")
        })
        .collect();
    assert_eq!(rights.len(), 5);
    let own = format!("{}-operator", team.namespace);
    restricted_namespace(cluster(), &own);
    let output = apply(cluster(), &[], &moved(rights, &own));
    assert!(output.status.success(), "{}", output.stderr);

    let kubeconfig = cluster()
        .kubeconfig_for_service_account(&own, NAME)
        .expect("a token");
    let allowed = |arguments: &[&str]| {
        cluster()
            .kubectl(["auth", "can-i"])
            .args(arguments)
            .kubeconfig(&kubeconfig)
            .run()
            .expect("kubectl runs")
            .status
            .success()
    };
    let jobs = "imageexportjobs.imageexport.dev";
    assert!(allowed(&["list", jobs, "-n", &team.namespace]));
    assert!(!allowed(&["list", jobs, "--all-namespaces"]));
    assert!(!allowed(&["get", "secrets", "-n", "default"]));
    assert!(!allowed(&["list", "secrets", "-n", &team.namespace]));
    let arguments = ["--namespace", &team.namespace, "--poll-period", "10"];
    team.operator = Some(Operator::start_with(&kubeconfig, &arguments));
    let name = team.follow(Job::new(PROJECT, "done")).await;
    team.until_reason(&name, reasons::JOB_SUCCEEDED).await;
    team.until_event(&name, "Normal JobSucceeded").await;
}
