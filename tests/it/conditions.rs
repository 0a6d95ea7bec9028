//! `docs/conditions.md` and the objects in `deploy/gitops/` agree with the code.

use image_export_api::ImageExportJob;
use image_export_core::{
    phase::{Activity, Pace, Phase, Truth},
    status::{Snapshot, unowned},
};
use std::{collections::BTreeSet, fs, path::Path};

const DOCUMENT: &str = include_str!("../../docs/conditions.md");

/// The cells of the lines of the table under this heading.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    table_of(DOCUMENT, heading)
}

fn table_of(document: &'static str, heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = document
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    section
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// The parts of a cell in backticks.
fn quoted(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split('`').skip(1).step_by(2)
}

/// All reasons, as the code spells them.
fn reasons() -> BTreeSet<&'static str> {
    let source = include_str!("../../crates/api/src/conditions.rs");
    let (_, module) = source.split_once("pub mod reasons {").expect("the module");
    module
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split('"').nth(1))
        .collect()
}

#[test]
fn the_table_of_the_documentation_is_that_of_the_code() {
    let mut described = BTreeSet::new();
    for line in table("The table") {
        let [
            reason_cell,
            _,
            ready,
            succeeded,
            also,
            polling,
            kstatus,
            argo,
        ] = line[..]
        else {
            panic!("eight columns: {line:?}");
        };
        for reason in quoted(reason_cell) {
            let phase = Phase::from_reason(reason, also == "Stalled")
                .unwrap_or_else(|| panic!("no reason {reason}"));
            let row = phase.row();
            assert_eq!(row.ready.as_str(), ready, "{reason}");
            let mut words = succeeded.split(' ');
            let status = words.next();
            assert_eq!(status, Some(row.succeeded.as_str()), "{reason}");
            let own = quoted(succeeded).next().unwrap_or(reason);
            assert_eq!(row.succeeded_reason, own, "{reason}");
            let activity = match row.activity {
                Activity::Rest => "–",
                Activity::Reconciling => "Reconciling",
                Activity::Stalled => "Stalled",
            };
            assert_eq!(activity, also, "{reason}");
            let expected = match (row.ready, row.activity) {
                (_, Activity::Stalled) => ("Failed", "Degraded"),
                (Truth::True, _) => ("Current", "Healthy"),
                (_, Activity::Rest) => ("InProgress", "Suspended"),
                _ => ("InProgress", "Progressing"),
            };
            assert_eq!((kstatus, argo), expected, "{reason}");
            let expected = match (phase, row.pace) {
                (Phase::PollFailed, _) => "with backoff",
                (Phase::PollOverdue, _) => "in its turn",
                (Phase::Suspended, _) => "pauses",
                (_, Pace::Own) => "at its period",
                (_, Pace::Slow) => "slow",
                (_, Pace::NotFound) => "every 60 s",
                (_, Pace::ImageId) => "5 more, 10 s apart",
                (_, Pace::Never) => "ends",
            };
            assert_eq!(polling, expected, "{reason}");
            described.insert(reason);
        }
    }
    assert_eq!(described, reasons());
}

#[test]
fn the_documentation_explains_each_reason() {
    let explained: BTreeSet<&str> = table("What to do")
        .into_iter()
        .flat_map(|line| quoted(line[0]))
        .collect();
    assert_eq!(explained, reasons());
}

#[test]
fn the_page_about_troubleshooting_has_a_line_for_each_reason() {
    let page = include_str!("../../docs/troubleshooting.md");
    let lines = table_of(page, "An object, by the reason of `Ready`");
    let named: BTreeSet<_> = lines.iter().flat_map(|line| quoted(line[0])).collect();
    let missing: Vec<_> = reasons().difference(&named).copied().collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn the_objects_that_argo_cds_script_is_tested_with_are_what_the_operator_writes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(
        "deploy/gitops/argocd/resource_customizations/imageexport.dev/ImageExportJob/testdata",
    );
    let mut written = 0;
    for file in fs::read_dir(folder).expect("a folder") {
        let path = file.expect("a file").path();
        let yaml = fs::read_to_string(&path).expect("readable");
        let object: ImageExportJob = serde_saphyr::from_str(&yaml).expect("an object");
        let job = object.spec.job_id.as_str();
        let parse = |status| Snapshot::parse(status, job);
        if let Some(snapshot) = object.status.as_ref().and_then(parse) {
            let unowned = unowned(object.status.as_ref()).unwrap_or_default();
            let rendered = snapshot.render(job, &unowned);
            assert_eq!(Some(rendered), object.status, "{}", path.display());
            written += 1;
        } else {
            // Never written.
            assert!(path.ends_with("created.yaml"), "{}", path.display());
        }
    }
    assert_eq!(written, 18);
}
