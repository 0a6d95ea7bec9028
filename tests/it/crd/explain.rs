//! `kubectl explain`: type and description of each field, as users read them.

use super::{list, properties, schemas, text};
use crate::harness::{cluster, eventually};
use image_export_api::crd;
use serde_json::Value;

fn explain(arguments: &[&str]) -> String {
    cluster()
        .kubectl(["explain"])
        .args(arguments)
        .success()
        .expect("an explanation")
}

/// The text in one line: kubectl wraps and indents it.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The name of a field's type in kubectl.
fn type_of(schema: &Value) -> &'static str {
    match text(&schema["type"]) {
        "array" => "<[]Object>",
        "object" => "<Object>",
        "integer" => "<integer>",
        "boolean" => "<boolean>",
        "string" => "<string>",
        other => panic!("{other:?}"),
    }
}

/// The API server publishes the schema of a new CRD a moment after it has established it.
async fn until_published() {
    eventually("the schema to be published", || {
        let text = cluster().kubectl(["explain", "iej"]).success().ok()?;
        text.contains("Tracks an existing image job").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_object_is_explained_with_all_of_its_fields() {
    until_published().await;
    let crd = crd::json();
    let mut explained = Vec::new();
    for (path, schema) in schemas(&crd) {
        // A list is explained by its items.
        if text(&schema["type"]) != "object" {
            continue;
        }
        let text_of_it = explain(&[&format!("iej{}", path.replace("[]", ""))]);
        let flat = flat(&text_of_it);
        assert!(!flat.contains("<no description>"), "{text_of_it}");
        assert!(
            flat.contains("GROUP: imageexport.dev KIND: ImageExportJob VERSION: v1alpha1"),
            "{text_of_it}"
        );
        let own = text(&schema["description"]);
        assert!(flat.contains(own), "{own:?} in {text_of_it}");
        for (name, property) in properties(schema) {
            let required = list(&schema["required"]).contains(&name.as_str().into());
            let mark = if required { " -required-" } else { "" };
            let enumeration = match list(&property["enum"]) {
                [] => String::new(),
                values => format!(
                    " enum: {}",
                    values.iter().map(text).collect::<Vec<_>>().join(", ")
                ),
            };
            let line = format!(
                "{name} {}{mark}{enumeration} {}",
                type_of(property),
                text(&property["description"])
            );
            assert!(flat.contains(&line), "{line:?} in {text_of_it}");
        }
        explained.push(path);
    }
    assert_eq!(
        explained,
        [
            ".spec.cloudCredentialsRef",
            ".spec",
            ".status.conditions[]",
            ".status",
            "",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_field_is_explained_by_its_description() {
    until_published().await;
    let crd = crd::json();
    for (path, schema) in schemas(&crd) {
        if schema.get("properties").is_some() || path.starts_with(".status.conditions") {
            continue;
        }
        let flat = flat(&explain(&[&format!("iej{path}")]));
        let name = path.rsplit('.').next().unwrap_or_default();
        let expected = format!("FIELD: {name} {}", type_of(schema));
        assert!(flat.contains(&expected), "{expected:?} in {flat}");
        let expected = format!("DESCRIPTION: {}", text(&schema["description"]));
        assert!(flat.contains(&expected), "{expected:?} in {flat}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_tree_is_shown_on_one_page() {
    until_published().await;
    let page = explain(&["iej", "--recursive"]);
    let crd = crd::json();
    for (path, schema) in schemas(&crd) {
        let (depth, name) = (path.matches('.').count(), path.rsplit('.').next());
        let Some(name) = name.filter(|name| !name.is_empty() && !name.ends_with(']')) else {
            continue;
        };
        let line = format!("{}{name}\t{}", "  ".repeat(depth), type_of(schema));
        let found = page.lines().any(|shown| shown.starts_with(&line));
        assert!(found, "{line:?} in {page}");
    }
}
