//! Calls to the API server about one object: a status write, a deletion, and the read that resolves
//! an unconfirmed write.

use super::{guarded::Guarded, status_request::status_request};
use crate::telemetry::{LogGate, Metrics, SharedLogQuota};
use image_export_api::ImageExportJobStatus;
use image_export_core::{FetchResult, ObjectKey, Precondition, WriteResult};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
    core::Status,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Bound on one call to the API server.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

/// Sends writes and deletions. Cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    client: Client,
    metrics: Arc<Metrics>,
    /// Bounds what rejected writes log.
    gate: Arc<LogGate>,
    /// Bounds what deletions log.
    deletions: Arc<Mutex<SharedLogQuota>>,
}

impl Writer {
    pub(super) fn new(client: Client, metrics: Arc<Metrics>, gate: Arc<LogGate>) -> Self {
        Self {
            client,
            metrics,
            gate,
            // As many as ends.
            deletions: Arc::new(Mutex::new(SharedLogQuota::new(1000.0, 10.0))),
        }
    }

    /// Writes a status, unless the precondition fails.
    pub(super) async fn write(
        self,
        key: ObjectKey,
        precondition: Precondition,
        status: ImageExportJobStatus,
    ) -> WriteResult {
        let tests = matches!(precondition, Precondition::Tests { .. });
        let result = match status_request(&key, precondition, &status) {
            Ok(request) => match self.client.request::<Guarded>(request).await {
                Ok(object) => written(object),
                Err(error) => self.failed(&key, &error, tests),
            },
            Err(error) => {
                tracing::error!(%error, "the request for a status write is invalid");
                WriteResult::Rejected
            }
        };
        self.metrics.wrote(label(&result));
        result
    }

    /// Deletes an object whose time to live is over, unless it was re-created or, where `version` names
    /// one, changed since.
    pub(super) async fn delete(
        self,
        key: ObjectKey,
        uid: Arc<str>,
        version: Option<Arc<str>>,
    ) -> WriteResult {
        let api: Api<Guarded> = Api::namespaced(self.client.clone(), &key.namespace);
        let parameters = DeleteParams::default().preconditions(Preconditions {
            uid: Some(uid.to_string()),
            resource_version: version.map(|version| version.to_string()),
        });
        let result = match api.delete(&key.name, &parameters).await {
            Ok(_) => {
                let quota = self.deletions.lock();
                let mut quota = quota.unwrap_or_else(PoisonError::into_inner);
                if quota.takes(&key.namespace) {
                    tracing::info!("deleted: ttlSecondsAfterFinished is over");
                }
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
    use crate::{
        controller::fake::{Reply, Sent, always, object},
        telemetry::Captured,
    };
    use serde_json::{Value, json};

    const PATH: &str = "/apis/imageexport.dev/v1alpha1/namespaces/ns/imageexportjobs/x";

    fn key() -> ObjectKey {
        ObjectKey {
            namespace: "ns".into(),
            name: "x".into(),
        }
    }

    fn writer(client: Client) -> (Writer, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::default());
        let writer = Writer::new(client, metrics.clone(), Arc::default());
        (writer, metrics)
    }

    fn only(sent: &Mutex<Vec<Sent>>) -> Sent {
        let sent = sent.lock().unwrap();
        assert_eq!(sent.len(), 1, "{sent:#?}");
        sent[0].clone()
    }

    fn running() -> ImageExportJobStatus {
        ImageExportJobStatus {
            status: Some("RUNNING".to_owned()),
            ..ImageExportJobStatus::default()
        }
    }

    fn version() -> Precondition {
        Precondition::ResourceVersion("7".into())
    }

    fn tests(status: Option<ImageExportJobStatus>) -> Precondition {
        Precondition::Tests {
            uid: "u-1".into(),
            generation: 3,
            status: status.map(Box::new),
        }
    }

    #[tokio::test]
    async fn a_status_write_has_its_precondition_and_the_operators_name() {
        let replaced = json!({
            "apiVersion": "imageexport.dev/v1alpha1", "kind": "ImageExportJob",
            "metadata": { "name": "x", "namespace": "ns", "resourceVersion": "7" },
            "status": { "status": "RUNNING" },
        });
        let test = |path: &str, value: Value| json!({ "op": "test", "path": path, "value": value });
        let (uid, generation) = (
            test("/metadata/uid", "u-1".into()),
            test("/metadata/generation", 3.into()),
        );
        let add = json!({ "op": "add", "path": "/status", "value": { "status": "RUNNING" } });
        for (precondition, method, content_type, body) in [
            (version(), "PUT", "application/json", replaced),
            (
                tests(None),
                "PATCH",
                "application/json-patch+json",
                json!([uid, generation, add]),
            ),
            (
                tests(Some(ImageExportJobStatus {
                    image_id: Some("before".to_owned()),
                    ..ImageExportJobStatus::default()
                })),
                "PATCH",
                "application/json-patch+json",
                json!([
                    uid,
                    generation,
                    test("/status", json!({ "imageID": "before" })),
                    add
                ]),
            ),
        ] {
            let (client, sent) = always(Reply::json(200, &object(&json!({}))));
            writer(client).0.write(key(), precondition, running()).await;
            let sent = only(&sent);
            let line = format!("{method} {PATH}/status?&fieldManager=image-export-operator");
            assert_eq!(sent.line, line);
            assert_eq!(sent.headers["content-type"], content_type);
            assert_eq!(sent.body, body);
        }
    }

    #[tokio::test]
    async fn a_deletion_has_the_uid_and_the_resource_version_as_preconditions() {
        let uid = json!({ "preconditions": { "uid": "u-1" } });
        let both = json!({ "preconditions": { "uid": "u-1", "resourceVersion": "7" } });
        for (version, body) in [(None, uid), (Some("7".into()), both)] {
            let (client, sent) = always(Reply::json(200, &object(&json!({}))));
            let result = writer(client).0.delete(key(), "u-1".into(), version).await;
            assert!(matches!(result, WriteResult::Deleted), "{result:?}");
            let sent = only(&sent);
            assert_eq!(sent.line, format!("DELETE {PATH}?"));
            assert_eq!(sent.body, body);
        }
    }

    #[tokio::test]
    async fn the_reply_to_a_write_brings_the_version_and_the_status_as_far_as_they_decode() {
        let status = json!({ "status": "RUNNING" });
        let with = |pointer: &str, value: Value| {
            let mut object = object(&status);
            *object.pointer_mut(pointer).unwrap() = value;
            object
        };
        let written = |status: &str| format!(r#"Written {{ version: "7", status: {status} }}"#);
        let whole = written(&format!("{:?}", Some(running())));
        for (reply, expected) in [
            (with("/metadata/uid", "u-1".into()), whole.as_str()),
            (with("/status", json!("RUNNING")), &written("None")),
            (with("/status/status", json!(1)), &written("None")),
            (with("/spec", json!("j")), &whole),
            // Nothing is known of what landed.
            (with("/metadata/resourceVersion", json!("")), "Unknown"),
            (with("/metadata/resourceVersion", json!(null)), "Unknown"),
            (json!({}), "Unknown"),
            (json!(7), "Unknown"),
        ] {
            let (client, _) = always(Reply::json(200, &reply));
            let result = writer(client).0.write(key(), version(), running()).await;
            assert_eq!(format!("{result:?}"), expected, "{reply}");
        }
        for reply in [Reply::Text(200, "<html>".to_owned()), Reply::Lost] {
            let (client, _) = always(reply);
            let result = writer(client).0.write(key(), version(), running()).await;
            assert!(matches!(result, WriteResult::Unknown), "{result:?}");
        }
    }

    /// Failures with their details, and what becomes of a write by version, a write with tests and a deletion.
    #[rustfmt::skip]
    fn failures() -> Vec<(u16, Value, [&'static str; 3])> {
        let named = json!({ "name": "x", "kind": "imageexportjobs" });
        let other = json!({ "name": "y", "kind": "imageexportjobs" });
        let cause = json!({ "causes": [{ "reason": "FieldValueInvalid", "message": "m", "field": "f" }] });
        let all = |result| [result; 3];
        vec![
            (400, json!(null), all("refused")),
            (401, json!(null), all("unknown")),
            (403, json!(null), all("refused")),
            // A 404 that does not name the object is a proxy's, or that of a CRD that is being replaced.
            (404, named.clone(), all("gone")),
            (404, other, all("unknown")),
            (404, json!({}), all("unknown")),
            (404, json!(null), all("unknown")),
            (405, named, all("refused")),
            (408, json!(null), all("unknown")),
            (409, json!(null), all("conflict")),
            (413, json!(null), all("refused")),
            // A failed test has no causes; a schema violation names each field.
            (422, json!(null), ["refused", "conflict", "refused"]),
            (422, json!({ "causes": [] }), ["refused", "conflict", "refused"]),
            (422, cause, all("refused")),
            (429, json!(null), all("throttled")),
            (500, json!(null), all("failed")),
            (501, json!(null), all("unknown")),
            (503, json!(null), all("unknown")),
            (504, json!(null), all("unknown")),
            (599, json!(null), all("unknown")),
        ]
    }

    #[tokio::test]
    async fn each_failure_has_its_meaning_and_is_counted() {
        for (code, details, expected) in failures() {
            for (call, expected) in expected.into_iter().enumerate() {
                let (client, _) = always(Reply::failure(code, &details));
                let (writer, metrics) = writer(client);
                let (result, name) = match call {
                    0 => (
                        writer.write(key(), version(), running()).await,
                        "status_writes",
                    ),
                    1 => (
                        writer.write(key(), tests(None), running()).await,
                        "status_writes",
                    ),
                    _ => (writer.delete(key(), "u-1".into(), None).await, "deletions"),
                };
                let case = format!("{code} {details} {call}");
                assert_eq!(label(&result), expected, "{case}");
                let line = format!("imageexport_{name}_total{{result=\"{expected}\"}} 1\n");
                assert!(metrics.encode().contains(&line), "{case}: {line}");
            }
        }
    }

    #[tokio::test]
    async fn each_success_is_counted() {
        let (client, _) = always(Reply::json(200, &object(&json!({}))));
        let (writer, metrics) = writer(client);
        writer.clone().write(key(), version(), running()).await;
        writer.delete(key(), "u-1".into(), None).await;
        for line in [
            "imageexport_status_writes_total{result=\"written\"} 1\n",
            "imageexport_deletions_total{result=\"deleted\"} 1\n",
        ] {
            assert!(metrics.encode().contains(line), "{line}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn deletions_are_logged_at_a_bounded_rate() {
        let (log, _guard) = Captured::start();
        let (client, _) = always(Reply::json(200, &object(&json!({}))));
        let (writer, metrics) = writer(client);
        for _ in 0..1100 {
            writer.clone().delete(key(), "u-1".into(), None).await;
        }
        let other = ObjectKey {
            namespace: "other".into(),
            ..key()
        };
        writer.delete(other, "u-1".into(), None).await;
        assert_eq!(log.of("::write").len(), 1001);
        let all = "imageexport_deletions_total{result=\"deleted\"} 1101\n";
        assert!(metrics.encode().contains(all));
    }

    #[tokio::test]
    async fn the_time_after_which_the_api_server_wants_another_write_is_kept() {
        for (details, wait) in [
            (json!(null), None),
            (json!({ "retryAfterSeconds": 0 }), None),
            (
                json!({ "retryAfterSeconds": 1 }),
                Some(Duration::from_secs(1)),
            ),
            (
                json!({ "retryAfterSeconds": 90 }),
                Some(Duration::from_secs(90)),
            ),
        ] {
            let (client, _) = always(Reply::failure(429, &details));
            let result = writer(client).0.write(key(), version(), running()).await;
            assert!(
                matches!(result, WriteResult::Throttled(found) if found == wait),
                "{result:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_read_shows_the_object_as_it_is_or_that_it_is_gone() {
        let with = |pointer: &str, value: Value| {
            let mut object = object(&json!({ "status": "RUNNING" }));
            *object.pointer_mut(pointer).unwrap() = value;
            Reply::json(200, &object)
        };
        let named = json!({ "name": "x", "kind": "imageexportjobs" });
        for (reply, expected) in [
            (with("/metadata/uid", "u-1".into()), "u-1 7 true"),
            // Another object of the same name: the tracker compares the uid.
            (with("/metadata/uid", "u-2".into()), "u-2 7 true"),
            (with("/metadata/resourceVersion", "8".into()), "u-1 8 true"),
            (with("/status", json!("RUNNING")), "u-1 7 false"),
            (with("/spec", json!("j")), "failed"),
            (Reply::failure(404, &named), "gone"),
            (Reply::failure(404, &json!({ "name": "y" })), "failed"),
            (Reply::failure(404, &json!({})), "failed"),
            (Reply::failure(404, &json!(null)), "failed"),
            (Reply::failure(410, &named), "failed"),
            (Reply::failure(403, &named), "failed"),
            (Reply::failure(500, &named), "failed"),
            (Reply::Text(404, "no such page".to_owned()), "failed"),
            (Reply::Text(200, "{}".to_owned()), "failed"),
            (Reply::Lost, "failed"),
        ] {
            let (client, sent) = always(reply.clone());
            let found = match fetch(client, key()).await {
                FetchResult::Found(object) => format!(
                    "{} {} {}",
                    object.metadata.uid.unwrap(),
                    object.metadata.resource_version.unwrap(),
                    object.status.is_some()
                ),
                FetchResult::Gone => "gone".to_owned(),
                FetchResult::Failed => "failed".to_owned(),
            };
            assert_eq!(found, expected, "{reply:?}");
            assert_eq!(only(&sent).line, format!("GET {PATH}"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_rejected_writes_one_a_minute_and_kind_is_logged_and_of_failed_ones_each_in_detail()
    {
        let (log, _guard) = Captured::start();
        let gate = Arc::<LogGate>::default();
        for minute in 0..2 {
            for code in [403, 422, 403, 400, 500, 503, 409] {
                let (client, _) = always(Reply::failure(code, &json!(null)));
                let (mut writer, _) = writer(client);
                writer.gate = gate.clone();
                writer.write(key(), version(), running()).await;
            }
            tokio::time::advance(Duration::from_secs(60)).await;
            let lines = log.of("::write");
            let shown: Vec<_> = lines
                .iter()
                .skip(minute * 4)
                .map(|line| {
                    (
                        line["level"].as_str().unwrap(),
                        line["code"].as_u64().unwrap(),
                    )
                })
                .collect();
            assert_eq!(
                shown,
                [("WARN", 403), ("WARN", 422), ("DEBUG", 500), ("DEBUG", 503)]
            );
        }
    }
}
