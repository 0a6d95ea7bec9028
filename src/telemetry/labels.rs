//! The values of labels. Each is counted from the start, so that a rate sees the first of its kind.

use image_export_core::phase::Phase;

pub(super) const OUTCOMES: [&str; 15] = [
    "answered",
    "not_found",
    "throttled",
    "deferred",
    "credentials_not_found",
    "credentials_invalid",
    "access_denied",
    "endpoint_invalid",
    "endpoint_not_allowed",
    "request_rejected",
    "http_error",
    "malformed",
    "timeout",
    "network",
    "internal",
];
pub(super) const SECRET_READS: [&str; 6] = [
    "usable",
    "credentials_not_found",
    "credentials_invalid",
    "endpoint_invalid",
    "endpoint_not_allowed",
    "failed",
];
/// Of a status write or a deletion that did not do what it should.
pub(super) const NO_CHANGES: [&str; 6] = [
    "conflict",
    "gone",
    "throttled",
    "refused",
    "unknown",
    "failed",
];
pub(super) const WRITTEN: &str = "written";
pub(super) const DELETED: &str = "deleted";
pub(super) const WATCH_ERRORS: [&str; 6] = [
    "renewed",
    "unreachable",
    "api_error",
    "unauthorized",
    "forbidden",
    "crd_missing",
];
pub(super) const EVENTS: [&str; 3] = ["posted", "failed", "dropped"];
pub(super) const CLASSES: [&str; 14] = [
    "success",
    "redirect",
    "unauthorized",
    "forbidden",
    "not_found",
    "throttled",
    "client_error",
    "server_error",
    "other",
    "not_allowed",
    "malformed",
    "timeout",
    "network",
    "internal",
];
pub(super) const CREDENTIALS: [&str; 5] =
    ["unread", "usable", "rejected", "login_failed", "broken"];
/// Phases that are an end: from here on nothing changes by itself, though a job beyond its deadline may still end.
pub const ENDS: [Phase; 5] = [
    Phase::JobSucceeded,
    Phase::JobFailed,
    Phase::ImageIdMissing,
    Phase::JobNotFound,
    Phase::DeadlineExceeded,
];
/// Those in which the cloud has reported the begin and the end of the job.
pub(super) const TIMED_ENDS: [Phase; 2] = [Phase::JobSucceeded, Phase::JobFailed];
