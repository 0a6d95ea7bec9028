//! The error answers of the services.
//!
//! Codes and texts of IMS and gateway are the published ones unless a line says constructed. Those of
//! the identity service are Keystone's.

use super::{Answer, Quota};

pub(super) fn unauthorized(cause: &str) -> Answer {
    let message = format!("Incorrect IAM authentication information: {cause}");
    Answer::gateway_error(401, "APIGW.0301", &message)
}

pub(super) fn token_missing() -> Answer {
    unauthorized("x-auth-token not found")
}

pub(super) fn token_undecryptable() -> Answer {
    unauthorized("decrypt token fail")
}

pub(super) fn token_expired() -> Answer {
    Answer::gateway_error(401, "APIGW.0307", "The token must be updated.")
}

pub(super) fn signature_wrong() -> Answer {
    unauthorized("verify aksk signature fail")
}

pub(super) fn project_mismatch() -> Answer {
    Answer::ims_error(
        400,
        "IMG.0030",
        "The project ID and token in the request are invalid.",
    )
}

/// Constructed: the published table has the code and text, with 400, but none for an unknown job.
pub(super) fn job_not_found() -> Answer {
    Answer::ims_error(404, "IMG.0121", "The object cannot be found.")
}

pub(super) fn api_not_published() -> Answer {
    Answer::gateway_error(
        404,
        "APIGW.0101",
        "The API does not exist or has not been published in the environment",
    )
}

pub(super) fn login_refused() -> Answer {
    Answer::keystone_error(
        401,
        "Unauthorized",
        "The request you have made requires authentication.",
    )
}

/// With the name of the key, as published.
pub(super) fn key_unknown(access_key: &str) -> Answer {
    unauthorized(&format!(
        "Get secretKey failed,ak:{access_key},err:ak not exist"
    ))
}

pub(super) fn key_locked() -> Answer {
    unauthorized("AK access failed to reach the limit,forbidden.")
}

pub(super) fn signature_expired() -> Answer {
    unauthorized("calc ak sk signature fail:signature expired")
}

/// Constructed.
pub(super) fn security_token_wrong() -> Answer {
    unauthorized("verify aksk signature fail, X-Security-Token is missing or wrong")
}

pub(super) fn iam_unavailable() -> Answer {
    Answer::gateway_error(
        503,
        "APIGW.0613",
        "The IAM service is currently unavailable.",
    )
}

pub(super) fn throttling_text(quota: Quota) -> String {
    format!(
        "The throttling threshold has been reached: policy ip over ratelimit,limit:{},time:{} second",
        quota.requests,
        quota.per.as_secs_f64()
    )
}

pub(super) fn throttled(quota: Quota) -> Answer {
    Answer::gateway_error(429, "APIGW.0308", &throttling_text(quota))
}

pub(super) fn method_unsupported() -> Answer {
    unauthenticated("Attempted to authenticate with an unsupported method.")
}

/// Keystone shows this text in its debug mode alone, so that it is constructed for a public cloud.
pub(super) fn account_locked(user_id: &str) -> Answer {
    unauthenticated(&format!("The account is locked for user: {user_id}."))
}

pub(super) fn credential_scoped() -> Answer {
    unauthenticated(
        "Error authenticating with application credential: \
         Application credentials cannot request a scope.",
    )
}

pub(super) fn credential_unknown(credential: &str) -> Answer {
    not_found(&format!(
        "Could not find Application Credential: {credential}."
    ))
}

/// Constructed: agencies are no part of Keystone.
pub(super) fn agency_unknown(agency: &str) -> Answer {
    not_found(&format!("Could not find agency: {agency}."))
}

pub(super) fn agency_forbidden() -> Answer {
    Answer::keystone_error(
        403,
        "Forbidden",
        "You are not authorized to perform the requested action: assume_role.",
    )
}

fn unauthenticated(message: &str) -> Answer {
    Answer::keystone_error(401, "Unauthorized", message)
}

fn not_found(message: &str) -> Answer {
    Answer::keystone_error(404, "Not Found", message)
}
