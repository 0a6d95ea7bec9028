//! Checks of the repository: generated files, dependencies, manifests and documents.

use crate::{harness::cluster, interfaces};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a folder of the repository, without build output and folders of tools.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.unwrap_or_default();
        let is_skipped = path == root().join("target")
            || name.starts_with('.') && ![".ci", ".github"].contains(&name);
        // In a linked work tree of Git, `.git` is a file with a path of the machine.
        if path.is_file() && name != ".git" {
            found.push(path);
        } else if path.is_dir() && !is_skipped {
            found.extend(files(&path));
        }
    }
    found
}

/// The objects that `kubectl kustomize` makes of a folder, by kind and name.
pub fn kustomize(folder: &str) -> BTreeMap<(String, String), Value> {
    let folder = root().join(folder);
    let yaml = cluster()
        .kubectl(["kustomize"])
        .args([folder])
        .success()
        .expect("a kustomization");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).expect("YAML");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    objects
        .into_iter()
        .map(|object| {
            let name = text(&object["metadata"]["name"]);
            ((text(&object["kind"]), name), object)
        })
        .collect()
}

#[test]
fn the_committed_crd_is_generated_from_the_code() {
    assert!(
        read("crds/imageexportjobs.imageexport.dev.yaml") == image_export_api::crd::yaml(),
        "the CRD is out of date: \
         cargo run -- crd > crds/imageexportjobs.imageexport.dev.yaml"
    );
}

#[test]
fn there_is_one_crypto_provider_and_no_abandoned_yaml_library() {
    let lock = read("Cargo.lock");
    let packages: Vec<&str> = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .collect();
    let count = |name: &str| packages.iter().filter(|package| **package == name).count();
    assert_eq!(
        (count("ring"), count("rustls"), count("reqwest")),
        (1, 1, 1)
    );
    for unwanted in [
        "aws-lc-rs",
        "aws-lc-sys",
        "native-tls",
        "openssl",
        "openssl-sys",
        "serde_yaml",
    ] {
        assert_eq!(count(unwanted), 0, "{unwanted}");
    }
}

/// Cargo enforces the layers: a package cannot use what its manifest does not name.
#[test]
fn the_packages_of_the_core_cannot_do_io() {
    for (package, forbidden) in [
        ("model", &["kube", "tokio", "reqwest", "image-export"][..]),
        (
            "api",
            &["kube.", "kube-client", "tokio", "reqwest", "image-export-c"],
        ),
        ("core", &["kube", "tokio", "reqwest", "image-export-cloud"]),
        (
            "cloud",
            &[
                "kube",
                "k8s-openapi",
                "image-export-api",
                "image-export-core",
            ],
        ),
    ] {
        let manifest = read(&format!("crates/{package}/Cargo.toml"));
        let dependencies = manifest.split("[dependencies]").nth(1).expect(package);
        for name in forbidden {
            let named = dependencies.lines().find(|line| line.starts_with(name));
            assert_eq!(named, None, "crates/{package} must not depend on it");
        }
    }
}

/// All rights of the operator in the namespaces that it serves, as the rules of a Role.
pub fn rules() -> Value {
    json!([
        {
            "apiGroups": ["imageexport.dev"], "resources": ["imageexportjobs"],
            "verbs": ["get", "list", "watch", "delete"],
        },
        {
            "apiGroups": ["imageexport.dev"], "resources": ["imageexportjobs/status"],
            "verbs": ["update", "patch"],
        },
        { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"] },
        { "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] },
    ])
}

/// Its rights in its own namespace.
pub fn leader_election_rules() -> Value {
    json!([
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"] },
        {
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
            "resourceNames": ["image-export-operator"], "verbs": ["get", "update"],
        },
    ])
}

pub fn find<'o>(
    objects: &'o BTreeMap<(String, String), Value>,
    kind: &str,
    name: &str,
) -> Option<&'o Value> {
    objects.get(&(kind.to_owned(), name.to_owned()))
}

#[test]
fn deploy_grants_the_operator_these_rights_and_no_others() {
    const NAME: &str = "image-export-operator";
    const LEADER_ELECTION: &str = "image-export-operator-leader-election";
    let whole = kustomize("deploy");
    let kinds: Vec<_> = whole
        .keys()
        .filter(|(kind, _)| kind.contains("Role"))
        .map(|(kind, name)| format!("{kind} {name}"))
        .collect();
    assert_eq!(
        kinds,
        [
            "ClusterRole image-export-operator",
            "ClusterRole image-export-operator-edit",
            "ClusterRole image-export-operator-view",
            "ClusterRoleBinding image-export-operator",
            "Role image-export-operator-leader-election",
            "RoleBinding image-export-operator-leader-election",
        ]
    );
    assert_eq!(
        find(&whole, "ClusterRole", NAME).expect("it")["rules"],
        rules()
    );
    let subjects = json!([{ "kind": "ServiceAccount", "name": NAME, "namespace": NAME }]);
    let binding = find(&whole, "ClusterRoleBinding", NAME).expect("it");
    assert_eq!(binding["subjects"], subjects);
    assert_eq!(binding["roleRef"]["name"], NAME);
    for objects in [&whole, &kustomize("deploy/namespaced")] {
        let role = find(objects, "Role", LEADER_ELECTION).expect("it");
        assert_eq!(role["metadata"]["namespace"], NAME);
        assert_eq!(role["rules"], leader_election_rules());
        let binding = find(objects, "RoleBinding", LEADER_ELECTION).expect("it");
        assert_eq!(binding["metadata"]["namespace"], NAME);
        assert_eq!(binding["subjects"], subjects);
        assert_eq!(binding["roleRef"]["name"], LEADER_ELECTION);
    }

    let namespaced = kustomize("deploy/namespaced");
    assert_eq!(
        find(&namespaced, "Role", NAME).expect("it")["rules"],
        rules()
    );
    assert_eq!(find(&namespaced, "ClusterRole", NAME), None);
    assert_eq!(find(&namespaced, "ClusterRoleBinding", NAME), None);
    let binding = find(&namespaced, "RoleBinding", NAME).expect("it");
    assert_eq!(binding["subjects"], subjects);
    assert_eq!(binding["roleRef"]["kind"], "Role");
}

#[test]
fn the_aggregated_roles_give_users_the_objects_and_no_right_to_write_a_status() {
    let whole = kustomize("deploy");
    let rule = |resources: &[&str], verbs: &[&str]| json!({ "apiGroups": ["imageexport.dev"], "resources": resources, "verbs": verbs });
    let view = rule(
        &["imageexportjobs", "imageexportjobs/status"],
        &["get", "list", "watch"],
    );
    let change = rule(
        &["imageexportjobs"],
        &["create", "update", "patch", "delete", "deletecollection"],
    );
    for (role, rules, aggregated_to) in [
        (
            "image-export-operator-view",
            json!([view]),
            &["view", "edit", "admin"][..],
        ),
        (
            "image-export-operator-edit",
            json!([view, change]),
            &["edit", "admin"],
        ),
    ] {
        let role = find(&whole, "ClusterRole", role).expect("it");
        assert_eq!(role["rules"], rules);
        let labels = &role["metadata"]["labels"];
        for target in ["view", "edit", "admin"] {
            let label = format!("rbac.authorization.k8s.io/aggregate-to-{target}");
            let wanted = if aggregated_to.contains(&target) {
                json!("true")
            } else {
                Value::Null
            };
            assert_eq!(labels[label.as_str()], wanted, "{label}");
        }
    }
}

#[test]
fn the_operators_pod_runs_restricted() {
    let whole = kustomize("deploy");
    let pod = &find(&whole, "Deployment", "image-export-operator").expect("it")["spec"]["template"]
        ["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"],
        json!({ "type": "RuntimeDefault" })
    );
    for absent in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
        assert_eq!(pod[absent], Value::Null, "{absent}");
    }
    let containers = pod["containers"].as_array().expect("containers");
    assert_eq!(containers.len(), 1);
    assert_eq!(
        containers[0]["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        })
    );
    // The admission of the namespace applies the same standard to what an overlay adds.
    let namespace = find(&whole, "Namespace", "image-export-operator").expect("it");
    let labels = &namespace["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn no_file_contains_a_path_of_a_developers_machine() {
    // Written so that this file does not contain them either.
    let places =
        ["/ho me/", "/ro ot/", "/Us ers/", "/wo rk/", "/mn t/"].map(|p| p.replace(' ', ""));
    for file in files(root()) {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            // A home that tests make up.
            let line = line.replace("/home/dev", "");
            for place in &places {
                assert!(
                    !line.contains(place.as_str()),
                    "{}:{}: {line}",
                    file.display(),
                    number + 1
                );
            }
        }
    }
}

/// The flags in a text.
fn flags(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|part| part.starts_with("--") && part.len() > 2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn documents_and_manifests_name_flags_and_variables_that_exist() {
    let help: String = ["run", "query"]
        .map(|command| {
            let help = Command::new(env!("CARGO_BIN_EXE_image-export-operator"))
                .args([command, "--help"])
                .output()
                .expect("the operator runs");
            String::from_utf8(help.stdout).expect("text")
        })
        .concat();
    let known = flags(&help);

    let documents = files(root())
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "md"));
    for document in documents {
        let text = fs::read_to_string(&document).expect("text");
        let named = document.display();
        for line in text.lines() {
            let is_of_helm = line.contains("helm ");
            let operator = line.split("image-export-operator ").nth(1);
            let operator = operator.filter(|_| !is_of_helm);
            for flag in flags(operator.unwrap_or_default()) {
                assert!(known.contains(&flag), "{named}: {line}");
            }
        }
        for variable in text.split(|c: char| !c.is_ascii_uppercase() && c != '_') {
            assert!(
                !variable.starts_with("IMAGE_EXPORT_")
                    || help.contains(&format!("[env: {variable}="))
                    || variable == "IMAGE_EXPORT_TIME_SCALE",
                "{named}: {variable}"
            );
        }
    }
    for folder in ["deploy", "deploy/namespaced"] {
        let objects = kustomize(folder);
        let deployment = find(&objects, "Deployment", "image-export-operator").expect("it");
        let args = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
        for argument in args.as_array().expect("arguments").iter().skip(1) {
            let flag = argument.as_str().and_then(|a| a.split('=').next());
            assert!(
                known.contains(flag.expect("a flag")),
                "{folder}: {argument}"
            );
        }
    }
}

#[test]
fn the_links_waits_and_manifests_of_the_readme_work() {
    let readme = read("README.md");
    for link in readme.split("](").skip(1) {
        let link = link.split(')').next().unwrap_or_default();
        assert!(
            link.contains("://") || root().join(link).exists(),
            "README.md links to {link}"
        );
    }
    // `interfaces` tests what these waits do.
    for wait in [interfaces::SUCCESS, interfaces::FAILURE, interfaces::EITHER] {
        let readme = readme.replace('\'', "");
        assert!(readme.contains(wait[0]), "{}", wait[0]);
    }
    for block in readme.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        // A block in a list is indented as a whole.
        let margin = &block[..block.len() - block.trim_start().len()];
        let objects: Vec<_> = block
            .lines()
            .map(|line| line.strip_prefix(margin).unwrap_or(line))
            .collect();
        let objects = objects.join("\n").replace("team-a", "default");
        let output = cluster()
            .kubectl(["create", "--dry-run=server", "--validate=strict", "-f", "-"])
            .stdin(objects)
            .run()
            .expect("kubectl runs");
        assert!(output.status.success(), "{}\n{block}", output.stderr);
        assert_eq!(output.stderr, "");
    }
}

#[test]
fn the_metrics_of_each_object_are_documented_and_read_fields_that_exist() {
    let file = read("deploy/monitoring/kube-state-metrics.yaml");
    let config: Value = serde_saphyr::from_str(&file).expect("YAML");
    let resource = &config["spec"]["resources"][0];
    let schema: Value =
        serde_saphyr::from_str(&read("crds/imageexportjobs.imageexport.dev.yaml")).expect("YAML");
    let version = &schema["spec"]["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    assert_eq!(resource["groupVersionKind"]["version"], version["name"]);
    let names = |value: &Value| -> Vec<String> {
        let values = value.as_array().expect("a list").iter();
        values
            .map(|name| name.as_str().expect("a name").to_owned())
            .collect()
    };
    let assert_exists = |path: &[String]| {
        let mut at = schema;
        for name in path.iter().filter(|_| path[0] != "metadata") {
            at = &at["properties"][name];
            if at["items"].is_object() {
                at = &at["items"];
            }
        }
        assert!(at.is_object(), "{path:?}");
    };
    let mut found = BTreeSet::new();
    for metric in resource["metrics"].as_array().expect("a list") {
        let each = ["info", "gauge", "stateSet"].map(|kind| &metric["each"][kind]);
        let each = each
            .into_iter()
            .find(|each| each.is_object())
            .expect("a kind");
        let path = if each["path"].is_array() {
            names(&each["path"])
        } else {
            Vec::new()
        };
        if !path.is_empty() {
            assert_exists(&path);
        }
        let mut labels: Vec<String> = Vec::new();
        if let Some(from) = each["labelsFromPath"].as_object() {
            for (label, field) in from {
                assert_exists(&[path.clone(), names(field)].concat());
                labels.push(label.clone());
            }
        }
        labels.extend(each["labelName"].as_str().map(str::to_owned));
        labels.sort();
        let prefix = resource["metricNamePrefix"].as_str().expect("a prefix");
        let name = metric["name"].as_str().expect("a name");
        found.insert((format!("{prefix}_{name}"), labels));
    }
    let page = read("docs/monitoring.md");
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `imageexportjob_"));
    let documented: BTreeSet<(String, Vec<String>)> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').collect();
            let quoted = |cell: &str| -> Vec<String> {
                cell.split('`')
                    .skip(1)
                    .step_by(2)
                    .map(str::to_owned)
                    .collect()
            };
            let mut labels = quoted(cells[2]);
            labels.sort();
            (quoted(cells[1]).remove(0), labels)
        })
        .collect();
    assert_eq!(found, documented);
    assert_eq!(found.len(), 7);
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A document without its code.
fn prose(document: &str) -> String {
    let mut is_code = false;
    let lines = document.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.flat_map(|line| line.split('`').step_by(2)).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = files(root())
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "md"));
    let mut broken = Vec::new();
    for document in documents {
        let text = prose(&fs::read_to_string(&document).expect("text"));
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            let (path, section) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.with_file_name("").join(path),
            };
            let leads_there = section.is_empty()
                || fs::read_to_string(&target).is_ok_and(|text| {
                    let mut headings = text.lines().filter(|line| line.starts_with('#'));
                    headings.any(|heading| anchor(heading) == section)
                });
            if !(link.contains("://") || target.exists() && leads_there) {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// The fragments of each message in the table of `docs/cloud.md` occur in the sources.
#[test]
fn the_messages_in_the_cloud_manual_are_those_of_the_code() {
    let sources: String = ["crates/cloud/src", "src/controller", "crates/core/src"]
        .iter()
        .flat_map(|folder| files(&root().join(folder)))
        .map(|source| fs::read_to_string(source).expect("a source file"))
        .collect();
    let manual = fs::read_to_string(root().join("docs/cloud.md")).expect("docs/cloud.md");
    let mut checked = 0;
    let mut missing = Vec::new();
    for line in manual.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, reason, messages, remedy, _] = cells.as_slice() else {
            continue;
        };
        if !messages.starts_with('`') || !reason.starts_with(|c: char| c.is_ascii_uppercase()) {
            continue;
        }
        checked += 1;
        assert!(!remedy.is_empty(), "{line}");
        let in_code = |fragment: &str| {
            let fragment = fragment.trim_matches([' ', '(', ')', ',', ';', ':']);
            let escaped = fragment.replace('"', "\\\"");
            fragment.len() < 4 || sources.contains(fragment) || sources.contains(&escaped)
        };
        for message in messages.split('`').skip(1).step_by(2) {
            missing.extend(
                message
                    .split('…')
                    .filter(|fragment| !in_code(fragment))
                    .map(|fragment| format!("{fragment:?} of {message}")),
            );
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    assert!(checked > 40, "{checked} lines");
}

/// Names with three underscores or more are those of tests.
#[test]
fn the_tests_that_the_security_page_names_exist() {
    let sources: String = ["crates", "src", "tests"]
        .iter()
        .flat_map(|folder| files(&root().join(folder)))
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .map(|file| fs::read_to_string(file).expect("a source file"))
        .collect();
    let page = read("docs/security.md");
    let names: BTreeSet<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| {
            name.matches('_').count() >= 3
                && name
                    .chars()
                    .all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
        })
        .collect();
    let is_missing = |name: &&str| !sources.contains(&format!("fn {name}("));
    let missing: Vec<&str> = names.iter().copied().filter(is_missing).collect();
    assert_eq!(missing, Vec::<&str>::new());
    assert!(names.len() > 50, "{} tests", names.len());
}
