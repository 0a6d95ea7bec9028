//! `kubectl explain`: each field's type and text, as a user reads them.

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

/// The words alone: kubectl wraps lines and indents them.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How kubectl calls a field's type.
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

/// The API server publishes a new CRD's schema a moment after it has established it.
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
        // A list is explained as its items are.
        if text(&schema["type"]) != "object" {
            continue;
        }
        let text_of_it = explain(&[&format!("iej{}", path.replace("[]", ""))]);
        let flat = words(&text_of_it);
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
                words => format!(
                    " enum: {}",
                    words.iter().map(text).collect::<Vec<_>>().join(", ")
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
async fn a_single_field_is_explained_by_its_own_text() {
    until_published().await;
    let crd = crd::json();
    for (path, schema) in schemas(&crd) {
        if schema.get("properties").is_some() || path.starts_with(".status.conditions") {
            continue;
        }
        let flat = words(&explain(&[&format!("iej{path}")]));
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
