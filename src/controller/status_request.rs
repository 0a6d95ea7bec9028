//! The request of a status write: its precondition decides the form.

use image_export_api::{ImageExportJob, ImageExportJobStatus, MANAGER};
use image_export_core::{ObjectKey, Precondition};
use kube::{
    Resource,
    api::{Patch, PatchParams, PostParams},
    core::Request,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;

type RequestError = kube::core::request::Error;

pub(super) fn status_request(
    key: &ObjectKey,
    precondition: Precondition,
    status: &ImageExportJobStatus,
) -> Result<http::Request<Vec<u8>>, RequestError> {
    let requests = Request::new(ImageExportJob::url_path(&(), Some(&key.namespace)));
    match precondition {
        Precondition::ResourceVersion(version) => replace(&requests, key, &version, status),
        Precondition::Tests {
            uid,
            generation,
            status: before,
        } => {
            let patch = json_patch(&uid, generation, before.as_deref(), status);
            let parameters = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let patch = Patch::Merge(patch);
            let mut request =
                requests.patch_subresource("status", &key.name, &parameters, &patch)?;
            let content_type = http::HeaderValue::from_static("application/json-patch+json");
            let headers = request.headers_mut();
            headers.insert(http::header::CONTENT_TYPE, content_type);
            Ok(request)
        }
    }
}

/// Replaces the whole status, so that nothing stays that a hand edit added; the API server leaves the rest of the object
/// as it is. The resource version keeps the write off a re-created object and off the write of another client.
fn replace(
    requests: &Request,
    key: &ObjectKey,
    version: &str,
    status: &ImageExportJobStatus,
) -> Result<http::Request<Vec<u8>>, RequestError> {
    let object = Object {
        api_version: ImageExportJob::api_version(&()),
        kind: ImageExportJob::kind(&()),
        metadata: Metadata {
            name: &key.name,
            namespace: &key.namespace,
            resource_version: version,
        },
        status,
    };
    let parameters = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    let object = serde_json::to_vec(&object).map_err(RequestError::SerializeBody)?;
    requests.replace_subresource("status", &key.name, &parameters, object)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    api_version: Cow<'static, str>,
    kind: Cow<'static, str>,
    metadata: Metadata<'a>,
    status: &'a ImageExportJobStatus,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
    resource_version: &'a str,
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
