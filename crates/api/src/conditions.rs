//! Condition types and reasons: the contract with kubectl, Flux, Argo CD, Helm and everything else
//! that waits. `docs/conditions.md` has the table; [`image_export_core::verdict`] applies it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

// Not `metav1.Condition`: that type carries no constraints into a CRD, and reading a foreign
// condition's time and writing it back would lose its fraction.
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
    /// one, the condition does not speak of the current spec.
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

/// Types of the conditions that this operator owns. Conditions of any other type are never touched.
pub mod types {
    /// True once the job has succeeded and its image is known; what `kubectl wait`, Flux and
    /// Argo CD wait for. Always present once the object was seen.
    pub const READY: &str = "Ready";
    /// How the job itself ended. Always present once the object was seen.
    pub const SUCCEEDED: &str = "Succeeded";
    /// Present (True) while the operator works towards an end.
    pub const RECONCILING: &str = "Reconciling";
    /// Present (True) where nothing will change without somebody's doing. Never beside Reconciling.
    pub const STALLED: &str = "Stalled";

    /// All of them, in the order in which they are written.
    pub const ALL: [&str; 4] = [READY, SUCCEEDED, RECONCILING, STALLED];
}

/// Reasons, one for each row of the conditions table.
pub mod reasons {
    /// Row 0b: no answer yet.
    pub const PENDING: &str = "Pending";
    /// Row 1: Secret, key or cloud entry missing.
    pub const CREDENTIALS_NOT_FOUND: &str = "CredentialsNotFound";
    /// Row 1: credentials unreadable, incomplete or rejected.
    pub const CREDENTIALS_INVALID: &str = "CredentialsInvalid";
    /// Row 1: signed in, but not permitted.
    pub const ACCESS_DENIED: &str = "AccessDenied";
    /// Row 1b: endpoint unknown or wrong.
    pub const ENDPOINT_INVALID: &str = "EndpointInvalid";
    /// Row 1b: endpoint forbidden by the operator's configuration.
    pub const ENDPOINT_NOT_ALLOWED: &str = "EndpointNotAllowed";
    /// Row 1c: the cloud refuses the request itself.
    pub const REQUEST_REJECTED: &str = "RequestRejected";
    /// Row 2: `INIT`.
    pub const JOB_INITIALIZING: &str = "JobInitializing";
    /// Row 3: `RUNNING`.
    pub const JOB_RUNNING: &str = "JobRunning";
    /// Row 3e: polls have been failing for a while.
    pub const POLL_FAILED: &str = "PollFailed";
    /// Row 3d: not finished within `spec.deadlineSeconds`.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    /// Row 4: `SUCCESS`, and the image id is known (or the job type has none).
    pub const JOB_SUCCEEDED: &str = "JobSucceeded";
    /// Row 4a: `SUCCESS`, image id not there yet.
    pub const IMAGE_ID_PENDING: &str = "ImageIDPending";
    /// Row 4b: `SUCCESS`, the image id never came.
    pub const IMAGE_ID_MISSING: &str = "ImageIDMissing";
    /// Row 5: `FAIL`.
    pub const JOB_FAILED: &str = "JobFailed";
    /// Row 6: a status word nobody documented.
    pub const JOB_STATUS_UNRECOGNIZED: &str = "JobStatusUnrecognized";
    /// Rows 7 and 7a: the cloud does not know the job.
    pub const JOB_NOT_FOUND: &str = "JobNotFound";
    /// Row 8: `spec.suspend`.
    pub const SUSPENDED: &str = "Suspended";
}
