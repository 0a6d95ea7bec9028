//! What the user sees: the `ImageExportJob` resource, its conditions, and the CRD made from them.
//!
//! Everything here is declaration. The package `image-export-core` decides what a status contains.

pub mod conditions;
pub mod crd;

mod v1alpha1;

pub use image_export_model::{CloudName, JobId, ProjectId, SecretName};
pub use v1alpha1::{CloudCredentialsRef, ImageExportJob, ImageExportJobSpec, ImageExportJobStatus};

/// The name under which the operator writes: field manager and reporting controller.
pub const MANAGER: &str = "image-export-operator";

/// A new value of this annotation (at most [`POLL_REQUEST_MAX_BYTES`]) causes one poll at once and
/// is echoed in `status.lastHandledPollRequest`.
pub const POLL_REQUEST_ANNOTATION: &str = "imageexport.dev/poll-requested-at";

/// Longest value of [`POLL_REQUEST_ANNOTATION`] that is accepted, in bytes.
pub const POLL_REQUEST_MAX_BYTES: usize = 64;
