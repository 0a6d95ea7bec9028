//! Calls to the API server about one object: a status write, a deletion, and the read that resolves
//! an unconfirmed write.

use super::{guarded::Guarded, patch};
use crate::telemetry::{LogGate, Metrics};
use image_export_core::{Deletion, FetchResult, ObjectKey, Precondition, StatusWrite, WriteResult};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
    core::Status,
};
use std::{sync::Arc, time::Duration};

/// Bound on one call to the API server.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

/// Sends writes and deletions. Cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) client: Client,
    pub(super) metrics: Arc<Metrics>,
    /// Bounds what rejected writes log.
    pub(super) gate: Arc<LogGate>,
}

impl Writer {
    pub(super) async fn write(self, write: StatusWrite) -> WriteResult {
        let tests = matches!(write.precondition, Precondition::Tests { .. });
        let result = match patch::request(&write.key, write.precondition, &write.status) {
            Ok(request) => match self.client.request::<Guarded>(request).await {
                Ok(object) => written(object),
                Err(error) => self.failed(&write.key, &error, tests),
            },
            Err(error) => {
                tracing::error!(%error, "the request for a status write is invalid");
                WriteResult::Rejected
            }
        };
        self.metrics.wrote(label(&result));
        result
    }

    /// Deletes an object whose time to live is over, unless it was re-created or changed since.
    pub(super) async fn delete(self, deletion: Deletion) -> WriteResult {
        let key = deletion.key;
        let api: Api<Guarded> = Api::namespaced(self.client.clone(), &key.namespace);
        let parameters = DeleteParams::default().preconditions(Preconditions {
            uid: Some(deletion.uid.to_string()),
            resource_version: deletion.version.map(|version| version.to_string()),
        });
        let result = match api.delete(&key.name, &parameters).await {
            Ok(_) => {
                tracing::info!("deleted: ttlSecondsAfterFinished is over");
                WriteResult::Deleted
            }
            Err(error) => self.failed(&key, &error, false),
        };
        self.metrics.deleted(label(&result));
        result
    }

    /// Classifies a failed call. `tests`: it was a JSON Patch with tests.
    fn failed(&self, key: &ObjectKey, error: &kube::Error, tests: bool) -> WriteResult {
        let kube::Error::Api(status) = error else {
            tracing::debug!(%error, "write got no reply");
            return WriteResult::Unknown;
        };
        let result = classify(key, status, tests);
        let (code, message) = (status.code, &status.message);
        match result {
            WriteResult::Failed | WriteResult::Unknown => {
                tracing::debug!(code, message, "write failed");
            }
            // A missing right is the same problem for all objects.
            WriteResult::Rejected
                if self
                    .gate
                    .opens(if code == 403 { "forbidden" } else { "rejected" }) =>
            {
                tracing::warn!(code, message, "write rejected");
            }
            _ => {}
        }
        result
    }
}

/// What the reply to a write shows. Without a version it is not the object, and what landed is unknown: a
/// later write without a version would have no precondition.
fn written(object: Guarded) -> WriteResult {
    match object.metadata.resource_version {
        Some(version) if !version.is_empty() => WriteResult::Written {
            version,
            status: object.status.map(Box::new),
        },
        _ => WriteResult::Unknown,
    }
}

/// Reads an object.
pub(super) async fn fetch(client: Client, key: ObjectKey) -> FetchResult {
    let api: Api<Guarded> = Api::namespaced(client, &key.namespace);
    match api.get(&key.name).await {
        Ok(object) => object
            .into_object()
            .map_or(FetchResult::Failed, FetchResult::Found),
        Err(kube::Error::Api(status)) if status.code == 404 && names(&status, &key) => {
            FetchResult::Gone
        }
        Err(_) => FetchResult::Failed,
    }
}

/// Whether a 404 is about this object. One that does not name it comes from a proxy, or from a CRD
/// that is being replaced; taken for a deletion, it would lose the object for good.
fn names(status: &Status, key: &ObjectKey) -> bool {
    let details = status.details.as_ref();
    details.is_some_and(|details| details.name == *key.name)
}

fn classify(key: &ObjectKey, status: &Status, tests: bool) -> WriteResult {
    let details = status.details.as_ref();
    match status.code {
        409 => WriteResult::Conflict,
        // A failed test has no causes; a schema violation names each field.
        422 if tests && details.is_none_or(|details| details.causes.is_empty()) => {
            WriteResult::Conflict
        }
        404 if names(status, key) => WriteResult::Gone,
        500 => WriteResult::Failed,
        429 => {
            let seconds = details.map_or(0, |details| details.retry_after_seconds);
            WriteResult::Throttled((seconds > 0).then(|| Duration::from_secs(seconds.into())))
        }
        401 | 404 | 408 | 501..=599 => WriteResult::Unknown,
        _ => WriteResult::Rejected,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn key() -> ObjectKey {
        ObjectKey {
            namespace: "ns".into(),
            name: "x".into(),
        }
    }

    fn status(code: u16, details: &Value) -> Status {
        let status = json!({ "code": code, "message": "", "reason": "", "details": details });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn only_a_404_that_names_the_object_means_that_it_is_gone() {
        let named = status(404, &json!({ "name": "x", "kind": "imageexportjobs" }));
        assert!(matches!(classify(&key(), &named, false), WriteResult::Gone));
        for other in [json!(null), json!({}), json!({ "name": "y" })] {
            let result = classify(&key(), &status(404, &other), false);
            assert!(matches!(result, WriteResult::Unknown), "{result:?}");
        }
    }

    #[test]
    fn a_failed_test_is_a_conflict_and_a_schema_violation_is_not() {
        let causes = |causes: Value| status(422, &json!({ "causes": causes }));
        let none = causes(json!([]));
        let field =
            causes(json!([{ "reason": "FieldValueInvalid", "message": "m", "field": "f" }]));
        let classify = |status, tests| classify(&key(), status, tests);
        assert!(matches!(classify(&none, true), WriteResult::Conflict));
        assert!(matches!(classify(&field, true), WriteResult::Rejected));
        assert!(matches!(classify(&none, false), WriteResult::Rejected));
    }
}
