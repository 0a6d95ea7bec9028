//! A real API server accepts the CRD and the sample manifests.

use crate::harness::{Team, cluster};
use image_export_api::crd;
use serde_json::{Value, json};
use std::fs;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_server_accepts_the_crd_without_a_warning() {
    let file = format!("{ROOT}/crds/imageexportjobs.imageexport.dev.yaml");
    let arguments = [
        "apply",
        "--server-side",
        "--dry-run=server",
        "--validate=strict",
    ];
    let output = cluster()
        .kubectl(arguments)
        .args(["-f", &file])
        .run()
        .expect("kubectl runs");
    assert!(output.status.success(), "{}", output.stderr);
    assert_eq!(output.stderr, "");
}

/// Applies the CRD under another group, so that the server validates it as a new one and not against
/// the one that it has accepted before.
fn apply_as_new(change: impl FnOnce(&mut Value)) -> Result<(), String> {
    let mut crd = crd::json();
    crd["spec"]["group"] = json!("new.imageexport.dev");
    crd["metadata"]["name"] = json!("imageexportjobs.new.imageexport.dev");
    change(&mut crd);
    let output = cluster()
        .kubectl(["apply", "--dry-run=server", "--validate=strict", "-f", "-"])
        .stdin(crd.to_string())
        .run()
        .expect("kubectl runs");
    if output.status.success() && output.stderr.is_empty() {
        Ok(())
    } else {
        Err(output.stderr)
    }
}

#[test]
fn a_server_without_the_crd_accepts_it_too() {
    assert_eq!(apply_as_new(|_| ()), Ok(()));

    // The server does validate: it rejects rules that do not compile or cost too much.
    let with_rule = |rule: &str| {
        apply_as_new(|crd| {
            super::change(
                crd,
                ".status.conditions/x-kubernetes-validations",
                &json!([{ "rule": rule }]).to_string(),
            );
        })
    };
    let error = with_rule("self.all(c, c.kind == '')").expect_err("there is no kind");
    assert!(error.contains("compilation failed"), "{error}");
    let costly =
        "self.all(a, self.all(b, self.all(c, self.all(d, a.message.contains(d.message)))))";
    let error = with_rule(costly).expect_err("the messages are long");
    assert!(error.contains("exceeds budget"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_is_accepted_as_it_is_and_with_its_options() {
    let team = Team::without_operator("samples").await;
    // The sample has one of that name.
    team.delete_secret("otc");
    let files = [
        "deploy/sample/credentials.yaml",
        "deploy/sample/image-export-job.yaml",
        "examples/quickstart/one-more.yaml",
    ];
    let objects = fs::read_dir(format!("{ROOT}/examples/quickstart/objects")).expect("a folder");
    let objects = objects.map(|entry| entry.expect("an entry").path());
    let files = files.map(|file| format!("{ROOT}/{file}").into());
    let mut jobs = 0;
    for file in files.into_iter().chain(objects) {
        let manifest = fs::read_to_string(&file).expect("a manifest");
        jobs += usize::from(manifest.contains("kind: ImageExportJob"));
        for manifest in [with_options(&manifest), manifest] {
            let output = team
                .kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", "-"])
                .stdin(manifest)
                .run()
                .expect("kubectl runs");
            let file = file.display();
            assert!(output.status.success(), "{file}: {}", output.stderr);
            assert_eq!(output.stderr, "", "{file}");
        }
    }
    assert_eq!(jobs, 7);
}

/// The manifest with the optional fields that it has as comments.
fn with_options(manifest: &str) -> String {
    let lines = manifest.lines().map(|line| {
        let option = line.trim_start().strip_prefix("# ").unwrap_or_default();
        let is_field = option.split_once(": ").is_some_and(|(name, _)| {
            name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.contains(' ')
        });
        if is_field && line.starts_with(' ') {
            line.replacen("# ", "", 1)
        } else {
            line.to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn options_are_only_the_commented_fields() {
    let manifest =
        "# About: this file.\nspec:\n  # Optional: poll every 30 s.\n  # pollPeriodSeconds: 30\n";
    assert_eq!(
        with_options(manifest),
        "# About: this file.\nspec:\n  # Optional: poll every 30 s.\n  pollPeriodSeconds: 30"
    );
}
