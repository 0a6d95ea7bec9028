//! Tasks with a timeout and with panics caught, and what stands for their missing results.

use futures::FutureExt;
use image_export_model::{Failure, FailureKind, Stage};
use std::{panic::AssertUnwindSafe, time::Duration};
use tokio::time::timeout;

/// Runs `task` for at most `limit`.
pub(crate) async fn contain<T>(
    limit: Duration,
    task: impl Future<Output = T>,
    on_panic: impl FnOnce(),
) -> Result<T, Failure> {
    match timeout(limit, AssertUnwindSafe(task).catch_unwind()).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) => {
            on_panic();
            tracing::error!("internal error: the task panicked");
            let message = "the operator hit an internal error; see its log".to_owned();
            Err(failure(FailureKind::Internal, message))
        }
        Err(_) => {
            let message = format!("no result within {} s", limit.as_secs());
            Err(failure(FailureKind::Timeout, message))
        }
    }
}

pub(crate) fn failure(kind: FailureKind, message: String) -> Failure {
    Failure {
        kind,
        stage: Stage::Login,
        message: message.into(),
    }
}
