//! The state behind the probes: live while the control loop turns, ready once all objects were
//! listed.

use image_export_core::Source;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The control loop is stuck if it has not turned for this long.
const STUCK: Duration = Duration::from_secs(60);

/// Shared between the loop, the watches and the probes.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    /// Milliseconds from `started` to the last turn of the control loop.
    last_beat: AtomicU64,
    listed: AtomicBool,
    /// What keeps each watch from working.
    problems: Mutex<BTreeMap<Source, String>>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            last_beat: AtomicU64::new(0),
            listed: AtomicBool::new(false),
            problems: Mutex::default(),
        }
    }
}

impl Health {
    /// Call it on each turn of the control loop.
    pub fn beat(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_beat.store(elapsed, Ordering::Relaxed);
    }

    /// Call it when all objects were listed once.
    pub fn set_listed(&self) {
        self.listed.store(true, Ordering::Relaxed);
    }

    /// Whether all objects were listed once.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// Call it when a watch works.
    pub fn watch_works(&self, source: Source) {
        self.problems().remove(&source);
    }

    /// Call it when a watch fails; `problem` is for people.
    pub fn watch_fails(&self, source: Source, problem: String) {
        self.problems().insert(source, problem);
    }

    fn problems(&self) -> std::sync::MutexGuard<'_, BTreeMap<Source, String>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `Err` says why the process should be restarted.
    pub fn live(&self) -> Result<(), String> {
        let last_beat = Duration::from_millis(self.last_beat.load(Ordering::Relaxed));
        let silence = self.started.elapsed().saturating_sub(last_beat);
        if silence > STUCK {
            return Err(format!(
                "the control loop has not turned for {} s",
                silence.as_secs()
            ));
        }
        Ok(())
    }

    /// `Err` says what keeps the operator from working.
    pub fn ready(&self) -> Result<(), String> {
        if self.is_listed() {
            // A later outage of the API server is not fixed by a restart of the operator.
            return Ok(());
        }
        let problems = self.problems();
        if problems.is_empty() {
            return Err("ImageExportJobs are being listed".to_owned());
        }
        Err(problems.values().cloned().collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn the_operator_is_live_until_the_loop_has_not_turned_for_a_minute() {
        let health = Health::default();
        for _ in 0..3 {
            advance(STUCK).await;
            assert_eq!(health.live(), Ok(()));
            health.beat();
        }
        advance(STUCK + Duration::from_secs(1)).await;
        let problem = "the control loop has not turned for 61 s";
        assert_eq!(health.live(), Err(problem.to_owned()));
        health.beat();
        assert_eq!(health.live(), Ok(()));
    }

    #[test]
    fn readiness_names_what_is_missing() {
        let health = Health::default();
        assert!(health.live().is_ok());
        assert_eq!(
            health.ready(),
            Err("ImageExportJobs are being listed".to_owned())
        );
        health.watch_fails(Source(0), "all namespaces: apply the CRD".to_owned());
        assert_eq!(
            health.ready(),
            Err("all namespaces: apply the CRD".to_owned())
        );
        health.watch_works(Source(0));
        health.set_listed();
        assert_eq!(health.ready(), Ok(()));
        health.watch_fails(Source(0), "gone".to_owned());
        assert_eq!(
            health.ready(),
            Ok(()),
            "an outage of the API server leaves the operator ready"
        );
    }
}
