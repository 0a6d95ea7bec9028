//! The corpus of each fuzz target, replayed through what the target checks.

use crate::fuzzing::TARGETS;
use std::{
    collections::BTreeSet,
    fs, panic,
    path::{Path, PathBuf},
};

/// The files in a folder of `fuzz/`.
fn listed(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz")
        .join(folder);
    fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn each_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for folder in ["fuzz_targets", "corpus"] {
        let stems: BTreeSet<_> = listed(folder)
            .iter()
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(stems, targets, "{folder}");
    }
}

#[test]
fn what_a_target_checks_holds_for_its_corpus() {
    let mut failed = Vec::new();
    for (name, target) in TARGETS {
        let inputs = listed(&format!("corpus/{name}"));
        assert!(!inputs.is_empty(), "the corpus of {name} is empty");
        failed.extend(inputs.into_iter().filter(|input| {
            let bytes = fs::read(input).unwrap();
            panic::catch_unwind(|| target(&bytes)).is_err()
        }));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
