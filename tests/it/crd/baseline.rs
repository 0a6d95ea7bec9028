//! The promises of the last release: `baseline-v1alpha1.yaml` is its CRD, and the present one keeps
//! what that promised. A release that passes replaces the file with its own CRD, so that the next is
//! measured by it: `cp crds/imageexportjobs.imageexport.dev.yaml tests/it/crd/baseline-v1alpha1.yaml`.
//! A promise that has to be broken gets a new version; before the first release, a new baseline.

use super::comparison::breaks;
use image_export_api::crd;
use serde_json::Value;

fn baseline() -> Value {
    serde_saphyr::from_str(include_str!("baseline-v1alpha1.yaml")).expect("a CRD")
}

#[test]
fn the_crd_keeps_what_the_last_release_promised() {
    assert_eq!(baseline()["kind"], "CustomResourceDefinition");
    assert_eq!(breaks(&baseline(), &crd::json()), [""; 0]);
}
