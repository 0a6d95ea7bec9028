//! Objects from the API server, decoded in parts: what does not decode in one part hides no other.
//!
//! `DeserializeGuard` of kube keeps the metadata alone of an object that does not decode, so a status that
//! an edit or another version of the CRD has broken would hide the spec. It also copies each object twice.

use image_export_api::{
    ImageExportJob, ImageExportJobSpec, ImageExportJobStatus, POLL_REQUEST_ANNOTATION,
    POLL_REQUEST_MAX_BYTES,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{Resource, core::ObjectMeta};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::{borrow::Cow, collections::BTreeMap};

/// An `ImageExportJob` as far as it decodes.
#[derive(Clone, Debug)]
pub(super) struct Guarded {
    /// Without labels, owner references, finalizers, managed fields, and all annotations but the request of a
    /// poll.
    pub(super) metadata: ObjectMeta,
    /// Or why it does not decode.
    pub(super) spec: Result<ImageExportJobSpec, String>,
    /// `None` as well where it does not decode: the operator replaces it then.
    pub(super) status: Option<ImageExportJobStatus>,
}

impl Guarded {
    /// The object, or its metadata and why its spec does not decode.
    pub(super) fn into_object(self) -> Result<Box<ImageExportJob>, Box<(ObjectMeta, String)>> {
        match self.spec {
            Ok(spec) => Ok(Box::new(ImageExportJob {
                metadata: self.metadata,
                spec,
                status: self.status,
            })),
            Err(error) => Err(Box::new((self.metadata, error))),
        }
    }
}

impl<'de> Deserialize<'de> for Guarded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = Parts::deserialize(deserializer)?;
        Ok(Self {
            metadata: parts.metadata.into(),
            spec: ImageExportJobSpec::deserialize(parts.spec).map_err(|error| error.to_string()),
            status: Option::deserialize(parts.status).unwrap_or_default(),
        })
    }
}

/// Spec and status are small, and decoding moves their strings out.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

/// The metadata in use. The rest is skipped: managed fields are the larger part of most objects, and
/// have times of their own, of which [`Time`] cannot hold all.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    annotations: Option<Annotations>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
}

/// The annotation in use, cut after the first character beyond its bound: the rest of it, and up to 256 KiB of
/// others, would wait for the tracker in vain.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "imageexport.dev/poll-requested-at")]
    poll_request: Option<String>,
}

impl Annotations {
    fn into_map(self) -> Option<BTreeMap<String, String>> {
        let mut request = self.poll_request?;
        request.truncate(request.ceil_char_boundary(POLL_REQUEST_MAX_BYTES + 1));
        request.shrink_to_fit();
        Some(BTreeMap::from([(
            POLL_REQUEST_ANNOTATION.to_owned(),
            request,
        )]))
    }
}

impl From<Meta> for ObjectMeta {
    fn from(meta: Meta) -> Self {
        let time = |text: String| text.parse().ok().map(Time);
        Self {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            resource_version: meta.resource_version,
            generation: meta.generation,
            annotations: meta.annotations.and_then(Annotations::into_map),
            creation_timestamp: meta.creation_timestamp.and_then(time),
            // Whatever the time, the object is being deleted.
            deletion_timestamp: meta
                .deletion_timestamp
                .map(|text| time(text).unwrap_or(Time(Timestamp::UNIX_EPOCH))),
            ..Self::default()
        }
    }
}

/// That of `ImageExportJob`.
impl Resource for Guarded {
    type DynamicType = <ImageExportJob as Resource>::DynamicType;
    type Scope = <ImageExportJob as Resource>::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        ImageExportJob::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        ImageExportJob::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        ImageExportJob::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        ImageExportJob::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A whole object, as the API server shows it.
    fn object() -> Value {
        json!({
            "apiVersion": "imageexport.dev/v1alpha1", "kind": "ImageExportJob",
            "metadata": {
                "name": "x", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 2,
                "annotations": { "imageexport.dev/poll-requested-at": "now" },
                "creationTimestamp": "2024-11-06T06:46:51Z",
                "deletionTimestamp": "2024-11-06T07:00:00Z",
            },
            "spec": {
                "projectID": "p", "jobID": "j", "suspend": true,
                "cloudCredentialsRef": { "secretName": "otc", "cloudName": "otc" },
            },
            "status": {
                "observedGeneration": 2, "status": "RUNNING", "startTime": "2024-11-06T06:46:52Z",
                "conditions": [{
                    "type": "Ready", "status": "Unknown", "reason": "JobRunning", "message": "m",
                    "observedGeneration": 2, "lastTransitionTime": "2024-11-06T06:46:53Z",
                }],
            },
        })
    }

    /// The object with the value at a JSON pointer replaced or added.
    fn with(pointer: &str, value: Value) -> Guarded {
        let mut object = object();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = value;
        // From text, as it comes from the API server.
        serde_json::from_str(&object.to_string()).unwrap()
    }

    #[test]
    fn an_object_that_decodes_is_whole() {
        let expected: ImageExportJob = serde_json::from_value(object()).unwrap();
        let guarded = with("/metadata/name", json!("x"));
        assert_eq!(guarded.meta(), &expected.metadata);
        assert_eq!(*guarded.into_object().unwrap(), expected);
    }

    #[test]
    fn of_the_annotations_the_request_of_a_poll_is_kept_as_far_as_it_matters() {
        let long = "ä".repeat(130_000);
        for (annotations, kept) in [
            (json!({ "other": long }), None),
            (json!(null), None),
            (
                json!({ "other": long, POLL_REQUEST_ANNOTATION: "now" }),
                Some("now".to_owned()),
            ),
            // 64 bytes are allowed.
            (
                json!({ POLL_REQUEST_ANNOTATION: "ä".repeat(32) }),
                Some("ä".repeat(32)),
            ),
            (
                json!({ POLL_REQUEST_ANNOTATION: long }),
                Some("ä".repeat(33)),
            ),
        ] {
            let annotations = with("/metadata/annotations", annotations)
                .metadata
                .annotations;
            let found = annotations.map(|mut found| {
                assert_eq!(found.len(), 1);
                found.remove(POLL_REQUEST_ANNOTATION).unwrap()
            });
            assert_eq!(found, kept);
        }
    }

    #[test]
    fn a_status_that_does_not_decode_counts_as_absent_and_hides_no_spec() {
        for (pointer, value) in [
            ("/status", json!("RUNNING")),
            ("/status", json!([1.5])),
            ("/status/progressPercent", json!("40 %")),
            ("/status/observedGeneration", json!(1.5)),
            ("/status/status", json!({ "phase": "RUNNING" })),
            ("/status/conditions", json!("Ready")),
            ("/status/conditions", json!([{ "type": "Ready" }])),
            ("/status/conditions/0/status", json!(true)),
        ] {
            let object = with(pointer, value.clone()).into_object().unwrap();
            assert_eq!(object.status, None, "{pointer} {value}");
            assert_eq!(object.spec.job_id.as_str(), "j", "{pointer} {value}");
        }
        let absent = with("/status", json!(null)).into_object().unwrap();
        assert_eq!(absent.status, None);
    }

    #[test]
    fn an_unreadable_time_hides_no_other_field_of_the_status() {
        let guarded = with("/status/startTime", json!("2024-01-01T00:00:00+99:99"));
        let mut expected: ImageExportJob = serde_json::from_value(object()).unwrap();
        expected.status.as_mut().unwrap().start_time = None;
        assert_eq!(*guarded.into_object().unwrap(), expected);
    }

    #[test]
    fn a_spec_that_does_not_decode_leaves_the_metadata_and_the_status() {
        for (pointer, value, error) in [
            (
                "/spec",
                json!(null),
                "invalid type: null, expected struct ImageExportJobSpec",
            ),
            ("/spec", json!({}), "missing field `projectID`"),
            (
                "/spec/suspend",
                json!("yes"),
                "invalid type: string \"yes\", expected a boolean",
            ),
            (
                "/spec/jobID",
                json!("../x"),
                "not a valid JobId: 1 to 64 characters matching ^[A-Za-z0-9_-]+$",
            ),
        ] {
            let guarded = with(pointer, value);
            assert!(guarded.status.is_some());
            let (metadata, found) = *guarded.into_object().unwrap_err();
            assert_eq!(found, error);
            assert_eq!(metadata.name.as_deref(), Some("x"));
            assert_eq!(metadata.uid.as_deref(), Some("u"));
            assert_eq!(metadata.resource_version.as_deref(), Some("7"));
        }
    }

    #[test]
    fn no_time_in_the_metadata_hides_the_object() {
        let late = json!("9999-12-31T23:59:59Z");
        let managed = json!([{ "manager": "m", "operation": "Update", "time": late }]);
        let object = with("/metadata/managedFields", managed)
            .into_object()
            .unwrap();
        assert_eq!(object.metadata.managed_fields, None);
        let object = with("/metadata/creationTimestamp", late.clone())
            .into_object()
            .unwrap();
        assert_eq!(object.metadata.creation_timestamp, None);
        let object = with("/metadata/deletionTimestamp", late)
            .into_object()
            .unwrap();
        assert!(object.metadata.deletion_timestamp.is_some());
    }
}
