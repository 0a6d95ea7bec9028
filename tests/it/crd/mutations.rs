//! Tests of `comparison`: each kind of breaking change is found, each compatible change passes.

use super::{change, comparison::breaks, schemas};
use image_export_api::crd;
use serde_json::Value;

fn changed(place: &str, json: &str) -> Value {
    let mut crd = crd::json();
    change(&mut crd, place, json);
    crd
}

/// Each change of the CRD is found, and nothing else.
fn assert_found(changes: &[(&str, &str, &str)]) {
    for (place, json, found) in changes {
        let new = changed(place, json);
        assert_eq!(breaks(&crd::json(), &new), [*found], "{place}");
    }
}

#[test]
fn a_removed_or_newly_required_field_is_found() {
    assert_found(&[
        (
            ".spec/properties/suspend",
            "",
            "v1alpha1 .spec.suspend is gone",
        ),
        (
            ".status.conditions[]/properties/reason",
            "",
            "v1alpha1 .status.conditions[].reason is gone",
        ),
        (
            ".spec/required/3",
            r#""deadlineSeconds""#,
            "v1alpha1 .spec.deadlineSeconds is required now",
        ),
        (
            ".spec/required/3",
            r#""region""#,
            "v1alpha1 .spec.region is required now",
        ),
        (
            ".spec.pollPeriodSeconds/type",
            r#""string""#,
            r#"v1alpha1 .spec.pollPeriodSeconds type was "integer", is "string""#,
        ),
        (
            ".spec.pollPeriodSeconds/format",
            r#""int64""#,
            r#"v1alpha1 .spec.pollPeriodSeconds format was "int32", is "int64""#,
        ),
    ]);
}

#[test]
fn a_narrower_limit_is_found() {
    assert_found(&[
        (
            ".spec.pollPeriodSeconds/minimum",
            "10",
            "v1alpha1 .spec.pollPeriodSeconds minimum was 5, is 10",
        ),
        (
            ".spec.deadlineSeconds/maximum",
            "86400",
            "v1alpha1 .spec.deadlineSeconds maximum was 31536000, is 86400",
        ),
        (
            ".spec.jobID/minLength",
            "32",
            "v1alpha1 .spec.jobID minLength was 1, is 32",
        ),
        (
            ".spec.jobID/maxLength",
            "32",
            "v1alpha1 .spec.jobID maxLength was 64, is 32",
        ),
        (
            ".status.imageID/minLength",
            "1",
            "v1alpha1 .status.imageID minLength was nothing, is 1",
        ),
        (
            ".status.conditions/maxItems",
            "8",
            "v1alpha1 .status.conditions maxItems was 64, is 8",
        ),
        (
            ".status.conditions/minItems",
            "2",
            "v1alpha1 .status.conditions minItems was nothing, is 2",
        ),
        (
            ".spec.jobID/pattern",
            r#""^[a-f0-9]+$""#,
            r#"v1alpha1 .spec.jobID pattern was "^[A-Za-z0-9_-]+$", is "^[a-f0-9]+$""#,
        ),
        (
            ".status.errorCode/pattern",
            r#""^IMG""#,
            r#"v1alpha1 .status.errorCode pattern was nothing, is "^IMG""#,
        ),
        (
            ".status.conditions[].status/enum/2",
            "",
            r#"v1alpha1 .status.conditions[].status enum was ["True","False","Unknown"], is ["True","False"]"#,
        ),
        (
            ".status.status/enum",
            r#"["RUNNING"]"#,
            r#"v1alpha1 .status.status enum was nothing, is ["RUNNING"]"#,
        ),
    ]);
}

#[test]
fn a_changed_meaning_of_a_value_is_found() {
    assert_found(&[
        (
            ".spec.suspend/default",
            "true",
            "v1alpha1 .spec.suspend default was false, is true",
        ),
        (
            ".status.observedGeneration/default",
            "",
            "v1alpha1 .status.observedGeneration default was -1, is nothing",
        ),
        (
            ".spec.pollPeriodSeconds/default",
            "30",
            "v1alpha1 .spec.pollPeriodSeconds default was nothing, is 30",
        ),
        (
            ".status.conditions/x-kubernetes-list-type",
            r#""atomic""#,
            r#"v1alpha1 .status.conditions x-kubernetes-list-type was "map", is "atomic""#,
        ),
        (
            ".spec.jobID/x-kubernetes-validations/0/rule",
            r#""self != ''""#,
            r#"v1alpha1 .spec.jobID x-kubernetes-validations was [{"rule":"self == oldSelf"}], is [{"rule":"self != ''"}]"#,
        ),
        (
            ".spec.jobID/x-kubernetes-validations",
            "",
            r#"v1alpha1 .spec.jobID x-kubernetes-validations was [{"rule":"self == oldSelf"}], is null"#,
        ),
        (
            ".spec.suspend/x-kubernetes-validations",
            r#"[{"rule": "self"}]"#,
            r#"v1alpha1 .spec.suspend x-kubernetes-validations was null, is [{"rule":"self"}]"#,
        ),
        (
            ".status.imageID/nullable",
            "true",
            "v1alpha1 .status.imageID nullable was nothing, is true",
        ),
    ]);
}

#[test]
fn removals_outside_the_schema_are_found() {
    assert_found(&[
        ("versions/0", "", "v1alpha1 is gone"),
        ("versions/0/name", r#""v1beta1""#, "v1alpha1 is gone"),
        ("versions/0/served", "false", "v1alpha1 is gone"),
        (
            "versions/0/subresources/status",
            "",
            "v1alpha1 subresource status was {}, is null",
        ),
        (
            "versions/0/selectableFields/0",
            "",
            "v1alpha1 selectable field .spec.jobID is gone",
        ),
        (
            "versions/0/additionalPrinterColumns/3",
            "",
            "v1alpha1 column Image is gone",
        ),
        (
            "versions/0/additionalPrinterColumns/0/jsonPath",
            r#"".status.jobType""#,
            "v1alpha1 column Status is gone",
        ),
        (
            "versions/0/additionalPrinterColumns/2/priority",
            "1",
            "v1alpha1 column Reason is gone",
        ),
        ("names/shortNames/0", "", r#"shortNames: "iej" is gone"#),
        (
            "names/categories",
            "",
            r#"categories: "imageexport" is gone"#,
        ),
        (
            "names/kind",
            r#""Job""#,
            r#"kind was "ImageExportJob", is "Job""#,
        ),
        (
            "names/plural",
            r#""exports""#,
            r#"plural was "imageexportjobs", is "exports""#,
        ),
        (
            "group",
            r#""images.dev""#,
            r#"group was "imageexport.dev", is "images.dev""#,
        ),
        (
            "scope",
            r#""Cluster""#,
            r#"scope was "Namespaced", is "Cluster""#,
        ),
    ]);
}

#[test]
fn each_removed_property_is_found() {
    let crd = crd::json();
    for (path, _) in schemas(&crd) {
        // The items of a list and the root are no properties.
        if path.is_empty() || path.ends_with("[]") {
            continue;
        }
        let (parent, name) = path.rsplit_once('.').expect("a path");
        let place = match parent {
            "" => format!("versions/0/schema/openAPIV3Schema/properties/{name}"),
            parent => format!("{parent}/properties/{name}"),
        };
        let new = changed(&place, "");
        assert_eq!(breaks(&crd, &new), [format!("v1alpha1 {path} is gone")]);
    }
}

#[test]
fn wider_limits_additions_and_other_descriptions_pass() {
    for (place, json) in [
        (".spec/properties/region", r#"{"type": "string"}"#),
        (
            ".spec/properties/notify",
            r#"{"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}}"#,
        ),
        (".spec/required/0", ""),
        (".status.conditions[]/required", ""),
        (".spec.pollPeriodSeconds/minimum", "1"),
        (".spec.pollPeriodSeconds/maximum", ""),
        (".spec.deadlineSeconds/maximum", "63072000"),
        (".spec.jobID/minLength", ""),
        (".spec.jobID/maxLength", "128"),
        (".spec.jobID/pattern", ""),
        (".status.conditions/maxItems", "128"),
        (".status.conditions[].status/enum/3", r#""Perhaps""#),
        (".status.conditions[].status/enum", ""),
        (".spec.suspend/description", r#""Otherwise.""#),
        (
            ".spec.jobID/x-kubernetes-validations/0/message",
            r#""Otherwise.""#,
        ),
        ("names/shortNames/1", r#""iejs""#),
        ("names/categories/1", r#""all""#),
        (
            "versions/0/selectableFields/2",
            r#"{"jsonPath": ".status.imageID"}"#,
        ),
        ("versions/0/additionalPrinterColumns/5/priority", "0"),
        (
            "versions/0/additionalPrinterColumns/8",
            r#"{"name": "Type", "type": "string", "jsonPath": ".status.jobType"}"#,
        ),
        (
            "versions/0/additionalPrinterColumns/0/description",
            r#""Otherwise""#,
        ),
        ("versions/1", r#"{"name": "v1beta1", "served": true}"#),
    ] {
        let new = changed(place, json);
        assert_ne!(crd::json(), new, "{place}");
        assert_eq!(breaks(&crd::json(), &new), [""; 0], "{place}");
    }
}

#[test]
fn a_version_that_was_not_served_may_be_removed() {
    let old = changed("versions/1", r#"{"name": "v1alpha0", "served": false}"#);
    assert_eq!(breaks(&old, &crd::json()), [""; 0]);
}
