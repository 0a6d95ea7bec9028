//! Short forms for the outcomes of a poll.

use image_export_model::{
    ConfigurationError, ConfigurationReason, Failure, FailureKind, Outcome, Stage,
};

pub(crate) fn configuration_error(
    reason: ConfigurationReason,
    message: String,
) -> ConfigurationError {
    ConfigurationError {
        reason,
        message: message.into(),
    }
}

pub(crate) fn misconfigured(reason: ConfigurationReason, message: String) -> Outcome {
    Outcome::Misconfigured(configuration_error(reason, message))
}

pub(crate) fn failed(stage: Stage, kind: FailureKind, message: String) -> Outcome {
    Outcome::Failed(Failure {
        kind,
        stage,
        message: message.into(),
    })
}
