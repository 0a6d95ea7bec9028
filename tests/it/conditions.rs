//! `docs/conditions.md` says what the code does, and so do the objects in `deploy/gitops/`.
use image_export_api::ImageExportJob;
use image_export_core::{
    standing::{Parsed, Standing},
    verdict::{Activity, Row, Truth},
};
use std::{collections::BTreeSet, fs, path::Path};

const DOCUMENT: &str = include_str!("../../docs/conditions.md");

/// The cells of the lines of the table under this heading.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = DOCUMENT
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

/// What stands in backticks.
fn quoted(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split('`').skip(1).step_by(2)
}

/// All reasons, as the code spells them.
fn reasons() -> BTreeSet<&'static str> {
    let source = include_str!("../../crates/api/src/conditions.rs");
    let (_, module) = source.split_once("pub mod reasons {").expect("it is there");
    module
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split('"').nth(1))
        .collect()
}

#[test]
fn each_line_of_the_table_is_what_the_code_says() {
    let mut described = BTreeSet::new();
    for line in table("The table") {
        let [number, _, ready, succeeded, also, _, kstatus, argo] = line[..] else {
            panic!("eight columns: {line:?}");
        };
        if ["0", "9"].contains(&number) {
            continue;
        }
        for reason in quoted(ready) {
            let row = Row::from_reason(reason, also == "Stalled")
                .unwrap_or_else(|| panic!("row {number}: no reason {reason}"));
            let says = row.conditions();
            let (status, ..) = ready.split_once(' ').expect("a status and a reason");
            assert_eq!(says.ready.as_str(), status, "row {number}");
            let mut words = succeeded.split(' ');
            assert_eq!(words.next(), Some(says.succeeded.as_str()), "row {number}");
            let own = quoted(succeeded).next().unwrap_or(reason);
            assert_eq!(row.succeeded_reason(), own, "row {number}");
            let activity = match says.activity {
                None => "–",
                Some(Activity::Reconciling) => "Reconciling",
                Some(Activity::Stalled) => "Stalled",
            };
            assert_eq!(activity, also, "row {number}");
            let expected = match (says.ready, says.activity) {
                (_, Some(Activity::Stalled)) => ("Failed", "Degraded"),
                (Truth::True, _) => ("Current", "Healthy"),
                (_, None) => ("InProgress", "Suspended"),
                _ => ("InProgress", "Progressing"),
            };
            assert_eq!((kstatus, argo), expected, "row {number}");
            described.insert(reason);
        }
    }
    assert_eq!(described, reasons());
}

#[test]
fn each_reason_says_what_it_asks_of_the_reader() {
    let explained: BTreeSet<&str> = table("What each reason asks of you")
        .into_iter()
        .flat_map(|line| quoted(line[0]))
        .collect();
    assert_eq!(explained, reasons());
}

#[test]
fn the_objects_that_argo_cds_script_is_tested_with_are_what_the_operator_writes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(
        "deploy/gitops/argocd/resource_customizations/imageexport.dev/ImageExportJob/testdata",
    );
    let mut ours = 0;
    for file in fs::read_dir(folder).expect("a folder") {
        let path = file.expect("a file").path();
        let yaml = fs::read_to_string(&path).expect("readable");
        let object: ImageExportJob = serde_saphyr::from_str(&yaml).expect("an object");
        let job = object.spec.job_id.as_str();
        match Standing::parse(object.status.as_ref(), job) {
            Parsed::Ours(standing) => {
                assert_eq!(
                    Some(standing.render(job)),
                    object.status,
                    "{}",
                    path.display()
                );
                ours += 1;
            }
            Parsed::Fresh => assert!(path.ends_with("created.yaml"), "{}", path.display()),
            Parsed::Strange => panic!("not the operator's: {}", path.display()),
        }
    }
    assert_eq!(ours, 17);
}
