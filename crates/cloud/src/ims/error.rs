//! What an answer means that is not a well-formed 200: by HTTP status **and** code.
//!
//! Statuses and codes are those of the public documentation of IMS and of the API gateway; all others
//! count as transient. `tests/error_table.rs` has the table.

use crate::{
    outcome::{failed, misconfigured},
    wire::error_body::ErrorBody,
};
use image_export_model::{ConfigurationReason, FailureKind, Outcome, Stage};
use std::fmt;

/// A token or signature that was not accepted, in the cloud's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// For example "401 APIGW.0307".
    pub(crate) answer: String,
    /// The cause, as far as code and text report it.
    pub(crate) cause: Option<&'static str>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.answer)?;
        self.cause.map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

/// Classifies an answer that is not a well-formed 200. `host` names the endpoint in messages. An `Err` is a
/// token or signature that was not accepted.
pub(crate) fn classify(host: &str, status: u16, error: &ErrorBody) -> Result<Outcome, Rejection> {
    use ConfigurationReason::{AccessDenied, EndpointInvalid, RequestRejected};
    let answer = error.describe(status);
    if error.is_throttling(status) {
        return Ok(Outcome::Throttled);
    }
    let (reason, message) = match status {
        400 | 401 if status == 401 || error.is("IMG.0030") || error.is("IMG.0087") => {
            let cause = rejection_cause(error);
            return Err(Rejection { answer, cause });
        }
        // "Exception inside the job query": by its documentation an error of the cloud.
        400 if error.is("IMG.0023") => return Ok(transient(host, &answer, error)),
        // The published table of codes lists this one with 400 as well.
        400 | 403 if status == 403 || error.is("IMG.0026") => (
            AccessDenied,
            format!(
                "{host} denies access ({answer}); grant the user a role that may read IMS jobs in this project"
            ),
        ),
        404 if error.is_by_ims => return Ok(Outcome::JobNotFound),
        // Without a code of the image service nothing shows that it was asked: whatever stands in front of it, or
        // in its place, answers an unknown path or host with 404.
        404 => (
            EndpointInvalid,
            match error.responder {
                Some(server) => format!(
                    "{host} does not offer the image job API ({answer} from {server}); check the endpoint, image_endpoint_override, image_job_path and the region"
                ),
                None => format!(
                    "{host} answered {answer} without a code of the image service, as a gateway, load balancer or ingress does; check the endpoint, image_endpoint_override, the region and jobID"
                ),
            },
        ),
        300..=399 => (
            EndpointInvalid,
            format!(
                "{host} redirects to another address ({answer}), which is never followed; name the final endpoint"
            ),
        ),
        // 494: that of the API gateway for the same.
        431 | 494 => (
            RequestRejected,
            format!(
                "{host} finds the request's headers too long ({answer}), most likely for its token; set image_endpoint_override, with which the login requests a token without a catalog"
            ),
        ),
        407 | 408 => return Ok(transient(host, &answer, error)),
        400..=499 | 501 => (
            RequestRejected,
            format!("{host} refused the request ({answer}); check projectID and jobID"),
        ),
        _ => return Ok(transient(host, &answer, error)),
    };
    Ok(misconfigured(reason, message))
}

fn transient(host: &str, answer: &str, error: &ErrorBody) -> Outcome {
    let message = match error.responder {
        _ if error.is_by_ims => format!("{host} answered {answer} from the image service"),
        Some(server) => format!("{host} answered {answer} from {server}"),
        None => format!("{host} answered {answer} without a code of the image service"),
    };
    failed(Stage::Query, FailureKind::Http, message)
}

/// Several causes share `APIGW.0301`; only the text distinguishes them.
fn rejection_cause(error: &ErrorBody) -> Option<&'static str> {
    let text = error.text.to_ascii_lowercase();
    let cause = match error.known_code? {
        "IMG.0030" => "project id and token do not match",
        "IMG.0087" => "the token is wrong",
        "APIGW.0307" => "the token has expired or belongs to another region",
        "APIGW.0301" if text.contains("signature expired") => {
            "the clock of this cluster and the cloud's differ by more than 15 minutes"
        }
        "APIGW.0301" if text.contains("not exist") => "the access key does not exist",
        "APIGW.0301" if text.contains("verify aksk signature fail") => {
            "the secret key does not fit the access key"
        }
        "APIGW.0301" if text.contains("failed to reach the limit") => {
            "the access key is locked for some minutes after too many wrong signatures"
        }
        "APIGW.0301" if text.contains("decrypt token fail") => {
            "the token is dead or belongs to another cloud"
        }
        _ => return None,
    };
    Some(cause)
}
