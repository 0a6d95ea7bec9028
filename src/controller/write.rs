//! One status write, one deletion, and the read that settles one whose end is not known.
use crate::telemetry::{LogGate, Metrics};
use image_export_api::{ImageExportJob, ImageExportJobStatus, MANAGER};
use image_export_core::{Deletion, FetchResult, ObjectKey, Precondition, StatusWrite, WriteResult};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::{PartialObjectMeta, Request, Status},
};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};

/// Bound on one call to the API server.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

/// The status fields that a merge patch has to clear by name where they are absent.
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

pub(super) async fn write(
    client: Client,
    metrics: Arc<Metrics>,
    gate: Arc<LogGate>,
    write: StatusWrite,
) -> WriteResult {
    let StatusWrite {
        key,
        precondition,
        status,
        ..
    } = write;
    let tests = matches!(precondition, Precondition::Tests { .. });
    let result = match request(&key, precondition, &status) {
        Ok(request) => match client.request::<ImageExportJob>(request).await {
            Ok(object) => WriteResult::Written {
                version: object.metadata.resource_version.unwrap_or_default(),
                status: object.status.map(Box::new),
            },
            Err(error) => failed(&key, &error, tests, &gate),
        },
        Err(error) => {
            tracing::error!(object = %key, %error, "status cannot be put into a request");
            WriteResult::Rejected
        }
    };
    metrics.wrote(label(&result));
    result
}

/// Deletes an object whose time to live is over, unless it is another one or has changed since.
pub(super) async fn delete(
    client: Client,
    metrics: Arc<Metrics>,
    gate: Arc<LogGate>,
    deletion: Deletion,
) -> WriteResult {
    let Deletion {
        key, uid, version, ..
    } = deletion;
    let api: Api<PartialObjectMeta<ImageExportJob>> = Api::namespaced(client, &key.namespace);
    let parameters = DeleteParams::default().preconditions(Preconditions {
        uid: Some(uid.to_string()),
        resource_version: Some(version.to_string()),
    });
    let result = match api.delete(&key.name, &parameters).await {
        Ok(_) => {
            tracing::info!(object = %key, "deleted: ttlSecondsAfterFinished is over");
            WriteResult::Deleted
        }
        Err(error) => failed(&key, &error, false, &gate),
    };
    metrics.deleted(label(&result));
    result
}

fn failed(key: &ObjectKey, error: &kube::Error, tests: bool, gate: &LogGate) -> WriteResult {
    if let kube::Error::Api(status) = error {
        return classify(key, status, tests, gate);
    }
    tracing::debug!(object = %key, %error, "write got no reply");
    WriteResult::Unknown
}

fn label(result: &WriteResult) -> &'static str {
    match result {
        WriteResult::Written { .. } => "written",
        WriteResult::Deleted => "deleted",
        WriteResult::Conflict => "conflict",
        WriteResult::Gone => "gone",
        WriteResult::Throttled(_) => "throttled",
        WriteResult::Rejected => "refused",
        WriteResult::Unknown => "unknown",
        WriteResult::Failed => "failed",
    }
}

pub(super) async fn fetch(client: Client, key: ObjectKey) -> FetchResult {
    match Api::<ImageExportJob>::namespaced(client, &key.namespace)
        .get(&key.name)
        .await
    {
        Ok(object) => FetchResult::Found(Box::new(object)),
        Err(kube::Error::Api(status)) if status.code == 404 && is_of(&key, &status) => {
            FetchResult::Gone
        }
        Err(_) => FetchResult::Failed,
    }
}

/// Whether a 404 is about this object. One without its name comes from something in between, or
/// from a CRD that is being replaced; no watch would bring the object back after that.
fn is_of(key: &ObjectKey, status: &Status) -> bool {
    let named = status.details.as_ref().map(|details| details.name.as_str());
    named == Some(&*key.name)
}

fn request(
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

/// Names every status field (null = absent) and the whole list of conditions, so that nothing a
/// hand edit added stays. The resource version is the precondition against a recreated object and against
/// another writer: a wrong `metadata.uid` is silently accepted here.
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

/// For an object that others change all the time: tests what matters instead of everything.
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
    if let Some(before) = before {
        operations.push(json!({ "op": "test", "path": "/status", "value": before }));
    }
    operations.push(json!({ "op": "add", "path": "/status", "value": status }));
    Value::Array(operations)
}

fn classify(key: &ObjectKey, status: &Status, tests: bool, gate: &LogGate) -> WriteResult {
    let details = status.details.as_ref();
    match status.code {
        409 => WriteResult::Conflict,
        // A failed test has no causes; a schema violation names each field.
        422 if tests && details.is_none_or(|details| details.causes.is_empty()) => {
            WriteResult::Conflict
        }
        404 if is_of(key, status) => WriteResult::Gone,
        500 => {
            tracing::debug!(object = %key, message = status.message, "write failed");
            WriteResult::Failed
        }
        429 => {
            let asked = details.map_or(0, |details| details.retry_after_seconds);
            WriteResult::Throttled((asked > 0).then(|| Duration::from_secs(asked.into())))
        }
        401 | 404 | 408 | 501..=599 => {
            tracing::debug!(object = %key, code = status.code, "write failed");
            WriteResult::Unknown
        }
        code => {
            // Missing rights are the same trouble for every object, a schema may be one's own.
            let kind = if code == 403 { "forbidden" } else { "refused" };
            if gate.opens(kind) {
                let message = &status.message;
                tracing::warn!(object = %key, code, message, "write refused");
            }
            WriteResult::Rejected
        }
    }
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

    #[test]
    fn only_a_404_that_names_the_object_means_that_it_is_gone() {
        let key = ObjectKey {
            namespace: "ns".into(),
            name: "x".into(),
        };
        let status = |details: Value| {
            serde_json::from_value::<Status>(json!({
                "code": 404, "message": "", "reason": "NotFound", "details": details
            }))
            .unwrap()
        };
        let named = status(json!({ "name": "x", "kind": "imageexportjobs" }));
        let gate = LogGate::default();
        assert!(matches!(
            classify(&key, &named, false, &gate),
            WriteResult::Gone
        ));
        for other in [json!(null), json!({}), json!({ "name": "y" })] {
            let result = classify(&key, &status(other), false, &gate);
            assert!(matches!(result, WriteResult::Unknown), "{result:?}");
        }
    }

    #[test]
    fn a_failed_test_is_a_conflict_and_a_schema_violation_is_not() {
        let key = ObjectKey {
            namespace: "ns".into(),
            name: "x".into(),
        };
        let status = |causes: Value| {
            serde_json::from_value::<Status>(json!({
                "code": 422, "message": "", "reason": "Invalid", "details": { "causes": causes }
            }))
            .unwrap()
        };
        let none = status(json!([]));
        let field =
            status(json!([{ "reason": "FieldValueInvalid", "message": "m", "field": "f" }]));
        let classify = |status, tests| classify(&key, status, tests, &LogGate::default());
        assert!(matches!(classify(&none, true), WriteResult::Conflict));
        assert!(matches!(classify(&field, true), WriteResult::Rejected));
        assert!(matches!(classify(&none, false), WriteResult::Rejected));
    }
}
