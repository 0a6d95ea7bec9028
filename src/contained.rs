//! Tasks with a timeout and with panics caught, and what stands for their missing results.

use futures::FutureExt;
use image_export_model::{Failure, FailureKind, Stage};
use std::{panic::AssertUnwindSafe, time::Duration};
use tokio::time::timeout;

/// Runs `task` for at most `limit`. `on_panic` is to call [`log_panic`] on whosever behalf the task ran.
pub(crate) async fn contain<T>(
    limit: Duration,
    task: impl Future<Output = T>,
    on_panic: impl FnOnce(),
) -> Result<T, Failure> {
    match timeout(limit, AssertUnwindSafe(task).catch_unwind()).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) => {
            on_panic();
            let message = "the operator hit an internal error; see its log".to_owned();
            Err(failure(FailureKind::Internal, message))
        }
        Err(_) => {
            let message = format!("no result within {} s", limit.as_secs());
            Err(failure(FailureKind::Timeout, message))
        }
    }
}

pub(crate) fn log_panic() {
    tracing::error!("internal error: the task panicked");
}

pub(crate) fn failure(kind: FailureKind, message: String) -> Failure {
    Failure {
        kind,
        stage: Stage::Login,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::time::{Instant, sleep};

    const LIMIT: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn a_task_has_its_time_and_no_more() {
        let started = Instant::now();
        let just_in_time = async {
            sleep(LIMIT).await;
            "done"
        };
        let result = contain(LIMIT, just_in_time, || panic!("no panic")).await;
        assert_eq!(result, Ok("done"));

        let late = contain(LIMIT, pending::<()>(), || panic!("no panic")).await;
        assert_eq!(started.elapsed().as_secs(), 2 * LIMIT.as_secs());
        let message = "no result within 15 s".to_owned();
        assert_eq!(late, Err(failure(FailureKind::Timeout, message)));
    }

    #[tokio::test]
    async fn a_panic_is_reported_and_becomes_a_failure() {
        let mut reported = 0;
        let task = async { panic!("of the task") };
        let result: Result<(), _> = contain(LIMIT, task, || reported += 1).await;
        let message = "the operator hit an internal error; see its log".to_owned();
        assert_eq!(result, Err(failure(FailureKind::Internal, message)));
        assert_eq!(reported, 1);
    }
}
