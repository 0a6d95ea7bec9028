//! The body of a status write: its precondition decides the form.

use image_export_api::{ImageExportJob, ImageExportJobStatus, MANAGER};
use image_export_core::{ObjectKey, Precondition};
use kube::{
    Resource,
    api::{Patch, PatchParams},
    core::Request,
};
use serde_json::{Map, Value, json};

/// The status fields; a merge patch clears absent ones only if it names them.
const FIELDS: [&str; 11] = [
    "observedGeneration",
    "status",
    "jobType",
    "imageID",
    "failReason",
    "errorCode",
    "progressPercent",
    "startTime",
    "completionTime",
    "lastHandledPollRequest",
    "conditions",
];

pub(super) fn request(
    key: &ObjectKey,
    precondition: Precondition,
    status: &ImageExportJobStatus,
) -> Result<http::Request<Vec<u8>>, kube::core::request::Error> {
    let url = ImageExportJob::url_path(&(), Some(&key.namespace));
    let parameters = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let (body, content_type) = match precondition {
        Precondition::ResourceVersion(version) => (
            merge_patch(&version, status),
            "application/merge-patch+json",
        ),
        Precondition::Tests {
            uid,
            generation,
            status: before,
        } => (
            json_patch(&uid, generation, before.as_deref(), status),
            "application/json-patch+json",
        ),
    };
    let mut request = Request::new(url).patch_subresource(
        "status",
        &key.name,
        &parameters,
        &Patch::Merge(body),
    )?;
    request.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static(content_type),
    );
    Ok(request)
}

/// Names every status field (null = absent) and the whole list of conditions, so that nothing stays
/// that a hand edit added. The resource version keeps the write off a re-created object and off the
/// write of another client. A `metadata.uid` would not: the API server ignores a wrong one here.
fn merge_patch(version: &str, status: &ImageExportJobStatus) -> Value {
    let mut fields: Map<String, Value> = FIELDS
        .iter()
        .map(|field| ((*field).to_owned(), Value::Null))
        .collect();
    if let Ok(Value::Object(written)) = serde_json::to_value(status) {
        fields.extend(written);
    }
    json!({ "metadata": { "resourceVersion": version }, "status": fields })
}

/// Tests only what the status was derived from: other clients change the rest of the object so often
/// that a resource version would always conflict.
fn json_patch(
    uid: &str,
    generation: i64,
    before: Option<&ImageExportJobStatus>,
    status: &ImageExportJobStatus,
) -> Value {
    let mut operations = vec![
        json!({ "op": "test", "path": "/metadata/uid", "value": uid }),
        json!({ "op": "test", "path": "/metadata/generation", "value": generation }),
    ];
    // A missing field cannot be tested; whatever status comes up in its place is replaced.
    if let Some(before) = before {
        operations.push(json!({ "op": "test", "path": "/status", "value": before }));
    }
    operations.push(json!({ "op": "add", "path": "/status", "value": status }));
    Value::Array(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_merge_patch_names_every_field_of_the_status() {
        let schema = image_export_api::crd::json();
        let properties = schema
            .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/status/properties")
            .and_then(Value::as_object)
            .unwrap();
        let patch = merge_patch("7", &ImageExportJobStatus::default());
        let named = patch["status"].as_object().unwrap();
        assert_eq!(
            named.keys().collect::<Vec<_>>(),
            properties.keys().collect::<Vec<_>>()
        );
        assert!(named.values().all(Value::is_null));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
    }
}
