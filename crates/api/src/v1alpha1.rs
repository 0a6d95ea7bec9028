//! `imageexport.dev/v1alpha1`. Comments on fields are what `kubectl explain` shows.

// `kubectl explain` knows no backticks; kube's attribute repeats `type_` for each printer column.
#![allow(clippy::doc_markdown, clippy::duplicated_attributes)]

use super::{
    CloudName, JobId, ProjectId, SecretName,
    conditions::{CONDITIONS_MAX, Condition},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A time as Kubernetes writes it, in the years that [`Time`] can hold. The format date-time alone
/// lets more through, for example the offset +99:99.
const TIME_PATTERN: &str = "^[0-8][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$";

/// Which job to track, and how.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "imageexport.dev",
    version = "v1alpha1",
    kind = "ImageExportJob",
    plural = "imageexportjobs",
    shortname = "iej",
    category = "imageexport",
    namespaced,
    status = "ImageExportJobStatus",
    doc = "Tracks an existing image job of the cloud to its end; it never starts, changes or cancels one. The operator polls the job and writes what the cloud reports into the status.",
    derive = "PartialEq",
    selectable = ".spec.jobID",
    selectable = ".status.status",
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.status",
        description = "Status of the job as the cloud reports it"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "True once the job has succeeded"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why Ready is what it is"
    ),
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".status.imageID",
        description = "Id of the image; for an export, of the source image"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the object was created"
    ),
    printcolumn(
        name = "Job",
        type_ = "string",
        json_path = ".spec.jobID",
        priority = 1,
        description = "Id of the job"
    ),
    printcolumn(
        name = "Progress",
        type_ = "integer",
        json_path = ".status.progressPercent",
        priority = 1,
        description = "How far the job has come, in percent, where the cloud reports it"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1,
        description = "What the reason means for this job"
    )
)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct ImageExportJobSpec {
    /// Id of the cloud project (tenant) that the job belongs to: 1 to 64 of the characters A-Z, a-z,
    /// 0-9, - and _. Immutable.
    #[serde(rename = "projectID")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("projectID is immutable: create an ImageExportJob of another name"))]
    pub project_id: ProjectId,

    /// Id of the job: the job_id in the answer of the call that started it, 1 to 64 of the characters
    /// A-Z, a-z, 0-9, - and _. Immutable.
    #[serde(rename = "jobID")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("jobID is immutable: create an ImageExportJob of another name"))]
    pub job_id: JobId,

    /// The credentials to poll with: an entry of a clouds.yaml in a Secret of the same namespace. May
    /// be changed at any time.
    pub cloud_credentials_ref: CloudCredentialsRef,

    /// Seconds between two polls of this job, 5 to 86400; without it, the operator's own period.
    /// Errors of the cloud and the operator's quota may stretch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 86400))]
    pub poll_period_seconds: Option<i32>,

    /// Seconds within which the job should have ended, 1 to 31536000 (a year), counted from
    /// status.startTime or from the creation of this object, whichever is earlier; suspended time
    /// counts. After that Ready is False and Stalled True (DeadlineExceeded), which Flux, Helm and
    /// Argo CD take for a failure. The job itself goes on, and so does polling, less often: an end
    /// that comes later is still shown. Without it there is no deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub deadline_seconds: Option<i32>,

    /// Seconds after which this object is deleted once its job has ended, well or badly, up to
    /// 31536000 (a year); 0 deletes it at once. Counted from the moment the operator showed the end,
    /// or from completionTime if that is later. Without it the object stays. Where a tool applies the
    /// object again from Git, it is created and tracked anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i32>,

    /// Whether polling pauses. Ready is Unknown (Suspended) meanwhile, so that waits time out. A job
    /// that has ended keeps its status. The job itself is not touched.
    #[serde(default)]
    pub suspend: bool,
}

/// A cloud entry in a `clouds.yaml` in a Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudCredentialsRef {
    /// Name of the Secret. Its key clouds.yaml holds a file as OpenStack tools use it; the key cacert,
    /// if there is one, the CA certificates to trust.
    pub secret_name: SecretName,

    /// Name of the entry under clouds in that file: 1 to 64 of the characters A-Z, a-z, 0-9, -, _ and
    /// the full stop.
    pub cloud_name: CloudName,
}

/// What the cloud last reported about the job. Written by the operator alone; edits are repaired.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageExportJobStatus {
    /// The metadata.generation that this status was written for; -1 before the first write, so that
    /// no tool takes a new object for a finished one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Status of the job as the cloud last reported it: INIT, RUNNING, SUCCESS or FAIL. Any other
    /// status is shown as it came, without secrets and invisible characters, cut to 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub status: Option<String>,

    /// Type of the job as the cloud reports it, for example imsNativeExportImageJob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub job_type: Option<String>,

    /// Id of the image, once the job has succeeded. For an export (job type imsNativeExportImageJob)
    /// this is the source image, the one that was exported: an export creates a file in a bucket, and
    /// no new image. For a job that creates an image, it is the new image.
    #[serde(rename = "imageID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub image_id: Option<String>,

    /// Why the job failed, as the cloud reports it, cut to 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub fail_reason: Option<String>,

    /// The cloud's code for the failure, for example IMG.0148.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub error_code: Option<String>,

    /// How far the job has come, in percent: the highest step of 10 that the cloud has reported, at
    /// most one step a minute. For display only; absent where the cloud reports none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub progress_percent: Option<i32>,

    /// When the job began, by the cloud's clock.
    #[serde(
        default,
        deserialize_with = "readable_time",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 64), regex(pattern = TIME_PATTERN))]
    pub start_time: Option<Time>,

    /// When the job ended, well or badly: by the cloud's clock, else when the operator saw the end.
    /// Absent while the job has not ended.
    #[serde(
        default,
        deserialize_with = "readable_time",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 64), regex(pattern = TIME_PATTERN))]
    pub completion_time: Option<Time>,

    /// The last value of the annotation imageexport.dev/poll-requested-at that the operator has
    /// handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_handled_poll_request: Option<String>,

    /// Once the operator has seen the object: Ready, True when the job has succeeded and its image is
    /// known, and Succeeded, True or False when the job has ended. Besides them, Reconciling while the
    /// operator polls and waits, or Stalled where a person has to look. Conditions owned by others
    /// are left as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = CONDITIONS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// Takes a time that cannot be read for absent: another version of the CRD may have let it through.
fn readable_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    Ok(Time::deserialize(Value::deserialize(deserializer)?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_time_that_cannot_be_read_counts_as_absent_and_hides_no_other_field() {
        for unreadable in [
            json!("2024-01-01T00:00:00+99:99"),
            json!("9999-12-31T23:59:59Z"),
            json!("2024-01-01T00:00:00"),
            json!(""),
            json!(1_704_067_200),
            json!(["2024-01-01T00:00:00Z"]),
            json!({ "seconds": 1_704_067_200 }),
            json!(null),
        ] {
            let status = json!({
                "startTime": unreadable, "completionTime": unreadable, "status": "RUNNING",
            });
            let status: ImageExportJobStatus = serde_json::from_value(status).unwrap();
            let expected = ImageExportJobStatus {
                status: Some("RUNNING".to_owned()),
                ..ImageExportJobStatus::default()
            };
            assert_eq!(status, expected, "{unreadable}");
        }
    }

    #[test]
    fn a_time_that_can_be_read_is_written_again_in_the_form_of_the_crd() {
        for (read, written) in [
            ("2024-11-06T06:46:51Z", "2024-11-06T06:46:51Z"),
            (
                "2024-11-06T06:46:51.987654321+01:00",
                "2024-11-06T05:46:51Z",
            ),
        ] {
            let fields = json!({ "startTime": read, "completionTime": read });
            let status: ImageExportJobStatus = serde_json::from_value(fields).unwrap();
            let fields = json!({ "startTime": written, "completionTime": written });
            assert_eq!(serde_json::to_value(status).unwrap(), fields);
        }
    }
}
