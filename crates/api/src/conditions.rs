//! Condition types and reasons: the contract with kubectl, Flux, Argo CD, Helm and everything else
//! that waits. `docs/conditions.md` has the table; the package `image-export-core` decides which
//! reason holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most conditions that a status can have, those owned by others included.
pub const CONDITIONS_MAX: usize = 64;

// Not `metav1.Condition`: that type carries no constraints into a CRD, and parsing the time of a
// condition owned by others and writing it back would lose its fraction of a second.
/// One aspect of the object's state, in the form of metav1.Condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition, in CamelCase or in foo.example.com/CamelCase.
    #[serde(rename = "type")]
    #[schemars(
        length(max = 316),
        regex(
            pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
        )
    )]
    pub type_: String,

    /// Status of the condition: True, False or Unknown.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,

    /// The metadata.generation that the condition was set for. Where it is lower than the current
    /// one, the condition does not describe the current spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,

    /// When the status of the condition last changed.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub last_transition_time: String,

    /// Why the status is what it is, as one CamelCase word for programs.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    )]
    pub reason: String,

    /// Why the status is what it is, as a sentence for people; may be empty.
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// Types of the conditions that this operator owns. Conditions owned by others are never changed.
pub mod types {
    /// True once the job has succeeded and its image is known; what `kubectl wait`, Flux and
    /// Argo CD wait for. Always present once the object was seen.
    pub const READY: &str = "Ready";
    /// How the job itself ended. Always present once the object was seen.
    pub const SUCCEEDED: &str = "Succeeded";
    /// Present (True) while the operator polls and waits for a change.
    pub const RECONCILING: &str = "Reconciling";
    /// Present (True) where a person has to act or to look. Never beside Reconciling.
    pub const STALLED: &str = "Stalled";

    /// All of them, in the order in which they are written.
    pub const ALL: [&str; 4] = [READY, SUCCEEDED, RECONCILING, STALLED];
}

/// Reasons: one for each phase of an object. `Ready` gives the reason, and so do the other
/// conditions, except that `Succeeded` gives `JobSucceeded` beside `ImageIDMissing`.
pub mod reasons {
    /// The object was seen, and no poll has been answered within 10 seconds.
    pub const PENDING: &str = "Pending";
    /// The Secret, its key or the entry of clouds.yaml is missing, or the operator may not read it.
    pub const CREDENTIALS_NOT_FOUND: &str = "CredentialsNotFound";
    /// The credentials are unreadable or incomplete, or the cloud rejects them.
    pub const CREDENTIALS_INVALID: &str = "CredentialsInvalid";
    /// The cloud accepts the credentials, but they lack the permission to read the job.
    pub const ACCESS_DENIED: &str = "AccessDenied";
    /// The endpoint is unknown, unusable or not the image service's.
    pub const ENDPOINT_INVALID: &str = "EndpointInvalid";
    /// The operator's own configuration does not allow the endpoint.
    pub const ENDPOINT_NOT_ALLOWED: &str = "EndpointNotAllowed";
    /// The cloud rejects the request itself.
    pub const REQUEST_REJECTED: &str = "RequestRejected";
    /// The cloud reports `INIT`: the job is accepted and has not started.
    pub const JOB_INITIALIZING: &str = "JobInitializing";
    /// The cloud reports `RUNNING`.
    pub const JOB_RUNNING: &str = "JobRunning";
    /// Polls have been failing for some minutes; the operator retries with backoff.
    pub const POLL_FAILED: &str = "PollFailed";
    /// A poll has been due for minutes: it waits for the quota, or the cloud asks to wait.
    pub const POLL_OVERDUE: &str = "PollOverdue";
    /// The job was not seen to end within `spec.deadlineSeconds`.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    /// The cloud reports `SUCCESS`, and the image id is known or the job type has none.
    pub const JOB_SUCCEEDED: &str = "JobSucceeded";
    /// The cloud reports `SUCCESS`, but no image id yet.
    pub const IMAGE_ID_PENDING: &str = "ImageIDPending";
    /// The cloud reported `SUCCESS`, and further polls brought no image id.
    pub const IMAGE_ID_MISSING: &str = "ImageIDMissing";
    /// The cloud reports `FAIL`.
    pub const JOB_FAILED: &str = "JobFailed";
    /// The cloud reports a status that this version of the operator does not recognize.
    pub const JOB_STATUS_UNRECOGNIZED: &str = "JobStatusUnrecognized";
    /// The cloud finds no such job: within a grace period beside Reconciling, after it beside Stalled.
    pub const JOB_NOT_FOUND: &str = "JobNotFound";
    /// `spec.suspend` is true, and the job has not ended.
    pub const SUSPENDED: &str = "Suspended";
}
